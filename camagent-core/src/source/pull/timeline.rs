//! The times of one RTSP session's frames: RTP time, which begins anywhere in each session, on the agent's own clock.
//!
//! The first frame of a session is now; from there RTP time counts. The tracks share this base, so that they stay together.

/// A track whose own zero is further than this from what its arrival says has another zero than the first track.
const FAR_US: i64 = 5_000_000;
/// A step of RTP time against the clock, from one frame to the next, that is no jitter but another clock in the camera.
const STEP_US: i64 = 5_000_000;

/// The clocks of a session.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    base_us: Option<i64>,
    tracks: Vec<Option<Track>>,
}

#[derive(Debug)]
struct Track {
    offset_us: i64,
    last_us: i64,
    last_now_us: i64,
}

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// On the agent's clock.
    pub(super) time_us: i64,
    /// It does not follow the frame before it.
    pub(super) breaks: bool,
}

/// RTP ticks since the session's zero as microseconds.
pub(super) fn micros(ticks: i64, rate: u32) -> i64 {
    let micros = i128::from(ticks) * 1_000_000 / i128::from(rate.max(1));
    micros.clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64
}

impl Timeline {
    /// The place of a frame of track `index` that came at `now_us`, `elapsed_us` behind the session's zero.
    pub(super) fn place(&mut self, index: usize, now_us: i64, elapsed_us: i64) -> Place {
        let base_us = *self.base_us.get_or_insert(now_us - elapsed_us);
        if self.tracks.len() <= index {
            self.tracks.resize_with(index + 1, || None);
        }
        let track = &mut self.tracks[index];
        let Some(track) = track else {
            let by_zero = base_us + elapsed_us;
            // A track that begins at exactly 0 has a zero of its own as a rule: the camera did not tell a common one.
            let trusted = elapsed_us != 0 && (by_zero - now_us).abs() < FAR_US;
            let time_us = if trusted { by_zero } else { now_us };
            *track = Some(Track { offset_us: time_us - elapsed_us, last_us: time_us, last_now_us: now_us });
            return Place { time_us, breaks: true };
        };
        let mut time_us = track.offset_us + elapsed_us;
        let step_us = (time_us - track.last_us) - (now_us - track.last_now_us);
        let breaks = step_us.abs() > STEP_US;
        if breaks {
            time_us = now_us;
            track.offset_us = time_us - elapsed_us;
        }
        (track.last_us, track.last_now_us) = (time_us, now_us);
        Place { time_us, breaks }
    }
}

/// A point of the agent's clock in signed microseconds.
pub(super) fn now_us() -> i64 {
    i64::try_from(crate::clock::now().as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time_us: i64, breaks: bool) -> Place {
        Place { time_us, breaks }
    }

    #[test]
    fn tracks_with_a_common_zero_keep_their_distance() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.place(1, 1_000_000, 20_000), at(1_000_000, true));
        // The picture is 100 ms late on the network, and stands where RTP says.
        assert_eq!(timeline.place(0, 1_600_000, 520_000), at(1_500_000, true));
        assert_eq!(timeline.place(0, 1_601_000, 560_000), at(1_540_000, false));
        assert_eq!(timeline.place(1, 1_700_000, 40_000), at(1_020_000, false));
    }

    #[test]
    fn a_track_with_a_zero_of_its_own_is_placed_by_its_arrival() {
        let mut timeline = Timeline::default();
        timeline.place(1, 1_000_000, 0);
        assert_eq!(timeline.place(0, 2_500_000, 0), at(2_500_000, true));
        assert_eq!(timeline.place(0, 2_540_000, 40_000), at(2_540_000, false));
        assert_eq!(timeline.place(2, 3_000_000, 77_000_000_000), at(3_000_000, true));
    }

    #[test]
    fn a_camera_that_sets_its_clock_breaks_the_line_once() {
        let mut timeline = Timeline::default();
        timeline.place(0, 0, 0);
        timeline.place(0, 40_000, 40_000);
        assert_eq!(timeline.place(0, 80_000, 9_000_000_000), at(80_000, true));
        assert_eq!(timeline.place(0, 120_000, 9_000_040_000), at(120_000, false));
        assert_eq!(timeline.place(0, 160_000, -9_000_000_000), at(160_000, true));
        // A pause of the network is no step: time went by on both sides.
        assert_eq!(timeline.place(0, 60_160_000, -8_940_000_000), at(60_160_000, false));
    }

    #[test]
    fn ticks_of_any_size_are_micros() {
        assert_eq!(micros(90_000, 90_000), 1_000_000);
        assert_eq!(micros(-8, 8_000), -1_000);
        for ticks in [i64::MIN, i64::MAX] {
            let mut timeline = Timeline::default();
            timeline.place(0, 0, micros(ticks, 0));
            timeline.place(0, i64::MAX / 8, micros(-(ticks / 2), 1));
        }
    }
}

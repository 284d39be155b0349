//! From the camera's clock to continuous media time, and from media time to UTC.
//!
//! Cameras' clocks jump (NTP sets them years ahead, firmware restarts its encoder at zero), viewers' RTP time must not.
//! One offset is shared by the tracks of a source, so lip-sync stays exact; when a track's time stamps and the agent's
//! arrival stamps disagree by more than [`STEP_US`], the offset is moved so that media time goes on by arrival. The
//! second track then finds that the first one's new offset fits and takes it. Time stamps that go back a little
//! (B-frames) are no step and are passed on as they are.

/// A disagreement between two clocks that is a step of one of them, not jitter.
pub const STEP_US: i64 = 2_000_000;

/// Half of the sliding window of the UTC estimate.
const WINDOW_US: u64 = 15_000_000;

/// The time stamps of one frame.
#[derive(Clone, Copy, Debug)]
pub struct Stamps {
    /// The camera's presentation time, any origin.
    pub pts_us: i64,
    /// The agent's boot-time clock when the frame was handed over.
    pub arrival_us: u64,
    /// The server's monotonic clock now.
    pub received_us: u64,
    /// The server's estimate of UTC at `arrival_us`, from heartbeats, or the server's own clock now when none came yet.
    pub utc_us: i64,
}

/// A frame placed in media time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Media time, starts near zero and never jumps.
    pub media_us: i64,
    /// True when the camera's clock stepped with this frame.
    pub stepped: bool,
}

/// The clocks of one source.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    offset_us: Option<i64>,
    tracks: Vec<Option<TrackClock>>,
    anchor: Option<Anchor>,
    rebase: bool,
    utc: UtcEstimate,
}

#[derive(Clone, Copy, Debug)]
struct TrackClock {
    offset_us: i64,
    pts_us: i64,
    arrival_us: u64,
}

/// The furthest point of the source in all its clocks.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    media_us: i64,
    arrival_us: u64,
    received_us: u64,
}

impl Timeline {
    /// The agent booted anew: neither its arrival clock nor the camera's need have anything to do with what was before.
    /// Media time goes on by the server's clock.
    pub fn rebase(&mut self) {
        if self.anchor.is_some() {
            self.rebase = true;
        }
        self.offset_us = None;
        self.tracks.clear();
    }

    /// Places one frame of track number `track`.
    pub fn place(&mut self, track: usize, stamps: Stamps) -> Placed {
        if self.tracks.len() <= track {
            self.tracks.resize(track + 1, None);
        }
        let expected = self.expected(stamps);
        let mut stepped = false;
        let offset = match (self.tracks[track], self.offset_us) {
            (Some(clock), _) if clock.agrees(stamps) => clock.offset_us,
            (_, Some(shared)) if differs_little(stamps.pts_us.saturating_add(shared), expected) => shared,
            (clock, _) => {
                // The first frame of a track cannot be a step: it only keeps another clock than its brother.
                stepped = clock.is_some();
                let offset = expected.saturating_sub(stamps.pts_us);
                self.offset_us = Some(offset);
                offset
            }
        };
        self.tracks[track] =
            Some(TrackClock { offset_us: offset, pts_us: stamps.pts_us, arrival_us: stamps.arrival_us });
        let media_us = stamps.pts_us.saturating_add(offset);
        if self.rebase || self.anchor.is_none_or(|anchor| media_us >= anchor.media_us) {
            self.anchor = Some(Anchor { media_us, arrival_us: stamps.arrival_us, received_us: stamps.received_us });
        }
        self.rebase = false;
        self.utc.sample(stamps.received_us, stamps.utc_us.saturating_sub(media_us));
        Placed { media_us, stepped }
    }

    /// UTC at a media time; none before the first frame.
    #[must_use]
    pub fn utc_us(&self, media_us: i64) -> Option<i64> {
        self.utc.value().map(|offset| offset.saturating_add(media_us))
    }

    /// Where a frame with these stamps should lie if only arrival counted.
    fn expected(&self, stamps: Stamps) -> i64 {
        let Some(anchor) = self.anchor else { return 0 };
        let elapsed = if self.rebase {
            stamps.received_us.saturating_sub(anchor.received_us)
        } else {
            stamps.arrival_us.saturating_sub(anchor.arrival_us)
        };
        anchor.media_us.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

impl TrackClock {
    fn agrees(&self, stamps: Stamps) -> bool {
        let camera = stamps.pts_us.saturating_sub(self.pts_us);
        let agent = i64::try_from(i128::from(stamps.arrival_us) - i128::from(self.arrival_us)).unwrap_or(i64::MAX);
        differs_little(camera, agent)
    }
}

fn differs_little(one: i64, other: i64) -> bool {
    one.abs_diff(other) <= STEP_US.unsigned_abs()
}

/// UTC minus media time. Delay only ever adds, so the smallest sample of the last 15 to 30 seconds is the best one.
#[derive(Clone, Debug, Default)]
struct UtcEstimate {
    began_us: u64,
    current: Option<i64>,
    previous: Option<i64>,
}

impl UtcEstimate {
    fn sample(&mut self, now_us: u64, offset_us: i64) {
        if now_us.saturating_sub(self.began_us) > WINDOW_US {
            self.previous = self.current.take();
            self.began_us = now_us;
        }
        self.current = Some(self.current.map_or(offset_us, |best| best.min(offset_us)));
    }

    fn value(&self) -> Option<i64> {
        match (self.current, self.previous) {
            (Some(current), Some(previous)) => Some(current.min(previous)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pts_us: i64, arrival_us: u64) -> Stamps {
        Stamps { pts_us, arrival_us, received_us: arrival_us + 5, utc_us: 1_700_000_000_000_000 + arrival_us as i64 }
    }

    #[test]
    fn tracks_of_one_clock_share_one_offset() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.place(0, at(5_000_000, 100)).media_us, 0);
        assert_eq!(timeline.place(1, at(5_003_000, 4_000)).media_us, 3_000);
        assert_eq!(timeline.place(0, at(5_040_000, 40_100)).media_us, 40_000);
    }

    #[test]
    fn b_frames_go_back_and_stay_back() {
        let mut timeline = Timeline::default();
        timeline.place(0, at(0, 0));
        assert_eq!(timeline.place(0, at(120_000, 40_000)).media_us, 120_000);
        let back = timeline.place(0, at(40_000, 80_000));
        assert_eq!(back, Placed { media_us: 40_000, stepped: false });
    }

    #[test]
    fn a_step_goes_on_by_arrival_and_lip_sync_survives_it() {
        let mut timeline = Timeline::default();
        timeline.place(0, at(0, 0));
        timeline.place(1, at(10_000, 10_000));
        let year = 31_536_000_000_000;
        let video = timeline.place(0, at(year + 40_000, 41_000));
        assert!(video.stepped);
        assert_eq!(video.media_us, 41_000);
        // An audio frame from before the step, then one after it.
        assert_eq!(timeline.place(1, at(31_000, 42_000)), Placed { media_us: 31_000, stepped: false });
        let audio = timeline.place(1, at(year + 52_000, 53_000));
        assert!(!audio.stepped, "takes the offset its brother found");
        assert_eq!(audio.media_us - video.media_us, 12_000, "exactly the camera's distance");
    }

    #[test]
    fn a_step_back_goes_on_as_well() {
        let mut timeline = Timeline::default();
        timeline.place(0, at(9_000_000_000, 0));
        timeline.place(0, at(9_000_040_000, 40_000));
        let placed = timeline.place(0, at(0, 80_000));
        assert_eq!(placed, Placed { media_us: 80_000, stepped: true });
        assert_eq!(timeline.place(0, at(40_000, 120_000)), Placed { media_us: 120_000, stepped: false });
    }

    #[test]
    fn a_gap_in_both_clocks_is_a_gap_and_no_step() {
        let mut timeline = Timeline::default();
        timeline.place(0, at(0, 0));
        assert_eq!(timeline.place(0, at(60_000_000, 60_000_000)), Placed { media_us: 60_000_000, stepped: false });
    }

    #[test]
    fn a_new_boot_goes_on_by_the_servers_clock() {
        let mut timeline = Timeline::default();
        let mut stamps = at(7_000_000, 900_000_000);
        stamps.received_us = 1_000_000;
        timeline.place(0, stamps);
        timeline.rebase();
        let mut stamps = at(123, 50);
        stamps.received_us = 4_000_000;
        assert_eq!(timeline.place(0, stamps).media_us, 3_000_000);
        let mut stamps = at(1_123, 1_050);
        stamps.received_us = 4_001_000;
        assert_eq!(timeline.place(1, stamps).media_us, 3_001_000);
    }

    #[test]
    fn utc_takes_the_least_delayed_sample_and_forgets_old_ones() {
        let mut timeline = Timeline::default();
        let utc = 1_700_000_000_000_000;
        for (index, delay) in [90_000, 2_000, 50_000].into_iter().enumerate() {
            let media = index as i64 * 40_000;
            let stamps = Stamps {
                pts_us: media,
                arrival_us: media as u64,
                received_us: media as u64,
                utc_us: utc + media + delay,
            };
            timeline.place(0, stamps);
        }
        assert_eq!(timeline.utc_us(80_000), Some(utc + 80_000 + 2_000));
        // The encoder's clock runs slow against UTC: the estimate follows within the window.
        for second in 1..60_i64 {
            let media = second * 1_000_000;
            let utc_us = utc + media + 500_000;
            timeline.place(0, Stamps { pts_us: media, arrival_us: media as u64, received_us: media as u64, utc_us });
        }
        assert_eq!(timeline.utc_us(0), Some(utc + 500_000));
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let mut timeline = Timeline::default();
        for pts_us in [i64::MIN, i64::MAX, 0, i64::MIN, -1] {
            for arrival_us in [u64::MAX, 0, 1] {
                timeline.place(0, Stamps { pts_us, arrival_us, received_us: arrival_us, utc_us: i64::MIN });
                timeline.place(1, Stamps { pts_us, arrival_us, received_us: 0, utc_us: i64::MAX });
            }
        }
    }
}

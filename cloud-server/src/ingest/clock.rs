//! From the camera's clock to UTC, one for all tracks of a source, so that lip-sync stays exact in files.
//!
//! Each frame says what UTC was when it was pushed, which is late by what the encoder took, and that varies. The smallest
//! difference to the camera's own time is the best one; the estimate follows it slowly, at most [`SLEW`], so that time in files
//! never jumps because a clock was corrected a little. A difference of more than [`STEP_US`] is a step of one of the clocks: then
//! time goes on at the new place, and a new file begins. What was before a step may still come, beside what is live: the estimates of the last
//! steps are kept, and each frame is dated by the one that it is near to.

/// A difference that is a step and no jitter.
const STEP_US: i64 = 2_000_000;
/// Parts of a million that the estimate moves by.
const SLEW: i64 = 500;
/// The smallest difference is looked for over so much time.
const WINDOW_US: i64 = 10_000_000;

/// Estimates that are kept: of live frames, and of what is sent again of the times before the last steps.
const MOST_STATES: usize = 4;

/// UTC minus the camera's clock.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceClock {
    /// The one that was used last is the last.
    states: Vec<State>,
    /// How many there have been.
    steps: u32,
}

#[derive(Clone, Copy, Debug)]
struct State {
    offset_us: i64,
    /// Which step it began with.
    step: u32,
    window_began_us: i64,
    best_us: i64,
}

impl SourceClock {
    /// Takes a frame's times; gives UTC minus the camera's clock, and which step of one of them that holds since.
    pub(super) fn sample(&mut self, pts_us: i64, utc_us: i64) -> (i64, u32) {
        let seen = utc_us.saturating_sub(pts_us);
        let near = |state: &State| seen.abs_diff(state.offset_us) <= STEP_US.unsigned_abs();
        let Some(index) = self.states.iter().rposition(near) else {
            if self.states.len() >= MOST_STATES {
                self.states.remove(0);
            }
            let step = self.steps;
            self.steps = self.steps.wrapping_add(1);
            self.states.push(State { offset_us: seen, step, window_began_us: pts_us, best_us: seen });
            return (seen, step);
        };
        self.states[index..].rotate_left(1);
        let last = self.states.len() - 1;
        let state = &mut self.states[last];
        state.best_us = state.best_us.min(seen);
        let elapsed = pts_us.saturating_sub(state.window_began_us);
        if !(0..WINDOW_US).contains(&elapsed) {
            let most = elapsed.clamp(0, WINDOW_US * 6) / 1_000_000 * SLEW;
            state.offset_us += (state.best_us - state.offset_us).clamp(-most, most);
            (state.window_began_us, state.best_us) = (pts_us, seen);
        }
        (state.offset_us, state.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_moves_nothing_and_drift_is_followed_slowly() {
        let mut clock = SourceClock::default();
        let mut last = clock.sample(0, 1_000_000_000).0;
        for index in 1..6_000_i64 {
            let pts = index * 40_000;
            // 100 ppm of drift, and up to 90 ms of jitter that only ever adds.
            let utc = 1_000_000_000 + pts + pts / 10_000 + (index * 37 % 10) * 10_000;
            let (offset, steps) = clock.sample(pts, utc);
            assert_eq!(steps, 0);
            assert!((offset - last).abs() <= 5_000, "{offset} after {last}");
            last = offset;
        }
        let truth = 1_000_000_000 + 240_000_000 / 10_000;
        assert!((last - truth).abs() < 20_000, "{last} is not near {truth}");
    }

    #[test]
    fn a_step_is_counted_and_followed_at_once() {
        let mut clock = SourceClock::default();
        clock.sample(0, 1_000);
        assert_eq!(clock.sample(40_000, 3_600_041_000), (3_600_001_000, 1));
        assert_eq!(clock.sample(-5, i64::MAX).1, 2);
        clock.sample(i64::MIN, i64::MAX);
    }

    #[test]
    fn what_was_before_a_step_and_what_is_live_are_dated_side_by_side() {
        let mut clock = SourceClock::default();
        for index in 0..1_000_i64 {
            let pts = index * 40_000;
            assert_eq!(clock.sample(pts, 9_000_000_000 + pts), (9_000_000_000, 0), "sent again");
            assert_eq!(
                clock.sample(77_000_000_000 + pts, 9_600_000_000 + pts),
                (-67_400_000_000, 1),
                "live, after a restart"
            );
        }
        for step in 0..100 {
            clock.sample(0, step * 10_000_000);
            assert!(clock.states.len() <= MOST_STATES);
        }
    }
}

//! An even time for what is shown. Files date their frames by an estimate of UTC minus the camera's clock that is corrected now and then, by
//! milliseconds, and what was sent late was dated at another moment than what lies before and behind it: a player would see each of these as
//! a jump. The camera's clock knows no jumps. So a run of the agent keeps the difference that its first sample had, for pictures and sound
//! alike; who shows it for days lets it follow what the files say, too slowly to be seen.
//!
//! A difference that is far from all those known is a step of a clock, and another difference.

use super::samples::Sample;
use crate::ingest::TrackKey;

/// Two differences that are further apart are not of one time.
const NEAR_US: u64 = 2_000_000;
/// Differences that are known at once.
const MOST: usize = 16;

/// UTC minus the camera's clock, of some runs of agents.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    known: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    agent: String,
    boot: [u8; 16],
    /// What samples are placed by.
    offset_us: i64,
    /// What the files said last.
    seen_us: i64,
}

impl Pace {
    /// Dates a sample of a track.
    pub(super) fn place(&mut self, key: &TrackKey, sample: &mut Sample) {
        let seen_us = sample.utc_us.saturating_sub(sample.camera_us);
        let is_near = |known: &&mut Known| {
            known.boot == key.boot && known.agent == key.agent && known.seen_us.abs_diff(seen_us) <= NEAR_US
        };
        let offset_us = match self.known.iter_mut().rev().find(is_near) {
            Some(known) => {
                known.seen_us = seen_us;
                known.offset_us
            }
            None => {
                if self.known.len() == MOST {
                    self.known.remove(0);
                }
                let (agent, boot) = (key.agent.clone(), key.boot);
                self.known.push(Known { agent, boot, offset_us: seen_us, seen_us });
                seen_us
            }
        };
        sample.utc_us = sample.camera_us.saturating_add(offset_us);
    }

    /// Follows what the files said last, by so much at most.
    pub(super) fn follow(&mut self, most_us: i64) {
        for known in &mut self.known {
            known.offset_us += known.seen_us.saturating_sub(known.offset_us).clamp(-most_us, most_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(pace: &mut Pace, boot: u8, camera_us: i64, utc_us: i64) -> i64 {
        let key = TrackKey { agent: "a".into(), boot: [boot; 16], track: 0, epoch: 1 };
        let mut sample =
            Sample { sequence: 0, utc_us, camera_us, composition_us: 0, lasts_us: 40, key: true, at: 0, bytes: 1 };
        pace.place(&key, &mut sample);
        sample.utc_us
    }

    #[test]
    fn corrections_are_no_jumps_and_steps_are() {
        let mut pace = Pace::default();
        assert_eq!(placed(&mut pace, 1, 100, 7_000_100), 7_000_100);
        assert_eq!(placed(&mut pace, 1, 40_100, 7_045_100), 7_040_100, "corrected by 5 ms");
        assert_eq!(placed(&mut pace, 1, 80_100, 9_080_100), 9_080_100 - 2_000_000, "near is near");
        assert_eq!(placed(&mut pace, 2, 80_100, 7_080_100), 7_080_100, "another run");
        assert_eq!(placed(&mut pace, 1, 120_100, 99_000_000), 99_000_000, "the clock was set");
        pace.follow(100);
        assert_eq!(placed(&mut pace, 2, 120_100, 7_120_100), 7_120_100);
        assert_eq!(placed(&mut pace, 1, 160_100, 9_160_100), 7_160_200, "slowly there");
        for boot in 3..100 {
            assert_eq!(placed(&mut pace, boot, 0, i64::MAX), i64::MAX);
        }
        assert_eq!(pace.known.len(), MOST);
    }
}

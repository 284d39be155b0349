//! Whether somebody else uses the agent's id: two agents that do replace each other in turns, every minute or two. One replacement now and then is no
//! sign of it: an operator who starts a second daemon by mistake, a camera that was swapped.
//!
//! A value: replacements go in with their times, what to tell the operator comes out. What does not belong here: how long who was replaced stays away
//! (`net::backoff`).

use std::time::Duration;

use camagent_proto::Instant;

/// So many replacements …
const TURNS: usize = 3;
/// … within this time are a fight: each of the two waits 30 to 60 s, and dials.
const WITHIN: Duration = Duration::from_secs(600);
/// A fight that goes on is told again this often.
const TELL_EVERY: Duration = Duration::from_secs(3_600);

/// The last replacements.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    /// The newest last.
    last: Vec<Instant>,
    told_at: Option<Instant>,
}

impl Replaced {
    /// A newer connection took over; `true` when the operator should know.
    pub(super) fn happened(&mut self, now: Instant) -> bool {
        self.last.retain(|at| now.saturating_since(*at) <= WITHIN);
        self.last.push(now);
        if self.last.len() > TURNS {
            self.last.remove(0);
        }
        let tells = self.last.len() == TURNS && self.told_at.is_none_or(|at| now.saturating_since(at) >= TELL_EVERY);
        if tells {
            self.told_at = Some(now);
        }
        tells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(every_s: u64, count: u64) -> Vec<u64> {
        let mut replaced = Replaced::default();
        (1..=count).filter(|turn| replaced.happened(Instant::from_micros(turn * every_s * 1_000_000))).collect()
    }

    #[test]
    fn a_fight_is_told_at_its_third_turn_and_each_hour_again() {
        assert_eq!(told(90, 60), [3, 43]);
        assert_eq!(told(240, 4), [3], "both far away, and slow to dial");
    }

    #[test]
    fn replacements_of_long_ago_are_no_fight() {
        assert!(told(24 * 3_600, 1_000).is_empty());
        assert!(told(301, 100).is_empty());
    }
}

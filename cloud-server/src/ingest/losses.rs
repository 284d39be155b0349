//! Tells of lost frames together: a short uplink may cost some each second, and nobody reads a line for each.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::GapReason;
use crate::event::{Event, Events};

/// Frames that were lost and not told yet, by camera, source and reason.
#[derive(Default)]
pub struct Losses {
    waiting: BTreeMap<(String, String, GapReason), u64>,
    told_at: Option<u64>,
}

impl Losses {
    /// They are told so often.
    pub const PACE: Duration = Duration::from_secs(1);

    /// Frames are lost. What went as it was meant to, and what was stored after all, is no loss.
    pub fn add(&mut self, camera: &str, source: &str, reason: GapReason, frames: u64) {
        if frames > 0 && reason != GapReason::REMOVED {
            *self.waiting.entry((camera.to_owned(), source.to_owned(), reason)).or_default() += frames;
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Tells what has gathered, when it is time; `now_us` is monotonic.
    pub fn tell(&mut self, now_us: u64, events: &Events) {
        let pace = u64::try_from(Self::PACE.as_micros()).unwrap_or(u64::MAX);
        if !self.waiting.is_empty() && self.told_at.is_none_or(|at| now_us >= at.saturating_add(pace)) {
            self.told_at = Some(now_us);
            self.tell_all(events);
        }
    }

    /// Tells what has gathered.
    pub fn tell_all(&mut self, events: &Events) {
        for ((camera, source, reason), frames) in std::mem::take(&mut self.waiting) {
            events.emit(Event::FramesLost { camera, source, reason: reason.name(), frames });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_once_a_second_and_none_is_forgotten() {
        let (events, mut losses) = (Events::new(), Losses::default());
        for step in 0..100 {
            losses.add("cam", "main", GapReason::STORAGE, 2);
            losses.add("cam", "main", GapReason::REMOVED, 9);
            losses.tell(step * 100_000, &events);
        }
        assert_eq!(events.count("frames_lost"), 10);
        assert!(!losses.is_empty());
        losses.tell_all(&events);
        assert_eq!(events.lost(), [("storage", 200)].into());
    }
}

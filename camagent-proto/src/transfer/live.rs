//! Live first: where a track goes on when what it would send next has grown old in an outage.
//!
//! Video goes on at the newest key frame, or, where all since the outage is one GOP, at the next one, which the encoder is asked for; audio at what came
//! within the last second. What lies before is left to the backlog, so that it comes beside the live frames and not before them.
//! What waited for a second or less is live still: a short break of the connection makes no hole for those who watch.
//!
//! What does not belong here: who keeps what is left, and brings it (`Journal::leave`, `backfill`); frames that are too late for anybody (`late`).

use super::Journal;
use crate::time::{Duration, Instant};

/// What came longer ago is not live any more. Audio of that age waits with the video of its source, oldest first.
pub(super) const LIVE: Duration = Duration::from_secs(1);

/// Where a track is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) track: u32,
    pub(super) epoch: u64,
    /// The number that would be sent next.
    pub(super) next: u64,
}

/// Where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Where it is: that is live.
    Here,
    /// At this number.
    At(u64),
    /// At a key frame that is still to come.
    AtNextKey,
    /// There is nothing to go by yet.
    Later,
}

/// Finds out where an epoch goes on; `is_over` when its track has left it.
pub(super) fn begin(place: Place, is_audio: bool, is_over: bool, now: Instant, journal: &mut dyn Journal) -> Begin {
    let Place { track, epoch, next } = place;
    let is_live = |arrival_us: u64| now.saturating_since(Instant::from_micros(arrival_us)) <= LIVE;
    let Some(first) = journal.find(track, epoch, next) else { return Begin::Later };
    if is_live(first.head.arrival_us) {
        return Begin::Here;
    }
    if is_over {
        return Begin::At(journal.end(track, epoch));
    }
    if is_audio {
        let mut at = first.sequence + 1;
        return loop {
            match journal.find(track, epoch, at) {
                Some(entry) if is_live(entry.head.arrival_us) => break Begin::At(entry.sequence),
                Some(entry) => at = entry.sequence + 1,
                None => break Begin::At(at),
            }
        };
    }
    match journal.newest_key(track, epoch) {
        Some(key) if key > first.sequence => Begin::At(key),
        _ => Begin::AtNextKey,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::{frame::FrameHead, transfer::Entry};

    /// Frames of one epoch: when they came, in seconds, and whether they are key frames.
    struct Frames(Vec<(u64, bool)>);

    impl Frames {
        fn entry(&self, at: usize) -> Option<Entry> {
            let &(seconds, key) = self.0.get(at)?;
            let head = FrameHead { key, arrival_us: seconds * 1_000_000, ..FrameHead::default() };
            Some(Entry { sequence: at as u64, head, length: 1 })
        }
    }

    impl Journal for Frames {
        fn find(&mut self, _: u32, _: u64, sequence: u64) -> Option<Entry> {
            self.entry(sequence as usize)
        }

        fn newest_key(&mut self, _: u32, _: u64) -> Option<u64> {
            self.0.iter().rposition(|(_, key)| *key).map(|at| at as u64)
        }

        fn end(&mut self, _: u32, _: u64) -> u64 {
            self.0.len() as u64
        }

        fn copy(&mut self, _: u32, _: u64, _: u64, _: u64, _: &mut [u8]) -> bool {
            false
        }

        fn received(&mut self, _: u32, _: u64, _: u64) {}
    }

    /// Where it goes on from `next` at ten seconds.
    fn at_ten(frames: &mut Frames, next: u64, is_audio: bool, is_over: bool) -> Begin {
        let now = Instant::from_micros(10_000_000);
        begin(Place { track: 0, epoch: 1, next }, is_audio, is_over, now, frames)
    }

    #[test]
    fn video_goes_on_at_the_newest_key_frame_or_waits_for_one() {
        let mut frames = Frames((0..10).map(|seconds| (seconds, seconds % 4 == 0)).collect());
        assert_eq!(at_ten(&mut frames, 2, false, false), Begin::At(8));
        assert_eq!(at_ten(&mut frames, 8, false, false), Begin::AtNextKey, "it is the newest one, and old");
        assert_eq!(at_ten(&mut frames, 9, false, false), Begin::Here, "a second is live");
        assert_eq!(at_ten(&mut frames, 10, false, false), Begin::Later);
        assert_eq!(at_ten(&mut frames, 2, false, true), Begin::At(10), "what is over is past as a whole");
    }

    #[test]
    fn audio_goes_on_with_what_came_within_the_last_second() {
        let mut frames = Frames((0..10).map(|seconds| (seconds, true)).collect());
        assert_eq!(at_ten(&mut frames, 2, true, false), Begin::At(9));
        frames.0.truncate(7);
        assert_eq!(at_ten(&mut frames, 2, true, false), Begin::At(7), "the next one that comes");
        assert_eq!(at_ten(&mut frames, 7, true, false), Begin::Later);
    }
}

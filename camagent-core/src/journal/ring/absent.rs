//! Why numbers have no frame, where no frame behind them tells of it: those that were refused, and those that were thinned at the end of a range that
//! the live reader left, whose next frame goes before the range is brought.
//!
//! What does not belong here: what was thinned before a frame that stays is noted at that frame; what is noted nowhere had no room.

use camagent_proto::frame::SkipReason;

use super::{Hole, Journal, Range};

/// Ranges that are remembered, of all tracks; of more the oldest is told as what had no room.
pub(super) const MAX_ABSENT: usize = 256;

/// Numbers of an epoch that have no frame, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absent {
    track: u32,
    epoch: u64,
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) reason: SkipReason,
}

impl Absent {
    fn is_of(&self, track: u32, epoch: u64) -> bool {
        (self.track, self.epoch) == (track, epoch)
    }
}

impl Journal {
    /// Remembers why a range has no frames; what goes on where another one ends becomes one with it.
    pub(super) fn note_absent(&mut self, track: u32, epoch: u64, (first, end): Range, reason: SkipReason) {
        let is_known =
            |one: &Absent| one.is_of(track, epoch) && one.reason == reason && one.first <= first && one.end >= end;
        if first >= end || self.absent.iter().any(is_known) {
            return;
        }
        let goes_on = |one: &&mut Absent| one.is_of(track, epoch) && (one.end, one.reason) == (first, reason);
        if let Some(before) = self.absent.iter_mut().rev().find(goes_on) {
            before.end = end;
            return;
        }
        if self.absent.len() >= MAX_ABSENT {
            self.absent.pop_front();
        }
        self.absent.push_back(Absent { track, epoch, first, end, reason });
    }

    /// The first of an epoch that ends behind a number.
    pub(super) fn absent_from(&self, track: u32, epoch: u64, number: u64) -> Option<Absent> {
        let own = |one: &&Absent| one.is_of(track, epoch) && one.end > number;
        self.absent.iter().filter(own).min_by_key(|one| one.first).copied()
    }

    /// The server needs nothing of an epoch below a number.
    pub(super) fn forget_absent(&mut self, track: u32, epoch: u64, next: u64) {
        self.absent.retain(|one| !one.is_of(track, epoch) || one.end > next);
    }

    /// Numbers of an epoch below `next` that have another reason than that there was no room, the nearest cause first.
    pub(super) fn holes(&self, track: u32, epoch: u64, next: u64, thinned: Range) -> Vec<Hole> {
        let own = |one: &&Absent| one.is_of(track, epoch) && one.first < next;
        let absent = self.absent.iter().filter(own).map(|one| (one.first, one.end, one.reason));
        let thinned = (thinned.0 < thinned.1).then_some((thinned.0, thinned.1, SkipReason::Thinned));
        absent.chain(thinned).collect()
    }

    /// The same of all of an epoch that its track has left, as far as no frame behind it is held.
    pub(crate) fn holes_at_end(&self, track: u32, epoch: u64) -> Vec<Hole> {
        self.holes(track, epoch, u64::MAX, self.thinned_at_end(track, epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_in_the_order_of_their_numbers_and_forgotten_when_they_were_told() {
        use SkipReason::{Refused, Thinned};
        let mut journal = Journal::new(1_000).unwrap();
        for (range, reason) in
            [((7, 9), Refused), ((2, 4), Thinned), ((4, 5), Thinned), ((3, 5), Thinned), ((9, 9), Thinned)]
        {
            journal.note_absent(0, 1, range, reason);
        }
        let found =
            |journal: &Journal, number| journal.absent_from(0, 1, number).map(|one| (one.first, one.end, one.reason));
        assert_eq!(
            [0, 4, 5, 9].map(|number| found(&journal, number)),
            [Some((2, 5, Thinned)), Some((2, 5, Thinned)), Some((7, 9, Refused)), None]
        );
        assert_eq!((journal.absent.len(), journal.absent_from(1, 1, 0), journal.absent_from(0, 2, 0)), (2, None, None));
        journal.forget_absent(0, 1, 5);
        assert_eq!(found(&journal, 0), Some((7, 9, Refused)));
    }
}

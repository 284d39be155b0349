//! Frames that get a number and are not kept: the server hears of them by a SKIP, with the reason that `absent` remembers.
//!
//! Those that are refused one after the other are told together, with the next frame that is kept: a SKIP for each would be more than a server bears.

use camagent_proto::frame::SkipReason;

use super::{Journal, Link};

/// So many frames that are refused in a row are told without waiting for one that is kept.
const TOGETHER: u64 = 128;

impl Journal {
    /// The next frame of a track is let go of before it is copied, because another source is kept.
    pub(crate) fn pass(&mut self, track: u32) {
        self.settle(track);
        if let Some(chain) = self.chains.get_mut(track as usize) {
            chain.end += 1;
            chain.needs_key |= chain.is_video;
        }
    }

    /// The next frame of a track is not taken. It gets its number with those that follow it: see [`Journal::settle`].
    pub(crate) fn refuse(&mut self, track: u32, reason: SkipReason) {
        let Some(chain) = self.chains.get_mut(track as usize) else { return };
        if chain.refusing.is_some_and(|(why, count)| why != reason || count >= TOGETHER) {
            self.settle(track);
        }
        let refusing = &mut self.chains[track as usize].refusing;
        *refusing = Some((reason, refusing.map_or(1, |(_, count)| count + 1)));
    }

    /// What was refused of a track gets its numbers, so that it is told.
    pub(crate) fn settle(&mut self, track: u32) {
        let Some(chain) = self.chains.get_mut(track as usize) else { return };
        let Some((reason, count)) = chain.refusing.take() else { return };
        let (epoch, first, end) = (chain.epoch, chain.end, chain.end + count);
        chain.end = end;
        if reason == SkipReason::OverBudget {
            // The reason of everything of which nothing else is known.
            return;
        }
        self.note_absent(track, epoch, (first, end), reason);
    }

    /// The number that the next frame of a track gets.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn next_number(&self, track: u32) -> u64 {
        let chain = self.chains.get(track as usize);
        chain.map_or(0, |chain| chain.end + chain.refusing.map_or(0, |(_, count)| count))
    }

    /// Times of arrival of a track's oldest and newest frame, in microseconds.
    pub(crate) fn span(&self, track: u32) -> Option<(u64, u64)> {
        let chain = self.chains.get(track as usize)?;
        let at = |index: Link| Some(self.slot(index?).head.arrival_us);
        Some((at(chain.first)?, at(chain.last)?))
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::{frame::FrameHead, transfer::Journal as _};

    use super::super::absent::MAX_ABSENT;
    use super::*;

    const KEY: FrameHead =
        FrameHead { key: true, arrival_us: 5, pts_us: 0, dts_us: 0, disposable: false, discontinuity: false };

    fn journal() -> Journal {
        let mut journal = Journal::new(1_000).unwrap();
        journal.begin_epoch(0, 1, true);
        journal
    }

    #[test]
    fn a_frame_that_is_passed_leaves_a_hole() {
        let mut journal = journal();
        assert_eq!(journal.span(0), None);
        journal.push(0, KEY, &[1; 10]);
        journal.pass(0);
        assert!(journal.needs_key(0));
        journal.push(0, FrameHead { arrival_us: 9, ..KEY }, &[1; 10]);
        assert!(!journal.needs_key(0));
        assert_eq!((journal.find(0, 1, 1).unwrap().sequence, journal.end(0, 1)), (2, 3));
        assert_eq!((journal.span(0), journal.span(9_999)), (Some((5, 9)), None));
    }

    #[test]
    fn what_is_refused_is_told_with_the_next_frame_and_each_part_with_its_reason() {
        use SkipReason::{OverBudget, Refused, TooLarge};
        let mut journal = journal();
        journal.push(0, KEY, &[1; 10]);
        for reason in [TooLarge, TooLarge, Refused, OverBudget, Refused] {
            journal.refuse(0, reason);
        }
        assert_eq!((journal.end(0, 1), journal.next_number(0)), (5, 6), "the last one waits for company");
        journal.push(0, KEY, &[1; 10]);
        assert_eq!((journal.end(0, 1), journal.find(0, 1, 1).unwrap().sequence), (7, 6));
        let told = [1, 2, 3, 4, 5].map(|number| journal.missing(0, 1, number));
        assert_eq!(told, [(TooLarge, 2), (TooLarge, 2), (Refused, 3), (OverBudget, 4), (Refused, 5)]);
        let copied = journal.find_out(1, |_, _| true).unwrap();
        assert_eq!(copied.holes, [(1, 3, TooLarge), (3, 4, Refused), (5, 6, Refused)]);
        // The end of an epoch settles what waits, and the server's word forgets it.
        journal.refuse(0, TooLarge);
        journal.begin_epoch(0, 2, true);
        assert_eq!((journal.end(0, 1), journal.missing(0, 1, 7)), (8, (TooLarge, 7)));
        assert_eq!(journal.holes_at_end(0, 1).len(), 4);
        journal.received(0, 1, 7);
        assert_eq!(journal.holes_at_end(0, 1), [(7, 8, TooLarge)]);
    }

    #[test]
    fn a_long_row_is_told_in_parts_and_memory_of_reasons_has_a_bound() {
        let mut journal = journal();
        (0..300).for_each(|_| journal.refuse(0, SkipReason::TooLarge));
        assert_eq!((journal.end(0, 1), journal.missing(0, 1, 0)), (256, (SkipReason::TooLarge, 255)));
        journal.push(0, KEY, &[1; 10]);
        assert_eq!((journal.end(0, 1), journal.missing(0, 1, 0)), (301, (SkipReason::TooLarge, 299)));
        for _ in 0..2 * MAX_ABSENT {
            journal.refuse(0, SkipReason::Refused);
            journal.push(0, KEY, &[1; 10]);
        }
        assert_eq!((journal.absent.len(), journal.missing(0, 1, 0).0), (MAX_ABSENT, SkipReason::OverBudget));
    }
}

//! What the live reader left behind it after an outage: it stays in memory, is brought beside the live frames, and goes when the server has stored it.
//!
//! Of an epoch that is one range of numbers. The live reader frees what is behind it, and what it has freed there is no part of the range again
//! when that grows: it came. What does not belong here: lanes on the wire (`camagent_proto`), what is on flash (`journal::flash`).

use camagent_proto::{
    frame::{SkipReason, TrackInfo},
    transfer::{self, Entry},
};

use super::{Index, Journal, Range};

/// Parts of one range that the live reader brought: an epoch goes through so many outages before what is left of the first one has come. Then it is
/// read in its order.
const MAX_BROUGHT: usize = 256;

/// A range of an epoch that is to be brought.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(crate) info: TrackInfo,
    /// All below is stored.
    pub(crate) first: u64,
    /// Where the live reader went on.
    pub(crate) end: u64,
    /// The track has left the epoch, and nothing comes behind the range.
    pub(crate) is_over: bool,
    /// The server needs nothing behind the range below this number.
    freed: u64,
    /// What the live reader brought in the middle of it.
    brought: Vec<Range>,
}

impl Past {
    fn is_of(&self, track: u32, epoch: u64) -> bool {
        (self.info.track, self.info.epoch) == (track, epoch)
    }

    fn holds(&self, track: u32, epoch: u64, sequence: u64) -> bool {
        self.is_of(track, epoch) && (self.first..self.end).contains(&sequence)
    }
}

/// All ranges, and how far they were read.
#[derive(Debug, Default)]
pub(super) struct Pasts {
    ranges: Vec<Past>,
    generation: u64,
    /// The reader has passed all frames with a smaller number among all.
    passed: u64,
    /// Nothing of the ranges is behind that.
    is_at_end: bool,
}

impl Pasts {
    fn changed(&mut self) {
        self.generation += 1;
        (self.passed, self.is_at_end) = (0, false);
    }

    pub(super) fn of(&self, track: u32, epoch: u64) -> Option<&Past> {
        self.ranges.iter().find(|past| past.is_of(track, epoch))
    }

    /// Where the live reader went on behind a frame of a range: nothing before that is referred to from there.
    pub(super) fn edge(&self, track: u32, epoch: u64, sequence: u64) -> Option<u64> {
        let past = self.ranges.iter().find(|past| past.holds(track, epoch, sequence))?;
        let brought = past.brought.iter().map(|(first, _)| *first).filter(|first| *first > sequence).min();
        Some(brought.unwrap_or(past.end))
    }
}

impl Journal {
    /// See [`transfer::Journal::leave`].
    pub(crate) fn leave(&mut self, info: &TrackInfo, from: u64, to: u64, is_over: bool) -> bool {
        let (track, epoch) = (info.track, info.epoch);
        let known = self.pasts.ranges.iter_mut().find(|past| past.is_of(track, epoch));
        match known {
            Some(past) if from == to => {
                if to < past.end {
                    // The live reader has come back: what it freed behind the range is gone, and of what it reads again nothing is free.
                    (past.end, past.is_over, past.freed) = (to, false, 0);
                    self.pasts.changed();
                    self.forget_done();
                }
            }
            None if from == to => {}
            Some(past) => {
                if past.freed > past.end {
                    if past.brought.len() == MAX_BROUGHT {
                        return false;
                    }
                    past.brought.push((past.end, past.freed.min(to)));
                }
                // What lies before its beginning is stored, whatever the live reader has heard of that.
                (past.end, past.is_over) = (to, is_over);
                past.info.clone_from(info);
                self.pasts.changed();
            }
            None => {
                let (info, first, end, freed) = (info.clone(), from, to, 0);
                self.pasts.ranges.push(Past { info, first, end, is_over, freed, brought: Vec::new() });
                self.pasts.changed();
            }
        }
        true
    }

    /// Grows whenever there are other ranges than before, or they are to be read anew.
    pub(crate) fn past_generation(&self) -> u64 {
        self.pasts.generation
    }

    /// What is to be brought.
    pub(crate) fn pasts(&self) -> &[Past] {
        &self.pasts.ranges
    }

    /// All that is there is read again.
    pub(crate) fn rewind_past(&mut self) {
        self.pasts.changed();
    }

    /// The oldest frame of what is to be brought that was not passed.
    pub(crate) fn look_past(&mut self) -> Option<(u32, u64, Entry)> {
        if self.pasts.is_at_end || self.pasts.ranges.is_empty() {
            return None;
        }
        let pasts = std::mem::take(&mut self.pasts.ranges);
        let holds = |track, epoch, sequence| pasts.iter().any(|past| past.holds(track, epoch, sequence));
        let found = self.seek_out(self.pasts.passed, holds);
        self.pasts.ranges = pasts;
        self.pasts.is_at_end = found.is_none();
        let slot = self.slot(found?);
        let entry = Entry { sequence: slot.sequence, head: slot.head, length: slot.place.length() as u64 };
        Some((slot.track, slot.epoch, entry))
    }

    /// Copies octets of the frame that was looked at, from `offset` on into all of `into`; `false` when it has gone since.
    pub(crate) fn copy_past(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let Some(slot) = self.looked_at(track, epoch, sequence).map(|index| self.slot(index)) else { return false };
        self.copy_out(slot.number, usize::try_from(offset).unwrap_or(usize::MAX), into)
    }

    /// Passes the frame that was looked at.
    pub(crate) fn pass_past(&mut self, track: u32, epoch: u64, sequence: u64) {
        if let Some(index) = self.looked_at(track, epoch, sequence) {
            self.pasts.passed = self.slot(index).number + 1;
        }
    }

    fn looked_at(&self, track: u32, epoch: u64, sequence: u64) -> Option<Index> {
        let index = self.copied_out?;
        let slot = self.slot(index);
        (slot.number != u64::MAX && (slot.track, slot.epoch, slot.sequence) == (track, epoch, sequence))
            .then_some(index)
    }

    /// Nobody wants a range any more.
    pub(crate) fn drop_past(&mut self, track: u32, epoch: u64) {
        if let Some(end) = self.pasts.of(track, epoch).map(|past| past.end) {
            self.stored_past(track, epoch, end);
        }
    }

    /// Why a number will not come, and up to which one that holds, at most to the next one that is there.
    pub(crate) fn missing_past(&mut self, track: u32, epoch: u64, number: u64) -> (SkipReason, u64) {
        let Some(past) = self.pasts.of(track, epoch) else { return (SkipReason::Live, u64::MAX) };
        if number < past.first {
            return (SkipReason::Live, past.first - 1);
        }
        let brought = past.brought.iter().filter(|(_, end)| *end > number).min_by_key(|(first, _)| *first).copied();
        let last = match brought {
            Some((first, end)) if first <= number => return (SkipReason::Live, end - 1),
            Some((first, _)) => first - 1,
            None => u64::MAX,
        };
        let (reason, until) = transfer::Journal::missing(self, track, epoch, number);
        (reason, last.min(until))
    }

    /// The server has stored all of a range below `next`: it may go.
    pub(crate) fn stored_past(&mut self, track: u32, epoch: u64, next: u64) {
        let Some(past) = self.pasts.ranges.iter_mut().find(|past| past.is_of(track, epoch)) else { return };
        past.first = past.first.max(next.min(past.end));
        let first = past.first;
        self.let_go(track, epoch, 0, first);
        self.forget_done();
    }

    /// The server needs nothing of an epoch below `next` of what the live reader brought; whether there is a range that it does need.
    pub(super) fn spare_past(&mut self, track: u32, epoch: u64, next: u64) -> bool {
        let Some(past) = self.pasts.ranges.iter_mut().find(|past| past.is_of(track, epoch)) else { return false };
        let (first, end) = (past.first, past.end);
        if next > end {
            past.freed = past.freed.max(next);
            let thinned = self.locate(track, epoch, end).map_or((0, 0), |index| self.slot(index).thinned);
            if thinned.1 <= end {
                // What tells of it goes before the range is brought.
                self.note_absent(track, epoch, thinned, SkipReason::Thinned);
            }
            self.let_go(track, epoch, end, next);
        }
        self.let_go(track, epoch, 0, first.min(next));
        true
    }

    fn forget_done(&mut self) {
        while let Some(done) = self.pasts.ranges.iter().position(|past| past.first >= past.end) {
            let Past { info, end, freed, .. } = self.pasts.ranges.swap_remove(done);
            transfer::Journal::received(self, info.track, info.epoch, end.max(freed));
        }
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::{frame::FrameHead, transfer::Journal as _};

    use super::*;
    use crate::journal::{Kept, arena::PIECE};

    fn info(epoch: u64) -> TrackInfo {
        TrackInfo {
            track: 0,
            epoch,
            next: 0,
            camera: "gate".into(),
            source: "main".into(),
            codec: 1,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: Default::default(),
        }
    }

    /// Groups of five pictures of ten pieces.
    fn push(journal: &mut Journal, sequence: u64) -> u64 {
        let head = FrameHead { key: sequence.is_multiple_of(5), ..FrameHead::default() };
        match journal.push(0, head, &[sequence as u8; 10 * PIECE]) {
            Kept::Yes { evicted } => evicted,
            Kept::CutAtTail => panic!("{sequence} has no room"),
        }
    }

    fn journal(frames: u64) -> Journal {
        let mut journal = Journal::new(200 * PIECE).unwrap();
        journal.begin_epoch(0, 1, true);
        for sequence in 0..frames {
            push(&mut journal, sequence);
        }
        journal
    }

    /// Reads all that is to be brought, each frame with its octets.
    fn read(journal: &mut Journal) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some((track, epoch, entry)) = journal.look_past() {
            let mut octets = vec![0; entry.length as usize];
            let (front, back) = octets.split_at_mut(PIECE + 7);
            assert!(journal.copy_past(track, epoch, entry.sequence, 0, front));
            assert!(journal.copy_past(track, epoch, entry.sequence, PIECE as u64 + 7, back));
            assert!(octets.iter().all(|octet| *octet == entry.sequence as u8));
            assert!(!journal.copy_past(track, epoch, entry.sequence + 1, 0, &mut [0]), "another was looked at");
            journal.pass_past(track, epoch, entry.sequence);
            numbers.push(entry.sequence);
        }
        numbers
    }

    fn kept(journal: &mut Journal) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(entry) = journal.find(0, 1, numbers.last().map_or(0, |last| last + 1)) {
            numbers.push(entry.sequence);
        }
        numbers
    }

    #[test]
    fn what_was_left_stays_until_it_is_stored_whatever_the_live_reader_frees() {
        let mut journal = journal(12);
        journal.received(0, 1, 2);
        assert!(journal.leave(&info(1), 2, 10, false));
        journal.received(0, 1, 11);
        assert_eq!((kept(&mut journal), journal.freed(0, 1)), ([2, 3, 4, 5, 6, 7, 8, 9, 11].into(), 2));
        assert_eq!((read(&mut journal), journal.look_past()), ((2..10).collect(), None));
        journal.stored_past(0, 1, 7);
        assert_eq!(kept(&mut journal), [7, 8, 9, 11]);
        journal.rewind_past();
        assert_eq!(read(&mut journal), [7, 8, 9]);
        journal.stored_past(0, 1, 10);
        assert_eq!((kept(&mut journal), journal.freed(0, 1), journal.pasts().len()), ([11].into(), 11, 0));
        assert_eq!(journal.missing_past(0, 1, 5), (SkipReason::Live, u64::MAX), "all of it was brought");
    }

    #[test]
    fn a_second_outage_makes_one_range_in_which_what_was_brought_is_no_hole() {
        let mut journal = journal(18);
        journal.leave(&info(1), 0, 5, false);
        journal.received(0, 1, 8);
        let generation = journal.past_generation();
        assert!(journal.leave(&info(1), 8, 15, false) && journal.past_generation() > generation);
        assert_eq!(read(&mut journal), [0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(journal.missing_past(0, 1, 5), (SkipReason::Live, 7));
        journal.received(0, 1, 17);
        journal.stored_past(0, 1, 15);
        assert_eq!((kept(&mut journal), journal.freed(0, 1)), ([17].into(), 17));
    }

    #[test]
    fn a_live_reader_that_comes_back_reads_in_order() {
        let mut journal = journal(12);
        journal.leave(&info(1), 2, 10, false);
        assert!(journal.leave(&info(1), 6, 6, false));
        assert_eq!((read(&mut journal), journal.pasts()[0].end), ([2, 3, 4, 5].into(), 6));
        assert!(journal.leave(&info(1), 0, 0, false) && journal.pasts().is_empty());
        journal.received(0, 1, 12);
        assert_eq!(journal.frames(), 0);
        assert!(journal.leave(&info(2), 0, 0, false) && journal.pasts().is_empty(), "nothing was left");
    }

    #[test]
    fn a_server_whose_store_was_lost_gets_what_it_had_not_stored() {
        let mut journal = journal(12);
        journal.leave(&info(1), 2, 10, false);
        journal.received(0, 1, 11);
        assert!(journal.leave(&info(1), 6, 6, false));
        journal.stored_past(0, 1, 6);
        assert_eq!(kept(&mut journal), [6, 7, 8, 9, 11]);
        journal.leave(&info(1), 6, 10, false);
        journal.received(0, 1, 12);
        assert!(journal.leave(&info(1), 0, 0, false) && journal.pasts().is_empty());
        assert_eq!(kept(&mut journal), [6, 7, 8, 9]);
    }

    #[test]
    fn what_is_thinned_ends_where_the_live_reader_brought_the_next_key_frame() {
        let mut journal = journal(18);
        journal.leave(&info(1), 0, 5, false);
        journal.received(0, 1, 8);
        journal.leave(&info(1), 8, 15, false);
        let evicted: u64 = (18..24).map(|sequence| push(&mut journal, sequence)).sum();
        assert_eq!((evicted, kept(&mut journal)), (4, [0].into_iter().chain(8..24).collect()));
        assert_eq!(journal.missing_past(0, 1, 1), (SkipReason::Thinned, 4));
        assert_eq!(journal.missing_past(0, 1, 5), (SkipReason::Live, 7));
    }

    #[test]
    fn memory_that_is_full_costs_what_was_left_first_and_nothing_that_is_live() {
        let mut journal = journal(18);
        // Live are 15 to 17, whose key frame the server has.
        journal.leave(&info(1), 0, 15, false);
        journal.received(0, 1, 16);
        let mut evicted = 0;
        for sequence in 18..30 {
            evicted += push(&mut journal, sequence);
        }
        assert_eq!(kept(&mut journal), [0, 5, 10].into_iter().chain(16..30).collect::<Vec<_>>());
        assert_eq!(evicted, 12, "they are thinned");
        assert_eq!(
            (journal.missing_past(0, 1, 1), journal.missing_past(0, 1, 12)),
            ((SkipReason::Thinned, 4), (SkipReason::Thinned, 14))
        );
        // Then live pictures go that nobody has read; those of the group that goes on stay.
        assert!(!journal.needs_key(0));
        for sequence in 30..33 {
            push(&mut journal, sequence);
        }
        assert!(kept(&mut journal).ends_with(&[30, 31, 32]) && !journal.needs_key(0));
        let mut journal = self::journal(15);
        journal.leave(&info(1), 0, 10, false);
        journal.received(0, 1, 15);
        journal.begin_epoch(1, 1, false);
        journal.push(1, FrameHead::default(), &[1; 200 * PIECE]);
        assert_eq!((kept(&mut journal), journal.needs_key(0)), (vec![], false), "what comes refers to what came");
        assert_eq!(journal.missing_past(0, 1, 0).0, SkipReason::OverBudget);
    }

    #[test]
    fn the_reason_of_a_hole_at_the_end_outlives_the_live_frame_behind_it() {
        let mut journal = journal(20);
        journal.leave(&info(1), 5, 15, false);
        journal.received(0, 1, 5);
        for sequence in 20..26 {
            push(&mut journal, sequence);
        }
        assert_eq!(kept(&mut journal)[..3], [5, 10, 11]);
        for sequence in 26..30 {
            push(&mut journal, sequence);
        }
        assert_eq!(kept(&mut journal)[..3], [5, 10, 15]);
        journal.received(0, 1, 22);
        assert_eq!(journal.missing_past(0, 1, 12), (SkipReason::Thinned, 14));
    }

    #[test]
    fn the_reason_of_a_hole_at_the_end_is_known_when_nothing_is_behind_it() {
        let mut journal = journal(16);
        journal.leave(&info(1), 0, 15, false);
        journal.received(0, 1, 16);
        journal.begin_epoch(1, 1, false);
        journal.push(1, FrameHead::default(), &[1; 170 * PIECE]);
        assert_eq!(kept(&mut journal), [0, 5, 10]);
        assert_eq!([1, 12].map(|number| journal.missing_past(0, 1, number).0), [SkipReason::Thinned; 2]);
        assert!(journal.leave(&info(1), 0, 0, false) && journal.pasts().is_empty());
        assert_eq!([1, 12].map(|number| journal.missing(0, 1, number).0), [SkipReason::Thinned; 2], "live came back");
    }

    #[test]
    fn epochs_that_are_over_are_left_whole_and_forgotten_when_stored() {
        let mut journal = journal(7);
        journal.begin_epoch(0, 2, true);
        push(&mut journal, 0);
        assert!(journal.leave(&info(1), 0, 7, true));
        journal.received(0, 2, 1);
        assert_eq!(read(&mut journal), [0, 1, 2, 3, 4, 5, 6]);
        assert!(journal.pasts()[0].is_over);
        journal.stored_past(0, 1, 7);
        assert_eq!((journal.frames(), journal.freed(0, 1)), (0, 7));
        journal.leave(&info(2), 1, 1, false);
        journal.drop_past(0, 9);
    }
}

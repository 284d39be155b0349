//! Where the rows of numbers of one track go on. Live frames and those of the past come side by side, each in the order of its numbers: a cursor stands
//! behind the last frame of each row, so that a gap is between the frames that it is between, and not between those that came one after the other.

use super::ledger::GapReason;
use super::ranges::Ranges;

/// Rows of one track: live, a lane of this session, and what is left of former ones.
const MOST: usize = 4;

/// Gaps in a row without a frame between them that wait for its time.
const MOST_PENDING: usize = 64;

/// Numbers that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) reason: GapReason,
    /// UTC of the frame before, if it is known.
    pub(super) from_us: Option<i64>,
    /// UTC of the frame behind, once it came.
    pub(super) to_us: Option<i64>,
}

/// The cursors of a track.
#[derive(Debug, Default)]
pub(super) struct Cursors(Vec<Cursor>);

#[derive(Debug)]
struct Cursor {
    next: u64,
    at_us: Option<i64>,
    /// Behind the last frame; and whether it was told as it is.
    gaps: Vec<(Lost, bool)>,
}

impl Cursors {
    /// A frame is taken; `taken` does not have it yet. Gives the gaps that end with it.
    pub(super) fn frame(&mut self, taken: &Ranges, sequence: u64, at_us: i64) -> Vec<Lost> {
        let cursor = self.at(taken, sequence);
        (cursor.next, cursor.at_us) = (sequence + 1, Some(at_us));
        let gaps = std::mem::take(&mut cursor.gaps).into_iter();
        gaps.map(|(lost, _)| Lost { to_us: Some(at_us.max(lost.from_us.unwrap_or(at_us))), ..lost }).collect()
    }

    /// Numbers are missing; `taken` does not have them yet.
    pub(super) fn gap(&mut self, taken: &Ranges, first: u64, next: u64, reason: GapReason) {
        let cursor = self.at(taken, first);
        cursor.next = next;
        match cursor.gaps.last_mut() {
            Some((last, is_told)) if last.reason == reason && last.next == first => {
                (last.next, *is_told) = (next, false);
            }
            _ => {
                if cursor.gaps.len() >= MOST_PENDING && cursor.gaps[0].1 {
                    // It stays without the time of its end.
                    cursor.gaps.remove(0);
                }
                let lost = Lost { first, next, reason, from_us: cursor.at_us, to_us: None };
                cursor.gaps.push((lost, false));
            }
        }
    }

    /// Gaps that have grown since the last call, and that no frame has followed yet.
    pub(super) fn take_news(&mut self) -> Vec<Lost> {
        let mut news = Vec::new();
        for (lost, is_told) in self.0.iter_mut().flat_map(|cursor| &mut cursor.gaps) {
            if !std::mem::replace(is_told, true) {
                news.push(*lost);
            }
        }
        news
    }

    /// The row that a number continues: everything between is there.
    fn at(&mut self, taken: &Ranges, number: u64) -> &mut Cursor {
        let continues = |cursor: &Cursor| cursor.next <= number && taken.gap_from(cursor.next) >= number;
        let own = (0..self.0.len()).filter(|index| continues(&self.0[*index])).max_by_key(|index| self.0[*index].next);
        let index = match own {
            Some(index) => index,
            None => {
                // The one that was used longest ago; what is missing there was told, or is told once more with the next that is.
                let idle = self.0.iter().position(|cursor| cursor.gaps.iter().all(|(_, is_told)| *is_told));
                if let Some(idle) = idle.filter(|_| self.0.len() >= MOST) {
                    self.0.remove(idle);
                }
                self.0.push(Cursor { next: number, at_us: None, gaps: Vec::new() });
                self.0.len() - 1
            }
        };
        // The newest last.
        let cursor = self.0.remove(index);
        self.0.push(cursor);
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_of_two_rows_have_the_times_of_their_own() {
        let (mut cursors, mut taken) = (Cursors::default(), Ranges::default());
        let mut frame = |cursors: &mut Cursors, number: u64| {
            let ended = cursors.frame(&taken, number, number as i64 * 10);
            taken.insert(number, number + 1);
            ended
        };
        assert!(frame(&mut cursors, 1_000).is_empty());
        assert!(frame(&mut cursors, 100).is_empty());
        // The row of the past has a hole, while the live one goes on.
        cursors.gap(&Ranges::default(), 101, 103, GapReason::STORAGE);
        cursors.gap(&Ranges::default(), 103, 105, GapReason::STORAGE);
        cursors.gap(&Ranges::default(), 105, 106, GapReason::UNREADABLE);
        assert!(frame(&mut cursors, 1_001).is_empty());
        let news = cursors.take_news();
        assert_eq!(news.iter().map(|lost| (lost.first, lost.next)).collect::<Vec<_>>(), [(101, 105), (105, 106)]);
        assert!(cursors.take_news().is_empty(), "told once");
        let ended = frame(&mut cursors, 106);
        assert_eq!(ended.len(), 2);
        assert!(ended.iter().all(|lost| (lost.from_us, lost.to_us) == (Some(1_000), Some(1_060))));
        assert!(frame(&mut cursors, 107).is_empty());
    }

    #[test]
    fn there_are_few_and_no_gap_is_forgotten_before_it_is_told() {
        let (mut cursors, taken) = (Cursors::default(), Ranges::default());
        for row in 0..100 {
            cursors.frame(&taken, row * 1_000, 5);
            cursors.gap(&taken, row * 1_000 + 1, row * 1_000 + 2, GapReason::STORAGE);
            assert_eq!(cursors.take_news().len(), 1);
            assert!(cursors.0.len() <= MOST);
        }
    }
}

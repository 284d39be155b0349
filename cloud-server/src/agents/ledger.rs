//! How far an agent's tracks were received, and by which of its connections. A connection delivers frames only while it
//! holds its turn; a newer one takes the ledger over between two turns. So each frame is delivered once, also when two
//! connections of one agent overlap.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camagent_proto::message::ResumePoint;

/// The state all connections of an agent share.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    generation: u64,
    boot: [u8; 16],
    points: Vec<ResumePoint>,
    /// The furthest that each track ever was.
    shown: Vec<ResumePoint>,
    newest_event: u64,
}

/// The right to deliver, for as long as the value lives.
pub struct Turn<'a> {
    entries: MutexGuard<'a, Entries>,
}

impl Ledger {
    /// A newer connection takes over. Gives the positions at which its boot goes on, and the furthest at which each track was: none for a boot
    /// that is new here.
    #[must_use]
    pub fn take_over(&self, generation: u64, boot: [u8; 16]) -> (Vec<ResumePoint>, Vec<ResumePoint>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.boot != boot {
            *entries = Entries { boot, ..Entries::default() };
        }
        entries.generation = generation;
        (entries.points.clone(), entries.shown.clone())
    }

    /// A turn to deliver; none when a newer connection took over.
    #[must_use]
    pub fn turn(&self, generation: u64) -> Option<Turn<'_>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        (entries.generation == generation).then_some(Turn { entries })
    }
}

impl Turn<'_> {
    /// Remembers how far tracks were received.
    pub fn received(&mut self, points: Vec<ResumePoint>) {
        for point in &points {
            match self.entries.shown.iter_mut().find(|shown| shown.track == point.track) {
                Some(shown) if (shown.epoch, shown.next) < (point.epoch, point.next) => *shown = *point,
                Some(_) => {}
                None => self.entries.shown.push(*point),
            }
        }
        self.entries.points = points;
    }

    /// True when the event was not told in this boot yet.
    #[must_use]
    pub fn is_new_event(&mut self, sequence: u64) -> bool {
        let is_new = sequence > self.entries.newest_event;
        self.entries.newest_event = self.entries.newest_event.max(sequence);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_connection_has_no_turn_and_a_boot_goes_on_where_it_was() {
        let ledger = Ledger::default();
        let point = ResumePoint { track: 1, epoch: 2, next: 30 };
        assert!(ledger.take_over(1, [1; 16]).0.is_empty());
        let mut turn = ledger.turn(1).expect("the newest");
        turn.received(vec![point]);
        assert!(turn.is_new_event(1) && !turn.is_new_event(1));
        drop(turn);
        let same = (vec![point], vec![point]);
        assert_eq!(ledger.take_over(2, [1; 16]), same);
        assert!(ledger.turn(1).is_none());
        // What could not be stored comes once more, and is not shown once more.
        let again = ResumePoint { next: 20, ..point };
        ledger.turn(2).expect("the newest").received(vec![again]);
        assert_eq!(ledger.take_over(3, [1; 16]), (vec![again], vec![point]));
        assert_eq!(ledger.take_over(4, [2; 16]), (vec![], vec![]), "another boot counts anew");
    }
}

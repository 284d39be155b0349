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
    newest_event: u64,
}

/// The right to deliver, for as long as the value lives.
pub struct Turn<'a> {
    entries: MutexGuard<'a, Entries>,
}

impl Ledger {
    /// A newer connection takes over. Gives the positions at which its boot goes on: none for a boot that is new here.
    #[must_use]
    pub fn take_over(&self, generation: u64, boot: [u8; 16]) -> Vec<ResumePoint> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.boot != boot {
            *entries = Entries { boot, ..Entries::default() };
        }
        entries.generation = generation;
        entries.points.clone()
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
        assert!(ledger.take_over(1, [1; 16]).is_empty());
        let mut turn = ledger.turn(1).expect("the newest");
        turn.received(vec![point]);
        assert!(turn.is_new_event(1) && !turn.is_new_event(1));
        drop(turn);
        assert_eq!(ledger.take_over(2, [1; 16]), [point]);
        assert!(ledger.turn(1).is_none());
        assert!(ledger.take_over(3, [2; 16]).is_empty(), "another boot counts anew");
    }
}

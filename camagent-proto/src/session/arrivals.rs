//! When the server tells what has arrived: with what it says anyway, or by itself while octets come, and never on an idle link.
//!
//! A value: octets and time in, ARRIVED frames out. What the agent makes of them does not belong here: `governor`.

use crate::{
    frame::{Arrived, Frame, RecordWriter},
    time::{Duration, Instant},
};

/// So many octets are told by themselves …
const WORTH_TELLING: u64 = 1 << 10;
/// … after so long, the time that acknowledgements of media have …
const WITHIN: Duration = Duration::from_millis(100);
/// … and so many at once …
const AT_ONCE: u64 = 64 << 10;
/// … but never more often than this.
const PAUSE: Duration = Duration::from_millis(20);

/// What came in records of this session, and what of it was told.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    is_on: bool,
    octets: u64,
    at: Instant,
    told: u64,
    told_at: Instant,
    due: Option<Instant>,
}

impl Arrivals {
    /// For an agent that wants to know, or not.
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }

    /// A record has come.
    pub(super) fn arrived(&mut self, now: Instant, octets: u64) {
        self.octets += octets;
        self.at = now;
        let untold = self.octets - self.told;
        if untold < WORTH_TELLING || !self.is_on {
            return;
        }
        let due = *self.due.get_or_insert(now + WITHIN);
        if untold >= AT_ONCE {
            self.due = Some(due.min(now.max(self.told_at + PAUSE)));
        }
    }

    /// When something is to be told by itself.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Writes what is due, into a record that may have nothing else.
    pub(super) fn tell_due(&mut self, now: Instant, record: &mut RecordWriter) {
        if self.due.is_some_and(|at| at <= now) {
            self.tell(now, record);
        }
    }

    /// Writes what is new into a record that goes in any case, if it has room.
    pub(super) fn tell_beside(&mut self, now: Instant, record: &mut RecordWriter) {
        if self.is_on && self.octets > self.told && now.saturating_since(self.told_at) >= PAUSE {
            self.tell(now, record);
        }
    }

    fn tell(&mut self, now: Instant, record: &mut RecordWriter) {
        let arrived = Arrived { octets: self.octets, at_ms: self.at.as_micros() / 1_000 };
        if record.push(&Frame::Arrived(arrived)) {
            (self.told, self.told_at, self.due) = (self.octets, now, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{MAX_RECORD, RecordReader};

    fn told(arrivals: &mut Arrivals, now: Instant) -> Option<Arrived> {
        let mut record = RecordWriter::new(MAX_RECORD);
        arrivals.tell_due(now, &mut record);
        match RecordReader::new(record.finish()).unwrap().next_frame().unwrap() {
            Some(Frame::Arrived(arrived)) => Some(arrived),
            _ => None,
        }
    }

    #[test]
    fn little_is_told_only_beside_something_else() {
        let mut arrivals = Arrivals::new(true);
        let now = Instant::from_micros(5_000_000);
        arrivals.arrived(now, 1_000);
        assert_eq!(arrivals.poll_timeout(), None);
        let mut record = RecordWriter::new(MAX_RECORD);
        arrivals.tell_beside(now, &mut record);
        assert!(!record.is_empty());
        let mut again = RecordWriter::new(MAX_RECORD);
        arrivals.tell_beside(now + WITHIN, &mut again);
        assert!(again.is_empty(), "there is nothing new");
    }

    #[test]
    fn much_is_told_within_its_time_and_very_much_at_once_but_not_always() {
        let mut arrivals = Arrivals::new(true);
        let now = Instant::from_micros(5_000_000);
        arrivals.arrived(now, 10_000);
        assert_eq!(arrivals.poll_timeout(), Some(now + WITHIN));
        assert_eq!(told(&mut arrivals, now), None);
        let later = now + WITHIN;
        assert_eq!(told(&mut arrivals, later), Some(Arrived { octets: 10_000, at_ms: 5_000 }));
        assert_eq!(arrivals.poll_timeout(), None);
        arrivals.arrived(later, AT_ONCE);
        assert_eq!(arrivals.poll_timeout(), Some(later + PAUSE));
    }

    #[test]
    fn who_did_not_ask_is_told_nothing() {
        let mut arrivals = Arrivals::new(false);
        let now = Instant::from_micros(5_000_000);
        arrivals.arrived(now, AT_ONCE);
        let mut record = RecordWriter::new(MAX_RECORD);
        arrivals.tell_beside(now, &mut record);
        assert!(record.is_empty() && arrivals.poll_timeout().is_none());
    }
}

//! What the agent writes next: classes in the scheduler's order, each as much as fits into the record.

use super::{Agent, State, Transmit};
use crate::{
    frame::RecordWriter,
    message::Message,
    mux::{NoStreams, Streams},
    scheduler::Class,
    time::Instant,
    transfer::Journal,
};

/// Less of the past is not worth a record.
const LEAST_PAST: usize = 1_024;

impl Agent {
    /// Whether frames of the past could be sent now, if there were room.
    pub fn has_past(&self, journal: &mut dyn Journal) -> bool {
        self.sender.has_past(journal)
    }

    /// The path takes so many octets of the past now; they are for what nobody else wants.
    pub fn set_past_room(&mut self, octets: usize) {
        self.past_room = octets;
    }

    /// Whether the last [`Agent::poll_transmit`] left out frames of the past for which there was no room.
    pub fn is_past_held(&self) -> bool {
        self.is_past_held
    }

    /// What is to be written next. To be asked only when the transport takes it at once: nothing queues behind this choice. A record has no more
    /// than `target` octets, unless one frame of it alone has more.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        journal: &mut dyn Journal,
        streams: &mut dyn Streams,
        target: usize,
    ) -> Option<Transmit> {
        if self.state != State::Established || self.outbox.is_closing() {
            return self.outbox.pop();
        }
        self.is_past_held = false;
        let mut record = self.tunnels.record(self.record_limit, target);
        for class in self.scheduler.order() {
            if class == Class::Control
                && record.is_empty()
                && let Some(message) = self.next_message()
            {
                return Some(message);
            }
            if class == Class::Backfill && self.past_room < target {
                if self.past_room < LEAST_PAST {
                    self.is_past_held = true;
                    continue;
                }
                if record.is_empty() {
                    self.tunnels.give_back(record);
                    record = self.tunnels.record(self.record_limit, self.past_room);
                }
            }
            self.fill(class, now, &mut record, journal, streams);
        }
        self.finish(record)
    }

    fn finish(&mut self, record: RecordWriter) -> Option<Transmit> {
        if record.is_empty() {
            self.tunnels.give_back(record);
            return None;
        }
        let record = record.finish();
        self.tunnels.sent(&record);
        self.records += record.len() as u64;
        Some(Transmit::Binary(record))
    }

    /// Of what [`Agent::poll_transmit`] would give, what must not wait even for a path that is busy: control within its share, and, if
    /// `audio_too`, live audio. Both come at rates of their own, so that they cannot fill the path.
    pub fn poll_urgent(
        &mut self,
        now: Instant,
        journal: &mut dyn Journal,
        target: usize,
        audio_too: bool,
    ) -> Option<Transmit> {
        if self.state != State::Established || self.outbox.is_closing() {
            return self.outbox.pop();
        }
        let mut record = self.tunnels.record(self.record_limit, target);
        if self.scheduler.control_goes_first() {
            if let Some(message) = self.next_message() {
                return Some(message);
            }
            self.fill(Class::Control, now, &mut record, journal, &mut NoStreams);
        }
        if audio_too && self.scheduler.audio_goes_first() {
            self.fill(Class::Audio, now, &mut record, journal, &mut NoStreams);
        }
        self.finish(record)
    }

    /// The next control message or event.
    fn next_message(&mut self) -> Option<Transmit> {
        let next = self.outbox.pop().or_else(|| {
            let event = self.happenings.next_to_send()?;
            Some(Transmit::Text(Message::Event(event).to_text()))
        })?;
        self.scheduler.sent(Class::Control, next.octets());
        Some(next)
    }

    /// Puts what a class has into the rest of a record.
    fn fill(
        &mut self,
        class: Class,
        now: Instant,
        record: &mut RecordWriter,
        journal: &mut dyn Journal,
        streams: &mut dyn Streams,
    ) {
        let before = record.octets();
        match class {
            Class::Control => self.tunnels.fill_control(now, record),
            Class::Audio | Class::Video | Class::Backfill => self.sender.fill(class, now, record, journal),
            Class::Tunnels => self.tunnels.fill(record, streams),
        }
        self.scheduler.sent(class, record.octets() - before);
    }
}

//! What a mux writes into a record, and in which order.

use super::{
    Read, Streams,
    multiplexer::Mux,
    resume::Resume,
    stream::{Incoming, Outgoing, Stream},
};
use crate::{
    frame::{
        Data, Frame, MaxData, MaxStreamData, MaxStreams, OpenResult, RecordWriter, ResetStream, ReturnStreamData,
        StopSending, StreamError,
    },
    time::Instant,
};

/// A stream that has sent less than this goes before those that have sent more: a click before a download.
const YOUNG: u64 = 16 << 10;
/// Room for the frames that give credit.
const CREDIT_ROOM: usize = 20;
/// In less room than this no octets are read.
const LEAST_ROOM: usize = 64;

impl Mux {
    /// Begins a record with what is small and goes first: answers, ends, credit.
    pub fn fill_control(&mut self, now: Instant, record: &mut RecordWriter) {
        if self.begin_record(record) {
            let before = record.written();
            self.write_control(now, record);
            self.wrote(before, record);
        }
    }

    fn write_control(&mut self, now: Instant, record: &mut RecordWriter) {
        for at in 0..self.streams.len() {
            if !self.control_of(at, record) {
                return;
            }
            if self.streams[at].window.is_due() && !self.renew(at, now, record) {
                return;
            }
            if !self.return_credit(at, now, record) {
                return;
            }
        }
        self.reap();
        if self.window.is_due()
            && record.room() > CREDIT_ROOM
            && let Some(limit) = self.window.renew(now, 0)
        {
            record.push(&Frame::MaxData(MaxData { limit }));
        }
        if !self.opens && self.receives.streams > 0 {
            let over = self.opened - self.streams.len() as u64;
            let limit = over + self.receives.streams;
            // A few at a time, unless the peer has only a few left: streams that stay open must not keep others from coming and going.
            let few = self.receives.streams.div_ceil(4);
            let is_due = limit - self.max_streams >= few || self.max_streams - self.opened < few;
            if limit > self.max_streams && is_due && record.push(&Frame::MaxStreams(MaxStreams { limit })) {
                self.max_streams = limit;
            }
        }
    }

    /// How many octets a stream that has more may send before the next has its turn: what leaves together, so that a local side is read in
    /// pieces of that size. Default 0: one record.
    pub fn set_quantum(&mut self, octets: usize) {
        self.quantum = octets as u64;
    }

    /// Fills the rest of a record, once, with octets of the local sides, stream by stream in turns.
    pub fn fill(&mut self, record: &mut RecordWriter, streams: &mut dyn Streams) {
        if !self.repeat(record) && self.resume.as_ref().is_none_or(Resume::has_room) {
            let before = record.written();
            self.write_data(record, streams);
            self.wrote(before, record);
        }
        self.tell_along(record);
    }

    fn write_data(&mut self, record: &mut RecordWriter, streams: &mut dyn Streams) {
        for young in [true, false] {
            while record.room() > LEAST_ROOM {
                let Some(at) = self.next_to_send(young) else { break };
                let (id, before) = (self.streams[at].id, self.streams[at].allowance.used());
                self.turns[usize::from(young)] = id;
                if !self.send(at, record, streams)
                    && let Some(at) = self.find(id)
                {
                    self.streams[at].parked = true;
                }
                let used = self.find(id).map_or(before, |at| self.streams[at].allowance.used());
                self.in_turn += used - before;
            }
        }
        self.reap();
    }

    /// The next stream in turn that may send.
    fn next_to_send(&mut self, young: bool) -> Option<usize> {
        if self.allowance.left() == 0 {
            return None;
        }
        let may_send = |stream: &Stream| {
            stream.outgoing == Outgoing::Open
                && !stream.parked
                && stream.open.is_none()
                && stream.result.is_none()
                && stream.reset.is_none()
                && stream.allowance.left() > 0
                && (!young || stream.allowance.used() < YOUNG)
        };
        let turn = self.turns[usize::from(young)];
        if self.in_turn < self.quantum
            && let Some(at) = self.find(turn)
            && may_send(&self.streams[at])
        {
            return Some(at);
        }
        self.in_turn = 0;
        let start = self.streams.partition_point(|stream| stream.id <= turn);
        let count = self.streams.len();
        (start..count).chain(0..start).find(|&at| may_send(&self.streams[at]))
    }

    /// Reads from a local side into the record; `false` when it has nothing now.
    fn send(&mut self, at: usize, record: &mut RecordWriter, streams: &mut dyn Streams) -> bool {
        let stream = &mut self.streams[at];
        self.head.clear();
        Data::write_head(stream.id, false, &mut self.head);
        let credit = self.allowance.left().min(stream.allowance.left());
        let most = usize::try_from(credit).unwrap_or(usize::MAX);
        let mut outcome = Read::Pending;
        let id = stream.id;
        let written = record.push_read(Data::NUMBER, &self.head, most, |into| {
            outcome = streams.read(id, into, most);
            match outcome {
                Read::Octets(count) if count > 0 => Some(count),
                _ => None,
            }
        });
        stream.hungry = outcome == Read::Pending;
        match outcome {
            Read::Octets(_) => {
                let count = written.unwrap_or(0) as u64;
                stream.allowance.spend(count);
                self.allowance.spend(count);
                count > 0
            }
            Read::Pending => false,
            Read::End => {
                if record.push(&Frame::Data(Data { stream: id, fin: true, octets: Default::default() })) {
                    stream.outgoing = Outgoing::Ended;
                }
                true
            }
            Read::Broken => {
                self.abandon(id, StreamError::Broken);
                // Told at once: there may be no other record.
                self.find(id).is_none_or(|at| self.control_of(at, record))
            }
        }
    }

    /// Writes what a stream has to say before its octets; `false` when there is no room.
    fn control_of(&mut self, at: usize, record: &mut RecordWriter) -> bool {
        let stream = &mut self.streams[at];
        let id = stream.id;
        if let Some(open) = stream.open.take() {
            let open = Frame::Open(open);
            if !record.push(&open) {
                let Frame::Open(open) = open else { return false };
                stream.open = Some(open);
                return false;
            }
        }
        if let Some((outcome, detail)) = &stream.result {
            let result = OpenResult { stream: id, outcome: *outcome, detail: detail.clone() };
            if !record.push(&Frame::OpenResult(result)) {
                return false;
            }
            stream.result = None;
        }
        if let Some(error) = stream.stop {
            if !record.push(&Frame::StopSending(StopSending { stream: id, error })) {
                return false;
            }
            stream.stop = None;
        }
        if let Some(error) = stream.reset {
            let final_size = stream.allowance.used();
            if !record.push(&Frame::ResetStream(ResetStream { stream: id, error, final_size })) {
                return false;
            }
            stream.reset = None;
            stream.outgoing = Outgoing::Ended;
        }
        true
    }

    /// Gives credit back that a stream does not use, so that the peer can promise it to others; `false` when there is no room for the frame.
    fn return_credit(&mut self, at: usize, now: Instant, record: &mut RecordWriter) -> bool {
        let first = self.sends.stream_bytes;
        let stream = &mut self.streams[at];
        let Some(octets) = stream.unused(now, first) else { return true };
        let is_written = record.push(&Frame::ReturnStreamData(ReturnStreamData { stream: stream.id, octets }));
        if is_written {
            stream.allowance.spend(octets);
        }
        is_written
    }

    /// Gives a stream new credit; `false` when there is no room for the frame.
    fn renew(&mut self, at: usize, now: Instant, record: &mut RecordWriter) -> bool {
        if self.streams[at].incoming != Incoming::Open || self.streams[at].outgoing == Outgoing::Waiting {
            return true;
        }
        if record.room() < CREDIT_ROOM {
            return false;
        }
        let wish = self.streams[at].window.wish(now, self.round_trip, self.tolerance.window);
        // Every stream that may still be opened keeps its share, so that streams whose local side takes nothing never use up the others' credit.
        let all: u64 = self.streams.iter().map(|stream| stream.promised()).sum();
        let others = all - self.streams[at].promised();
        let unopened = self.most().saturating_sub(self.streams.len() as u64);
        let reserved = unopened.saturating_mul(self.receives.stream_bytes);
        let stream = &mut self.streams[at];
        let wanted = others.saturating_add(reserved).saturating_add(stream.window.size()).saturating_add(wish);
        let growth = if wanted <= self.receives.bytes { wish } else { 0 };
        match stream.window.renew(now, growth) {
            Some(limit) => record.push(&Frame::MaxStreamData(MaxStreamData { stream: stream.id, limit })),
            None => true,
        }
    }
}

//! Streams that survive their connection: both ends count the frames of tunnels, keep what the other has not received, and go on from there.
//!
//! What does not belong here: who may resume what (`session`), for how long sockets are held (the drivers).

use bytes::Bytes;

use super::{kept::Kept, multiplexer::Mux};
use crate::{
    error::Error,
    frame::{Frame, MAX_RECORD, RecordWriter, Tack},
};
use alloc::{format, vec::Vec};

/// Of what the peer keeps, this part may lie there without an acknowledgement.
const PART: u64 = 4;
/// The least that an end keeps: with less it would wait for an acknowledgement that is not due yet.
pub const MIN_RESUME_BYTES: u64 = 128 << 10;

/// What a mux keeps, and what it has to tell.
#[derive(Debug)]
pub(super) struct Resume {
    /// `None` as soon as not everything is here any more.
    kept: Option<Kept>,
    budget: u64,
    /// Frames that came.
    received: u64,
    /// Octets of them, about, that the peer still keeps.
    untold: u64,
    /// So many of those make an acknowledgement due.
    due: u64,
    /// The parts of the present record that are to be kept: from where to where, and how many frames.
    written: Vec<(usize, usize, u64)>,
}

impl Resume {
    /// Octets may be read only when there is room to keep a record of them.
    pub(super) fn has_room(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.held() + MAX_RECORD as u64 <= self.budget)
    }

    fn is_repeating(&self) -> bool {
        self.kept.as_ref().is_some_and(Kept::is_repeating)
    }
}

impl Mux {
    /// From now on what is sent is kept until the peer has it, so that the streams can go on with another connection. To be called on a new
    /// mux, when both ends want it. DATA waits while more than this end's `resume_bytes` would have to be kept.
    pub fn keep(&mut self) {
        let budget = self.receives.resume_bytes.max(MIN_RESUME_BYTES);
        // What two acknowledgements set free: they do not come as evenly as records are written.
        let most_free = usize::try_from(2 * budget / PART).unwrap_or(usize::MAX) / MAX_RECORD;
        self.resume = Some(Resume {
            kept: Some(Kept::new(most_free)),
            budget,
            received: 0,
            untold: 0,
            due: self.sends.resume_bytes.max(MIN_RESUME_BYTES) / PART,
            written: Vec::new(),
        });
    }

    /// A record to write into, of at most `limit` octets and with no more than `target` when that can be.
    pub fn record(&mut self, limit: usize, target: usize) -> RecordWriter {
        let buffer = self.kept().map(Kept::buffer).unwrap_or_default();
        RecordWriter::reusing(buffer, limit, target)
    }

    /// Nothing was written into a record.
    pub fn give_back(&mut self, record: RecordWriter) {
        if let Some(kept) = self.kept() {
            kept.give_back(record.into_buffer());
        }
    }

    /// There are no streams: memory that was to be used again goes.
    pub(super) fn rest(&mut self) {
        if let Some(kept) = self.kept() {
            kept.rest();
        }
    }

    fn kept(&mut self) -> Option<&mut Kept> {
        self.resume.as_mut()?.kept.as_mut()
    }

    /// Frames of tunnels that came so far; `None` when these streams cannot survive their connection.
    pub fn received_frames(&self) -> Option<u64> {
        self.resume.as_ref().filter(|resume| resume.kept.is_some()).map(|resume| resume.received)
    }

    /// Octets of memory in which frames are kept, and in which the next ones will be.
    pub fn kept_octets(&self) -> u64 {
        self.resume.as_ref().and_then(|resume| resume.kept.as_ref()).map_or(0, Kept::memory)
    }

    /// Goes on with a new connection: the peer has received so many frames. `false` when that cannot be; then the streams are lost.
    pub fn resume(&mut self, received: u64) -> bool {
        let Some(resume) = &mut self.resume else { return false };
        // The peer was just told.
        resume.untold = 0;
        resume.written.clear();
        resume.kept.as_mut().is_some_and(|kept| kept.go_back(received))
    }

    /// The record that [`Mux::fill_control`] and [`Mux::fill`] wrote into is finished, and goes to the transport.
    pub fn sent(&mut self, record: &Bytes) {
        let Some(resume) = &mut self.resume else { return };
        let Some(kept) = &mut resume.kept else { return resume.written.clear() };
        for (from, to, frames) in resume.written.drain(..) {
            kept.push(record.slice(from..to.min(record.len())), frames);
        }
        // DATA has waited long before: the peer reads, and acknowledges nothing.
        if kept.held() > resume.budget.saturating_mul(2) {
            resume.kept = None;
        }
    }

    /// Whether new frames may be written: not before the old ones were sent again.
    pub(super) fn begin_record(&mut self, record: &mut RecordWriter) -> bool {
        let Some(resume) = &mut self.resume else { return true };
        if resume.untold >= resume.due {
            resume.tell(record);
        }
        !resume.is_repeating()
    }

    /// Writes frames again that were lost with a connection; whether there are some.
    pub(super) fn repeat(&mut self, record: &mut RecordWriter) -> bool {
        let Some(kept) = self.resume.as_mut().and_then(|resume| resume.kept.as_mut()) else { return false };
        if !kept.is_repeating() {
            return false;
        }
        while let Some(frame) = kept.next_again()
            && record.push_encoded(frame)
        {
            kept.sent_again();
        }
        true
    }

    /// What was written since `before` is to be kept.
    pub(super) fn wrote(&mut self, before: (usize, usize), record: &RecordWriter) {
        let Some(resume) = &mut self.resume else { return };
        let after = record.written();
        if after.1 > before.1 {
            resume.written.push((before.0, after.0, (after.1 - before.1) as u64));
        }
    }

    /// A record that goes anyway takes the acknowledgement along.
    pub(super) fn tell_along(&mut self, record: &mut RecordWriter) {
        if let Some(resume) = &mut self.resume
            && resume.untold > 0
            && !record.is_empty()
        {
            resume.tell(record);
        }
    }

    /// A frame of a tunnel came, with about so many octets.
    pub(super) fn count_received(&mut self, octets: usize) {
        if let Some(resume) = &mut self.resume {
            resume.received += 1;
            resume.untold += octets as u64;
        }
    }

    /// TACK: whether it said something new.
    pub(super) fn handle_tack(&mut self, tack: &Tack) -> Result<bool, Error> {
        let wrong = |expected| Error::Violation { place: "TACK received", expected, got: format!("{}", tack.received) };
        let Some(resume) = &mut self.resume else { return Err(wrong("a session with tunnel-resume")) };
        match &mut resume.kept {
            Some(kept) => match kept.acknowledge(tack.received) {
                Some(news) => Ok(news > 0),
                None => Err(wrong("a number of frames that were sent and not acknowledged")),
            },
            None => Ok(true),
        }
    }
}

impl Resume {
    fn tell(&mut self, record: &mut RecordWriter) {
        if record.push(&Frame::Tack(Tack { received: self.received })) {
            self.untold = 0;
        }
    }
}

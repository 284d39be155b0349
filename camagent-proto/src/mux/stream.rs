//! One stream: two directions that end each on its own (RFC 9000 section 3).

use alloc::{format, string::String};

use bytes::Bytes;

use super::{
    credit::{Allowance, IDLE, Window},
    waiting::Waiting,
};
use crate::{
    error::Error,
    frame::{Open, OpenOutcome, StreamError},
    time::Instant,
};

/// What this end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// The service is not connected yet.
    Waiting,
    /// There may be more.
    Open,
    /// FIN or RESET_STREAM is out.
    Ended,
}

/// What this end receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// There may be more.
    Open,
    /// FIN came; what waits is the rest.
    Ending,
    /// Nothing is wanted any more: what still comes is counted and dropped.
    Stopped,
    /// Everything was consumed, or the peer has given up.
    Ended,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u64,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) allowance: Allowance,
    pub(super) window: Window,
    pub(super) waiting: Waiting,
    empty: u64,
    /// What was sent when that was looked at last, and since when it is so much.
    moved: (u64, Instant),
    /// The last read of the local side gave nothing: what is not sent waits nowhere.
    pub(super) hungry: bool,
    /// The local side had nothing when it was asked last.
    pub(super) parked: bool,
    /// The agent has answered the OPEN.
    pub(super) is_answered: bool,
    /// This end answers the OPEN with a refusal: with that the stream is over, whatever the peer still sends.
    is_refused: bool,
    /// Frames that are to be sent before anything else of the stream.
    pub(super) open: Option<Open>,
    pub(super) result: Option<(OpenOutcome, String)>,
    pub(super) reset: Option<StreamError>,
    pub(super) stop: Option<StreamError>,
}

impl Stream {
    pub(super) fn new(id: u64, outgoing: Outgoing, allowance: u64, window: u64, now: Instant) -> Self {
        Self {
            id,
            outgoing,
            incoming: Incoming::Open,
            allowance: Allowance::new(allowance),
            window: Window::new(window, now),
            waiting: Waiting::default(),
            empty: 0,
            moved: (0, now),
            hungry: true,
            parked: false,
            is_answered: false,
            is_refused: false,
            open: None,
            result: None,
            reset: None,
            stop: None,
        }
    }

    /// Octets came. Returns how many of them are dropped at once. So many times there may be none.
    pub(super) fn receive(&mut self, octets: Bytes, fin: bool, most_empty: u64) -> Result<u64, Error> {
        let length = octets.len() as u64;
        self.check_open("DATA", length)?;
        self.window.receive("MAX_STREAM_DATA", length)?;
        if octets.is_empty() && !fin {
            self.empty += 1;
            if self.empty > most_empty {
                return Err(Error::Limit { limit: "empty DATA on a stream", allowed: most_empty, got: self.empty });
            }
        }
        if self.incoming == Incoming::Stopped {
            self.window.consume(length);
            if fin {
                self.incoming = Incoming::Ended;
            }
            return Ok(length);
        }
        self.waiting.push(octets);
        if fin {
            self.incoming = Incoming::Ending;
            self.settle_end();
        }
        Ok(0)
    }

    /// The peer gives credit back.
    pub(super) fn take_back(&mut self, octets: u64) -> Result<(), Error> {
        self.check_open("RETURN_STREAM_DATA", octets)?;
        self.window.give_back(octets)
    }

    fn check_open(&self, place: &'static str, octets: u64) -> Result<(), Error> {
        if matches!(self.incoming, Incoming::Ending | Incoming::Ended) {
            return Err(Error::Violation {
                place,
                expected: "nothing after the end of a direction",
                got: format!("{octets} octets on stream {}", self.id),
            });
        }
        Ok(())
    }

    /// Credit beyond `first` that the local side has not used for long, because it has nothing to say.
    pub(super) fn unused(&mut self, now: Instant, first: u64) -> Option<u64> {
        let used = self.allowance.used();
        if self.moved.0 != used {
            self.moved = (used, now);
        }
        let is_idle = self.hungry && now.saturating_since(self.moved.1) > IDLE;
        let unused = self.allowance.left().saturating_sub(first);
        (is_idle && self.outgoing == Outgoing::Open && self.reset.is_none() && unused > 0).then_some(unused)
    }

    /// Octets of memory, this value left out.
    pub(super) fn memory(&self) -> u64 {
        let open = self.open.as_ref();
        let open = open.map_or(0, |open| open.camera.capacity() + open.service.capacity() + open.visitor.capacity());
        let result = self.result.as_ref().map_or(0, |(_, detail)| detail.capacity());
        self.waiting.memory() + (open + result) as u64
    }

    /// The local side took `count` octets; how many these really are.
    pub(super) fn consume(&mut self, count: usize) -> u64 {
        let taken = self.waiting.take(count) as u64;
        self.window.consume(taken);
        taken
    }

    /// Drops what waits; how much that is.
    pub(super) fn drop_waiting(&mut self) -> u64 {
        self.consume(usize::MAX)
    }

    /// The OPEN is refused. Returns how many octets are dropped.
    pub(super) fn refuse(&mut self, outcome: OpenOutcome, detail: String) -> u64 {
        self.result = Some((outcome, detail));
        self.is_refused = true;
        self.outgoing = Outgoing::Ended;
        if self.incoming != Incoming::Ended {
            self.incoming = Incoming::Stopped;
        }
        (self.reset, self.stop) = (None, None);
        self.drop_waiting()
    }

    /// What the peer may make this end hold for the stream.
    pub(super) fn promised(&self) -> u64 {
        match self.incoming {
            Incoming::Open => self.window.promised(),
            Incoming::Ending => self.waiting.len() as u64,
            Incoming::Stopped | Incoming::Ended => 0,
        }
    }

    /// What was received is consumed to its end.
    pub(super) fn settle_end(&mut self) {
        if self.incoming == Incoming::Ending && self.waiting.is_empty() {
            self.incoming = Incoming::Ended;
        }
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_over(&self) -> bool {
        let is_ended = self.outgoing == Outgoing::Ended && self.incoming == Incoming::Ended;
        (is_ended || self.is_refused)
            && self.reset.is_none()
            && self.stop.is_none()
            && self.result.is_none()
            && self.open.is_none()
    }
}

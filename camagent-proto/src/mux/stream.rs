//! One stream: two directions that end each on its own (RFC 9000 section 3).

use alloc::{format, string::String};

use bytes::Bytes;

use super::{
    credit::{Allowance, Window},
    waiting::Waiting,
};
use crate::{
    error::Error,
    frame::{Open, OpenOutcome, StreamError},
    time::Instant,
};

/// Empty DATA without FIN that a peer may send on one stream.
pub(super) const MAX_EMPTY: u32 = 16;

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
    empty: u32,
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
            parked: false,
            is_answered: false,
            is_refused: false,
            open: None,
            result: None,
            reset: None,
            stop: None,
        }
    }

    /// Octets came. Returns how many of them are dropped at once.
    pub(super) fn receive(&mut self, octets: Bytes, fin: bool) -> Result<u64, Error> {
        let length = octets.len() as u64;
        if matches!(self.incoming, Incoming::Ending | Incoming::Ended) {
            return Err(Error::Violation {
                place: "DATA",
                expected: "nothing after the end of a direction",
                got: format!("{length} octets on stream {}", self.id),
            });
        }
        self.window.receive("MAX_STREAM_DATA", length)?;
        if octets.is_empty() && !fin {
            self.empty += 1;
            if self.empty > MAX_EMPTY {
                let (allowed, got) = (u64::from(MAX_EMPTY), u64::from(self.empty));
                return Err(Error::Limit { limit: "empty DATA on a stream", allowed, got });
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

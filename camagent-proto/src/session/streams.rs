//! Streams of tunnels between two connections: what an end remembers of them, and how it knows them again.

use alloc::string::String;

use crate::{
    message::{StreamsPoint, TunnelLimits},
    mux::Mux,
};

/// Octets of a session's id with which streams can go on: it has to fit into `register`.
pub(super) const MAX_SESSION: usize = 128;

/// The streams of a server's connection that is over, until their agent is back.
#[derive(Debug)]
pub struct Suspended {
    /// The session in which they began.
    pub(super) session: String,
    pub(super) mux: Mux,
}

impl Suspended {
    /// Where this end stands.
    pub(super) fn point(&self) -> Option<StreamsPoint> {
        Some(StreamsPoint { session: self.session.clone(), received: self.mux.received_frames()? })
    }

    /// Goes on when `point` is of these streams.
    pub(super) fn resume(&mut self, point: &StreamsPoint) -> bool {
        self.session == point.session && self.mux.resume(point.received)
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.mux.open_streams()
    }
}

/// Whether an end that takes this can resume streams.
pub(super) fn resumes(limits: &TunnelLimits) -> bool {
    limits.resume_bytes > 0
}

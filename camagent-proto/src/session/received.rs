//! What came on a connection, by kind: plain counters that their owner copies out, for metrics.

use crate::frame::Frame;

const KINDS: usize = Frame::KINDS.len();

/// Frames and messages since the counters were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Frames, and octets of their bodies, in the order of [`Frame::KINDS`].
    pub kinds: [(u64, u64); KINDS],
    /// Control messages, those of unknown types included.
    pub messages: u64,
    /// Octets of them.
    pub message_octets: u64,
    /// Frames and messages of unknown kinds, which were passed over.
    pub unknown: u64,
}

impl Received {
    pub(super) fn frame(&mut self, number: u64, octets: usize) {
        if let Ok(at) = Frame::KINDS.binary_search_by_key(&number, |(number, _)| *number) {
            self.kinds[at].0 += 1;
            self.kinds[at].1 += octets as u64;
        }
    }

    pub(super) fn message(&mut self, octets: usize) {
        self.messages += 1;
        self.message_octets += octets as u64;
    }
}

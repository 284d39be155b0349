//! Counters that the agent's thread keeps and everybody may read: a snapshot behind a lock that is never held across anything.

use std::sync::{Mutex, PoisonError};

/// What the network side counts; the journal's numbers are added when they are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkCounts {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) frames_sent: u64,
    pub(crate) frames_lost: u64,
    pub(crate) sessions: u64,
    pub(crate) round_trip_us: u64,
    pub(crate) uplink: Uplink,
    pub(crate) is_connected: bool,
}

/// What is known of the way to the server; all 0 without a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) bits_per_second: u64,
    pub(crate) queue_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct SharedCounts(Mutex<NetworkCounts>);

impl SharedCounts {
    pub(crate) fn read(&self) -> NetworkCounts {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self, counts: NetworkCounts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

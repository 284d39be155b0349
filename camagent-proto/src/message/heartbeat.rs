//! `heartbeat` and `heartbeat_ack`: alive, how far apart, and how the agent fares. There is no second ping.

use serde::{Deserialize, Serialize};

use crate::stats::Statistics;

/// `heartbeat`: sent by the agent after each heartbeat interval, and right after `registered`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// When it was sent, in microseconds of the agent's boot-time clock.
    pub sent_us: u64,
    /// The last round trip that the agent measured, in microseconds; 0 before the first.
    #[serde(default)]
    pub round_trip_us: u64,
    /// How the agent fares.
    #[serde(default)]
    pub statistics: Statistics,
}

/// `heartbeat_ack`: the server's answer at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAck {
    /// `sent_us` of the heartbeat that is answered.
    pub sent_us: u64,
    /// The server's time in milliseconds since 1970 (UTC).
    #[serde(default)]
    pub server_time_ms: u64,
}

//! `heartbeat` and `heartbeat_ack`: alive, how far apart, and how the agent fares. There is no second ping.
//!
//! A heartbeat without anything in it says "alive" and no more: on an idle SIM it is most of what is sent.

use serde::{Deserialize, Serialize};

use crate::stats::Statistics;

/// `heartbeat`: sent by the agent after each heartbeat interval, and right after `registered`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// When it was sent, in microseconds of the agent's boot-time clock; 0 when it is not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub sent_us: u64,
    /// The last round trip that the agent measured, in microseconds; 0 before the first, and when it is not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub round_trip_us: u64,
    /// How the agent fares; left out when that was told lately.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub statistics: Option<Statistics>,
}

/// `heartbeat_ack`: the server's answer at once. To a heartbeat without `sent_us` it is as short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeartbeatAck {
    /// `sent_us` of the heartbeat that is answered.
    #[serde(skip_serializing_if = "is_zero")]
    pub sent_us: u64,
    /// The server's time in milliseconds since 1970 (UTC); 0 when it is not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub server_time_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is there is no `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Statistics>, D::Error> {
    Statistics::deserialize(deserializer).map(Some)
}

//! `event` and `event_ack`: what happened at the camera, told until the server has kept it.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `event`: unique by (agent, boot, sequence), so a repeat is recognised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the events of this boot from 1.
    pub sequence: u64,
    /// The camera it is about, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// What happened, for example `journal_overflow`.
    pub kind: String,
    /// When, in microseconds of the agent's boot-time clock.
    #[serde(default)]
    pub time_us: u64,
    /// Details.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

/// `event_ack`: all events up to this one are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventAck {
    /// The newest kept event.
    pub sequence: u64,
}

//! `goaway` and `error`: how a session is asked to end, and why it ends.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

/// `goaway`: the server asks the agent to leave and to come back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Goaway {
    /// For people and logs.
    pub reason: String,
    /// Leave after so many milliseconds.
    pub after_ms: u64,
    /// Come back at a random moment within so many milliseconds, so that not all agents come at once.
    pub spread_ms: u64,
    /// Where to go instead, the best first: URLs as in the agent's configuration, which must name them too. Empty: come back here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
}

impl Goaway {
    /// No more servers are named: as many as an agent's configuration may have.
    pub const MAX_SERVERS: usize = 8;
}

/// `error`: sent before the WebSocket close with the same code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorMessage {
    /// The close code's number.
    pub code: u16,
    /// The close code's name.
    pub name: String,
    /// What was wrong.
    pub detail: String,
    /// The limit or the credit that was gone over, as `detail` begins; empty: none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limit: String,
    /// Come back after so many milliseconds, and not before; 0: as the code says.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_ms: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

//! The life of a session between an agent and its server, both roles as values.
//!
//! An [`Agent`] lives as long as the agent does and goes through many connections; a [`Server`] is one connection.
//! What does not belong here: sockets, back-off and tokens (the drivers), frames and their order (`transfer`).

mod agent;
mod arrivals;
mod bounds;
mod memory;
mod outbox;
mod received;
mod server;
mod streams;

pub use agent::{Agent, AgentConfig, AgentEvent, check_event};
pub use bounds::Bounds;
pub use memory::CommandToken;
pub use received::Received;
pub use server::{AGENT_LIMITS, Accept, Server, ServerConfig, ServerEvent};
pub use streams::Suspended;

use alloc::string::String;
use bytes::Bytes;

use crate::error::CloseCode;

/// What the driver is to write next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// A text WebSocket message.
    Text(String),
    /// A binary WebSocket message.
    Binary(Bytes),
    /// A WebSocket close with this code and reason; the last thing of a connection.
    Close(CloseCode, String),
}

impl Transmit {
    /// Octets of the message.
    pub fn octets(&self) -> usize {
        match self {
            Transmit::Text(text) => text.len(),
            Transmit::Binary(record) => record.len(),
            Transmit::Close(_, reason) => 2 + reason.len(),
        }
    }
}

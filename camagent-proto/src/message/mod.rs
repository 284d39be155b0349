//! JSON control messages: one text WebSocket message is one `{"type": "...", "data": {...}}`.
//!
//! One row of the table below is one message. Unknown types are skipped and counted, unknown fields are ignored, a missing
//! `data` counts as `{}`. Integers stay below 2^53. A message has at most [`MAX_TEXT`] octets, `register`, `registered` and
//! `cameras` at most [`MAX_REGISTER`].
//! What does not belong here: who sends what when (`session`).

mod camera;
mod close;
mod command;
mod event;
mod heartbeat;
mod name;
mod register;
mod source;

pub use camera::{Camera, Policy, Retention, Service, ServiceMode, Source};
pub use close::{ErrorMessage, Goaway};
pub use command::{Command, CommandError, CommandResult, CommandStatus};
pub use event::{Event, EventAck};
pub use heartbeat::{Heartbeat, HeartbeatAck};
pub use name::{check_name, is_name};
pub use register::{
    ARRIVED, BootId, Cameras, Limits, Register, Registered, ResumePoint, StreamsPoint, TUNNEL_RESUME, TunnelLimits,
};
pub use source::{KeyFrame, SourceState};

use alloc::{
    format,
    string::{String, ToString},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;

/// Octets of a control message.
pub const MAX_TEXT: usize = 4_096;
/// Octets of `register`, `registered` and `cameras`.
pub const MAX_REGISTER: usize = 16_384;
/// The largest integer in JSON that every reader keeps exact, 2^53 - 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

#[derive(Serialize)]
struct EnvelopeOut<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a T,
}

macro_rules! messages {
    ($($(#[doc = $doc:literal])+ $kind:literal $variant:ident($body:ty),)+) => {
        /// One control message.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message {
            $($(#[doc = $doc])+ $variant($body),)+
        }

        impl Message {
            /// The `type` of every message.
            pub const KINDS: &'static [&'static str] = &[$($kind,)+];

            /// The `type` of this message.
            pub const fn kind(&self) -> &'static str {
                match self { $(Message::$variant(_) => $kind,)+ }
            }

            /// The JSON text.
            pub fn to_text(&self) -> String {
                match self { $(Message::$variant(data) => write(&EnvelopeOut { kind: $kind, data }),)+ }
            }

            /// Reads a message; `Ok(None)` when its type is unknown.
            pub fn read(text: &str) -> Result<Option<Self>, Error> {
                if text.len() > MAX_REGISTER {
                    return Err(too_long("message octets", MAX_REGISTER, text.len()));
                }
                let envelope: Envelope = serde_json::from_str(text).map_err(|error| Error::Violation {
                    place: "control message",
                    expected: r#"{"type": "...", "data": {...}}"#,
                    got: format!("{} ({error})", excerpt(text)),
                })?;
                let kind = envelope.kind.as_str();
                if text.len() > MAX_TEXT && !matches!(kind, "register" | "registered" | "cameras") {
                    return Err(too_long("message octets", MAX_TEXT, text.len()));
                }
                let data = match envelope.data {
                    Value::Null => Value::Object(Default::default()),
                    data => data,
                };
                match kind {
                    $($kind => match serde_json::from_value(data) {
                        Ok(body) => Ok(Some(Message::$variant(body))),
                        Err(error) => Err(Error::Violation {
                            place: concat!($kind, " message"),
                            expected: "the fields that the specification gives",
                            got: error.to_string(),
                        }),
                    },)+
                    _ => Ok(None),
                }
            }
        }
    };
}

messages! {
    /// Agent to server, first of all.
    "register" Register(Register),
    /// More cameras than `register` had room for; agent to server.
    "cameras" Cameras(Cameras),
    /// The server's welcome.
    "registered" Registered(Registered),
    /// Agent to server: alive, and the statistics.
    "heartbeat" Heartbeat(Heartbeat),
    /// The server's answer to a heartbeat.
    "heartbeat_ack" HeartbeatAck(HeartbeatAck),
    /// Server to agent: do something.
    "command" Command(Command),
    /// Agent to server: what came of a command.
    "command_result" CommandResult(CommandResult),
    /// Agent to server: something happened.
    "event" Event(Event),
    /// Server to agent: events up to this one are kept.
    "event_ack" EventAck(EventAck),
    /// Server to agent: a source is wanted, or no longer.
    "source_state" SourceState(SourceState),
    /// Server to agent: a viewer waits for a key frame.
    "key_frame" KeyFrame(KeyFrame),
    /// Server to agent: come back later, or elsewhere.
    "goaway" Goaway(Goaway),
    /// Either way, before a close: why.
    "error" Error(ErrorMessage),
}

fn write<T: Serialize>(envelope: &EnvelopeOut<'_, T>) -> String {
    serde_json::to_string(envelope).expect("messages hold strings, numbers and maps with string keys only")
}

fn too_long(limit: &'static str, allowed: usize, got: usize) -> Error {
    Error::Limit { limit, allowed: allowed as u64, got: got as u64 }
}

/// The front of a text for an error message.
fn excerpt(text: &str) -> String {
    let mut front: String = text.chars().take(40).collect();
    if front.len() < text.len() {
        front.push('…');
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_command_is_read() {
        let message = Message::read(r#"{"type":"command","data":{"action":"restart"}}"#).unwrap().unwrap();
        let Message::Command(command) = message else { panic!("{message:?}") };
        assert_eq!((command.action.as_str(), command.id), ("restart", None));
    }

    #[test]
    fn unknown_types_and_fields_are_no_error() {
        assert_eq!(Message::read(r#"{"type":"weather","data":{"rain":true}}"#), Ok(None));
        let known = Message::read(r#"{"type":"key_frame","data":{"camera":"a","source":"main","hurry":1}}"#);
        assert!(matches!(known, Ok(Some(Message::KeyFrame(_)))));
    }

    #[test]
    fn wrong_json_says_what_and_where() {
        let error = Message::read("{\"type\":").unwrap_err().to_string();
        assert!(error.contains("control message") && error.contains("{\"type\":"), "{error}");
        let error = Message::read(r#"{"type":"event_ack","data":{"sequence":"x"}}"#).unwrap_err().to_string();
        assert!(error.contains("event_ack") && error.contains("\"x\""), "{error}");
    }

    #[test]
    fn long_messages_are_refused() {
        let text = format!(r#"{{"type":"key_frame","data":{{"camera":"{}"}}}}"#, "a".repeat(MAX_TEXT));
        assert!(matches!(Message::read(&text), Err(Error::Limit { allowed: 4_096, .. })));
        assert!(matches!(Message::read(&" ".repeat(MAX_REGISTER + 1)), Err(Error::Limit { allowed: 16_384, .. })));
    }
}

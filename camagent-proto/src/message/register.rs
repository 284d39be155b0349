//! `register`, `cameras`, `registered`: who is there, and on what terms.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use super::{Camera, SourceState};

/// One run of an agent: 128 random bits, so that nothing needs flash or a right clock to be unique. 32 hexadecimal digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for BootId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        match digits {
            Some(digits) if digits.len() == 32 => {
                Ok(BootId(core::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1])))
            }
            _ => Err(serde::de::Error::custom(format!("boot id: expected 32 hexadecimal digits, got {text:?}"))),
        }
    }
}

/// The feature by which streams survive their connection.
pub const TUNNEL_RESUME: &str = "tunnel-resume";
/// The feature by which the server tells what has arrived.
pub const ARRIVED: &str = "arrived";

/// `register`: the first message of every session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// Protocol versions that the agent speaks, best first.
    pub versions: Vec<u32>,
    /// Optional features that it would like to use.
    #[serde(default)]
    pub features: Vec<String>,
    /// The agent, the same as in the URL.
    pub agent_id: String,
    /// The token, for proxies that strip the Authorization header; left out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// This run of the agent.
    pub boot_id: BootId,
    /// Software and version, for example `camagent/0.1.0`.
    #[serde(default)]
    pub software: String,
    /// The agent's boot-time clock in microseconds, now.
    #[serde(default)]
    pub monotonic_us: u64,
    /// The cameras that fit.
    #[serde(default)]
    pub cameras: Vec<Camera>,
    /// Whether `cameras` messages follow.
    #[serde(default)]
    pub more_cameras: bool,
    /// Commands that the agent or its host answers, for people.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// What the agent takes of tunnels; none of them when it is left out.
    #[serde(default)]
    pub tunnels: TunnelLimits,
    /// The streams that the agent still has; left out when it has none that can go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamsPoint>,
}

/// `cameras`: those that `register` had no room for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cameras {
    /// More cameras.
    #[serde(default)]
    pub cameras: Vec<Camera>,
    /// Whether yet another message follows.
    #[serde(default)]
    pub more_cameras: bool,
}

/// What an end takes of tunnels, until it grants more: the start of the credit of RFC 9000 section 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelLimits {
    /// Streams that the peer may open (MAX_STREAMS); 0 for an end that knows no tunnels.
    pub streams: u64,
    /// Octets of each new stream (MAX_STREAM_DATA).
    pub stream_bytes: u64,
    /// Octets of all streams together (MAX_DATA).
    pub bytes: u64,
    /// Streams that the peer may open in a second, over ten seconds.
    pub opens_per_second: u64,
    /// Octets of frames that this end keeps until the peer has acknowledged them; 0 for an end that does not resume streams.
    pub resume_bytes: u64,
}

/// Where the streams of an earlier session go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsPoint {
    /// The session in which they began.
    pub session: String,
    /// Frames of tunnels that this end has received since.
    pub received: u64,
}

/// What the server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Octets of a record.
    pub record_bytes: u64,
    /// Octets of one media frame.
    pub frame_bytes: u64,
    /// Tracks of an agent.
    pub tracks: u32,
    /// Octets of tunnels.
    pub tunnels: TunnelLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            record_bytes: crate::frame::MAX_RECORD as u64,
            frame_bytes: 4 << 20,
            tracks: 128,
            tunnels: TunnelLimits {
                streams: 0,
                stream_bytes: 64 << 10,
                bytes: 16 << 20,
                opens_per_second: 0,
                resume_bytes: 0,
            },
        }
    }
}

/// Where a track goes on after a reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// The track.
    pub track: u32,
    /// The newest epoch that the server knows.
    pub epoch: u64,
    /// The first sequence in it that the server has not received.
    pub next: u64,
}

/// `registered`: the server's welcome.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Registered {
    /// The picked protocol version.
    pub version: u32,
    /// Features that are on.
    pub features: Vec<String>,
    /// Names the session in the server's logs.
    pub session_id: String,
    /// The server's counter of this agent's connections.
    pub generation: u64,
    /// The server's time in milliseconds since 1970 (UTC).
    pub server_time_ms: u64,
    /// The longest silence that the server wants, 0 to leave it to the agent.
    pub heartbeat_interval_ms: u64,
    /// What the server takes.
    pub limits: Limits,
    /// Which sources are wanted; those not named follow their policy.
    pub sources: Vec<SourceState>,
    /// Where this boot's tracks go on; those not named start anew.
    pub resume: Vec<ResumePoint>,
    /// Octets that the agent sent and received in the running month (UTC), as far as its statistics told: for agents with a data plan.
    #[serde(skip_serializing_if = "is_zero")]
    pub data_used_bytes: u64,
    /// Names the server's store of recordings; another name means that what the former one stored is gone. Empty when nothing is
    /// recorded.
    pub storage_epoch: String,
    /// The streams that go on; left out when all that the agent had are over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<StreamsPoint>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids_are_32_digits() {
        let id: BootId = serde_json::from_str("\"00112233445566778899aabbccddeeff\"").unwrap();
        assert_eq!(id.0[1], 0x11);
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"00112233445566778899aabbccddeeff\"");
        for wrong in ["\"\"", "\"0g112233445566778899aabbccddeeff\"", "7"] {
            assert!(serde_json::from_str::<BootId>(wrong).is_err());
        }
    }
}

//! The statistics that a heartbeat carries: plain numbers, counted by their owner, copied out on request.

use alloc::{collections::BTreeMap, string::String};

use serde::{Deserialize, Serialize};

/// What an agent says of itself in each heartbeat. The first six names are the product's own and never change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Bytes written to the server's sockets since the agent started, TLS and WebSocket overhead included.
    pub bytes_sent: u64,
    /// Bytes read from the server's sockets since the agent started.
    pub bytes_received: u64,
    /// Frames that were accepted and never reached the server: each was told to the server by a SKIP.
    pub packets_lost: u64,
    /// How often a session was established again after the first one.
    pub reconnections: u64,
    /// Seconds since the agent started.
    pub uptime: u64,
    /// Bytes that the journal holds now.
    pub buffer_size: u64,
    /// Frames taken from the host since the agent started.
    pub frames_accepted: u64,
    /// Frames handed to the transport, repeats after a reconnect included.
    pub frames_sent: u64,
    /// Frames that the host pushed and that were not kept: not wanted, waiting for a key frame, or refused.
    pub frames_dropped: u64,
    /// Last measured round trip of a heartbeat in microseconds; 0 before the first.
    pub round_trip_us: u64,
    /// Bits a second that the uplink was seen to deliver at its best lately: no more than it was given. 0 before the first measurement.
    #[serde(skip_serializing_if = "is_zero")]
    pub uplink_bits_per_second: u64,
    /// Microseconds that the newest octets waited in front of the uplink.
    #[serde(skip_serializing_if = "is_zero")]
    pub uplink_queue_us: u64,
    /// Sessions that the agent ended because the server went over a limit, broke the protocol or overdrew its credit.
    #[serde(skip_serializing_if = "is_zero")]
    pub server_faults: u64,
    /// What the octets were for, since the agent started. Left out by agents that do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataUse>,
    /// What the agent holds of its sources by `camera/source`, those with the most first when not all have room.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, Held>,
    /// What a newer agent says beside these.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What an agent holds of a source for the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Seconds from the oldest to the newest frame that it holds, in memory and on its card.
    pub seconds: u64,
    /// Seconds that have room, as sources produce now: so long may an outage be before frames of this source are lost. 0: not known, or it is not
    /// what is kept.
    pub fits_seconds: u64,
}

/// Octets by cause since the agent started. All that was sent together is `bytes_sent` of the same statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataUse {
    /// Live frames by `camera/source`. What is not named is as it was told before in this session, or nothing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub live: BTreeMap<String, u64>,
    /// Tunnels by `camera/service`, in the same way.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tunnels: BTreeMap<String, u64>,
    /// Frames that left late: what an outage left behind, and recordings.
    pub backfill: u64,
    /// Of `backfill`, by `camera/source`, as in `live`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub backfill_of: BTreeMap<String, u64>,
    /// Control messages, and all frames that carry no media and no octets of tunnels.
    pub control: u64,
    /// What remains of the octets sent: TLS, WebSocket, HTTP.
    pub overhead: u64,
    /// Octets received, whatever for.
    pub received: u64,
    /// Of `received`, octets for tunnels by `camera/service`, as in `live`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub received_of: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_product_stay() {
        let text = serde_json::to_string(&Statistics { bytes_sent: 7, ..Default::default() }).unwrap();
        for name in ["bytes_sent\":7", "bytes_received", "packets_lost", "reconnections", "uptime", "buffer_size"] {
            assert!(text.contains(name), "{name} is missing in {text}");
        }
    }

    #[test]
    fn unknown_numbers_survive() {
        let read: Statistics = serde_json::from_str(r#"{"uptime":3,"temperature":41}"#).unwrap();
        assert_eq!((read.uptime, &read.other["temperature"]), (3, &serde_json::json!(41)));
    }
}

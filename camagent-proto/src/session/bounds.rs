//! What a server's end bears of one agent before it closes the session: every number that an operator may set. What the agent is told of beforehand
//! (records, frames, tracks, credit) are [`crate::message::Limits`].

use crate::{mux::Tolerance, time::Duration};

/// A frame in each of these seconds is skipped alone, on each track: an encoder whose every other frame is left out.
const SKIPS_OF_A_TRACK: u64 = 300;
/// Octets beyond the windows of tunnels: two of the largest frames, and what is kept to resume streams.
const BESIDE_TUNNELS: u64 = 12 << 20;

/// How much of each a server's end bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long after the connection `register` must come. Default 5 s.
    pub register_within: Duration,
    /// What is granted beyond two heartbeat intervals before an agent counts as gone. Default 10 s.
    pub grace: Duration,
    /// Heartbeats a minute. Default 240: four a second, and room for those that a stalled link delivers at once.
    pub heartbeats_a_minute: u64,
    /// Pings and pongs of the WebSocket a second, counted over ten. Default 4: a proxy sends one in some seconds.
    pub pings_a_second: u64,
    /// What is borne of tunnels.
    pub tunnels: Tolerance,
    /// Frames and messages of unknown kinds in a session. Default 1 000.
    pub unknown: u64,
    /// Cameras of the agent. Default 1 024.
    pub cameras: u64,
    /// Services of one camera. Default 16.
    pub services: u64,
    /// SKIP frames a second, counted over ten; more when there are many tracks, see [`Bounds::skips_in_ten_seconds`]. Default 100.
    pub skips_a_second: u64,
    /// Control messages and acknowledgements that wait for an agent that does not read. Default 512.
    pub waiting: usize,
    /// Octets that are held for the connection: frames that are not whole yet, what waits to be sent, what waits for visitors, and what
    /// was told of cameras. Default 28 MiB: the windows of tunnels that [`crate::message::Limits`] promises, two of the largest frames, and what is
    /// kept to resume streams.
    pub held_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            register_within: Duration::from_secs(5),
            grace: Duration::from_secs(10),
            heartbeats_a_minute: 240,
            pings_a_second: 4,
            tunnels: Tolerance::default(),
            unknown: 1_000,
            cameras: 1_024,
            services: 16,
            skips_a_second: 100,
            waiting: super::outbox::MAX_WAITING,
            held_bytes: crate::message::Limits::default().tunnels.bytes + BESIDE_TUNNELS,
        }
    }
}

impl Bounds {
    /// SKIP frames in ten seconds of an agent that has announced so many tracks: 30 a second for each are always borne.
    pub fn skips_in_ten_seconds(&self, tracks: usize) -> u64 {
        self.skips_a_second.saturating_mul(10).max(SKIPS_OF_A_TRACK.saturating_mul(tracks as u64))
    }
}

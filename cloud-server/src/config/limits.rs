//! `[limits]`: what the server bears of agents and of strangers. The defaults are those of `sdk-docs/protocol/limits.md`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::reader::{Section, quoted};
use super::tunnels::net;
use crate::error::{Error, Result};

/// What is kept of an agent's tunnels until it has received it. An agent takes less at once.
pub(crate) const RESUME_BYTES: u64 = 1 << 20;

/// How much of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TLS handshakes under way, from everywhere. Default 256.
    pub handshakes: usize,
    /// The same from one address. Default 64: a site with a hundred agents behind one NAT comes back within seconds.
    pub handshakes_per_address: usize,
    /// Networks that many people's connections come from, a load balancer's as a rule: only the limit of all holds for them.
    pub handshakes_trusted: Vec<IpNet>,
    /// How long a TLS handshake may take. Default 5 s.
    pub handshake_timeout: Duration,
    /// How long who connects may take for its first HTTP request. Default 10 s.
    pub request_timeout: Duration,
    /// How long an agent may take from the WebSocket to `register`. Default 5 s.
    pub register_timeout: Duration,
    /// The longest silence that agents are asked for. Default 30 s.
    pub heartbeat_interval: Duration,
    /// What is granted beyond two such intervals before an agent counts as gone. Default 10 s.
    pub heartbeat_grace: Duration,
    /// An agent that takes nothing for so long while something waits for it is gone. Default 10 s.
    pub write_timeout: Duration,
    /// Heartbeats of an agent a minute. Default 240.
    pub heartbeats_per_minute: u64,
    /// Pings and pongs of the WebSocket in a second, over ten. Default 4.
    pub pings_per_second: u64,
    /// Frames and messages of unknown kinds in a session. Default 1000.
    pub unknown: u64,
    /// Cameras of an agent. Default 1024.
    pub cameras: u64,
    /// Services of a camera. Default 16.
    pub services: u64,
    /// Tracks of an agent. Default 128.
    pub tracks: u32,
    /// Octets of one media frame. Default 4 MiB.
    pub frame_bytes: u64,
    /// SKIP frames of an agent in a second, over ten; at least 30 for each track. Default 100.
    pub skips_per_second: u64,
    /// What an agent may send on each new tunnel before its visitor has taken something. Default 64 KiB.
    pub tunnel_stream_bytes: u64,
    /// The same for all tunnels of an agent together. Default 16 MiB.
    pub tunnel_bytes: u64,
    /// Octets to which the window of one tunnel grows while its visitor takes them fast. Default 1 MiB.
    pub tunnel_window_bytes: u64,
    /// RESET_STREAM and STOP_SENDING of an agent in ten seconds; more where more visitors come and go. Default 100.
    pub tunnel_resets: u64,
    /// Frames of tunnels without effect in ten seconds; more where more visitors come and go. Default 1000.
    pub tunnel_useless: u64,
    /// Empty DATA on one tunnel. Default 16.
    pub tunnel_empty_data: u64,
    /// Control messages and acknowledgements that wait for an agent that does not read. Default 512.
    pub waiting_messages: usize,
    /// Octets that are held for one agent's connection, all kinds together. Default 28 MiB.
    pub connection_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            handshakes_per_address: 64,
            handshakes_trusted: Vec::new(),
            handshake_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            register_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(30),
            heartbeat_grace: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            heartbeats_per_minute: 240,
            pings_per_second: 4,
            unknown: 1_000,
            cameras: 1_024,
            services: 16,
            tracks: 128,
            frame_bytes: 4 << 20,
            skips_per_second: 100,
            tunnel_stream_bytes: 64 << 10,
            tunnel_bytes: 16 << 20,
            tunnel_window_bytes: 1 << 20,
            tunnel_resets: 100,
            tunnel_useless: 1_000,
            tunnel_empty_data: 16,
            waiting_messages: 512,
            connection_bytes: 28 << 20,
        }
    }
}

impl Limits {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let own = Self::default();
        let seconds = |section: &mut Section<'_>, key, default| section.seconds(key, 0.1..=3600.0, default);
        Self {
            handshakes: count(section, "handshakes", 1..=1_000_000, own.handshakes),
            handshakes_per_address: count(section, "handshakes_per_address", 1..=1_000_000, own.handshakes_per_address),
            handshakes_trusted: section.all_parsed(
                "handshakes_trusted",
                "must be networks or addresses, as [\"10.0.0.0/8\", \"192.0.2.7\"]",
                net,
            ),
            handshake_timeout: seconds(section, "handshake_timeout", own.handshake_timeout),
            request_timeout: seconds(section, "request_timeout", own.request_timeout),
            register_timeout: seconds(section, "register_timeout", own.register_timeout),
            heartbeat_interval: section.seconds("heartbeat_interval", 1.0..=3600.0, own.heartbeat_interval),
            heartbeat_grace: seconds(section, "heartbeat_grace", own.heartbeat_grace),
            write_timeout: seconds(section, "write_timeout", own.write_timeout),
            heartbeats_per_minute: count(section, "heartbeats_per_minute", 60..=1_000_000, own.heartbeats_per_minute),
            pings_per_second: count(section, "pings_per_second", 1..=1_000_000, own.pings_per_second),
            unknown: count(section, "unknown", 0..=1_000_000_000, own.unknown),
            cameras: count(section, "cameras", 1..=1_024, own.cameras),
            services: count(section, "services", 1..=256, own.services),
            tracks: count(section, "tracks", 1..=4_096, own.tracks),
            frame_bytes: count(section, "frame_bytes", 65_536..=1 << 30, own.frame_bytes),
            skips_per_second: count(section, "skips_per_second", 1..=1_000_000, own.skips_per_second),
            tunnel_stream_bytes: count(section, "tunnel_stream_bytes", 4_096..=1 << 30, own.tunnel_stream_bytes),
            tunnel_bytes: count(section, "tunnel_bytes", 4_096..=1 << 40, own.tunnel_bytes),
            tunnel_window_bytes: count(section, "tunnel_window_bytes", 4_096..=1 << 30, own.tunnel_window_bytes),
            tunnel_resets: count(section, "tunnel_resets", 100..=1_000_000_000, own.tunnel_resets),
            tunnel_useless: count(section, "tunnel_useless", 100..=1_000_000_000, own.tunnel_useless),
            tunnel_empty_data: count(section, "tunnel_empty_data", 0..=1_000_000_000, own.tunnel_empty_data),
            waiting_messages: count(section, "waiting_messages", 64..=1_000_000, own.waiting_messages),
            connection_bytes: count(section, "connection_bytes", 1 << 20..=1 << 40, own.connection_bytes),
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let trusted: Vec<_> = self.handshakes_trusted.iter().map(|net| quoted(&net.to_string())).collect();
        let seconds = |duration: Duration| duration.as_secs_f64().to_string();
        vec![
            ("handshakes", self.handshakes.to_string()),
            ("handshakes_per_address", self.handshakes_per_address.to_string()),
            ("handshakes_trusted", format!("[{}]", trusted.join(", "))),
            ("handshake_timeout", seconds(self.handshake_timeout)),
            ("request_timeout", seconds(self.request_timeout)),
            ("register_timeout", seconds(self.register_timeout)),
            ("heartbeat_interval", seconds(self.heartbeat_interval)),
            ("heartbeat_grace", seconds(self.heartbeat_grace)),
            ("write_timeout", seconds(self.write_timeout)),
            ("heartbeats_per_minute", self.heartbeats_per_minute.to_string()),
            ("pings_per_second", self.pings_per_second.to_string()),
            ("unknown", self.unknown.to_string()),
            ("cameras", self.cameras.to_string()),
            ("services", self.services.to_string()),
            ("tracks", self.tracks.to_string()),
            ("frame_bytes", self.frame_bytes.to_string()),
            ("skips_per_second", self.skips_per_second.to_string()),
            ("tunnel_stream_bytes", self.tunnel_stream_bytes.to_string()),
            ("tunnel_bytes", self.tunnel_bytes.to_string()),
            ("tunnel_window_bytes", self.tunnel_window_bytes.to_string()),
            ("tunnel_resets", self.tunnel_resets.to_string()),
            ("tunnel_useless", self.tunnel_useless.to_string()),
            ("tunnel_empty_data", self.tunnel_empty_data.to_string()),
            ("waiting_messages", self.waiting_messages.to_string()),
            ("connection_bytes", self.connection_bytes.to_string()),
        ]
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong =
            |key: &str, value: u64, allowed: String| Err(Error::Config(format!("limits.{key} = {value}: {allowed}")));
        if self.handshakes_per_address > self.handshakes {
            let (of_address, all) = (self.handshakes_per_address as u64, self.handshakes);
            return wrong("handshakes_per_address", of_address, format!("must not be above limits.handshakes = {all}"));
        }
        if self.tunnel_stream_bytes > self.tunnel_bytes {
            let all = self.tunnel_bytes;
            return wrong(
                "tunnel_stream_bytes",
                self.tunnel_stream_bytes,
                format!("must not be above limits.tunnel_bytes = {all}"),
            );
        }
        // Main and sub may each have a frame under way.
        let kept = 2 * RESUME_BYTES;
        let least = self.tunnel_bytes.saturating_add(self.frame_bytes.saturating_mul(2)).saturating_add(kept);
        if self.connection_bytes < least {
            let allowed = format!(
                "must be at least {least}, which is limits.tunnel_bytes, twice limits.frame_bytes and {kept} for streams that are resumed: an agent may use all of it"
            );
            return wrong("connection_bytes", self.connection_bytes, allowed);
        }
        Ok(())
    }

    /// Whether only the limit of all handshakes holds for an address.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.handshakes_trusted.iter().any(|net| net.contains(&address))
    }
}

/// A whole number of any width.
fn count<T: TryFrom<i64> + TryInto<i64> + Copy>(
    section: &mut Section<'_>,
    key: &str,
    range: std::ops::RangeInclusive<i64>,
    default: T,
) -> T {
    let number = section.integer(key, range, default.try_into().unwrap_or(i64::MAX));
    T::try_from(number).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use camagent_proto::session::ServerConfig;

    use super::*;
    use crate::Config;

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let (own, protocol) = (Limits::default(), ServerConfig::default());
        let (bounds, limits) = (protocol.bounds, protocol.limits);
        assert_eq!(own.register_timeout, bounds.register_within);
        assert_eq!((own.heartbeat_interval, own.heartbeat_grace), (protocol.heartbeat_interval, bounds.grace));
        assert_eq!((own.heartbeats_per_minute, own.unknown), (bounds.heartbeats_a_minute, bounds.unknown));
        assert_eq!((own.cameras, own.services, own.tracks), (bounds.cameras, bounds.services, limits.tracks));
        assert_eq!((own.frame_bytes, own.skips_per_second), (limits.frame_bytes, bounds.skips_a_second));
        assert_eq!(own.tunnel_stream_bytes, limits.tunnels.stream_bytes);
        assert_eq!((own.tunnel_bytes, own.waiting_messages), (limits.tunnels.bytes, bounds.waiting));
        assert_eq!((own.connection_bytes, own.pings_per_second), (bounds.held_bytes, bounds.pings_a_second));
        let tunnels = bounds.tunnels;
        assert_eq!((own.tunnel_resets, own.tunnel_useless), (tunnels.resets, tunnels.useless));
        assert_eq!((own.tunnel_empty_data, own.tunnel_window_bytes), (tunnels.empty_data, tunnels.window));
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        for (text, parts) in [
            ("handshakes = 10", ["limits.handshakes_per_address", "limits.handshakes = 10"]),
            ("tunnel_stream_bytes = 33554432", ["limits.tunnel_stream_bytes", "16777216"]),
            ("connection_bytes = 2000000", ["limits.connection_bytes", "27262976"]),
        ] {
            let error = Config::parse(&format!("[limits]\n{text}")).expect("each is in its range").config.check();
            let error = error.expect_err(text).to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        for text in ["handshakes = 0", "register_timeout = 0", "tracks = -1", "handshakes_trusted = [\"lb\"]"] {
            let error = Config::parse(&format!("[limits]\n{text}")).expect_err(text).to_string();
            assert!(error.contains(&format!("limits.{}", text.split_once(' ').expect("a key").0)), "{error}");
        }
    }

    #[test]
    fn a_load_balancers_network_is_trusted() {
        let limits = Config::parse("[limits]\nhandshakes_trusted = [\"10.0.0.0/8\"]").expect("reads").config.limits;
        assert!(limits.trusts("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!limits.trusts("192.0.2.1".parse().expect("an address")));
    }
}

//! `[tunnels]`: where the services of cameras are offered as ports of the server, to whom, and how patient they are.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::reader::{Section, quoted};
use crate::error::{Error, Result};

/// The last port that may be given.
const LAST_PORT: i64 = 65_535;

/// Addresses, ports and limits of tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// Where the ports are opened. Default 127.0.0.1; any other than a loopback address needs `allow` and a viewer account.
    pub bind: IpAddr,
    /// Networks whose visitors are let in, as "10.0.0.0/8" or a single address. Visitors of this machine always are.
    pub allow: Vec<IpNet>,
    /// The first port for RTSP services, given from here upwards. Default 8554; 0 takes a free one and keeps it.
    pub first_rtsp_port: u16,
    /// The first port for every other service. Default 18000; 0 takes a free one and keeps it.
    pub first_port: u16,
    /// How long a visitor waits for an agent that is away. Default 10 s.
    pub wait: Duration,
    /// How long visits wait, with their connections open, for an agent whose connection broke. Default 60 s; 0 ends them with it.
    pub resume_time: Duration,
    /// Visitors of one camera at once, over all its services; one more is turned away. Default 32.
    pub max_visitors: usize,
    /// Gives each camera an address of its own, 127.10.x.y, where its services have the camera's own ports. Default false.
    pub loopback_addresses: bool,
    /// Whose word decides how RTSP visitors are answered.
    pub rtsp_mode: RtspMode,
}

/// How visitors of RTSP services are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtspMode {
    /// As the agent's configuration says for each service.
    #[default]
    Agent,
    /// Untouched, whatever the agent says.
    Raw,
    /// From the relay where it can be, whatever the agent says.
    Shared,
}

impl RtspMode {
    const WORDS: [&'static str; 3] = ["agent", "raw", "shared"];

    fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl Default for Tunnels {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            allow: Vec::new(),
            first_rtsp_port: 8554,
            first_port: 18_000,
            wait: Duration::from_secs(10),
            resume_time: Duration::from_secs(60),
            max_visitors: 32,
            loopback_addresses: false,
            rtsp_mode: RtspMode::Agent,
        }
    }
}

impl Tunnels {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let port = |section: &mut Section<'_>, key: &str, default: u16| {
            u16::try_from(section.integer(key, 0..=LAST_PORT, i64::from(default))).unwrap_or(default)
        };
        let visitors = section.integer("max_visitors", 1..=10_000, default.max_visitors as i64);
        Self {
            bind: section.parsed("bind", "must be an address without a port, as \"127.0.0.1\"", default.bind),
            allow: section.all_parsed(
                "allow",
                "must be networks or addresses, as [\"10.0.0.0/8\", \"192.0.2.7\"]",
                net,
            ),
            first_rtsp_port: port(section, "first_rtsp_port", default.first_rtsp_port),
            first_port: port(section, "first_port", default.first_port),
            wait: section.seconds("wait", 0.0..=300.0, default.wait),
            resume_time: section.seconds("resume_time", 0.0..=3_600.0, default.resume_time),
            max_visitors: usize::try_from(visitors).unwrap_or(default.max_visitors),
            loopback_addresses: section.flag("loopback_addresses", default.loopback_addresses),
            rtsp_mode: match section.word("rtsp_mode", &RtspMode::WORDS, default.rtsp_mode.word()) {
                "raw" => RtspMode::Raw,
                "shared" => RtspMode::Shared,
                _ => RtspMode::Agent,
            },
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let allow: Vec<_> = self.allow.iter().map(|net| quoted(&net.to_string())).collect();
        vec![
            ("bind", quoted(&self.bind.to_string())),
            ("allow", format!("[{}]", allow.join(", "))),
            ("first_rtsp_port", self.first_rtsp_port.to_string()),
            ("first_port", self.first_port.to_string()),
            ("wait", self.wait.as_secs_f64().to_string()),
            ("resume_time", self.resume_time.as_secs_f64().to_string()),
            ("max_visitors", self.max_visitors.to_string()),
            ("loopback_addresses", self.loopback_addresses.to_string()),
            ("rtsp_mode", quoted(self.rtsp_mode.word())),
        ]
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.bind.is_loopback() {
            return Ok(());
        }
        let bind = self.bind;
        if self.loopback_addresses {
            return Err(Error::Config(format!(
                "tunnels.bind = \"{bind}\": must be a loopback address with tunnels.loopback_addresses = true, because \
                 addresses in 127.0.0.0/8 are reached from this machine only"
            )));
        }
        if self.allow.is_empty() {
            return Err(Error::Config(format!(
                "tunnels.bind = \"{bind}\": needs tunnels.allow, the networks whose visitors are let in, as [\"10.0.0.0/8\"]: \
                 most cameras cannot defend themselves"
            )));
        }
        Ok(())
    }

    /// True when a visitor from this address is let in. Loopback is this machine, which the list is not about.
    #[must_use]
    pub fn lets_in(&self, visitor: IpAddr) -> bool {
        let visitor = visitor.to_canonical();
        visitor.is_loopback() || self.allow.iter().any(|net| net.contains(&visitor))
    }
}

/// A network, or one address.
pub(super) fn net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use crate::Config;

    fn config(text: &str) -> Config {
        Config::parse(&format!("[tunnels]\n{text}")).expect("reads").config
    }

    #[test]
    fn beyond_loopback_needs_a_list() {
        assert!(config("bind = \"127.0.0.2\"").check().is_ok());
        assert!(config("bind = \"::1\"").check().is_ok());
        let error = config("bind = \"0.0.0.0\"").check().expect_err("no list").to_string();
        assert!(error.contains("tunnels.bind") && error.contains("tunnels.allow"), "{error}");
        assert!(config("bind = \"0.0.0.0\"\nallow = [\"10.0.0.0/8\"]").check().is_ok());
        let error = config("bind = \"::\"\nallow = [\"::/0\"]\nloopback_addresses = true").check().expect_err("odd");
        assert!(error.to_string().contains("loopback_addresses"), "{error}");
    }

    #[test]
    fn the_list_is_networks_and_addresses_of_both_families() {
        let tunnels = config("allow = [\"10.0.0.0/8\", \"192.0.2.7\", \"2001:db8::/32\"]").tunnels;
        for (visitor, is_let_in) in [
            ("10.200.0.1", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:11.0.0.1", false),
            ("2001:db8::5", true),
            ("2001:db9::5", false),
            ("127.0.0.1", true),
            ("::1", true),
        ] {
            assert_eq!(tunnels.lets_in(visitor.parse().expect("an address")), is_let_in, "{visitor}");
        }
    }

    #[test]
    fn wrong_values_name_the_key() {
        for (text, key) in [
            ("bind = \"localhost\"", "tunnels.bind"),
            ("allow = [\"10.0.0.0/33\"]", "tunnels.allow"),
            ("allow = \"10.0.0.0/8\"", "tunnels.allow"),
            ("first_port = 70000", "tunnels.first_port"),
            ("loopback_addresses = 1", "tunnels.loopback_addresses"),
            ("rtsp_mode = \"fast\"", "tunnels.rtsp_mode"),
        ] {
            let error = Config::parse(&format!("[tunnels]\n{text}")).expect_err(text).to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}

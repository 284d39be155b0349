//! The configuration: one TOML file, one file of this folder for each of its sections. Everything has a sensible
//! default, an unknown key is a warning, a wrong value is an error that names the key, the value and what is allowed.

mod goaway;
mod limits;
mod listen;
mod live;
mod log;
mod reader;
mod recordings;
mod rtsp;
mod storage;
mod tls;
mod tunnels;

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

pub use self::goaway::Goaway;
pub use self::limits::Limits;
pub(crate) use self::limits::RESUME_BYTES;
pub use self::listen::Listen;
pub use self::live::Live;
pub use self::log::Log;
pub use self::recordings::Recordings;
pub use self::rtsp::Rtsp;
pub use self::storage::Storage;
pub use self::tls::Tls;
pub use self::tunnels::{RtspMode, Tunnels};

use self::reader::Document;
use crate::error::{Error, Result};

/// Everything an operator may set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[listen]`: the addresses.
    pub listen: Listen,
    /// `[tls]`: certificate and names.
    pub tls: Tls,
    /// `[storage]`: where the data lies.
    pub storage: Storage,
    /// `[live]`: buffers and patience of live video.
    pub live: Live,
    /// `[rtsp]`: the relay.
    pub rtsp: Rtsp,
    /// `[recordings]`: what is recorded.
    pub recordings: Recordings,
    /// `[tunnels]`: the services of cameras as ports of the server.
    pub tunnels: Tunnels,
    /// `[goaway]`: what agents are told when the server stops.
    pub goaway: Goaway,
    /// `[limits]`: what is borne of agents and of strangers.
    pub limits: Limits,
    /// `[log]`: how much is logged.
    pub log: Log,
}

/// A configuration and what is odd about its file.
#[derive(Debug)]
pub struct Loaded {
    /// The values in force.
    pub config: Config,
    /// One line for each key that nobody knows.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Loaded> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::NotFound => {
                    "--config names it: write it (`camagent-cloud config` prints all keys with their defaults), or leave out --config"
                }
                ErrorKind::PermissionDenied => "let the user that camagent-cloud runs as read it",
                _ => "name a text file with --config FILE",
            };
            Error::Config(format!("configuration {}: {error}: {advice}", path.display()))
        })?;
        Self::parse(&text).map_err(|error| Error::Config(format!("configuration {}: {error}", path.display())))
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Loaded> {
        let mut document = Document::parse(text)?;
        let config = Self {
            listen: document.section("listen", Listen::read),
            tls: document.section("tls", Tls::read),
            storage: document.section("storage", Storage::read),
            live: document.section("live", Live::read),
            rtsp: document.section("rtsp", Rtsp::read),
            recordings: document.section("recordings", Recordings::read),
            tunnels: document.section("tunnels", Tunnels::read),
            goaway: document.section("goaway", Goaway::read),
            limits: document.section("limits", Limits::read),
            log: document.section("log", Log::read),
        };
        Ok(Loaded { config, warnings: document.finish()? })
    }

    /// What holds between values, also after the command line changed some.
    pub fn check(&self) -> Result<()> {
        self.tls.check()?;
        self.limits.check()?;
        self.tunnels.check()
    }

    /// The first key that opens the relay or tunnels beyond this machine, which needs a viewer account.
    #[must_use]
    pub fn opens_beyond_loopback(&self) -> Option<String> {
        let relay = (!self.listen.rtsp.ip().is_loopback()).then(|| format!("listen.rtsp = \"{}\"", self.listen.rtsp));
        let tunnels =
            || (!self.tunnels.bind.is_loopback()).then(|| format!("tunnels.bind = \"{}\"", self.tunnels.bind));
        relay.or_else(tunnels)
    }

    /// The same with every port 0 and all data in `data_dir`: for tests that start a server in their process. Tunnels
    /// begin at a port of the folder's own and not at 0: a port that the system chooses is one of those that any
    /// outgoing connection of another test may hold when the server is started again.
    #[must_use]
    pub fn for_tests(data_dir: &Path) -> Self {
        let mut config = Self::default();
        config.listen.http.set_port(0);
        config.listen.tls = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        config.listen.rtsp.set_port(0);
        let own = data_dir
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(*byte)));
        config.tunnels.first_rtsp_port = 10_000 + own % 20_000;
        config.tunnels.first_port = config.tunnels.first_rtsp_port;
        config.storage.data_dir = data_dir.to_owned();
        config
    }
}

impl fmt::Display for Config {
    /// The values in force as a TOML file that can be read again.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sections = [
            ("listen", self.listen.rows()),
            ("tls", self.tls.rows()),
            ("storage", self.storage.rows()),
            ("live", self.live.rows()),
            ("rtsp", self.rtsp.rows()),
            ("recordings", self.recordings.rows()),
            ("tunnels", self.tunnels.rows()),
            ("goaway", self.goaway.rows()),
            ("limits", self.limits.rows()),
            ("log", self.log.rows()),
        ];
        for (index, (section, rows)) in sections.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            writeln!(out, "[{section}]")?;
            for (key, value) in rows {
                writeln!(out, "{key} = {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_the_default_can_be_read_again() {
        assert_eq!(Config::parse("").expect("reads").config, Config::default());
        let printed = Config::default().to_string();
        let again = Config::parse(&printed).expect("reads what it printed");
        assert_eq!(again.config, Config::default());
        assert_eq!(again.warnings, Vec::<String>::new());
    }

    #[test]
    fn unknown_keys_warn() {
        let loaded = Config::parse("[listen]\nhtpp = 1\n[portal]\nx = 1").expect("reads");
        assert_eq!(loaded.warnings.len(), 2);
        assert!(loaded.warnings[0].contains("listen.htpp"), "{:?}", loaded.warnings);
        assert!(loaded.warnings[1].contains("portal"), "{:?}", loaded.warnings);
    }

    #[test]
    fn wrong_values_name_key_value_and_what_is_allowed() {
        for (text, parts) in [
            ("[listen]\nhttp = 8080", ["listen.http", "8080", "address"]),
            ("[live]\nbuffer_bytes = 1", ["live.buffer_bytes", "1", "65536"]),
            ("[live]\nmax_viewer_lag = \"4s\"", ["live.max_viewer_lag", "4s", "seconds"]),
            ("[rtsp]\nsession_timeout = -3", ["rtsp.session_timeout", "-3", "seconds"]),
            ("[log]\nlevel = \"loud\"", ["log.level", "loud", "debug"]),
            ("listen = 3", ["listen", "3", "section"]),
        ] {
            let error = Config::parse(text).expect_err(text).to_string();
            for part in parts {
                assert!(error.contains(part), "{error} should contain {part}");
            }
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let error =
            Config::parse("[live]\nbuffer_bytes = 1\nviewer_linger = -1").expect_err("two wrong values").to_string();
        assert!(error.contains("buffer_bytes") && error.contains("viewer_linger"), "{error}");
    }

    #[test]
    fn what_opens_beyond_loopback_is_named() {
        let opens = |text| Config::parse(text).expect("reads").config.opens_beyond_loopback();
        assert_eq!(opens(""), None);
        assert_eq!(opens("[listen]\nrtsp = \"0.0.0.0:7554\"").as_deref(), Some("listen.rtsp = \"0.0.0.0:7554\""));
        assert_eq!(opens("[tunnels]\nbind = \"10.0.0.1\"").as_deref(), Some("tunnels.bind = \"10.0.0.1\""));
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let loaded = Config::parse("[tls]\ncertificate = \"/x/cert.pem\"").expect("reads");
        assert!(loaded.config.check().expect_err("no key").to_string().contains("tls.private_key"));
    }
}

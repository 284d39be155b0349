//! `[rtsp]`: the relay.

use std::time::Duration;

use super::reader::Section;

/// Limits and patience of the RTSP relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtsp {
    /// How long a DESCRIBE waits for the camera and its parameter sets. Default 5 s.
    pub describe_timeout: Duration,
    /// What is announced as `Session: …;timeout=`; enforced 5 s later, and never while media drains. Default 60 s.
    pub session_timeout: Duration,
    /// How long a viewer's connection may take nothing at all while media waits for it. Default 60 s.
    pub stall_timeout: Duration,
    /// Viewers at once; one more is turned away. Default 5000.
    pub max_connections: usize,
    /// Whether viewers on this machine need an account too; beyond loopback they always do. Default false.
    pub login: bool,
}

impl Default for Rtsp {
    fn default() -> Self {
        Self {
            describe_timeout: Duration::from_secs(5),
            session_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            max_connections: 5000,
            login: false,
        }
    }
}

impl Rtsp {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let connections = section.integer("max_connections", 1..=1_000_000, default.max_connections as i64);
        Self {
            describe_timeout: section.seconds("describe_timeout", 0.0..=60.0, default.describe_timeout),
            session_timeout: section.seconds("session_timeout", 1.0..=3600.0, default.session_timeout),
            stall_timeout: section.seconds("stall_timeout", 1.0..=3600.0, default.stall_timeout),
            max_connections: usize::try_from(connections).unwrap_or(default.max_connections),
            login: section.flag("login", default.login),
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("describe_timeout", self.describe_timeout.as_secs_f64().to_string()),
            ("session_timeout", self.session_timeout.as_secs_f64().to_string()),
            ("stall_timeout", self.stall_timeout.as_secs_f64().to_string()),
            ("max_connections", self.max_connections.to_string()),
            ("login", self.login.to_string()),
        ]
    }
}

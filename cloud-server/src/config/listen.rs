//! `[listen]`: where the server listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::{Section, quoted};

/// Addresses; port 0 takes a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Plain HTTP and WebSocket. Default 127.0.0.1:8080; `--host` and `--port` move it.
    pub http: SocketAddr,
    /// HTTPS and secure WebSocket for agents and people. Default 0.0.0.0:8443.
    pub tls: SocketAddr,
    /// The RTSP relay. Default 127.0.0.1:7554; any other than a loopback address needs a viewer account.
    pub rtsp: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            http: SocketAddr::new(loopback, 8080),
            tls: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443),
            rtsp: SocketAddr::new(loopback, 7554),
        }
    }
}

impl Listen {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        Self {
            http: section.address("http", default.http),
            tls: section.address("tls", default.tls),
            rtsp: section.address("rtsp", default.rtsp),
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("http", quoted(&self.http.to_string())),
            ("tls", quoted(&self.tls.to_string())),
            ("rtsp", quoted(&self.rtsp.to_string())),
        ]
    }
}

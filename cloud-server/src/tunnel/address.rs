//! Where a tunnel listens, and the URLs that people put into their players and recorders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config;
use crate::store::TunnelRow;

/// The service whose visitors speak RTSP, and whose paths are those of the camera's sources.
pub(super) const RTSP: &str = "rtsp";

/// What visitors of a service speak, as its name says: the part before the first `-`, `_` or `.`, so that `rtsp-nvr` speaks RTSP.
pub(super) fn language(service: &str) -> &str {
    service.split(['-', '_', '.']).next().unwrap_or(service)
}

/// The address of a tunnel's listener. With addresses of its own a camera keeps its ports; one that has none yet is at none.
#[must_use]
pub fn address(row: &TunnelRow, config: &config::Tunnels) -> Option<SocketAddr> {
    if config.loopback_addresses {
        return row.own_address.map(|own| SocketAddr::new(IpAddr::V4(own), row.camera_port));
    }
    Some(SocketAddr::new(config.bind, row.port))
}

/// Ready URLs: for RTSP one for each of the camera's sources. A listener on all addresses is named by the loopback one;
/// from elsewhere the server's name takes its place.
#[must_use]
pub fn urls(row: &TunnelRow, address: SocketAddr) -> Vec<String> {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let at = SocketAddr::new(ip, address.port());
    match language(&row.service) {
        // Of another RTSP server than the camera's own the paths are not known.
        RTSP if row.paths.is_empty() || row.service != RTSP => vec![format!("rtsp://{at}/")],
        RTSP => row.paths.iter().map(|known| format!("rtsp://{at}{}", absolute(&known.path))).collect(),
        "http" => vec![format!("http://{at}/")],
        "https" => vec![format!("https://{at}/")],
        "onvif" => vec![format!("http://{at}/onvif/device_service")],
        _ => vec![format!("tcp://{at}")],
    }
}

/// The path of a source, beginning with a slash.
fn absolute(path: &str) -> String {
    let path = path.split_once("://").map_or(path, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use camagent_proto::message::ServiceMode;

    use super::*;
    use crate::store::{SourcePath, TunnelState};

    fn row(service: &str, paths: &[&str]) -> TunnelRow {
        let path = |path: &&str| SourcePath { source: "main".into(), path: (*path).into(), carried: true };
        TunnelRow {
            camera: "gate".into(),
            service: service.into(),
            agent: "a".into(),
            port: 8554,
            camera_port: 554,
            mode: ServiceMode::Raw,
            paths: paths.iter().map(path).collect(),
            state: TunnelState::Listening,
            reason: None,
            own_address: Some(Ipv4Addr::new(127, 10, 0, 5)),
        }
    }

    #[test]
    fn urls_can_be_put_into_a_player() {
        let mut config = config::Tunnels::default();
        let of = |row: &TunnelRow, config: &config::Tunnels| urls(row, address(row, config).expect("has one"));
        let rtsp = row("rtsp", &["/cam/realmonitor?channel=1&subtype=0", "live"]);
        let main = "rtsp://127.0.0.1:8554/cam/realmonitor?channel=1&subtype=0";
        assert_eq!(of(&rtsp, &config), [main, "rtsp://127.0.0.1:8554/live"]);
        assert_eq!(of(&row("rtsp", &[]), &config), ["rtsp://127.0.0.1:8554/"]);
        assert_eq!(of(&row("onvif", &[]), &config), ["http://127.0.0.1:8554/onvif/device_service"]);
        assert_eq!(of(&row("snap", &[]), &config), ["tcp://127.0.0.1:8554"]);
        for (service, url) in [
            ("rtsp-nvr", "rtsp://127.0.0.1:8554/"),
            ("http_admin", "http://127.0.0.1:8554/"),
            ("https.2", "https://127.0.0.1:8554/"),
            ("onvif-2", "http://127.0.0.1:8554/onvif/device_service"),
            ("nvr-rtsp", "tcp://127.0.0.1:8554"),
            ("rtsps", "tcp://127.0.0.1:8554"),
        ] {
            assert_eq!(of(&row(service, &["live"]), &config), [url]);
        }
        config.bind = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        assert_eq!(of(&row("http", &[]), &config), ["http://[::1]:8554/"]);
        config.loopback_addresses = true;
        assert_eq!(of(&row("http", &[]), &config), ["http://127.10.0.5:554/"]);
        assert_eq!(address(&TunnelRow { own_address: None, ..row("http", &[]) }, &config), None);
    }
}

//! `services`: what may be reached through tunnels, and where it is. The allow-list is this side's alone: the server asks for names.

use camagent_proto::message::{ServiceMode, is_name};
use serde_json::Value;

use super::{NAME, camera::host, reader::Section};
use crate::error::Error;

/// A TCP service that may be reached through a tunnel. The server knows its name only; where it leads is this side's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// `rtsp`, `http`, `onvif` or another name.
    pub name: String,
    /// Name or address in the agent's network, IPv6 without brackets. Default: the camera's.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How the server answers RTSP viewers. Default `raw`.
    pub mode: ServiceMode,
}

/// The service that a camera with streams has without being told.
const RTSP: &str = "rtsp";
/// Services of a camera.
pub(super) const MAX_SERVICES: usize = 16;
const MODES: &[(&str, ServiceMode)] = &[("raw", ServiceMode::Raw), ("shared", ServiceMode::Shared)];
const FORM: &str = "a port number, an object with port, host and mode, or false to switch it off";

/// What a file says of one service.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    name: String,
    /// `None` when it is switched off.
    place: Option<Place>,
}

#[derive(Clone, Debug, Default)]
struct Place {
    port: Option<u16>,
    host: Option<String>,
    mode: ServiceMode,
}

/// `services`: `{"rtsp": {"port": 554, "mode": "shared"}, "http": 80, "onvif": false}`.
pub(super) fn read(section: &Section<'_>) -> Result<Vec<Choice>, Error> {
    let all = section.section("services")?;
    let choices = all.keys().map(|name| choice(&all, name)).collect::<Result<Vec<_>, _>>()?;
    if choices.len() > MAX_SERVICES {
        return Err(section.wrong("services", "at most 16 services"));
    }
    Ok(choices)
}

fn choice(all: &Section<'_>, name: &str) -> Result<Choice, Error> {
    if !is_name(name) {
        return Err(all.wrong(name, &format!("a service's name of {NAME}")));
    }
    let place = match all.value(name) {
        Some(Value::Bool(false)) => None,
        Some(Value::Number(_)) => Some(Place { port: port(all, name)?, ..Place::default() }),
        Some(Value::Object(_)) => {
            let service = all.section(name)?;
            let port = port(&service, "port")?;
            if port.is_none() && name != RTSP {
                return Err(service.wrong("port", "a whole number from 1 to 65535: only rtsp has a port without it"));
            }
            let host = host(&service)?;
            let mode = service.one_of("mode", MODES)?;
            if mode.is_some() && name != RTSP {
                return Err(service.wrong("mode", "left out: only rtsp has modes"));
            }
            service.finish();
            Some(Place { port, host, mode: mode.unwrap_or_default() })
        }
        _ => return Err(all.wrong(name, FORM)),
    };
    Ok(Choice { name: name.into(), place })
}

fn port(section: &Section<'_>, key: &str) -> Result<Option<u16>, Error> {
    Ok(section.integer(key, 1, 65_535)?.and_then(|port| u16::try_from(port).ok()))
}

/// The services of a camera: what its own section says of a name counts more than what all cameras share. `rtsp_port` is there when
/// the file says where the camera's streams are.
pub(super) fn merge(common: &[Choice], own: &[Choice], host: &str, rtsp_port: (u16, bool)) -> Vec<ServiceConfig> {
    let (rtsp_port, has_streams) = rtsp_port;
    let by_default = Choice { name: RTSP.into(), place: has_streams.then(Place::default) };
    let mut chosen: Vec<&Choice> = vec![&by_default];
    for choice in common.iter().chain(own) {
        match chosen.iter_mut().find(|other| other.name == choice.name) {
            Some(other) => *other = choice,
            None => chosen.push(choice),
        }
    }
    let services = chosen.into_iter().filter_map(|choice| {
        let place = choice.place.as_ref()?;
        Some(ServiceConfig {
            name: choice.name.clone(),
            host: place.host.clone().unwrap_or_else(|| host.into()),
            port: place.port.unwrap_or(rtsp_port),
            mode: place.mode,
        })
    });
    services.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Config;

    fn with(streaming: Value, camera: Value) -> Result<Vec<String>, String> {
        let file = json!({
            "agent": {"agent_id": "a", "cloud_server_url": "ws://h", "cloud_server_token": "t"},
            "streaming": streaming, "camera": camera,
        });
        let config = Config::from_json(&file.to_string()).map_err(|error| error.to_string())?;
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let shown =
            |service: &ServiceConfig| format!("{} {}:{} {:?}", service.name, service.host, service.port, service.mode);
        Ok(config.cameras[0].services.iter().map(shown).collect())
    }

    fn none() -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn rtsp_is_there_when_the_file_names_streams() {
        assert_eq!(with(json!({}), json!({})), Ok(none()));
        assert_eq!(with(json!({"rtsp_port": 8554}), json!({})).unwrap(), ["rtsp 127.0.0.1:8554 Raw"]);
        let paths = json!({"stream_paths": ["/a"], "host": "192.0.2.4"});
        assert_eq!(with(json!({}), paths).unwrap(), ["rtsp 192.0.2.4:554 Raw"]);
        let off = json!({"stream_paths": ["/a"], "services": {"rtsp": false}});
        assert_eq!(with(off, json!({})), Ok(none()));
        let shared = json!({"rtsp_port": 8554, "services": {"rtsp": {"mode": "shared"}}});
        assert_eq!(with(shared, json!({})).unwrap(), ["rtsp 127.0.0.1:8554 Shared"]);
    }

    #[test]
    fn others_are_there_when_they_are_named_and_a_camera_knows_better() {
        let common = json!({"services": {"http": 80, "onvif": {"port": 81}, "snap": 8081}});
        let own = json!({"host": "cam", "services": {"http": {"port": 8080, "host": "proxy"}, "snap": false}});
        assert_eq!(with(common, own).unwrap(), ["http proxy:8080 Raw", "onvif cam:81 Raw"]);
    }

    #[test]
    fn an_address_in_brackets_is_the_address_within() {
        let own = json!({"host": "[::1]", "services": {"http": 80, "onvif": {"port": 81, "host": "[fe80::1%eth0]"}}});
        assert_eq!(with(json!({}), own).unwrap(), ["http ::1:80 Raw", "onvif fe80::1%eth0:81 Raw"]);
        let bare = json!({"host": "fd00::7", "services": {"http": 80}});
        assert_eq!(with(json!({}), bare).unwrap(), ["http fd00::7:80 Raw"]);
        for host in ["[::1", "::1]", "[]", "[cam]", "[192.0.2.4]", "192.0.2.4:554", "cam:554", "[::1]:554"] {
            let error = with(json!({}), json!({"host": host})).unwrap_err();
            assert!(error.contains("camera.host") && error.contains("without port"), "{error}");
        }
    }

    #[test]
    fn wrong_services_are_named() {
        let many: serde_json::Map<String, Value> = (1..=17).map(|at| (format!("s{at}"), json!(at))).collect();
        for (services, key, allowed) in [
            (json!({"http": "80"}), "services.http", "port number"),
            (json!({"http": true}), "services.http", "false"),
            (json!({"http": 0}), "services.http", "65535"),
            (json!({"http": {}}), "services.http.port", "only rtsp"),
            (json!({"http": {"port": 80, "host": "a b"}}), "services.http.host", "host name"),
            (json!({"http": {"port": 80, "mode": "shared"}}), "services.http.mode", "only rtsp"),
            (json!({"rtsp": {"mode": "copy"}}), "services.rtsp.mode", "raw, shared"),
            (json!({"a b": 80}), "services.a b", "1 to 64"),
            (json!(many), "services", "at most 16"),
            (json!([80]), "services", "an object"),
        ] {
            let error = with(json!({}), json!({"services": services})).unwrap_err();
            assert!(error.contains(&format!("camera.{key}")) && error.contains(allowed), "{error}");
        }
    }
}

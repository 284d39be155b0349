//! The agent's configuration: one JSON object, every key validated.
//!
//! Unknown keys are warnings, so that a file for a newer agent still works; wrong values are errors that name key, value and what is allowed.
//! `sdk-docs/reference/configuration.md` documents each key. What does not belong here: what the values do.

mod camera;
mod data_plan;
mod log_file;
mod proxy;
mod pull_pace;
mod reader;
mod services;
mod storage;
mod url;
mod window;

pub use camera::{CameraConfig, RtspTransport, SourceConfig};
pub use data_plan::{BACKFILL, DataPlan, TUNNELS};
pub use log_file::{DEFAULT_LOG_FILE, LogFile};
pub use proxy::Proxy;
pub use pull_pace::PullPace;
pub use services::ServiceConfig;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use storage::SYNC_INTERVAL;
pub use storage::{Storage, StorageMode};
pub use url::ServerUrl;
pub use window::Window;

use std::{fmt, path::Path, time::Duration};

use camagent_proto::{
    message::{Retention, is_name},
    mux::MIN_RESUME_BYTES,
};
use reader::Section;
use serde_json::Value;

use crate::error::Error;

/// Text that never reaches a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whom the agent believes to be its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The certificate authorities of the system, or the compiled-in ones, depending on the build.
    Roots,
    /// The certificate authorities of a PEM file.
    CaFile(String),
    /// The authorities in these PEM octets.
    CaPem(Vec<u8>),
    /// Exactly this key: SHA-256 of the certificate's SubjectPublicKeyInfo. Names and dates do not count.
    Pin([u8; 32]),
}

/// Everything that an agent can be told beforehand.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The agent's id: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub agent_id: String,
    /// Where the servers are, at least one, in the order in which they are tried.
    pub servers: Vec<ServerUrl>,
    /// The HTTP proxy that connections to the servers go through. Default: none.
    pub proxy: Option<Proxy>,
    /// The agent's token.
    pub token: Secret,
    /// Whom it believes to be the server.
    pub trust: Trust,
    /// The most detailed log messages that are written. Default `Info`.
    pub log_level: log::LevelFilter,
    /// Where a daemon writes the log; the agent gives its messages to [`crate::Host::logger`] in any case.
    pub log_file: LogFile,
    /// Bytes of the journal: what an outage may hold. Default 2 MiB, about 4 s of 4 Mbit/s. This memory is taken once, at the start.
    pub buffer_size: usize,
    /// Where an outage goes that is longer than the journal's memory holds. Default nowhere.
    pub storage: Option<Storage>,
    /// How long dial, TLS, WebSocket and register may take together. Default 30 s.
    pub connection_timeout: Duration,
    /// The longest pause between attempts while an outage is young. Default 10 s.
    pub reconnect_interval: Duration,
    /// The longest silence. Default 25 s.
    pub heartbeat_interval: Duration,
    /// How often an agent that had to go to another server looks whether the first one is well again. Default 300 s.
    pub return_interval: Duration,
    /// The queue that may stand in front of the uplink while it is busy: 25 to 150 ms, longer for throughput, shorter for delay. Default 40 ms.
    pub queue_target: Duration,
    /// How often an agent that sends nothing but heartbeats tells its statistics. Default 600 s.
    pub statistics_interval: Duration,
    /// What may be sent and received in a month. Default: no limit.
    pub data_plan: Option<DataPlan>,
    /// Tunnels that may be opened in a second, over ten seconds. Default 50, more than a browser on a camera's pages needs.
    pub tunnel_opens_per_second: u64,
    /// Tunnels that may be open at once, all cameras together. Default 32 for each camera with services, at most 256. A server may take fewer: it
    /// keeps 64 KiB for each. Each costs a connection to a camera, and 8 KiB of what the agent may be made to hold.
    pub tunnel_streams: Option<usize>,
    /// How long tunnels wait for the next connection when one breaks. Default 60 s; zero for not at all.
    pub tunnel_resume_time: Duration,
    /// Octets that tunnels may keep until the server has them, so that none is lost with a connection. Default 1 MiB, at least 128 KiB; this
    /// memory is taken when it is needed. A tunnel carries at most so much in a round trip.
    pub tunnel_resume_bytes: u64,
    /// How patient the agent is with cameras that it fetches streams from. No key of a file sets it.
    pub pull_pace: PullPace,
    /// How long a frame of a source that no camera of the configuration names may wait before it is left out; `None`: for ever. Default 3 s.
    pub latency_budget: Option<Duration>,
    /// The cameras; one with the agent's id when the file names none.
    pub cameras: Vec<CameraConfig>,
    /// What was noticed and did no harm.
    pub warnings: Vec<String>,
}

impl Config {
    /// The smallest configuration: who, where, with which token.
    pub fn new(agent_id: &str, server: &str, token: &str) -> Result<Self, Error> {
        let mut text = serde_json::Map::new();
        let agent = serde_json::json!({"agent_id": agent_id, "cloud_server_url": server, "cloud_server_token": token});
        text.insert("agent".into(), agent);
        Self::from_value(&Value::Object(text))
    }

    /// Reads a configuration file.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        Self::from_json(&text).map_err(|error| match error {
            Error::ConfigText(what) => Error::ConfigText(format!("{}: {what}", path.display())),
            other => other,
        })
    }

    /// Reads a configuration from JSON text.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value = serde_json::from_str(text).map_err(|error| Error::ConfigText(format!("not JSON: {error}")))?;
        Self::from_value(&value)
    }

    /// How long a frame of a source may wait; `None`: for ever.
    pub(crate) fn latency_budget_of(&self, camera: &str, source: &str) -> Option<Duration> {
        let sources = self.cameras.iter().filter(|other| other.id == camera).flat_map(|camera| &camera.sources);
        sources
            .into_iter()
            .find(|other| other.name == source)
            .map_or(self.latency_budget, |source| source.latency_budget)
    }

    fn from_value(value: &Value) -> Result<Self, Error> {
        let root = Section::root(value)?;
        let agent = root.required_section("agent")?;
        let agent_id = agent.required("agent_id", Section::string)?;
        if !is_name(&agent_id) {
            return Err(agent.wrong("agent_id", NAME));
        }
        let servers = read_servers(&agent)?;
        let token = agent.required("cloud_server_token", Section::string)?;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) || token.len() > 512 {
            return Err(agent.wrong_secret("cloud_server_token", "1 to 512 visible ASCII characters"));
        }
        let written = [("cloud_server_token", token.as_str(), "your-secret-token")];
        let hosts = servers.iter().map(|server| ("cloud_server_url", server.host(), "your-server.com"));
        for (key, value, placeholder) in written.into_iter().chain(hosts) {
            if value == placeholder {
                root.warn(format!("agent.{key} still has the example's {placeholder:?}"));
            }
        }
        let trust = read_trust(&agent)?;
        let log_level = agent.one_of("log_level", LOG_LEVELS)?.unwrap_or(log::LevelFilter::Info);
        let log_file = log_file::read(&agent)?;
        agent.finish();

        let network = root.section("network")?;
        let seconds = |key, default| -> Result<Duration, Error> {
            Ok(Duration::from_secs(network.integer(key, 1, 3_600)?.unwrap_or(default)))
        };
        let connection_timeout = seconds("connection_timeout", 30)?;
        let reconnect_interval = seconds("reconnect_interval", 10)?;
        let heartbeat_interval = seconds("heartbeat_interval", 25)?;
        let return_interval = seconds("return_interval", 300)?;
        let proxy = network.string("proxy")?.map(|text| Proxy::parse(&text));
        let proxy = proxy.transpose().map_err(|allowed| network.wrong_secret("proxy", &allowed))?;
        let statistics_interval = seconds("statistics_interval", 600)?;
        let tunnel_opens_per_second = network.integer("tunnel_opens_per_second", 1, 100_000)?.unwrap_or(50);
        let tunnel_streams = network.integer("tunnel_streams", 1, 4_096)?;
        let tunnel_streams = tunnel_streams.and_then(|streams| usize::try_from(streams).ok());
        let queue_target = Duration::from_millis(network.integer("queue_target_ms", 25, 150)?.unwrap_or(40));
        let tunnel_resume_time = Duration::from_secs(network.integer("tunnel_resume_time", 0, 3_600)?.unwrap_or(60));
        let tunnel_resume_bytes =
            network.integer("tunnel_resume_bytes", MIN_RESUME_BYTES, 64 << 20)?.unwrap_or(1 << 20);
        network.finish();

        let streaming = root.section("streaming")?;
        let buffer_size = streaming.integer("buffer_size", 64 << 10, 1 << 30)?.unwrap_or(2 << 20);
        let latency_budget = camera::latency_budget(&streaming)?.unwrap_or(Some(DEFAULT_LATENCY_BUDGET));
        let storage = storage::read(&root)?;
        // Who gives the agent a folder wants its frames kept.
        let retention = if storage.is_some() { Retention::Record } else { Retention::Live };
        let cameras = camera::read_all(&root, &streaming, &agent_id, latency_budget, retention)?;
        streaming.finish();
        if storage.is_some() && cameras.iter().any(|camera| camera.outage_source.is_some()) {
            root.warn("outage_source does nothing beside storage.path: the folder keeps all sources".into());
        }
        let data_plan = data_plan::read(&root, &cameras)?;
        root.finish();
        Ok(Self {
            agent_id,
            servers,
            proxy,
            token: Secret(token),
            trust,
            log_level,
            log_file,
            buffer_size: usize::try_from(buffer_size).unwrap_or(2 << 20),
            storage,
            connection_timeout,
            reconnect_interval,
            heartbeat_interval,
            return_interval,
            queue_target,
            statistics_interval,
            data_plan,
            tunnel_opens_per_second,
            tunnel_streams,
            tunnel_resume_time,
            tunnel_resume_bytes,
            pull_pace: PullPace::default(),
            latency_budget,
            cameras,
            warnings: root.take_warnings(),
        })
    }
}

/// How long a frame may wait for its turn while there is a session, unless the configuration says otherwise.
const DEFAULT_LATENCY_BUDGET: Duration = Duration::from_secs(3);

pub(crate) const NAME: &str = "1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit";

const LOG_LEVELS: &[(&str, log::LevelFilter)] = &[
    ("OFF", log::LevelFilter::Off),
    ("ERROR", log::LevelFilter::Error),
    ("WARN", log::LevelFilter::Warn),
    ("WARNING", log::LevelFilter::Warn),
    ("INFO", log::LevelFilter::Info),
    ("DEBUG", log::LevelFilter::Debug),
    ("TRACE", log::LevelFilter::Trace),
];

/// Servers that a file may name.
const MAX_SERVERS: usize = 8;

fn read_servers(agent: &Section<'_>) -> Result<Vec<ServerUrl>, Error> {
    const KEY: &str = "cloud_server_url";
    let texts = match agent.value(KEY) {
        Some(Value::Array(_)) => agent.strings(KEY)?.unwrap_or_default(),
        _ => vec![agent.required(KEY, Section::string)?],
    };
    let servers: Result<Vec<_>, _> = texts.iter().map(|text| ServerUrl::parse(text)).collect();
    let servers = servers.map_err(|allowed| agent.wrong(KEY, &allowed))?;
    let is_repeated = |(at, server): (usize, &ServerUrl)| servers[..at].contains(server);
    if servers.is_empty() || servers.len() > MAX_SERVERS || servers.iter().enumerate().any(is_repeated) {
        return Err(agent.wrong(KEY, "one URL, or a list of 1 to 8 different ones"));
    }
    Ok(servers)
}

fn read_trust(agent: &Section<'_>) -> Result<Trust, Error> {
    let ca_file = agent.string("ca_file")?;
    let pin = agent.string("server_pin")?;
    match (ca_file, pin) {
        (None, None) => Ok(Trust::Roots),
        (Some(path), None) => Ok(Trust::CaFile(path)),
        (Some(_), Some(_)) => Err(agent.wrong("server_pin", "left out when ca_file is given")),
        (None, Some(text)) => {
            let octets = text.strip_prefix("sha256/").and_then(base64);
            let pin = octets.and_then(|octets| <[u8; 32]>::try_from(octets).ok());
            pin.map(Trust::Pin)
                .ok_or_else(|| agent.wrong("server_pin", "sha256/ and the Base64 of 32 bytes, as the server prints it"))
        }
    }
}

/// Base64 (RFC 4648 section 4) of small values; padding may be missing.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            octets.push((bits >> count) as u8);
        }
    }
    Some(octets)
}

#[cfg(test)]
mod tests;

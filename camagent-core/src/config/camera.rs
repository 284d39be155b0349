//! Cameras in the configuration: what is reported at register, where their own servers are, and when their sources are uploaded.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use camagent_proto::message::{MAX_REGISTER, Policy, Retention, is_name};
use serde_json::Value;

use super::{
    NAME, Secret,
    reader::Section,
    services::{self, MAX_SERVICES, ServiceConfig},
};
use crate::error::Error;

/// One source of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// `main`, `sub` …
    pub name: String,
    /// When its frames are uploaded.
    pub policy: Policy,
    /// What frees its frames from the journal.
    pub retention: Retention,
    /// How long one of its frames may wait while there is a session before it is left out; `None`: for ever.
    pub latency_budget: Option<Duration>,
    /// Its path on the camera's own RTSP server.
    pub path: Option<String>,
}

/// How media of a camera comes from its own RTSP server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtspTransport {
    /// Between the messages of the RTSP connection: what gets lost is sent again.
    #[default]
    Tcp,
    /// In datagrams.
    Udp,
}

/// One camera.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraConfig {
    /// Its id, unique on the server.
    pub id: String,
    /// Name or address of its own servers, IPv6 without brackets. Default 127.0.0.1: the agent runs on the camera.
    pub host: String,
    /// Port of its own RTSP server. Default 554.
    pub rtsp_port: u16,
    /// How its media comes from there. Default TCP.
    pub rtsp_transport: RtspTransport,
    /// User for its own servers.
    pub user: Option<String>,
    /// Password for its own servers.
    pub password: Option<Secret>,
    /// Its sources.
    pub sources: Vec<SourceConfig>,
    /// The source that is kept while there is neither a session nor a card; `None`: all alike.
    pub outage_source: Option<String>,
    /// Its services that may be reached through tunnels: the allow-list.
    pub services: Vec<ServiceConfig>,
    /// What is reported at register: model, max_resolution, max_fps, codec, features, maker, firmware, serial.
    pub description: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quality {
    High,
    Medium,
    Low,
}

impl Quality {
    fn policy(self, source: &str) -> Policy {
        match (self, source) {
            (Quality::Medium, "main") => Policy::OnDemand,
            (Quality::Low, "main") => Policy::Off,
            _ => Policy::Always,
        }
    }
}

const QUALITIES: &[(&str, Quality)] = &[("high", Quality::High), ("medium", Quality::Medium), ("low", Quality::Low)];
const POLICIES: &[(&str, Policy)] =
    &[("always", Policy::Always), ("on_demand", Policy::OnDemand), ("off", Policy::Off)];
const RETENTIONS: &[(&str, Retention)] = &[("live", Retention::Live), ("record", Retention::Record)];
const TRANSPORTS: &[(&str, RtspTransport)] = &[("tcp", RtspTransport::Tcp), ("udp", RtspTransport::Udp)];
const CODECS: &[(&str, &str)] = &[
    ("H.265", "H.265"),
    ("H265", "H.265"),
    ("HEVC", "H.265"),
    ("H.264", "H.264"),
    ("H264", "H.264"),
    ("MJPEG", "MJPEG"),
];
/// Bytes of a text that describes a camera. With the other limits here a camera's description fits into one message of the protocol.
const MAX_TEXT: usize = 128;
const MAX_FEATURES: usize = 32;
/// Sources of a camera.
const MAX_SOURCES: usize = 16;
/// Bytes of a path on the camera's RTSP server.
const MAX_PATH: usize = 512;
/// Cameras of an agent: what a server takes.
const MAX_CAMERAS: usize = 1_024;
/// Sources by their place in `stream_paths`.
const SOURCE_NAMES: [&str; 3] = ["main", "sub", "third"];

/// All cameras of a configuration; `streaming` holds what is the same for all of them.
pub(super) fn read_all(
    root: &Section<'_>,
    streaming: &Section<'_>,
    agent_id: &str,
    latency_budget: Option<Duration>,
    retention: Retention,
) -> Result<Vec<CameraConfig>, Error> {
    let quality = streaming.one_of("quality", QUALITIES)?.unwrap_or(Quality::High);
    let common = Common {
        quality,
        retention,
        latency_budget,
        rtsp_port: port(streaming)?,
        rtsp_transport: streaming.one_of("rtsp_transport", TRANSPORTS)?.unwrap_or_default(),
        paths: paths(streaming)?,
        sources: sources(streaming)?,
        outage_source: streaming.string("outage_source")?,
        services: services::read(streaming)?,
    };
    let Some(list) = root.sections("cameras")? else {
        return Ok(vec![read(&root.section("camera")?, &common, Some(agent_id))?]);
    };
    if root.has("camera") {
        return Err(root.wrong("camera", "left out when cameras is given"));
    }
    let cameras = list.iter().map(|camera| read(camera, &common, None)).collect::<Result<Vec<_>, _>>()?;
    for (at, camera) in cameras.iter().enumerate() {
        if cameras[..at].iter().any(|other| other.id == camera.id) {
            return Err(list[at].wrong("id", "an id that no other camera of the list has"));
        }
    }
    if cameras.is_empty() || cameras.len() > MAX_CAMERAS {
        return Err(root.wrong("cameras", "1 to 1024 cameras"));
    }
    Ok(cameras)
}

struct Common {
    quality: Quality,
    retention: Retention,
    latency_budget: Option<Duration>,
    rtsp_port: Option<u16>,
    rtsp_transport: RtspTransport,
    paths: Option<Vec<String>>,
    sources: Vec<SourceChoice>,
    outage_source: Option<String>,
    services: Vec<services::Choice>,
}

fn read(camera: &Section<'_>, common: &Common, default_id: Option<&str>) -> Result<CameraConfig, Error> {
    let id = match (camera.string("id")?, default_id) {
        (Some(id), _) => id,
        (None, Some(id)) => id.into(),
        (None, None) => return Err(camera.wrong("id", NAME)),
    };
    if !is_name(&id) {
        return Err(camera.wrong("id", NAME));
    }
    let mut description = BTreeMap::new();
    for key in ["model", "maker", "firmware", "serial"] {
        if let Some(text) = camera.string(key)? {
            if text.len() > MAX_TEXT {
                return Err(camera.wrong(key, "at most 128 bytes of text"));
            }
            description.insert(key.into(), Value::from(text));
        }
    }
    if let Some(resolution) = camera.string("max_resolution")? {
        let sides =
            resolution.split_once('x').and_then(|(w, h)| Some((w.parse::<u16>().ok()?, h.parse::<u16>().ok()?)));
        if !sides.is_some_and(|(w, h)| w > 0 && h > 0) {
            return Err(camera.wrong("max_resolution", "WIDTHxHEIGHT, for example 2688x1520"));
        }
        description.insert("max_resolution".into(), Value::from(resolution));
    }
    if let Some(rate) = camera.integer("max_fps", 1, 1_000)? {
        description.insert("max_fps".into(), Value::from(rate));
    }
    if let Some(codec) = camera.one_of("codec", CODECS)? {
        description.insert("codec".into(), Value::from(codec));
    }
    if let Some(features) = camera.strings("features")? {
        if features.len() > MAX_FEATURES || features.iter().any(|feature| feature.len() > MAX_TEXT) {
            return Err(camera.wrong("features", "at most 32 texts of at most 128 bytes"));
        }
        description.insert("features".into(), Value::from(features));
    }
    let host = host(camera)?.unwrap_or_else(|| "127.0.0.1".into());
    let paths = paths(camera)?.or_else(|| common.paths.clone());
    let rtsp_port = port(camera)?.or(common.rtsp_port);
    let has_streams = paths.is_some() || rtsp_port.is_some();
    let (paths, rtsp_port) = (paths.unwrap_or_default(), rtsp_port.unwrap_or(554));
    let rtsp_transport = camera.one_of("rtsp_transport", TRANSPORTS)?.unwrap_or(common.rtsp_transport);
    let user = camera.string("user")?;
    let password = match camera.value("password") {
        None => None,
        Some(Value::String(text)) => Some(Secret::new(text.clone())),
        Some(_) => return Err(camera.wrong_secret("password", "a string")),
    };
    if password.is_some() && user.is_none() {
        camera.warn(format!("camera {id} has a password and no user: neither is used"));
    }
    let own = sources(camera)?;
    let outage_source = camera.string("outage_source")?;
    let services = services::merge(&common.services, &services::read(camera)?, &host, (rtsp_port, has_streams));
    if services.len() > MAX_SERVICES {
        return Err(camera.wrong("services", "at most 16 services, with those of streaming"));
    }
    camera.finish();

    let mut names: Vec<String> = SOURCE_NAMES[..2].iter().map(|name| String::from(*name)).collect();
    names.extend(SOURCE_NAMES[2..].iter().take(paths.len().saturating_sub(2)).map(|name| String::from(*name)));
    for choice in common.sources.iter().chain(&own) {
        if !names.contains(&choice.name) {
            names.push(choice.name.clone());
        }
    }
    let sources = names.into_iter().enumerate().map(|(at, name)| {
        let said = |list: &[SourceChoice]| list.iter().find(|other| other.name == name).cloned().unwrap_or_default();
        let (own, of_all) = (said(&own), said(&common.sources));
        let retention = own.retention.or(of_all.retention).unwrap_or(common.retention);
        // What is to be recorded is not left out.
        let latency_budget = common.latency_budget.filter(|_| retention != Retention::Record);
        SourceConfig {
            policy: own.policy.or(of_all.policy).unwrap_or_else(|| common.quality.policy(&name)),
            retention,
            latency_budget: own.latency_budget.or(of_all.latency_budget).unwrap_or(latency_budget),
            path: if at < SOURCE_NAMES.len() { paths.get(at).cloned() } else { None },
            name,
        }
    });
    let sources: Vec<SourceConfig> = sources.collect();
    if message_bytes(&sources, &services, &description) > MAX_REGISTER {
        return Err(camera.wrong("features", "shorter: all that is told of a camera fits into 16384 bytes of JSON"));
    }
    let outage_source = outage_source.or_else(|| common.outage_source.clone()).filter(|name| !name.is_empty());
    if let Some(name) = &outage_source
        && !sources.iter().any(|source| source.name == *name && source.policy != Policy::Off)
    {
        let names: Vec<_> =
            sources.iter().filter(|source| source.policy != Policy::Off).map(|source| source.name.as_str()).collect();
        return Err(camera.wrong_value(
            "outage_source",
            name,
            &format!("a source of {id} that is uploaded: {}", names.join(", ")),
        ));
    }
    Ok(CameraConfig {
        id,
        host,
        rtsp_port,
        rtsp_transport,
        user,
        password,
        sources,
        outage_source,
        services,
        description,
    })
}

/// An upper bound for what a camera takes in a message of the protocol.
fn message_bytes(sources: &[SourceConfig], services: &[ServiceConfig], description: &BTreeMap<String, Value>) -> usize {
    /// Names, punctuation, numbers and words around the texts of a source or a service, and those of the message.
    const AROUND: (usize, usize, usize) = (120, 60, 256);
    // A path has quotation marks and backslashes to escape at worst.
    let of_source =
        |source: &SourceConfig| AROUND.0 + source.name.len() + 2 * source.path.as_ref().map_or(0, String::len);
    let of_service = |service: &ServiceConfig| AROUND.1 + service.name.len();
    let description: usize = description.iter().map(|(key, value)| key.len() + 4 + value.to_string().len()).sum();
    AROUND.2
        + sources.iter().map(of_source).sum::<usize>()
        + services.iter().map(of_service).sum::<usize>()
        + description
}

/// `host`: a name or an address. IPv6 may stand in brackets, as it does in URLs; they are no part of the address.
pub(super) fn host(section: &Section<'_>) -> Result<Option<String>, Error> {
    let Some(text) = section.string("host")? else { return Ok(None) };
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_ipv6 = |text: &str| {
        // A link-local address names its interface behind a percent sign (RFC 4007 section 11).
        let address = text.split_once('%').map_or(text, |(address, _)| address);
        address.parse::<Ipv6Addr>().is_ok()
    };
    let is_host = match bare {
        Some(address) => is_ipv6(address),
        None => !text.contains(['[', ']']) && (!text.contains(':') || is_ipv6(&text)),
    };
    if !is_host || text.is_empty() || text.len() > 253 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(section.wrong("host", "a host name or an address, without port or path"));
    }
    Ok(Some(bare.map_or_else(|| text.clone(), String::from)))
}

fn port(section: &Section<'_>) -> Result<Option<u16>, Error> {
    Ok(section.integer("rtsp_port", 1, 65_535)?.and_then(|port| u16::try_from(port).ok()))
}

fn paths(section: &Section<'_>) -> Result<Option<Vec<String>>, Error> {
    let paths = section.strings("stream_paths")?;
    let wrong = |paths: &Vec<String>| {
        paths.len() > SOURCE_NAMES.len()
            || paths.iter().any(|path| {
                !path.starts_with('/') || path.len() > MAX_PATH || !path.bytes().all(|byte| byte.is_ascii_graphic())
            })
    };
    if paths.as_ref().is_some_and(wrong) {
        return Err(section
            .wrong("stream_paths", "at most 3 paths of at most 512 bytes that begin with /: main, sub and third"));
    }
    Ok(paths)
}

/// What is said of a source.
#[derive(Clone, Default)]
struct SourceChoice {
    name: String,
    policy: Option<Policy>,
    retention: Option<Retention>,
    latency_budget: Option<Option<Duration>>,
}

/// `latency_budget`: whole seconds; 0 is none.
pub(super) fn latency_budget(section: &Section<'_>) -> Result<Option<Option<Duration>>, Error> {
    let seconds = section.integer("latency_budget", 0, 3_600)?;
    Ok(seconds.map(|seconds| (seconds > 0).then(|| Duration::from_secs(seconds))))
}

/// `sources`: `{"main": {"upload": "on_demand", "retention": "live"}}`.
fn sources(section: &Section<'_>) -> Result<Vec<SourceChoice>, Error> {
    let all = section.section("sources")?;
    let mut choices = Vec::new();
    for (name, source) in all.named_sections()? {
        if !is_name(name) {
            return Err(all.wrong(name, &format!("a source's name of {NAME}")));
        }
        let policy = source.one_of("upload", POLICIES)?;
        let retention = source.one_of("retention", RETENTIONS)?;
        let latency_budget = latency_budget(&source)?;
        source.finish();
        choices.push(SourceChoice { name: name.into(), policy, retention, latency_budget });
    }
    if choices.len() > MAX_SOURCES {
        return Err(section.wrong("sources", "at most 16 sources"));
    }
    Ok(choices)
}

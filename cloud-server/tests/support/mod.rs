//! What the promises in this folder share: a server in the process, an HTTP client of thirty lines, cameras that push
//! the bundled clips.

#![allow(dead_code, unreachable_pub, reason = "each promise uses its part")]

pub mod agent;
pub mod rtsp;
pub mod wire_agent;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_server::live::timeline::Stamps;
use cloud_server::live::{PublishedFrame, Publisher, TrackFormat};
use cloud_server::{Config, Server};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server on free ports with its data in a folder that goes with it.
pub struct Running {
    pub server: Server,
    pub folder: tempfile::TempDir,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut config = Config::for_tests(folder.path());
        change(&mut config);
        let server = Server::start(config).await.expect("starts");
        Self { server, folder }
    }
}

/// One HTTP/1.1 exchange: status and body as JSON (null when it is none).
pub async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let body = body.map(Value::to_string).unwrap_or_default();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{authorization}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.expect("reads");
    let text = String::from_utf8(response).expect("text");
    let status = text.get(9..12).and_then(|status| status.parse().ok()).expect("a status line");
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Waits until the condition holds; the test fails when it does not within ten seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} does not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A bundled clip.
pub fn clip(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/clips").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// NAL units of an Annex B stream without start codes.
pub fn nal_units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at + 3 <= stream.len() {
        if stream[at..at + 3] == [0, 0, 1] {
            starts.push(at);
            at += 3;
        } else {
            at += 1;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| {
        let mut unit = &stream[start + 3..end];
        while let [rest @ .., 0] = unit {
            unit = rest;
        }
        unit
    });
    units.collect()
}

/// Pictures of an H.264 stream in Annex B: everything up to and including a slice that begins a picture's only slice.
pub fn h264_pictures(stream: &[u8]) -> Vec<(Bytes, bool)> {
    let mut pictures: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut head = Vec::new();
    for unit in nal_units(stream) {
        let kind = unit[0] & 0x1f;
        let is_slice = kind == 1 || kind == 5;
        // first_mb_in_slice is zero, a single 1 bit, at the first slice of a picture.
        let continues = is_slice && unit[1] & 0x80 == 0;
        let target = if continues { &mut pictures.last_mut().expect("begins with a picture").0 } else { &mut head };
        target.extend_from_slice(&[0, 0, 0, 1]);
        target.extend_from_slice(unit);
        if is_slice && !continues {
            pictures.push((std::mem::take(&mut head), kind == 5));
        }
    }
    pictures.into_iter().map(|(bytes, key)| (Bytes::from(bytes), key)).collect()
}

/// AAC access units with their ADTS headers.
pub fn adts_units(stream: &[u8]) -> Vec<Bytes> {
    let (mut units, mut rest) = (Vec::new(), stream);
    while rest.len() > 7 {
        let length = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5]) >> 5;
        units.push(Bytes::copy_from_slice(&rest[..length]));
        rest = &rest[length..];
    }
    units
}

/// A track format without a configuration.
pub fn format(codec: camagent_media::Codec, framing: camagent_media::Framing, sample_rate: u32) -> TrackFormat {
    TrackFormat { codec, framing, sample_rate, channels: u16::from(sample_rate > 0), config: Bytes::new() }
}

/// Pushes a frame of a track at a time of a camera whose clock is the server's.
pub fn push(publisher: &Publisher, track: u32, at_us: i64, payload: Bytes) {
    let arrival_us = u64::try_from(at_us).expect("positive");
    let stamps = Stamps { pts_us: at_us, arrival_us, received_us: arrival_us, utc_us: 1_760_000_000_000_000 + at_us };
    publisher.push(&PublishedFrame { track, stamps, discontinuity: false, payload });
}

/// A camera that pushes its H.264 clip again and again, faster than time, until it is dropped.
pub struct Pushing {
    pub source: std::sync::Arc<cloud_server::live::Source>,
    task: tokio::task::JoinHandle<()>,
}

impl Pushing {
    /// The camera is the agent's already, or free.
    pub fn start(server: &Server, agent: &str, camera: &str, name: &str) -> Self {
        server.hub().claim(camera, agent).expect("free, or its own");
        let source = server.hub().offer(agent, camera, name).expect("own camera");
        let publisher = source.publish(agent, 1, [1; 16]).expect("the first");
        publisher
            .announce_track(0, format(camagent_media::Codec::H264, camagent_media::Framing::AnnexB, 0))
            .expect("good");
        let task = tokio::spawn(async move {
            let pictures = h264_pictures(&clip("main.h264"));
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            for index in 0_i64.. {
                pace.tick().await;
                push(&publisher, 0, index * 40_000, pictures[index as usize % pictures.len()].0.clone());
            }
        });
        Self { source, task }
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a program is there; without it the test says so, and fails where nothing may be left out.
pub fn installed(program: &str, package: &str) -> bool {
    let there = std::process::Command::new(program).arg("--version").output().is_ok();
    if !there {
        loud(&format!("{program} is not installed (Debian package {package})"));
    }
    there
}

/// Says that a test proves nothing here; where nothing may be left out it fails.
#[allow(clippy::print_stderr, reason = "a test that proves nothing must say so")]
pub fn loud(reason: &str) {
    assert!(std::env::var_os("CAMAGENT_CI_STRICT").is_none(), "{reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Runs a program to its end without keeping the test's own tasks from running.
pub async fn run(program: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new("timeout");
    command.arg("30").arg(program).args(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("ends")
}

/// What ffprobe says of a URL: its words, and whether it went well.
pub async fn ffprobe(url: &str, transport: &[&str]) -> (bool, String) {
    let mut arguments = vec!["-v", "error", "-show_entries", "stream=codec_name,width", "-of", "compact"];
    arguments.extend(transport);
    arguments.push(url);
    let output = run("ffprobe", &arguments).await;
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), told)
}

/// Whether GStreamer gets twenty buffers of a URL's video, with what it says. Its exit code does not count: when it leaves in
/// the middle of a report of its own, it takes the server's close for an error.
pub async fn gstreamer(url: &str, protocols: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    let location = format!("location={url}");
    let protocols = format!("protocols={protocols}");
    let out = format!("location={}", file.path().display());
    let source = ["-q", "rtspsrc", &location, &protocols, "latency=0", "!", "application/x-rtp,media=video"];
    let sink = ["!", "identity", "eos-after=20", "!", "filesink", &out, "buffer-mode=unbuffered"];
    let output = run("gst-launch-1.0", &[&source[..], &sink[..]].concat()).await;
    let written = file.as_file().metadata().expect("is there").len();
    (written > 0, String::from_utf8_lossy(&output.stderr).into_owned())
}

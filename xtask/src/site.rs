//! What runs during `cargo xtask demo`: the server, the cameras, and how they are watched.

use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{self, Running};
use crate::shell::Outcome;
use crate::viewer::{self, Seen};

/// A camera of the demo: who it is, and the clips it loops.
pub(crate) struct Camera {
    pub(crate) id: &'static str,
    pub(crate) video: &'static str,
    pub(crate) audio: &'static str,
    codecs: [&'static str; 2],
}

pub(crate) const CAMERAS: &[Camera] = &[
    Camera { id: "front-door", video: "main.h264", audio: "main.aac", codecs: ["H264", "MPEG4-GENERIC"] },
    Camera { id: "car-park", video: "second.h265", audio: "second.alaw", codecs: ["H265", "PCMA"] },
];

/// The frame rate of the bundled clips.
const FRAMES_PER_SECOND: f64 = 25.0;
/// How long `--check` watches each camera: three groups of pictures.
const WATCH: Duration = Duration::from_secs(6);
/// How long the cameras may take to appear.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What the server says when it has started.
#[derive(Default)]
pub(crate) struct Places {
    pub(crate) http: String,
    pub(crate) tls: String,
    pub(crate) relay: String,
    pub(crate) pin: String,
}

impl Places {
    /// Reads the server's first lines; true once all of them are there.
    pub(crate) fn read(&mut self, log: &str) -> bool {
        for line in log.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let place = match name {
                "http" => &mut self.http,
                "tls" => &mut self.tls,
                "relay" => &mut self.relay,
                "pin" => &mut self.pin,
                _ => continue,
            };
            value.trim().clone_into(place);
        }
        // The pin is the last of them.
        [&self.http, &self.tls, &self.relay].iter().all(|place| !place.is_empty())
            && log.contains(&format!("{}\n", self.pin))
            && !self.pin.is_empty()
    }
}

/// What runs.
pub(crate) struct Site {
    pub(crate) server: Running,
    pub(crate) cameras: Vec<Running>,
    pub(crate) places: Places,
    pub(crate) token: String,
    pub(crate) folder: PathBuf,
}

impl Site {
    pub(crate) fn relay(&self, camera: &Camera) -> String {
        self.places.relay.replace("{camera}", camera.id).replace("{source}", "main")
    }

    pub(crate) fn all_run(&mut self) -> Outcome {
        self.server.still_runs().map_err(|problem| format!("{problem}\n{}", end_of_log(&self.folder, "server")))?;
        for (camera, running) in CAMERAS.iter().zip(&mut self.cameras) {
            running.still_runs().map_err(|problem| format!("{problem}\n{}", end_of_log(&self.folder, camera.id)))?;
        }
        Ok(())
    }

    /// Prints a line of counters each second until told to stop.
    pub(crate) fn show_counters(&mut self, time: Option<Duration>) -> Outcome {
        println!("watch one with any RTSP player, over TCP; Ctrl-C ends everything\n");
        let start = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        let mut next = start;
        let mut last = vec![0; CAMERAS.len()];
        while !process::asked_to_stop() && time.is_none_or(|time| start.elapsed() < time) {
            if Instant::now() >= next {
                next += Duration::from_secs(1);
                self.all_run()?;
                let line = self.counters(&mut last).unwrap_or_else(|problem| problem);
                if terminal {
                    eprint!("\r\x1b[K{:>4} s  {line}", start.elapsed().as_secs());
                } else {
                    eprintln!("{:>4} s  {line}", start.elapsed().as_secs());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if terminal {
            eprintln!();
        }
        Ok(())
    }

    /// What the server says of both cameras; `last` holds the bytes of the call before, for the rate.
    fn counters(&self, last: &mut [u64]) -> Result<String, String> {
        let streams = get(&self.places.http, "/streams", &self.token)?;
        let agents = get(&self.places.http, "/agents", &self.token)?;
        let mut parts = Vec::new();
        for (camera, last) in CAMERAS.iter().zip(last) {
            let find = |list: &Value, key: &str| {
                list.as_array()
                    .and_then(|list| list.iter().find(|entry| entry[key] == camera.id))
                    .cloned()
                    .unwrap_or_default()
            };
            let stream = find(&streams["streams"], "camera");
            let agent = find(&agents["agents"], "id");
            let bytes = stream["bytes"].as_u64().unwrap_or(0);
            parts.push(format!(
                "{}: {} {} frames {} kbit/s {} viewers, lost {}",
                camera.id,
                if agent["online"] == true { "online" } else { "offline" },
                stream["frames"].as_u64().unwrap_or(0),
                bytes.saturating_sub(*last) * 8 / 1000,
                stream["viewers"].as_u64().unwrap_or(0),
                agent["statistics"]["packets_lost"].as_u64().unwrap_or(0),
            ));
            *last = bytes;
        }
        Ok(parts.join(" | "))
    }

    /// Plays both cameras at the same time and judges what came.
    pub(crate) fn check(&mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        for camera in CAMERAS {
            println!("\nwaiting for {}", camera.id);
            // A source can be described once its first key frame is there.
            while let Err(problem) =
                viewer::watch(&self.relay(camera), Duration::from_millis(1), &process::asked_to_stop)
            {
                self.all_run()?;
                if process::asked_to_stop() || Instant::now() > deadline {
                    return Err(format!(
                        "{} cannot be watched: {problem}\n{}",
                        camera.id,
                        end_of_log(&self.folder, camera.id)
                    ));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let viewers: Vec<_> = CAMERAS
            .iter()
            .map(|camera| {
                let url = self.relay(camera);
                std::thread::spawn(move || viewer::watch(&url, WATCH, &process::asked_to_stop))
            })
            .collect();
        let mut problems = Vec::new();
        for (camera, viewer) in CAMERAS.iter().zip(viewers) {
            match viewer.join().unwrap_or_else(|_| Err("the viewer panicked".to_owned())) {
                Ok(seen) => report(camera, &seen, &mut problems),
                Err(problem) => problems.push(format!("{}: {problem}", camera.id)),
            }
        }
        self.all_run()?;
        if process::asked_to_stop() {
            return Err("was stopped before it had seen enough".to_owned());
        }
        if problems.is_empty() {
            println!("\ncheck passed: a viewer receives both cameras without a gap");
            Ok(())
        } else {
            Err(format!("check failed\n  {}\n  logs: {}", problems.join("\n  "), self.folder.display()))
        }
    }
}

/// Prints what a viewer saw of a camera, and notes what is wrong with it.
fn report(camera: &Camera, seen: &Seen, problems: &mut Vec<String>) {
    let seconds = seen.watched.as_secs_f64();
    println!("\n{} in {seconds:.1} s:", camera.id);
    match seen.first_key {
        Some(time) => println!("  connect to first key frame  {:.1} ms", time.as_secs_f64() * 1e3),
        None => problems.push(format!("{}: no key frame came", camera.id)),
    }
    for track in &seen.tracks {
        println!(
            "  {:<5} {:<13} {:>5} packets {:>3} missing {:>4} frames ({:.1}/s) {:>2} key frames {:>7.1} kbit/s",
            track.kind,
            track.codec,
            track.packets,
            track.missing,
            track.frames,
            track.frames as f64 / seconds,
            track.key_frames,
            track.bytes as f64 * 8.0 / seconds / 1e3,
        );
        if track.missing > 0 {
            problems.push(format!("{}: {} packets of {} are missing", camera.id, track.missing, track.codec));
        }
        if track.packets == 0 {
            problems.push(format!("{}: nothing came of {}", camera.id, track.codec));
        }
        // The group of pictures before the viewer came adds frames; a machine that is busy may take some away.
        if track.kind == "video" && (track.frames as f64) < FRAMES_PER_SECOND * seconds * 0.8 {
            problems.push(format!("{}: only {} frames in {seconds:.1} s", camera.id, track.frames));
        }
        if track.kind == "video" && track.key_frames < 2 {
            problems.push(format!("{}: {} key frames in {seconds:.1} s", camera.id, track.key_frames));
        }
    }
    for codec in camera.codecs {
        if !seen.tracks.iter().any(|track| track.codec == codec) {
            problems.push(format!("{}: the description names no {codec}", camera.id));
        }
    }
}

/// One GET request; the answer must be 200 and JSON.
fn get(place: &str, path: &str, token: &str) -> Result<Value, String> {
    let told = |error: std::io::Error| format!("GET {path}: {error}");
    let host = place.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).map_err(told)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(told)?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("GET {path}: no HTTP answer"))?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(format!("GET {path}: {status}"));
    }
    serde_json::from_str(body).map_err(|error| format!("GET {path}: {error}"))
}

pub(crate) fn end_of_log(folder: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{name}.log ends with\n  {}", lines[lines.len().saturating_sub(10)..].join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_first_lines_say_where_it_is() {
        let mut places = Places::default();
        assert!(!places.read("http:        http://127.0.0.1:8080\n"));
        assert!(places.read(
            "http:        http://127.0.0.1:8080\ntls:         https://127.0.0.1:8443\nrelay:       rtsp://127.0.0.1:7554/{camera}/{source}\n\
             certificate: SHA-256 ab\npin:         sha256/AAAA=\n"
        ));
        assert_eq!((places.tls.as_str(), places.pin.as_str()), ("https://127.0.0.1:8443", "sha256/AAAA="));
    }
}

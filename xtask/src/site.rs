//! What runs during `cargo xtask demo`: the server and the cameras; where they can be watched, and what the server counts.

use std::io::{IsTerminal, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{self, Running};
use crate::shell::Outcome;
use crate::viewer::Account;

/// How the frames of a camera get to the server.
pub(crate) enum Feed {
    /// The C example pushes these clips.
    Pushed { video: &'static str, audio: &'static str },
    /// The daemon pulls them from a camera with RTSP and HTTP servers of its own, and offers these through tunnels.
    Pulled,
}

/// A camera of the demo, and what a viewer must find there.
pub(crate) struct Camera {
    pub(crate) id: &'static str,
    pub(crate) feed: Feed,
    codecs: [&'static str; 2],
}

pub(crate) const CAMERAS: &[Camera] = &[
    Camera {
        id: "front-door",
        feed: Feed::Pushed { video: "main.h264", audio: "main.aac" },
        codecs: ["H264", "MPEG4-GENERIC"],
    },
    Camera {
        id: "car-park",
        feed: Feed::Pushed { video: "second.h265", audio: "second.alaw" },
        codecs: ["H265", "PCMA"],
    },
    Camera { id: BEHIND_NAT, feed: Feed::Pulled, codecs: ["H265", "PCMA"] },
];

/// The camera that the daemon stands in front of.
pub(crate) const BEHIND_NAT: &str = "dahua-2449s-il-001";
/// The streams on that camera's own RTSP server: main and sub.
pub(crate) const PATHS: [&str; 2] = ["/cam/realmonitor?channel=1&subtype=0", "/cam/realmonitor?channel=1&subtype=1"];
/// Where that camera's own web server has a picture.
const SNAPSHOT: &str = "/cgi-bin/snapshot.cgi";
/// That camera's account. The daemon knows it; a viewer needs it in the tunnel, where he speaks with the camera itself.
pub(crate) const ACCOUNT: Account = Account { user: "admin", password: "demo-camera" };

/// One way to watch a camera.
pub(crate) struct View {
    /// `relay` or `tunnel`.
    pub(crate) way: &'static str,
    pub(crate) camera: &'static str,
    pub(crate) url: String,
    pub(crate) account: Option<Account>,
    /// As SDP names them.
    pub(crate) codecs: [&'static str; 2],
}

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
    /// The C examples and the daemon.
    pub(crate) agents: Vec<Running>,
    /// The camera that the daemon stands in front of.
    pub(crate) device: Option<Running>,
    pub(crate) places: Places,
    pub(crate) token: String,
    pub(crate) folder: PathBuf,
}

impl Site {
    /// Everything that can be watched; waits until the server offers the tunnels.
    pub(crate) fn views(&mut self) -> Result<Vec<View>, String> {
        let mut views = Vec::new();
        for camera in CAMERAS {
            let url = self.places.relay.replace("{camera}", camera.id).replace("{source}", "main");
            views.push(View { way: "relay", camera: camera.id, url, account: None, codecs: camera.codecs });
            if let Feed::Pulled = camera.feed {
                let url = self.tunnel()?;
                let account = Some(ACCOUNT);
                views.push(View { way: "tunnel", camera: camera.id, url, account, codecs: camera.codecs });
            }
        }
        Ok(views)
    }

    /// Where the camera's own RTSP server can be reached on this machine.
    fn tunnel(&mut self) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let agent = get(&self.places.http, &format!("/api/v1/agents/{BEHIND_NAT}"), &self.token);
            let urls = agent.as_ref().map(|agent| service_urls(agent, "rtsp")).unwrap_or_default();
            if let Some(url) = urls.into_iter().find(|url| url.ends_with(PATHS[0])) {
                return Ok(url);
            }
            self.all_run()?;
            if Instant::now() > deadline || process::asked_to_stop() {
                let answer = agent.map_or_else(|problem| problem, |agent| agent.to_string());
                let log = end_of_log(&self.folder, BEHIND_NAT);
                return Err(format!("the server offers no tunnel to {BEHIND_NAT}\n{answer}\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The page of the camera's own web server that shows a picture, through its tunnel.
    pub(crate) fn snapshot(&self) -> Option<String> {
        let agent = get(&self.places.http, &format!("/api/v1/agents/{BEHIND_NAT}"), &self.token).ok()?;
        let url = service_urls(&agent, "http").into_iter().next()?;
        Some(format!("{}{SNAPSHOT}", url.trim_end_matches('/')))
    }

    pub(crate) fn all_run(&mut self) -> Outcome {
        for running in [&mut self.server].into_iter().chain(&mut self.agents).chain(&mut self.device) {
            if let Err(problem) = running.still_runs() {
                return Err(format!("{problem}\n{}", end_of_log(&self.folder, running.name())));
            }
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

    /// What the server says of the cameras; `last` holds the bytes of the call before, for the rate.
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
            let mut part = format!(
                "{} {} kbit/s {} viewers",
                camera.id,
                bytes.saturating_sub(*last) * 8 / 1000,
                stream["viewers"].as_u64().unwrap_or(0)
            );
            if agent["online"] != true {
                part.push_str(" OFFLINE");
            }
            match agent["statistics"]["packets_lost"].as_u64() {
                Some(lost) if lost > 0 => part.push_str(&format!(" lost {lost}")),
                _ => {}
            }
            parts.push(part);
            *last = bytes;
        }
        Ok(parts.join(" | "))
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

/// The URLs of a service that listens, of all cameras of an agent.
fn service_urls(agent: &Value, name: &str) -> Vec<String> {
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let services = all(&agent["cameras"]).into_iter().flat_map(|camera| all(&camera["services"]));
    let listening = services.filter(|service| service["name"] == name && service["state"] == "listening");
    listening.flat_map(|service| all(&service["urls"])).filter_map(|url| url.as_str().map(str::to_owned)).collect()
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
    fn urls_of_listening_services_are_found_and_no_others() {
        let service = |name: &str, state: &str| serde_json::json!({"name": name, "state": state, "urls": [format!("{name}://{state}")]});
        let services = [service("rtsp", "listening"), service("rtsp", "blocked"), service("http", "listening")];
        let agent = serde_json::json!({"id": "a", "cameras": [{"id": "b", "services": services}]});
        assert_eq!(service_urls(&agent, "rtsp"), ["rtsp://listening"]);
        assert!(service_urls(&serde_json::json!({}), "rtsp").is_empty());
    }

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

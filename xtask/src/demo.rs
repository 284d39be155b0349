//! `cargo xtask demo`: a server, two cameras that are the C example, and what arrives, on one machine.
//!
//! It needs Rust and a C compiler. Everything it makes lies in target/demo; everything it starts ends with it.

use std::io::{IsTerminal, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::library::{self, Profile, Sdk};
use crate::process::{self, Running};
use crate::shell::{self, Outcome};
use crate::viewer::{self, Seen};

pub(crate) const HELP: &str = "\
usage: cargo xtask demo [--seconds N] [--check] [--release]

Builds the server, the C library and examples-c/push_file.c, starts the server (on its usual ports, or on free ones), adds
two agents and pushes the bundled clips: H.264 + AAC as front-door, H.265 + G.711 as car-park, each over wss:// with
the server's key pinned. Prints where to watch and what to ask, then counters each second; Ctrl-C ends everything.

--seconds N   ends by itself after N seconds
--check       plays both cameras by itself, prints what a viewer receives, and ends with 0 or 1
--release     builds server and library for release; the default is quicker to build and quick enough for this
Logs and data of the last run: target/demo.
";

/// A camera of the demo: who it is, and the clips it loops.
struct Camera {
    id: &'static str,
    video: &'static str,
    audio: &'static str,
    codecs: [&'static str; 2],
}

const CAMERAS: &[Camera] = &[
    Camera { id: "front-door", video: "main.h264", audio: "main.aac", codecs: ["H264", "MPEG4-GENERIC"] },
    Camera { id: "car-park", video: "second.h265", audio: "second.alaw", codecs: ["H265", "PCMA"] },
];

/// The frame rate of the bundled clips.
const FRAMES_PER_SECOND: f64 = 25.0;
/// How long `--check` watches each camera: three groups of pictures.
const WATCH: Duration = Duration::from_secs(6);
/// How long the cameras may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let seconds = shell::take_number(&mut arguments, "--seconds")?;
    let check = shell::take_switch(&mut arguments, "--check");
    let release = shell::take_switch(&mut arguments, "--release");
    shell::nothing_left(&arguments)?;

    let demo = Demo::build(release)?;
    process::catch_signals();
    let mut site = demo.start()?;
    println!();
    for camera in CAMERAS {
        println!("relay: {}", site.relay(camera));
    }
    println!("api: {} (token {})", site.places.http, site.token);
    println!("logs: {}", demo.folder.display());
    let outcome = if check { site.check() } else { site.show_counters(seconds.map(Duration::from_secs)) };
    // Cameras before the server, so that they say goodbye to somebody.
    site.cameras.clear();
    site.server.stop();
    println!("goodbye: nothing of the demo runs any more");
    outcome
}

/// What was built.
struct Demo {
    folder: PathBuf,
    server: PathBuf,
    example: PathBuf,
}

impl Demo {
    fn build(release: bool) -> Result<Self, String> {
        let folder = shell::target().join("demo");
        shell::make_folder(&folder)?;
        println!("building the server (the first time takes some minutes)");
        let mut cargo = shell::cargo();
        cargo.args(["build", "--quiet", "-p", "cloud-server"]);
        if release {
            cargo.arg("--release");
        }
        shell::run(&mut cargo, "the lines above say why the server does not build")?;
        println!("building the C library");
        let sdk = library::build(if release { Profile::Firmware } else { Profile::Dev }, &folder.join("sdk"))?;
        println!("building the C example");
        let example = folder.join("push_file");
        compile_example(&sdk, &example)?;
        let server = shell::target().join(if release { "release" } else { "debug" }).join("camagent-cloud");
        Ok(Self { folder, server, example })
    }

    fn server(&self) -> Command {
        let mut command = shell::program(&self.server);
        command.arg("--config").arg(self.folder.join("server.toml"));
        command
    }

    /// Starts the server, then the cameras.
    fn start(&self) -> Result<Site, String> {
        let data = self.folder.join("data");
        let _ = std::fs::remove_dir_all(&data);
        shell::make_folder(&data)?;
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:{}\"\ntls = \"127.0.0.1:{}\"\nrtsp = \"127.0.0.1:{}\"\n\n[storage]\ndata_dir = {}\n",
            unless_busy(8080),
            unless_busy(8443),
            unless_busy(7554),
            json!(data)
        );
        write(&self.folder.join("server.toml"), &text)?;

        let token = self.secret(&["token", "add", "demo"])?;
        let mut tokens = Vec::new();
        for camera in CAMERAS {
            tokens.push(self.secret(&["agent", "add", camera.id])?);
        }
        let log = self.log("server")?;
        let server = Running::start("camagent-cloud", self.server().stdin(Stdio::null()).stdout(log.0).stderr(log.1))?;
        let mut site =
            Site { server, cameras: Vec::new(), places: Places::default(), token, folder: self.folder.clone() };
        let deadline = Instant::now() + PATIENCE;
        while !site.places.read(&std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()) {
            site.all_run()?;
            if Instant::now() > deadline || process::asked_to_stop() {
                return Err(format!(
                    "the server does not say where it listens\n{}",
                    end_of_log(&self.folder, "server")
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for (camera, token) in CAMERAS.iter().zip(&tokens) {
            site.cameras.push(self.push(camera, &site.places, token)?);
        }
        Ok(site)
    }

    fn push(&self, camera: &Camera, places: &Places, token: &str) -> Result<Running, String> {
        let config = json!({
            "agent": {
                "agent_id": camera.id,
                "cloud_server_url": format!("{}/agent", places.tls.replacen("https", "wss", 1)),
                "cloud_server_token": token,
                "log_level": "INFO",
            },
            "network": { "pinned_key": places.pin },
        });
        let file = self.folder.join(format!("{}.json", camera.id));
        write(&file, &format!("{config:#}\n"))?;
        let clips = shell::root().join("tests/data/clips");
        let log = self.log(camera.id)?;
        let mut command = shell::program(&self.example);
        command.arg("--config").arg(file).args(["--camera", camera.id, "--source", "main", "--fps", "25"]);
        command.arg("--video").arg(clips.join(camera.video)).arg("--audio").arg(clips.join(camera.audio));
        Running::start(camera.id, command.stdin(Stdio::null()).stdout(log.0).stderr(log.1))
    }

    /// Runs a command of the server that shows a secret once.
    fn secret(&self, arguments: &[&str]) -> Result<String, String> {
        let text = shell::output(self.server().args(arguments), "the server says above why")?;
        let secret = text.trim();
        if secret.is_empty() || secret.contains(char::is_whitespace) {
            return Err(format!("`camagent-cloud {}` showed no secret:\n{text}", arguments.join(" ")));
        }
        Ok(secret.to_owned())
    }

    fn log(&self, name: &str) -> Result<(Stdio, Stdio), String> {
        let path = self.folder.join(format!("{name}.log"));
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = std::fs::File::create(&path).map_err(told)?;
        Ok((file.try_clone().map_err(told)?.into(), file.into()))
    }
}

/// What the server says when it has started.
#[derive(Default)]
struct Places {
    http: String,
    tls: String,
    relay: String,
    pin: String,
}

impl Places {
    /// Reads the server's first lines; true once all of them are there.
    fn read(&mut self, log: &str) -> bool {
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
struct Site {
    server: Running,
    cameras: Vec<Running>,
    places: Places,
    token: String,
    folder: PathBuf,
}

impl Site {
    fn relay(&self, camera: &Camera) -> String {
        self.places.relay.replace("{camera}", camera.id).replace("{source}", "main")
    }

    fn all_run(&mut self) -> Outcome {
        self.server.still_runs().map_err(|problem| format!("{problem}\n{}", end_of_log(&self.folder, "server")))?;
        for (camera, running) in CAMERAS.iter().zip(&mut self.cameras) {
            running.still_runs().map_err(|problem| format!("{problem}\n{}", end_of_log(&self.folder, camera.id)))?;
        }
        Ok(())
    }

    /// Prints a line of counters each second until told to stop.
    fn show_counters(&mut self, time: Option<Duration>) -> Outcome {
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
    fn check(&mut self) -> Outcome {
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

fn compile_example(sdk: &Sdk, program: &Path) -> Outcome {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let mut command = shell::program(compiler);
    command.args(["-std=c99", "-O2", "-Wall", "-Wextra", "-I"]).arg(&sdk.include).arg("-o").arg(program);
    command.arg(shell::root().join("examples-c/push_file.c")).arg(&sdk.archive).args(&sdk.system_libraries);
    shell::run(&mut command, "needs a C compiler (Debian: gcc libc6-dev); CC names another")
}

/// The usual port, or 0 when it is busy: then the server takes a free one and says which.
fn unless_busy(usual: u16) -> u16 {
    if TcpListener::bind(("127.0.0.1", usual)).is_ok() { usual } else { 0 }
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

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn end_of_log(folder: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("{name}.log ends with\n  {}", lines[lines.len().saturating_sub(10)..].join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_port_is_left_to_the_server() {
        let busy = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert_eq!(unless_busy(busy.local_addr().unwrap().port()), 0);
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

    #[test]
    fn the_clips_of_both_cameras_are_in_the_tree() {
        for camera in CAMERAS {
            for clip in [camera.video, camera.audio] {
                assert!(shell::root().join("tests/data/clips").join(clip).is_file(), "{clip}");
            }
        }
    }
}

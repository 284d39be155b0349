//! `cargo xtask demo`: a server, two cameras that are the C example, and what arrives, on one machine.
//!
//! It needs Rust and a C compiler. Everything it makes lies in target/demo; everything it starts ends with it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::library::{self, Profile, Sdk};
use crate::process::{self, Running};
use crate::shell::{self, Outcome};
use crate::site::{CAMERAS, Camera, PATIENCE, Places, Site, end_of_log};

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
        command.arg("--config").arg(self.folder.join("server.toml")).env("NO_COLOR", "1");
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
                "server_pin": places.pin,
                "log_level": "INFO",
            },
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

fn write(path: &Path, text: &str) -> Outcome {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
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
    fn the_clips_of_both_cameras_are_in_the_tree() {
        for camera in CAMERAS {
            for clip in [camera.video, camera.audio] {
                assert!(shell::root().join("tests/data/clips").join(clip).is_file(), "{clip}");
            }
        }
    }
}

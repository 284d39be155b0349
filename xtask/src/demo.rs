//! `cargo xtask demo`: a server, two cameras that are the C example, one camera behind the daemon, and what arrives, on one machine.
//!
//! It needs Rust and a C compiler. Everything it makes lies in target/demo; everything it starts ends with it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::library::{self, Profile, Sdk};
use crate::process::{self, Running};
use crate::shell::{self, Outcome};
use crate::site::{ACCOUNT, CAMERAS, Camera, Feed, PATHS, PATIENCE, Places, Site, end_of_log};
use crate::verdict;

pub(crate) const HELP: &str = "\
usage: cargo xtask demo [--seconds N] [--check] [--release]

Builds the server, the C library, examples-c/push_file.c, the daemon and the kit's RTSP camera, starts the server (on
its usual ports, or on free ones), and adds three agents, each over wss:// with the server's key pinned:
  front-door           the C example pushes the bundled clips: H.264 + AAC
  car-park             the same, H.265 + G.711
  dahua-2449s-il-001   camagentd in front of a camera with RTSP (Digest) and HTTP servers of its own: the server relays
                       what the daemon pulls, and offers the camera's own ports through tunnels
Prints where to watch and what to ask, then counters each second; Ctrl-C ends everything.

--seconds N   ends by itself after N seconds
--check       plays all of it by itself, relay and tunnel, prints a verdict for each, and ends with 0 or 1
--release     builds for release; the default is quicker to build and quick enough for this
Logs and data of the last run: target/demo.
";

/// The kit's camera, in its own log file too.
const DEVICE: &str = "kit-camera";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let seconds = shell::take_number(&mut arguments, "--seconds")?;
    let check = shell::take_switch(&mut arguments, "--check");
    let release = shell::take_switch(&mut arguments, "--release");
    shell::nothing_left(&arguments)?;

    let demo = Demo::build(release)?;
    process::catch_signals();
    let mut site = demo.start()?;
    let outcome = demo.show(&mut site, check, seconds.map(Duration::from_secs));
    // Agents before the server, so that they say goodbye to somebody.
    site.agents.clear();
    site.device = None;
    site.server.stop();
    println!("goodbye: nothing of the demo runs any more");
    outcome
}

/// What was built.
struct Demo {
    folder: PathBuf,
    /// Where cargo puts programs.
    programs: PathBuf,
    example: PathBuf,
}

impl Demo {
    fn build(release: bool) -> Result<Self, String> {
        let folder = shell::target().join("demo");
        shell::make_folder(&folder)?;
        println!("building server, daemon and camera (the first time takes some minutes)");
        let mut cargo = shell::cargo();
        cargo.args(["build", "--quiet", "-p", "cloud-server", "-p", "camagent", "-p", "camagent-testkit", "--bins"]);
        if release {
            cargo.arg("--release");
        }
        shell::run(&mut cargo, "the lines above say why it does not build")?;
        println!("building the C library");
        let sdk = library::build(if release { Profile::Firmware } else { Profile::Dev }, &folder.join("sdk"))?;
        println!("building the C example");
        let example = folder.join("push_file");
        compile_example(&sdk, &example)?;
        let programs = shell::target().join(if release { "release" } else { "debug" });
        Ok(Self { folder, programs, example })
    }

    fn server(&self) -> Command {
        let mut command = shell::program(self.programs.join("camagent-cloud"));
        command.arg("--config").arg(self.folder.join("server.toml")).env("NO_COLOR", "1");
        command
    }

    /// Starts the server, then the cameras.
    fn start(&self) -> Result<Site, String> {
        let data = self.folder.join("data");
        let _ = std::fs::remove_dir_all(&data);
        shell::make_folder(&data)?;
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:{}\"\ntls = \"127.0.0.1:{}\"\nrtsp = \"127.0.0.1:{}\"\n\n[storage]\ndata_dir = {}\n\n\
             [tunnels]\nfirst_rtsp_port = {}\nfirst_port = {}\n",
            unless_busy(8080),
            unless_busy(8443),
            unless_busy(7554),
            json!(data),
            unless_busy(8554),
            unless_busy(18_000),
        );
        write(&self.folder.join("server.toml"), &text)?;

        let token = self.secret(&["token", "add", "demo"])?;
        let mut tokens = Vec::new();
        for camera in CAMERAS {
            tokens.push(self.secret(&["agent", "add", camera.id])?);
        }
        let server = self.launch("server", &mut self.server())?;
        let (agents, places) = (Vec::new(), Places::default());
        let mut site = Site { server, agents, device: None, places, token, folder: self.folder.clone() };
        self.wait("the server does not say where it listens", "server", &mut site, |site, log| site.places.read(log))?;
        for (camera, token) in CAMERAS.iter().zip(&tokens) {
            let agent = match camera.feed {
                Feed::Pushed { video, audio } => self.push(camera, video, audio, &site.places, token)?,
                Feed::Pulled => self.pull(camera, &mut site, token)?,
            };
            site.agents.push(agent);
        }
        Ok(site)
    }

    /// Prints where everything is, then what the user asked for.
    fn show(&self, site: &mut Site, check: bool, time: Option<Duration>) -> Outcome {
        let views = site.views()?;
        println!();
        for view in &views {
            println!("{}: {}", view.way, view.url);
        }
        if let Some(url) = site.snapshot() {
            println!("tunnel: {url}");
        }
        println!("tunnels lead to the camera itself: user {}, password {}", ACCOUNT.user, ACCOUNT.password);
        println!("api: {} (token {})", site.places.http, site.token);
        println!("logs: {}\n", self.folder.display());
        if check { verdict::check(site, &views) } else { site.show_counters(time) }
    }

    fn push(&self, camera: &Camera, video: &str, audio: &str, places: &Places, token: &str) -> Result<Running, String> {
        let file = self.configure(camera, places, token, json!({}))?;
        let clips = shell::root().join("tests/data/clips");
        let mut command = shell::program(&self.example);
        command.arg("--config").arg(file).args(["--camera", camera.id, "--source", "main", "--fps", "25"]);
        command.arg("--video").arg(clips.join(video)).arg("--audio").arg(clips.join(audio));
        self.launch(camera.id, &mut command)
    }

    /// Switches the kit's camera on and starts the daemon in front of it.
    fn pull(&self, camera: &Camera, site: &mut Site, token: &str) -> Result<Running, String> {
        let mut command = shell::program(self.programs.join("camagent-kit-camera"));
        command.args(["--user", ACCOUNT.user, "--password", ACCOUNT.password]);
        site.device = Some(self.launch(DEVICE, &mut command)?);
        let mut ports = None;
        self.wait("the camera does not say where it listens", DEVICE, site, |_, log| {
            let port =
                |name: &str| log.lines().find_map(|line| line.strip_prefix(name)?.rsplit_once(':')?.1.parse().ok());
            // The second of them is the last that it says in one go.
            ports = port("rtsp ").zip(port("http ")).filter(|_| log.contains("\nhttp://"));
            ports.is_some()
        })?;
        let (rtsp, http): (u16, u16) = ports.ok_or("the camera has no ports")?;
        let more = json!({
            "streaming": { "quality": "high", "rtsp_port": rtsp, "stream_paths": PATHS },
            "camera": {
                "model": "dahua-2449s-il", "codec": "H.265", "user": ACCOUNT.user, "password": ACCOUNT.password,
                "services": { "http": http },
            },
        });
        let file = self.configure(camera, &site.places, token, more)?;
        let mut command = shell::program(self.programs.join("camagentd"));
        command.arg("--config").arg(file);
        self.launch(camera.id, &mut command)
    }

    /// Writes the configuration of an agent.
    fn configure(&self, camera: &Camera, places: &Places, token: &str, mut config: Value) -> Result<PathBuf, String> {
        config["agent"] = json!({
            "agent_id": camera.id,
            "cloud_server_url": format!("{}/agent", places.tls.replacen("https", "wss", 1)),
            "cloud_server_token": token,
            "server_pin": places.pin,
            "log_level": "INFO",
        });
        let file = self.folder.join(format!("{}.json", camera.id));
        write(&file, &format!("{config:#}\n"))?;
        Ok(file)
    }

    /// Starts a program that writes into a log of its own.
    fn launch(&self, name: &str, command: &mut Command) -> Result<Running, String> {
        let (out, err) = self.log(name)?;
        Running::start(name, command.stdin(Stdio::null()).stdout(out).stderr(err))
    }

    /// Waits until a log says enough.
    fn wait(
        &self,
        problem: &str,
        name: &str,
        site: &mut Site,
        mut says_enough: impl FnMut(&mut Site, &str) -> bool,
    ) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let file = self.folder.join(format!("{name}.log"));
        while !says_enough(site, &std::fs::read_to_string(&file).unwrap_or_default()) {
            site.all_run()?;
            if Instant::now() > deadline || process::asked_to_stop() {
                return Err(format!("{problem}\n{}", end_of_log(&self.folder, name)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
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
    fn the_clips_of_the_pushing_cameras_are_in_the_tree() {
        for camera in CAMERAS {
            let Feed::Pushed { video, audio } = camera.feed else { continue };
            for clip in [video, audio] {
                assert!(shell::root().join("tests/data/clips").join(clip).is_file(), "{clip}");
            }
        }
    }
}

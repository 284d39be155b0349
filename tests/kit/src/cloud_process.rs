//! The server as people run it: the program `camagent-cloud` in a process of its own, so that it can be killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::daemon::{self, Daemon};
use crate::wait;

/// What its start may take: it reads what a killed one left.
const STARTS: Duration = Duration::from_secs(60);
/// Of its own certificate and key.
const DATA: &str = "data";

/// The program. `CAMAGENT_CLOUD` names it; otherwise the one beside this program is used, and built when there is none.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(named) = std::env::var_os("CAMAGENT_CLOUD") {
            return PathBuf::from(named);
        }
        let own = std::env::current_exe().expect("this program has a path");
        // target/debug/deps/test-0123: the programs are a folder up.
        let find = || own.ancestors().map(|folder| folder.join("camagent-cloud")).find(|program| program.is_file());
        find().unwrap_or_else(|| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.current_dir(crate::c_library::root()).args(["build", "--quiet", "-p", "cloud-server", "--bins"]);
            let built = cargo.output().expect("cargo runs");
            assert!(built.status.success(), "camagent-cloud: {}", String::from_utf8_lossy(&built.stderr));
            find().expect("it was built beside this program")
        })
    })
}

/// A running server.
pub struct CloudProcess {
    process: Daemon,
    /// Plain HTTP.
    pub http: SocketAddr,
    /// For agents.
    pub tls: SocketAddr,
    /// For viewers.
    pub rtsp: SocketAddr,
    /// What agents pin.
    pub pin: String,
}

impl CloudProcess {
    /// Writes a configuration for servers in `folder`: free ports of loopback, recordings beside the database, and further lines of `[recordings]`.
    pub fn configure(folder: &Path, recordings: &str) {
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\ntls = \"127.0.0.1:0\"\nrtsp = \"127.0.0.1:0\"\n[recordings]\npath = {:?}\n{recordings}\n",
            Self::recordings(folder).display().to_string()
        );
        std::fs::write(folder.join("camagent-cloud.toml"), text).expect("the folder can be written");
    }

    /// Where a server in `folder` records.
    pub fn recordings(folder: &Path) -> PathBuf {
        folder.join("recorded")
    }

    fn command(folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.current_dir(folder).args(arguments).arg("--data-dir").arg(folder.join(DATA)).stdin(Stdio::null());
        daemon::dies_with_its_parent(&mut command);
        command
    }

    /// Runs a command of the program to its end: whether it went well, and what it said.
    pub fn say(folder: &Path, arguments: &[&str]) -> (bool, String) {
        let output = Self::command(folder, arguments).output().expect("camagent-cloud runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// Starts a server and waits until it has told its addresses: all of them accept then. Its log is added to `server.log`.
    pub async fn start(folder: &Path) -> Self {
        let told = folder.join("server.told");
        let log = std::fs::File::options().create(true).append(true).open(folder.join("server.log"));
        let mut command = Self::command(folder, &["serve"]);
        command.stdout(std::fs::File::create(&told).expect("can be written")).stderr(log.expect("can be written"));
        let mut process = Daemon::spawn(&mut command);
        let text = wait::found("the server's addresses", STARTS, || {
            assert!(process.runs(), "the server ended: {}", folder.join("server.log").display());
            // The pin is told last.
            std::fs::read_to_string(&told).ok().filter(|text| text.contains("\npin:") && text.ends_with('\n'))
        });
        let text = text.await;
        let after = |sign: &str| {
            let found = text.lines().find_map(|line| line.split_once(sign)).map(|(_, behind)| behind.trim());
            found.unwrap_or_else(|| panic!("{sign} in {text}"))
        };
        let address = |sign: &str| {
            let found = after(sign).split('/').next().unwrap_or_default();
            found.parse().unwrap_or_else(|_| panic!("an address in {text}"))
        };
        let (http, tls, rtsp) = (address("http://"), address("https://"), address("rtsp://"));
        Self { http, tls, rtsp, pin: after("pin:").to_owned(), process }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        self.process.signal(signal);
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.process.signal(libc::SIGKILL);
        wait::until("the end of a killed server", wait::SOON, || !self.process.runs()).await;
    }

    /// SIGTERM; it leaves in peace.
    pub async fn stop(mut self) {
        self.process.signal(libc::SIGTERM);
        wait::until("the server's end", Duration::from_secs(60), || !self.process.runs()).await;
    }
}

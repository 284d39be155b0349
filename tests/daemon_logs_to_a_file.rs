//! Where the daemon's log goes: into a file that stays small, is opened again when somebody moved it away, and never stops the agent when the
//! disk does not want it; into the journal with priorities; else to standard error with times.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use camagent_testkit::{CloudServer, Daemon, wait};
use serde_json::{Value, json};

const DAEMON: &str = env!("CARGO_BIN_EXE_camagentd");

/// A server, an agent of it, and a folder for files.
struct Site {
    server: CloudServer,
    token: String,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let server = CloudServer::start().await;
        let token = server.add_agent("gate").await;
        Self { server, token, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Writes a configuration with some values changed.
    fn config(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut config = self.server.agent_json("gate", &self.token, self.server.addresses().tls);
        config["agent"]["log_level"] = json!("INFO");
        change(&mut config);
        let file = self.path("config.json");
        fs::write(&file, config.to_string()).expect("the folder can be written");
        file.to_str().expect("text").to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn sessions(&self, at_least: u64) {
        let generation = || self.server.server().agents().status("gate").map_or(0, |status| status.generation);
        wait::until("a session", wait::SOON, || generation() >= at_least).await;
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

async fn contains(path: &Path, part: &str) {
    wait::until(&format!("{part:?} in {}", path.display()), wait::SOON, || read(path).contains(part)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_to_the_file_and_come_back_after_it_was_moved_away() {
    let site = Site::new().await;
    let log = site.path("var/log/camera_agent/agent.log");
    let config = site.config(|config| config["agent"]["log_file"] = json!(log));
    let daemon = Daemon::start(DAEMON, &["--config", &config]);
    contains(&log, "connected to").await;

    // As logrotate does it, with its signal and without.
    let away = site.path("agent.log.away");
    fs::rename(&log, &away).expect("renamed");
    daemon.signal(libc::SIGHUP);
    contains(&log, "SIGHUP").await;
    fs::remove_file(&log).expect("removed");
    wait::until("the file is made again by itself", wait::SOON, || log.exists()).await;
    let api = site.server.api("ops").await;
    assert_eq!(api.post("/agents/gate/control", &json!({"action": "restart"})).await.0, 200);
    site.sessions(2).await;
    contains(&log, "connected to").await;

    daemon.signal(libc::SIGTERM);
    let (status, said) = daemon.end().await;
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    assert!(read(&log).contains("SIGTERM: stopping") && read(&log).contains("stopped"), "{}", read(&log));
    for path in [&log, &away] {
        let text = read(path);
        assert!(!text.contains(&site.token), "the token is in the log");
        assert!(text.lines().all(|line| line.get(..24).is_some_and(|time| time.ends_with('Z'))), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_full_becomes_an_old_one() {
    let site = Site::new().await;
    let log = site.path("agent.log");
    let config = site.config(|config| {
        config["agent"]["log_file_size"] = json!(4_096);
        config["agent"]["log_file_count"] = json!(2);
        // A port where nobody listens: a line for each attempt, and one more for each dial.
        config["agent"]["cloud_server_url"] = json!("ws://127.0.0.1:9/agent");
        config["agent"]["log_level"] = json!("DEBUG");
    });
    fs::write(&log, "old line\n".repeat(450)).expect("written");
    fs::write(site.path("agent.log.1"), "older\n").expect("written");
    fs::write(site.path("agent.log.2"), "oldest\n").expect("written");
    // The command line counts more than the configuration, whose sizes hold.
    let daemon = Daemon::start(DAEMON, &["--config", &config, "--log-file", log.to_str().expect("text")]);
    wait::until("a rotation", wait::SOON, || read(&site.path("agent.log.1")).starts_with("old line\n")).await;
    contains(&log, "127.0.0.1:9").await;
    assert_eq!(read(&site.path("agent.log.2")), "older\n");
    assert!(!site.path("agent.log.3").exists());
    for name in ["agent.log", "agent.log.1"] {
        assert!(fs::metadata(site.path(name)).expect("is there").len() <= 4_096);
    }
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.end().await.0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_stops_nothing() {
    let site = Site::new().await;
    // A folder, a place below a device, a device: none of them takes a file.
    let folder = site.path("agent.log");
    fs::create_dir(&folder).expect("made");
    for place in [folder.to_str().expect("text"), "/dev/full/agent.log", "/dev/full"] {
        let config = site.config(|config| config["agent"]["log_file"] = json!(place));
        let stderr = site.path("stderr");
        let file = fs::File::create(&stderr).expect("made");
        let daemon = Daemon::spawn(Command::new(DAEMON).args(["--config", &config]).stderr(Stdio::from(file)));
        contains(&stderr, "connected to").await;
        daemon.signal(libc::SIGHUP);
        daemon.signal(libc::SIGTERM);
        let (status, _) = daemon.end().await;
        let said = read(&stderr);
        assert_eq!(status.code(), Some(0), "{said}");
        let complaint = format!("cannot write the log {place}: ");
        assert_eq!(said.matches(&complaint).count(), 1, "{said}");
        assert!(said.contains("SIGTERM: stopping"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_gets_priorities_and_no_times() {
    let site = Site::new().await;
    let config = site.config(|_| {});
    for is_the_journal in [true, false] {
        let stream = site.path(if is_the_journal { "journal" } else { "terminal" });
        let file = fs::File::create(&stream).expect("made");
        let metadata = file.metadata().expect("is there");
        let inode = metadata.ino() + u64::from(!is_the_journal);
        let mut command = Command::new(DAEMON);
        command.args(["--config", &config]).stderr(Stdio::from(file));
        let daemon = Daemon::spawn(command.env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev())));
        contains(&stream, "connected to").await;
        daemon.signal(libc::SIGTERM);
        assert_eq!(daemon.end().await.0.code(), Some(0));
        let text = read(&stream);
        let fits = |line: &str| match is_the_journal {
            true => line.starts_with("<6>") || line.starts_with("<4>"),
            false => line.starts_with("20") && line.contains("Z INFO  "),
        };
        assert!(text.lines().all(fits), "{text}");
    }
}

//! The daemon as its operator meets it: the real program against a server in this process. It registers, reports, answers
//! `restart`, ends on a signal, and says what is wrong with a configuration.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use camagent_proto::message::{Command as AgentCommand, CommandStatus};
use camagent_testkit::Daemon;
use cloud_server::{Config, Server};
use serde_json::{Value, json};

const DAEMON: &str = env!("CARGO_BIN_EXE_camagentd");

fn start(config: &Path) -> Daemon {
    Daemon::start(DAEMON, &["--config", config.to_str().expect("text")])
}

fn write(folder: &Path, config: &Value) -> PathBuf {
    let file = folder.join("camagent.json");
    std::fs::write(&file, config.to_string()).expect("the folder can be written");
    file
}

fn configuration(url: &str, token: &str) -> Value {
    json!({
        "agent": {"agent_id": "gate", "cloud_server_url": url, "cloud_server_token": token},
        "network": {"heartbeat_interval": 1, "reconnect_interval": 1, "statistics_interval": 1},
        "camera": {"model": "test", "max_fps": 20},
    })
}

fn once(arguments: &[&str]) -> Output {
    Command::new(DAEMON).args(arguments).output().expect("the daemon starts")
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).expect("text")
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} does not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_registers_reports_restarts_and_stops() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let server = Server::start(Config::for_tests(folder.path())).await.expect("starts");
    let token = server.add_agent("gate").await.expect("adds");
    let url = format!("ws://{}/agent", server.addresses().http);
    let daemon = start(&write(folder.path(), &configuration(&url, &token)));
    let status = || server.agents().status("gate").unwrap_or_default();

    eventually("a session with statistics", || status().statistics.is_some()).await;
    let first = status();
    assert!(first.online && first.software.starts_with("camagent/"), "{first:?}");
    assert_eq!(first.cameras[0].id, "gate");
    assert_eq!(first.cameras[0].description["model"], "test");
    assert_eq!(first.capabilities, ["restart"]);
    eventually("a later heartbeat", || {
        let statistics = status().statistics.unwrap_or_default();
        statistics.uptime >= 1 && statistics.bytes_sent > 0 && statistics.bytes_received > 0
    })
    .await;

    let patience = Duration::from_secs(10);
    let restart = AgentCommand { action: "restart".into(), ..AgentCommand::default() };
    let answer = server.agents().command("gate", restart, patience).await.expect("is answered");
    assert_eq!(answer.status, CommandStatus::Ok);
    eventually("a second session of the same run", || {
        status().generation == 2 && status().statistics.is_some_and(|statistics| statistics.reconnections == 1)
    })
    .await;
    assert_eq!(status().boot, first.boot);
    let dance = AgentCommand { action: "dance".into(), ..AgentCommand::default() };
    let answer = server.agents().command("gate", dance, patience).await.expect("is answered");
    assert_eq!(answer.error.expect("it cannot").code, "unsupported");

    // Without a log file that is nothing to act on, and no reason to end.
    daemon.signal(libc::SIGHUP);
    daemon.signal(libc::SIGTERM);
    let (status_code, log) = daemon.end().await;
    assert_eq!(status_code.code(), Some(0), "{log}");
    eventually("the server's notice", || !status().online).await;
    for part in ["INFO ", "WARN ", "connected to", "not encrypted", "SIGTERM: stopping", "stopped"] {
        assert!(log.contains(part), "no {part:?} in\n{log}");
    }
    assert!(!log.contains(&token), "the token is in the log");
    assert!(log.lines().all(|line| line.get(..24).is_some_and(|time| time.ends_with('Z'))), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_also_while_nobody_answers() {
    let folder = tempfile::tempdir().expect("temporary folder");
    // A listener that never answers: the handshake hangs until the daemon gives up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("ws://{}/agent", listener.local_addr().expect("an address"));
    let daemon = start(&write(folder.path(), &configuration(&url, "t")));
    let (_connection, _) = listener.accept().expect("the daemon dials");
    daemon.signal(libc::SIGINT);
    let (status, log) = daemon.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGINT: stopping"), "{log}");
}

#[test]
fn a_wrong_configuration_is_named_with_its_key() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut config = configuration("ws://127.0.0.1:1", "t");
    config["network"]["heartbeat_interval"] = json!("soon");
    let file = write(folder.path(), &config);
    let file = file.to_str().expect("text");
    for arguments in [&["--config", file][..], &["--config", file, "--check-config"]] {
        let output = once(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("network.heartbeat_interval is \"soon\"") && said.contains("from 1 to 3600"), "{said}");
    }
    for (named, parts) in [
        (&["--config", "/no/such/file"][..], ["cannot read /no/such/file", "--config names it", "write it, or"]),
        (&["--config", folder.path().to_str().expect("text")], ["cannot read", "--config names it", "a text file"]),
    ] {
        for what in [&["--check-config"][..], &[], &["doctor"]] {
            let arguments = [named, what].concat();
            let output = once(&arguments);
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{said}");
            for part in parts.iter().chain(&["agent.cloud_server_url"]) {
                assert!(said.contains(part), "{arguments:?}: no {part:?} in {said}");
            }
        }
    }
}

#[test]
fn a_good_configuration_is_told_with_its_warnings() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut config = configuration("ws://127.0.0.1:1", "t");
    config["network"]["speed"] = json!(3);
    let file = write(folder.path(), &config);
    let output = once(&["--check-config", "--config", file.to_str().expect("text")]);
    let said = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{said}");
    for part in ["warning: network.speed", "not encrypted", "agent gate dials", "camera gate: main always, sub always"]
    {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    config["camera"] = json!({"user": "admin", "password": "sesame-of-the-camera", "host": "192.0.2.9",
        "rtsp_port": 5554, "stream_paths": ["/cam/realmonitor?channel=1&subtype=0"]});
    let file = write(folder.path(), &config);
    let output = once(&["--check-config", "--config", file.to_str().expect("text")]);
    let said = text(&output.stdout);
    assert!(said.contains("source main: rtsp://192.0.2.9:5554/cam/realmonitor?channel=1&subtype=0"), "{said}");
    assert!(!said.contains("sesame") && !said.contains("admin"), "{said}");
    config["agent"]["ca_file"] = json!("/no/such/file");
    let file = write(folder.path(), &config);
    let output = once(&["--check-config", "--config", file.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("agent.ca_file is \"/no/such/file\""));
}

#[test]
fn the_command_line_explains_itself() {
    for arguments in [&["--loud"][..], &["--config"], &["--log-file="]] {
        let output = once(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("--help"));
    }
    let help = once(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("/etc/camera_agent/config.json"));
    assert_eq!(text(&once(&["-V"]).stdout), format!("camagentd {}\n", env!("CARGO_PKG_VERSION")));
}

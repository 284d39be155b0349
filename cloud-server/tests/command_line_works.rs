//! The program as an operator meets it.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use support::http;

fn program(folder: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camagent-cloud"));
    command.current_dir(folder).args(arguments).arg("--data-dir").arg(folder.join("data"));
    command
}

fn run(folder: &std::path::Path, arguments: &[&str]) -> Output {
    program(folder, arguments).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// A server process that is killed with the test.
struct Process {
    child: Child,
    lines: Vec<String>,
}

impl Process {
    fn start(folder: &std::path::Path, arguments: &[&str]) -> Self {
        let mut child =
            program(folder, arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.starts_with("pin:")) {
            lines.push(out.next().expect("tells all its lines").expect("text"));
        }
        Self { child, lines }
    }

    fn address(&self, scheme: &str) -> std::net::SocketAddr {
        let line = self.lines.iter().find_map(|line| line.split_once(scheme)).expect("told").1;
        line.split('/').next().and_then(|address| address.parse().ok()).expect("an address")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports(folder: &std::path::Path) {
    let config = "[listen]\ntls = \"127.0.0.1:0\"\nrtsp = \"127.0.0.1:0\"\n";
    std::fs::write(folder.join("camagent-cloud.toml"), config).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_notices_tokens_and_stops_gracefully() {
    let folder = tempfile::tempdir().expect("temporary folder");
    free_ports(folder.path());
    let mut process = Process::start(folder.path(), &["--host", "127.0.0.1", "--port", "0"]);
    assert!(process.lines.iter().any(|line| line.contains("SHA-256 ")), "{:?}", process.lines);
    assert!(process.lines.iter().any(|line| line.contains("sha256/")), "{:?}", process.lines);
    let token = text(&run(folder.path(), &["token", "add", "ops"]).stdout);
    let address = process.address("http://");
    assert_eq!(http(address, "GET", "/agents", Some(&token), None).await.0, 200);
    let agent_token = text(&run(folder.path(), &["agent", "add", "cam-1"]).stdout);
    assert_eq!(agent_token.len(), 43);
    let (_, agents) = http(address, "GET", "/agents", Some(&token), None).await;
    assert_eq!(agents["agents"][0]["id"], "cam-1");
    assert!(text(&run(folder.path(), &["agent", "list"]).stdout).starts_with("cam-1"));
    assert!(text(&run(folder.path(), &["token", "list"]).stdout).starts_with("ops"));
    let again = run(folder.path(), &["agent", "add", "cam-1"]);
    assert!(!again.status.success() && text(&again.stderr).contains("exists already"));
    assert!(run(folder.path(), &["agent", "remove", "cam-1"]).status.success());
    assert!(!run(folder.path(), &["agent", "remove", "cam-1"]).status.success());
    let secret = text(&run(folder.path(), &["viewer", "add", "eve"]).stdout);
    assert_eq!(secret.len(), 22);
    assert!(text(&run(folder.path(), &["viewer", "list"]).stdout).starts_with("eve"));
    assert!(text(&run(folder.path(), &["viewer", "add", "eve"]).stderr).contains("exists already"));
    assert!(text(&run(folder.path(), &["viewer", "add", "e:e"]).stderr).contains("viewer's name"));
    assert!(run(folder.path(), &["viewer", "remove", "eve"]).status.success());
    assert!(!run(folder.path(), &["viewer", "remove", "eve"]).status.success());
    assert!(run(folder.path(), &["token", "remove", "ops"]).status.success());
    assert_eq!(http(address, "GET", "/agents", Some(&token), None).await.0, 401);

    let terminated = Command::new("kill").arg(process.child.id().to_string()).status().expect("kill runs");
    assert!(terminated.success());
    assert!(process.child.wait().expect("ends").success(), "SIGTERM is a graceful stop");
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let folder = tempfile::tempdir().expect("temporary folder");
    free_ports(folder.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = run(folder.path(), &["serve", "--port", &port]);
    assert!(!output.status.success());
    for part in ["HTTP", &port, "listen.http", "--port"] {
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

#[test]
fn bad_configuration_is_named_and_good_one_printed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("cloud.toml");
    std::fs::write(&file, "[listen]\nrtsp = \"0.0.0.0:7554\"\n").expect("written");
    let output = run(folder.path(), &["--config", "cloud.toml"]);
    assert!(!output.status.success() && text(&output.stderr).contains("listen.rtsp"));
    assert!(text(&output.stderr).contains("camagent-cloud viewer add NAME"), "{}", text(&output.stderr));
    std::fs::write(&file, "[live]\nviewer_linger = 3\nvewer = 1\n").expect("written");
    for arguments in [["config", "--config", "cloud.toml"], ["--print-config", "--config", "cloud.toml"]] {
        let output = run(folder.path(), &arguments);
        assert!(text(&output.stdout).contains("viewer_linger = 3"), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains("unknown key live.vewer"), "{}", text(&output.stderr));
    }
    let output = run(folder.path(), &["--config", "missing.toml"]);
    let said = text(&output.stderr);
    assert!(!output.status.success());
    for part in
        ["configuration missing.toml", "--config names it", "write it (`camagent-cloud config`", "leave out --config"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    std::fs::remove_dir_all(folder.path().join("data")).expect("removed");
    std::fs::write(folder.path().join("data"), "a file").expect("written");
    let output = run(folder.path(), &["agent", "list"]);
    assert!(!output.status.success() && text(&output.stderr).contains("--data-dir"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_used_is_named_and_left_alone() {
    let folder = tempfile::tempdir().expect("temporary folder");
    free_ports(folder.path());
    let file = folder.path().join("data/camagent.sqlite");
    assert!(run(folder.path(), &["agent", "add", "cam-1"]).status.success());
    let good = std::fs::read(&file).expect("there");
    let bad_configuration = run(folder.path(), &["--config", "missing.toml"]).status.code();

    let mut torn = good.clone();
    let page = torn.len() / 2 / 4_096 * 4_096;
    torn[page..].fill(0x5a);
    let garbage = b"this was a database once, and is longer than nothing".to_vec();
    std::fs::write(&file, &good).expect("written");
    let store = sqlx::SqlitePool::connect(file.to_str().expect("text")).await.expect("opens");
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'later', 1, x'00', 0)";
    sqlx::query(later).execute(&store).await.expect("writes");
    store.close().await;
    let newer = std::fs::read(&file).expect("there");
    for (content, says) in [(&garbage, "put back a copy"), (&torn, "put back a copy"), (&newer, "later version")] {
        std::fs::write(&file, content).expect("written");
        for command in [&["agent", "list"][..], &["serve", "--host", "127.0.0.1", "--port", "0"]] {
            let output = run(folder.path(), command);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), bad_configuration, "{said}");
            assert!(said.contains("data/camagent.sqlite") && said.contains(says), "{command:?}: {said}");
        }
        assert!(std::fs::read(&file).expect("there") == *content, "it is left as it is");
    }
}

#[test]
fn the_description_of_the_api_is_printed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let output = run(folder.path(), &["openapi"]);
    let description: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(description["paths"]["/agents/{id}/control"].is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_shown_with_ready_urls() {
    let folder = tempfile::tempdir().expect("temporary folder");
    free_ports(folder.path());
    let table = || text(&run(folder.path(), &["tunnels"]).stdout);
    assert!(table().contains("No agent has offered"), "{}", table());
    let mut config = cloud_server::Config::for_tests(&folder.path().join("data"));
    config.tunnels.first_port = 0;
    let server = cloud_server::Server::start(config.clone()).await.expect("starts");
    let mut gate = support::agent::shared_camera("gate", &[("main", "/live?a=1&b=2"), ("sub", "/live2")]);
    gate.services.extend(support::agent::camera("gate", &[("http", 80)]).services);
    let agent = support::agent::FakeAgent::join(&server, "a", vec![gate], std::collections::BTreeMap::new()).await;
    let listening =
        || server.tunnels().of_agent("a").iter().filter(|status| status.row.state.word() == "listening").count();
    support::eventually("both to listen", || listening() == 2).await;
    let shown = table();
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["CAMERA", "SERVICE", "STATE", "URL"]);
    assert_eq!(lines[1][..3], ["gate", "http", "listening"], "{shown}");
    let address = server.tunnels().of_agent("a")[1].address.expect("has one");
    assert_eq!(lines[2], ["gate", "rtsp", "listening", &format!("rtsp://{address}/live?a=1&b=2")], "{shown}");
    assert_eq!(lines[3][3], format!("rtsp://{address}/live2"), "{shown}");
    drop(agent);
    assert!(server.stop().await);
    assert_eq!(table().matches("not running").count(), 3, "{}", table());
    let _thief = std::net::TcpListener::bind(address).expect("free now");
    let server = cloud_server::Server::start(config).await.expect("starts");
    assert!(table().contains("blocked") && table().contains("another program uses"), "{}", table());
    assert!(server.stop().await);
}

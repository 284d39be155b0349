//! camagent: `camagentd` beside the camera, `camagent-cloud` beside the visitors; streams in one WebSocket in TLS.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::process::{Program, free_port};
use super::{Ground, PATIENCE, Place, Service, Tunnel, folder, said, write};

/// Where tunnels' ports may begin: below those that the kernel gives to whoever dials.
const PORTS: std::ops::Range<u16> = 18_000..30_000;

pub(crate) fn introduce(ground: &Ground) -> Result<String, String> {
    let version = |name: &str| said(Command::new(ground.own.join(name)).arg("--version"));
    let (agent, server) = (version("camagentd")?, version("camagent-cloud")?);
    Ok(format!(
        "{} and {} (streams in WebSocket in TLS; tunnel_opens_per_second raised from its usual 50)",
        agent.trim(),
        server.trim()
    ))
}

pub(crate) fn start(ground: &Ground, place: &Place, services: &[Service]) -> Result<Tunnel, String> {
    let (folder, port, door) = (folder()?, free_port()?, free_door()?);
    let [http, rtsp] = [free_port()?, free_port()?];
    let file = folder.path().join("server.toml");
    let (certificates, address) = (&ground.certificates, place.address);
    let text = format!(
        "[listen]\nhttp = \"127.0.0.1:{http}\"\ntls = \"{address}:{port}\"\nrtsp = \"127.0.0.1:{rtsp}\"\n\
         [tls]\ncertificate = {}\nprivate_key = {}\n[storage]\ndata_dir = {}\n\
         [tunnels]\nbind = \"127.0.0.1\"\nfirst_port = {door}\nmax_visitors = 100\n",
        json!(certificates.join("cert.pem")),
        json!(certificates.join("key.pem")),
        json!(folder.path().join("data")),
    );
    write(&file, &text)?;
    let cloud = |arguments: &[&str]| {
        let mut command = place.far(ground.own.join("camagent-cloud"));
        command.arg("--config").arg(&file).args(arguments).env("NO_COLOR", "1");
        command
    };
    let token = said(&mut cloud(&["agent", "add", "bench"]))?;
    let server = Program::start("server", &mut cloud(&[]), folder.path())?;
    let agent = agent(ground, place, services, folder.path(), port, token.trim())?;
    let doors = doors(&|| said(&mut cloud(&["tunnels"])), services)
        .map_err(|error| format!("{error}; {}; {}", server.last_words(), agent.last_words()))?;
    Ok(Tunnel { agent, server, doors, port, folder })
}

/// What the agent negotiates: it says what it offers, and OpenSSL would offer something else.
pub(crate) fn suite(ground: &Ground, tunnel: &Tunnel) -> Option<String> {
    let mut doctor = Command::new(ground.own.join("camagentd"));
    doctor.arg("doctor").arg("--config").arg(tunnel.folder.path().join("agent.json")).arg("--json");
    let told: serde_json::Value = serde_json::from_slice(&doctor.output().ok()?.stdout).ok()?;
    let tls = told["checks"].as_array()?.iter().find(|check| check["id"] == "tls")?["measured"].as_str()?;
    Some(tls.split(", ").take(2).collect::<Vec<_>>().join(" "))
}

fn agent(
    ground: &Ground,
    place: &Place,
    services: &[Service],
    folder: &Path,
    port: u16,
    token: &str,
) -> Result<Program, String> {
    let offered: serde_json::Map<_, _> = services
        .iter()
        .map(|service| {
            let (host, port) = (service.source.ip().to_string(), service.source.port());
            (service.name.to_owned(), json!({"host": host, "port": port}))
        })
        .collect();
    let config = json!({
        "agent": {
            "agent_id": "bench", "cloud_server_url": format!("wss://{}:{port}/agent", place.address),
            "cloud_server_token": token, "ca_file": ground.certificates.join("ca.pem"), "log_level": "WARN",
        },
        // The usual 50 a second would be what is measured otherwise: the bench is a storm of visitors.
        "network": {"reconnect_interval": 1, "tunnel_opens_per_second": 100_000},
        "camera": {"services": offered},
    });
    let file = folder.join("agent.json");
    write(&file, &config.to_string())?;
    Program::start("agent", place.near(ground.own.join("camagentd")).arg("--config").arg(file), folder)
}

/// Where the server opened each service, once the agent has told of all.
fn doors(listed: &dyn Fn() -> Result<String, String>, services: &[Service]) -> Result<Vec<SocketAddr>, String> {
    let begun = Instant::now();
    loop {
        let list = listed()?;
        let door = |service: &Service| {
            let line = list.lines().find(|line| line.split_whitespace().nth(1) == Some(service.name))?;
            line.split_once("tcp://")?.1.parse().ok()
        };
        if let Some(doors) = services.iter().map(door).collect() {
            return Ok(doors);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("the server does not offer all services of its agent: {list}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port where a tunnel may listen.
fn free_door() -> Result<u16, String> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    PORTS.into_iter().find(is_free).ok_or_else(|| format!("no port of {PORTS:?} is free"))
}

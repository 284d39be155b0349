//! chisel (github.com/jpillora/chisel): SSH channels in a WebSocket in TLS, one connection.

use std::process::Command;

use super::contender::{Ground, Tunnel, folder, said};
use super::process::{Program, free_port};

pub(crate) fn introduce(ground: &Ground) -> Result<String, String> {
    let version = said(Command::new(ground.peers.join("chisel")).arg("--version"))?;
    Ok(format!("chisel {} (SSH in WebSocket in TLS)", version.trim()))
}

pub(crate) fn start(ground: &Ground) -> Result<Tunnel, String> {
    let (folder, port, door) = (folder()?, free_port()?, free_port()?);
    let program = ground.peers.join("chisel");
    let mut server = Command::new(&program);
    server.args(["server", "--reverse", "--auth", "bench:bench", "--host", "127.0.0.1", "--port", &port.to_string()]);
    server.arg("--tls-key").arg(ground.certificates.join("key.pem"));
    server.arg("--tls-cert").arg(ground.certificates.join("cert.pem"));
    let server = Program::start("server", &mut server, folder.path())?;
    let mut agent = Command::new(&program);
    agent.args(["client", "--auth", "bench:bench", "--max-retry-interval", "1s"]);
    agent.arg("--tls-ca").arg(ground.certificates.join("ca.pem"));
    agent.arg(format!("https://127.0.0.1:{port}")).arg(format!("R:127.0.0.1:{door}:{}", ground.source));
    let agent = Program::start("client", &mut agent, folder.path())?;
    Ok(Tunnel { agent, server, door: ([127, 0, 0, 1], door).into(), port, folder })
}

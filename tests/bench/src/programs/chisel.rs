//! chisel (github.com/jpillora/chisel): SSH channels in a WebSocket in TLS, one connection.

use std::process::Command;

use super::process::{Program, free_doors, free_port};
use super::{Ground, Place, Service, Tunnel, folder, said};

pub(crate) fn introduce(ground: &Ground) -> Result<String, String> {
    let version = said(Command::new(ground.peers.join("chisel")).arg("--version"))?;
    Ok(format!("chisel {} (SSH in WebSocket in TLS)", version.trim()))
}

pub(crate) fn start(ground: &Ground, place: &Place, services: &[Service]) -> Result<Tunnel, String> {
    let (folder, port, doors) = (folder()?, free_port()?, free_doors(services)?);
    let program = ground.peers.join("chisel");
    let mut server = place.far(&program);
    server.args(["server", "--reverse", "--auth", "bench:bench", "--host", &place.address.to_string()]);
    server.args(["--port", &port.to_string()]);
    server.arg("--tls-key").arg(ground.certificates.join("key.pem"));
    server.arg("--tls-cert").arg(ground.certificates.join("cert.pem"));
    let server = Program::start("server", &mut server, folder.path())?;
    let mut agent = place.near(&program);
    agent.args(["client", "--auth", "bench:bench", "--max-retry-interval", "1s"]);
    agent.arg("--tls-ca").arg(ground.certificates.join("ca.pem"));
    agent.arg(format!("https://{}:{port}", place.address));
    agent.args(services.iter().zip(&doors).map(|(service, door)| format!("R:{door}:{}", service.source)));
    let agent = Program::start("client", &mut agent, folder.path())?;
    Ok(Tunnel { agent, server, doors, port, folder })
}

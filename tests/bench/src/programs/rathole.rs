//! rathole (github.com/rapiz1/rathole): WebSocket over TLS, a connection of its own for each visitor.

use std::process::Command;

use super::process::{Program, free_doors, free_port};
use super::{Ground, Place, Service, Tunnel, folder, said, write};

pub(crate) fn introduce(ground: &Ground) -> Result<String, String> {
    let text = said(Command::new(ground.peers.join("rathole")).arg("--version"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("Build Version:")).map_or("?", str::trim);
    Ok(format!("rathole {version} (WebSocket in TLS, OpenSSL)"))
}

pub(crate) fn start(ground: &Ground, place: &Place, services: &[Service]) -> Result<Tunnel, String> {
    let (folder, port, doors) = (folder()?, free_port()?, free_doors(services)?);
    let address = place.address;
    let certificates = ground.certificates.display();
    let mut server = format!(
        "[server]\nbind_addr = \"{address}:{port}\"\ndefault_token = \"bench\"\n\
         [server.transport]\ntype = \"websocket\"\n\
         [server.transport.tls]\npkcs12 = \"{certificates}/identity.p12\"\npkcs12_password = \"bench\"\n\
         [server.transport.websocket]\ntls = true\n"
    );
    let mut client = format!(
        "[client]\nremote_addr = \"{address}:{port}\"\ndefault_token = \"bench\"\nretry_interval = 1\n\
         [client.transport]\ntype = \"websocket\"\n\
         [client.transport.tls]\ntrusted_root = \"{certificates}/ca.pem\"\nhostname = \"localhost\"\n\
         [client.transport.websocket]\ntls = true\n"
    );
    for (Service { name, source }, door) in services.iter().zip(&doors) {
        server += &format!("[server.services.{name}]\nbind_addr = \"{door}\"\n");
        client += &format!("[client.services.{name}]\nlocal_addr = \"{source}\"\n");
    }
    let run = |role: &str, mut command: Command, text: &str| {
        let file = folder.path().join(format!("{role}.toml"));
        write(&file, text)?;
        command.arg(format!("--{role}")).arg(file).env("RUST_LOG", "warn");
        Program::start(role, &mut command, folder.path())
    };
    let program = ground.peers.join("rathole");
    let server = run("server", place.far(&program), &server)?;
    let agent = run("client", place.near(&program), &client)?;
    Ok(Tunnel { agent, server, doors, port, folder })
}

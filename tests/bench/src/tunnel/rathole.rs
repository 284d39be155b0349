//! rathole (github.com/rapiz1/rathole): WebSocket over TLS, a connection of its own for each visitor.

use std::process::Command;

use super::contender::{Ground, Tunnel, folder, said, write};
use super::process::{Program, free_port};

pub(crate) fn introduce(ground: &Ground) -> Result<String, String> {
    let text = said(Command::new(ground.peers.join("rathole")).arg("--version"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("Build Version:")).map_or("?", str::trim);
    Ok(format!("rathole {version} (WebSocket in TLS, OpenSSL)"))
}

pub(crate) fn start(ground: &Ground) -> Result<Tunnel, String> {
    let (folder, port, door) = (folder()?, free_port()?, free_port()?);
    let certificates = ground.certificates.display();
    let server = format!(
        "[server]\nbind_addr = \"127.0.0.1:{port}\"\ndefault_token = \"bench\"\n\
         [server.transport]\ntype = \"websocket\"\n\
         [server.transport.tls]\npkcs12 = \"{certificates}/identity.p12\"\npkcs12_password = \"bench\"\n\
         [server.transport.websocket]\ntls = true\n\
         [server.services.bench]\nbind_addr = \"127.0.0.1:{door}\"\n"
    );
    let client = format!(
        "[client]\nremote_addr = \"127.0.0.1:{port}\"\ndefault_token = \"bench\"\nretry_interval = 1\n\
         [client.transport]\ntype = \"websocket\"\n\
         [client.transport.tls]\ntrusted_root = \"{certificates}/ca.pem\"\nhostname = \"localhost\"\n\
         [client.transport.websocket]\ntls = true\n\
         [client.services.bench]\nlocal_addr = \"{}\"\n",
        ground.source
    );
    let run = |role: &str, text: &str| {
        let file = folder.path().join(format!("{role}.toml"));
        write(&file, text)?;
        let mut command = Command::new(ground.peers.join("rathole"));
        command.arg(format!("--{role}")).arg(file).env("RUST_LOG", "warn");
        Program::start(role, &mut command, folder.path())
    };
    let server = run("server", &server)?;
    let agent = run("client", &client)?;
    Ok(Tunnel { agent, server, door: ([127, 0, 0, 1], door).into(), port, folder })
}

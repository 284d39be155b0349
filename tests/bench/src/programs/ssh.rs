//! `ssh -R` of OpenSSH: channels in one SSH connection, with a server, keys and configuration of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::process::{Program, free_doors, free_port};
use super::{Ground, Place, Service, Tunnel, folder, said, write};

/// Where Debian keeps the server, which wants to be started by its whole name.
const SSHD: &str = "/usr/sbin/sshd";
/// AES in hardware is faster than the default, ChaCha20: the peer shows its best.
const CIPHER: &str = "aes128-gcm@openssh.com";

pub(crate) fn introduce(_: &Ground) -> Result<String, String> {
    if !Path::new(SSHD).exists() {
        return Err(format!("{SSHD} is missing (Debian package openssh-server)"));
    }
    let version = said(Command::new("ssh").arg("-V"))?;
    Ok(format!("{} (ssh -R, {CIPHER})", version.split([',', ' ']).next().unwrap_or("?")))
}

pub(crate) fn start(_: &Ground, place: &Place, services: &[Service]) -> Result<Tunnel, String> {
    let (folder, port, doors) = (folder()?, free_port()?, free_doors(services)?);
    let address = place.address;
    let keys = folder.path().display().to_string();
    for name in ["host", "user"] {
        let file = folder.path().join(name);
        said(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file))?;
    }
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        std::fs::create_dir_all("/run/sshd").map_err(|error| format!("/run/sshd: {error}"))?;
    }
    let config = format!(
        "ListenAddress {address}:{port}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\nPidFile none\n\
         UsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nAllowTcpForwarding yes\nUseDNS no\n"
    );
    write(&folder.path().join("sshd.conf"), &config)?;
    let mut server = place.far(SSHD);
    let server =
        Program::start("sshd", server.args(["-D", "-e", "-f"]).arg(folder.path().join("sshd.conf")), folder.path())?;
    place.beside_the_server(|| wait_for_port((address, port).into()))?;
    let mut agent = place.near("ssh");
    agent.args(["-N", "-T", "-F", "none", "-c", CIPHER, "-p", &port.to_string(), "-i", &format!("{keys}/user")]);
    for option in ["BatchMode=yes", "StrictHostKeyChecking=no", "ExitOnForwardFailure=yes", "IdentitiesOnly=yes"] {
        agent.args(["-o", option]);
    }
    agent.args(["-o", &format!("UserKnownHostsFile={keys}/known")]);
    for (service, door) in services.iter().zip(&doors) {
        agent.args(["-R", &format!("{door}:{}", service.source)]);
    }
    agent.arg(address.to_string());
    let agent = Program::start("ssh", &mut agent, folder.path())?;
    Ok(Tunnel { agent, server, doors, port, folder })
}

/// `ssh` does not try again by itself.
fn wait_for_port(server: SocketAddr) -> Result<(), String> {
    for _ in 0..200 {
        if std::net::TcpStream::connect(server).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err("sshd does not listen".into())
}

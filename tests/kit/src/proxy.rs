//! Somebody else's HTTP proxy: tinyproxy, on a free port of loopback, with an account or without.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::program;
use crate::wait::{self, SOON};

/// A running proxy. Ends with the value.
pub struct Proxy {
    address: SocketAddr,
    child: Child,
    folder: tempfile::TempDir,
}

impl Proxy {
    /// A proxy that makes ways to `port` alone; with an account (`user`, `password`) only for who knows it. Nothing where tinyproxy is not
    /// installed: see [`program::is_missing`].
    pub async fn start(port: u16, account: Option<(&str, &str)>) -> Option<Self> {
        if !Self::is_installed() {
            program::is_missing("tinyproxy", "Debian package tinyproxy-bin");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        // It takes no port 0. Another program may be faster; then it ends, and the next port is tried.
        for _ in 0..20 {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            let address = free.local_addr().expect("bound");
            drop(free);
            let basic = account.map_or(String::new(), |(user, password)| format!("BasicAuth {user} {password}\n"));
            let log = folder.path().join("log");
            let text = format!(
                "Listen 127.0.0.1\nPort {}\nTimeout 600\nMaxClients 50\nAllow 127.0.0.1\nConnectPort {port}\n\
                 LogFile \"{}\"\nLogLevel Connect\n{basic}",
                address.port(),
                log.display(),
            );
            let file = folder.path().join("tinyproxy.conf");
            std::fs::write(&file, text).expect("the folder can be written");
            let mut child = Command::new("tinyproxy")
                .args(["-d", "-c"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts");
            let answers = wait::found("the proxy", SOON, || {
                let gone = child.try_wait().expect("a child").is_some();
                if gone { Some(false) } else { std::net::TcpStream::connect(address).is_ok().then_some(true) }
            });
            if answers.await {
                return Some(Self { address, child, folder });
            }
        }
        panic!("no port for the proxy");
    }

    fn is_installed() -> bool {
        Command::new("tinyproxy").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ways that it was asked for so far, by its own log.
    pub fn asked(&self) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("Request (file descriptor")).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

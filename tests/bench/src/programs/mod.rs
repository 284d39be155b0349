//! Tunnels as programs: each contender knows where its program is, and starts both its ends around the camera's services,
//! on loopback or on the two sides of an emulated link.

mod camagent;
mod chisel;
mod process;
mod rathole;
mod ssh;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use camagent_testkit::netns::Namespace;

pub(crate) use self::process::{Program, Usage};

/// How long both ends may take until a visitor gets through.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One of those who are compared.
pub(crate) struct Contender {
    /// Its name in the results.
    pub(crate) who: &'static str,
    /// Whether it is somebody else's.
    pub(crate) is_peer: bool,
    /// Its version and how it encrypts, or why it cannot take part.
    pub(crate) introduce: fn(&Ground) -> Result<String, String>,
    /// Starts both ends.
    pub(crate) start: fn(&Ground, &Place, &[Service]) -> Result<Tunnel, String>,
    /// What it negotiates with its own server.
    pub(crate) suite: fn(&Ground, &Tunnel) -> Option<String>,
}

/// All contenders.
pub(crate) const ALL: &[Contender] = &[
    Contender {
        who: "camagent",
        is_peer: false,
        introduce: camagent::introduce,
        start: camagent::start,
        suite: camagent::suite,
    },
    Contender {
        who: "rathole",
        is_peer: true,
        introduce: rathole::introduce,
        start: rathole::start,
        suite: Ground::suite,
    },
    Contender { who: "ssh", is_peer: true, introduce: ssh::introduce, start: ssh::start, suite: Ground::suite },
    Contender {
        who: "chisel",
        is_peer: true,
        introduce: chisel::introduce,
        start: chisel::start,
        suite: Ground::suite,
    },
];

impl Contender {
    /// The one of this name.
    pub(crate) fn named(who: &str) -> Result<&'static Self, String> {
        ALL.iter().find(|contender| contender.who == who).ok_or_else(|| format!("there is no contender {who}"))
    }
}

/// What all contenders get.
pub(crate) struct Ground {
    /// `ca.pem`, `cert.pem`, `key.pem`, `identity.p12`: one certificate for everybody.
    pub(crate) certificates: PathBuf,
    /// Peers that were built for the bench.
    pub(crate) peers: PathBuf,
    /// Our own programs, beside the bench.
    pub(crate) own: PathBuf,
}

/// One of the camera's own TCP services.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// Its name in configurations.
    pub(crate) name: &'static str,
    /// Where it listens, beside the camera.
    pub(crate) source: SocketAddr,
}

/// Where the two ends run.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The sides of a link, the camera's and the server's; both ends share loopback without one.
    pub(crate) sides: Option<(&'a Namespace, &'a Namespace)>,
    /// Where the agent finds the server.
    pub(crate) address: Ipv4Addr,
}

impl Place<'_> {
    /// This machine.
    pub(crate) const LOOPBACK: Place<'static> = Place { sides: None, address: Ipv4Addr::LOCALHOST };

    fn near(&self, program: impl AsRef<Path>) -> Command {
        self.command(self.sides.map(|(near, _)| near), program.as_ref())
    }

    fn far(&self, program: impl AsRef<Path>) -> Command {
        self.command(self.sides.map(|(_, far)| far), program.as_ref())
    }

    fn command(&self, side: Option<&Namespace>, program: &Path) -> Command {
        side.map_or_else(|| Command::new(program), |side| side.command(&program.to_string_lossy()))
    }

    /// Does something where the server and its visitors are.
    pub(crate) fn beside_the_server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match self.sides {
            Some((_, far)) => far.within(work),
            None => work(),
        }
    }
}

/// Both ends of a tunnel that runs.
pub(crate) struct Tunnel {
    /// The end beside the camera.
    pub(crate) agent: Program,
    /// The end beside the visitors.
    pub(crate) server: Program,
    /// Where visitors of each service knock, beside the server.
    pub(crate) doors: Vec<SocketAddr>,
    /// The port of the server that the agent dials.
    pub(crate) port: u16,
    /// Configuration and logs, as long as it runs.
    pub(crate) folder: tempfile::TempDir,
}

impl Tunnel {
    /// Waits until `ask`, a visitor, gets through.
    pub(crate) fn wait(&mut self, mut ask: impl FnMut() -> io::Result<()>) -> Result<(), String> {
        let begun = Instant::now();
        while let Err(error) = ask() {
            self.server.still_runs()?;
            self.agent.still_runs()?;
            if begun.elapsed() > PATIENCE {
                let (server, agent) = (self.server.last_words(), self.agent.last_words());
                return Err(format!(
                    "nobody gets through in {}: {error}; {server}; {agent}",
                    self.folder.path().display()
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Ground {
    /// Looks where everything is, and makes one authority and one certificate for everybody.
    pub(crate) fn make(certificates: &Path) -> Result<Self, String> {
        Self::make_certificates(certificates)?;
        let own = std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from)).unwrap_or_default();
        let peers = own.parent().unwrap_or(&own).join("peers/bin");
        Ok(Self { certificates: certificates.to_owned(), peers, own })
    }

    fn make_certificates(folder: &Path) -> Result<(), String> {
        write(
            &folder.join("names"),
            "subjectAltName=IP:127.0.0.1,IP:203.0.113.2,DNS:localhost\nextendedKeyUsage=serverAuth\n",
        )?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        for line in [
            format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=bench-authority"),
            format!("req {key} -keyout key.pem -out request.pem -subj /CN=localhost"),
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out cert.pem"
                .into(),
            "pkcs12 -export -inkey key.pem -in cert.pem -certfile ca.pem -passout pass:bench -out identity.p12".into(),
        ] {
            let mut command = Command::new("openssl");
            said(command.args(line.split(' ')).current_dir(folder))?;
        }
        Ok(())
    }

    /// What a TLS server at that port takes from OpenSSL's offer; nothing when it speaks something else.
    fn suite(&self, tunnel: &Tunnel) -> Option<String> {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-brief", "-connect", &format!("127.0.0.1:{}", tunnel.port)])
            .stdin(std::process::Stdio::null());
        let text = said(&mut command).ok()?;
        let part = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some(format!("{} {}", part("Protocol version:")?, part("Ciphersuite:")?))
    }
}

/// Runs a program to its end: all that it says.
pub(crate) fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name} cannot be started: {error}"))?;
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if output.status.success() { Ok(text) } else { Err(format!("{name} {}: {}", output.status, text.trim())) }
}

/// Writes a file.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A folder for configuration and logs.
pub(crate) fn folder() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))
}

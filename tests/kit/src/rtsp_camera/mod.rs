//! A camera with servers of its own: RTSP 1.0 (RFC 2326) with Digest (RFC 2617), interleaved and over UDP, and an HTTP
//! server that answers a picture. Paths and manners are those of Dahua cameras; it plays the bundled clips in real time.
//!
//! It can be told to misbehave ([`Behaviour`]), be switched off and on again on the same ports, and it remembers what its
//! encoders made, so that tests compare that with what somebody got.
//!
//! [`crate::camera`] is something else: the program on a camera that pushes frames.

mod connection;
pub(crate) mod digest;
mod encoder;
mod snapshot;
mod transport;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::nal::Digest;
use crate::script::Script;
use digest::Account;
use encoder::Encoder;

/// H.265 with G.711 A-law.
pub const MAIN: &str = "/cam/realmonitor?channel=1&subtype=0";
/// H.264 with AAC.
pub const SUB: &str = "/cam/realmonitor?channel=1&subtype=1";
/// G.711 mu-law alone.
pub const THIRD: &str = "/cam/realmonitor?channel=1&subtype=2";
/// Where a picture is.
pub const SNAPSHOT: &str = "/cgi-bin/snapshot.cgi";

/// How the session description is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Description {
    /// As it should be.
    #[default]
    Honest,
    /// Without parameter sets: they come in band only.
    WithoutParameterSets,
    /// With parameter sets that are no Base64.
    Garbage,
}

/// What the camera does otherwise than it should. The default is a good camera.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// No key frame for so long after PLAY; other pictures come.
    pub late_key_frame: Duration,
    /// How the session description is.
    pub description: Description,
    /// Cuts the connection after so many frames of a PLAY.
    pub drop_after: Option<u64>,
    /// Sends nothing more after so many frames of a PLAY, and holds the connection.
    pub silent_after: Option<u64>,
    /// Sends sound, and no pictures.
    pub hides_pictures: bool,
    /// Ends a session without a request for so long. Default 60 s.
    pub session_timeout: Option<Duration>,
    /// Answers 461 to SETUP with interleaved media.
    pub refuses_tcp: bool,
    /// Answers 461 to SETUP with UDP.
    pub refuses_udp: bool,
}

impl Behaviour {
    fn session_timeout(&self) -> Duration {
        self.session_timeout.unwrap_or(Duration::from_secs(60))
    }
}

/// What went over one path so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// PLAYs that were answered.
    pub plays: u64,
    /// Those that play now.
    pub playing: u64,
    /// Octets of RTP and RTCP.
    pub octets: u64,
}

/// A frame that an encoder made.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The index of its track in the description.
    pub track: usize,
    /// Its time on the encoder's clock.
    pub time_us: i64,
    /// Whether decoding can start there.
    pub key: bool,
    /// The names of its units that count.
    pub units: Vec<Digest>,
}

/// How a camera is made.
pub struct Setup {
    rtsp: SocketAddr,
    http: SocketAddr,
    user: String,
    password: String,
    scripts: [Script; 3],
}

impl Default for Setup {
    fn default() -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let third = Script::h265_pcmu().without_video();
        Self {
            rtsp: free,
            http: free,
            user: "admin".into(),
            password: "a-camera's password".into(),
            scripts: [Script::h265_pcma(), Script::h264_aac(), third],
        }
    }
}

impl Setup {
    /// Its RTSP server listens there. Default: a free port of loopback.
    pub fn rtsp(mut self, address: SocketAddr) -> Self {
        self.rtsp = address;
        self
    }

    /// Its HTTP server listens there. Default: a free port of loopback.
    pub fn http(mut self, address: SocketAddr) -> Self {
        self.http = address;
        self
    }

    /// Its account.
    pub fn account(mut self, user: &str, password: &str) -> Self {
        (self.user, self.password) = (user.into(), password.into());
        self
    }

    /// What it shows under [`MAIN`], [`SUB`] and [`THIRD`].
    pub fn scripts(mut self, scripts: [Script; 3]) -> Self {
        self.scripts = scripts;
        self
    }

    /// Switches it on.
    pub async fn start(self) -> io::Result<RtspCamera> {
        let [main, sub, third] = self.scripts;
        let encoders = [(MAIN, main), (SUB, sub), (THIRD, third)];
        let shared = Arc::new(Shared {
            encoders: encoders.map(|(path, script)| Encoder::new(path, script)),
            account: Account::new(&self.user, &self.password),
            behaviour: Mutex::default(),
            connections: AtomicUsize::new(0),
            snapshots: AtomicUsize::new(0),
            http_nonce: digest::nonce(),
        });
        let mut camera = RtspCamera { shared, rtsp: self.rtsp, http: self.http, power: None };
        camera.switch_on().await?;
        Ok(camera)
    }
}

/// What the tasks of a camera share.
struct Shared {
    encoders: [Encoder; 3],
    account: Account,
    behaviour: Mutex<Behaviour>,
    connections: AtomicUsize,
    snapshots: AtomicUsize,
    /// Over HTTP the answer to a challenge may come over another connection.
    http_nonce: String,
}

impl Shared {
    fn encoder(&self, path: &str) -> Option<&Encoder> {
        self.encoders.iter().find(|encoder| encoder.path == path)
    }

    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A camera. It is switched off with the value.
pub struct RtspCamera {
    shared: Arc<Shared>,
    rtsp: SocketAddr,
    http: SocketAddr,
    power: Option<JoinHandle<()>>,
}

impl RtspCamera {
    /// A good camera on free ports of loopback.
    pub async fn start() -> Self {
        Setup::default().start().await.expect("loopback has free ports")
    }

    async fn switch_on(&mut self) -> io::Result<()> {
        let (rtsp, http) = (TcpListener::bind(self.rtsp).await?, TcpListener::bind(self.http).await?);
        (self.rtsp, self.http) = (rtsp.local_addr()?, http.local_addr()?);
        let shared = Arc::clone(&self.shared);
        self.power = Some(tokio::spawn(async move {
            // Everything that runs ends with this set.
            let mut running = JoinSet::new();
            for index in 0..shared.encoders.len() {
                let shared = Arc::clone(&shared);
                running.spawn(async move { shared.encoders[index].run().await });
            }
            loop {
                tokio::select! {
                    Ok((stream, peer)) = rtsp.accept() => {
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        running.spawn(connection::serve(stream, peer, Arc::clone(&shared)));
                    }
                    Ok((stream, _)) = http.accept() => {
                        running.spawn(snapshot::serve(stream, Arc::clone(&shared)));
                    }
                    Some(_) = running.join_next() => {}
                }
            }
        }));
        Ok(())
    }

    /// Pulls the plug: listeners and connections are gone when this returns.
    pub async fn stop(&mut self) {
        if let Some(power) = self.power.take() {
            power.abort();
            // Ended by the line before.
            let _ = power.await;
        }
    }

    /// On again, on the same ports.
    pub async fn start_again(&mut self) {
        assert!(self.power.is_none(), "it is on");
        self.switch_on().await.expect("the same ports");
    }

    /// Where its RTSP server listens, also while it is off.
    pub fn rtsp_address(&self) -> SocketAddr {
        self.rtsp
    }

    /// Where its HTTP server listens, also while it is off.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// The user of its account.
    pub fn user(&self) -> &str {
        self.shared.account.user()
    }

    /// The password of its account.
    pub fn password(&self) -> String {
        self.shared.account.password()
    }

    /// Changes the password: requests from now on need the new one, what plays goes on.
    pub fn set_password(&self, password: &str) {
        self.shared.account.set_password(password);
    }

    /// A path with the account in front, as players take it.
    pub fn url(&self, path: &str) -> String {
        let password: String = self.password().bytes().map(percent_encoded).collect();
        format!("rtsp://{}:{password}@{}{path}", self.user(), self.rtsp)
    }

    /// Changes what it does otherwise than it should.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.behaviour());
    }

    /// Shows something else under a path. Who plays it already sees that as well, so the codecs must stay as long as somebody does.
    pub fn show(&self, path: &str, script: Script) {
        self.encoder(path).replace(script);
    }

    /// RTSP connections that were made so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Pictures that were fetched so far.
    pub fn snapshots(&self) -> usize {
        self.shared.snapshots.load(Ordering::Relaxed)
    }

    /// What went over a path so far.
    pub fn traffic(&self, path: &str) -> Traffic {
        self.encoder(path).traffic()
    }

    /// What the encoder of a path made lately, sent or not.
    pub fn encoded(&self, path: &str) -> Vec<Encoded> {
        self.encoder(path).record()
    }

    /// The names of all units of one track that the encoder of a path made lately.
    pub fn units(&self, path: &str, track: usize) -> Vec<Digest> {
        self.encoded(path).into_iter().filter(|frame| frame.track == track).flat_map(|frame| frame.units).collect()
    }

    fn encoder(&self, path: &str) -> &Encoder {
        self.shared.encoder(path).unwrap_or_else(|| panic!("the camera has no {path}"))
    }
}

impl Drop for RtspCamera {
    fn drop(&mut self) {
        if let Some(power) = &self.power {
            power.abort();
        }
    }
}

/// A byte of user or password in a URL (RFC 3986).
fn percent_encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).into()
    } else {
        format!("%{byte:02X}")
    }
}

//! Visits: a viewer's connection to a service of a camera, on its way to whichever connection of the agent is the newest.
//!
//! The tunnel's listeners hand them in with [`super::Agents::visit`]; the gateway carries them out.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// A visitor's side of a tunnel: a TCP connection, or something that watches one.
pub trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// Lets the visitor see, when the socket is dropped, that what it got is not whole: by a TCP reset.
    fn break_off(&self);
}

impl Socket for tokio::net::TcpStream {
    fn break_off(&self) {
        // A socket that is gone already has told.
        let _ = self.set_zero_linger();
    }
}

/// For tests: memory has no resets.
impl Socket for tokio::io::DuplexStream {
    fn break_off(&self) {}
}

/// A visitor that wants through.
pub struct Visit {
    /// The camera.
    pub camera: String,
    /// The service of the camera, by name.
    pub service: String,
    /// Who it is, for logs at the other end.
    pub visitor: String,
    /// Its connection.
    pub socket: Box<dyn Socket>,
    /// Is told how it ended.
    pub farewell: oneshot::Sender<Farewell>,
}

impl Visit {
    /// It does not come to be: the visitor's connection goes back, unused, to whoever brought it.
    pub fn turn_away(self, reason: &str) {
        let Self { socket, farewell, .. } = self;
        let unused = Some(socket);
        let _ =
            farewell.send(Farewell { reason: reason.to_owned(), reached: false, to_visitor: 0, to_camera: 0, unused });
    }
}

/// How a visit ended.
pub struct Farewell {
    /// In words.
    pub reason: String,
    /// Whether the service was reached at all.
    pub reached: bool,
    /// Octets from the camera to the visitor.
    pub to_visitor: u64,
    /// Octets from the visitor to the camera.
    pub to_camera: u64,
    /// The visitor's connection, when nothing was done with it: there the visitor can still be told.
    pub unused: Option<Box<dyn Socket>>,
}

/// Why a visit did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotVisited {
    /// The agent did not come within the patience.
    Offline,
    /// Too many visits of this agent at once.
    Busy,
}

/// How often a visit that waits looks for the agent, besides being woken.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

impl std::fmt::Debug for Farewell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reason, reached, to_visitor, to_camera, .. } = self;
        let mut told = f.debug_struct("Farewell");
        told.field("reason", reason).field("reached", reached);
        told.field("to_visitor", to_visitor).field("to_camera", to_camera).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visit").field("camera", &self.camera).field("service", &self.service).finish_non_exhaustive()
    }
}

//! Where agents come in: the WebSocket endpoint `/agent/{id}` and the driver of the server's half of `camagent.v1`.
//!
//! * [`endpoint`] the HTTP request: token, sub-protocol, upgrade
//! * [`connection`] one agent's session: socket and clock to and from the protocol, which is a value
//! * [`media`] what arrives, into the live row; what viewers want, back to the agent
//! * [`berth`] where streams and visitors wait for an agent that is between two connections
//! * `data` what the agent's octets are for
//! * `notes` what a session tells the database, written beside it
//! * `visits` tunnels: visitors' sockets to and from the session's streams

pub mod berth;
pub mod connection;
mod data;
pub mod endpoint;
pub mod media;
mod notes;
mod visits;

use std::sync::Arc;

use crate::agents::Agents;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::config::{Goaway, Limits};
use crate::error::Error;
use crate::event::{Event, Events};
use crate::ingest::Ingest;
use crate::live::Hub;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::store::Store;

/// What all agents' connections share.
#[derive(Clone)]
pub struct Gateway {
    /// Whose token is right.
    pub auth: Auth,
    /// Who owns which camera.
    pub store: Store,
    /// Who is connected.
    pub agents: Arc<Agents>,
    /// Where frames go.
    pub hub: Arc<Hub>,
    /// Where frames are recorded, if they are.
    pub ingest: Option<Arc<Ingest>>,
    /// Where everything is told.
    pub events: Arc<Events>,
    /// What is said at the stop.
    pub goaway: Arc<Goaway>,
    /// What is borne of an agent.
    pub limits: Arc<Limits>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Whose notes are being written: one session's at a time, so that they leave room in the database for everybody else.
    pub writing: Arc<tokio::sync::Mutex<()>>,
    /// Where streams wait between two connections.
    pub berths: Arc<berth::Berths>,
    /// The clocks.
    pub clock: Clock,
    /// The stop.
    pub shutdown: Shutdown,
}

impl Gateway {
    /// The database failed at something that the session goes on without.
    fn disk_trouble(&self, what: &str, trouble: &Error) {
        let (what, reason) = (what.to_owned(), trouble.to_string());
        self.events.emit(Event::DiskTrouble { what, reason });
    }
}

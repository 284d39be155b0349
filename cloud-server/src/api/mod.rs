//! The HTTP API: what the owner's clients call. Everything but `/health` needs `Authorization: Bearer <API token>`; `/metrics` does not where it is
//! asked for on this machine.
//!
//! * [`routes`], [`recordings`] the handlers, [`body`], [`data`] and [`services`] what they say, [`refusal`] what they say instead
//! * [`openapi`] the description, generated from both

pub mod body;
pub mod data;
pub mod openapi;
pub mod recordings;
pub mod refusal;
pub mod routes;
pub mod services;

use std::sync::Arc;

use crate::agents::Agents;
use crate::auth::Auth;
use crate::clock::Clock;
use crate::event::Events;
use crate::live::Hub;
use crate::metrics::Metrics;
use crate::record::Archive;
use crate::store::Store;
use crate::tunnel::Tunnels;

/// Marks requests of a listener that is bound to loopback.
#[derive(Clone, Copy, Debug)]
pub struct OnLoopback;

/// What the handlers see of the server.
#[derive(Clone)]
pub struct Api {
    /// Whose token is right.
    pub auth: Auth,
    /// Which agents exist.
    pub store: Store,
    /// Which of them are here.
    pub agents: Arc<Agents>,
    /// What can be watched.
    pub hub: Arc<Hub>,
    /// What can be reached.
    pub tunnels: Tunnels,
    /// What was recorded, where something is.
    pub archive: Option<Arc<Archive>>,
    /// How many clips are made and sent at once.
    pub clips: Arc<recordings::Clips>,
    /// What happened how often.
    pub events: Arc<Events>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
    /// `host:port` of the RTSP relay, for the URLs of streams.
    pub rtsp_address: String,
}

//! Tunnels: services of cameras as ports of this server. A camera owns its ports: each service gets one when an agent first
//! names it, keeps it for as long as the camera exists, and has a listener whether or not the agent is there.
//!
//! * [`Tunnels`] the door for the rest of the server, [`urls`] and [`address`] for whoever shows them
//! * `keeper` opens, closes and retries listeners; `ports` chooses
//! * `door` one listener, `visitor` one visitor, `refusal` what it is told that cannot be served, `traffic` what is counted
//! * `share` the decision whether the relay answers
//! * `watch` the watcher on RTSP connections as a value, on top of `follower`; `watched` the socket with it
//!
//! Octets between a visitor and a camera are carried by the gateway: [`crate::agents::Visit`] is where both meet.

mod address;
mod door;
mod follower;
mod keeper;
mod ports;
mod refusal;
mod share;
mod traffic;
mod visitor;
mod watch;
mod watched;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

pub use address::{address, urls};
pub use watch::fuzz as fuzz_watch;

use self::keeper::Keeper;
use self::traffic::Traffic;
use crate::agents::Agents;
use crate::clock::Clock;
use crate::config;
use crate::error::Result;
use crate::event::Events;
use crate::rtsp::Relay;
use crate::shutdown::Shutdown;
use crate::store::{Store, TunnelRow};

/// What everything in this module shares.
pub(crate) struct Context {
    pub(crate) config: config::Tunnels,
    pub(crate) store: Store,
    pub(crate) agents: Arc<Agents>,
    pub(crate) events: Arc<Events>,
    pub(crate) clock: Clock,
    /// Answers visitors in shared mode.
    pub(crate) relay: Relay,
    shown: Mutex<BTreeMap<(String, String), Shown>>,
}

/// A tunnel as others may see it.
struct Shown {
    row: TunnelRow,
    traffic: Arc<Traffic>,
}

/// What is known of a tunnel.
#[derive(Clone, Debug)]
pub struct TunnelStatus {
    /// What is stored.
    pub row: TunnelRow,
    /// Where it listens, or would.
    pub address: Option<SocketAddr>,
    /// Visitors now.
    pub visitors: usize,
    /// Octets from the camera to visitors since the server started.
    pub to_visitors: u64,
    /// Octets from visitors to the camera.
    pub to_camera: u64,
}

/// All tunnels of the server.
#[derive(Clone)]
pub struct Tunnels {
    context: Arc<Context>,
}

impl Tunnels {
    /// Opens the listeners of all known tunnels, and from then on follows what agents say of their cameras. `own` are ports
    /// that no tunnel may get; the relay answers visitors in shared mode.
    pub async fn start(
        config: config::Tunnels,
        store: Store,
        agents: Arc<Agents>,
        relay: Relay,
        clock: Clock,
        own: impl IntoIterator<Item = u16>,
        shutdown: Shutdown,
    ) -> Result<Self> {
        let events = Arc::clone(&relay.events);
        let context = Arc::new(Context { config, store, agents, events, clock, relay, shown: Mutex::default() });
        let mut keeper = Keeper::new(Arc::clone(&context), own, shutdown);
        keeper.open_known().await?;
        tokio::spawn(keeper.run());
        Ok(Self { context })
    }

    /// The tunnels of an agent's cameras, by camera and service.
    #[must_use]
    pub fn of_agent(&self, agent: &str) -> Vec<TunnelStatus> {
        let shown = self.context.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let own = shown.values().filter(|shown| shown.row.agent == agent);
        own.map(|Shown { row, traffic }| {
            let (to_visitors, to_camera) = traffic.octets();
            let address = address(row, &self.context.config);
            TunnelStatus { row: row.clone(), address, visitors: traffic.visitors(), to_visitors, to_camera }
        })
        .collect()
    }
}

impl Tunnels {
    /// Visitors of all tunnels now, those who wait included.
    #[must_use]
    pub fn visitors(&self) -> usize {
        let shown = self.context.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.values().map(|shown| shown.traffic.visitors()).sum()
    }
}

impl Context {
    fn show(&self, row: &TunnelRow, traffic: &Arc<Traffic>) {
        let shown = Shown { row: row.clone(), traffic: Arc::clone(traffic) };
        let key = (row.camera.clone(), row.service.clone());
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).insert(key, shown);
    }

    fn hide(&self, key: &(String, String)) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

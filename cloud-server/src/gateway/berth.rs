//! Where an agent's streams and their visitors wait while the agent is between two connections: with their sockets open, neither read nor
//! written, for a limited time. The newest connection takes them, from here or from the one before it.
//!
//! What does not belong here: which streams may go on (`camagent_proto::session`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camagent_proto::session::Suspended;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::visits::Visits;
use crate::shutdown::Shutdown;

/// How long a new connection waits for the one before it to hand the streams over.
pub(super) const HANDOVER: Duration = Duration::from_secs(2);

/// What waits for an agent.
pub(super) struct Moored {
    /// The agent's run.
    pub(super) boot: [u8; 16],
    pub(super) streams: Suspended,
    pub(super) visits: Visits,
}

/// One for each agent whose streams are somewhere.
struct Slot {
    /// The connection that has them, or had them last.
    generation: u64,
    moored: Option<Moored>,
}

/// All agents' berths.
pub struct Berths {
    /// How long streams wait; zero for not at all.
    patience: Duration,
    /// Tells this run of the server from others, in the ids of sessions.
    run: u32,
    slots: Mutex<HashMap<String, Slot>>,
    /// Something was moored, or a connection has left.
    changed: Notify,
}

impl Berths {
    /// Empty ones.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        // Without randomness ids could come again, and streams go on in a session that is none of theirs.
        let run = getrandom::u32();
        let patience = if run.is_ok() { patience } else { Duration::ZERO };
        Self { patience, run: run.unwrap_or_default(), slots: Mutex::default(), changed: Notify::new() }
    }

    /// Whether streams wait at all.
    pub(super) fn are_open(&self) -> bool {
        !self.patience.is_zero()
    }

    /// A session's id that no other session has, of other runs of the server neither.
    pub(super) fn session_id(&self, agent: &str, generation: u64) -> String {
        format!("{agent}-{generation}-{:08x}", self.run)
    }

    /// The agent's streams come to this connection: what waits, or what an older connection hands over within `patience`. Nothing when a newer
    /// connection has them already.
    pub(super) async fn take(&self, agent: &str, generation: u64, patience: Duration) -> Option<Moored> {
        let until = Instant::now() + patience;
        loop {
            let changed = self.changed.notified();
            {
                let mut slots = self.lock();
                let is_late = Instant::now() >= until;
                match slots.get_mut(agent) {
                    Some(slot) if slot.generation > generation => return None,
                    Some(slot) if slot.moored.is_some() || is_late => {
                        slot.generation = generation;
                        return slot.moored.take();
                    }
                    Some(_) => {}
                    None => {
                        slots.insert(agent.to_owned(), Slot { generation, moored: None });
                        return None;
                    }
                }
            }
            let _ = timeout_at(until, changed).await;
        }
    }

    /// A connection has ended or is replaced; what it had waits for the next one. With nothing there is nothing to wait for.
    pub(super) fn leave(self: &Arc<Self>, agent: &str, generation: u64, moored: Option<Moored>, shutdown: Shutdown) {
        {
            let mut slots = self.lock();
            // Whose turn is over has nothing to leave: its streams are over.
            let Some(slot) = slots.get_mut(agent).filter(|slot| slot.generation == generation) else { return };
            if slot.moored.is_some() {
                return;
            }
            match moored {
                Some(_) => slot.moored = moored,
                None => drop(slots.remove(agent)),
            }
            if slots.get(agent).is_some() {
                let (berths, agent) = (Arc::clone(self), agent.to_owned());
                tokio::spawn(async move { berths.clear(&agent, generation, shutdown).await });
            }
        }
        self.changed.notify_waiters();
    }

    /// Gives up what has waited for too long, or until the server stops.
    async fn clear(&self, agent: &str, generation: u64, mut shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.begun() => {}
            () = tokio::time::sleep(self.patience) => {}
        }
        let moored = {
            let mut slots = self.lock();
            let is_there = slots.get(agent).is_some_and(|slot| slot.generation == generation && slot.moored.is_some());
            if is_there { slots.remove(agent).and_then(|slot| slot.moored) } else { None }
        };
        if let Some(moored) = moored {
            moored.visits.give_up(&format!("the agent did not come back within {} s", self.patience.as_secs_f64()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::message::{Limits, TunnelLimits};
    use camagent_proto::session::{Accept, Server, ServerConfig};
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;
    use crate::agents::{Farewell, Visit};
    use crate::shutdown::Stopper;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Streams of a session with a visitor who waits.
    fn moored() -> (Moored, oneshot::Receiver<Farewell>) {
        let now = camagent_proto::Instant::ZERO;
        let tunnels =
            TunnelLimits { streams: 8, stream_bytes: 8, bytes: 64, opens_per_second: 1, resume_bytes: 1 << 20 };
        let limits = Limits { tunnels, ..Limits::default() };
        let mut server = Server::new(ServerConfig { limits, ..ServerConfig::default() }, now, 0);
        let register = json!({"type": "register", "data": {
            "versions": [1], "agent_id": "a", "boot_id": "0".repeat(32), "features": ["tunnel-resume"], "tunnels": tunnels,
        }});
        server.handle_text(now, &register.to_string());
        server.accept(now, Accept { session_id: "a-1".into(), ..Accept::default() });
        let (farewell, told) = oneshot::channel();
        let mut visits = Visits::default();
        let socket = Box::new(tokio::io::duplex(1).0);
        let (camera, service) = ("gate".to_owned(), "rtsp".to_owned());
        visits.arrive(Visit { camera, service, visitor: String::new(), socket, farewell }, now);
        (Moored { boot: [0; 16], streams: server.suspend().expect("both resume"), visits }, told)
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_connection_takes_what_an_older_one_leaves() {
        let (berths, stopper) = (Arc::new(Berths::new(PATIENCE)), Stopper::new());
        assert!(berths.take("a", 1, HANDOVER).await.is_none(), "the first one finds nothing");
        let next = tokio::spawn({
            let berths = Arc::clone(&berths);
            async move { berths.take("a", 2, HANDOVER).await }
        });
        tokio::task::yield_now().await;
        let (streams, mut told) = moored();
        berths.leave("a", 1, Some(streams), stopper.handle());
        let taken = next.await.expect("no panic").expect("what the older one had");
        assert_eq!(taken.visits.count(), 1);
        // Whose turn is over neither takes nor leaves.
        assert!(berths.take("a", 1, HANDOVER).await.is_none());
        let (late, mut broken) = moored();
        berths.leave("a", 1, Some(late), stopper.handle());
        let turned_away = broken.try_recv().expect("told");
        assert!(!turned_away.reached && turned_away.unused.is_some(), "whoever brought the visitor may still answer");
        assert!(told.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty), "this one lives");
        // One that never hands over holds nobody up for long.
        assert!(berths.take("a", 3, HANDOVER).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_too_long_or_for_a_stop_is_given_up() {
        for stops in [false, true] {
            let (berths, stopper) = (Arc::new(Berths::new(PATIENCE)), Stopper::new());
            assert!(berths.take("a", 1, HANDOVER).await.is_none());
            let (streams, told) = moored();
            let began = Instant::now();
            berths.leave("a", 1, Some(streams), stopper.handle());
            if stops {
                assert!(stopper.stop(HANDOVER).await, "nothing goes on");
            }
            let farewell = told.await.expect("a reason");
            assert!(farewell.reason.contains("did not come back"), "{farewell:?}");
            assert!(farewell.unused.is_some(), "nothing was read of the visitor");
            assert_eq!(began.elapsed() >= PATIENCE, !stops);
            assert!(berths.take("a", 2, HANDOVER).await.is_none());
        }
    }
}

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

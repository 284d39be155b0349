//! From names to sources: cameras by id, each owned by one agent, each with its sources.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::source::{Source, SourceStatus};
use crate::config::Live;
use crate::event::Events;

/// Sources of one camera, over all sessions of its agent.
const MOST_SOURCES: usize = 16;
/// Cameras of one agent, over all its sessions.
const MOST_CAMERAS: usize = 1_024;

/// All cameras of the server.
pub struct Hub {
    limits: Live,
    events: Arc<Events>,
    cameras: Mutex<BTreeMap<String, Camera>>,
}

struct Camera {
    agent: String,
    sources: BTreeMap<String, Arc<Source>>,
}

/// What a name leads to.
pub enum Found {
    /// The source; whether it is online is its own matter.
    Source(Arc<Source>),
    /// Nobody claimed such a camera.
    UnknownCamera,
    /// The camera exists and has no such source.
    UnknownSource,
    /// The camera exists, but its agent was not seen since the server started.
    NeverSeen,
}

impl Hub {
    /// No cameras yet.
    #[must_use]
    pub fn new(limits: Live, events: Arc<Events>) -> Self {
        Self { limits, events, cameras: Mutex::new(BTreeMap::new()) }
    }

    /// Makes a camera known as its agent's. Another agent's camera is not given away: the error is its owner.
    pub fn claim(&self, camera: &str, agent: &str) -> Result<(), String> {
        let mut cameras = self.lock();
        if !cameras.contains_key(camera)
            && cameras.values().filter(|known| known.agent == agent).count() >= MOST_CAMERAS
        {
            return Err(format!("nobody: {agent} has {MOST_CAMERAS} cameras already"));
        }
        let entry = cameras
            .entry(camera.to_owned())
            .or_insert_with(|| Camera { agent: agent.to_owned(), sources: BTreeMap::new() });
        if entry.agent == agent { Ok(()) } else { Err(entry.agent.clone()) }
    }

    /// The source of a claimed camera, made when it is new. None when the camera is not the agent's, or has too many sources.
    #[must_use]
    pub fn offer(&self, agent: &str, camera: &str, name: &str) -> Option<Arc<Source>> {
        let mut cameras = self.lock();
        let entry = cameras.get_mut(camera).filter(|entry| entry.agent == agent)?;
        if !entry.sources.contains_key(name) && entry.sources.len() >= MOST_SOURCES {
            return None;
        }
        let make = || Source::new(camera, name, agent, self.limits.clone(), Arc::clone(&self.events));
        Some(Arc::clone(entry.sources.entry(name.to_owned()).or_insert_with(make)))
    }

    /// Looks a name up.
    #[must_use]
    pub fn find(&self, camera: &str, name: &str) -> Found {
        let cameras = self.lock();
        let Some(entry) = cameras.get(camera) else { return Found::UnknownCamera };
        match entry.sources.get(name) {
            Some(source) => Found::Source(Arc::clone(source)),
            None if entry.sources.is_empty() => Found::NeverSeen,
            None => Found::UnknownSource,
        }
    }

    /// Cameras of agents that are not known any more go, and their viewers with them.
    pub fn retain_agents(&self, is_known: impl Fn(&str) -> bool) {
        self.lock().retain(|_, camera| {
            let stays = is_known(&camera.agent);
            if !stays {
                camera.sources.values().for_each(|source| source.remove());
            }
            stays
        });
    }

    /// All sources by camera and name.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<Source>> {
        self.lock().values().flat_map(|camera| camera.sources.values().map(Arc::clone)).collect()
    }

    /// The state of all sources.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        self.sources().iter().map(|source| source.status()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Camera>> {
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

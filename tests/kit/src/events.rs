//! What an agent told its host, kept in order.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camagent_core::Event;

use crate::wait;

/// The events of one agent. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    /// Keeps an event.
    pub fn keep(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many events fit so far.
    pub fn count(&self, fits: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|event| fits(event)).count()
    }

    /// How many sessions were established so far.
    pub fn sessions(&self) -> usize {
        self.count(|event| matches!(event, Event::Connected { .. }))
    }

    /// Waits for the first event that `pick` takes.
    pub async fn wait<T>(&self, what: &str, longest: Duration, pick: impl Fn(&Event) -> Option<T>) -> T {
        wait::found(what, longest, || self.all().iter().find_map(&pick)).await
    }
}

//! The graceful stop: one switch, and a count of who still works. Whoever runs as a task holds a [`Shutdown`]; the
//! server flips the switch and waits, bounded, until all of them are dropped.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// The side that stops.
#[derive(Debug)]
pub struct Stopper {
    switch: watch::Sender<bool>,
    finished: mpsc::Receiver<()>,
    template: Option<Shutdown>,
}

/// The side that is stopped. Clones count as work going on until they are dropped.
#[derive(Clone, Debug)]
pub struct Shutdown {
    switch: watch::Receiver<bool>,
    _working: mpsc::Sender<()>,
}

impl Stopper {
    /// A switch that is not flipped yet.
    #[must_use]
    pub fn new() -> Self {
        let (switch, observed) = watch::channel(false);
        let (working, finished) = mpsc::channel(1);
        Self { switch, finished, template: Some(Shutdown { switch: observed, _working: working }) }
    }

    /// A handle for one more task.
    ///
    /// # Panics
    /// Only when called after [`Stopper::stop`], which consumes the stopper.
    #[must_use]
    pub fn handle(&self) -> Shutdown {
        self.template.clone().expect("the template lives until stop() consumes the stopper")
    }

    /// Flips the switch and waits until every handle is gone or `patience` is over. True when all ended in time.
    pub async fn stop(mut self, patience: Duration) -> bool {
        self.template = None;
        let _ = self.switch.send(true);
        tokio::time::timeout(patience, self.finished.recv()).await.is_ok()
    }
}

impl Default for Stopper {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// True once the stop has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.switch.borrow()
    }

    /// Waits for the stop to begin; cancel safe.
    pub async fn begun(&mut self) {
        // An error means that the stopper is gone without a word: nobody is left to serve, which is a stop as well.
        let _ = self.switch.wait_for(|stopping| *stopping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_waits_for_the_last_handle() {
        let stopper = Stopper::new();
        let mut handle = stopper.handle();
        let task = tokio::spawn(async move { handle.begun().await });
        assert!(stopper.stop(Duration::from_secs(5)).await);
        task.await.expect("the task ends by the switch");
    }

    #[tokio::test(start_paused = true)]
    async fn stop_is_bounded() {
        let stopper = Stopper::new();
        let stubborn = stopper.handle();
        assert!(!stopper.stop(Duration::from_secs(5)).await);
        assert!(stubborn.is_stopping());
    }
}

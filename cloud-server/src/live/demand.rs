//! Who wants a source right now: the number of interested viewers, the linger after the last one, and requests for key
//! frames. The gateway watches [`Want`] and tells the agent.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// What the agent should know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Viewers, and DESCRIBEs that wait for a picture.
    pub interested: u32,
    /// True from the first interest until the linger after the last is over.
    pub wanted: bool,
    /// Grows by one with each request for a key frame.
    pub key_frame_requests: u32,
    departures: u32,
}

/// The demand for one source.
#[derive(Debug)]
pub struct Demand {
    want: watch::Sender<Want>,
    linger: Duration,
}

/// Being interested; ends with the value.
#[derive(Debug)]
pub struct Interest {
    demand: Arc<Demand>,
}

impl Demand {
    /// Nobody is interested yet.
    #[must_use]
    pub fn new(linger: Duration) -> Arc<Self> {
        Arc::new(Self { want: watch::Sender::new(Want::default()), linger })
    }

    /// Announces interest for as long as the value lives.
    #[must_use]
    pub fn interest(self: &Arc<Self>) -> Interest {
        self.want.send_modify(|want| {
            want.interested += 1;
            want.wanted = true;
        });
        Interest { demand: Arc::clone(self) }
    }

    /// Asks for a key frame: a viewer has nothing to begin with.
    pub fn request_key_frame(&self) {
        self.want.send_modify(|want| want.key_frame_requests = want.key_frame_requests.wrapping_add(1));
    }

    /// Watches the demand.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Want> {
        self.want.subscribe()
    }

    fn leave(self: &Arc<Self>) {
        let mut departure = None;
        self.want.send_modify(|want| {
            want.interested = want.interested.saturating_sub(1);
            if want.interested == 0 {
                want.departures = want.departures.wrapping_add(1);
                departure = Some(want.departures);
            }
        });
        let Some(departure) = departure else { return };
        let demand = Arc::clone(self);
        let end = move || {
            demand.want.send_if_modified(|want| {
                let over = want.interested == 0 && want.departures == departure && want.wanted;
                want.wanted &= !over;
                over
            });
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let linger = self.linger;
                runtime.spawn(async move {
                    tokio::time::sleep(linger).await;
                    end();
                });
            }
            // Without a runtime nobody can wait; this is the end of the process.
            Err(_) => end(),
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.demand.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_viewer_lingers_and_a_new_one_keeps_it_wanted() {
        let demand = Demand::new(Duration::from_secs(10));
        let mut watch = demand.watch();
        assert!(!watch.borrow().wanted);
        let first = demand.interest();
        assert!(watch.borrow().wanted);
        drop(first);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let second = demand.interest();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(watch.borrow().wanted, "the first departure's linger does not count any more");
        drop(second);
        assert!(watch.borrow_and_update().wanted);
        let left = tokio::time::Instant::now();
        watch.wait_for(|want| !want.wanted).await.expect("the demand lives");
        assert_eq!(left.elapsed().as_secs(), 10);
    }

    #[tokio::test]
    async fn key_frame_requests_are_seen() {
        let demand = Demand::new(Duration::ZERO);
        let mut watch = demand.watch();
        demand.request_key_frame();
        watch.changed().await.expect("the demand lives");
        assert_eq!(watch.borrow().key_frame_requests, 1);
    }
}

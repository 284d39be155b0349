//! Accepts viewers, up to a limit; each gets a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rtsp_types::StatusCode;
use tokio::net::TcpListener;

use super::accounts::Accounts;
use super::connection;
use super::message::response;
use super::names::Names;
use crate::config::Rtsp;
use crate::event::Events;
use crate::live::Hub;
use crate::metrics::Metrics;
use crate::playback::Delayed;
use crate::shutdown::Shutdown;

/// What all viewers share.
#[derive(Clone)]
pub struct Relay {
    /// Where sources are found.
    pub hub: Arc<Hub>,
    /// Where sources are found as they were.
    pub delayed: Delayed,
    /// Where viewers come and go is told.
    pub events: Arc<Events>,
    /// Where those who are turned away are counted.
    pub metrics: Arc<Metrics>,
    /// Limits and patience.
    pub config: Rtsp,
    /// Who may watch.
    pub accounts: Accounts,
    /// Whether viewers must say who they are.
    pub login: bool,
}

impl Relay {
    /// Serves viewers until the stop begins.
    pub async fn serve(self, listener: TcpListener, mut shutdown: Shutdown) {
        let connections = Arc::new(AtomicUsize::new(0));
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.begun() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.admit(stream, address, &connections, &shutdown),
                Err(error) => {
                    // Out of file descriptors, as a rule: asking again at once would only burn the processor.
                    tracing::warn!(%error, "cannot accept RTSP viewers");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves one viewer of one camera under the camera's own paths, from what it has said already; until it leaves.
    pub async fn serve_one(
        self,
        stream: tokio::net::TcpStream,
        address: SocketAddr,
        shutdown: Shutdown,
        names: Names,
        said: &[u8],
    ) {
        connection::serve(self, stream, address, shutdown, names, said).await;
    }

    fn admit(
        &self,
        stream: tokio::net::TcpStream,
        address: SocketAddr,
        connections: &Arc<AtomicUsize>,
        shutdown: &Shutdown,
    ) {
        let seat = Seat::take(connections);
        if seat.number > self.config.max_connections {
            self.metrics.breach("viewers");
            let full = response(StatusCode::ServiceUnavailable, Some("Too many viewers"), None, &[], None);
            // A new connection has an empty send buffer; if not even this fits, closing says the same.
            let _ = stream.try_write(&full);
            return;
        }
        let (relay, shutdown) = (self.clone(), shutdown.clone());
        tokio::spawn(async move {
            connection::serve(relay, stream, address, shutdown, Names::Relay, &[]).await;
            drop(seat);
        });
    }
}

/// One of the connections; given back on drop.
struct Seat {
    number: usize,
    connections: Arc<AtomicUsize>,
}

impl Seat {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { number, connections: Arc::clone(connections) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

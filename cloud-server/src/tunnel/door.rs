//! One tunnel's listener: accepts visitors, lets in who is on the access list while the camera has seats, and gives each a
//! task of its own, so that none waits for another.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Context;
use super::refusal;
use super::traffic::{Seat, Seats, Traffic};
use super::visitor;
use crate::event::Event;
use crate::metrics::Visit;
use crate::rtsp::CameraNames;
use crate::shutdown::Shutdown;

/// After so long without a word the kernel asks whether a visitor is still there.
const ALIVE_AFTER: Duration = Duration::from_secs(60);

/// Refusals of one tunnel are told no more often: whoever scans ports fills no log.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What visitors of one tunnel need to know.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) camera: String,
    pub(super) service: String,
    pub(super) agent: String,
    pub(super) traffic: Arc<Traffic>,
    seats: Seats,
    /// The camera's paths, where visitors are answered from the relay if they can be.
    shared: Mutex<Option<CameraNames>>,
    told_at: Mutex<Option<Instant>>,
}

impl Door {
    pub(super) fn new(camera: &str, service: &str, agent: &str, seats: Seats, traffic: Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self {
            camera: camera.to_owned(),
            service: service.to_owned(),
            agent: agent.to_owned(),
            traffic,
            seats,
            shared: Mutex::default(),
            told_at: Mutex::default(),
        })
    }

    /// From the next visitor on.
    pub(super) fn share(&self, names: Option<CameraNames>) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    pub(super) fn shared(&self) -> Option<CameraNames> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells of a visitor that was turned away.
    pub(super) fn refused(&self, context: &Context, visitor: SocketAddr, reason: String) {
        context.relay.metrics.visit(Visit::Refused);
        let now = Instant::now();
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|told| now.saturating_duration_since(told) < TELL_EVERY) {
            tracing::debug!(camera = self.camera, service = self.service, %visitor, reason, "visitor refused");
            return;
        }
        *told_at = Some(now);
        let (camera, service, address) = (self.camera.clone(), self.service.clone(), visitor.to_string());
        context.events.emit(Event::VisitorRefused { camera, service, address, reason });
    }
}

/// Accepts until it is dropped, or the stop begins.
#[derive(Debug)]
pub(super) struct Accepting {
    task: JoinHandle<()>,
}

impl Accepting {
    pub(super) fn start(context: Arc<Context>, door: Arc<Door>, listener: TcpListener, shutdown: Shutdown) -> Self {
        Self { task: tokio::spawn(accept(context, door, listener, shutdown)) }
    }

    /// Stops; when it returns, the port is free.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Within one machine a pace, as BBR sets one, only costs the processor. Visitors get their listener's choice; one that is made when BBR has begun keeps
/// the pace. A kernel without it goes on with what it has.
pub(super) fn choose_congestion_control(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_tcp_congestion(b"cubic");
}

async fn accept(context: Arc<Context>, door: Arc<Door>, listener: TcpListener, mut shutdown: Shutdown) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.begun() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // A visitor whose host has vanished gives its seat back although nobody says anything.
                let alive = TcpKeepalive::new().with_time(ALIVE_AFTER).with_interval(ALIVE_AFTER / 4);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&alive);
                if address.ip().to_canonical().is_loopback() {
                    choose_congestion_control(&stream);
                }
                admit(&context, &door, stream, address, &shutdown);
            }
            Err(error) => {
                // Out of file descriptors, as a rule: asking again at once would only burn the processor.
                tracing::warn!(%error, camera = door.camera, service = door.service, "cannot accept visitors");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(context: &Arc<Context>, door: &Arc<Door>, stream: TcpStream, address: SocketAddr, shutdown: &Shutdown) {
    if !context.config.lets_in(address.ip()) {
        door.refused(context, address, "not in tunnels.allow".to_owned());
        return;
    }
    let most = context.config.max_visitors;
    let Some(seat) = Seat::take(&door.seats, most, &door.traffic) else {
        context.relay.metrics.breach("visitors of a camera");
        door.refused(context, address, format!("the camera has {most} visitors already (tunnels.max_visitors)"));
        if let Some(text) = refusal::text(&door.service, None, "Too many visitors of this camera") {
            // A new connection has an empty send buffer; if not even this fits, closing says the same.
            let _ = stream.try_write(&text);
        }
        return;
    };
    // Without it small answers would wait for acknowledgements.
    let _ = stream.set_nodelay(true);
    tokio::spawn(visitor::serve(Arc::clone(context), Arc::clone(door), seat, stream, address, shutdown.clone()));
}

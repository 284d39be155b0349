//! One visitor, from the listener to its end: waits for the agent, is answered by the relay or handed to the gateway, and
//! is told of in events.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::address::{RTSP, language};
use super::door::Door;
use super::traffic::Seat;
use super::watched::Watched;
use super::{Context, refusal, share};
use crate::agents::{Farewell, NotVisited, Visit};
use crate::event::Event;
use crate::metrics;
use crate::rtsp::Names;
use crate::shutdown::Shutdown;

/// How often it is looked whether a visitor who waits has left.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Serves one visitor.
pub(super) async fn serve(
    context: Arc<Context>,
    door: Arc<Door>,
    seat: Seat,
    stream: TcpStream,
    address: SocketAddr,
    mut shutdown: Shutdown,
) {
    let mut stopping = shutdown.clone();
    tokio::select! {
        biased;
        () = stopping.begun() => {}
        () = visit(&context, &door, stream, address, &mut shutdown) => {}
    }
    drop(seat);
}

async fn visit(context: &Context, door: &Door, mut stream: TcpStream, address: SocketAddr, shutdown: &mut Shutdown) {
    let until = Instant::now() + context.config.wait;
    let mut said = Vec::new();
    let mut wanted = None;
    if let Some(names) = door.shared() {
        let source = share::first_request(&mut stream, &names, &mut said).await;
        wanted = source.map(|source| (names, source));
    }
    let patience = until.saturating_duration_since(Instant::now());
    let came = tokio::select! {
        // What the agent is there for it hears, whatever the visitor does then.
        biased;
        came = context.agents.wait_online(&door.agent, patience) => came,
        () = left(&stream, &door.service) => {
            door.refused(context, address, format!("left before agent {} came", door.agent));
            return;
        }
    };
    if !came {
        let waited = context.config.wait.as_secs_f64();
        door.refused(context, address, format!("agent {} did not come within {waited} s (tunnels.wait)", door.agent));
        refusal::say(stream, &door.service, said, "Camera is offline").await;
        return;
    }
    if let Some((names, source)) = wanted
        && share::can_be_had(context, &door.camera, &source).await
    {
        let relay = context.relay.clone();
        relay.serve_one(stream, address, shutdown.clone(), Names::Camera(names), &said).await;
        return;
    }
    let (farewell, ended) = oneshot::channel();
    let socket = Watched::new(stream, said, language(&door.service) == RTSP, Arc::clone(&door.traffic));
    let visit = Visit {
        camera: door.camera.clone(),
        service: door.service.clone(),
        visitor: address.to_string(),
        socket: Box::new(socket),
        farewell,
    };
    let patience = until.saturating_duration_since(Instant::now());
    let begun = context.agents.visit(&door.agent, visit, patience).await;
    // Without a word only when the server stops.
    let Ok(mut farewell) = ended.await else { return };
    let unused = farewell.unused.take();
    let words = match begun {
        Ok(()) if unused.is_some() => {
            door.refused(context, address, farewell.reason);
            "Camera is not reached"
        }
        Ok(()) => {
            tell(context, door, address, farewell);
            return;
        }
        Err(NotVisited::Offline) => {
            door.refused(context, address, format!("agent {} went away", door.agent));
            "Camera is offline"
        }
        Err(NotVisited::Busy) => {
            door.refused(context, address, format!("agent {} has too many visitors at once", door.agent));
            "Too many visitors"
        }
    };
    if let Some(socket) = unused {
        // What was read of it before comes out of the socket again.
        refusal::say(socket, &door.service, Vec::new(), words).await;
    }
}

/// Ends when the visitor has gone who waits for the agent. A request over HTTP may be followed by the end of its direction and still want an
/// answer; who has said nothing, and who cannot control a session of RTSP any more, has left.
async fn left(stream: &TcpStream, service: &str) {
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        let is_silent = async || matches!(stream.peek(&mut [0]).await, Ok(0) | Err(_));
        if ready.is_read_closed() && (language(service) == RTSP || is_silent().await) {
            return;
        }
        // What it has said stays readable: nobody wakes us for its end.
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn tell(context: &Context, door: &Door, address: SocketAddr, farewell: Farewell) {
    let (camera, service, address) = (door.camera.clone(), door.service.clone(), address.to_string());
    let Farewell { reason, reached, to_visitor, to_camera, .. } = farewell;
    context.relay.metrics.visit(if reached { metrics::Visit::Reached } else { metrics::Visit::RefusedByAgent });
    context.events.emit(if reached {
        Event::VisitEnded { camera, service, address, reason, to_visitor, to_camera }
    } else {
        Event::TunnelRefused { camera, service, address, reason }
    });
}

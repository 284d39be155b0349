//! One visitor, from the listener to its end: waits for the agent, is answered by the relay or handed to the gateway, and
//! is told of in events.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::address::RTSP;
use super::door::Door;
use super::traffic::Seat;
use super::watched::Watched;
use super::{Context, refusal, share};
use crate::agents::{Farewell, NotVisited, Visit};
use crate::event::Event;
use crate::metrics;
use crate::rtsp::Names;
use crate::shutdown::Shutdown;

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
    if !context.agents.wait_online(&door.agent, patience).await {
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
    let socket = Watched::new(stream, said, door.service == RTSP, Arc::clone(&door.traffic));
    let visit = Visit {
        camera: door.camera.clone(),
        service: door.service.clone(),
        visitor: address.to_string(),
        socket: Box::new(socket),
        farewell,
    };
    let patience = until.saturating_duration_since(Instant::now());
    match context.agents.visit(&door.agent, visit, patience).await {
        Ok(()) => tell(context, door, address, ended.await.ok()),
        Err(NotVisited::Offline) => door.refused(context, address, format!("agent {} went away", door.agent)),
        Err(NotVisited::Busy) => {
            door.refused(context, address, format!("agent {} has too many visitors at once", door.agent));
        }
    }
}

fn tell(context: &Context, door: &Door, address: SocketAddr, farewell: Option<Farewell>) {
    let (camera, service, address) = (door.camera.clone(), door.service.clone(), address.to_string());
    let farewell = farewell.unwrap_or(Farewell {
        reason: "the agent's session ended".to_owned(),
        reached: true,
        to_visitor: 0,
        to_camera: 0,
    });
    let Farewell { reason, reached, to_visitor, to_camera } = farewell;
    context.relay.metrics.visit(if reached { metrics::Visit::Reached } else { metrics::Visit::RefusedByAgent });
    context.events.emit(if reached {
        Event::VisitEnded { camera, service, address, reason, to_visitor, to_camera }
    } else {
        Event::TunnelRefused { camera, service, address, reason }
    });
}

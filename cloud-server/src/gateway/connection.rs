//! One agent's session: reads the WebSocket and the clock, feeds the protocol, does what it says. A frame is delivered
//! only in this connection's turn of the agent's ledger, so an older connection that still speaks delivers nothing.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use camagent_proto::message::{Camera, KeyFrame, Register, SourceState};
use camagent_proto::session::{Accept, Server, ServerConfig, ServerEvent, Transmit};
use camagent_proto::{CloseCode, Instant};
use futures_util::SinkExt;

use super::Gateway;
use super::endpoint::turned_away;
use super::media::{Media, Told};
use crate::agents::{Joining, Membership, Order};
use crate::auth::{Verdict, hash};
use crate::event::Event;

/// An agent that does not take a control message or an acknowledgement for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the agent may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Within this time agents come back after a stop of the server.
const COME_BACK_WITHIN_MS: u64 = 5_000;

struct Connection {
    gateway: Gateway,
    agent: String,
    token_hash: Option<[u8; 32]>,
    address: SocketAddr,
    protocol: Server,
    member: Option<Membership>,
    media: Option<Media>,
    /// Cameras that came after register and wait for their claim.
    more_cameras: Vec<Camera>,
    failed: Option<String>,
}

/// Serves one agent until its session ends.
pub(super) async fn serve(
    gateway: Gateway,
    mut socket: WebSocket,
    agent: String,
    token_hash: Option<[u8; 32]>,
    address: SocketAddr,
) {
    let now_us = gateway.clock.monotonic_us();
    let utc_offset_us = gateway.clock.utc_us().saturating_sub(i64::try_from(now_us).unwrap_or(i64::MAX));
    let protocol = Server::new(ServerConfig::default(), Instant::from_micros(now_us), utc_offset_us);
    let mut connection = Connection {
        gateway,
        agent,
        token_hash,
        address,
        protocol,
        member: None,
        media: None,
        more_cameras: Vec::new(),
        failed: None,
    };
    let reason = connection.run(&mut socket).await;
    connection.end(&reason).await;
}

enum Happened {
    Message(Option<Result<Message, axum::Error>>),
    Order(Option<Order>),
    Demand(Told),
    Deadline,
    Stop,
}

impl Connection {
    fn now(&self) -> Instant {
        Instant::from_micros(self.gateway.clock.monotonic_us())
    }

    async fn run(&mut self, socket: &mut WebSocket) -> String {
        loop {
            self.handle_events().await;
            while let Some(transmit) = self.protocol.poll_transmit(self.now(), &mut camagent_proto::mux::NoStreams) {
                let (message, is_close) = match transmit {
                    Transmit::Text(text) => (Message::Text(text.into()), false),
                    Transmit::Binary(record) => (Message::Binary(record), false),
                    Transmit::Close(code, reason) => {
                        let frame = CloseFrame { code: code.number(), reason: close_reason(&reason).into() };
                        (Message::Close(Some(frame)), true)
                    }
                };
                match tokio::time::timeout(WRITE_TIMEOUT, socket.send(message)).await {
                    Ok(Ok(())) if is_close => {
                        drain(socket).await;
                        return self.failed.take().unwrap_or_else(|| "closed by the server".to_owned());
                    }
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return self.failed.take().unwrap_or_else(|| error.to_string()),
                    Err(_) => return "the agent takes no data".to_owned(),
                }
            }
            if let Some(failed) = self.failed.take() {
                return failed;
            }
            match self.wait(socket).await {
                Happened::Message(Some(Ok(message))) => match message {
                    Message::Text(text) => self.in_turn(|protocol, now| protocol.handle_text(now, text.as_str())),
                    Message::Binary(record) => self.in_turn(|protocol, now| protocol.handle_binary(now, record)),
                    Message::Close(frame) => {
                        // The answer (RFC 6455 5.5.1) waits in the WebSocket layer; without it the agent sees a broken link.
                        let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.flush()).await;
                        return frame.map_or_else(
                            || "closed by the agent".to_owned(),
                            |frame| format!("closed by the agent: {} {}", frame.code, frame.reason),
                        );
                    }
                    Message::Ping(_) | Message::Pong(_) => {}
                },
                Happened::Message(Some(Err(error))) => {
                    let text = error.to_string();
                    // Messages beyond the limit end here; what they say has not been read.
                    if text.contains("too long") || text.contains("too large") || text.contains("exceed") {
                        self.protocol.refuse(CloseCode::LimitExceeded, text);
                    } else {
                        return text;
                    }
                }
                Happened::Message(None) => return "connection lost".to_owned(),
                Happened::Order(Some(Order::Command(command))) => self.protocol.command(command),
                Happened::Order(Some(Order::Leave(code, reason))) => self.protocol.refuse(code, reason),
                Happened::Order(None) => return "replaced".to_owned(),
                Happened::Demand(told) => {
                    if let Some(state) = told.state {
                        self.protocol.set_wanted(state);
                    }
                    if let Some((camera, source)) = told.key_frame {
                        self.protocol.request_key_frame(KeyFrame { camera, source });
                    }
                }
                Happened::Deadline => self.protocol.handle_timeout(self.now()),
                Happened::Stop => {
                    self.failed = Some("server stops".to_owned());
                    self.protocol.goaway(camagent_proto::message::Goaway {
                        reason: "the server stops".to_owned(),
                        after_ms: 0,
                        spread_ms: COME_BACK_WITHIN_MS,
                    });
                }
            }
        }
    }

    async fn wait(&mut self, socket: &mut WebSocket) -> Happened {
        let deadline = self.protocol.poll_timeout();
        let now = self.now();
        let timer = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline.saturating_since(now)).await,
                None => std::future::pending().await,
            }
        };
        let orders = self.member.as_mut();
        let order = async {
            match orders {
                Some(member) => member.orders.recv().await,
                None => std::future::pending().await,
            }
        };
        let media = self.media.as_mut();
        let demand = async {
            match media {
                Some(media) => media.demand_changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.gateway.shutdown.begun(), if self.failed.is_none() => Happened::Stop,
            order = order => Happened::Order(order),
            () = timer => Happened::Deadline,
            demand = demand => Happened::Demand(demand),
            message = socket.recv() => Happened::Message(message),
        }
    }

    /// Feeds the protocol and delivers the media that comes out, all in this connection's turn.
    fn in_turn(&mut self, feed: impl FnOnce(&mut Server, Instant)) {
        let now = self.now();
        let (Some(member), Some(media)) = (&self.member, &mut self.media) else {
            feed(&mut self.protocol, now);
            return;
        };
        let Some(mut turn) = member.ledger.turn(member.generation) else {
            // The order to leave is on its way.
            return;
        };
        feed(&mut self.protocol, now);
        let mut refused = None;
        let mut others = Vec::new();
        while let Some(event) = self.protocol.poll_event() {
            match event {
                ServerEvent::Media(delivery) => {
                    if let Err(reason) = media.deliver(delivery) {
                        refused = Some(reason);
                    }
                }
                ServerEvent::Event(event) => {
                    if turn.is_new_event(event.sequence) {
                        let (agent, camera, kind) = (self.agent.clone(), event.camera, event.kind);
                        self.gateway.events.emit(Event::AgentEvent { agent, camera, kind });
                    }
                    self.protocol.keep_event(event.sequence);
                }
                other => others.push(other),
            }
        }
        turn.received(self.protocol.resume_points());
        drop(turn);
        for event in others {
            self.handle_established(event);
        }
        if let Some(reason) = refused {
            self.protocol.refuse(CloseCode::Forbidden, reason);
        }
    }

    /// Events that need the database, and what is left.
    async fn handle_events(&mut self) {
        for camera in std::mem::take(&mut self.more_cameras) {
            self.admit_more(camera).await;
        }
        while let Some(event) = self.protocol.poll_event() {
            match event {
                ServerEvent::Register(register) => self.register(register).await,
                other => self.handle_established(other),
            }
        }
        for camera in std::mem::take(&mut self.more_cameras) {
            self.admit_more(camera).await;
        }
    }

    fn handle_established(&mut self, event: ServerEvent) {
        let generation = self.member.as_ref().map_or(0, |member| member.generation);
        match event {
            ServerEvent::Heartbeat { heartbeat, clock_offset_us } => {
                if let Some(media) = &mut self.media {
                    media.clock_offset(clock_offset_us);
                }
                let now_us = self.gateway.clock.utc_us();
                self.gateway.agents.heartbeat(&self.agent, generation, heartbeat.statistics, now_us);
            }
            ServerEvent::CommandResult(result) => self.gateway.agents.answer(&self.agent, result),
            ServerEvent::Cameras(cameras) => {
                self.gateway.agents.add_cameras(&self.agent, generation, cameras.clone());
                self.more_cameras.extend(cameras);
            }
            ServerEvent::Failed(error) => {
                let reason = error.to_string();
                if matches!(error, camagent_proto::Error::Violation { .. } | camagent_proto::Error::Limit { .. }) {
                    let (agent, reason) = (self.agent.clone(), reason.clone());
                    self.gateway.events.emit(Event::AgentMisbehaved { agent, reason });
                }
                self.failed = Some(reason);
            }
            // Media and events come out in a turn only; a second register is refused by the protocol.
            _ => {}
        }
    }

    async fn register(&mut self, register: Register) {
        if let Err((code, reason)) = self.admit(&register).await {
            let (agent, address) = (self.agent.clone(), self.address.to_string());
            self.gateway.events.emit(Event::AgentRefused { agent, address, reason: reason.clone() });
            self.protocol.refuse(code, reason);
        }
    }

    async fn admit(&mut self, register: &Register) -> Result<(), (CloseCode, String)> {
        if register.agent_id != self.agent {
            let reason = format!("registered as \"{}\" under /agent/{}", register.agent_id, self.agent);
            return Err((CloseCode::ProtocolError, reason));
        }
        let token_hash = match (self.token_hash, &register.token) {
            (Some(hash), _) => hash,
            (None, None) => {
                return Err((CloseCode::AuthFailed, "no token: neither Authorization nor register has one".to_owned()));
            }
            (None, Some(token)) => match self.gateway.auth.agent(&self.agent, token).await {
                Ok(Verdict::Granted) => hash(token),
                Ok(_) => return Err((CloseCode::AuthFailed, turned_away(&self.agent))),
                Err(trouble) => {
                    tracing::error!(%trouble, "cannot check a token");
                    return Err((CloseCode::Overloaded, "the token cannot be checked now".to_owned()));
                }
            },
        };
        for camera in &register.cameras {
            self.claim(&camera.id).await?;
        }
        let now_us = self.gateway.clock.utc_us();
        self.note_seen(now_us).await;
        let member = self.gateway.agents.join(
            &self.agent,
            Joining {
                address: self.address.to_string(),
                token_hash,
                boot: register.boot_id.0,
                software: register.software.clone(),
                cameras: register.cameras.clone(),
                capabilities: register.capabilities.clone(),
                now_us,
            },
        );
        let mut media = Media::new(
            &self.agent,
            member.generation,
            register.boot_id.0,
            self.gateway.hub.clone(),
            self.gateway.events.clone(),
            self.gateway.clock,
        );
        if register.monotonic_us > 0 {
            let now = i64::try_from(self.gateway.clock.monotonic_us()).unwrap_or(i64::MAX);
            media.clock_offset(now.saturating_sub(i64::try_from(register.monotonic_us).unwrap_or(i64::MAX)));
        }
        let sources = offer_all(&mut media, &register.cameras);
        self.protocol.accept(
            self.now(),
            Accept {
                session_id: format!("{}-{}", self.agent, member.generation),
                generation: member.generation,
                sources,
                resume: member.resume.clone(),
            },
        );
        self.member = Some(member);
        self.media = Some(media);
        Ok(())
    }

    async fn admit_more(&mut self, camera: Camera) {
        if let Err((code, reason)) = self.claim(&camera.id).await {
            self.protocol.refuse(code, reason);
            return;
        }
        let Some(media) = &mut self.media else { return };
        for state in offer_all(media, std::slice::from_ref(&camera)) {
            self.protocol.set_wanted(state);
        }
    }

    /// Makes a camera the agent's. A database that cannot be written is told and does not stop live video.
    async fn claim(&self, camera: &str) -> Result<(), (CloseCode, String)> {
        let refused = |owner: String| {
            let (agent, camera_id) = (self.agent.clone(), camera.to_owned());
            self.gateway.events.emit(Event::CameraRefused { agent, camera: camera_id, owner });
            Err((CloseCode::Forbidden, format!("camera \"{camera}\" belongs to another agent")))
        };
        match self.gateway.store.camera_owner(camera).await {
            Ok(Some(owner)) if owner != self.agent => return refused(owner),
            Ok(_) => {}
            Err(trouble) => self.disk_trouble("who owns a camera", &trouble),
        }
        if let Err(owner) = self.gateway.hub.claim(camera, &self.agent) {
            return refused(owner);
        }
        let now_us = self.gateway.clock.utc_us();
        if let Err(trouble) = self.gateway.store.claim_camera(camera, &self.agent, now_us).await {
            self.disk_trouble("the owner of a camera", &trouble);
        }
        Ok(())
    }

    async fn note_seen(&self, now_us: i64) {
        if let Err(trouble) = self.gateway.store.note_agent_seen(&self.agent, now_us).await {
            self.disk_trouble("when an agent was seen", &trouble);
        }
    }

    fn disk_trouble(&self, what: &str, trouble: &crate::error::Error) {
        let (what, reason) = (what.to_owned(), trouble.to_string());
        self.gateway.events.emit(Event::DiskTrouble { what, reason });
    }

    async fn end(mut self, reason: &str) {
        // Viewers should see the source go before the API says that the agent went.
        self.media = None;
        if let Some(member) = self.member.take() {
            self.gateway.agents.leave(&self.agent, member.generation, reason);
            self.note_seen(self.gateway.clock.utc_us()).await;
        } else {
            tracing::debug!(agent = self.agent, reason, "connection ended before a session");
        }
    }
}

fn offer_all(media: &mut Media, cameras: &[Camera]) -> Vec<SourceState> {
    let sources = cameras.iter().flat_map(|camera| camera.sources.iter().map(move |source| (&camera.id, source)));
    sources.filter_map(|(camera, source)| media.offer(camera, &source.name, source.policy)).collect()
}

/// A close frame has room for 123 octets of text (RFC 6455 5.5.1).
fn close_reason(reason: &str) -> String {
    reason[..reason.floor_char_boundary(123)].to_owned()
}

/// Reads until the agent has answered the close, so that the reason is not lost in a reset of the connection.
async fn drain(socket: &mut WebSocket) {
    let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, answered).await;
}

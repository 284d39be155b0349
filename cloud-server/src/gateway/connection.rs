//! One agent's session: reads the WebSocket and the clock, feeds the protocol, does what it says. A frame is delivered
//! only in this connection's turn of the agent's ledger, so an older connection that still speaks delivers nothing.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use camagent_proto::message::{BootId, Camera, KeyFrame, Limits, MAX_INTEGER, Register, SourceState, TunnelLimits};
use camagent_proto::mux::Tolerance;
use camagent_proto::session::{Accept, Bounds, Server, ServerConfig, ServerEvent, Transmit};
use camagent_proto::stats::DataUse;
use camagent_proto::transfer::EpochKey;
use camagent_proto::{CloseCode, Instant, error::keeps_streams};
use futures_util::{Sink, SinkExt, Stream};

use super::Gateway;
use super::berth::{HANDOVER, Moored};
use super::endpoint::{RETRY_AFTER, turned_away};
use super::media::{Media, Told};
use super::notes::Notes;
use super::visits::Visits;
use crate::agents::{Joining, Membership, Order};
use crate::auth::{Verdict, hash};
use crate::clock::month;
use crate::config::RESUME_BYTES;
use crate::event::Event;
use crate::ingest::{News, Persisted};
use crate::live::Found;
use crate::metrics::Direction;
use crate::store::DataRow;

/// Messages that are read, and records that are written, before others get a turn.
const READ_BURST: usize = 32;
const WRITE_BURST: usize = 32;
/// A close without a code, and no close at all (RFC 6455 section 7.4.1).
const NO_CODE: u16 = 1005;
const NO_CLOSE: u16 = 1006;
/// How long the agent may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// An agent that suspects its session has a second connection ready, and registers there only when the first one is given up: after 10 s at the latest.
const SECOND_WITHIN: Duration = Duration::from_secs(15);

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
    /// What is written beside the session, from when it is let in.
    notes: Option<Notes>,
    failed: Option<String>,
    visits: Visits,
    /// Since when the socket has taken nothing.
    blocked_since: Option<Instant>,
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
    let mut config = protocol_config(&gateway);
    // Strangers are not waited for; whoever showed this agent's token while it has a session is no stranger.
    if token_hash.is_some() && gateway.agents.is_online(&agent) {
        config.bounds.register_within = config.bounds.register_within.max(SECOND_WITHIN);
    }
    let protocol = Server::new(config, Instant::from_micros(now_us), utc_offset_us);
    let mut connection = Connection {
        gateway,
        agent,
        token_hash,
        address,
        protocol,
        member: None,
        media: None,
        more_cameras: Vec::new(),
        notes: None,
        failed: None,
        visits: Visits::default(),
        blocked_since: None,
    };
    let reason = connection.run(&mut socket).await;
    connection.count();
    connection.end(&reason).await;
}

enum Happened {
    Messages(Vec<Message>),
    Failed(axum::Error),
    Gone,
    Order(Option<Order>),
    Demand(Told),
    /// More is persisted, or something is wanted again.
    Persisted(News),
    /// The protocol has something to tell.
    Events,
    /// A deadline of the protocol or of a visitor has come: the next turn sees it.
    Deadline,
    /// The close that ends the connection is on its way.
    Closing,
    Stuck,
    Stop,
}

impl Connection {
    fn now(&self) -> Instant {
        Instant::from_micros(self.gateway.clock.monotonic_us())
    }

    async fn run(&mut self, socket: &mut WebSocket) -> String {
        let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        loop {
            // An agent that sends without end keeps no thread for itself.
            tokio::task::consume_budget().await;
            self.handle_events().await;
            match self.wait(socket, timer.as_mut()).await {
                Happened::Messages(messages) => {
                    for message in messages {
                        match message {
                            Message::Text(text) => {
                                self.in_turn(|protocol, now| protocol.handle_text(now, text.as_str()));
                                self.handle_events().await;
                            }
                            Message::Binary(record) => {
                                self.in_turn(|protocol, now| protocol.handle_binary(now, record));
                            }
                            Message::Close(frame) => {
                                let code = frame.as_ref().map_or(NO_CODE, |frame| frame.code);
                                self.gateway.metrics.closed(Direction::Received, code);
                                if !keeps_streams(code) {
                                    drop(self.protocol.suspend());
                                }
                                // The answer (RFC 6455 5.5.1) waits in the WebSocket layer; without it the agent sees a broken link.
                                let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.flush()).await;
                                return frame.map_or_else(
                                    || "closed by the agent".to_owned(),
                                    |frame| format!("closed by the agent: {} {}", frame.code, frame.reason),
                                );
                            }
                            // Pings are answered by the WebSocket layer itself.
                            Message::Ping(_) | Message::Pong(_) => {
                                let now = self.now();
                                self.protocol.handle_ping(now);
                            }
                        }
                    }
                    self.count();
                }
                Happened::Failed(error) => {
                    let text = error.to_string();
                    // Messages beyond the limit end here; what they say has not been read.
                    if text.contains("too long") || text.contains("too large") || text.contains("exceed") {
                        self.gateway.metrics.breach("message octets");
                        self.protocol.refuse(CloseCode::LimitExceeded, text);
                    } else {
                        self.gateway.metrics.closed(Direction::Received, NO_CLOSE);
                        return self.failed.take().unwrap_or(text);
                    }
                }
                Happened::Gone => {
                    self.gateway.metrics.closed(Direction::Received, NO_CLOSE);
                    return self.failed.take().unwrap_or_else(|| "connection lost".to_owned());
                }
                Happened::Order(Some(Order::Command(command))) => self.protocol.command(command),
                Happened::Order(Some(Order::Leave(code, reason))) => {
                    self.protocol.refuse(code, reason);
                    self.moor().await;
                }
                Happened::Order(None) => return "replaced".to_owned(),
                Happened::Demand(told) => {
                    if let Some(state) = told.state {
                        self.protocol.set_wanted(state);
                    }
                    if let Some((camera, source)) = told.key_frame {
                        self.protocol.request_key_frame(KeyFrame { camera, source });
                    }
                }
                Happened::Persisted(news) => {
                    let now = self.now();
                    for Persisted { key, next, is_past } in news.persisted {
                        if is_past {
                            let key = EpochKey { boot: BootId(key.boot), track: key.track, epoch: key.epoch };
                            self.protocol.known(now, &key, next, next);
                        } else {
                            self.protocol.persisted(now, key.track, key.epoch, next);
                        }
                    }
                    if news.wants_again && self.failed.is_none() {
                        // The next session resumes where they are missing.
                        let detail = "frames that could not be stored are wanted again".to_owned();
                        self.protocol.refuse(CloseCode::Overloaded, detail);
                        self.moor().await;
                    }
                }
                Happened::Events => {}
                Happened::Deadline => {}
                Happened::Closing => {
                    self.moor().await;
                    if let Ok(Ok(())) = tokio::time::timeout(self.gateway.limits.write_timeout, socket.flush()).await {
                        drain(socket).await;
                    }
                    return self.failed.take().unwrap_or_else(|| "closed by the server".to_owned());
                }
                Happened::Stuck => {
                    self.gateway.metrics.breach("write timeout");
                    return "the agent takes no data".to_owned();
                }
                Happened::Stop => {
                    self.failed = Some("server stops".to_owned());
                    let goaway = &self.gateway.goaway;
                    let spread_ms = u64::try_from(goaway.come_back_within.as_millis()).unwrap_or(u64::MAX);
                    self.protocol.goaway(camagent_proto::message::Goaway {
                        reason: "the server stops".to_owned(),
                        after_ms: 0,
                        spread_ms,
                        servers: goaway.servers.clone(),
                    });
                }
            }
        }
    }

    /// Moves octets both ways until something happens that needs a decision.
    async fn wait(&mut self, socket: &mut WebSocket, mut timer: Pin<&mut tokio::time::Sleep>) -> Happened {
        let mut stop = self.gateway.shutdown.clone();
        let stops = self.failed.is_none();
        let mut stop = std::pin::pin!(async move {
            match stops {
                true => stop.begun().await,
                false => std::future::pending().await,
            }
        });
        let mut media = self.media.take();
        let happened = {
            let persisted = media.as_ref().map(Media::persisted);
            let mut persisted = std::pin::pin!(async {
                match persisted {
                    Some(persisted) => persisted.await,
                    None => std::future::pending().await,
                }
            });
            let mut demand = std::pin::pin!(async {
                match &mut media {
                    Some(media) => media.demand_changed().await,
                    None => std::future::pending().await,
                }
            });
            std::future::poll_fn(|cx| {
                if stop.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Happened::Stop);
                }
                // Whose end is decided takes no more orders: what is being said to it is the last.
                if stops
                    && let Some(member) = &mut self.member
                    && let Poll::Ready(order) = member.orders.poll_recv(cx)
                {
                    return Poll::Ready(Happened::Order(order));
                }
                if let Poll::Ready(told) = demand.as_mut().poll(cx) {
                    return Poll::Ready(Happened::Demand(told));
                }
                if let Poll::Ready(progress) = persisted.as_mut().poll(cx) {
                    return Poll::Ready(Happened::Persisted(progress));
                }
                self.turn(cx, socket, timer.as_mut())
            })
            .await
        };
        self.media = media;
        happened
    }

    /// Visitors, socket and timer, as far as they go without waiting. What is written next is chosen when the socket takes it.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut WebSocket,
        mut timer: Pin<&mut tokio::time::Sleep>,
    ) -> Poll<Happened> {
        let now = self.now();
        let established = self.protocol.is_established();
        loop {
            while self.visits.has_room()
                && let Some(member) = &mut self.member
                && let Poll::Ready(Some(visit)) = member.visits.poll_recv(cx)
            {
                self.visits.arrive(visit, now);
            }
            if !established {
                break;
            }
            let had_room = self.visits.has_room();
            self.visits.turn(cx, self.protocol.tunnels(), now);
            // Who waits outside is looked for only while there is room.
            if had_room || !self.visits.has_room() {
                break;
            }
        }
        // A timer that is set to a moment in the past does not fire at once: what is due is asked for and not waited for.
        if self.protocol.poll_timeout().is_some_and(|at| at <= now) {
            self.protocol.handle_timeout(now);
        }
        match self.write(cx, socket, now) {
            Ok(false) => {}
            Ok(true) => return Poll::Ready(Happened::Closing),
            Err(error) => return Poll::Ready(Happened::Failed(error)),
        }
        if self.protocol.has_events() {
            return Poll::Ready(Happened::Events);
        }
        let mut messages = Vec::new();
        while messages.len() < READ_BURST {
            match Pin::new(&mut *socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => messages.push(message),
                Poll::Ready(Some(Err(error))) if messages.is_empty() => return Poll::Ready(Happened::Failed(error)),
                Poll::Ready(None) if messages.is_empty() => return Poll::Ready(Happened::Gone),
                // Told again when it is asked next.
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        if !messages.is_empty() {
            return Poll::Ready(Happened::Messages(messages));
        }
        let stuck_at = self.blocked_since.map(|since| since + self.gateway.limits.write_timeout);
        if stuck_at.is_some_and(|at| at <= now) {
            return Poll::Ready(Happened::Stuck);
        }
        let visits = self.visits.deadline().filter(|_| established);
        let deadlines = [self.protocol.poll_timeout(), visits, stuck_at];
        // What is due already waits for the socket.
        if let Some(next) = deadlines.into_iter().flatten().filter(|at| *at > now).min() {
            timer.as_mut().reset(tokio::time::Instant::now() + next.saturating_since(now));
            if timer.poll(cx).is_ready() {
                return Poll::Ready(Happened::Deadline);
            }
        }
        Poll::Pending
    }

    /// Writes as long as the socket takes something; `true` when the last thing was a close.
    fn write(&mut self, cx: &mut Context<'_>, socket: &mut WebSocket, now: Instant) -> Result<bool, axum::Error> {
        let mut socket = Pin::new(socket);
        for _ in 0..WRITE_BURST {
            match socket.as_mut().poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.blocked_since.get_or_insert(now);
                    return Ok(false);
                }
            }
            self.blocked_since = None;
            let Some(transmit) = self.protocol.poll_transmit(now, &mut self.visits.sides(cx, now)) else {
                if let Poll::Ready(flushed) = socket.poll_flush(cx) {
                    flushed?;
                }
                return Ok(false);
            };
            match transmit {
                Transmit::Text(text) => socket.as_mut().start_send(Message::Text(text.into()))?,
                Transmit::Binary(record) => socket.as_mut().start_send(Message::Binary(record))?,
                Transmit::Close(code, reason) => {
                    self.gateway.metrics.closed(Direction::Sent, code.number());
                    let frame = CloseFrame { code: code.number(), reason: close_reason(&reason).into() };
                    socket.as_mut().start_send(Message::Close(Some(frame)))?;
                    return Ok(true);
                }
            }
        }
        // There is more; others have their turn first.
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// What came meanwhile, into the metrics.
    fn count(&mut self) {
        let received = self.protocol.take_received();
        self.gateway.metrics.received(&received);
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
        for (key, stored) in media.take_answers() {
            self.protocol.known(now, &key, stored, stored);
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

    fn keep_data(&self, data: &DataUse) {
        let cameras = self.gateway.agents.status(&self.agent).map(|status| status.cameras).unwrap_or_default();
        let has_source =
            |camera: &Camera, name: &str| matches!(self.gateway.hub.find(&camera.id, name), Found::Source(_));
        if let Some(notes) = &self.notes {
            notes.used(super::data::rows(data, &cameras, has_source), self.gateway.clock.utc_us());
        }
    }

    fn handle_established(&mut self, event: ServerEvent) {
        let generation = self.member.as_ref().map_or(0, |member| member.generation);
        match event {
            ServerEvent::Heartbeat { heartbeat, clock_offset_us } => {
                self.media.iter_mut().for_each(Media::tell_losses);
                if let Some((media, offset_us)) = self.media.as_mut().zip(clock_offset_us) {
                    media.clock_offset(offset_us);
                }
                if let Some(data) = heartbeat.statistics.as_ref().and_then(|statistics| statistics.data.as_ref()) {
                    self.keep_data(data);
                }
                let now_us = self.gateway.clock.utc_us();
                self.gateway.agents.heartbeat(&self.agent, generation, heartbeat.statistics, now_us);
            }
            ServerEvent::Stream(event) => self.visits.hear(event, self.protocol.tunnels()),
            ServerEvent::CommandResult(result) => self.gateway.agents.answer(&self.agent, result),
            ServerEvent::Cameras(cameras) => {
                self.gateway.agents.add_cameras(&self.agent, generation, cameras.clone());
                self.more_cameras.extend(cameras);
            }
            ServerEvent::WentOver(limit) => self.gateway.metrics.went_over(&limit),
            ServerEvent::Failed(error) => {
                let reason = error.to_string();
                match &error {
                    camagent_proto::Error::Limit { limit, .. } => self.gateway.metrics.breach(limit),
                    camagent_proto::Error::Credit { credit, .. } => self.gateway.metrics.breach(credit),
                    _ => {}
                }
                if matches!(
                    error,
                    camagent_proto::Error::Violation { .. }
                        | camagent_proto::Error::Limit { .. }
                        | camagent_proto::Error::Credit { .. }
                ) {
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
            // As long as over HTTP: what is too much now is so for all who come.
            let retry_after = if code == CloseCode::Overloaded { RETRY_AFTER } else { Duration::ZERO };
            self.protocol.refuse_for(code, reason, retry_after);
        }
    }

    async fn admit(&mut self, register: &Register) -> Result<(), (CloseCode, String)> {
        // Before anything waits for the database: what it takes would count as the agent's clock.
        let arrived_us = i64::try_from(self.gateway.clock.monotonic_us()).unwrap_or(i64::MAX);
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
        let now_us = self.gateway.clock.utc_us();
        for camera in &register.cameras {
            self.claim(&camera.id).await?;
            if let Err(trouble) = self.gateway.store.claim_camera(&camera.id, &self.agent, now_us).await {
                self.gateway.disk_trouble("the owner of a camera", &trouble);
            }
        }
        self.notes.insert(Notes::begin(&self.gateway, &self.agent, register.boot_id.0)).seen(now_us);
        let used = self.gateway.store.data(&self.agent, &month(now_us)).await;
        let used = used.unwrap_or_else(|trouble| {
            self.gateway.disk_trouble("what an agent used", &trouble);
            Vec::new()
        });
        let used = u64::try_from(DataRow::total(&used)).unwrap_or(0);
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
        let mut media = Media::new(&self.agent, member.generation, register.boot_id.0, &self.gateway, &member.shown);
        let resume = match &self.gateway.ingest {
            Some(ingest) => ingest.resume(&self.agent, register.boot_id.0, &member.resume),
            None => member.resume.clone(),
        };
        if register.monotonic_us > 0 {
            let monotonic_us = i64::try_from(register.monotonic_us).unwrap_or(i64::MAX);
            media.clock_offset(arrived_us.saturating_sub(monotonic_us));
        }
        self.take_over(register.boot_id.0, member.generation).await;
        let sources = offer_all(&mut media, &register.cameras);
        self.protocol.accept(
            self.now(),
            Accept {
                session_id: self.gateway.berths.session_id(&self.agent, member.generation),
                generation: member.generation,
                sources,
                resume,
                data_used_bytes: used.min(MAX_INTEGER),
                storage_epoch: self.gateway.ingest.as_ref().map(|ingest| ingest.storage_epoch()).unwrap_or_default(),
            },
        );
        self.gateway.metrics.session();
        self.member = Some(member);
        self.media = Some(media);
        Ok(())
    }

    async fn admit_more(&mut self, camera: Camera) {
        if let Err((code, reason)) = self.claim(&camera.id).await {
            self.protocol.refuse(code, reason);
            return;
        }
        if let Some(notes) = &self.notes {
            notes.claimed(&camera.id, self.gateway.clock.utc_us());
        }
        let Some(media) = &mut self.media else { return };
        for state in offer_all(media, std::slice::from_ref(&camera)) {
            self.protocol.set_wanted(state);
        }
    }

    /// Makes a camera the agent's, in memory: who reads the database waits for nobody who writes it. A database that cannot be read is told and
    /// does not stop live video.
    async fn claim(&self, camera: &str) -> Result<(), (CloseCode, String)> {
        let refused = |owner: String| {
            let (agent, camera_id) = (self.agent.clone(), camera.to_owned());
            self.gateway.events.emit(Event::CameraRefused { agent, camera: camera_id, owner });
            Err((CloseCode::Forbidden, format!("camera \"{camera}\" belongs to another agent")))
        };
        match self.gateway.store.camera_owner(camera).await {
            Ok(Some(owner)) if owner != self.agent => return refused(owner),
            Ok(_) => {}
            Err(trouble) => self.gateway.disk_trouble("who owns a camera", &trouble),
        }
        self.gateway.hub.claim(camera, &self.agent).or_else(refused)
    }

    /// Hands the streams over, to the agent's next connection or to the one that has replaced this.
    async fn moor(&mut self) {
        let now = self.now();
        let Some(member) = &mut self.member else { return };
        let mut visits = std::mem::take(&mut self.visits);
        // Who was handed to this connection and not looked at yet goes with the others.
        member.visits.close();
        while let Some(visit) = member.visits.recv().await {
            visits.arrive(visit, now);
        }
        let moored = self.protocol.suspend().filter(|_| visits.count() > 0);
        let moored = moored.map(|streams| Moored { boot: member.boot, streams, visits });
        let shutdown = self.gateway.shutdown.clone();
        self.gateway.berths.leave(&self.agent, member.generation, moored, shutdown);
    }

    /// Takes over what an earlier connection of the agent had: streams of the same run go on, of another run only those who wait.
    async fn take_over(&mut self, boot: [u8; 16], generation: u64) {
        let moored = self.gateway.berths.take(&self.agent, generation, HANDOVER).await;
        let Some(Moored { boot: theirs, streams, visits }) = moored else { return };
        let now = self.now();
        if theirs == boot && self.protocol.resume(streams) {
            tracing::info!(agent = self.agent, visits = visits.count(), "visits go on with the agent's new connection");
            self.visits = visits.resumed(now);
        } else {
            self.visits = visits.begun_anew(now);
        }
    }

    async fn end(mut self, reason: &str) {
        self.moor().await;
        // Viewers should see the source go before the API says that the agent went.
        self.media = None;
        if let Some(member) = self.member.take() {
            self.gateway.agents.leave(&self.agent, member.generation, reason);
        } else {
            tracing::debug!(agent = self.agent, reason, "connection ended before a session");
        }
        if let Some(notes) = self.notes.take() {
            notes.seen(self.gateway.clock.utc_us());
        }
    }
}

/// What the operator set, in the protocol's words.
fn protocol_config(gateway: &Gateway) -> ServerConfig {
    let limits = &gateway.limits;
    let tunnels = TunnelLimits {
        stream_bytes: limits.tunnel_stream_bytes,
        bytes: limits.tunnel_bytes,
        resume_bytes: if gateway.berths.are_open() { RESUME_BYTES } else { 0 },
        ..Limits::default().tunnels
    };
    ServerConfig {
        limits: Limits { frame_bytes: limits.frame_bytes, tracks: limits.tracks, tunnels, ..Limits::default() },
        heartbeat_interval: limits.heartbeat_interval,
        bounds: Bounds {
            register_within: limits.register_timeout,
            grace: limits.heartbeat_grace,
            heartbeats_a_minute: limits.heartbeats_per_minute,
            pings_a_second: limits.pings_per_second,
            tunnels: Tolerance {
                resets: limits.tunnel_resets,
                useless: limits.tunnel_useless,
                empty_data: limits.tunnel_empty_data,
                window: limits.tunnel_window_bytes,
            },
            unknown: limits.unknown,
            cameras: limits.cameras,
            services: limits.services,
            skips_a_second: limits.skips_per_second,
            waiting: limits.waiting_messages,
            held_bytes: limits.connection_bytes,
        },
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

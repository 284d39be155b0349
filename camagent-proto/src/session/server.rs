//! The server's role: one connection of one agent.

use alloc::{collections::VecDeque, format, string::String, vec::Vec};

use bytes::Bytes;

use super::{
    Bounds, Received, Suspended, Transmit,
    arrivals::Arrivals,
    outbox::Outbox,
    streams::{MAX_SESSION, resumes},
};
use crate::{
    error::{CloseCode, Error},
    frame::{Frame, MAX_RECORD, RecordReader},
    message::{
        ARRIVED, Camera, Command, CommandResult, Event, EventAck, Goaway, Heartbeat, HeartbeatAck, KeyFrame, Limits,
        Message, Register, Registered, ResumePoint, SourceState, StreamsPoint, TUNNEL_RESUME, TunnelLimits, check_name,
    },
    mux::{Mux, Pace, StreamEvent, Streams},
    time::{Duration, Instant},
    transfer::{Delivery, EpochKey, Receiver},
    version,
};

/// What holds for every agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// What this server takes.
    pub limits: Limits,
    /// The longest silence that agents are asked for.
    pub heartbeat_interval: Duration,
    /// What this server bears.
    pub bounds: Bounds,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { limits: Limits::default(), heartbeat_interval: Duration::from_secs(30), bounds: Bounds::default() }
    }
}

/// On what terms an agent is welcomed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Names the session in logs. Never used twice, also not by another run of the server, where streams are resumed.
    pub session_id: String,
    /// Counter of this agent's connections.
    pub generation: u64,
    /// Which sources are wanted.
    pub sources: Vec<SourceState>,
    /// Where the tracks of this boot go on.
    pub resume: Vec<ResumePoint>,
    /// What this agent has used in the running month, as far as it was told.
    pub data_used_bytes: u64,
    /// Names the store of recordings; empty without one.
    pub storage_epoch: String,
}

/// What a connection tells its driver.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// An agent wants in: answer with [`Server::accept`] or [`Server::refuse`].
    Register(Register),
    /// More cameras of the agent.
    Cameras(Vec<Camera>),
    /// The agent lives.
    Heartbeat {
        /// What it says.
        heartbeat: Heartbeat,
        /// The server's monotonic clock minus the agent's boot-time clock, in microseconds. On a link that is as fast up as down it is never too
        /// small; it is too large by what this heartbeat was delayed, so the smallest of several is the best.
        /// None when the heartbeat told no time.
        clock_offset_us: Option<i64>,
    },
    /// A command was answered.
    CommandResult(CommandResult),
    /// Something happened at the agent. Keep it, then call [`Server::keep_event`].
    Event(Event),
    /// Media arrived.
    Media(Delivery),
    /// Something happened to a tunnel's stream, see [`Server::tunnels`].
    Stream(StreamEvent),
    /// The agent ends the session because this end went over a limit of the agent's, which it names: one of [`AGENT_LIMITS`], if it is an agent of this
    /// project.
    WentOver(String),
    /// This connection is over. The transport is to be closed after what [`Server::poll_transmit`] still gives.
    Failed(Error),
}

/// The limits and credits of an agent that a server can go over, as an agent names them.
pub const AGENT_LIMITS: &[&str] = &[
    "message octets",
    "record octets",
    "frames in a record",
    "unknown frames and messages",
    "commands in ten seconds",
    "goaway in ten seconds",
    "servers in a goaway",
    "key_frame in ten seconds",
    "source_state in ten seconds",
    "OPEN in ten seconds",
    "OPEN camera",
    "OPEN service",
    "OPEN visitor",
    "RESET_STREAM and STOP_SENDING in ten seconds",
    "frames of tunnels without effect in ten seconds",
    "empty DATA on a stream",
    "MAX_STREAMS",
    "MAX_STREAM_DATA",
    "MAX_DATA",
    "RETURN_STREAM_DATA",
    "pings in ten seconds",
];

#[derive(Debug, PartialEq)]
enum State {
    /// The agent has to register.
    Fresh {
        until: Instant,
    },
    /// The driver has to decide.
    Deciding {
        version: u32,
        tunnels: TunnelLimits,
        resumes: bool,
        wants_arrived: bool,
        streams: Option<StreamsPoint>,
    },
    Established,
    Over,
}

/// Resume points that fit into `registered` beside its sources.
const MOST_POINTS: usize = 256;

/// All points, or those of the newest epochs when they are too many: of the others the agent goes by what was acknowledged.
fn that_fit(mut points: Vec<ResumePoint>) -> Vec<ResumePoint> {
    if points.len() > MOST_POINTS {
        points.sort_unstable_by_key(|point| (point.track, u64::MAX - point.epoch));
        points.dedup_by_key(|point| point.track);
    }
    points
}

/// The server's end of one connection.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    state: State,
    outbox: Outbox,
    events: VecDeque<ServerEvent>,
    receiver: Receiver,
    tunnels: Mux,
    /// The session in which the streams began, when they can survive it.
    streams_of: Option<String>,
    /// Those of an earlier connection, until the agent is welcomed.
    resumed: Option<Suspended>,
    more_cameras: bool,
    cameras: u64,
    /// Octets of what was told of cameras.
    described: u64,
    /// The server's UTC minus its monotonic clock, in microseconds.
    utc_offset_us: i64,
    heard: Instant,
    heartbeat_minute: (u64, u64),
    skips: Pace,
    pings: Pace,
    shortest_round_trip_us: u64,
    unknown: u64,
    received: Received,
    arrivals: Arrivals,
}

impl Server {
    /// A connection that has just come up. `utc_offset_us` is UTC minus the clock of `now`, in microseconds.
    pub fn new(config: ServerConfig, now: Instant, utc_offset_us: i64) -> Self {
        Self {
            state: State::Fresh { until: now + config.bounds.register_within },
            outbox: Outbox::of(config.bounds.waiting),
            config,
            events: VecDeque::new(),
            receiver: Receiver::default(),
            tunnels: Mux::opener(TunnelLimits::default(), TunnelLimits::default(), now),
            streams_of: None,
            resumed: None,
            more_cameras: false,
            cameras: 0,
            described: 0,
            utc_offset_us,
            heard: now,
            heartbeat_minute: (0, 0),
            skips: Pace::default(),
            pings: Pace::default(),
            shortest_round_trip_us: u64::MAX,
            unknown: 0,
            received: Received::default(),
            arrivals: Arrivals::default(),
        }
    }

    /// Whether the agent was welcomed and the connection is not over.
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Where the agent's tracks stand, for its next session in the same boot.
    pub fn resume_points(&self) -> Vec<ResumePoint> {
        self.receiver.points()
    }

    /// Frames that came a second time and were dropped.
    pub fn duplicates(&self) -> u64 {
        self.receiver.duplicates()
    }

    /// What came since this was last asked.
    pub fn take_received(&mut self) -> Received {
        core::mem::take(&mut self.received)
    }

    /// Octets that are held for this connection now: see [`Bounds::held_bytes`].
    pub fn held_octets(&self) -> u64 {
        let tunnels = self.tunnels.waiting_octets() + self.tunnels.kept_octets();
        self.receiver.held_octets() + self.outbox.octets() + tunnels + self.described
    }

    /// A text message has come.
    pub fn handle_text(&mut self, now: Instant, text: &str) {
        if self.hears(now) {
            self.received.message(text.len());
            let result = Message::read(text).and_then(|message| match message {
                Some(message) => {
                    if let Message::Register(_) | Message::Cameras(_) = message {
                        self.described += text.len() as u64;
                    }
                    self.message(now, message)
                }
                None => self.count_unknown(1),
            });
            let result = result.and_then(|()| self.check_held());
            self.settle(result);
        }
    }

    /// A binary message has come.
    pub fn handle_binary(&mut self, now: Instant, record: Bytes) {
        if self.hears(now) {
            let result = self.record(now, record).and_then(|()| self.check_held());
            self.settle(result);
        }
    }

    /// A ping or a pong of the WebSocket has come. It is no sign of life: a proxy may have sent it.
    pub fn handle_ping(&mut self, now: Instant) {
        if self.state != State::Over {
            let allowed = self.config.bounds.pings_a_second.saturating_mul(10);
            let result = self.pings.count(now, "pings in ten seconds", allowed);
            self.settle(result);
        }
    }

    /// The time of [`Server::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Fresh { until } if until <= now => {
                let waited_ms = u64::try_from(self.config.bounds.register_within.as_millis()).unwrap_or(u64::MAX);
                self.settle(Err(Error::Silent { awaited: "register", waited_ms }));
            }
            State::Established if self.silent_at() <= now => {
                let waited_ms = u64::try_from(now.saturating_since(self.heard).as_millis()).unwrap_or(u64::MAX);
                self.settle(Err(Error::Silent { awaited: "heartbeat", waited_ms }));
            }
            _ => {}
        }
    }

    /// When [`Server::handle_timeout`] wants to be called, or an acknowledgement is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Fresh { until } => Some(until),
            State::Established => {
                let deadlines = [self.receiver.poll_timeout(), self.arrivals.poll_timeout(), Some(self.silent_at())];
                deadlines.into_iter().flatten().min()
            }
            State::Deciding { .. } | State::Over => None,
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front().or_else(|| self.tunnels.poll_event().map(ServerEvent::Stream))
    }

    /// Whether [`Server::poll_event`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty() || self.tunnels.has_events()
    }

    /// The streams of this session, or of an earlier one that go on with it.
    pub fn tunnels(&mut self) -> &mut Mux {
        &mut self.tunnels
    }

    /// What is to be written next. To be asked only when the transport takes it at once.
    pub fn poll_transmit(&mut self, now: Instant, streams: &mut dyn Streams) -> Option<Transmit> {
        if self.state == State::Established
            && let Some(mut record) = self.receiver.poll_ack(now)
        {
            self.arrivals.tell_beside(now, &mut record);
            self.outbox.record(record.finish());
        }
        if let Some(transmit) = self.outbox.pop() {
            return Some(transmit);
        }
        if self.state != State::Established {
            return None;
        }
        let mut record = self.tunnels.record(MAX_RECORD, MAX_RECORD);
        self.arrivals.tell_due(now, &mut record);
        self.tunnels.fill_control(now, &mut record);
        self.tunnels.fill(&mut record, streams);
        if record.is_empty() {
            self.tunnels.give_back(record);
            return None;
        }
        self.arrivals.tell_beside(now, &mut record);
        let record = record.finish();
        self.tunnels.sent(&record);
        Some(Transmit::Binary(record))
    }

    /// The agent's streams, when they may go on with its next connection; this one has none any more. To be called when the connection is over, or
    /// another one takes its place; there are none when the session was ended on purpose, or because the two ends disagree.
    pub fn suspend(&mut self) -> Option<Suspended> {
        let session = self.streams_of.take()?;
        let empty = Mux::opener(TunnelLimits::default(), TunnelLimits::default(), self.heard);
        let mux = core::mem::replace(&mut self.tunnels, empty);
        mux.received_frames().map(|_| Suspended { session, mux })
    }

    /// Goes on with the streams of an earlier connection of the same boot, before [`Server::accept`]. `false` when the agent does not have these:
    /// then they are over.
    pub fn resume(&mut self, mut suspended: Suspended) -> bool {
        let State::Deciding { streams: Some(point), resumes: true, .. } = &self.state else { return false };
        let resumed = suspended.resume(point);
        self.resumed = Some(suspended).filter(|_| resumed);
        resumed
    }

    /// Welcomes the agent that asked by [`ServerEvent::Register`].
    pub fn accept(&mut self, now: Instant, accept: Accept) {
        let State::Deciding { version, tunnels, resumes, wants_arrived, .. } = self.state else { return };
        let mut streams = None;
        if let Some(suspended) = self.resumed.take() {
            streams = suspended.point();
            self.streams_of = Some(suspended.session);
            self.tunnels = suspended.mux;
        } else {
            let tunnels = Mux::opener(self.config.limits.tunnels, tunnels, now);
            self.tunnels = tunnels.bearing(self.config.bounds.tunnels);
            if resumes && accept.session_id.len() <= MAX_SESSION {
                self.tunnels.keep();
                self.streams_of = Some(accept.session_id.clone());
            }
        }
        let resume = that_fit(accept.resume);
        self.receiver = Receiver::new(self.config.limits, &resume);
        self.arrivals = Arrivals::new(wants_arrived);
        let features = [(TUNNEL_RESUME, resumes), (ARRIVED, wants_arrived)];
        self.state = State::Established;
        self.heard = now;
        let (sources, more_sources) = fitting(accept.sources);
        let interval_ms = u64::try_from(self.config.heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
        self.outbox.message(&Message::Registered(Registered {
            version,
            features: features.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.into()).collect(),
            session_id: accept.session_id,
            generation: accept.generation,
            server_time_ms: self.unix_ms(now),
            heartbeat_interval_ms: interval_ms,
            limits: self.config.limits,
            sources,
            resume,
            data_used_bytes: accept.data_used_bytes,
            storage_epoch: accept.storage_epoch,
            streams,
        }));
        for state in more_sources {
            self.outbox.message(&Message::SourceState(state));
        }
    }

    /// Turns the agent away, or ends an established session.
    pub fn refuse(&mut self, code: CloseCode, detail: String) {
        self.refuse_for(code, detail, Duration::ZERO);
    }

    /// The same, and asks the agent not to come back before so long.
    pub fn refuse_for(&mut self, code: CloseCode, detail: String, retry_after: Duration) {
        if self.state != State::Over {
            let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            self.settle(Err(Error::Refused { code, detail, retry_after_ms }));
        }
    }

    /// Tells how far a track is stored: all frames of the epoch below `next` survive the server's power, or were skipped.
    pub fn persisted(&mut self, now: Instant, track: u32, epoch: u64, next: u64) {
        if self.state == State::Established {
            self.receiver.persisted(now, track, epoch, next);
        }
    }

    /// Tells what the server has of an epoch of a lane, of this run of the agent or a former one: below `received` nothing need be sent, below
    /// `persisted` all is stored or was skipped.
    pub fn known(&mut self, now: Instant, key: &EpochKey, received: u64, persisted: u64) {
        if self.state == State::Established {
            self.receiver.known(now, key, received, persisted);
        }
    }

    /// Sends a command.
    pub fn command(&mut self, command: Command) {
        self.tell(Message::Command(command));
    }

    /// Tells whether a source is wanted.
    pub fn set_wanted(&mut self, state: SourceState) {
        self.tell(Message::SourceState(state));
    }

    /// Asks for a key frame.
    pub fn request_key_frame(&mut self, key_frame: KeyFrame) {
        self.tell(Message::KeyFrame(key_frame));
    }

    /// Says that events up to this one are kept.
    pub fn keep_event(&mut self, sequence: u64) {
        self.tell(Message::EventAck(EventAck { sequence }));
    }

    /// Asks the agent to leave and come back; all that arrived is acknowledged first.
    pub fn goaway(&mut self, goaway: Goaway) {
        if let Some(record) = self.receiver.acknowledge_all() {
            self.outbox.record(record.finish());
        }
        let reason = goaway.reason.clone();
        self.tell(Message::Goaway(goaway));
        self.streams_of = None;
        self.outbox.close(CloseCode::Draining, reason);
        self.state = State::Over;
    }

    fn tell(&mut self, message: Message) {
        if self.state != State::Established {
            return;
        }
        self.outbox.message(&message);
        if self.outbox.is_closing() {
            // The outbox has closed by itself: too much waits already.
            let most = self.config.bounds.waiting as u64;
            self.settle(Err(Error::Limit { limit: "waiting control messages", allowed: most, got: most + 1 }));
        } else {
            let held = self.check_held();
            self.settle(held);
        }
    }

    fn check_held(&self) -> Result<(), Error> {
        let (allowed, got) = (self.config.bounds.held_bytes, self.held_octets());
        if got > allowed && self.state != State::Over {
            return Err(Error::Limit { limit: "octets held for a connection", allowed, got });
        }
        Ok(())
    }

    fn hears(&mut self, now: Instant) -> bool {
        self.heard = now;
        self.state != State::Over
    }

    /// When an agent that says nothing counts as gone: two of its intervals, and some grace.
    fn silent_at(&self) -> Instant {
        self.heard + self.config.heartbeat_interval + self.config.heartbeat_interval + self.config.bounds.grace
    }

    fn unix_ms(&self, now: Instant) -> u64 {
        let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX).saturating_add(self.utc_offset_us);
        u64::try_from(micros / 1_000).unwrap_or(0)
    }

    fn message(&mut self, now: Instant, message: Message) -> Result<(), Error> {
        match (&self.state, message) {
            (State::Fresh { .. }, Message::Register(register)) => self.register(register),
            (State::Fresh { .. }, other) => Err(unexpected("register", &other)),
            (_, Message::Cameras(more)) if self.more_cameras => {
                self.check_cameras(&more.cameras)?;
                self.more_cameras = more.more_cameras;
                self.events.push_back(ServerEvent::Cameras(more.cameras));
                Ok(())
            }
            (State::Established, Message::Heartbeat(heartbeat)) => self.heartbeat(now, heartbeat),
            (State::Established, Message::CommandResult(result)) => {
                self.events.push_back(ServerEvent::CommandResult(result));
                Ok(())
            }
            (State::Established, Message::Event(event)) => {
                self.events.push_back(ServerEvent::Event(event));
                Ok(())
            }
            (_, Message::Error(error)) => {
                if !error.limit.is_empty() {
                    self.events.push_back(ServerEvent::WentOver(error.limit));
                }
                Err(Error::ClosedByPeer { code: error.code, detail: error.detail })
            }
            (_, other) => Err(unexpected("a message of an agent", &other)),
        }
    }

    fn register(&mut self, register: Register) -> Result<(), Error> {
        check_name(&register.agent_id, "register agent_id")?;
        self.check_cameras(&register.cameras)?;
        let version = version::pick(&register.versions).ok_or_else(|| Error::Incompatible {
            supported: format!("{:?}", version::SUPPORTED),
            offered: format!("{:?}", register.versions),
        })?;
        self.more_cameras = register.more_cameras;
        let resumes = register.features.iter().any(|feature| feature == TUNNEL_RESUME)
            && resumes(&register.tunnels)
            && resumes(&self.config.limits.tunnels);
        let wants_arrived = register.features.iter().any(|feature| feature == ARRIVED);
        let streams = register.streams.clone();
        self.state = State::Deciding { version, tunnels: register.tunnels, resumes, wants_arrived, streams };
        self.events.push_back(ServerEvent::Register(register));
        Ok(())
    }

    fn check_cameras(&mut self, cameras: &[Camera]) -> Result<(), Error> {
        let Bounds { cameras: most, services: most_services, .. } = self.config.bounds;
        self.cameras += cameras.len() as u64;
        if self.cameras > most {
            return Err(Error::Limit { limit: "cameras of an agent", allowed: most, got: self.cameras });
        }
        for camera in cameras {
            check_name(&camera.id, "camera id")?;
            for source in &camera.sources {
                check_name(&source.name, "source name")?;
            }
            let got = camera.services.len() as u64;
            if got > most_services {
                return Err(Error::Limit { limit: "services of a camera", allowed: most_services, got });
            }
            for service in &camera.services {
                check_name(&service.name, "service name")?;
            }
        }
        Ok(())
    }

    fn heartbeat(&mut self, now: Instant, heartbeat: Heartbeat) -> Result<(), Error> {
        let minute = now.as_micros() / 60_000_000;
        if self.heartbeat_minute.0 != minute {
            self.heartbeat_minute = (minute, 0);
        }
        self.heartbeat_minute.1 += 1;
        let (allowed, got) = (self.config.bounds.heartbeats_a_minute, self.heartbeat_minute.1);
        if got > allowed {
            return Err(Error::Limit { limit: "heartbeats a minute", allowed, got });
        }
        self.tell(Message::HeartbeatAck(HeartbeatAck {
            sent_us: heartbeat.sent_us,
            server_time_ms: if heartbeat.sent_us == 0 { 0 } else { self.unix_ms(now) },
        }));
        let signed = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
        // The shortest round trip so far: what a single slow one adds must not make the offset too small.
        if heartbeat.round_trip_us > 0 {
            self.shortest_round_trip_us = self.shortest_round_trip_us.min(heartbeat.round_trip_us);
            self.tunnels.set_round_trip(Duration::from_micros(heartbeat.round_trip_us));
        }
        let one_way = if self.shortest_round_trip_us == u64::MAX { 0 } else { self.shortest_round_trip_us / 2 };
        let offset_us = signed(now.as_micros().saturating_sub(one_way)).saturating_sub(signed(heartbeat.sent_us));
        let clock_offset_us = (heartbeat.sent_us > 0).then_some(offset_us);
        self.events.push_back(ServerEvent::Heartbeat { heartbeat, clock_offset_us });
        Ok(())
    }

    fn record(&mut self, now: Instant, record: Bytes) -> Result<(), Error> {
        if self.state != State::Established {
            return Err(Error::Violation { place: "session", expected: "register first", got: "a record".into() });
        }
        let octets = record.len() as u64;
        let mut reader = RecordReader::new(record)?;
        self.arrivals.arrived(now, octets);
        while let Some(frame) = reader.next_frame()? {
            self.received.frame(frame.number(), reader.octets());
            if let Frame::Skip(_) = frame {
                let allowed = self.config.bounds.skips_in_ten_seconds(self.receiver.announced());
                self.skips.count(now, "SKIP in ten seconds", allowed)?;
            }
            if let Some(frame) = self.tunnels.handle(now, frame)?
                && let Some(delivery) = self.receiver.handle(now, frame)?
            {
                self.events.push_back(ServerEvent::Media(delivery));
            }
        }
        self.count_unknown(reader.skipped())
    }

    fn count_unknown(&mut self, count: u64) -> Result<(), Error> {
        self.unknown += count;
        self.received.unknown += count;
        let allowed = self.config.bounds.unknown;
        if self.unknown > allowed {
            return Err(Error::Limit { limit: "unknown frames and messages", allowed, got: self.unknown });
        }
        Ok(())
    }

    fn settle(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            if let Some(record) = self.receiver.acknowledge_all()
                && self.state == State::Established
            {
                self.outbox.record(record.finish());
            }
            match &error {
                Error::ClosedByPeer { .. } => self.outbox.close(error.close_code(), String::new()),
                _ => self.outbox.fail(&error),
            }
            if !error.keeps_streams() {
                self.streams_of = None;
            }
            self.state = State::Over;
            self.events.push_back(ServerEvent::Failed(error));
        }
    }
}

/// `registered` has to stay within its size: the states of more sources follow by themselves.
fn fitting(mut sources: Vec<SourceState>) -> (Vec<SourceState>, Vec<SourceState>) {
    const FIRST: usize = 32;
    let more = sources.split_off(sources.len().min(FIRST));
    (sources, more)
}

fn unexpected(expected: &'static str, got: &Message) -> Error {
    Error::Violation { place: "session", expected, got: got.kind().into() }
}

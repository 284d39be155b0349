//! The agent's role. It outlives its connections: what it knows of tracks, commands and events goes on with the next one.

mod hear;
mod streams;
mod transmit;

use alloc::{collections::VecDeque, format, string::String, vec::Vec};

use bytes::Bytes;

use super::{
    CommandToken, Transmit,
    memory::{Arrival, Commands, Events},
    outbox::Outbox,
};
use crate::{
    error::{CloseCode, Error},
    frame::{Arrived, MAX_RECORD, TrackInfo},
    message::{
        BootId, Camera, Cameras, Command, CommandError, CommandResult, CommandStatus, Event, Goaway, Heartbeat,
        KeyFrame, MAX_INTEGER, MAX_REGISTER, MAX_TEXT, Message, Register, Registered, SourceState, TunnelLimits,
        check_name,
    },
    mux::{Mux, Pace, StreamEvent},
    scheduler::Scheduler,
    stats::Statistics,
    time::{Duration, Instant},
    transfer::{Journal, Sender, TransferCounts},
    version,
};

/// After a heartbeat this long without a single octet from the server, the connection counts as dead.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What an agent tells of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// Its id, the same as in the URL.
    pub agent_id: String,
    /// The token, only when it is to travel in `register` instead of the HTTP header.
    pub token: Option<String>,
    /// Random, new for every run.
    pub boot_id: BootId,
    /// Software and version.
    pub software: String,
    /// The cameras that it serves.
    pub cameras: Vec<Camera>,
    /// Commands that it answers, for people.
    pub capabilities: Vec<String>,
    /// The longest silence.
    pub heartbeat_interval: Duration,
    /// What it takes of tunnels. With `resume_bytes` their streams survive a connection that breaks.
    pub tunnels: TunnelLimits,
    /// For how long they wait for the next one.
    pub keep_streams: Duration,
}

/// What an agent's session tells its driver.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentEvent {
    /// The server has welcomed the agent.
    Registered(Registered),
    /// The server asks for something. Answer with [`Agent::answer`].
    Command(CommandToken, Command),
    /// A source is wanted now, or no longer.
    SourceWanted(SourceState),
    /// A viewer waits for a key frame.
    KeyFrame(KeyFrame),
    /// Frames of this track were left out because they were late: it goes on with its next key frame, and an encoder can be asked for one.
    KeyFrameNeeded(u32),
    /// What the encoder of a track should produce from now on, so that the uplink carries it.
    TargetBitrate {
        /// The track.
        track: u32,
        /// Bits a second; 0: what it was configured for, because the uplink is wide enough again.
        bits_per_second: u64,
    },
    /// The server asks the agent to leave.
    Goaway(Goaway),
    /// The server ends the session, and wants the agent to come back no sooner.
    RetryAfter(Duration),
    /// All streams that there were are over: the server does not know them any more, or it took too long. Those of
    /// [`AgentEvent::Stream`] after this are new ones.
    StreamsLost,
    /// Something happened to a tunnel's stream, see [`Agent::tunnels`].
    Stream(StreamEvent),
    /// This connection is over. The transport is to be closed, and [`Agent::disconnected`] to be called.
    Failed(Error),
}

/// What a server asks for, in the present session.
#[derive(Debug, Default)]
struct Asked {
    commands: Pace,
    goaways: Pace,
    pings: Pace,
    key_frames: Pace,
    source_states: Pace,
}

#[derive(Debug, PartialEq)]
enum State {
    Disconnected,
    Registering {
        since: Instant,
        until: Instant,
    },
    Established,
    /// The connection failed; the driver has to close it and to call [`Agent::disconnected`].
    Over,
}

/// The agent's end of the protocol.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    state: State,
    outbox: Outbox,
    events_out: VecDeque<AgentEvent>,
    sender: Sender,
    /// The server's store of recordings, once it was named.
    storage_epoch: String,
    tunnels: Mux,
    scheduler: Scheduler,
    /// The session in which the streams began, when they can survive it.
    streams_of: Option<String>,
    /// Until when they wait for a connection, while there is none.
    streams_until: Option<Instant>,
    commands: Commands,
    happenings: Events,
    statistics: Statistics,
    /// They are told with the next heartbeat.
    tells_statistics: bool,
    /// Heartbeats without a time that wait for their answers, and when the last one left.
    bare: (u32, Instant),
    /// The round trip that the server knows; zero when none of this session.
    told_round_trip: Duration,
    record_limit: usize,
    heartbeat_interval: Duration,
    /// The longest silence that the server wants.
    wanted_interval: Duration,
    heartbeat_at: Instant,
    /// Since when a heartbeat waits for a sign of the server.
    asked_at: Option<Instant>,
    round_trip: Duration,
    /// Whether that was measured on this connection: by another's a server would date what it records.
    measured_here: bool,
    unknown: u64,
    asked: Asked,
    /// Octets of the past that the path takes now, and whether some wait for more room.
    past_room: usize,
    is_past_held: bool,
    /// Octets of the records of this session.
    records: u64,
    /// The newest that the server told of them, once.
    arrived: Option<Arrived>,
    arrived_octets: u64,
}

impl Agent {
    /// A disconnected agent.
    pub fn new(config: AgentConfig) -> Self {
        let sender = Sender::of_run(config.boot_id);
        Self {
            heartbeat_interval: config.heartbeat_interval,
            tunnels: Mux::acceptor(config.tunnels, TunnelLimits::default(), Instant::ZERO),
            scheduler: Scheduler::default(),
            streams_of: None,
            streams_until: None,
            config,
            state: State::Disconnected,
            outbox: Outbox::default(),
            events_out: VecDeque::new(),
            sender,
            storage_epoch: String::new(),
            commands: Commands::default(),
            happenings: Events::default(),
            past_room: usize::MAX,
            is_past_held: false,
            statistics: Statistics::default(),
            tells_statistics: true,
            bare: (0, Instant::ZERO),
            told_round_trip: Duration::ZERO,
            record_limit: MAX_RECORD,
            wanted_interval: Duration::MAX,
            heartbeat_at: Instant::ZERO,
            asked_at: None,
            round_trip: Duration::ZERO,
            measured_here: false,
            unknown: 0,
            asked: Asked::default(),
            records: 0,
            arrived: None,
            arrived_octets: 0,
        }
    }

    /// Whether the server has welcomed the agent on the present connection.
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// The last measured round trip; zero before the first.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Since when a heartbeat waits for its answer, or any other sign of the server.
    pub fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    /// Octets of all records that [`Agent::poll_transmit`] gave in this session.
    pub fn record_octets(&self) -> u64 {
        self.records
    }

    /// How many of them the server has told to have arrived; `None` as long as it has told nothing.
    pub fn arrived_octets(&self) -> Option<u64> {
        (self.arrived_octets > 0).then_some(self.arrived_octets)
    }

    /// What the server told of them since this was last asked.
    pub fn take_arrived(&mut self) -> Option<Arrived> {
        self.arrived.take()
    }

    /// Sends a heartbeat as soon as possible: is the server still there?
    pub fn probe(&mut self, now: Instant) {
        self.heartbeat_at = self.heartbeat_at.min(now);
    }

    /// The longest silence from now on, unless the server wants a shorter one.
    pub fn set_heartbeat_interval(&mut self, interval: Duration) {
        self.config.heartbeat_interval = interval;
        let before = self.heartbeat_interval;
        self.heartbeat_interval = interval.min(self.wanted_interval);
        if self.heartbeat_interval < before {
            // The present silence has begun already.
            let begun = self.heartbeat_at.as_micros().saturating_sub(before.as_micros() as u64);
            self.heartbeat_at = Instant::from_micros(begun) + self.heartbeat_interval;
        }
    }

    /// What the media side has done.
    pub fn transfer_counts(&self) -> TransferCounts {
        self.sender.counts()
    }

    /// The streams. They end with their session, or go on with the next one: see [`AgentEvent::StreamsLost`].
    pub fn tunnels(&mut self) -> &mut Mux {
        &mut self.tunnels
    }

    /// Whether all frames and events were acknowledged.
    pub fn is_settled(&self, journal: &mut dyn Journal) -> bool {
        self.outbox.is_empty() && self.happenings.is_settled() && self.sender.is_settled(journal)
    }

    /// A WebSocket connection is up: registers. The server's welcome has to come before `until`.
    pub fn connected(&mut self, now: Instant, until: Instant) {
        if self.expire_streams(now) {
            self.events_out.push_back(AgentEvent::StreamsLost);
        }
        self.state = State::Registering { since: now, until };
        self.scheduler = Scheduler::default();
        self.outbox = Outbox::default();
        self.asked_at = None;
        self.unknown = 0;
        self.asked = Asked::default();
        (self.records, self.arrived, self.arrived_octets) = (0, None, 0);
        (self.tells_statistics, self.bare, self.told_round_trip) = (true, (0, now), Duration::ZERO);
        self.measured_here = false;
        self.register(now);
    }

    /// The connection is gone, for whatever reason. Whether the streams of tunnels wait for the next one; if not, they are over.
    pub fn disconnected(&mut self, now: Instant) -> bool {
        // What this end has ended on purpose does not go on.
        if self.outbox.is_closing() && self.state == State::Established {
            self.streams_of = None;
        }
        self.state = State::Disconnected;
        self.outbox = Outbox::default();
        self.asked_at = None;
        if self.streams_of.is_some() {
            self.streams_until.get_or_insert(now + self.config.keep_streams);
        }
        if self.tunnels.received_frames().is_none() {
            self.streams_of = None;
        }
        if self.streams_of.is_none() {
            self.drop_streams();
        }
        self.streams_of.is_some()
    }

    /// A text message has come.
    pub fn handle_text(&mut self, now: Instant, text: &str, journal: &mut dyn Journal) {
        if self.hears() {
            // Whatever it says, the server lives.
            self.asked_at = None;
            let result = Message::read(text).and_then(|message| match message {
                Some(message) => self.message(now, message, journal),
                None => self.count_unknown(1),
            });
            self.settle(result);
        }
    }

    /// A binary message has come.
    pub fn handle_binary(&mut self, now: Instant, record: Bytes, journal: &mut dyn Journal) {
        if self.hears() {
            self.asked_at = None;
            let result = self.record(now, record, journal);
            self.settle(result);
        }
    }

    /// A ping or a pong of the WebSocket has come. It is no sign of the server: a proxy may have sent it.
    pub fn handle_ping(&mut self, now: Instant) {
        if self.hears() {
            let result = self.count_ping(now);
            self.settle(result);
        }
    }

    /// The time of [`Agent::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Registering { since, until } if until <= now => {
                self.silent("registered", until.saturating_since(since));
            }
            State::Established => {
                if self.asked_at.is_some_and(|at| at + ANSWER_WITHIN <= now) {
                    return self.silent("answer to a heartbeat", ANSWER_WITHIN);
                }
                if self.heartbeat_at <= now {
                    self.heartbeat(now);
                }
                self.sender.handle_timeout(now);
            }
            _ => {}
        }
    }

    /// Whether [`Agent::handle_timeout`] sends a heartbeat now, and with it what [`Agent::set_statistics`] says: at other times that only waits, and
    /// what is said later takes its place.
    pub fn is_heartbeat_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Established) && self.asked_at.is_none() && self.heartbeat_at <= now
    }

    /// When [`Agent::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Disconnected | State::Over => None,
            State::Registering { until, .. } => Some(until),
            State::Established => {
                let of_heartbeat =
                    self.asked_at.map_or(self.heartbeat_at, |at| self.heartbeat_at.min(at + ANSWER_WITHIN));
                Some(self.sender.backfill_at().map_or(of_heartbeat, |at| at.min(of_heartbeat)))
            }
        }
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        let event = self.events_out.pop_front().or_else(|| self.tunnels.poll_event().map(AgentEvent::Stream));
        let event = event.or_else(|| self.sender.take_key_request().map(AgentEvent::KeyFrameNeeded));
        event.or_else(|| {
            let (track, bits_per_second) = self.sender.take_bitrate()?;
            Some(AgentEvent::TargetBitrate { track, bits_per_second })
        })
    }

    /// A track begins, or a new epoch of it; its frames are read from the journal. A frame that waited for longer than `budget` while there was a
    /// session is left out, with all that cannot be decoded without it.
    pub fn announce_track(&mut self, info: TrackInfo, budget: Option<Duration>) {
        self.sender.announce(info, budget);
    }

    /// The most octets a second that frames of the past may take, 0 for none of them; `None`, as at the start: what the live classes leave.
    pub fn set_backfill_rate(&mut self, rate: Option<u64>) {
        self.sender.set_backfill_rate(rate);
    }

    /// Whether frames of the past wait.
    pub fn set_backfill_paused(&mut self, is_paused: bool) {
        self.sender.set_backfill_paused(is_paused);
    }

    /// Says what came of a command. An error when the command is unknown or was answered before.
    pub fn answer(
        &mut self,
        token: CommandToken,
        outcome: Result<serde_json::Value, CommandError>,
    ) -> Result<(), CommandError> {
        let finished = self.commands.finish(token, |id| match outcome {
            Ok(result) => bounded(CommandResult { id, status: CommandStatus::Ok, result, error: None }),
            Err(error) => bounded(CommandResult {
                id,
                status: CommandStatus::Error,
                result: serde_json::Value::Null,
                error: Some(error),
            }),
        });
        match finished {
            Ok(Some(result)) => {
                if self.is_established() {
                    self.outbox.message(&Message::CommandResult(result));
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(()) => Err(CommandError {
                code: "unknown_command".into(),
                message: "no such command, or it was answered before".into(),
            }),
        }
    }

    /// Tells the server of something that happened, now or as soon as there is a session, until the server has kept it. Refused when it does
    /// not fit into a control message, see [`check_event`].
    pub fn push_event(
        &mut self,
        now: Instant,
        camera: Option<String>,
        kind: &str,
        data: serde_json::Value,
    ) -> Result<(), Error> {
        let event = Event { sequence: 0, camera, kind: kind.into(), time_us: now.as_micros(), data };
        check_event(&event)?;
        self.happenings.push(event);
        Ok(())
    }

    /// The next heartbeat tells these numbers. One for which none were set says no more than that the agent lives; the first of a session
    /// tells them in any case.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.statistics = statistics;
        self.tells_statistics = true;
    }

    /// Leaves: a close goes out after what waits already.
    pub fn close(&mut self, reason: &str) {
        self.outbox.close(CloseCode::Normal, reason.into());
    }

    fn hears(&self) -> bool {
        !matches!(self.state, State::Disconnected | State::Over) && !self.outbox.is_closing()
    }

    fn register(&mut self, now: Instant) {
        let mut register = Register {
            versions: version::SUPPORTED.to_vec(),
            features: self.features(),
            agent_id: self.config.agent_id.clone(),
            token: self.config.token.clone(),
            boot_id: self.config.boot_id,
            software: self.config.software.clone(),
            monotonic_us: now.as_micros(),
            cameras: self.config.cameras.clone(),
            more_cameras: false,
            capabilities: self.config.capabilities.clone(),
            tunnels: self.config.tunnels,
            streams: self.streams_point(),
        };
        let mut text = Message::Register(register.clone()).to_text();
        let mut rest = Vec::new();
        while text.len() > MAX_REGISTER && !register.cameras.is_empty() {
            let keep = register.cameras.len() / 2;
            rest.splice(0..0, register.cameras.split_off(keep));
            register.more_cameras = true;
            text = Message::Register(register.clone()).to_text();
        }
        self.outbox.message(&Message::Register(register));
        while !rest.is_empty() {
            let mut count = rest.len();
            let message = loop {
                let more_cameras = count < rest.len();
                let message = Message::Cameras(Cameras { cameras: rest[..count].to_vec(), more_cameras });
                if count == 1 || message.to_text().len() <= MAX_REGISTER {
                    break message;
                }
                count = count.div_ceil(2);
            };
            self.outbox.message(&message);
            rest.drain(..count);
        }
    }

    fn heartbeat(&mut self, now: Instant) {
        self.heartbeat_at = now + self.heartbeat_interval;
        // While one waits for its answer, more of them only pile up behind it.
        if self.asked_at.is_some() {
            return;
        }
        let tells_statistics = core::mem::take(&mut self.tells_statistics);
        self.statistics.round_trip_us = self.round_trip.as_micros() as u64;
        let round_trip = if self.measured_here { self.round_trip } else { Duration::ZERO };
        let round_trip_us = round_trip.as_micros() as u64;
        // A round trip that is much longer than the server thinks keeps its windows too small.
        let heartbeat = if tells_statistics || round_trip > self.told_round_trip * 2 {
            self.told_round_trip = round_trip;
            let statistics = tells_statistics.then(|| self.statistics.clone());
            Heartbeat { sent_us: now.as_micros(), round_trip_us, statistics }
        } else {
            self.bare = (self.bare.0 + 1, now);
            Heartbeat::default()
        };
        self.outbox.message(&Message::Heartbeat(heartbeat));
        self.asked_at = Some(now);
    }

    fn silent(&mut self, awaited: &'static str, waited: Duration) {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.settle(Err(Error::Silent { awaited, waited_ms }));
    }

    fn settle(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            match &error {
                // The peer knows already.
                Error::ClosedByPeer { .. } => self.outbox.close(error.close_code(), String::new()),
                _ => self.outbox.fail(&error),
            }
            if self.state == State::Established && !error.keeps_streams() {
                self.streams_of = None;
            }
            self.state = State::Over;
            self.events_out.push_back(AgentEvent::Failed(error));
        }
    }
}

/// Whether an event fits into a control message, whatever its number and time will be.
pub fn check_event(event: &Event) -> Result<(), Error> {
    let largest = Event { sequence: MAX_INTEGER, time_us: MAX_INTEGER, ..event.clone() };
    let length = Message::Event(largest).to_text().len();
    if length > MAX_TEXT {
        return Err(Error::Limit { limit: "event octets", allowed: MAX_TEXT as u64, got: length as u64 });
    }
    if let Some(camera) = &event.camera {
        check_name(camera, "event camera")?;
    }
    Ok(())
}

/// A result that fits into a control message, or an error that says that it did not.
fn bounded(result: CommandResult) -> CommandResult {
    let length = Message::CommandResult(result.clone()).to_text().len();
    if length <= MAX_TEXT {
        return result;
    }
    CommandResult {
        id: result.id,
        status: CommandStatus::Error,
        result: serde_json::Value::Null,
        error: Some(CommandError {
            code: "result_too_large".into(),
            message: format!("the answer has {length} octets, at most {MAX_TEXT} fit"),
        }),
    }
}

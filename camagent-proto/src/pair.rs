//! An agent and a server joined in memory: one virtual clock, a link with latency that can be cut, a journal that can be told to evict.
//!
//! For tests only (feature `pair`). [`Pair::drive`] moves time from deadline to deadline, so an hour takes microseconds.

mod backlog;
mod streams;

pub use backlog::{TestBacklog, TestStore};
pub use streams::{Side, TestStreams};

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};

use bytes::Bytes;

use crate::{
    error::{CloseCode, Error, keeps_streams},
    frame::{FrameHead, MAX_RECORD, TrackInfo},
    message::{BootId, ResumePoint, SourceState},
    mux::{MIN_RESUME_BYTES, NotOpened},
    session::{Accept, Agent, AgentConfig, AgentEvent, Server, ServerConfig, ServerEvent, Suspended, Transmit},
    time::{Duration, Instant},
    transfer::{Backlog, Delivery, Entry, Journal},
};

/// A journal in memory that never frees by itself and evicts on request.
#[derive(Debug, Default)]
pub struct TestJournal {
    frames: BTreeMap<(u32, u64, u64), (FrameHead, Bytes)>,
    ends: BTreeMap<(u32, u64), u64>,
    /// What waits on flash.
    pub backlog: TestBacklog,
}

impl TestJournal {
    /// Appends a frame and returns its number.
    pub fn push(&mut self, track: u32, epoch: u64, head: FrameHead, payload: Bytes) -> u64 {
        let end = self.ends.entry((track, epoch)).or_default();
        let sequence = *end;
        *end += 1;
        self.frames.insert((track, epoch, sequence), (head, payload));
        sequence
    }

    /// Forgets the frames of an epoch below `sequence`.
    pub fn evict(&mut self, track: u32, epoch: u64, sequence: u64) {
        self.frames.retain(|&(t, e, s), _| (t, e) != (track, epoch) || s >= sequence);
    }

    /// How many frames it holds.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl Journal for TestJournal {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        let range = (track, epoch, sequence)..=(track, epoch, u64::MAX);
        let (&(_, _, sequence), (head, payload)) = self.frames.range(range).next()?;
        Some(Entry { sequence, head: *head, length: payload.len() as u64 })
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        let mut of_epoch = self.frames.range((track, epoch, 0)..=(track, epoch, u64::MAX)).rev();
        of_epoch.find(|(_, (head, _))| head.key).map(|(&(_, _, sequence), _)| sequence)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        self.ends.get(&(track, epoch)).copied().unwrap_or(0)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let Some((_, payload)) = self.frames.get(&(track, epoch, sequence)) else { return false };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match payload.get(offset..offset.saturating_add(into.len())) {
            Some(octets) => {
                into.copy_from_slice(octets);
                true
            }
            None => false,
        }
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        self.evict(track, epoch, next);
    }

    fn backlog(&mut self) -> Option<&mut dyn Backlog> {
        Some(&mut self.backlog)
    }
}

/// The two ends, the link between them, and what came out of them.
#[derive(Debug)]
pub struct Pair {
    /// The agent.
    pub agent: Agent,
    /// The server's end of the present connection.
    pub server: Option<Server>,
    /// The agent's frames.
    pub journal: TestJournal,
    /// Media that the server delivered, over all connections.
    pub delivered: Vec<Delivery>,
    /// Other events of the server.
    pub server_events: Vec<ServerEvent>,
    /// Events of the agent.
    pub agent_events: Vec<AgentEvent>,
    /// One-way delay of the link.
    pub latency: Duration,
    /// Messages that may be under way to the server; the agent has to wait beyond.
    pub window: usize,
    /// Messages that may be under way to the agent; the server has to wait beyond.
    pub window_back: usize,
    /// What holds for the server's end of the next connection.
    pub server_config: ServerConfig,
    /// The local sides of streams at the server. They end with the connection, unless both ends resume streams.
    pub visitors: TestStreams,
    /// The local sides of streams at the agent. They end with the connection, unless both ends resume streams.
    pub services: TestStreams,
    /// Whether the pair welcomes the agent by itself.
    pub accepts: bool,
    /// Whether the server keeps its resume points and its streams between connections, as one does that was not restarted.
    pub server_remembers: bool,
    /// What the server says of sources when it welcomes the agent.
    pub sources: Vec<SourceState>,
    /// What the server has stored of the past. It survives connections.
    pub store: TestStore,
    now: Instant,
    generation: u64,
    points: Vec<ResumePoint>,
    suspended: Option<Suspended>,
    to_server: VecDeque<(Instant, Transmit)>,
    to_agent: VecDeque<(Instant, Transmit)>,
    agent_takes: u64,
    agent_keeps: u64,
}

impl Pair {
    /// A pair with 20 ms from end to end, not connected yet.
    pub fn new() -> Self {
        Self::with(Self::config())
    }

    /// What the agent of [`Pair::new`] tells of itself: no cameras.
    pub fn config() -> AgentConfig {
        AgentConfig {
            agent_id: "agent".into(),
            token: None,
            boot_id: BootId([7; 16]),
            software: "pair".into(),
            cameras: Vec::new(),
            capabilities: Vec::new(),
            heartbeat_interval: Duration::from_secs(30),
            tunnels: Default::default(),
            keep_streams: Duration::ZERO,
        }
    }

    /// A pair with an agent of your own.
    pub fn with(config: AgentConfig) -> Self {
        Self {
            agent_takes: config.tunnels.bytes,
            // A little goes beyond: credit and the ends of streams, which wait for no acknowledgement.
            // And a quarter of that which is used again.
            agent_keeps: config.tunnels.resume_bytes.max(MIN_RESUME_BYTES) * 5 / 4 + MAX_RECORD as u64,
            agent: Agent::new(config),
            server: None,
            journal: TestJournal::default(),
            delivered: Vec::new(),
            server_events: Vec::new(),
            agent_events: Vec::new(),
            latency: Duration::from_millis(20),
            window: 8,
            window_back: 512,
            server_config: ServerConfig::default(),
            visitors: TestStreams::default(),
            services: TestStreams::default(),
            accepts: true,
            server_remembers: true,
            sources: Vec::new(),
            store: TestStore::default(),
            now: Instant::from_micros(1_000_000),
            generation: 0,
            points: Vec::new(),
            suspended: None,
            to_server: VecDeque::new(),
            to_agent: VecDeque::new(),
        }
    }

    /// The virtual clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A new connection comes up at both ends.
    pub fn connect(&mut self) {
        self.cut();
        self.server = Some(Server::new(self.server_config.clone(), self.now, 0));
        self.agent.connected(self.now, self.now + Duration::from_secs(30));
    }

    /// The connection breaks; what is under way is lost.
    pub fn cut(&mut self) {
        self.cut_behind(0, 0);
    }

    /// The connection breaks; of what is under way so many messages still arrive, the others are lost.
    pub fn cut_behind(&mut self, to_server: usize, to_agent: usize) {
        self.to_server.truncate(to_server);
        self.to_agent.truncate(to_agent);
        while let Some((_, transmit)) = self.to_agent.pop_front() {
            self.agent_hears(transmit);
        }
        while let Some((_, transmit)) = self.to_server.pop_front() {
            self.server_hears(transmit);
        }
        self.collect();
        if let Some(mut server) = self.server.take() {
            if server.is_established() {
                self.points = server.resume_points();
            }
            self.suspended = server.suspend().filter(|_| self.server_remembers).or(self.suspended.take());
        }
        if self.suspended.is_none() {
            self.visitors.sides.clear();
        }
        if !self.agent.disconnected(self.now) {
            self.services.sides.clear();
        }
    }

    /// Announces a track on camera `camera`, source `main`, without a latency budget.
    pub fn track(&mut self, track: u32, epoch: u64) {
        self.track_of("main", track, epoch, 0, None);
    }

    /// Announces a track on camera `camera`; one with a sample rate is audio.
    pub fn track_of(&mut self, source: &str, track: u32, epoch: u64, sample_rate: u32, budget: Option<Duration>) {
        let info = TrackInfo {
            track,
            epoch,
            next: 0,
            camera: "camera".into(),
            source: source.into(),
            codec: if sample_rate == 0 { 1 } else { 17 },
            framing: if sample_rate == 0 { 1 } else { 4 },
            sample_rate,
            channels: u8::from(sample_rate > 0),
            config: Bytes::new(),
        };
        self.agent.announce_track(info, budget);
    }

    /// Pushes a frame whose octets tell its number, so that a mix-up is seen.
    pub fn push(&mut self, track: u32, epoch: u64, length: usize) -> u64 {
        let number = self.journal.end(track, epoch);
        let head = FrameHead { arrival_us: self.now.as_micros(), key: number.is_multiple_of(10), ..Default::default() };
        self.journal.push(track, epoch, head, payload(track, epoch, number, length))
    }

    /// Lets both ends work for `duration` of virtual time.
    pub fn drive(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            self.exchange();
            let next = [
                self.to_server.front().map(|(at, _)| *at),
                self.to_agent.front().map(|(at, _)| *at),
                self.agent.poll_timeout(),
                // What is due already waits for room on the link.
                self.server.as_ref().and_then(Server::poll_timeout).filter(|at| *at > self.now),
            ];
            match next.into_iter().flatten().min() {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = until;
    }

    /// Drives until `done`, at most for `bound`; panics when it never comes, because then the ends do not settle.
    pub fn drive_until(&mut self, bound: Duration, mut done: impl FnMut(&Pair) -> bool) {
        let until = self.now + bound;
        while !done(self) {
            assert!(self.now < until, "not settled within {bound:?}");
            self.drive(Duration::from_millis(1));
        }
    }

    /// A visitor comes to a service of a camera; what it sends, and whether it ends then.
    pub fn visit(&mut self, camera: &str, service: &str, octets: Vec<u8>, ends: bool) -> Result<u64, NotOpened> {
        let Some(server) = &mut self.server else { return Err(NotOpened::Unsupported) };
        let stream = server.tunnels().open(self.now, camera, service, "a visitor")?;
        self.visitors.sides.insert(stream, Side { outgoing: octets, ends, ..Side::default() });
        Ok(stream)
    }

    /// The error that ended the server's end, if one did.
    pub fn server_failure(&self) -> Option<&Error> {
        self.server_events.iter().find_map(|event| match event {
            ServerEvent::Failed(error) => Some(error),
            _ => None,
        })
    }

    /// The error that ended the agent's connection, if one did.
    pub fn agent_failure(&self) -> Option<&Error> {
        self.agent_events.iter().find_map(|event| match event {
            AgentEvent::Failed(error) => Some(error),
            _ => None,
        })
    }

    /// Numbers of the delivered frames of a track and epoch, in the order of their coming; panics on wrong octets.
    pub fn sequences(&self, track: u32, epoch: u64) -> Vec<u64> {
        let frames = self.delivered.iter().filter_map(|delivery| match delivery {
            Delivery::Frame(frame) if (frame.track, frame.epoch) == (track, epoch) => Some(frame),
            _ => None,
        });
        frames
            .map(|frame| {
                let length = frame.payload.len();
                assert_eq!(frame.payload, payload(track, epoch, frame.sequence, length), "octets of another frame");
                frame.sequence
            })
            .collect()
    }

    fn exchange(&mut self) {
        loop {
            let mut busy = false;
            if self.agent.poll_timeout().is_some_and(|at| at <= self.now) {
                self.agent.handle_timeout(self.now);
            }
            if let Some(server) = &mut self.server
                && server.poll_timeout().is_some_and(|at| at <= self.now)
            {
                server.handle_timeout(self.now);
            }
            while let Some((_, transmit)) = self.to_agent.pop_front_if(|(at, _)| *at <= self.now) {
                busy = true;
                self.agent_hears(transmit);
            }
            while let Some((_, transmit)) = self.to_server.pop_front_if(|(at, _)| *at <= self.now) {
                busy = true;
                self.server_hears(transmit);
            }
            self.agent.tunnels().look_again();
            if let Some(server) = &mut self.server {
                server.tunnels().look_again();
            }
            while self.server.is_some()
                && self.to_server.len() < self.window
                && let Some(transmit) =
                    self.agent.poll_transmit(self.now, &mut self.journal, &mut self.services, usize::MAX)
            {
                busy = true;
                self.to_server.push_back((self.now + self.latency, transmit));
            }
            while let Some(server) = &mut self.server
                && self.to_agent.len() < self.window_back
                && let Some(transmit) = server.poll_transmit(self.now, &mut self.visitors)
            {
                busy = true;
                self.to_agent.push_back((self.now + self.latency, transmit));
            }
            busy |= self.collect();
            if !busy {
                return;
            }
        }
    }

    fn agent_hears(&mut self, transmit: Transmit) {
        match transmit {
            Transmit::Text(text) => self.agent.handle_text(self.now, &text, &mut self.journal),
            Transmit::Binary(record) => self.agent.handle_binary(self.now, record, &mut self.journal),
            Transmit::Close(..) => self.cut(),
        }
    }

    fn server_hears(&mut self, transmit: Transmit) {
        let Some(server) = &mut self.server else { return };
        match transmit {
            Transmit::Text(text) => server.handle_text(self.now, &text),
            Transmit::Binary(record) => server.handle_binary(self.now, record),
            Transmit::Close(code, _) => {
                if !keeps_streams(code.number()) {
                    drop(server.suspend());
                }
                self.cut();
            }
        }
    }

    /// Hears all events, and takes all octets of tunnels; whether there were some.
    fn collect(&mut self) -> bool {
        while let Some(event) = self.agent.poll_event() {
            match event {
                AgentEvent::StreamsLost => {
                    self.services.sides.clear();
                    self.agent_events.push(event);
                }
                AgentEvent::Stream(event) => self.services.hear(event, self.agent.tunnels()),
                event => self.agent_events.push(event),
            }
        }
        let kept = self.agent.tunnels().kept_octets();
        assert!(kept <= self.agent_keeps, "the agent keeps {kept} octets, at most {}", self.agent_keeps);
        let held = self.agent.tunnels().waiting_octets();
        assert!(held <= self.agent_takes, "the agent holds {held} octets and takes {}", self.agent_takes);
        let mut is_some = self.services.take(self.agent.tunnels());
        while let Some(server) = &mut self.server
            && let Some(event) = server.poll_event()
        {
            match event {
                ServerEvent::Register(_) if self.accepts => {
                    self.generation += 1;
                    if !self.suspended.take().is_some_and(|suspended| server.resume(suspended)) {
                        self.visitors.sides.clear();
                    }
                    let resume = if self.server_remembers { self.points.clone() } else { Vec::new() };
                    let sources = self.sources.clone();
                    let accept = Accept { generation: self.generation, resume, sources, ..Accept::default() };
                    server.accept(self.now, accept);
                }
                ServerEvent::Media(Delivery::Past(past)) => {
                    let (key, next) = self.store.take(&past);
                    server.known(self.now, &key, next, next);
                }
                ServerEvent::Media(delivery) => self.delivered.push(delivery),
                ServerEvent::Stream(event) => self.visitors.hear(event, server.tunnels()),
                other => self.server_events.push(other),
            }
        }
        if let Some(server) = &mut self.server {
            let (held, most) = (server.tunnels().waiting_octets(), self.server_config.limits.tunnels.bytes);
            assert!(held <= most, "the server holds {held} octets and takes {most}");
            is_some |= self.visitors.take(server.tunnels());
        }
        is_some
    }

    /// Refuses the agent that waits for an answer.
    pub fn refuse(&mut self, code: CloseCode, detail: &str) {
        if let Some(server) = &mut self.server {
            server.refuse(code, String::from(detail));
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

/// Octets that differ for every frame.
fn payload(track: u32, epoch: u64, sequence: u64, length: usize) -> Bytes {
    let seed = sequence.wrapping_mul(31) ^ epoch.wrapping_mul(7) ^ u64::from(track).wrapping_mul(101);
    (0..length).map(|at| (seed.wrapping_add(at as u64) % 251) as u8).collect()
}

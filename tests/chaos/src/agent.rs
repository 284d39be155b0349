//! The agent's end: the real session, sender, intake and journal, with the log between them.
//!
//! What does not belong here: when it is started, what it is connected to (`world`).

use std::{collections::BTreeMap, sync::OnceLock};

use camagent_core::{Config, Frame, Pushed, simulation::Intakes};
use camagent_proto::{
    Instant,
    message::{BootId, Camera, Source},
    session::{Agent, AgentConfig},
    time::Duration,
    transfer::{Entry, Journal},
};

use crate::{
    camera,
    log::{Event, FrameId, Lane, Log, Policy},
    plan::Plan,
    planted::Bug,
};

/// What an agent's clock shows when it begins.
const CLOCK_BEGINS_US: u64 = 3_000_000;
/// Octets of the largest frame: what servers take.
const MAX_FRAME: u64 = 4 << 20;

/// A running agent.
pub struct AgentHost {
    /// Its run, counted from 1.
    pub boot: u32,
    /// The protocol's role.
    pub session: Agent,
    /// The connection that it uses.
    pub connection: Option<u32>,
    started_us: u64,
    budget: Option<Duration>,
    intakes: Intakes,
    /// What the journal may let go of, as far as it is in the log.
    freed: BTreeMap<(u32, u64), u64>,
    /// The epoch that each track is in.
    epochs: BTreeMap<u32, u64>,
}

impl AgentHost {
    /// An agent that has just begun to run.
    pub fn start(plan: &Plan, boot: u32, now_us: u64, log: &mut Log) -> Self {
        static CONFIG: OnceLock<Config> = OnceLock::new();
        let config = CONFIG.get_or_init(|| {
            let text = r#"{"agent":{"agent_id":"gate","cloud_server_url":"ws://h","cloud_server_token":"t"}}"#;
            Config::from_json(text).expect("a good configuration")
        });
        let policy = Policy {
            ram_octets: plan.ram as u64,
            ram_frames: (plan.ram as u64 / 1_024).max(256),
            budget_us: plan.budget_us,
            frame_octets: MAX_FRAME,
        };
        log.note(now_us, Event::AgentStarted { boot, policy });
        let mut id = [0; 16];
        id[..4].copy_from_slice(&boot.to_be_bytes());
        let sources = ["main", "sub"].map(|name| Source { name: name.into(), ..Source::default() });
        let session = Agent::new(AgentConfig {
            agent_id: "gate".into(),
            token: None,
            boot_id: BootId(id),
            software: "chaos".into(),
            cameras: vec![Camera { id: "gate".into(), sources: sources.into(), ..Camera::default() }],
            capabilities: Vec::new(),
            heartbeat_interval: Duration::from_secs(5),
            tunnels: Default::default(),
            keep_streams: Duration::ZERO,
        });
        let intakes = Intakes::new(plan.ram, config).expect("some kilobytes");
        for (number, track) in (0..).zip(&plan.tracks) {
            intakes.set_track(number, &camera::describe(number, track.is_video)).expect("a good track");
        }
        let budget = plan.budget_us.map(Duration::from_micros);
        let mut host = Self {
            boot,
            session,
            connection: None,
            started_us: now_us,
            budget,
            intakes,
            freed: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        host.announce();
        host
    }

    /// The agent's own clock.
    pub fn clock(&self, now_us: u64) -> Instant {
        Instant::from_micros(now_us - self.started_us + CLOCK_BEGINS_US)
    }

    /// When it wants to be called, on the clock of the world.
    pub fn due(&self) -> Option<u64> {
        self.session.poll_timeout().map(|at| (at.as_micros() + self.started_us).saturating_sub(CLOCK_BEGINS_US))
    }

    fn announce(&mut self) {
        for info in self.intakes.take_unannounced() {
            self.epochs.insert(info.track, info.epoch);
            self.session.announce_track(info, self.budget);
        }
    }

    /// The command `restart`: every track begins a new epoch.
    pub fn restart(&mut self) {
        self.intakes.restart();
        self.announce();
    }

    /// Takes a frame of the encoder's; whether it has to make a key frame next.
    pub fn push(&mut self, now_us: u64, track: u32, frame: Frame<'_>, log: &mut Log) -> bool {
        let (octets, disposable, digest) = (frame.data.len() as u64, frame.disposable, camera::digest(frame.data));
        let outcome = self.intakes.push(self.clock(now_us), track, frame);
        match outcome {
            Ok(Pushed::Kept | Pushed::ClockStepped) => {
                let epoch = self.epochs.get(&track).copied().unwrap_or(0);
                let sequence = (&self.intakes).end(track, epoch).saturating_sub(1);
                let key = (&self.intakes).find(track, epoch, sequence).is_some_and(|entry| entry.head.key);
                let frame = FrameId { lane: Lane { boot: self.boot, track, epoch }, sequence };
                log.note(now_us, Event::Pushed { frame, digest, octets, key, disposable });
                false
            }
            // Refused by a rule that the host is told of: it never had a number.
            _ => true,
        }
    }

    /// Tracks that the encoder should begin a new group of.
    pub fn take_key_requests(&mut self) -> Vec<u32> {
        self.intakes.take_key_requests()
    }

    /// The session, and the journal that it reads, which writes the log.
    pub fn parts<'a>(&'a mut self, now_us: u64, bug: Option<Bug>, log: &'a mut Log) -> (&'a mut Agent, Reader<'a>) {
        let Self { session, intakes, freed, boot, .. } = self;
        (session, Reader { intakes, freed, log, now_us, boot: *boot, bug })
    }
}

/// The journal as the sender sees it, with an eye on what it lets go of.
pub struct Reader<'a> {
    intakes: &'a Intakes,
    freed: &'a mut BTreeMap<(u32, u64), u64>,
    log: &'a mut Log,
    now_us: u64,
    boot: u32,
    bug: Option<Bug>,
}

impl Journal for Reader<'_> {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        let entry = self.intakes.find(track, epoch, sequence)?;
        if self.bug == Some(Bug::SkipWithoutReason) && entry.sequence % 41 == 17 {
            return self.intakes.find(track, epoch, entry.sequence + 1);
        }
        Some(entry)
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        self.intakes.newest_key(track, epoch)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        self.intakes.end(track, epoch)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let is_there = self.intakes.copy(track, epoch, sequence, offset, into);
        if self.bug == Some(Bug::FreeOnSent)
            && let Some(entry) = self.intakes.find(track, epoch, sequence)
            && entry.sequence == sequence
            && offset + into.len() as u64 == entry.length
        {
            self.received(track, epoch, sequence + 1);
        }
        is_there
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        let before = self.freed.entry((track, epoch)).or_default();
        if next > *before {
            *before = next;
            let lane = Lane { boot: self.boot, track, epoch };
            self.log.note(self.now_us, Event::Freed { lane, next });
        }
        self.intakes.received(track, epoch, next);
    }
}

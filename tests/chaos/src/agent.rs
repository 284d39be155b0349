//! The agent's end: the real session, sender, intake and journal, with the log between them.
//!
//! What does not belong here: when it is started, what it is connected to (`world`).

use std::{collections::BTreeMap, sync::OnceLock};

use camagent_core::{
    Config, Frame, Pushed, StorageMode,
    simulation::{self, Flash, Storage},
};
use camagent_proto::{
    Instant,
    frame::{SkipReason, TrackInfo},
    message::{BootId, Camera, Retention, Source},
    session::{Agent, AgentConfig},
    time::Duration,
    transfer::{Backlog, Entry, EpochKey, Journal, Look, Waiting},
};

use crate::{
    camera,
    card::Card,
    log::{Event, FrameId, Lane, Log, Policy},
    plan::Plan,
    planted::Bug,
};

/// A time that goes back by more is a step of the camera's clock.
const STEP_US: i64 = 1_000_000;
/// What an agent's clock shows when it begins.
const CLOCK_BEGINS_US: u64 = 3_000_000;
/// The disk thread is looked at so often, whatever it asks for: others wake it.
const LOOK_EVERY_US: u64 = 50_000;
/// Memory is given out in pieces of so many octets, as the reference of `buffer_size` says.
const RAM_PIECE: u64 = 256;
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
    /// When the disk thread is next looked at.
    pub disk_due_us: Option<u64>,
    started_us: u64,
    budget: Option<Duration>,
    storage: Storage,
    /// What the journal may let go of, as far as it is in the log.
    freed: BTreeMap<(u32, u64), u64>,
    /// The epoch that each track is in.
    epochs: BTreeMap<u32, u64>,
    /// By track: the epoch and the time of the last frame that was taken.
    times: BTreeMap<u32, (u64, i64)>,
}

impl AgentHost {
    /// An agent that has just begun to run.
    pub fn start(plan: &Plan, boot: u32, card: &Card, now_us: u64, log: &mut Log) -> Self {
        let config = config(plan.records);
        let policy = Policy {
            ram_octets: (plan.ram as u64).next_multiple_of(RAM_PIECE),
            ram_piece: RAM_PIECE,
            ram_frames: (plan.ram as u64 / 1_024).max(256),
            budget_us: plan.budget_us,
            frame_octets: MAX_FRAME,
            records: plan.records,
            card_octets: plan.card.map(|card| card.octets),
            writes_ahead: plan.card.is_some_and(|card| card.writes_ahead),
        };
        log.note(now_us, Event::AgentStarted { boot, policy });
        let retention = if plan.records { Retention::Record } else { Retention::Live };
        let sources = ["main", "sub"].map(|name| Source { name: name.into(), retention, ..Source::default() });
        let session = Agent::new(AgentConfig {
            agent_id: "gate".into(),
            token: None,
            boot_id: boot_id(boot),
            software: "chaos".into(),
            cameras: vec![Camera { id: "gate".into(), sources: sources.into(), ..Camera::default() }],
            capabilities: Vec::new(),
            heartbeat_interval: Duration::from_secs(5),
            tunnels: Default::default(),
            keep_streams: Duration::ZERO,
        });
        let flash = plan.card.map(|plan| Flash {
            card: Box::new(card.clone()),
            max_bytes: plan.octets,
            mode: if plan.writes_ahead { StorageMode::WriteAhead } else { StorageMode::Spill },
        });
        let storage = Storage::new(plan.ram, config, boot_id(boot), flash).expect("some kilobytes");
        for (number, track) in (0..).zip(&plan.tracks) {
            storage.set_track(number, &camera::describe(number, track.is_video)).expect("a good track");
        }
        let budget = plan.budget_us.map(Duration::from_micros);
        let mut host = Self {
            boot,
            session,
            connection: None,
            disk_due_us: plan.card.map(|_| now_us),
            started_us: now_us,
            budget,
            storage,
            freed: BTreeMap::new(),
            epochs: BTreeMap::new(),
            times: BTreeMap::new(),
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
        for info in self.storage.take_unannounced() {
            self.epochs.insert(info.track, info.epoch);
            self.session.announce_track(info, self.budget);
        }
    }

    /// The command `restart`: every track begins a new epoch.
    pub fn restart(&mut self) {
        self.storage.restart();
        self.announce();
    }

    /// Takes a frame of the encoder's; whether it has to make a key frame next.
    pub fn push(&mut self, now_us: u64, track: u32, frame: Frame<'_>, log: &mut Log) -> bool {
        let (dts_us, is_marked) = (frame.dts_us, frame.discontinuity);
        let (octets, disposable, digest) = (frame.data.len() as u64, frame.disposable, camera::digest(frame.data));
        let number = self.storage.next_number(track);
        let outcome = self.storage.push(self.clock(now_us), track, frame);
        let lane = Lane { boot: self.boot, track, epoch: self.epochs.get(&track).copied().unwrap_or(0) };
        match outcome {
            Ok(Pushed::Kept | Pushed::ClockStepped) => {
                let entry = self.storage.newest(track, lane.epoch);
                let (sequence, key) = entry.map_or((0, false), |entry| (entry.sequence, entry.head.key));
                let frame = FrameId { lane, sequence };
                self.times.insert(track, (lane.epoch, dts_us));
                log.note(now_us, Event::Pushed { frame, digest, octets, key, disposable });
                false
            }
            // Refused by a rule that the host is told of: once the track was running it has a number all the same.
            _ => {
                if self.storage.next_number(track) > number {
                    let last = self.times.get(&track).filter(|(epoch, _)| *epoch == lane.epoch);
                    let back_us = last.map_or(0, |(_, last_us)| last_us - dts_us);
                    let is_early = !is_marked && (1..=STEP_US).contains(&back_us);
                    log.note(now_us, Event::Refused { frame: FrameId { lane, sequence: number }, octets, is_early });
                }
                true
            }
        }
    }

    /// Tracks that the encoder should begin a new group of.
    pub fn take_key_requests(&mut self) -> Vec<u32> {
        self.storage.take_key_requests()
    }

    /// The disk thread looks at what is to be done; whether it has ended.
    pub fn disk_turn(&mut self, now_us: u64) -> bool {
        let Some((is_done, pause)) = self.storage.turn(self.clock(now_us)) else { return true };
        let pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.disk_due_us = Some(now_us + pause_us.clamp(1_000, LOOK_EVERY_US));
        is_done
    }

    /// The session begins.
    pub fn welcomed(&mut self, now_us: u64, server_time_ms: u64) {
        self.storage.set_clock(self.clock(now_us).as_micros(), server_time_ms.saturating_mul(1_000));
        self.disk_due_us = self.disk_due_us.map(|_| now_us);
    }

    /// The connection is gone.
    pub fn left(&mut self, now_us: u64) {
        self.storage.set_connected(false);
        self.session.disconnected(self.clock(now_us));
        self.connection = None;
    }

    /// Whether nothing waits on the card for the server.
    pub fn is_card_empty(&self) -> bool {
        self.storage.is_card_empty()
    }

    /// A planned stop: what memory has is written to the card.
    pub fn stop(&mut self, now_us: u64) {
        self.storage.stop();
        for _ in 0..1_000 {
            if self.disk_turn(now_us) {
                break;
            }
        }
    }

    /// The session, and the journal that it reads, which writes the log.
    pub fn parts<'a>(&'a mut self, now_us: u64, bug: Option<Bug>, log: &'a mut Log) -> (&'a mut Agent, Reader<'a>) {
        let Self { session, storage, freed, boot, .. } = self;
        (session, Reader { tiers: storage.reader(), freed, log, now_us, boot: *boot, bug })
    }
}

/// The id of a run.
pub fn boot_id(boot: u32) -> BootId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&boot.to_be_bytes());
    BootId(id)
}

/// The run of an id.
pub fn boot_of(id: &BootId) -> u32 {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]])
}

fn config(records: bool) -> &'static Config {
    static CONFIGS: OnceLock<[Config; 2]> = OnceLock::new();
    let configs = CONFIGS.get_or_init(|| {
        ["live", "record"].map(|retention| {
            let source = format!(r#"{{"retention":"{retention}"}}"#);
            let text = format!(
                r#"{{"agent":{{"agent_id":"gate","cloud_server_url":"ws://h","cloud_server_token":"t"}},
                "streaming":{{"sources":{{"main":{source},"sub":{source}}}}}}}"#
            );
            Config::from_json(&text).expect("a good configuration")
        })
    });
    &configs[usize::from(records)]
}

/// The journal as the sender sees it, with an eye on what it lets go of.
pub struct Reader<'a> {
    tiers: simulation::Reader<'a>,
    freed: &'a mut BTreeMap<(u32, u64), u64>,
    log: &'a mut Log,
    now_us: u64,
    boot: u32,
    bug: Option<Bug>,
}

impl Journal for Reader<'_> {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        let entry = self.tiers.find(track, epoch, sequence)?;
        if self.bug == Some(Bug::SkipWithoutReason) && entry.sequence % 41 == 17 {
            return self.tiers.find(track, epoch, entry.sequence + 1);
        }
        Some(entry)
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        self.tiers.newest_key(track, epoch)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        self.tiers.end(track, epoch)
    }

    fn missing(&mut self, track: u32, epoch: u64, number: u64) -> (SkipReason, u64) {
        self.tiers.missing(track, epoch, number)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let is_there = self.tiers.copy(track, epoch, sequence, offset, into);
        if self.bug == Some(Bug::FreeOnSent)
            && let Some(entry) = self.tiers.find(track, epoch, sequence)
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
            self.log.note(self.now_us, Event::Freed { lane, next, is_live: true });
        }
        self.tiers.received(track, epoch, next);
    }

    fn live_from(&mut self, track: u32, epoch: u64, next: u64) -> u64 {
        self.tiers.live_from(track, epoch, next)
    }

    fn leave(&mut self, info: &TrackInfo, from: u64, to: u64, is_over: bool) -> bool {
        let takes = self.tiers.leave(info, from, to, is_over);
        let lane = Lane { boot: self.boot, track: info.track, epoch: info.epoch };
        if takes && to > 0 {
            self.log.note(self.now_us, Event::Left { lane, to, is_back: from == to });
        }
        takes
    }

    fn backlog(&mut self) -> Option<&mut dyn Backlog> {
        if self.tiers.backlog().is_some() { Some(self) } else { None }
    }
}

impl Reader<'_> {
    fn shelf(&mut self) -> &mut dyn Backlog {
        self.tiers.backlog().expect("it was asked for when it was there")
    }
}

impl Backlog for Reader<'_> {
    fn generation(&mut self) -> u64 {
        self.shelf().generation()
    }

    fn waiting(&mut self) -> Vec<Waiting> {
        self.shelf().waiting()
    }

    fn look(&mut self) -> Look {
        self.shelf().look()
    }

    fn copy(&mut self, key: &EpochKey, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        self.shelf().copy(key, sequence, offset, into)
    }

    fn pass(&mut self, key: &EpochKey, sequence: u64) {
        self.shelf().pass(key, sequence);
    }

    fn decline(&mut self, key: &EpochKey) {
        self.shelf().decline(key);
    }

    fn hole(&mut self, key: &EpochKey, number: u64) -> Option<(SkipReason, u64)> {
        self.shelf().hole(key, number)
    }

    fn stored(&mut self, key: &EpochKey, next: u64) {
        let lane = Lane { boot: boot_of(&key.boot), track: key.track, epoch: key.epoch };
        self.log.note(self.now_us, Event::Freed { lane, next, is_live: false });
        self.shelf().stored(key, next);
    }

    fn rewind(&mut self, lost: Option<&[(u32, u64)]>) {
        self.shelf().rewind(lost);
    }
}

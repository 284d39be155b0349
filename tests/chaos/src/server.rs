//! The server's end: real sessions, and what the gateway does around them: the newest connection wins, resume points outlive connections.
//!
//! What does not belong here: when it is started or killed, what it is connected to (`world`), where frames are kept (`store`).

use std::collections::BTreeMap;

use bytes::Bytes;
use camagent_proto::{
    CloseCode, Instant,
    frame::{EndReason, Frame, RecordReader, Skip, SkipReason},
    message::{BootId, ResumePoint, Retention, SourceState},
    mux::NoStreams,
    session::{Accept, Server, ServerConfig, ServerEvent, Transmit},
    time::Duration,
    transfer::{Delivery, EpochKey, MediaFrame, Past},
};
use cloud_server::ingest::GapReason;

use crate::{
    agent::{boot_id, boot_of},
    camera,
    link::Heard,
    log::{Event, FrameId, Lane, Log, Reason},
    planted::Bug,
    store::Store,
};

/// What a server's clock shows when it begins.
const CLOCK_BEGINS_US: u64 = 7_000_000;

/// A running server process.
pub struct ServerHost {
    /// Which process, counted from 1.
    pub process: u32,
    /// It is killed right behind so many more frames.
    pub killed_behind: Option<u64>,
    /// UTC minus the clock of the world.
    pub utc_offset_us: i64,
    started_us: u64,
    generation: u64,
    boot: u32,
    points: Vec<ResumePoint>,
    /// The furthest that each track ever was.
    shown: BTreeMap<u32, (u64, u64)>,
    /// Frames that came, for bugs that show now and then.
    count: u64,
}

/// The server's end of one connection.
pub struct Member {
    /// The protocol's role.
    pub session: Server,
    /// The connection.
    pub connection: u32,
    generation: Option<u64>,
    boot: u32,
    /// Where each track's live frames go on: what comes before was shown already.
    shown: BTreeMap<u32, (u64, u64)>,
    /// What the lanes of the past stand for.
    lanes: BTreeMap<u32, Lane>,
    /// The server's clock minus the agent's.
    offset_us: Option<i64>,
    follows: Vec<Follow>,
}

/// Something of which the agent is told how far it is persisted.
struct Follow {
    lane: Lane,
    from: u64,
    told: u64,
    is_past: bool,
}

/// What became of something that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Well,
    /// A newer connection of the agent took over: the others are to leave.
    TookOver,
    /// The process is dead.
    Killed,
}

impl ServerHost {
    /// A process that has just begun to run.
    pub fn start(process: u32, now_us: u64, log: &mut Log) -> Self {
        log.note(now_us, Event::ServerStarted { process });
        Self {
            process,
            killed_behind: None,
            utc_offset_us: 1_763_000_000_000_000,
            started_us: now_us,
            generation: 0,
            boot: 0,
            points: Vec::new(),
            shown: BTreeMap::new(),
            count: 0,
        }
    }

    /// The server's own clock.
    pub fn clock(&self, now_us: u64) -> Instant {
        Instant::from_micros(now_us - self.started_us + CLOCK_BEGINS_US)
    }

    /// The server's time of day.
    pub fn utc_us(&self, now_us: u64) -> i64 {
        now_us as i64 + self.utc_offset_us
    }

    /// A time of the server's clock on that of the world.
    pub fn world(&self, at: Instant) -> u64 {
        (at.as_micros() + self.started_us).saturating_sub(CLOCK_BEGINS_US)
    }

    /// A connection has come up.
    pub fn admit(&self, now_us: u64, connection: u32) -> Member {
        let config = ServerConfig { heartbeat_interval: Duration::from_secs(5), ..ServerConfig::default() };
        // UTC minus this clock.
        let utc_offset_us = self.utc_us(now_us) - self.clock(now_us).as_micros() as i64;
        Member {
            session: Server::new(config, self.clock(now_us), utc_offset_us),
            connection,
            generation: None,
            boot: 0,
            shown: BTreeMap::new(),
            lanes: BTreeMap::new(),
            offset_us: None,
            follows: Vec::new(),
        }
    }

    /// Something came on a connection.
    pub fn hear(
        &mut self,
        now_us: u64,
        member: &mut Member,
        heard: Heard,
        store: &mut Store,
        bug: Option<Bug>,
        log: &mut Log,
    ) -> After {
        let is_fenced = member.generation.is_some_and(|generation| generation != self.generation);
        if is_fenced && bug != Some(Bug::NoFencing) {
            return After::Well;
        }
        let now = self.clock(now_us);
        match heard {
            Heard::Text(text) => member.session.handle_text(now, &text),
            Heard::Binary(record) => member.session.handle_binary(now, record),
            Heard::Close | Heard::End => {}
        }
        let mut after = After::Well;
        while let Some(event) = member.session.poll_event() {
            match event {
                ServerEvent::Register(register) => {
                    let offset = now.as_micros() as i64 - register.monotonic_us as i64;
                    member.offset_us = Some(offset);
                    self.join(now, member, &register.boot_id, store, bug);
                    after = After::TookOver;
                }
                ServerEvent::Heartbeat { clock_offset_us: Some(clock_offset_us), .. } => {
                    member.offset_us = Some(member.offset_us.map_or(clock_offset_us, |best| best.min(clock_offset_us)));
                }
                ServerEvent::Media(delivery) => {
                    self.deliver(now_us, member, delivery, store, bug, log);
                    if self.killed_behind == Some(0) || store.is_dead() {
                        return After::Killed;
                    }
                }
                _ => {}
            }
        }
        if member.generation == Some(self.generation) {
            self.points = member.session.resume_points();
            for point in &self.points {
                let shown = self.shown.entry(point.track).or_default();
                *shown = (point.epoch, point.next).max(*shown);
            }
        }
        after
    }

    fn join(&mut self, now: Instant, member: &mut Member, id: &BootId, store: &mut Store, bug: Option<Bug>) {
        let boot = boot_of(id);
        if boot != self.boot || bug == Some(Bug::ForgetResumePoint) {
            (self.boot, self.points, self.shown) = (boot, Vec::new(), BTreeMap::new());
        }
        if bug == Some(Bug::AckBeforeReceived) {
            self.points.iter_mut().for_each(|point| point.next += 1);
        }
        self.generation += 1;
        (member.generation, member.boot) = (Some(self.generation), boot);
        member.shown = self.shown.clone();
        let resume = store.resume(boot, &self.points);
        let sources = ["main", "sub"].map(|source| SourceState {
            camera: "gate".into(),
            source: source.into(),
            wanted: true,
            retention: match store.records() && bug != Some(Bug::FreeOnReceived) {
                true => Retention::Record,
                false => Retention::Live,
            },
        });
        member.session.accept(
            now,
            Accept {
                session_id: String::new(),
                generation: self.generation,
                sources: sources.into(),
                resume,
                storage_epoch: store.storage_epoch(),
                ..Accept::default()
            },
        );
    }

    fn deliver(
        &mut self,
        now_us: u64,
        member: &mut Member,
        delivery: Delivery,
        store: &mut Store,
        bug: Option<Bug>,
        log: &mut Log,
    ) {
        let boot = member.boot;
        match delivery {
            Delivery::Track(info) => {
                let lane = Lane { boot, track: info.track, epoch: info.epoch };
                log.note(now_us, Event::Announced { connection: member.connection, lane, next: info.next });
                if store.records() {
                    member.follow(lane, info.next, false);
                    store.has_news = true;
                }
                store.announce(now_us, boot, &info);
            }
            Delivery::Frame(frame) => {
                let lane = Lane { boot, track: frame.track, epoch: frame.epoch };
                let is_shown =
                    member.shown.get(&frame.track).is_some_and(|shown| (frame.epoch, frame.sequence) < *shown);
                self.frame(now_us, lane, frame, !is_shown, false, member.offset_us, store, bug, log);
            }
            Delivery::Skip { epoch, skip } => {
                let lane = Lane { boot, track: skip.track, epoch };
                note_skip(now_us, lane, &skip, store, bug, log);
            }
            Delivery::Past(past) => self.past(now_us, member, past, store, bug, log),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a frame, how it came, and where it goes")]
    fn frame(
        &mut self,
        now_us: u64,
        lane: Lane,
        frame: MediaFrame,
        is_shown: bool,
        is_backfill: bool,
        offset_us: Option<i64>,
        store: &mut Store,
        bug: Option<Bug>,
        log: &mut Log,
    ) {
        let id = FrameId { lane, sequence: frame.sequence };
        self.count += 1;
        let payload: Bytes = match bug {
            Some(Bug::OtherOctets) if self.count.is_multiple_of(97) => frame.payload.iter().rev().copied().collect(),
            _ => frame.payload,
        };
        if is_shown {
            let digest = camera::digest(&payload);
            log.note(now_us, Event::Live { process: self.process, frame: id, digest, is_backfill });
        }
        log.note(now_us, Event::Taken { frame: id, is_backfill });
        let server_us = offset_us.map(|offset| frame.head.arrival_us as i64 + offset);
        let late_us = server_us.map_or(0, |at| self.clock(now_us).as_micros() as i64 - at);
        store.take(now_us, id, frame.head, self.utc_us(now_us) - late_us, payload, !is_backfill, bug);
        if let Some(left) = &mut self.killed_behind {
            *left = left.saturating_sub(1);
        }
    }

    /// Something of the past: the recorder takes it, and says what it has.
    fn past(
        &mut self,
        now_us: u64,
        member: &mut Member,
        past: Past,
        store: &mut Store,
        bug: Option<Bug>,
        log: &mut Log,
    ) {
        let of = |key: &EpochKey| Lane { boot: boot_of(&key.boot), track: key.track, epoch: key.epoch };
        match past {
            Past::Opened(journal) => {
                let key = EpochKey { boot: BootId(journal.boot), track: journal.info.track, epoch: journal.info.epoch };
                let lane = of(&key);
                member.lanes.insert(journal.lane, lane);
                store.announce(now_us, lane.boot, &journal.info);
                let persisted = store.persisted_from(lane, journal.info.next);
                member.follow(lane, journal.info.next, true);
                member.session.known(self.clock(now_us), &key, persisted, persisted);
            }
            Past::Frame(key, frame) => {
                let is_shown = bug == Some(Bug::BackfillToLive);
                self.frame(now_us, of(&key), frame, is_shown, true, None, store, bug, log);
            }
            Past::Skip(key, skip) => note_skip(now_us, of(&key), &skip, store, bug, log),
            Past::Ended { key, next, cause } => {
                let by_power = cause == EndReason::PowerCut;
                log.note(now_us, Event::EpochEnded { lane: of(&key), next, by_power });
                store.end(now_us, of(&key), next, cause);
            }
        }
    }
}

fn note_skip(now_us: u64, lane: Lane, skip: &Skip, store: &mut Store, bug: Option<Bug>, log: &mut Log) {
    if bug == Some(Bug::ForgetSkip) {
        return;
    }
    let reason = match skip.reason {
        SkipReason::OverBudget => Reason::OverBudget,
        SkipReason::TooLarge => Reason::TooLarge,
        SkipReason::Live => Reason::Live,
        SkipReason::Late => Reason::Late,
        SkipReason::Disposable => Reason::Disposable,
        SkipReason::Thinned => Reason::Thinned,
        SkipReason::Refused => Reason::Refused,
        SkipReason::Corrupt => Reason::Corrupt,
        other => Reason::Other(other.number()),
    };
    log.note(now_us, Event::Skipped { lane, first: skip.first, last: skip.last, reason });
    store.skip(now_us, lane, skip.first, skip.last, GapReason::skipped(skip.reason));
}

impl Member {
    /// What the server writes next on this connection.
    pub fn transmit(&mut self, now: Instant, now_us: u64, log: &mut Log) -> Option<Transmit> {
        let transmit = self.session.poll_transmit(now, &mut NoStreams)?;
        if let Transmit::Binary(record) = &transmit {
            self.note_acknowledgements(now_us, record.clone(), log);
        }
        Some(transmit)
    }

    /// What could not be stored is wanted again: the next session resumes where it is missing.
    pub fn ask_again(&mut self) {
        if self.generation.is_some() {
            self.session.refuse(CloseCode::Overloaded, "frames that could not be stored are wanted again".into());
        }
    }

    /// Another connection of the agent took over.
    pub fn leave(&mut self) {
        if self.generation.is_some() {
            self.session.refuse(CloseCode::Replaced, "a newer connection took over".into());
        }
    }

    /// Follows what is persisted of a lane from a number on; the same again begins anew there.
    fn follow(&mut self, lane: Lane, from: u64, is_past: bool) {
        self.follows.retain(|follow| (follow.lane, follow.is_past) != (lane, is_past));
        let told = if is_past { from } else { 0 };
        self.follows.push(Follow { lane, from, told, is_past });
    }

    /// What became persisted is told on this connection.
    pub fn tell(&mut self, now: Instant, store: &Store) {
        for follow in &mut self.follows {
            let Follow { lane, from, told, is_past } = follow;
            let next = match is_past {
                true => store.persisted_from(*lane, *from),
                false => store.live_persisted(*lane, *from),
            };
            if next <= *told {
                continue;
            }
            *told = next;
            if *is_past {
                let key = EpochKey { boot: boot_id(lane.boot), track: lane.track, epoch: lane.epoch };
                self.session.known(now, &key, next, next);
            } else {
                self.session.persisted(now, lane.track, lane.epoch, next);
            }
        }
    }

    fn note_acknowledgements(&self, now_us: u64, record: Bytes, log: &mut Log) {
        let mut reader = RecordReader::new(record).expect("the server writes good records");
        while let Some(frame) = reader.next_frame().expect("the server writes good frames") {
            if let Frame::Mack(mack) = frame {
                let own = Lane { boot: self.boot, track: mack.track, epoch: mack.epoch };
                let lane = self.lanes.get(&mack.track).copied().unwrap_or(own);
                let (received, persisted) = (mack.received, mack.persisted);
                log.note(
                    now_us,
                    Event::Acknowledged { connection: self.connection, number: mack.track, lane, received, persisted },
                );
            }
        }
    }
}

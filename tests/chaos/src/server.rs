//! The server's end: real sessions, and what the gateway does around them: the newest connection wins, resume points outlive connections.
//!
//! What does not belong here: when it is started or killed, what it is connected to (`world`), where frames are kept (`store`).

use bytes::Bytes;
use camagent_proto::{
    CloseCode, Instant,
    frame::{Frame, RecordReader, SkipReason},
    message::{BootId, ResumePoint},
    mux::NoStreams,
    session::{Accept, Server, ServerConfig, ServerEvent, Transmit},
    time::Duration,
    transfer::Delivery,
};

use crate::{
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
            count: 0,
        }
    }

    /// The server's own clock.
    pub fn clock(&self, now_us: u64) -> Instant {
        Instant::from_micros(now_us - self.started_us + CLOCK_BEGINS_US)
    }

    /// A time of the server's clock on that of the world.
    pub fn world(&self, at: Instant) -> u64 {
        (at.as_micros() + self.started_us).saturating_sub(CLOCK_BEGINS_US)
    }

    /// A connection has come up.
    pub fn admit(&self, now_us: u64, connection: u32) -> Member {
        let config = ServerConfig { heartbeat_interval: Duration::from_secs(5), ..ServerConfig::default() };
        Member { session: Server::new(config, self.clock(now_us), 0), connection, generation: None, boot: 0 }
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
                    self.join(now, member, register.boot_id, bug);
                    after = After::TookOver;
                }
                ServerEvent::Media(delivery) => {
                    self.deliver(now_us, member.boot, delivery, store, bug, log);
                    if self.killed_behind == Some(0) {
                        return After::Killed;
                    }
                }
                _ => {}
            }
        }
        if member.generation == Some(self.generation) {
            self.points = member.session.resume_points();
        }
        after
    }

    fn join(&mut self, now: Instant, member: &mut Member, boot: BootId, bug: Option<Bug>) {
        let boot = u32::from_be_bytes([boot.0[0], boot.0[1], boot.0[2], boot.0[3]]);
        if boot != self.boot || bug == Some(Bug::ForgetResumePoint) {
            (self.boot, self.points) = (boot, Vec::new());
        }
        if bug == Some(Bug::AckBeforeReceived) {
            self.points.iter_mut().for_each(|point| point.next += 1);
        }
        self.generation += 1;
        (member.generation, member.boot) = (Some(self.generation), boot);
        let accept = Accept { generation: self.generation, resume: self.points.clone(), ..Accept::default() };
        member.session.accept(now, accept);
    }

    fn deliver(
        &mut self,
        now_us: u64,
        boot: u32,
        delivery: Delivery,
        store: &mut Store,
        bug: Option<Bug>,
        log: &mut Log,
    ) {
        match delivery {
            // Agents here have no flash yet: nothing of the past comes.
            Delivery::Track(_) | Delivery::Past(_) => {}
            Delivery::Frame(frame) => {
                let lane = Lane { boot, track: frame.track, epoch: frame.epoch };
                let id = FrameId { lane, sequence: frame.sequence };
                self.count += 1;
                let payload = match bug {
                    Some(Bug::OtherOctets) if self.count.is_multiple_of(97) => {
                        frame.payload.iter().rev().copied().collect()
                    }
                    _ => frame.payload,
                };
                let digest = camera::digest(&payload);
                log.note(now_us, Event::Live { process: self.process, frame: id, digest, is_backfill: false });
                log.note(now_us, Event::Taken { frame: id });
                store.take(id, payload, bug);
                if let Some(left) = &mut self.killed_behind {
                    *left = left.saturating_sub(1);
                }
            }
            Delivery::Skip { epoch, skip } => {
                let lane = Lane { boot, track: skip.track, epoch };
                let reason = match skip.reason {
                    SkipReason::OverBudget => Reason::OverBudget,
                    SkipReason::TooLarge => Reason::TooLarge,
                    SkipReason::Late => Reason::Late,
                    SkipReason::Disposable => Reason::Disposable,
                    other => Reason::Other(other.number()),
                };
                log.note(now_us, Event::Skipped { lane, first: skip.first, last: skip.last, reason });
            }
        }
    }
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

    /// Another connection of the agent took over.
    pub fn leave(&mut self) {
        if self.generation.is_some() {
            self.session.refuse(CloseCode::Replaced, "a newer connection took over".into());
        }
    }

    fn note_acknowledgements(&self, now_us: u64, record: Bytes, log: &mut Log) {
        let mut reader = RecordReader::new(record).expect("the server writes good records");
        while let Some(frame) = reader.next_frame().expect("the server writes good frames") {
            if let Frame::Mack(mack) = frame {
                let lane = Lane { boot: self.boot, track: mack.track, epoch: mack.epoch };
                let (received, persisted) = (mack.received, mack.persisted);
                log.note(now_us, Event::Acknowledged { connection: self.connection, lane, received, persisted });
            }
        }
    }
}

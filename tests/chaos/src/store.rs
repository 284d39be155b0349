//! Where the server's frames are kept: the real recorder on a simulated disk, and what the ingest's thread does around it.
//!
//! A server that does not record keeps them in memory that outlives its process, each one once: what such a server is for is to pass them on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use camagent_media::{Codec, Framing};
use camagent_proto::{
    frame::{EndReason, FrameHead, TrackInfo},
    message::ResumePoint,
};
use cloud_server::ingest::{
    Flow, Gap, GapReason, Input, Recorder, Settings, Told, TrackKey, disk::Disk as _, segment, standing::Standing,
};

use crate::{
    agent::{boot_id, boot_of},
    camera,
    card::Card,
    log::{Digest, Event, FrameId, Lane, Log},
    planted::Bug,
};

/// Octets that wait while the disk takes nothing; beyond, frames are not recorded.
const QUEUE: usize = 64 << 10;

/// What is known of the frames.
#[derive(Default)]
pub struct Store {
    /// Without recording.
    frames: BTreeMap<FrameId, Vec<Digest>>,
    disk: Option<Card>,
    recorder: Option<Recorder<Card>>,
    flows: BTreeMap<Lane, Arc<Flow>>,
    waiting: VecDeque<Input>,
    waiting_octets: usize,
    /// How the tracks stand, as the recorder told.
    standing: Standing,
    /// Whether there is progress that nobody was told of yet.
    pub has_news: bool,
    /// Whether frames that could not be taken are wanted now.
    pub wants_again: bool,
    /// When it is next looked whether something is to be asked for again.
    ask_us: u64,
}

impl Store {
    /// A store; one that records has a disk.
    pub fn new(disk: Option<Card>) -> Self {
        Self { disk, ..Self::default() }
    }

    /// Whether it records.
    pub fn records(&self) -> bool {
        self.disk.is_some()
    }

    /// A server begins: opens what is on the disk. `false` when the disk does not work.
    pub fn open(&mut self, process: u32, utc_us: i64, now_us: u64, log: &mut Log) -> bool {
        let Some(disk) = self.disk.clone() else { return true };
        let mut new_epoch = [7; 16];
        new_epoch[..4].copy_from_slice(&process.to_be_bytes());
        let remember = Duration::from_secs(90 * 86_400);
        let settings = Settings { segment: Duration::from_secs(10), new_epoch, remember };
        let Ok(recorder) = Recorder::open(disk, settings, utc_us) else { return false };
        self.standing = Standing::new(recorder.all_ranges());
        // What was written down just before the power went nobody had heard of.
        recorder.ledger().gaps().for_each(|gap| note_gap(now_us, &gap, log));
        self.recorder = Some(recorder);
        self.hear(now_us, log);
        true
    }

    /// The process is gone.
    pub fn close(&mut self) {
        self.recorder = None;
        self.flows.clear();
        self.waiting.clear();
        self.standing = Standing::default();
        (self.waiting_octets, self.has_news, self.wants_again) = (0, false, false);
    }

    /// Names the store, as agents are told.
    pub fn storage_epoch(&self) -> String {
        let epoch = self.recorder.as_ref().map(Recorder::storage_epoch);
        epoch.map(|epoch| epoch.iter().map(|octet| format!("{octet:02x}")).collect()).unwrap_or_default()
    }

    /// Where a session of a boot goes on, as the ingest says it.
    pub fn resume(&mut self, boot: u32, received: &[ResumePoint]) -> Vec<ResumePoint> {
        let mut points = received.to_vec();
        if self.records() {
            let is_known = |stored: &ResumePoint| {
                received.iter().any(|own| (own.track, own.epoch) == (stored.track, stored.epoch))
            };
            let stored = self.standing.points("gate", boot_id(boot).0);
            points.extend(stored.into_iter().filter(|stored| !is_known(stored)));
            self.standing.resume("gate", boot_id(boot).0, &mut points);
            self.wants_again = false;
        }
        points
    }

    /// The first number of a lane from `from` on that is not persisted.
    pub fn persisted_from(&self, lane: Lane, from: u64) -> u64 {
        self.standing.persisted_from(&key(lane), from)
    }

    /// Below which number all that came live of a lane is persisted.
    pub fn live_persisted(&self, lane: Lane, from: u64) -> u64 {
        self.standing.live_persisted(&key(lane), from)
    }

    /// Whether nothing waits for the disk.
    pub fn is_idle(&self) -> bool {
        let is_done = |recorder: &Recorder<Card>| {
            !recorder.is_stalled() && !self.standing.has_question(|key, first| recorder.is_readable(key, first))
        };
        self.waiting.is_empty() && self.recorder.as_ref().is_none_or(is_done)
    }

    /// Whether the disk died in the middle of something, and with it whoever used it.
    pub fn is_dead(&self) -> bool {
        self.disk.as_ref().is_some_and(Card::is_dead)
    }

    /// A track was announced.
    pub fn announce(&mut self, now_us: u64, boot: u32, info: &TrackInfo) {
        let lane = Lane { boot, track: info.track, epoch: info.epoch };
        let (Some(codec), Some(framing)) = (Codec::from_number(info.codec), Framing::from_number(info.framing)) else {
            return;
        };
        let flow = Flow {
            key: key(lane),
            camera: info.camera.clone(),
            source: info.source.clone(),
            codec,
            framing,
            sample_rate: info.sample_rate,
            channels: u16::from(info.channels),
            config: info.config.clone(),
        };
        let flow = Arc::new(flow);
        self.flows.insert(lane, Arc::clone(&flow));
        self.offer(now_us, Input::Track { flow, next: info.next });
    }

    /// Takes a frame; `is_live` when it is none of the past.
    #[allow(clippy::too_many_arguments, reason = "a frame, how it came, and what goes wrong")]
    pub fn take(
        &mut self,
        now_us: u64,
        id: FrameId,
        head: FrameHead,
        utc_us: i64,
        payload: Bytes,
        is_live: bool,
        bug: Option<Bug>,
    ) {
        if self.disk.is_none() {
            let copies = self.frames.entry(id).or_default();
            if copies.is_empty() || bug == Some(Bug::DoubleAppend) {
                copies.push(camera::digest(&payload));
            }
            return;
        }
        if bug == Some(Bug::AckBeforeSync) {
            self.standing.persisted(&key(id.lane), id.sequence, id.sequence + 1);
            self.has_news = true;
        } else if is_live {
            self.standing.came(&key(id.lane), id.sequence);
        }
        let Some(flow) = self.flows.get(&id.lane).cloned() else { return };
        self.offer(now_us, Input::Frame { flow, sequence: id.sequence, head, utc_us, payload });
    }

    /// Frames will never come.
    pub fn skip(&mut self, now_us: u64, lane: Lane, first: u64, last: u64, reason: GapReason) {
        if let Some(flow) = self.flows.get(&lane).cloned() {
            self.offer(now_us, Input::Skip { flow, first, last, reason });
        }
    }

    /// An epoch is over.
    pub fn end(&mut self, now_us: u64, lane: Lane, next: u64, cause: EndReason) {
        if let Some(flow) = self.flows.get(&lane).cloned() {
            self.offer(now_us, Input::Ended { flow, next, cause });
        }
    }

    fn offer(&mut self, now_us: u64, input: Input) {
        let Some(recorder) = &mut self.recorder else { return };
        if !recorder.is_stalled() && self.waiting.is_empty() {
            return recorder.handle(now_us, input);
        }
        match &input {
            Input::Frame { flow, sequence, payload, .. } if self.waiting_octets + payload.len() > QUEUE => {
                recorder.handle_lost(flow, *sequence, sequence + 1);
            }
            Input::Frame { payload, .. } => {
                self.waiting_octets += payload.len();
                self.waiting.push_back(input);
            }
            _ => self.waiting.push_back(input),
        }
    }

    /// When it has something to do.
    pub fn due(&self) -> Option<u64> {
        let ask_us = (!self.standing.is_content()).then_some(self.ask_us);
        self.recorder.as_ref()?.poll_timeout().into_iter().chain(ask_us).min()
    }

    /// Does what is due.
    pub fn turn(&mut self, now_us: u64, log: &mut Log) {
        let Some(recorder) = &mut self.recorder else { return };
        if recorder.poll_timeout().is_some_and(|at| at <= now_us) {
            recorder.handle_timeout(now_us);
        }
        while !recorder.is_stalled()
            && let Some(input) = self.waiting.pop_front()
        {
            if let Input::Frame { payload, .. } = &input {
                self.waiting_octets -= payload.len();
            }
            recorder.handle(now_us, input);
        }
        self.hear(now_us, log);
        if self.ask_us <= now_us {
            self.ask_us = now_us + 1_000_000;
            self.ask(now_us);
        }
    }

    /// As the ingest's thread: asks for what could not be taken, once the disk keeps up again.
    fn ask(&mut self, now_us: u64) {
        let Some(recorder) = self.recorder.as_ref().filter(|recorder| !recorder.is_stalled()) else { return };
        if self.waiting_octets <= QUEUE / 2 {
            self.wants_again |= !self.standing.ask(now_us, |key, first| recorder.is_readable(key, first)).is_empty();
        }
    }

    fn hear(&mut self, now_us: u64, log: &mut Log) {
        let (Some(recorder), Some(disk)) = (&mut self.recorder, &self.disk) else { return };
        while let Some(told) = recorder.poll_told() {
            match told {
                // Nobody hears what a process says that has no power.
                _ if disk.is_dead() => {}
                Told::Progress(_) => {}
                Told::Persisted(ranges) => {
                    for (key, first, next) in ranges {
                        self.standing.persisted(&key, first, next);
                    }
                    self.has_news = true;
                }
                Told::Refused { key, first, next, is_readable } => {
                    self.standing.refused(&key, first, next, is_readable);
                }
                Told::Gap(gap, _) => note_gap(now_us, &gap, log),
                Told::Stalled(_) => log.note(now_us, Event::Fault("the recorder cannot write")),
                Told::Resumed => log.note(now_us, Event::Fault("the recorder writes again")),
                Told::SetAside { .. } => log.note(now_us, Event::Fault("the recorder set a file aside")),
                Told::Open(..) | Told::Closed(..) | Told::Ended(..) | Told::Absence(_) => {}
            }
        }
    }

    /// Writes down what is there.
    pub fn list(&mut self, now_us: u64, log: &mut Log) {
        for (&frame, copies) in &self.frames {
            copies.iter().for_each(|&digest| log.note(now_us, Event::Stored { frame, digest }));
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.finish(now_us);
        }
        self.recorder = None;
        let Some(disk) = &mut self.disk else { return };
        for name in disk.list("open").unwrap_or_default() {
            let data = disk.read(&name).unwrap_or_default();
            let mut found = Vec::new();
            let info = segment::scan(&data, |head, part, octets| {
                let mut at = 0;
                let mut samples = part.samples.iter();
                for index in 0..head.frames {
                    let count = head.samples.get(index as usize).copied().unwrap_or(1);
                    let size: usize =
                        samples.by_ref().take(usize::from(count)).map(|sample| sample.size as usize).sum();
                    found.push((head.first + u64::from(index), octets.get(at..at + size).unwrap_or_default().to_vec()));
                    at += size;
                }
            });
            let Ok(info) = info else { continue };
            let lane = lane(&info.head.key);
            let is_video = matches!(info.parameters, camagent_media::Parameters::H264 { .. });
            for (sequence, octets) in found {
                let digest = camera::digest_stored(&octets, is_video);
                log.note(now_us, Event::Stored { frame: FrameId { lane, sequence }, digest });
            }
        }
    }
}

fn note_gap(now_us: u64, gap: &Gap, log: &mut Log) {
    let (first, next, reason) = (gap.first, gap.next, gap.reason.number());
    log.note(now_us, Event::Gap { lane: lane(&gap.key), first, next, reason });
}

fn key(lane: Lane) -> TrackKey {
    TrackKey { agent: "gate".into(), boot: boot_id(lane.boot).0, track: lane.track, epoch: lane.epoch }
}

fn lane(key: &TrackKey) -> Lane {
    Lane { boot: boot_of(&camagent_proto::message::BootId(key.boot)), track: key.track, epoch: key.epoch }
}

//! The media of one agent's session: its sources as publishers of the live row, its clock, and the demand of viewers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use camagent_media::{Codec, Framing};
use camagent_proto::frame::{SkipReason, TrackInfo};
use camagent_proto::message::{BootId, Policy, ResumePoint, Retention, SourceState};
use camagent_proto::transfer::{Delivery, EpochKey, MediaFrame, Past};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Gateway;
use crate::clock::Clock;
use crate::event::{Event, Events};
use crate::ingest::undated::{Dated, Undated};
use crate::ingest::{Flow, GapReason, Ingest, Input, Losses, News, TrackKey, Watched};
use crate::live::timeline::Stamps;
use crate::live::{Hub, PublishedFrame, Publisher, TrackFormat, Want};

/// Changes of demand of one source closer together than this are told as one.
const DEMAND_PACE: Duration = Duration::from_millis(250);
/// Heartbeats whose smallest clock offset holds: delay only ever adds.
const OFFSETS: usize = 8;

/// The sources of one session.
pub(super) struct Media {
    agent: String,
    generation: u64,
    boot: [u8; 16],
    hub: Arc<Hub>,
    events: Arc<Events>,
    clock: Clock,
    ingest: Option<Arc<Ingest>>,
    progress: Option<Arc<Watched>>,
    /// Recorded tracks by number.
    flows: HashMap<u32, Arc<Flow>>,
    /// Where each track's live frames go on: what comes before was shown already, and is only recorded.
    live_from: HashMap<u32, (u64, u64)>,
    /// Recorded epochs of the past, with the clocks of their runs.
    past: HashMap<EpochKey, (Arc<Flow>, (u64, u64))>,
    /// Those of them that have no such clock.
    undated: Undated,
    answers: Vec<(EpochKey, u64)>,
    sources: Vec<Published>,
    /// Source by track number.
    tracks: HashMap<u32, usize>,
    offsets_us: Vec<i64>,
    watchers: JoinSet<()>,
    demand: mpsc::Sender<usize>,
    demanded: mpsc::Receiver<usize>,
    losses: Losses,
}

impl Drop for Media {
    fn drop(&mut self) {
        self.losses.tell_all(&self.events);
        if let Some(ingest) = &self.ingest {
            ingest.agent_left(&self.agent, self.generation, self.clock.utc_us());
        }
    }
}

struct Published {
    camera: String,
    name: String,
    policy: Policy,
    retention: Retention,
    publisher: Publisher,
    want: watch::Receiver<Want>,
    told: Want,
}

/// What the agent is to be told.
pub(super) struct Told {
    pub(super) state: Option<SourceState>,
    pub(super) key_frame: Option<(String, String)>,
}

impl Media {
    pub(super) fn new(agent: &str, generation: u64, boot: [u8; 16], gateway: &Gateway, shown: &[ResumePoint]) -> Self {
        let ingest = gateway.ingest.clone();
        if let Some(ingest) = &ingest {
            ingest.agent_came(agent, generation, gateway.clock.utc_us());
        }
        let (demand, demanded) = mpsc::channel(16);
        Self {
            agent: agent.to_owned(),
            generation,
            boot,
            hub: Arc::clone(&gateway.hub),
            events: Arc::clone(&gateway.events),
            clock: gateway.clock,
            progress: ingest.as_ref().map(|ingest| ingest.watch(agent)),
            ingest,
            flows: HashMap::new(),
            past: HashMap::new(),
            undated: Undated::default(),
            answers: Vec::new(),
            live_from: shown.iter().map(|point| (point.track, (point.epoch, point.next))).collect(),
            sources: Vec::new(),
            tracks: HashMap::new(),
            offsets_us: Vec::new(),
            watchers: JoinSet::new(),
            demand,
            demanded,
            losses: Losses::default(),
        }
    }

    /// Publishes a source and gives its state for the agent. None when the camera is not the agent's, or a newer
    /// connection publishes it.
    pub(super) fn offer(&mut self, camera: &str, name: &str, policy: Policy) -> Option<SourceState> {
        let known = self.sources.iter().position(|source| source.camera == camera && source.name == name);
        let index = match known {
            Some(index) => index,
            None => self.publish(camera, name, policy)?,
        };
        self.sources[index].policy = policy;
        Some(self.sources[index].state())
    }

    fn publish(&mut self, camera: &str, name: &str, policy: Policy) -> Option<usize> {
        let source = self.hub.offer(&self.agent, camera, name)?;
        // Looked at before the source is published: what that asks for is a change already.
        let want = source.demand.watch();
        let told = *want.borrow();
        let (mut watched, demand) = (want.clone(), self.demand.clone());
        // The receiver of this task sees changes from now on; what holds now is told by the state that is returned.
        watched.mark_unchanged();
        let publisher = source.publish(&self.agent, self.generation, self.boot)?;
        let index = self.sources.len();
        self.watchers.spawn(async move {
            while watched.changed().await.is_ok() && demand.send(index).await.is_ok() {
                tokio::time::sleep(DEMAND_PACE).await;
            }
        });
        self.sources.push(Published {
            camera: camera.to_owned(),
            name: name.to_owned(),
            policy,
            retention: match &self.ingest {
                Some(ingest) if ingest.config().records(camera, name) => Retention::Record,
                _ => Retention::Live,
            },
            publisher,
            want,
            told,
        });
        Some(index)
    }

    /// Waits until more is persisted, or something is wanted again. Cancel safe.
    pub(super) fn persisted(&self) -> impl Future<Output = News> + use<> {
        let progress = self.progress.clone();
        async move {
            match progress {
                Some(progress) => progress.changed().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until the demand for a source changes, and says what to tell. Cancel safe.
    pub(super) async fn demand_changed(&mut self) -> Told {
        // The sender is held here as well, so there is no end.
        let index = self.demanded.recv().await.unwrap_or(usize::MAX);
        let Some(source) = self.sources.get_mut(index) else { return Told { state: None, key_frame: None } };
        let want = *source.want.borrow_and_update();
        let told = std::mem::replace(&mut source.told, want);
        let changed = source.policy == Policy::OnDemand && told.wanted != want.wanted;
        let asked = told.key_frame_requests != want.key_frame_requests;
        Told {
            state: changed.then(|| source.state()),
            key_frame: asked.then(|| (source.camera.clone(), source.name.clone())),
        }
    }

    /// A measurement of the server's monotonic clock minus the agent's.
    pub(super) fn clock_offset(&mut self, offset_us: i64) {
        if self.offsets_us.len() >= OFFSETS {
            self.offsets_us.remove(0);
        }
        self.offsets_us.push(offset_us);
    }

    /// Tells of losses that have gathered, when it is time: also when nothing is lost any more.
    pub(super) fn tell_losses(&mut self) {
        if !self.losses.is_empty() {
            self.losses.tell(self.clock.monotonic_us(), &self.events);
        }
    }

    /// Takes what arrived. An error is a claim on what is not the agent's.
    pub(super) fn deliver(&mut self, delivery: Delivery) -> Result<(), String> {
        self.tell_losses();
        match delivery {
            Delivery::Track(info) => self.track(&info),
            Delivery::Frame(frame) => {
                self.frame(frame);
                Ok(())
            }
            Delivery::Past(past) => {
                self.past(past);
                Ok(())
            }
            Delivery::Skip { epoch, skip } => {
                let reason = GapReason::skipped(skip.reason);
                if self.flows.contains_key(&skip.track) {
                    self.record(epoch, skip.track, |flow| Input::Skip {
                        flow,
                        first: skip.first,
                        last: skip.last,
                        reason,
                    });
                } else if let Some(source) = self.tracks.get(&skip.track).map(|source| &self.sources[*source]) {
                    // What is recorded is told by the recorder, which knows what comes after all.
                    self.losses.add(&source.camera, &source.name, reason, skip.last.saturating_add(1) - skip.first);
                    self.tell_losses();
                }
                if skip.reason == SkipReason::Disposable {
                    // Nothing refers to them: what follows can be decoded.
                    return Ok(());
                }
                if let Some(source) = self.tracks.get(&skip.track) {
                    self.sources[*source].publisher.skipped(skip.track);
                }
                Ok(())
            }
        }
    }

    fn track(&mut self, info: &TrackInfo) -> Result<(), String> {
        let (camera, name) = (&info.camera, &info.source);
        let known = self.sources.iter().position(|source| source.camera == *camera && source.name == *name);
        let Some(index) = known.or_else(|| self.publish(camera, name, Policy::Always)) else {
            return Err(format!("camera \"{camera}\" was not registered by this agent, or has too many sources"));
        };
        let refused = |reason: String| {
            let (camera, source) = (camera.clone(), name.clone());
            self.events.emit(Event::FrameRefused { camera, source, reason });
        };
        let (Some(codec), Some(framing)) = (Codec::from_number(info.codec), Framing::from_number(info.framing)) else {
            // A newer agent may carry what this server does not know; the rest of it is served.
            refused(format!(
                "track {}: codec {} in framing {} is not known here",
                info.track, info.codec, info.framing
            ));
            self.tracks.remove(&info.track);
            return Ok(());
        };
        self.flows.remove(&info.track);
        if self.sources[index].retention == Retention::Record {
            let flow = Arc::new(Flow {
                key: TrackKey { agent: self.agent.clone(), boot: self.boot, track: info.track, epoch: info.epoch },
                camera: camera.clone(),
                source: name.clone(),
                codec,
                framing,
                sample_rate: info.sample_rate,
                channels: u16::from(info.channels),
                config: info.config.clone(),
            });
            self.flows.insert(info.track, flow);
            self.record(info.epoch, info.track, |flow| Input::Track { flow, next: info.next });
            if let (Some(progress), Some(flow)) = (&self.progress, self.flows.get(&info.track)) {
                progress.follow(flow.key.clone(), info.next, false);
            }
        }
        let format = TrackFormat {
            codec,
            framing,
            sample_rate: info.sample_rate,
            channels: u16::from(info.channels),
            config: info.config.clone(),
        };
        match self.sources[index].publisher.announce_track(info.track, format) {
            Ok(()) => {
                self.tracks.insert(info.track, index);
            }
            Err(error) => {
                refused(format!("track {}: {error}", info.track));
                self.tracks.remove(&info.track);
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: MediaFrame) {
        let Some(&index) = self.tracks.get(&frame.track) else { return };
        let received_us = self.clock.monotonic_us();
        let now_us = self.clock.utc_us();
        let monotonic = i64::try_from(received_us).unwrap_or(i64::MAX);
        let utc_us = match self.offsets_us.iter().min() {
            Some(offset) => i64::try_from(frame.head.arrival_us)
                .unwrap_or(i64::MAX)
                .saturating_add(*offset)
                .saturating_add(now_us.saturating_sub(monotonic)),
            None => now_us,
        };
        // The viewers first: nothing here waits for the disk, and it must not look as if it did.
        let is_shown = self.live_from.get(&frame.track).is_some_and(|shown| (frame.epoch, frame.sequence) < *shown);
        let payload = frame.payload.clone();
        if !is_shown {
            self.show(index, &frame, received_us, utc_us);
        }
        self.record(frame.epoch, frame.track, |flow| Input::Frame {
            flow,
            sequence: frame.sequence,
            head: frame.head,
            utc_us,
            payload,
        });
    }

    /// No viewer waits for the past: it is recorded, or it was for nothing.
    fn past(&mut self, past: Past) {
        let Some(ingest) = self.ingest.clone() else { return };
        match past {
            Past::Opened(journal) => {
                let info = &journal.info;
                let key = EpochKey { boot: BootId(journal.boot), track: info.track, epoch: info.epoch };
                let is_own = self.hub.offer(&self.agent, &info.camera, &info.source).is_some();
                let (Some(codec), Some(framing)) = (Codec::from_number(info.codec), Framing::from_number(info.framing))
                else {
                    return;
                };
                if !is_own || !ingest.config().records(&info.camera, &info.source) {
                    return;
                }
                let flow = Arc::new(Flow {
                    key: TrackKey {
                        agent: self.agent.clone(),
                        boot: journal.boot,
                        track: info.track,
                        epoch: info.epoch,
                    },
                    camera: info.camera.clone(),
                    source: info.source.clone(),
                    codec,
                    framing,
                    sample_rate: info.sample_rate,
                    channels: u16::from(info.channels),
                    config: info.config.clone(),
                });
                let _ = ingest.offer(Input::Track { flow: Arc::clone(&flow), next: info.next });
                let stored = ingest.persisted_from(&flow.key, info.next);
                if let Some(progress) = &self.progress {
                    progress.follow(flow.key.clone(), info.next, true);
                }
                self.answers.push((key, stored));
                if self.is_undated(journal.boot, journal.utc_us) {
                    let place = ingest.place(&self.agent, journal.boot);
                    self.undated.opened(key, stored.max(info.next), journal.end, place);
                }
                self.past.insert(key, (flow, (journal.clock_us, journal.utc_us)));
            }
            Past::Frame(key, frame) => {
                let Some((_, clock)) = self.past.get(&key) else { return };
                let (monotonic_us, utc_us) = *clock;
                let arrival_us = i64::try_from(frame.head.arrival_us).unwrap_or(i64::MAX);
                let utc_us = match utc_us {
                    0 if self.is_undated(key.boot.0, 0) => {
                        let was_put = self.undated.place(key.boot.0).is_some();
                        let before_us = self.utc_of(0);
                        let dated = self.undated.frame(key, frame, before_us);
                        return self.past_frames(&ingest, key, was_put, dated);
                    }
                    // The run never knew, but it is the present one: what was held until that was known goes first.
                    0 => {
                        self.release(&ingest, key);
                        self.utc_of(arrival_us)
                    }
                    utc_us => {
                        let signed = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
                        arrival_us.saturating_sub(signed(monotonic_us)).saturating_add(signed(utc_us))
                    }
                };
                self.past_frames(&ingest, key, true, vec![(key, frame, utc_us)]);
            }
            Past::Skip(key, skip) => {
                self.release(&ingest, key);
                if let Some((flow, _)) = self.past.get(&key) {
                    let reason = GapReason::skipped(skip.reason);
                    let flow = Arc::clone(flow);
                    let _ = ingest.offer(Input::Skip { flow, first: skip.first, last: skip.last, reason });
                }
            }
            Past::Ended { key, next, cause } => {
                self.release(&ingest, key);
                if let Some((flow, _)) = self.past.get(&key) {
                    let _ = ingest.offer(Input::Ended { flow: Arc::clone(flow), next, cause });
                }
            }
        }
    }

    /// Whether nothing tells when frames of a run were taken: it never knew, and is not the one whose clock this session compared with its own.
    fn is_undated(&self, boot: [u8; 16], utc_us: u64) -> bool {
        utc_us == 0 && (boot != self.boot || self.offsets_us.is_empty())
    }

    /// Frames that wait for others before they are dated wait no longer.
    fn release(&mut self, ingest: &Ingest, key: EpochKey) {
        if self.undated.place(key.boot.0).is_none() {
            let before_us = self.utc_of(0);
            let dated = self.undated.release(key.boot.0, before_us);
            self.past_frames(ingest, key, false, dated);
        }
    }

    fn past_frames(&self, ingest: &Ingest, key: EpochKey, was_put: bool, dated: Vec<Dated>) {
        if let Some(offset_us) = self.undated.place(key.boot.0).filter(|_| !was_put) {
            ingest.put_at(&self.agent, key.boot.0, offset_us);
        }
        for (key, frame, utc_us) in dated {
            if let Some((flow, _)) = self.past.get(&key) {
                let _ = ingest.offer(Input::Frame {
                    flow: Arc::clone(flow),
                    sequence: frame.sequence,
                    head: frame.head,
                    utc_us,
                    payload: frame.payload,
                });
            }
        }
    }

    /// What the agent is to be told of epochs of the past: what of each is stored.
    pub(super) fn take_answers(&mut self) -> Vec<(EpochKey, u64)> {
        std::mem::take(&mut self.answers)
    }

    /// The server's best knowledge of UTC at a moment of the agent's boot-time clock.
    fn utc_of(&self, arrival_us: i64) -> i64 {
        let now_us = self.clock.utc_us();
        let monotonic = i64::try_from(self.clock.monotonic_us()).unwrap_or(i64::MAX);
        match self.offsets_us.iter().min() {
            Some(offset) => arrival_us.saturating_add(*offset).saturating_add(now_us.saturating_sub(monotonic)),
            None => now_us,
        }
    }

    /// Hands something of a recorded track to the ingest.
    fn record(&self, epoch: u64, track: u32, input: impl FnOnce(Arc<Flow>) -> Input) {
        if let Some(ingest) = &self.ingest
            && let Some(flow) = self.flows.get(&track).filter(|flow| flow.key.epoch == epoch)
        {
            // What is withheld is told by the ingest, once, and not for each frame.
            let _ = ingest.offer_live(input(Arc::clone(flow)));
        }
    }

    fn show(&self, index: usize, frame: &MediaFrame, received_us: u64, utc_us: i64) {
        let stamps = Stamps { pts_us: frame.head.pts_us, arrival_us: frame.head.arrival_us, received_us, utc_us };
        self.sources[index].publisher.push(&PublishedFrame {
            track: frame.track,
            stamps,
            discontinuity: frame.head.discontinuity,
            payload: frame.payload.clone(),
        });
    }
}

impl Published {
    fn state(&self) -> SourceState {
        let wanted = match self.policy {
            Policy::Always => true,
            Policy::OnDemand => self.want.borrow().wanted,
            Policy::Off => false,
        };
        SourceState { camera: self.camera.clone(), source: self.name.clone(), wanted, retention: self.retention }
    }
}

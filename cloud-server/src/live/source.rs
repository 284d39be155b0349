//! One source of a camera: tracks on one clock, published by one agent at a time, read by any number of viewers.
//! Generations fence: what comes from an older connection of the agent is ignored. While the agent is away the source
//! keeps its tracks, so that viewers who wait go on with continuing sequence numbers and time stamps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use camagent_media::MediaError;
use tokio::sync::watch;
use tokio::time::Instant;

use super::demand::Demand;
use super::frame_log::FrameLog;
use super::timeline::{Stamps, Timeline};
use super::track::{Track, TrackDescription, TrackFormat};

/// Tracks of one source that are announced one by one are all there after this time.
const SETTLE: Duration = Duration::from_millis(50);
use crate::config::Live;
use crate::event::{Event, Events};

/// Most tracks of a source: interleaved channels are one byte, and nothing real comes near.
const MAX_TRACKS: usize = 16;
/// Trouble with the frames of one source is told no more often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A source.
pub struct Source {
    /// The camera's id.
    pub camera: String,
    /// The source's name: "main", "sub".
    pub name: String,
    /// Who wants it.
    pub demand: Arc<Demand>,
    pub(super) limits: Live,
    pub(super) events: Arc<Events>,
    shared: Mutex<Shared>,
    changed: watch::Sender<()>,
}

pub(super) struct Shared {
    pub(super) tracks: Vec<Track>,
    pub(super) log: FrameLog,
    pub(super) timeline: Timeline,
    /// Grows when players must describe the source anew.
    pub(super) layout: u32,
    /// Grows with each step of the camera's clock.
    pub(super) steps: u32,
    pub(super) viewers: u32,
    pub(super) skips: u32,
    pub(super) offline_since: Option<Instant>,
    pub(super) removed: bool,
    /// When the newest frame came.
    pub(super) newest_at: Instant,
    /// When trouble with frames was last told: a camera that errs in each frame fills no log.
    told_at: Option<Instant>,
    agent: String,
    generation: u64,
    boot: [u8; 16],
    started: bool,
    frames: u64,
    bytes: u64,
}

/// One frame as the gateway hands it over.
#[derive(Clone, Debug)]
pub struct PublishedFrame {
    /// The track's number on the wire.
    pub track: u32,
    /// Its time stamps.
    pub stamps: Stamps,
    /// Frames before this one are missing.
    pub discontinuity: bool,
    /// The bytes as the camera pushed them.
    pub payload: Bytes,
}

/// The right to publish a source; the source is withdrawn when it is dropped.
pub struct Publisher {
    source: Arc<Source>,
    generation: u64,
}

/// What a player must know about a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Presentation {
    /// The tracks by index.
    pub tracks: Vec<TrackDescription>,
    /// Changes when this presentation holds no longer.
    pub layout: u32,
}

/// Why there is no presentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The camera's agent is not connected.
    Offline,
    /// The agent is there but sent nothing that tells the parameters yet.
    NoPicture,
}

/// What the API tells about a source.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are documented where the API serializes them")]
pub struct SourceStatus {
    pub camera: String,
    pub source: String,
    pub agent: String,
    pub online: bool,
    pub viewers: u32,
    pub viewer_skips: u32,
    pub frames: u64,
    pub bytes: u64,
    pub buffered_bytes: usize,
    pub tracks: Vec<TrackStatus>,
}

/// What the API tells about a track.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are documented where the API serializes them")]
pub struct TrackStatus {
    pub codec: &'static str,
    pub rfc6381: Option<String>,
    pub dimensions: Option<(u32, u32)>,
    pub sample_rate: Option<u32>,
    pub channels: Option<u16>,
    pub frames: u64,
}

impl Source {
    /// A source that is in no hub: whoever makes it hands it to its viewers.
    #[must_use]
    pub fn apart(camera: &str, name: &str, limits: Live, events: Arc<Events>) -> Arc<Self> {
        Self::new(camera, name, "", limits, events)
    }

    pub(super) fn new(camera: &str, name: &str, agent: &str, limits: Live, events: Arc<Events>) -> Arc<Self> {
        let keep = limits.max_viewer_lag + Duration::from_secs(1);
        let log = FrameLog::new(limits.buffer_bytes, i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
        Arc::new(Self {
            camera: camera.to_owned(),
            name: name.to_owned(),
            demand: Demand::new(limits.viewer_linger),
            limits,
            events,
            shared: Mutex::new(Shared {
                tracks: Vec::new(),
                log,
                timeline: Timeline::default(),
                layout: 0,
                steps: 0,
                viewers: 0,
                skips: 0,
                offline_since: Some(Instant::now()),
                removed: false,
                newest_at: Instant::now(),
                told_at: None,
                agent: agent.to_owned(),
                generation: 0,
                boot: [0; 16],
                started: false,
                frames: 0,
                bytes: 0,
            }),
            changed: watch::Sender::new(()),
        })
    }

    /// Takes the source over for a generation of its agent's connections. None when a newer one has it.
    #[must_use]
    pub fn publish(self: &Arc<Self>, agent: &str, generation: u64, boot: [u8; 16]) -> Option<Publisher> {
        let mut shared = self.lock();
        if shared.agent == agent && generation < shared.generation {
            return None;
        }
        if shared.agent != agent || shared.boot != boot {
            shared.timeline.rebase();
            shared.log.end_group();
            for track in &mut shared.tracks {
                track.announced = false;
            }
        }
        agent.clone_into(&mut shared.agent);
        shared.generation = generation;
        shared.boot = boot;
        shared.offline_since = None;
        shared.started = false;
        let is_awaited = shared.viewers > 0 && shared.log.newest_key().is_none();
        drop(shared);
        self.wake();
        if is_awaited {
            self.demand.request_key_frame();
        }
        Some(Publisher { source: Arc::clone(self), generation })
    }

    /// What a player must know now, if all of it is known.
    #[must_use]
    pub fn presentation(&self) -> Option<Presentation> {
        let shared = self.lock();
        let complete = shared.tracks.iter().filter(|track| track.announced).all(|track| track.parameters().is_some());
        if complete { shared.presentation() } else { None }
    }

    /// Waits until everything a player must know is known. When the time is over, what is known has to do.
    pub async fn wait_presentation(self: &Arc<Self>, patience: Duration) -> Result<Presentation, Unavailable> {
        let _interest = self.demand.interest();
        let mut changed = self.changed.subscribe();
        let known = async {
            let mut asked = false;
            let (mut has_waited, mut settling) = (false, None);
            loop {
                // Tracks of one source are announced one by one: who waited for the first waits a moment for the others.
                match self.presentation() {
                    Some(presentation) if !has_waited || settling == Some(presentation.tracks.len()) => {
                        return presentation;
                    }
                    Some(presentation) => {
                        settling = Some(presentation.tracks.len());
                        tokio::time::sleep(SETTLE).await;
                        continue;
                    }
                    None => {}
                }
                has_waited = true;
                if !asked && self.lock().offline_since.is_none() {
                    asked = true;
                    self.demand.request_key_frame();
                }
                // The sender lives as long as this source.
                let _ = changed.changed().await;
            }
        };
        if let Ok(presentation) = tokio::time::timeout(patience, known).await {
            return Ok(presentation);
        }
        let shared = self.lock();
        match (shared.presentation(), shared.offline_since) {
            (Some(presentation), None) => Ok(presentation),
            (None, None) => Err(Unavailable::NoPicture),
            (_, Some(_)) => Err(Unavailable::Offline),
        }
    }

    /// True while an agent publishes it.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.lock().offline_since.is_none()
    }

    /// What the API tells.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        let shared = self.lock();
        let tracks = shared.tracks.iter().filter(|track| track.announced).map(|track| {
            let video = track.is_video();
            TrackStatus {
                codec: track.format.codec.name(),
                rfc6381: track.parameters().map(camagent_media::Parameters::rfc6381),
                dimensions: track.parameters().and_then(camagent_media::Parameters::dimensions),
                sample_rate: (!video).then_some(track.format.sample_rate),
                channels: (!video).then_some(track.format.channels),
                frames: track.frames,
            }
        });
        SourceStatus {
            camera: self.camera.clone(),
            source: self.name.clone(),
            agent: shared.agent.clone(),
            online: shared.offline_since.is_none(),
            viewers: shared.viewers,
            viewer_skips: shared.skips,
            frames: shared.frames,
            bytes: shared.bytes,
            buffered_bytes: shared.log.bytes(),
            tracks: tracks.collect(),
        }
    }

    /// The camera is gone for good: its viewers are sent away.
    pub(crate) fn remove(&self) {
        self.lock().removed = true;
        self.wake();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        // Each critical section leaves the state whole, also when a formatter or an allocation panics in it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn wake(&self) {
        self.changed.send_replace(());
    }

    fn withdraw(&self, generation: u64) {
        let mut shared = self.lock();
        if shared.generation != generation || shared.offline_since.is_some() {
            return;
        }
        shared.offline_since = Some(Instant::now());
        drop(shared);
        self.wake();
        self.events.emit(Event::SourceStopped { camera: self.camera.clone(), source: self.name.clone() });
    }
}

impl Shared {
    /// The tracks whose parameters are known; none of them is no presentation.
    fn presentation(&self) -> Option<Presentation> {
        if self.offline_since.is_some() {
            return None;
        }
        let tracks: Vec<_> = self.tracks.iter().filter(|track| track.announced).filter_map(Track::describe).collect();
        (!tracks.is_empty()).then_some(Presentation { tracks, layout: self.layout })
    }

    pub(super) fn has_video(&self) -> bool {
        self.tracks.iter().any(|track| track.announced && track.is_video())
    }
}

impl Publisher {
    /// Announces a track, or again with a new epoch or format. A flow of the same codec goes on where it stopped; another
    /// codec ends the viewers, because RTSP 1.0 cannot tell them.
    pub fn announce_track(&self, number: u32, format: TrackFormat) -> Result<(), MediaError> {
        let mut guard = self.source.lock();
        let shared = &mut *guard;
        if shared.generation != self.generation {
            return Ok(());
        }
        let place = |wanted: &dyn Fn(&Track) -> bool| shared.tracks.iter().position(wanted);
        let same_number = place(&|track| track.announced && track.number == number);
        let same_flow = place(&|track| !track.announced && track.fits(&format));
        let same_kind = place(&|track| !track.announced && track.is_video() == format.codec.is_video());
        match same_number.or(same_flow).or(same_kind) {
            Some(index) if shared.tracks[index].fits(&format) => {
                let is_new_boot = !shared.tracks[index].announced;
                shared.tracks[index].resume(number, format, is_new_boot)?;
            }
            Some(index) => {
                shared.tracks[index] = Track::new(track_index(index), number, format)?;
                shared.layout = shared.layout.wrapping_add(1);
                shared.log.clear();
            }
            None if shared.tracks.len() < MAX_TRACKS => {
                let track = Track::new(track_index(shared.tracks.len()), number, format)?;
                shared.tracks.push(track);
            }
            None => return Ok(()),
        }
        drop(guard);
        self.source.wake();
        Ok(())
    }

    /// Publishes one frame; frames of unknown tracks and of a fenced generation are ignored. A frame that cannot be read
    /// is an event and is left out.
    pub fn push(&self, frame: &PublishedFrame) {
        let source = &*self.source;
        let mut guard = source.lock();
        let shared = &mut *guard;
        if shared.generation != self.generation {
            return;
        }
        let Some(index) = shared.tracks.iter().position(|track| track.announced && track.number == frame.track) else {
            return;
        };
        shared.frames += 1;
        shared.bytes += frame.payload.len() as u64;
        let has_video = shared.has_video();
        // The first frame after a pause, of sound as a rule, must not make the pictures from before it look live again.
        if shared.newest_at.elapsed() > source.limits.max_viewer_lag {
            shared.log.end_group();
        }
        let track = &mut shared.tracks[index];
        if frame.discontinuity {
            track.expect_key();
        }
        let ask_for_key =
            track.is_video() && track.needs_key() && (frame.discontinuity || track.frames.is_multiple_of(50));
        let read = track.read(&frame.payload);
        let placed = shared.timeline.place(index, frame.stamps);
        if placed.stepped {
            shared.steps = shared.steps.wrapping_add(1);
        }
        let mut refused = None;
        match read {
            Ok(Some(read)) => {
                let begins_group = if has_video { track.is_video() && read.key } else { true };
                let packets = track.packetize(&read, placed.media_us, begins_group);
                shared.log.push(packets);
                shared.newest_at = Instant::now();
            }
            Ok(None) if ask_for_key => source.demand.request_key_frame(),
            Ok(None) => {}
            Err(error) => refused = Some(error.to_string()),
        }
        let in_trouble = placed.stepped || refused.is_some();
        let tell = in_trouble && shared.told_at.is_none_or(|told| told.elapsed() > TELL_EVERY);
        if tell {
            shared.told_at = Some(Instant::now());
        }
        let first = !std::mem::replace(&mut shared.started, true);
        let agent = first.then(|| shared.agent.clone());
        drop(guard);
        source.wake();
        let names = || (source.camera.clone(), source.name.clone());
        if let Some(agent) = agent {
            let (camera, source) = names();
            self.source.events.emit(Event::SourceStarted { camera, source, agent });
        }
        if placed.stepped && tell {
            let (camera, source) = names();
            self.source.events.emit(Event::ClockStepped { camera, source });
        }
        if let Some(reason) = refused.filter(|_| tell) {
            let (camera, source) = names();
            self.source.events.emit(Event::FrameRefused { camera, source, reason });
        }
    }

    /// Frames of a track were lost on the way: its next picture must be a key frame.
    pub fn skipped(&self, number: u32) {
        let mut shared = self.source.lock();
        if shared.generation == self.generation {
            shared.tracks.iter_mut().filter(|track| track.number == number).for_each(Track::expect_key);
            let is_waiting = shared.tracks.iter().any(|track| track.number == number && track.needs_key());
            drop(shared);
            if is_waiting {
                self.source.demand.request_key_frame();
            }
        }
    }

    /// The source that is published.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.source.withdraw(self.generation);
    }
}

fn track_index(index: usize) -> u8 {
    u8::try_from(index).expect("a source has at most MAX_TRACKS tracks")
}

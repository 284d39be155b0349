//! Frames that the host pushes: which are taken, with what numbers, and what the host is told.
//!
//! [`Intake`] is shared between the host's encoder threads and the agent's thread. Its lock is held for the copy of one frame or one record at
//! most, never across the network. Taking a frame allocates nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use camagent_media::{Codec, Framing};
use camagent_proto::{
    Instant,
    frame::{FrameHead, SkipReason, TrackInfo},
    message::{Policy, Retention},
    transfer::{self, Entry},
};

use super::{TrackDescription, outage::Outage};
use crate::{
    config::CameraConfig,
    error::Error,
    journal::{Copied, Hole, Journal, Kept, MAX_FRAME, MAX_TRACKS},
};

/// A step back of more than this is the camera's clock being set, not frames out of order.
const CLOCK_STEP_US: i64 = 1_000_000;
/// Epochs that may wait for the agent's thread.
const MAX_UNANNOUNCED: usize = 256;
/// Epochs that are remembered for the flash tier: those that tracks are in, and of the others the newest.
const MAX_EPOCHS: usize = 512;
/// Octets that are copied to flash under the lock at once: some microseconds.
const COPIED_AT_ONCE: usize = 16 << 10;
/// Times that fit on the wire with room to spare: 36 000 years.
const MAX_TIME_US: i64 = 1 << 60;

/// One coded picture or audio unit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame<'a> {
    /// Presentation time in microseconds of the camera's steady clock; any zero. The tracks of a source share the clock.
    pub pts_us: i64,
    /// Decoding time on the same clock, `pts_us` without B pictures.
    pub dts_us: i64,
    /// Decoding can start here. The agent sees key frames of H.264 and H.265 by itself; this is for those that it cannot see.
    pub key: bool,
    /// No other frame refers to this one.
    pub disposable: bool,
    /// The clock jumped, or frames were lost before this one.
    pub discontinuity: bool,
    /// The octets, laid out as the track's framing says.
    pub data: &'a [u8],
}

/// What became of a pushed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pushed {
    /// It is in the journal and will be sent.
    Kept,
    /// It is in the journal; its time went back by more than a second, which is taken as a step of the camera's clock.
    ClockStepped,
    /// Nobody wants this source now; the frame was not kept.
    NotWanted,
    /// Decoding cannot start here; frames are left out until the next key frame.
    WaitKey,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IntakeCounts {
    pub(crate) accepted: u64,
    pub(crate) dropped: u64,
}

/// An epoch of which memory has nothing that is not on flash.
pub(crate) struct SpentEpoch {
    pub(crate) info: TrackInfo,
    /// The number behind the last frame that was written.
    pub(crate) written: u64,
    /// The number behind its last frame.
    pub(crate) end: u64,
    /// The server needs nothing of it below this number.
    pub(crate) freed: u64,
    /// Its numbers that have another reason to be missing than that there was no room.
    pub(crate) holes: Vec<Hole>,
}

/// What a track waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    ForNothing,
    /// The key frame with which it begins, or goes on after nobody wanted it: what comes before is no loss.
    ForFirst,
    /// A key frame, because what others refer to is missing, for this reason. What comes before is missing for the same.
    Since(SkipReason),
}

impl Waits {
    fn first(codec: Codec) -> Self {
        if codec.is_video() { Waits::ForFirst } else { Waits::ForNothing }
    }
}

struct Track {
    info: TrackInfo,
    /// The agent fetches its frames itself: the host has no encoder to ask for anything.
    is_pulled: bool,
    codec: Codec,
    framing: Framing,
    is_wanted: bool,
    /// Another source of its camera is kept instead, until there is a session.
    yields: bool,
    waits: Waits,
    last_dts_us: Option<i64>,
    asks_for_key: bool,
    /// Octets that came while it was wanted.
    octets: u64,
}

/// What a track brings, and what is held of it.
#[derive(Clone, Debug)]
pub(crate) struct Fill {
    /// `camera/source`.
    pub(crate) name: String,
    /// Octets that came so far.
    pub(crate) octets: u64,
    /// Whether it would be kept in a long outage.
    pub(crate) is_kept: bool,
    /// Times of arrival of the oldest and newest frame in memory, in microseconds.
    pub(crate) span: Option<(u64, u64)>,
}

struct State {
    journal: Journal,
    tracks: Box<[Option<Track>]>,
    wanted: HashMap<(String, String), bool>,
    /// Sources that the configuration never uploads, whatever a server wants.
    off: HashSet<(String, String)>,
    outage: Outage,
    counts: IntakeCounts,
    /// Frames that were evicted since the host was told last.
    overflow: u64,
    is_closed: bool,
    /// Epochs that the agent's thread has not announced yet, in the order of their beginning.
    unannounced: Vec<TrackInfo>,
    /// Sources whose frames go to flash.
    stored: HashSet<(String, String)>,
    /// Epochs of theirs by track and number, for whoever copies their frames to flash, and which of them was begun first.
    epochs: BTreeMap<(u32, u64), (u64, TrackInfo)>,
    epochs_begun: u64,
}

/// The way of frames into the journal.
pub(crate) struct Intake {
    state: Mutex<State>,
    /// The host is to be told of something: an encoder asked for a key frame, or the first frame that went since the last call.
    news: AtomicBool,
    first_camera: String,
    /// Tells whoever fetches frames that other sources are wanted now.
    #[cfg(feature = "pull")]
    wanted_changed: tokio::sync::watch::Sender<()>,
}

impl Intake {
    /// Memory of so many octets for the sources of these cameras.
    pub(crate) fn new(buffer_size: usize, cameras: &[CameraConfig], has_card: bool) -> Result<Self, Error> {
        let journal = Journal::new(buffer_size).map_err(|_| Error::Config {
            key: "streaming.buffer_size".into(),
            value: buffer_size.to_string(),
            allowed: "what this machine has memory for".into(),
        })?;
        let sources = || {
            cameras.iter().flat_map(|camera| {
                let key = |name: &String| (camera.id.clone(), name.clone());
                camera.sources.iter().map(move |source| (key(&source.name), source.policy))
            })
        };
        let is_recorded = |(id, name): &(String, String)| {
            let mut of_camera = cameras.iter().filter(|camera| camera.id == *id).flat_map(|camera| &camera.sources);
            of_camera.any(|source| source.name == *name && source.retention == Retention::Record)
        };
        let wanted = sources().map(|(source, policy)| (source, policy == Policy::Always));
        let off = sources().filter(|(_, policy)| *policy == Policy::Off).map(|(source, _)| source);
        let state = State {
            journal,
            tracks: (0..MAX_TRACKS).map(|_| None).collect(),
            wanted: wanted.collect(),
            off: off.collect(),
            outage: Outage::of(cameras, has_card),
            counts: IntakeCounts::default(),
            overflow: 0,
            is_closed: false,
            unannounced: Vec::new(),
            stored: sources().filter(|(source, _)| is_recorded(source)).map(|(source, _)| source).collect(),
            epochs: BTreeMap::new(),
            epochs_begun: 0,
        };
        let first_camera = cameras.first().map(|camera| camera.id.clone()).unwrap_or_default();
        Ok(Self {
            state: Mutex::new(state),
            news: AtomicBool::new(false),
            first_camera,
            #[cfg(feature = "pull")]
            wanted_changed: tokio::sync::watch::Sender::new(()),
        })
    }

    /// Adds a track of the host or changes it; an epoch begins when that is a change.
    pub(crate) fn set_track(&self, number: u32, description: &TrackDescription) -> Result<(), Error> {
        description.check()?;
        let mut state = self.lock();
        if number >= MAX_TRACKS {
            return Err(Error::Usage(format!("track {number}: numbers go from 0 to {}", MAX_TRACKS - 1)));
        }
        if state.tracks[number as usize].as_ref().is_some_and(|track| track.is_pulled) {
            return Err(Error::Usage(format!("track {number} is one that the agent fetches from a camera by itself")));
        }
        self.begin(&mut state, number, description, false)
    }

    /// Adds a track that the agent fetches itself under a free number, or changes the one that it has under `number`.
    #[cfg(feature = "pull")]
    pub(super) fn set_pulled_track(&self, number: Option<u32>, description: &TrackDescription) -> Result<u32, Error> {
        description.check()?;
        let mut state = self.lock();
        let number = match number {
            Some(number) => number,
            None => match state.tracks.iter().position(Option::is_none) {
                Some(free) => free as u32,
                None => return Err(Error::Usage(format!("an agent has at most {MAX_TRACKS} tracks"))),
            },
        };
        self.begin(&mut state, number, description, true)?;
        Ok(number)
    }

    fn begin(
        &self,
        state: &mut State,
        number: u32,
        description: &TrackDescription,
        is_pulled: bool,
    ) -> Result<(), Error> {
        let old = state.tracks[number as usize].as_ref();
        let info = description.info(number, 0, &self.first_camera);
        let epoch = match old {
            Some(old) if (TrackInfo { epoch: 0, ..old.info.clone() }) == info => return Ok(()),
            _ if state.unannounced.len() == MAX_UNANNOUNCED => return Err(Error::Busy),
            // One more would cost the word about frames that the server does not have.
            _ if !state.journal.takes_epoch(number) => return Err(Error::Busy),
            _ => state.journal.next_epoch(number),
        };
        let info = TrackInfo { epoch, ..info };
        let key = (info.camera.clone(), info.source.clone());
        let is_wanted = state.wants(&key).unwrap_or(true);
        state.journal.begin_epoch(number, epoch, description.codec.is_video());
        state.tracks[number as usize] = Some(Track {
            info: info.clone(),
            is_pulled,
            codec: description.codec,
            framing: description.framing,
            is_wanted,
            yields: false,
            waits: Waits::first(description.codec),
            last_dts_us: None,
            asks_for_key: false,
            octets: 0,
        });
        state.note_epoch(&info);
        state.unannounced.push(info);
        Ok(())
    }

    /// Ends a track: what it has in the journal is still sent.
    pub(crate) fn remove_track(&self, number: u32) -> Result<(), Error> {
        let mut state = self.lock();
        state.journal.settle(number);
        let slot = state.tracks.get_mut(number as usize).ok_or(Error::NoTrack(number))?;
        slot.take().map(|_| ()).ok_or(Error::NoTrack(number))
    }

    /// Every track begins a new epoch: the sources start anew.
    pub(crate) fn restart(&self) {
        let mut state = self.lock();
        let state = &mut *state;
        for track in state.tracks.iter_mut().flatten() {
            if !state.journal.takes_epoch(track.info.track) {
                continue;
            }
            track.info.epoch = state.journal.next_epoch(track.info.track);
            track.waits = Waits::first(track.codec);
            track.last_dts_us = None;
            track.asks_for_key = track.waits != Waits::ForNothing && track.is_wanted;
            state.journal.begin_epoch(track.info.track, track.info.epoch, track.codec.is_video());
            state.unannounced.push(track.info.clone());
        }
        let begun: Vec<TrackInfo> = state.tracks.iter().flatten().map(|track| track.info.clone()).collect();
        begun.iter().for_each(|info| state.note_epoch(info));
    }

    /// Epochs that have begun since the last call, in the order of their beginning.
    pub(crate) fn take_unannounced(&self) -> Vec<TrackInfo> {
        std::mem::take(&mut self.lock().unannounced)
    }

    /// Takes a frame. `now` is its time of arrival.
    pub(crate) fn push(&self, now: Instant, number: u32, frame: Frame<'_>) -> Result<Pushed, Error> {
        let mut state = self.lock();
        let yields = state.yields(number);
        let State { journal, tracks, counts, overflow, is_closed, .. } = &mut *state;
        if *is_closed {
            return Err(Error::Stopped);
        }
        let track = tracks.get_mut(number as usize).and_then(Option::as_mut).ok_or(Error::NoTrack(number))?;
        track.yields = yields;
        let result = track.take(now, number, frame, journal);
        match &result {
            // Told by a SKIP, as everything that was let go.
            Ok((Pushed::NotWanted, 1..)) => counts.accepted += 1,
            Ok((Pushed::Kept | Pushed::ClockStepped, _)) => counts.accepted += 1,
            _ => counts.dropped += 1,
        }
        let evicted = result.as_ref().map_or(0, |(_, evicted)| *evicted);
        if track.asks_for_key || *overflow == 0 && evicted > 0 {
            self.news.store(true, Ordering::Relaxed);
        }
        *overflow += evicted;
        result.map(|(pushed, _)| pushed)
    }

    /// A source is wanted now, or no longer: the tracks of the host that this changes. What the configuration switches off stays off.
    pub(crate) fn set_wanted(&self, camera: &str, source: &str, wanted: bool) -> Vec<u32> {
        let mut state = self.lock();
        let key = (camera.to_owned(), source.to_owned());
        if state.off.contains(&key) {
            return Vec::new();
        }
        let of_source = |track: &Track| track.info.camera == camera && track.info.source == source;
        // A server that names other sources costs no memory.
        if state.wanted.contains_key(&key) || state.tracks.iter().flatten().any(of_source) {
            state.wanted.insert(key, wanted);
            #[cfg(feature = "pull")]
            self.wanted_changed.send_replace(());
        }
        let wanted = wanted || state.outage.wants(camera, source);
        let tracks = state.tracks.iter_mut().flatten();
        let changed = tracks
            .filter(|track| track.info.camera == camera && track.info.source == source && track.is_wanted != wanted);
        changed
            .filter_map(|track| {
                track.begin_anew(wanted);
                (!track.is_pulled).then_some(track.info.track)
            })
            .collect()
    }

    /// There is a session now, or none: the tracks of the host whose frames are wanted now, or no longer. See [`Outage`].
    pub(crate) fn set_online(&self, is_online: bool) -> Vec<(u32, bool)> {
        let mut state = self.lock();
        let is_change = std::mem::replace(&mut state.outage.is_online, is_online) != is_online;
        if !is_change || !state.outage.is_configured() {
            return Vec::new();
        }
        let mut changed = Vec::new();
        for at in 0..state.tracks.len() {
            let Some(info) = state.tracks[at].as_ref().map(|track| track.info.clone()) else { continue };
            let wanted = state.wants(&(info.camera, info.source)).unwrap_or(true);
            if let Some(track) = &mut state.tracks[at]
                && (track.is_wanted != wanted || track.yields)
            {
                let yielded = std::mem::replace(&mut track.yields, false);
                track.begin_anew(wanted);
                if yielded && wanted && track.codec.is_video() {
                    // It goes on with its next key frame: until then it yields still.
                    track.waits = Waits::Since(SkipReason::OverBudget);
                }
                changed.extend((!track.is_pulled).then_some((info.track, wanted)));
            }
        }
        #[cfg(feature = "pull")]
        self.wanted_changed.send_replace(());
        changed
    }

    /// Sources of these names are not to be sent, also not after an outage.
    pub(crate) fn set_stopped(&self, names: &[String]) {
        self.lock().outage.set_stopped(names);
    }

    /// Whether a source is wanted because there is no session.
    #[cfg(feature = "pull")]
    pub(super) fn is_kept_offline(&self, camera: &str, source: &str) -> bool {
        self.lock().outage.wants(camera, source)
    }

    /// Whether the server wants a source, as far as it has said.
    #[cfg(feature = "pull")]
    pub(super) fn is_wanted(&self, camera: &str, source: &str) -> bool {
        self.lock().wanted.get(&(camera.to_owned(), source.to_owned())).copied().unwrap_or(false)
    }

    /// Hears of every change of what [`Intake::is_wanted`] says.
    #[cfg(feature = "pull")]
    pub(super) fn watch_wanted(&self) -> tokio::sync::watch::Receiver<()> {
        self.wanted_changed.subscribe()
    }

    /// The video tracks of a source that the host pushes.
    pub(crate) fn video_tracks(&self, camera: &str, source: &str) -> Vec<u32> {
        let state = self.lock();
        let of_source = |track: &&Track| {
            track.info.camera == camera && track.info.source == source && track.codec.is_video() && !track.is_pulled
        };
        state.tracks.iter().flatten().filter(of_source).map(|track| track.info.track).collect()
    }

    /// Whether the host pushes a track, so that it has an encoder to be asked.
    pub(crate) fn is_pushed(&self, track: u32) -> bool {
        let state = self.lock();
        state.tracks.get(track as usize).and_then(Option::as_ref).is_some_and(|track| !track.is_pulled)
    }

    /// Tracks that wait for a key frame and whose host was not asked yet.
    pub(crate) fn take_key_requests(&self) -> Vec<u32> {
        let mut state = self.lock();
        let tracks = state.tracks.iter_mut().flatten();
        // What is pulled brings its key frames when its camera makes them.
        let asking = |track: &mut Track| std::mem::take(&mut track.asks_for_key) && !track.is_pulled;
        tracks.filter_map(|track| asking(track).then_some(track.info.track)).collect()
    }

    /// How many frames were evicted since the last call.
    pub(crate) fn take_overflow(&self) -> u64 {
        std::mem::take(&mut self.lock().overflow)
    }

    /// Whether frames were evicted since they were taken last.
    pub(crate) fn has_overflow(&self) -> bool {
        self.lock().overflow > 0
    }

    /// Whether a push left something that the host is to be told of.
    pub(crate) fn take_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> (IntakeCounts, usize) {
        let state = self.lock();
        (state.counts, state.journal.bytes())
    }

    /// Frames and bytes that are held.
    pub(crate) fn held(&self) -> (usize, usize) {
        let state = self.lock();
        (state.journal.frames(), state.journal.bytes())
    }

    /// What each track brings, and what memory holds of it.
    pub(crate) fn fills(&self) -> Vec<Fill> {
        let state = self.lock();
        let fill = |track: &Track| {
            let TrackInfo { camera, source, track: number, .. } = &track.info;
            Fill {
                name: format!("{camera}/{source}"),
                octets: track.octets,
                is_kept: track.is_wanted && state.outage.instead_of(camera, source).is_none(),
                span: state.journal.span(*number),
            }
        };
        state.tracks.iter().flatten().map(fill).collect()
    }

    /// No frame is taken any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        (0..MAX_TRACKS).for_each(|track| state.journal.settle(track));
    }

    /// Octets of memory that are taken, and how many there are.
    pub(crate) fn fill(&self) -> (usize, usize) {
        let state = self.lock();
        (state.journal.used(), state.journal.capacity())
    }

    /// Copies the oldest frame with a number not below `number` that belongs on flash, with its epoch. In parts: an encoder that comes meanwhile waits
    /// for one of these at most. A frame that goes meanwhile to make room for another is passed over, as one that went before.
    pub(crate) fn copy_out(&self, number: u64, into: &mut Vec<u8>) -> Option<(TrackInfo, Copied)> {
        loop {
            let (info, copied) = self.find_out(number)?;
            into.resize(copied.length, 0);
            let mut parts = into.chunks_mut(COPIED_AT_ONCE).enumerate();
            let copy = |(at, part)| self.lock().journal.copy_out(copied.number, at * COPIED_AT_ONCE, part);
            if parts.all(copy) {
                return Some((info, copied));
            }
        }
    }

    fn find_out(&self, number: u64) -> Option<(TrackInfo, Copied)> {
        let mut state = self.lock();
        let State { journal, epochs, .. } = &mut *state;
        let copied = journal.find_out(number, |track, epoch| epochs.contains_key(&(track, epoch)))?;
        epochs.get(&(copied.track, copied.epoch)).map(|(_, info)| (info.clone(), copied))
    }

    /// Epochs of which memory has nothing any more from the number on that `written` says. Those that go on too, `at_stop`.
    pub(crate) fn spent_epochs(&self, at_stop: bool, written: impl Fn(&TrackInfo) -> Option<u64>) -> Vec<SpentEpoch> {
        let mut state = self.lock();
        let State { epochs, journal, tracks, .. } = &mut *state;
        if at_stop {
            (0..MAX_TRACKS).for_each(|track| journal.settle(track));
        }
        let mut spent = Vec::new();
        for (_, info) in epochs.values().filter(|(_, info)| at_stop || !goes_on(tracks, info)) {
            let Some(written) = written(info) else { continue };
            if transfer::Journal::find(journal, info.track, info.epoch, written).is_none() {
                let end = transfer::Journal::end(journal, info.track, info.epoch);
                let freed = journal.freed(info.track, info.epoch);
                let holes = journal.holes_at_end(info.track, info.epoch);
                spent.push(SpentEpoch { info: info.clone(), written, end, freed, holes });
            }
        }
        spent
    }

    /// Whether memory has something of an epoch, or will have.
    pub(crate) fn knows(&self, track: u32, epoch: u64) -> bool {
        self.lock().journal.knows(track, epoch)
    }

    /// The server has all of an epoch below this number, of what memory had.
    pub(crate) fn freed(&self, track: u32, epoch: u64) -> u64 {
        self.lock().journal.freed(track, epoch)
    }

    /// All frames of a track before this one are safely on flash.
    pub(crate) fn set_safe(&self, track: u32, epoch: u64, next: u64) {
        self.lock().journal.set_safe(track, epoch, next);
    }

    /// See [`Journal::next_number`].
    #[cfg(feature = "simulation")]
    pub(crate) fn next_number(&self, track: u32) -> u64 {
        self.lock().journal.next_number(track)
    }

    /// Does something with what the live reader left in memory; nothing that takes long.
    pub(crate) fn past<T>(&self, what: impl FnOnce(&mut Journal) -> T) -> T {
        what(&mut self.lock().journal)
    }

    /// See [`Journal::live_from`].
    pub(crate) fn live_from(&self, track: u32, epoch: u64, next: u64) -> u64 {
        self.lock().journal.live_from(track, epoch, next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether frames of a source are wanted, by the server or because there is none.
    fn wants(&self, key: &(String, String)) -> Option<bool> {
        let is_kept = self.outage.wants(&key.0, &key.1) && !self.off.contains(key);
        if is_kept { Some(true) } else { self.wanted.get(key).copied() }
    }

    /// Whether the outage source of its camera is kept instead of a track: once half of the memory is taken, until there is a session.
    fn yields(&self, number: u32) -> bool {
        let Some(track) = self.tracks.get(number as usize).and_then(Option::as_ref) else { return false };
        if self.outage.is_online || track.yields || self.journal.used() * 2 <= self.journal.capacity() {
            return track.yields;
        }
        let Some(other) = self.outage.instead_of(&track.info.camera, &track.info.source) else { return false };
        let is_there = |one: &Track| one.info.camera == track.info.camera && one.info.source == other && one.is_wanted;
        self.tracks.iter().flatten().any(is_there)
    }

    fn note_epoch(&mut self, info: &TrackInfo) {
        let key = (info.camera.clone(), info.source.clone());
        if self.stored.contains(&key) {
            if self.epochs.len() >= MAX_EPOCHS {
                let left = self.epochs.iter().filter(|(_, (_, info))| !goes_on(&self.tracks, info));
                let oldest = left.min_by_key(|(_, (begun, _))| *begun).map(|(key, _)| *key);
                oldest.map(|key| self.epochs.remove(&key));
            }
            self.epochs_begun += 1;
            self.epochs.insert((info.track, info.epoch), (self.epochs_begun, info.clone()));
        }
    }
}

/// Whether an epoch is the one that its track is in.
fn goes_on(tracks: &[Option<Track>], info: &TrackInfo) -> bool {
    tracks[info.track as usize].as_ref().is_some_and(|track| track.info.epoch == info.epoch)
}

impl Track {
    /// Frames are taken from the next key frame on, or no longer.
    fn begin_anew(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
        self.waits = Waits::first(self.codec);
        self.asks_for_key = is_wanted && self.waits != Waits::ForNothing;
    }

    /// A frame is not taken. Once the first one was, that is a loss, which is told; what refers to it is not taken either.
    fn refuse(&mut self, number: u32, frame: &Frame<'_>, reason: SkipReason, journal: &mut Journal) {
        if self.waits == Waits::ForFirst && !self.is_key(frame) {
            return;
        }
        journal.refuse(number, reason);
        let goes_on = !self.codec.is_video() || frame.disposable;
        if !goes_on && !matches!(self.waits, Waits::Since(_)) {
            (self.waits, self.asks_for_key) = (Waits::Since(reason), true);
        }
    }

    fn is_key(&self, frame: &Frame<'_>) -> bool {
        let data = &frame.data[..frame.data.len().min(MAX_FRAME)];
        frame.key || camagent_media::codec::is_key(self.codec, self.framing, data)
    }

    fn take(
        &mut self,
        now: Instant,
        number: u32,
        frame: Frame<'_>,
        journal: &mut Journal,
    ) -> Result<(Pushed, u64), Error> {
        let length = frame.data.len();
        let capacity = journal.capacity();
        if length == 0 {
            return Err(Error::Usage(format!("track {number}: a frame of 0 bytes")));
        }
        for (allowed, limit) in [(capacity, "streaming.buffer_size"), (MAX_FRAME, "the largest frame of the protocol")]
        {
            if length > allowed {
                if self.is_wanted {
                    self.refuse(number, &frame, SkipReason::TooLarge, journal);
                }
                return Err(Error::FrameTooLarge { track: number, length, allowed, limit });
            }
        }
        if [frame.pts_us, frame.dts_us].iter().any(|time| time.unsigned_abs() > MAX_TIME_US.unsigned_abs()) {
            if self.is_wanted {
                self.refuse(number, &frame, SkipReason::Refused, journal);
            }
            return Err(Error::Usage(format!("track {number}: times must stay between -2^60 and 2^60 us")));
        }
        if !self.is_wanted {
            return Ok((Pushed::NotWanted, 0));
        }
        self.octets += length as u64;
        if self.yields {
            journal.pass(number);
            return Ok((Pushed::NotWanted, 1));
        }
        let back_us = self.last_dts_us.map_or(0, |last| last.saturating_sub(frame.dts_us));
        let is_step = back_us > CLOCK_STEP_US && !frame.discontinuity;
        if back_us > 0 && !is_step && !frame.discontinuity {
            self.refuse(number, &frame, SkipReason::Refused, journal);
            return Err(Error::OutOfOrder { track: number, back_us: back_us.unsigned_abs() });
        }
        if journal.needs_key(number) && self.waits == Waits::ForNothing {
            (self.waits, self.asks_for_key) = (Waits::Since(SkipReason::OverBudget), true);
        }
        let key = self.is_key(&frame);
        match self.waits {
            Waits::ForFirst if !key => return Ok((Pushed::WaitKey, 0)),
            Waits::Since(reason) if !key => {
                journal.refuse(number, reason);
                return Ok((Pushed::WaitKey, 0));
            }
            _ => {}
        }
        let head = FrameHead {
            pts_us: frame.pts_us,
            dts_us: frame.dts_us,
            arrival_us: now.as_micros(),
            key,
            disposable: frame.disposable,
            discontinuity: frame.discontinuity || is_step,
        };
        match journal.push(number, head, frame.data) {
            Kept::Yes { evicted } => {
                self.waits = Waits::ForNothing;
                self.last_dts_us = Some(frame.dts_us);
                Ok((if is_step { Pushed::ClockStepped } else { Pushed::Kept }, evicted))
            }
            Kept::CutAtTail => {
                journal.refuse(number, SkipReason::OverBudget);
                (self.waits, self.asks_for_key) = (Waits::Since(SkipReason::OverBudget), true);
                Ok((Pushed::WaitKey, 0))
            }
        }
    }
}

/// The reader's side: each call takes the lock for itself.
impl transfer::Journal for &Intake {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        self.lock().journal.find(track, epoch, sequence)
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        self.lock().journal.newest_key(track, epoch)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        self.lock().journal.end(track, epoch)
    }

    fn missing(&mut self, track: u32, epoch: u64, number: u64) -> (SkipReason, u64) {
        self.lock().journal.missing(track, epoch, number)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        self.lock().journal.copy(track, epoch, sequence, offset, into)
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        self.lock().journal.received(track, epoch, next);
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::transfer::Journal as _;

    use super::*;

    const KEY: &[u8] = &[0, 0, 0, 1, 0x65, 1];
    const DELTA: &[u8] = &[0, 0, 0, 1, 0x41, 1];

    fn intake(buffer_size: usize) -> Intake {
        let config = crate::Config::from_json(
            r#"{"agent":{"agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t"},"streaming":{"quality":"medium"}}"#,
        );
        let intake = Intake::new(buffer_size, &config.unwrap().cameras, false).unwrap();
        let video = TrackDescription::video("sub", Codec::H264, Framing::AnnexB);
        intake.set_track(0, &video).unwrap();
        assert_eq!(epochs(&intake), [1]);
        intake
    }

    fn epochs(intake: &Intake) -> Vec<u64> {
        intake.take_unannounced().iter().map(|info| info.epoch).collect()
    }

    fn at(dts_us: i64, data: &[u8]) -> Frame<'_> {
        Frame { pts_us: dts_us, dts_us, data, ..Frame::default() }
    }

    fn push(intake: &Intake, frame: Frame<'_>) -> Result<Pushed, Error> {
        intake.push(Instant::from_micros(1), 0, frame)
    }

    #[test]
    fn nothing_is_kept_before_the_first_key_frame() {
        let intake = intake(1 << 20);
        assert_eq!(push(&intake, at(0, DELTA)).unwrap(), Pushed::WaitKey);
        assert_eq!(push(&intake, at(40, KEY)).unwrap(), Pushed::Kept);
        assert_eq!(push(&intake, at(80, DELTA)).unwrap(), Pushed::Kept);
        let (counts, _) = intake.counts();
        assert_eq!((counts.accepted, counts.dropped), (2, 1));
    }

    #[test]
    fn frames_out_of_order_are_refused_and_a_clock_step_is_not() {
        let intake = intake(1 << 20);
        push(&intake, at(5_000_000, KEY)).unwrap();
        let error = push(&intake, at(4_900_000, DELTA)).unwrap_err();
        assert!(matches!(error, Error::OutOfOrder { track: 0, back_us: 100_000 }), "{error}");
        assert_eq!(push(&intake, at(5_000_000, KEY)).unwrap(), Pushed::Kept, "the same time is a second slice");
        assert_eq!(push(&intake, at(0, DELTA)).unwrap(), Pushed::ClockStepped);
        let flagged = Frame { discontinuity: true, ..at(-5, DELTA) };
        assert_eq!(push(&intake, flagged).unwrap(), Pushed::Kept);
    }

    /// The numbers of a track's frames, and those that are missing with their reasons.
    fn told(mut intake: &Intake, track: u32) -> (Vec<u64>, Vec<(u64, u64, SkipReason)>) {
        let (mut kept, mut missing, mut next) = (Vec::new(), Vec::new(), 0);
        let end = intake.end(track, 1);
        while next < end {
            let found = intake.find(track, 1, next).map_or(end, |entry| entry.sequence);
            if found > next {
                let (reason, last) = intake.missing(track, 1, next);
                let last = last.min(found - 1);
                missing.push((next, last, reason));
                next = last + 1;
            } else {
                kept.push(found);
                next += 1;
            }
        }
        (kept, missing)
    }

    #[test]
    fn what_refers_to_a_refused_picture_is_not_kept_and_all_of_it_is_told() {
        use SkipReason::{Refused, TooLarge};
        let intake = intake(64 << 10);
        assert!(push(&intake, at(10, &[7; 100 << 10])).is_err());
        assert_eq!(push(&intake, at(10, DELTA)).unwrap(), Pushed::WaitKey, "it begins with a key frame");
        push(&intake, at(20, KEY)).unwrap();
        let _ = intake.take_key_requests();
        assert!(push(&intake, at(10, DELTA)).is_err(), "its time goes back");
        assert_eq!(intake.take_key_requests(), [0]);
        assert_eq!(push(&intake, at(30, DELTA)).unwrap(), Pushed::WaitKey);
        assert_eq!(push(&intake, at(40, KEY)).unwrap(), Pushed::Kept);
        assert!(push(&intake, Frame { disposable: true, ..at(10, DELTA) }).is_err());
        assert_eq!(push(&intake, at(50, DELTA)).unwrap(), Pushed::Kept, "nothing referred to that one");
        assert!(push(&intake, at(60, &[7; 100 << 10])).is_err());
        assert!(push(&intake, at(10, DELTA)).is_err());
        assert_eq!(push(&intake, at(70, DELTA)).unwrap(), Pushed::WaitKey);
        assert!(push(&intake, at(80, &[])).is_err(), "that was no frame");
        assert_eq!(push(&intake, at(90, KEY)).unwrap(), Pushed::Kept);
        let missing = vec![(1, 2, Refused), (4, 4, Refused), (6, 6, TooLarge), (7, 7, Refused), (8, 8, TooLarge)];
        assert_eq!(told(&intake, 0), (vec![0, 3, 5, 9], missing));
        // Nobody wants it: what comes then is no loss, and neither is what comes before the key frame behind that.
        intake.set_wanted("a", "sub", false);
        assert_eq!(push(&intake, at(100, DELTA)).unwrap(), Pushed::NotWanted);
        assert!(push(&intake, at(100, &[7; 100 << 10])).is_err());
        intake.set_wanted("a", "sub", true);
        assert_eq!(push(&intake, at(110, DELTA)).unwrap(), Pushed::WaitKey);
        assert_eq!(push(&intake, at(120, KEY)).unwrap(), Pushed::Kept);
        assert_eq!(told(&intake, 0).0, [0, 3, 5, 9, 10]);
    }

    #[test]
    fn a_key_frame_that_is_too_large_is_a_loss_also_when_it_is_the_first() {
        let intake = intake(64 << 10);
        let mut large = KEY.to_vec();
        large.resize(100 << 10, 7);
        assert!(push(&intake, at(0, &large)).is_err());
        assert_eq!(push(&intake, at(40, DELTA)).unwrap(), Pushed::WaitKey);
        assert!(push(&intake, at(80, &large)).is_err());
        intake.close();
        assert_eq!(told(&intake, 0), (vec![], vec![(0, 2, SkipReason::TooLarge)]));
    }

    #[test]
    fn sound_that_is_refused_is_told_and_takes_no_other_with_it() {
        let intake = intake(1 << 20);
        let sound = TrackDescription::audio("sub", Codec::Pcmu, Framing::Raw, 8_000, 1);
        intake.set_track(1, &sound).unwrap();
        let push = |at_us| intake.push(Instant::ZERO, 1, at(at_us, &[7; 160])).map_err(|_| ());
        assert_eq!([20, 10, 40].map(push), [Ok(Pushed::Kept), Err(()), Ok(Pushed::Kept)]);
        assert_eq!(told(&intake, 1), (vec![0, 2], vec![(1, 1, SkipReason::Refused)]));
    }

    #[test]
    fn impossible_frames_are_named() {
        let intake = intake(64 << 10);
        assert!(push(&intake, at(0, &[])).unwrap_err().to_string().contains("0 bytes"));
        let error = push(&intake, at(0, &vec![0; (64 << 10) + 1])).unwrap_err().to_string();
        assert!(error.contains("buffer_size"), "{error}");
        assert!(push(&intake, at(i64::MIN, KEY)).is_err());
        assert!(matches!(intake.push(Instant::ZERO, 7, at(0, KEY)), Err(Error::NoTrack(7))));
        let huge = super::tests::intake(16 << 20);
        let error = push(&huge, at(0, &vec![0; 5 << 20])).unwrap_err().to_string();
        assert!(error.contains("largest frame"), "{error}");
    }

    #[test]
    fn an_unwanted_source_costs_nothing_and_starts_at_a_key_frame() {
        let intake = intake(1 << 20);
        let main = TrackDescription::video("main", Codec::H264, Framing::AnnexB);
        intake.set_track(1, &main).unwrap();
        let push = |frame| intake.push(Instant::ZERO, 1, frame).unwrap();
        assert_eq!(push(at(0, KEY)), Pushed::NotWanted, "quality medium: main is on demand");
        assert_eq!(intake.set_wanted("a", "main", true), [1]);
        assert_eq!(intake.take_key_requests(), [1]);
        assert_eq!(push(at(40, DELTA)), Pushed::WaitKey);
        assert_eq!(push(at(80, KEY)), Pushed::Kept);
        assert_eq!(intake.set_wanted("a", "main", true), [] as [u32; 0], "no change");
        assert_eq!(intake.held().0, 1);
    }

    #[test]
    fn a_change_begins_an_epoch_and_a_repeat_does_not() {
        let intake = intake(1 << 20);
        let video = TrackDescription::video("sub", Codec::H264, Framing::AnnexB);
        intake.set_track(0, &video).unwrap();
        assert_eq!(epochs(&intake), [] as [u64; 0]);
        let changed = TrackDescription::video("sub", Codec::H265, Framing::AnnexB);
        intake.set_track(0, &changed).unwrap();
        intake.remove_track(0).unwrap();
        assert!(matches!(intake.remove_track(0), Err(Error::NoTrack(0))));
        intake.set_track(0, &changed).unwrap();
        intake.restart();
        assert_eq!(epochs(&intake), [2, 3, 4]);
        assert!(intake.set_track(MAX_TRACKS, &video).is_err());
    }

    #[cfg(feature = "pull")]
    #[test]
    fn what_is_pulled_gets_free_numbers_and_asks_the_host_for_nothing() {
        let intake = intake(1 << 20);
        let main = TrackDescription::video("main", Codec::H265, Framing::AnnexB);
        assert_eq!(intake.set_pulled_track(None, &main).unwrap(), 1, "0 is the host's");
        assert_eq!(epochs(&intake), [1]);
        assert_eq!(intake.set_pulled_track(Some(1), &main).unwrap(), 1);
        assert_eq!(epochs(&intake), [] as [u64; 0]);
        assert!(intake.set_track(1, &main).unwrap_err().to_string().contains("by itself"));
        let mut changes = intake.watch_wanted();
        assert!(!intake.is_wanted("a", "main"));
        assert_eq!(intake.set_wanted("a", "main", true), [] as [u32; 0]);
        assert!(intake.is_wanted("a", "main") && changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert_eq!(intake.take_key_requests(), [] as [u32; 0]);
        assert_eq!(intake.video_tracks("a", "main"), [] as [u32; 0]);
        for _ in 2..MAX_TRACKS {
            intake.set_pulled_track(None, &main).unwrap();
        }
        assert!(intake.set_pulled_track(None, &main).unwrap_err().to_string().contains("at most 128 tracks"));
    }

    #[test]
    fn what_the_configuration_switches_off_no_server_switches_on() {
        let config = crate::Config::from_json(
            r#"{"agent":{"agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t"},"streaming":{"quality":"low"}}"#,
        );
        let intake = Intake::new(1 << 20, &config.unwrap().cameras, false).unwrap();
        intake.set_track(1, &TrackDescription::video("main", Codec::H264, Framing::AnnexB)).unwrap();
        assert_eq!(intake.set_wanted("a", "main", true), [] as [u32; 0]);
        assert_eq!(intake.push(Instant::ZERO, 1, at(0, KEY)).unwrap(), Pushed::NotWanted, "upload: off is never");
        assert_eq!(intake.take_key_requests(), [] as [u32; 0]);
    }

    #[test]
    fn after_close_nothing_is_taken() {
        let intake = intake(1 << 20);
        intake.close();
        assert!(matches!(push(&intake, at(0, KEY)), Err(Error::Stopped)));
    }

    /// Memory whose card gets the main source and no other one.
    fn half_stored() -> (Intake, TrackDescription, TrackDescription) {
        let config = crate::Config::from_json(
            r#"{"agent":{"agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t"},"storage":{"path":"/x"},
                "streaming":{"sources":{"main":{"upload":"always"},"sub":{"upload":"always","retention":"live"}}}}"#,
        );
        let source = |name: &str| TrackDescription::video(name, Codec::H264, Framing::AnnexB);
        (Intake::new(1 << 20, &config.unwrap().cameras, true).unwrap(), source("main"), source("sub"))
    }

    /// Track, epoch and number of all frames that go to flash.
    fn copied(intake: &Intake) -> Vec<(u32, u64, u64)> {
        let (mut number, mut frames, mut octets) = (0, Vec::new(), Vec::new());
        while let Some((info, copied)) = intake.copy_out(number, &mut octets) {
            assert_eq!((info.track, info.epoch), (copied.track, copied.epoch));
            frames.push((copied.track, copied.epoch, copied.sequence));
            number = copied.number + 1;
        }
        frames
    }

    #[test]
    fn a_track_that_goes_over_to_a_live_source_holds_up_no_other_on_its_way_to_flash() {
        let (intake, main, sub) = half_stored();
        let push = |track, at_us| intake.push(Instant::ZERO, track, at(at_us, KEY)).unwrap();
        for description in [&main, &sub, &main] {
            intake.set_track(0, description).unwrap();
            push(0, 40);
        }
        intake.set_track(1, &main).unwrap();
        push(1, 40);
        assert_eq!(copied(&intake), [(0, 1, 0), (0, 3, 0), (1, 1, 0)]);
    }

    #[test]
    fn a_track_that_changes_often_takes_no_other_off_flash() {
        let (intake, main, _) = half_stored();
        intake.set_track(0, &main).unwrap();
        for change in 0..2 * MAX_EPOCHS as u32 {
            let track = 1 + change % 100;
            let codec = [Codec::H264, Codec::H265][change as usize / 100 % 2];
            intake.set_track(track, &TrackDescription::video("main", codec, Framing::AnnexB)).unwrap();
            intake.take_unannounced();
        }
        intake.push(Instant::ZERO, 0, at(40, KEY)).unwrap();
        intake.push(Instant::ZERO, 1, at(40, KEY)).unwrap();
        assert_eq!(copied(&intake).iter().map(|frame| frame.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(intake.lock().epochs.len(), MAX_EPOCHS);
    }
}

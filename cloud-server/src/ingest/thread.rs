//! The thread that writes, and the queue in front of it. A disk may be as slow as it likes: whoever brings frames waits for nothing
//! but a short lock, and the queue has a bound. What does not fit into it is not recorded now and never persisted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camagent_proto::message::ResumePoint;
use tokio::sync::{Notify, mpsc};

use super::disk::Disk;
use super::ledger::{GapReason, Ledger, Scope};
use super::losses::Losses;
use super::ranges::Ranges;
use super::recorder::{Recorder, Told};
use super::segment::{Run, SegmentInfo};
use super::standing::Standing;
use super::undated::Places;
use super::{Flow, Input, TrackKey};
use crate::clock::Clock;
use crate::config::Recordings;
use crate::event::{Event, Events};

/// Memory that an input takes beside its octets.
const INPUT_BYTES: usize = 128;
/// Changes of who is away that wait, of one scope and reason; of more only the last is kept.
const MOST_CHANGES: usize = 8;
/// Complete files that wait for whoever puts them in their place. The oldest of more is forgotten: at the next start it is found in its folder.
const MOST_LEFT: usize = 65_536;
/// Nothing is waited for longer at once.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What the ingest leaves to others: complete files.
#[derive(Clone, Debug)]
pub enum Leaves {
    /// A file that is complete.
    Segment(String, SegmentInfo),
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is on its way to the disk.
    Taken,
    /// Too much waits for the disk: it is not recorded, and not persisted.
    Withheld,
}

/// The door to the thread.
pub struct Ingest {
    config: Recordings,
    storage_epoch: [u8; 16],
    queue: Mutex<Queue>,
    changed: Condvar,
    state: Arc<Mutex<State>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    inputs: VecDeque<Work>,
    bytes: usize,
    withheld: u64,
    /// What could not be taken, by the number of its [`Work::Withheld`].
    missing: BTreeMap<u64, Missing>,
    /// The number of each track that has nothing behind it in the queue.
    collecting: BTreeMap<TrackKey, u64>,
    /// Tracks that were announced, each once: its place in the queue is [`Work::Track`].
    tracks: BTreeMap<TrackKey, (Arc<Flow>, u64)>,
    /// Epochs whose end waits.
    ended: BTreeSet<TrackKey>,
    /// Who went away, or came, and when.
    absences: BTreeMap<(Scope, GapReason), Vec<(i64, bool)>>,
    /// How many [`Work::Removed`] there are.
    removed: usize,
    numbers: u64,
    /// The newest generation of each agent that has a session.
    present: BTreeMap<String, u64>,
    stopping: bool,
}

enum Work {
    Input(Input),
    /// Stands where it would have been.
    Withheld(u64),
    Track(TrackKey),
    Absence(Scope, GapReason),
    Removed {
        key: TrackKey,
        camera: String,
        source: String,
        runs: Vec<Run>,
    },
}

/// Numbers of one track that came while the queue was full, one after the other.
struct Missing {
    flow: Arc<Flow>,
    /// Frames; and what the agent had given up, by its reasons.
    frames: Ranges,
    skipped: BTreeMap<GapReason, Ranges>,
}

#[derive(Default)]
struct State {
    /// Files that are in no index yet.
    open: BTreeMap<String, SegmentInfo>,
    /// Those of them that are complete and could not be handed over, or not be put in their place.
    left: VecDeque<String>,
    watched: Vec<std::sync::Weak<Watched>>,
    standing: Standing,
    /// Agents that are asked for what could not be taken.
    asked: BTreeSet<String>,
    ledger: Ledger,
    stalled: Option<String>,
    places: Places,
}

/// How far something that is followed is persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// The track and epoch.
    pub key: TrackKey,
    /// Everything from where it is followed up to here is.
    pub next: u64,
    /// It is followed as part of the past, and not as a live track.
    pub is_past: bool,
}

/// What a connection is to tell its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// More is persisted.
    pub persisted: Vec<Persisted>,
    /// Frames that could not be taken when they came can be now: the agent is to resume where [`Ingest::resume`] says.
    pub wants_again: bool,
}

/// Progress for one connection, which says what it follows.
pub struct Watched {
    agent: String,
    state: Arc<Mutex<State>>,
    follows: Mutex<Vec<Follow>>,
    notify: Notify,
}

struct Follow {
    key: TrackKey,
    from: u64,
    told: u64,
    is_past: bool,
}

impl Watched {
    /// Follows what is persisted of a track from a number on; the same again begins anew there.
    pub fn follow(&self, key: TrackKey, from: u64, is_past: bool) {
        let mut follows = self.follows.lock().unwrap_or_else(PoisonError::into_inner);
        follows.retain(|follow| follow.key != key || follow.is_past != is_past);
        // Of the past the answer was told already; of a live track all that came before may be persisted by now.
        let told = if is_past { from } else { 0 };
        follows.push(Follow { key, from, told, is_past });
        drop(follows);
        self.notify.notify_one();
    }

    /// Waits for progress. Cancel safe.
    pub async fn changed(&self) -> News {
        loop {
            let news = self.news();
            if news != News::default() {
                return news;
            }
            self.notify.notified().await;
        }
    }

    fn news(&self) -> News {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut follows = self.follows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = News { persisted: Vec::new(), wants_again: state.asked.remove(&self.agent) };
        for follow in follows.iter_mut() {
            let next = match follow.is_past {
                true => state.standing.persisted_from(&follow.key, follow.from),
                false => state.standing.live_persisted(&follow.key, follow.from),
            };
            if next > follow.told {
                follow.told = next;
                news.persisted.push(Persisted { key: follow.key.clone(), next, is_past: follow.is_past });
            }
        }
        news
    }
}

impl Ingest {
    /// Starts the thread of a recorder. It ends with [`Ingest::stop`].
    pub fn start<D: Disk>(
        config: Recordings,
        mut recorder: Recorder<D>,
        clock: Clock,
        events: Arc<Events>,
        leaves: mpsc::Sender<Leaves>,
    ) -> std::io::Result<Arc<Self>> {
        let ingest = Arc::new(Self {
            config,
            storage_epoch: recorder.storage_epoch(),
            queue: Mutex::default(),
            changed: Condvar::new(),
            state: Arc::default(),
            thread: Mutex::new(None),
        });
        {
            let mut state = ingest.lock_state();
            state.standing = Standing::new(recorder.all_ranges());
            state.ledger = recorder.ledger().clone();
            // Readers see recovered files before the server says that it started.
            let recovered = recorder.told().filter_map(|told| match told {
                Told::Closed(name, info) => Some((name.clone(), info.clone())),
                _ => None,
            });
            state.open.extend(recovered);
        }
        let own = Arc::clone(&ingest);
        let run = move || own.run(&mut recorder, clock, &events, &leaves);
        let thread = std::thread::Builder::new().name("ingest".to_owned()).spawn(run)?;
        *ingest.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(ingest)
    }

    /// What is recorded.
    #[must_use]
    pub fn config(&self) -> &Recordings {
        &self.config
    }

    /// Names the store, as it is told to agents.
    #[must_use]
    pub fn storage_epoch(&self) -> String {
        self.storage_epoch.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Hands something over; waits for no disk.
    pub fn offer(&self, input: Input) -> Offered {
        let offered = self.lock_queue().offer(input, self.config.queue_bytes);
        if offered == Offered::Taken {
            self.changed.notify_one();
        }
        offered
    }

    /// An agent has a session of this generation.
    pub fn agent_came(&self, agent: &str, generation: u64, utc_us: i64) {
        let mut queue = self.lock_queue();
        queue.present.insert(agent.to_owned(), generation);
        queue.absence(Scope::Agent(agent.to_owned()), GapReason::AGENT_OFFLINE, utc_us, false);
        drop(queue);
        self.changed.notify_one();
    }

    /// That session is over. When a newer one is there, the agent is not away.
    pub fn agent_left(&self, agent: &str, generation: u64, utc_us: i64) {
        let mut queue = self.lock_queue();
        if queue.present.get(agent) == Some(&generation) {
            queue.present.remove(agent);
            queue.absence(Scope::Agent(agent.to_owned()), GapReason::AGENT_OFFLINE, utc_us, true);
            drop(queue);
            self.changed.notify_one();
        }
    }

    /// Whether an agent has a session.
    #[must_use]
    pub fn is_present(&self, agent: &str) -> bool {
        self.lock_queue().present.contains_key(agent)
    }

    /// Whether a source is recorded from now on.
    pub fn source_recorded(&self, camera: &str, source: &str, utc_us: i64, is_recorded: bool) {
        let scope = Scope::Source(camera.to_owned(), source.to_owned());
        self.lock_queue().absence(scope, GapReason::NOT_RECORDED, utc_us, !is_recorded);
        self.changed.notify_one();
    }

    /// What a file holds is let go of.
    pub fn removed(&self, key: TrackKey, camera: String, source: String, runs: Vec<Run>) {
        let mut queue = self.lock_queue();
        queue.removed += 1;
        queue.inputs.push_back(Work::Removed { key, camera, source, runs });
        drop(queue);
        self.changed.notify_one();
    }

    /// Files whose removal waits to be written down.
    #[must_use]
    pub fn waiting_removals(&self) -> usize {
        self.lock_queue().removed
    }

    /// Looks at why something is missing.
    pub fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.lock_state().ledger)
    }

    /// Frames that were not taken because too much waited for the disk, since the start.
    #[must_use]
    pub fn withheld(&self) -> u64 {
        self.lock_queue().withheld
    }

    /// Octets that wait for the disk.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.lock_queue().bytes
    }

    /// Hands over something of a live track.
    pub fn offer_live(&self, input: Input) -> Offered {
        if let Input::Frame { flow, sequence, .. } = &input {
            self.lock_state().standing.came(&flow.key, *sequence);
        }
        self.offer(input)
    }

    /// Progress, for one connection of an agent.
    #[must_use]
    pub fn watch(&self, agent: &str) -> Arc<Watched> {
        let watched = Arc::new(Watched {
            agent: agent.to_owned(),
            state: Arc::clone(&self.state),
            follows: Mutex::default(),
            notify: Notify::new(),
        });
        let mut state = self.lock_state();
        state.watched.retain(|watched| watched.strong_count() > 0);
        state.watched.push(Arc::downgrade(&watched));
        watched
    }

    /// The first number from `from` on that is not persisted.
    #[must_use]
    pub fn persisted_from(&self, key: &TrackKey, from: u64) -> u64 {
        self.lock_state().standing.persisted_from(key, from)
    }

    /// Where a session of an agent's boot goes on. `received` is what connections of this process received; of what they do not know the store
    /// says how far it came. What could not be taken is wanted again.
    #[must_use]
    pub fn resume(&self, agent: &str, boot: [u8; 16], received: &[ResumePoint]) -> Vec<ResumePoint> {
        let mut state = self.lock_state();
        let mut points = received.to_vec();
        let is_known = |stored: &ResumePoint| {
            received.iter().any(|point| (point.track, point.epoch) == (stored.track, stored.epoch))
        };
        points.extend(state.standing.points(agent, boot).into_iter().filter(|stored| !is_known(stored)));
        state.standing.resume(agent, boot, &mut points);
        state.asked.remove(agent);
        points
    }

    /// Where a run that never knew UTC was put: UTC minus its clock.
    #[must_use]
    pub fn place(&self, agent: &str, boot: [u8; 16]) -> Option<i64> {
        self.lock_state().places.get(agent, boot)
    }

    /// A run that never knew UTC was put there.
    pub fn put_at(&self, agent: &str, boot: [u8; 16], offset_us: i64) {
        self.lock_state().places.put(agent, boot, offset_us);
    }

    /// Files that no index has yet: those that are being written, and those that are complete and on their way.
    #[must_use]
    pub fn open_segments(&self) -> Vec<(String, SegmentInfo)> {
        self.lock_state().open.iter().map(|(name, info)| (name.clone(), info.clone())).collect()
    }

    /// The index has this one now.
    pub fn forget(&self, name: &str) {
        self.lock_state().open.remove(name);
    }

    /// A complete file could not be put in its place: it is to be tried again, after the others.
    pub fn leave_behind(&self, name: String) {
        self.lock_state().leave_behind(name, MOST_LEFT);
    }

    /// How many complete files wait for another attempt.
    #[must_use]
    pub fn left_behind(&self) -> usize {
        self.lock_state().left.len()
    }

    /// The one that waits longest.
    #[must_use]
    pub fn take_left(&self) -> Option<(String, SegmentInfo)> {
        let mut state = self.lock_state();
        let name = state.left.pop_front()?;
        let info = state.open.get(&name)?.clone();
        Some((name, info))
    }

    /// Why nothing is written at present, if so.
    #[must_use]
    pub fn stalled(&self) -> Option<String> {
        self.lock_state().stalled.clone()
    }

    /// Writes what waits, closes all files and ends the thread. Blocks as long as the disk does.
    pub fn stop(&self) {
        self.lock_queue().stopping = true;
        self.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic was told when it happened.
            let _ = thread.join();
        }
    }

    fn run<D: Disk>(&self, recorder: &mut Recorder<D>, clock: Clock, events: &Events, leaves: &mpsc::Sender<Leaves>) {
        let mut losses = Losses::default();
        loop {
            self.tell(recorder, events, leaves, &mut losses);
            let now_us = clock.monotonic_us();
            losses.tell(now_us, events);
            recorder.set_utc(clock.utc_us());
            self.ask(now_us, recorder);
            if recorder.poll_timeout().is_some_and(|at| at <= now_us) {
                recorder.handle_timeout(now_us);
                continue;
            }
            let mut queue = self.lock_queue();
            let stopping = queue.stopping;
            let work = if recorder.is_stalled() { None } else { queue.inputs.pop_front() };
            match work {
                Some(Work::Input(input)) => {
                    queue.bytes = queue.bytes.saturating_sub(input_bytes(&input));
                    if let Input::Ended { flow, .. } = &input {
                        queue.ended.remove(&flow.key);
                    }
                    drop(queue);
                    recorder.handle(now_us, input);
                }
                Some(Work::Withheld(number)) => {
                    let missing = queue.take_missing(number);
                    drop(queue);
                    if let Some(missing) = missing {
                        missing.hand_over(now_us, recorder);
                    }
                }
                Some(Work::Track(key)) => {
                    let announced = queue.take_track(&key);
                    drop(queue);
                    if let Some((flow, next)) = announced {
                        recorder.handle(now_us, Input::Track { flow, next });
                    }
                }
                Some(Work::Absence(scope, reason)) => {
                    let changes = queue.absences.remove(&(scope.clone(), reason)).unwrap_or_default();
                    drop(queue);
                    for (utc_us, is_away) in changes {
                        recorder.handle_absence(now_us, scope.clone(), reason, utc_us, is_away);
                    }
                }
                Some(Work::Removed { key, camera, source, runs }) => {
                    queue.removed -= 1;
                    drop(queue);
                    recorder.handle_removed(now_us, &key, (&camera, &source), &runs);
                }
                None if stopping => break,
                None => {
                    let wait = recorder.poll_timeout().map_or(LONGEST_WAIT, |at| Duration::from_micros(at - now_us));
                    let longest = if losses.is_empty() { LONGEST_WAIT } else { Losses::PACE };
                    drop(self.changed.wait_timeout(queue, wait.min(longest)));
                }
            }
        }
        recorder.finish(clock.monotonic_us());
        self.tell(recorder, events, leaves, &mut losses);
        losses.tell(u64::MAX, events);
    }

    /// Asks for what could not be taken, once the disk keeps up again.
    fn ask<D: Disk>(&self, now_us: u64, recorder: &Recorder<D>) {
        let keeps_up = !recorder.is_stalled() && self.lock_queue().bytes <= self.config.queue_bytes / 2;
        let mut state = self.lock_state();
        if !keeps_up || state.standing.is_content() {
            return;
        }
        let agents = state.standing.ask(now_us, |key, first| recorder.is_readable(key, first));
        if !agents.is_empty() {
            state.asked.extend(agents);
            state.watched.iter().filter_map(std::sync::Weak::upgrade).for_each(|watched| watched.notify.notify_one());
        }
    }

    fn tell<D: Disk>(
        &self,
        recorder: &mut Recorder<D>,
        events: &Events,
        leaves: &mpsc::Sender<Leaves>,
        losses: &mut Losses,
    ) {
        while let Some(told) = recorder.poll_told() {
            match told {
                Told::Progress(_) => {}
                Told::Persisted(ranges) => {
                    let mut state = self.lock_state();
                    for (key, first, next) in ranges {
                        state.standing.persisted(&key, first, next);
                    }
                    let watched: Vec<_> = state.watched.iter().filter_map(std::sync::Weak::upgrade).collect();
                    drop(state);
                    watched.iter().for_each(|watched| watched.notify.notify_one());
                }
                Told::Refused { key, first, next, is_readable } => {
                    self.lock_state().standing.refused(&key, first, next, is_readable);
                }
                Told::Open(name, info) => drop(self.lock_state().open.insert(name, info)),
                Told::Closed(name, info) => {
                    self.lock_state().open.insert(name.clone(), info.clone());
                    // Whoever takes it may stand still; frames must not wait for that.
                    if leaves.try_send(Leaves::Segment(name.clone(), info)).is_err() {
                        self.leave_behind(name);
                    }
                }
                Told::Gap(gap, news) => {
                    self.lock_state().ledger.put(&gap);
                    losses.add(&gap.camera, &gap.source, gap.reason, news);
                }
                Told::Ended(flow, next, cause) => {
                    self.lock_state().ledger.end(&flow.key, &flow.camera, &flow.source, next, cause);
                }
                Told::Absence(absence) => self.lock_state().ledger.put_absence(absence),
                Told::Stalled(reason) => {
                    self.lock_state().stalled = Some(reason.clone());
                    events.emit(Event::RecordingStalled { reason });
                }
                Told::Resumed => {
                    self.lock_state().stalled = None;
                    events.emit(Event::RecordingResumed);
                }
                Told::SetAside { name, reason } => events.emit(Event::RecordingSetAside { name, reason }),
            }
        }
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn leave_behind(&mut self, name: String, most: usize) {
        if self.left.len() >= most
            && let Some(oldest) = self.left.pop_front()
        {
            self.open.remove(&oldest);
        }
        self.left.push_back(name);
    }
}

impl Queue {
    /// Takes an input as long as less than `most_bytes` wait. Beyond that a track's frames and gaps are only remembered as numbers: however long the
    /// disk stands, they take little.
    fn offer(&mut self, input: Input, most_bytes: usize) -> Offered {
        let bytes = input_bytes(&input);
        let is_full = self.bytes.saturating_add(bytes) > most_bytes;
        match &input {
            Input::Frame { flow, sequence, .. } if is_full => {
                self.withheld += 1;
                let (flow, sequence) = (Arc::clone(flow), *sequence);
                self.missing(flow).frames.insert(sequence, sequence.saturating_add(1));
                return Offered::Withheld;
            }
            Input::Skip { flow, first, last, reason } if is_full => {
                let (flow, first, next, reason) = (Arc::clone(flow), *first, last.saturating_add(1), *reason);
                self.missing(flow).skipped.entry(reason).or_default().insert(first, next);
                return Offered::Taken;
            }
            Input::Track { flow, next } => return self.announced(flow, *next, most_bytes),
            Input::Ended { flow, .. } => {
                if self.bytes > most_bytes.saturating_mul(2) {
                    return Offered::Withheld;
                }
                if !self.ended.insert(flow.key.clone()) {
                    return Offered::Taken;
                }
                self.collecting.remove(&flow.key);
            }
            Input::Frame { flow, .. } | Input::Skip { flow, .. } => drop(self.collecting.remove(&flow.key)),
        }
        self.bytes += bytes;
        self.inputs.push_back(Work::Input(input));
        Offered::Taken
    }

    /// What could not be taken of a track behind its last input that could.
    fn missing(&mut self, flow: Arc<Flow>) -> &mut Missing {
        let number = match self.collecting.get(&flow.key) {
            Some(number) => *number,
            None => {
                self.numbers += 1;
                self.collecting.insert(flow.key.clone(), self.numbers);
                self.inputs.push_back(Work::Withheld(self.numbers));
                self.numbers
            }
        };
        let new = || Missing { flow, frames: Ranges::default(), skipped: BTreeMap::new() };
        self.missing.entry(number).or_insert_with(new)
    }

    fn take_missing(&mut self, number: u64) -> Option<Missing> {
        self.collecting.retain(|_, own| *own != number);
        self.missing.remove(&number)
    }

    /// Takes the announcement of a track. However often its agent comes and goes while the disk stands, one waits, for the lowest number: it stands
    /// before all frames of the track. Numbers alone may take as much room again as frames do.
    fn announced(&mut self, flow: &Arc<Flow>, next: u64, most_bytes: usize) -> Offered {
        if let Some((_, lowest)) = self.tracks.get_mut(&flow.key) {
            *lowest = next.min(*lowest);
            return Offered::Taken;
        }
        if self.bytes > most_bytes.saturating_mul(2) {
            return Offered::Withheld;
        }
        self.collecting.remove(&flow.key);
        self.bytes += INPUT_BYTES;
        self.tracks.insert(flow.key.clone(), (Arc::clone(flow), next));
        self.inputs.push_back(Work::Track(flow.key.clone()));
        Offered::Taken
    }

    fn take_track(&mut self, key: &TrackKey) -> Option<(Arc<Flow>, u64)> {
        self.bytes = self.bytes.saturating_sub(INPUT_BYTES);
        self.tracks.remove(key)
    }

    /// Somebody went away, or came. Who does that again and again while the disk stands was away from the first of the times that do not fit to the last.
    fn absence(&mut self, scope: Scope, reason: GapReason, utc_us: i64, is_away: bool) {
        let changes = self.absences.entry((scope.clone(), reason)).or_default();
        if changes.is_empty() {
            self.inputs.push_back(Work::Absence(scope, reason));
        }
        match changes.last() {
            Some((_, last)) if *last == is_away => {}
            Some(_) if is_away && changes.len() >= MOST_CHANGES => drop(changes.pop()),
            _ => changes.push((utc_us, is_away)),
        }
    }
}

impl Missing {
    /// Tells the recorder, in the order of numbers.
    fn hand_over<D: Disk>(self, now_us: u64, recorder: &mut Recorder<D>) {
        let mut all: Vec<_> = self.frames.iter().map(|(first, next)| (first, next, None)).collect();
        for (reason, ranges) in &self.skipped {
            all.extend(ranges.iter().map(|(first, next)| (first, next, Some(*reason))));
        }
        all.sort_by_key(|(first, ..)| *first);
        for (first, next, reason) in all {
            let flow = Arc::clone(&self.flow);
            match reason {
                None => recorder.handle_lost(&flow, first, next),
                Some(reason) => recorder.handle(now_us, Input::Skip { flow, first, last: next - 1, reason }),
            }
        }
    }
}

fn input_bytes(input: &Input) -> usize {
    let payload = match input {
        Input::Frame { payload, .. } => payload.len(),
        Input::Track { .. } | Input::Skip { .. } | Input::Ended { .. } => 0,
    };
    INPUT_BYTES + payload
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use camagent_media::{Codec, Framing};
    use camagent_proto::frame::{FrameHead, SkipReason};

    use super::*;
    use crate::ingest::Settings;
    use crate::ingest::disk::Folder;

    fn flow(track: u32) -> Arc<Flow> {
        Arc::new(Flow {
            key: TrackKey { agent: "a".into(), boot: [1; 16], track, epoch: 1 },
            camera: "cam".into(),
            source: "main".into(),
            codec: Codec::H264,
            framing: Framing::AnnexB,
            sample_rate: 0,
            channels: 0,
            config: Bytes::new(),
        })
    }

    fn frame(flow: &Arc<Flow>, sequence: u64) -> Input {
        let head =
            FrameHead { pts_us: 0, dts_us: 0, arrival_us: 0, key: false, disposable: false, discontinuity: false };
        let payload = Bytes::from_static(&[0; 100]);
        Input::Frame { flow: Arc::clone(flow), sequence, head, utc_us: 0, payload }
    }

    #[test]
    fn a_disk_that_stands_for_days_costs_a_full_queue_and_no_more() {
        let (mut queue, flows) = (Queue::default(), [flow(0), flow(1)]);
        let mut taken = 0;
        for sequence in 0..100_000 {
            for flow in &flows {
                if queue.offer(frame(flow, sequence), 4_000) == Offered::Taken {
                    taken += 1;
                }
                let reason = GapReason::skipped(SkipReason::OverBudget);
                let (first, last) = (1_000_000 + sequence, 1_000_000 + sequence);
                queue.offer(Input::Skip { flow: Arc::clone(flow), first, last, reason }, 4_000);
            }
        }
        assert!(queue.bytes <= 4_000 && taken > 5, "{} octets, {taken} frames", queue.bytes);
        assert!(queue.inputs.len() < 40, "{} pieces of work", queue.inputs.len());
        assert_eq!(queue.withheld, 200_000 - taken);
        let mut withheld = 0;
        while let Some(work) = queue.inputs.pop_front() {
            if let Work::Withheld(number) = work {
                let missing = queue.take_missing(number).expect("once");
                assert!(missing.frames.iter().count() <= 1 && missing.skipped.len() <= 1);
                withheld += missing.frames.count();
            }
        }
        assert_eq!(withheld, queue.withheld);
        assert!(queue.missing.is_empty() && queue.collecting.is_empty());
    }

    #[test]
    fn agents_that_come_and_go_while_the_disk_stands_fill_nothing() {
        let (mut queue, flow) = (Queue::default(), flow(0));
        for round in 0..50_000 {
            let next = if round == 30_000 { 5 } else { 10 };
            queue.offer(Input::Track { flow: Arc::clone(&flow), next }, 4_000);
            queue.offer(frame(&flow, 10 + round), 4_000);
            let cause = camagent_proto::frame::EndReason::PowerCut;
            queue.offer(Input::Ended { flow: Arc::clone(&flow), next: 9, cause }, 4_000);
            for is_away in [false, true] {
                let utc_us = i64::try_from(round).expect("small") * 10 + i64::from(is_away);
                queue.absence(Scope::Agent("a".into()), GapReason::AGENT_OFFLINE, utc_us, is_away);
            }
        }
        queue.absence(Scope::Agent("a".into()), GapReason::AGENT_OFFLINE, 777_777, false);
        assert!(queue.inputs.len() < 40 && queue.bytes <= 8_000, "{} pieces of work", queue.inputs.len());
        assert!(matches!(queue.inputs[0], Work::Track(_)), "it is announced before its frames");
        assert_eq!(queue.take_track(&flow.key).map(|(_, next)| next), Some(5));
        let changes = queue.absences.values().next().expect("one");
        assert!(changes.len() <= MOST_CHANGES + 1, "{changes:?}");
        assert_eq!(changes[..2], [(0, false), (1, true)]);
        assert_eq!(changes.last(), Some(&(777_777, false)));
        assert!(changes.windows(2).all(|pair| pair[0].1 != pair[1].1 && pair[0].0 < pair[1].0), "{changes:?}");
    }

    #[test]
    fn who_takes_no_complete_files_holds_up_no_frames() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let settings = Settings { segment: Duration::from_millis(20), new_epoch: [5; 16], remember: Duration::MAX };
        let disk = Folder::open(folder.path()).expect("opens");
        let recorder = Recorder::open(disk, settings, 1).expect("opens");
        let (sender, mut receiver) = mpsc::channel(2);
        let config = Recordings { path: Some(folder.path().to_owned()), ..Recordings::default() };
        let ingest = Ingest::start(config, recorder, Clock::new(), Arc::new(Events::new()), sender).expect("starts");
        let sound =
            Flow { codec: Codec::Pcma, framing: Framing::Raw, sample_rate: 8_000, channels: 1, ..(*flow(0)).clone() };
        let sound = Arc::new(sound);
        for sequence in 0..30 {
            let Input::Frame { flow, sequence, mut head, utc_us, payload } = frame(&sound, sequence) else { continue };
            (head.pts_us, head.dts_us) = (sequence as i64 * 20_000, sequence as i64 * 20_000);
            assert_eq!(ingest.offer(Input::Frame { flow, sequence, head, utc_us, payload }), Offered::Taken);
        }
        let (done, is_done) = std::sync::mpsc::channel();
        let stopping = Arc::clone(&ingest);
        std::thread::spawn(move || {
            stopping.stop();
            done.send(()).expect("waited for");
        });
        is_done.recv_timeout(Duration::from_secs(60)).expect("it ends, though nobody takes files");
        assert_eq!(ingest.persisted_from(&sound.key, 0), 30);
        assert!(ingest.left_behind() > 5, "{} files", ingest.left_behind());
        let mut found = ingest.left_behind();
        while receiver.try_recv().is_ok() {
            found += 1;
        }
        assert_eq!(found, ingest.open_segments().len(), "each is left to somebody, and found by readers meanwhile");
        let (first, _) = ingest.take_left().expect("one");
        ingest.leave_behind(first.clone());
        assert!(ingest.take_left().expect("another").0 != first, "what failed comes last");
    }

    #[test]
    fn files_that_nobody_takes_have_a_bound() {
        let mut state = State::default();
        (0..10).for_each(|number: u32| state.leave_behind(number.to_string(), 4));
        assert_eq!(state.left, ["6", "7", "8", "9"]);
    }
}

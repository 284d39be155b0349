//! A camera: a thread that plays a script through an agent at a given pace, and remembers everything it pushed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camagent_core::{Agent, Config, Event, Frame, Host, Pushed, StopReport};

use crate::events::Recorder;
use crate::nal::Digest;
use crate::script::{Script, VIDEO};

/// What the camera's clock shows when it begins: cameras do not begin at zero.
const CLOCK_BEGINS_US: i64 = 86_400_000_000;

/// A frame that the agent took.
#[derive(Clone, Debug)]
pub struct PushedFrame {
    /// Its track.
    pub track: u32,
    /// Its time on the camera's clock.
    pub pts_us: i64,
    /// Whether decoding can start there.
    pub key: bool,
    /// Its octets.
    pub bytes: usize,
    /// The names of its units.
    pub units: Vec<Digest>,
}

/// A frame that the agent did not take: its track, its time on the camera's clock, and what the agent said.
#[derive(Clone, Debug)]
pub struct LeftOut {
    /// Its track.
    pub track: u32,
    /// What became of it.
    pub outcome: Pushed,
}

#[derive(Debug, Default)]
struct Diary {
    pushed: Mutex<Vec<PushedFrame>>,
    left_out: Mutex<Vec<LeftOut>>,
    is_over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a camera is made.
pub struct Setup {
    config: Config,
    script: Script,
    source: String,
    pace: f64,
    answers: bool,
    logger: Option<Arc<dyn log::Log>>,
}

impl Setup {
    /// A camera that plays `script` as source `main` at real pace.
    pub fn new(config: Config, script: Script) -> Self {
        Self { config, script, source: "main".into(), pace: 1.0, answers: false, logger: None }
    }

    /// As another source.
    pub fn source(mut self, source: &str) -> Self {
        self.source = source.into();
        self
    }

    /// So many times as fast as real.
    pub fn pace(mut self, pace: f64) -> Self {
        self.pace = pace;
        self
    }

    /// The host answers commands.
    pub fn answers_commands(mut self) -> Self {
        self.answers = true;
        self
    }

    /// The agent's log goes there.
    pub fn logger(mut self, logger: Arc<dyn log::Log>) -> Self {
        self.logger = Some(logger);
        self
    }

    /// Starts agent and thread.
    pub fn start(self) -> Camera {
        let events = Recorder::default();
        let keeper = events.clone();
        let host = Host {
            logger: self.logger,
            on_event: Some(Box::new(move |event: Event| keeper.keep(event))),
            answers_commands: self.answers,
        };
        let agent = Arc::new(Agent::start(self.config, host).expect("a good configuration"));
        for (number, track) in self.script.tracks(&self.source) {
            agent.set_track(number, track).expect("a good track");
        }
        let diary = Arc::new(Diary::default());
        let (player, notes) = (Arc::clone(&agent), Arc::clone(&diary));
        let (script, pace) = (self.script, self.pace);
        let thread = std::thread::spawn(move || play(&player, script, pace, &notes));
        Camera { agent, events, diary, thread: Some(thread) }
    }
}

fn play(agent: &Agent, mut script: Script, pace: f64, diary: &Diary) {
    let begun = Instant::now();
    while !diary.is_over.load(Ordering::Relaxed) {
        let piece = script.next_piece();
        let due = begun + Duration::from_micros(piece.time_us.unsigned_abs()).div_f64(pace);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let pts_us = CLOCK_BEGINS_US + piece.time_us;
        let frame = Frame { pts_us, dts_us: pts_us, data: &piece.data, ..Frame::default() };
        // Noted under the lock, so that nobody receives what is not in the diary yet.
        let mut pushed = lock(&diary.pushed);
        match agent.push_frame(piece.track, frame) {
            Ok(Pushed::Kept) => pushed.push(PushedFrame {
                track: piece.track,
                pts_us,
                key: piece.key,
                bytes: piece.data.len(),
                units: piece.units,
            }),
            Ok(outcome) => lock(&diary.left_out).push(LeftOut { track: piece.track, outcome }),
            Err(camagent_core::Error::Stopped) => return,
            Err(error) => panic!("a good frame was refused: {error}"),
        }
    }
}

/// A camera that plays.
pub struct Camera {
    agent: Arc<Agent>,
    events: Recorder,
    diary: Arc<Diary>,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    /// The agent.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// What the agent told.
    pub fn events(&self) -> &Recorder {
        &self.events
    }

    /// All frames that the agent took so far.
    pub fn pushed(&self) -> Vec<PushedFrame> {
        lock(&self.diary.pushed).clone()
    }

    /// All frames that the agent did not take so far.
    pub fn left_out(&self) -> Vec<LeftOut> {
        lock(&self.diary.left_out).clone()
    }

    /// The frames of one track that the agent took so far.
    pub fn track(&self, track: u32) -> Vec<PushedFrame> {
        lock(&self.diary.pushed).iter().filter(|frame| frame.track == track).cloned().collect()
    }

    /// The names of the units of one track so far.
    pub fn units(&self, track: u32) -> Vec<Digest> {
        lock(&self.diary.pushed)
            .iter()
            .filter(|frame| frame.track == track)
            .flat_map(|frame| frame.units.clone())
            .collect()
    }

    /// How many pictures the agent took so far.
    pub fn pictures(&self) -> usize {
        lock(&self.diary.pushed).iter().filter(|frame| frame.track == VIDEO).count()
    }

    /// Octets of all frames that the agent took so far.
    pub fn bytes(&self) -> usize {
        lock(&self.diary.pushed).iter().map(|frame| frame.bytes).sum()
    }

    /// No more frames from now on; the agent goes on.
    pub fn pause(&mut self) {
        self.diary.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the camera's thread does not panic");
        }
    }

    /// No more frames, and the agent stops.
    pub fn stop(mut self, timeout: Duration) -> StopReport {
        self.pause();
        self.agent.stop(timeout).expect("not on the agent's own thread")
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.diary.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A test that fails already need not fail twice.
            let _ = thread.join();
        }
    }
}

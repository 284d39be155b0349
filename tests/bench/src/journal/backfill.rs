//! A camera that comes back from an outage with a full card: how soon its live picture is at the server, how much of the
//! uplink's spare rate the past uses, and what live pictures wait for that.
//!
//! Agent and server as libraries over an emulated link; the camera answers requests for key frames as encoders do, with its
//! next picture. What is live is what reaches the server's hub: frames of the past never do.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camagent_testkit::core::{Agent, Codec, Config, Event, Frame, Framing, Host, TrackDescription};
use camagent_testkit::emulator::{Change, FAR, Flows, Path, Setup, be_prompt};
use camagent_testkit::{CloudServer, wait};
use cloud_server::live::{Found, Hub};
use serde_json::{Value, json};

use super::picture::{self, Pictures};
use super::{Amount, at_least, at_most, median, percentile, rounded};
use crate::page::Measured;
use crate::stage::Stage;

const ROUNDS: usize = 5;
/// The link upwards, in bits a second; 60 ms round trip, a third of a second of queue.
const RATE: u64 = 6_000_000;
const DELAY: Duration = Duration::from_millis(30);
const QUEUE: usize = 250_000;
/// The live video, in bits a second.
const VIDEO: u64 = 2_000_000;
const PICTURE_EVERY: Duration = Duration::from_millis(40);
const GROUP: u32 = 50;
const KEY_FACTOR: usize = 8;
/// G.711, 20 ms.
const SOUND: usize = 160;
/// So many times as fast as a camera while the card is filled.
const HURRY: u32 = 10;
/// What the card may hold; it is full when the link comes back.
const CARD: u64 = 32 << 20;
const MEMORY: u64 = 8 << 20;
/// Live alone is looked at so long, after a while.
const ALONE: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(5);
/// So long with the past beside it.
const BESIDE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(90);
/// A pause before an attempt that is long enough for the link to be well again in it.
const LONG_ENOUGH: Duration = Duration::from_millis(100);
const AGENT: &str = "bench";

/// What one round gave.
struct Round {
    /// Seconds from the beginning of the dial that succeeded: to the session, and to the first live key frame.
    session_s: f64,
    key_s: f64,
    /// Of the spare rate: what frames of the past had, and what the wire carried for them.
    share: f64,
    wire: f64,
    /// Delays of live pictures in milliseconds, without and with the past beside them.
    alone: Vec<f64>,
    beside: Vec<f64>,
}

pub(super) fn run(amount: &Amount) -> Result<(Measured, bool), String> {
    let rounds = amount.rounds.unwrap_or(ROUNDS);
    let busy = crate::load_average();
    // Each on a link of its own, and mostly waiting.
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..rounds).map(|_| scope.spawn(round)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a round does not panic")).collect::<Vec<_>>()
    });
    let mut all = Vec::new();
    for (number, round) in results.into_iter().enumerate() {
        let round = round.map_err(|error| format!("round {}: {error}", number + 1))?;
        let [alone, beside] = [&round.alone, &round.beside].map(|delays| percentile(delays, 0.5));
        crate::note(&format!(
            "backfill, round {} of {rounds}: session {:.3} s, key frame {:.3} s, share {:.3} (wire {:.3}), live delay {alone:.0} ms, beside the past {beside:.0}",
            number + 1,
            round.session_s,
            round.key_s,
            round.share,
            round.wire,
        ));
        all.push(round);
    }
    Ok((measured(&all, &busy), rounds >= ROUNDS))
}

/// What the camera, the server's hub and the agent's log have told.
#[derive(Default)]
struct Notes {
    /// When each picture was pushed.
    pushed: Mutex<Vec<Instant>>,
    /// Live pictures at the server: number, whether it is a key frame, when.
    arrived: Mutex<Vec<(u32, bool, Instant)>>,
    live_octets: AtomicUsize,
    /// Attempts to connect, and sessions.
    dials: Mutex<Vec<Instant>>,
    sessions: Mutex<Vec<Instant>>,
    /// When the last attempt or session ended, and the pause behind it.
    ended: Mutex<Option<(Instant, Duration)>>,
    pushed_octets: AtomicUsize,
    is_hurried: AtomicBool,
    is_key_wanted: AtomicBool,
    is_over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl log::Log for Notes {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().starts_with("dialling ") {
            lock(&self.dials).push(Instant::now());
        }
    }

    fn flush(&self) {}
}

impl Notes {
    fn hear(&self, event: &Event) {
        match event {
            Event::Connected { .. } => lock(&self.sessions).push(Instant::now()),
            Event::Disconnected { retry_in, .. } => *lock(&self.ended) = Some((Instant::now(), *retry_in)),
            Event::KeyFrameWanted { .. } => self.is_key_wanted.store(true, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Delays of the pictures that were pushed within a time, sorted, in milliseconds; infinite for what did not come.
    fn delays(&self, from: Instant, to: Instant) -> Vec<f64> {
        let pushed = lock(&self.pushed);
        let mut delays: Vec<_> =
            pushed.iter().map(|at| (from..to).contains(at).then_some(f64::INFINITY)).collect::<Vec<_>>();
        for (number, _, at) in lock(&self.arrived).iter() {
            if let (Some(Some(delay)), Some(pushed)) = (delays.get_mut(*number as usize), pushed.get(*number as usize))
            {
                *delay = at.saturating_duration_since(*pushed).as_secs_f64() * 1_000.0;
            }
        }
        let mut delays: Vec<_> = delays.into_iter().flatten().collect();
        delays.sort_by(f64::total_cmp);
        delays
    }
}

/// Octets so far, at one moment.
struct Counted {
    at: Instant,
    wire: u64,
    live: u64,
    recorded: u64,
}

fn count(stage: &Stage, notes: &Notes, recordings: &FilePath) -> Counted {
    Counted {
        at: Instant::now(),
        wire: stage.link.counters().up.octets,
        live: notes.live_octets.load(Ordering::Relaxed) as u64,
        recorded: octets_below(recordings),
    }
}

fn octets_below(folder: &FilePath) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => octets_below(&entry.path()),
        // A file may move meanwhile.
        data => data.map_or(0, |data| data.len()),
    };
    entries.map(of).sum()
}

fn round() -> Result<Round, String> {
    let path = Path { rate: Some(RATE), delay: DELAY, queue: QUEUE, ..Path::default() };
    let down = Path { rate: Some(20_000_000), ..path.clone() };
    let stage = Stage::make(Setup { up: path, down, seed: 1, script: Vec::new() })?;
    let notes = Arc::new(Notes::default());
    let card = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (file, recordings) = server(&stage, &notes)?;
    let agent = agent(&stage, &notes, file, card.path())?;
    let camera = {
        let (agent, notes) = (Arc::clone(&agent), Arc::clone(&notes));
        std::thread::spawn(move || play(&agent, &notes))
    };
    let result = measure(&stage, &notes, &recordings, &agent);
    notes.is_over.store(true, Ordering::Relaxed);
    camera.join().map_err(|_| "the camera panicked".to_owned())?.map_err(|error| error.to_string())?;
    // An agent that does not stop in time ends with its link.
    let _ = agent.stop(Duration::ZERO);
    result
}

/// A server that records, and a viewer at its hub.
fn server(stage: &Stage, notes: &Arc<Notes>) -> Result<(Value, PathBuf), String> {
    let (tell, told) = std::sync::mpsc::channel();
    let notes = Arc::clone(notes);
    stage.far.spawn(async move {
        let server = CloudServer::with(|config| {
            config.listen.tls = (FAR, 0).into();
            config.recordings.path = Some(config.storage.data_dir.join("recordings"));
        })
        .await;
        let token = server.add_agent(AGENT).await;
        let file = server.agent_json(AGENT, &token, server.addresses().tls);
        let recordings = server.config().recordings.path.clone().expect("it was just set");
        // Who waits below is there.
        let _ = tell.send((file, recordings));
        watch(server.server().hub(), &notes).await;
    });
    told.recv().map_err(|_| "the server did not start".to_owned())
}

async fn watch(hub: &Arc<Hub>, notes: &Notes) {
    let find = || match hub.find(AGENT, "main") {
        Found::Source(source) => Some(source),
        _ => None,
    };
    let source = wait::found("the camera's source", PATIENCE, find).await;
    loop {
        // Whether both tracks are there already or one: the viewer is told of changes.
        if source.wait_presentation(PATIENCE).await.is_err() {
            continue;
        }
        let mut viewer = source.join(u32::MAX);
        let mut frames = Vec::new();
        while let Ok(_skipped) = viewer.next(&mut frames).await {
            let now = Instant::now();
            for frame in &frames {
                notes.live_octets.fetch_add(frame.octets as usize, Ordering::Relaxed);
                if let Some(number) = picture::number(&frame.data) {
                    lock(&notes.arrived).push((number, frame.key, now));
                }
            }
        }
    }
}

fn agent(stage: &Stage, notes: &Arc<Notes>, mut file: Value, card: &FilePath) -> Result<Arc<Agent>, String> {
    file["agent"]["log_level"] = "DEBUG".into();
    file["streaming"]["buffer_size"] = MEMORY.into();
    file["storage"] = json!({"path": card, "max_bytes": CARD});
    let config = Config::from_json(&file.to_string()).map_err(|error| error.to_string())?;
    let ear = Arc::clone(notes);
    let host = Host {
        logger: Some(Arc::clone(notes) as Arc<dyn log::Log>),
        on_event: Some(Box::new(move |event| ear.hear(&event))),
        ..Host::default()
    };
    let agent = stage.link.near.within(|| Agent::start(config, host)).map_err(|error| error.to_string())?;
    let track = |number, track| agent.set_track(number, track).map_err(|error| error.to_string());
    track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB))?;
    track(1, TrackDescription::audio("main", Codec::Pcma, Framing::Raw, 8_000, 1))?;
    Ok(Arc::new(agent))
}

/// The camera.
fn play(agent: &Agent, notes: &Notes) -> Result<(), camagent_testkit::core::Error> {
    be_prompt();
    let mut pictures = Pictures::new();
    let one = VIDEO as usize / 8 * PICTURE_EVERY.as_millis() as usize / 1_000 * GROUP as usize
        / (GROUP as usize + KEY_FACTOR - 1);
    let (begun, mut due, mut of_group) = (Instant::now(), Instant::now(), 0);
    for number in 0.. {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if notes.is_over.load(Ordering::Relaxed) {
            break;
        }
        let every = if notes.is_hurried.load(Ordering::Relaxed) { PICTURE_EVERY / HURRY } else { PICTURE_EVERY };
        let pts_us = due.duration_since(begun).as_micros() as i64;
        due += every;
        // Nobody asked before the first one.
        let is_asked = notes.is_key_wanted.swap(false, Ordering::Relaxed);
        of_group = if of_group == GROUP || is_asked || number == 0 { 1 } else { of_group + 1 };
        let octets = if of_group == 1 { one * KEY_FACTOR } else { one };
        let data = pictures.make(number, of_group == 1, octets);
        lock(&notes.pushed).push(Instant::now());
        agent.push_frame(0, Frame { pts_us, dts_us: pts_us, data, ..Frame::default() })?;
        notes.pushed_octets.fetch_add(data.len(), Ordering::Relaxed);
        for piece in 0..2_i64 {
            let pts_us = pts_us + piece * every.as_micros() as i64 / 2;
            agent.push_frame(1, Frame { pts_us, dts_us: pts_us, data: &[0x55; SOUND], ..Frame::default() })?;
        }
    }
    Ok(())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            return Err(format!("{what}: not within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn measure(stage: &Stage, notes: &Notes, recordings: &FilePath, agent: &Agent) -> Result<Round, String> {
    until("a live picture", || !lock(&notes.arrived).is_empty())?;
    std::thread::sleep(SETTLED);
    let before = count(stage, notes, recordings);
    std::thread::sleep(ALONE);
    let after = count(stage, notes, recordings);
    let (alone_wire, alone_for) = (after.wire - before.wire, after.at - before.at);
    // What files have beside frames.
    let wrapped = (after.recorded - before.recorded) as f64 / (after.live - before.live) as f64;
    let alone = notes.delays(before.at, after.at - Duration::from_secs(1));

    stage.link.change(Change::BlackHole(Flows::All));
    until("the end of the session", || !agent.is_connected())?;
    notes.is_hurried.store(true, Ordering::Relaxed);
    let full = notes.pushed_octets.load(Ordering::Relaxed) + CARD as usize * 5 / 4;
    until("a full card", || notes.pushed_octets.load(Ordering::Relaxed) >= full)?;
    notes.is_hurried.store(false, Ordering::Relaxed);
    std::thread::sleep(SETTLED);
    let from = Instant::now();
    let is_pausing = || {
        let ended = *lock(&notes.ended);
        ended.is_some_and(|(at, pause)| at > from && at.elapsed() < Duration::from_millis(20) && pause > LONG_ENOUGH)
    };
    until("a pause between attempts", is_pausing)?;
    let (healed_at, seen) = (Instant::now(), lock(&notes.arrived).len());
    stage.link.change(Change::Heal);
    let key = || lock(&notes.arrived)[seen..].iter().find(|(_, is_key, _)| *is_key).map(|(_, _, at)| *at);
    until("a live key frame", || key().is_some())?;
    let after_heal = |times: &Mutex<Vec<Instant>>| lock(times).iter().find(|at| **at > healed_at).copied();
    let dialled = after_heal(&notes.dials).ok_or("no dial was seen")?;
    let session = after_heal(&notes.sessions).ok_or("no session was seen")?;
    let key = key().ok_or("no live key frame was seen")?;

    std::thread::sleep(SETTLED);
    let before = count(stage, notes, recordings);
    std::thread::sleep(BESIDE);
    let after = count(stage, notes, recordings);
    // The last ones may still be on their way.
    std::thread::sleep(Duration::from_secs(2));
    let beside = notes.delays(before.at, after.at - Duration::from_secs(1));
    let seconds = (after.at - before.at).as_secs_f64();
    let alone_wire = alone_wire as f64 * seconds / alone_for.as_secs_f64();
    let spare = RATE as f64 / 8.0 * seconds - alone_wire;
    let past = (after.recorded - before.recorded) as f64 / wrapped - (after.live - before.live) as f64;
    if past > CARD as f64 * 0.9 {
        return Err("the past was at its end while it was measured".into());
    }
    Ok(Round {
        session_s: session.saturating_duration_since(dialled).as_secs_f64(),
        key_s: key.saturating_duration_since(dialled).as_secs_f64(),
        share: past / spare,
        wire: ((after.wire - before.wire) as f64 - alone_wire) / spare,
        alone,
        beside,
    })
}

fn measured(rounds: &[Round], busy: &str) -> Measured {
    let together = |of: fn(&Round) -> &Vec<f64>| {
        let mut all: Vec<_> = rounds.iter().flat_map(|round| of(round).clone()).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let (alone, beside) = (together(|round| &round.alone), together(|round| &round.beside));
    let delay = |part| percentile(&beside, part) / percentile(&alone, part);
    let slowest = rounds.iter().map(|round| round.key_s).fold(0.0, f64::max);
    let share = median(rounds.iter().map(|round| round.share));
    let bars = [
        at_most("seconds from the dial to the first live key frame, the slowest round", slowest, 1.5),
        at_least("share of the spare rate, octets of frames", share, 0.9),
        at_most("live delay p50, times that without the past", delay(0.5), 1.2),
        at_most("live delay p95, times that without the past", delay(0.95), 1.2),
    ];
    let rows: Vec<_> = rounds
        .iter()
        .map(|round| {
            let [alone, beside] = [&round.alone, &round.beside];
            json!({
                "bench": "journal-backfill", "session_s": rounded(round.session_s), "key_s": rounded(round.key_s),
                "share": rounded(round.share), "wire": rounded(round.wire),
                "alone_p50_ms": rounded(percentile(alone, 0.5)), "alone_p95_ms": rounded(percentile(alone, 0.95)),
                "beside_p50_ms": rounded(percentile(beside, 0.5)), "beside_p95_ms": rounded(percentile(beside, 0.95)),
            })
        })
        .collect();
    let text = format!(
        "An uplink of {} Mbit/s with 60 ms round trip and {QUEUE} octets of queue is a black hole until the card of {} MB is full (spill, \
         filled {HURRY} times as fast as a camera would), and then well again. Live is H.264 of {} Mbit/s with a key frame every two seconds \
         and G.711; the encoder makes a key frame when it is asked. Seconds are from the beginning of the dial that succeeds (TCP, TLS and \
         WebSocket are in them) until the server's hub has the whole first key frame. The spare rate is what the link carries less what live \
         alone took of it, headers included; the past is counted by the recordings' files, less live and what files have beside frames. \
         Live delays are from the push to the hub, whole pictures, {} s without and {} s with the past. {} rounds at once, each on a link of \
         its own. The machine's load average was {busy} when it began.\n\n{}",
        RATE / 1_000_000,
        CARD >> 20,
        VIDEO / 1_000_000,
        ALONE.as_secs(),
        BESIDE.as_secs(),
        rounds.len(),
        bars.join("\n"),
    );
    let columns = vec![
        ("session_s", "session, s"),
        ("key_s", "live key frame, s"),
        ("share", "share of the spare rate"),
        ("wire", "the same on the wire"),
        ("alone_p50_ms", "live alone p50, ms"),
        ("beside_p50_ms", "beside the past"),
        ("alone_p95_ms", "live alone p95, ms"),
        ("beside_p95_ms", "beside the past"),
    ];
    Measured { name: "journal-backfill", title: "Back from an outage", text, columns, rows, shown: None }
}

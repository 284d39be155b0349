//! How long a camera's thread is held up by a push, while everything behind it stands still: card, network, both full.
//! A copy of the same octets into memory of the same size, made in turn with the pushes by the same thread, says how fast
//! this machine was at that moment.

use std::hint::black_box;
use std::time::{Duration, Instant};

use camagent_testkit::core::{Agent, Codec, Config, Frame, Framing, Host, Pushed, TrackDescription};
use camagent_testkit::emulator::{Change, FAR, Flows, Path, Setup, be_prompt};
use camagent_testkit::{Card, CloudServer, allocations};
use serde_json::{Value, json};

use super::{Amount, at_most, percentile, rounded};
use crate::page::Measured;
use crate::stage::Stage;

/// Octets of each frame.
const OCTETS: usize = 256 << 10;
/// The journal's memory, the usual one.
const BUFFER: usize = 2 << 20;
/// Pushes of each case in a round.
const PUSHES: usize = 1_000;
/// A push so often: two gigabits a second would be the most, and this is 262 Mbit/s.
const EVERY: Duration = Duration::from_millis(8);
/// From key frame to key frame.
const GROUP: usize = 4;
/// Before anything counts: memory fills, and the card has something.
const WARM_UP: usize = 64;
const ROUNDS: usize = 3;
/// The card, and what the journal may take of it.
const CARD: u64 = 192 << 20;
const CAP: u64 = 64 << 20;
/// The bar: times the copy.
const BAR: f64 = 1.5;
/// How long a session may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one case gave, in microseconds.
#[derive(Default)]
struct Times {
    copies: Vec<f64>,
    pushes: Vec<f64>,
    heap_calls: u32,
}

type Case = (&'static str, &'static str, fn() -> Result<Times, String>);

const CASES: &[Case] = &[
    ("connected", "connected over loopback, nothing stands still", connected),
    ("no network", "memory alone, no server in reach", || case(Host::default(), Value::Null, |_| Ok(()))),
    ("black hole", "connected, then the network swallows everything", black_hole),
    ("card", "a card that is well, no server in reach", || with_card(|_| Ok(()), |_| Ok(()))),
    ("card stalled", "a card on which every write waits for ever", || with_card(|_| Ok(()), Card::freeze)),
    ("card full", "a card without room", || with_card(|card| card.fill(), |_| Ok(()))),
];

pub(super) fn run(amount: &Amount) -> Result<(Measured, bool), String> {
    let rounds = amount.rounds.unwrap_or(ROUNDS);
    let busy = crate::load_average();
    let mut all: Vec<Times> = CASES.iter().map(|_| Times::default()).collect();
    for round in 0..rounds {
        for ((name, _, measure), times) in CASES.iter().zip(&mut all) {
            let measure = *measure;
            // On a thread of its own: a card is mounted for it alone.
            let thread = std::thread::spawn(measure);
            let new = thread.join().map_err(|_| format!("{name}: it panicked"))?;
            let new = new.map_err(|error| format!("{name}: {error}"))?;
            crate::note(&format!("push, round {} of {rounds}, {name}: {}", round + 1, summary(&new)));
            times.copies.extend(new.copies);
            times.pushes.extend(new.pushes);
            times.heap_calls += new.heap_calls;
        }
    }
    Ok((measured(&mut all, rounds, &busy), rounds >= ROUNDS))
}

fn summary(times: &Times) -> String {
    let sorted = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times
    };
    let (copies, pushes) = (sorted(&times.copies), sorted(&times.pushes));
    let of = |times: &[f64]| [0.5, 0.99].map(|part| percentile(times, part));
    let ([copy, copy99], [push, push99]) = (of(&copies), of(&pushes));
    format!("copy {copy:.1} p99 {copy99:.1} us, push {push:.1} p99 {push99:.1} us, {} heap calls", times.heap_calls)
}

fn config(storage: Value) -> Result<Config, String> {
    let mut file = json!({
        "agent": {"agent_id": "bench", "cloud_server_url": "ws://127.0.0.1:9/agent", "cloud_server_token": "t"},
        "streaming": {"buffer_size": BUFFER},
    });
    if !storage.is_null() {
        file["storage"] = storage;
    }
    Config::from_json(&file.to_string()).map_err(|error| error.to_string())
}

/// Nothing listens where this agent dials.
fn case(host: Host, storage: Value, before: impl FnOnce(&Agent) -> Result<(), String>) -> Result<Times, String> {
    let agent = Agent::start(config(storage)?, host).map_err(|error| error.to_string())?;
    let mut camera = Camera::of(&agent)?;
    for _ in 0..WARM_UP {
        camera.push_when_due(&mut Times::default())?;
    }
    before(&agent)?;
    camera.measure()
}

fn with_card(
    prepare: impl FnOnce(&mut Card) -> Result<(), String>,
    then: impl FnOnce(&mut Card) -> Result<(), String>,
) -> Result<Times, String> {
    let mut card = Card::make(CARD)?;
    prepare(&mut card)?;
    let storage = json!({"path": card.folder(), "max_bytes": CAP, "mode": "write_ahead"});
    let times = case(Host::default(), storage, |_| then(&mut card));
    card.thaw();
    times
}

fn connected() -> Result<Times, String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let server = runtime.block_on(CloudServer::start());
    let token = runtime.block_on(server.add_agent("bench"));
    let file = server.agent_json("bench", &token, server.addresses().tls);
    let agent = session(&file, |config| Agent::start(config, Host::default()))?;
    let mut camera = Camera::of(&agent)?;
    for _ in 0..WARM_UP {
        camera.push_when_due(&mut Times::default())?;
    }
    camera.measure()
}

fn black_hole() -> Result<Times, String> {
    let path = Path { rate: Some(50_000_000), delay: Duration::from_millis(10), queue: 250_000, ..Path::default() };
    let stage = Stage::make(Setup { up: path.clone(), down: path, seed: 1, script: Vec::new() })?;
    let (tell, told) = std::sync::mpsc::channel();
    stage.far.spawn(async move {
        let server = CloudServer::with(|config| config.listen.tls = (FAR, 0).into()).await;
        let token = server.add_agent("bench").await;
        // Who waits below is there.
        let _ = tell.send(server.agent_json("bench", &token, server.addresses().tls));
        std::future::pending::<()>().await;
    });
    let file = told.recv().map_err(|_| "the server did not start".to_owned())?;
    let agent = session(&file, |config| stage.link.near.within(|| Agent::start(config, Host::default())))?;
    let mut camera = Camera::of(&agent)?;
    stage.link.change(Change::BlackHole(Flows::All));
    for _ in 0..WARM_UP {
        camera.push_when_due(&mut Times::default())?;
    }
    camera.measure()
}

fn session(
    file: &Value,
    start: impl FnOnce(Config) -> Result<Agent, camagent_testkit::core::Error>,
) -> Result<Agent, String> {
    let mut file = file.clone();
    file["agent"]["log_level"] = "WARN".into();
    file["streaming"]["buffer_size"] = BUFFER.into();
    let config = Config::from_json(&file.to_string()).map_err(|error| error.to_string())?;
    let agent = start(config).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    while !agent.is_connected() {
        if begun.elapsed() > PATIENCE {
            return Err("the agent does not reach its server".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(agent)
}

/// The thread that pushes.
struct Camera<'a> {
    agent: &'a Agent,
    picture: Vec<u8>,
    /// Where copies go: as large as the journal's memory, written from front to back and again.
    room: Vec<u8>,
    number: usize,
    due: Instant,
}

impl<'a> Camera<'a> {
    fn of(agent: &'a Agent) -> Result<Self, String> {
        agent
            .set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB))
            .map_err(|error| error.to_string())?;
        be_prompt();
        let mut picture = vec![0xa5; OCTETS];
        picture[..6].copy_from_slice(&[0, 0, 0, 1, 0x65, 0x88]);
        Ok(Self { agent, picture, room: vec![1; BUFFER], number: 0, due: Instant::now() })
    }

    fn measure(mut self) -> Result<Times, String> {
        let mut times = Times { copies: Vec::with_capacity(PUSHES), pushes: Vec::with_capacity(PUSHES), heap_calls: 0 };
        for _ in 0..PUSHES {
            self.push_when_due(&mut times)?;
        }
        Ok(times)
    }

    /// One picture, pushed and copied; which comes first takes turns, because the second finds the picture in the cache.
    fn push_when_due(&mut self, times: &mut Times) -> Result<(), String> {
        std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
        self.due = Instant::now() + EVERY;
        let is_copied_first = self.number.is_multiple_of(2);
        // A group of pictures ends where the turns do not.
        self.picture[4] = if self.number.is_multiple_of(GROUP + 1) { 0x65 } else { 0x41 };
        if is_copied_first {
            times.copies.push(self.copy());
        }
        let pts_us = self.number as i64 * EVERY.as_micros() as i64;
        let frame = Frame { pts_us, dts_us: pts_us, data: &self.picture, ..Frame::default() };
        let calls = allocations::calls();
        let begun = Instant::now();
        let pushed = self.agent.push_frame(0, frame);
        let elapsed = begun.elapsed();
        times.heap_calls += allocations::calls().wrapping_sub(calls);
        if !is_copied_first {
            times.copies.push(self.copy());
        }
        self.number += 1;
        match pushed {
            Ok(Pushed::Kept) => times.pushes.push(elapsed.as_secs_f64() * 1e6),
            Ok(other) => return Err(format!("a frame was not kept: {other:?}")),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    fn copy(&mut self) -> f64 {
        let at = self.number * OCTETS % BUFFER;
        let begun = Instant::now();
        self.room[at..at + OCTETS].copy_from_slice(black_box(&self.picture));
        let elapsed = begun.elapsed();
        black_box(&self.room);
        elapsed.as_secs_f64() * 1e6
    }
}

fn measured(all: &mut [Times], rounds: usize, busy: &str) -> Measured {
    let (mut rows, mut bars) = (Vec::new(), Vec::new());
    let mut p99 = std::collections::BTreeMap::new();
    for ((name, what, _), times) in CASES.iter().zip(all) {
        times.copies.sort_by(f64::total_cmp);
        times.pushes.sort_by(f64::total_cmp);
        let ratio = |part| percentile(&times.pushes, part) / percentile(&times.copies, part);
        let of = |times: &[f64], part| rounded(percentile(times, part));
        rows.push(json!({
            "bench": "journal-push", "case": name, "what": what,
            "copy_p50_us": of(&times.copies, 0.5), "copy_p99_us": of(&times.copies, 0.99),
            "push_p50_us": of(&times.pushes, 0.5), "push_p99_us": of(&times.pushes, 0.99),
            "push_max_us": of(&times.pushes, 1.0), "ratio_p50": rounded(ratio(0.5)), "ratio_p99": rounded(ratio(0.99)),
            "heap_calls": times.heap_calls, "pushes": times.pushes.len(),
        }));
        // A network that takes everything shares the memory with the camera; the bar is for what stands still.
        if *name != "connected" {
            bars.push(at_most(&format!("{name}: p99 of a push, times that of the copy"), ratio(0.99), BAR));
        }
        p99.insert(*name, ratio(0.99));
    }
    let heap_calls: u64 = rows.iter().filter_map(|row| row["heap_calls"].as_u64()).sum();
    bars.push(at_most("heap calls of the pushing thread, all cases together", heap_calls as f64, 0.0));
    let beside = |stalled: &str, well: &str| rounded(p99[stalled] / p99[well]);
    let text = format!(
        "Microseconds that `push_frame` of {OCTETS} octets takes (the call behind `camagent_push_frame`), and a copy of the same \
         octets by the same thread, in turn with it, into memory as large as the journal's ({BUFFER} octets, from front to back and \
         again). A push every {} ms; the pushing thread has the lowest real-time priority, so that it is not measured what else the \
         machine does. The card is ext4 on a loop device; stalled is frozen (fsfreeze). {} pushes of each case in each of {rounds} rounds. \
         The machine's load average was {busy} when it began.\n\n{}\n\nThe p99 ratio with the card stalled is {} of that with a card that is \
         well, with the card full {}, in a black hole {} of that connected, where the agent reads and encrypts the same memory meanwhile \
         (there is no bar for that case).",
        EVERY.as_millis(),
        PUSHES,
        bars.join("\n"),
        beside("card stalled", "card"),
        beside("card full", "card"),
        beside("black hole", "connected"),
    );
    let columns = vec![
        ("what", ""),
        ("copy_p50_us", "copy p50"),
        ("copy_p99_us", "copy p99"),
        ("push_p50_us", "push p50"),
        ("push_p99_us", "push p99"),
        ("push_max_us", "push max"),
        ("ratio_p50", "p50 ratio"),
        ("ratio_p99", "p99 ratio"),
        ("heap_calls", "heap calls"),
    ];
    Measured { name: "journal-push", title: "Pushing while everything stands still", text, columns, rows, shown: None }
}

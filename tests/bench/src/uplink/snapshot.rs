//! A main stream that leaves little room, and a person who wants a snapshot meanwhile: both through tunnels, of camagent and
//! of peers as programs, once without losses and once with.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camagent_testkit::emulator::{FAR, Loss, Path, Setup};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Amount;
use super::report::{percentile, rounded, short, sorted};
use super::traffic::{Flow, Inlet, Load, Outlet, Traffic, drain, feed, noise};
use crate::page::Measured;
use crate::programs::{ALL, Contender, Ground, Place, Service};
use crate::stage::Stage;

/// What `--work` takes.
pub(super) const NAME: &str = "snapshot";
/// Bits a second of the main stream.
const MAIN: u64 = 8_000_000;
/// Octets of a snapshot: a JPEG of 704x576 in fair quality.
const SNAPSHOT: usize = 40_000;
/// One is asked for so often.
const EVERY: Duration = Duration::from_millis(500);
/// Who has not got it by then does not get it.
const PATIENCE: Duration = Duration::from_secs(10);
const WARM_UP: Duration = Duration::from_secs(4);
/// How long each turn is measured.
const LENGTH: Duration = Duration::from_secs(15);
/// The bar: the 95th percentile without losses.
const BAR_MS: f64 = 300.0;
/// Parts of packets that are lost.
const LOSSES: [f64; 2] = [0.0, 0.01];

/// What one turn of one contender gave.
struct Turn {
    /// Milliseconds from the connect to the last octet, of every snapshot.
    snapshots: Vec<f64>,
    /// Bits a second of the main stream.
    main: f64,
}

/// Measures everybody who is there.
pub(super) fn run(amount: &Amount, rounds: usize, ground: &Ground) -> Result<(Measured, bool), String> {
    let busy = crate::load_average();
    let length = amount.length.unwrap_or(LENGTH);
    let (mut present, mut introductions) = (Vec::new(), Vec::new());
    for contender in ALL.iter().filter(|contender| amount.only.as_deref().is_none_or(|only| only == contender.who)) {
        match (contender.introduce)(ground) {
            Ok(introduction) => {
                present.push((contender, [Vec::new(), Vec::new()]));
                introductions.push(introduction);
            }
            Err(why) => introductions.push(format!("{} did not take part: {why}", contender.who)),
        }
    }
    let count = present.len();
    for round in 0..rounds {
        for turn in 0..count {
            let (contender, results) = &mut present[(round + turn) % count];
            let contender: &'static Contender = contender;
            // With and without losses at once, each on a link of its own.
            let turns = std::thread::scope(|scope| {
                let begin = |loss| scope.spawn(move || measure(contender, ground, loss, length));
                LOSSES.map(begin).map(|thread| thread.join().expect("a turn does not panic"))
            });
            for ((turn, all), loss) in turns.into_iter().zip(results).zip(LOSSES) {
                let turn =
                    turn.map_err(|error| format!("{NAME}, {} in round {}: {error}", contender.who, round + 1))?;
                let times = sorted(turn.snapshots.iter().copied());
                let at = |part| short(percentile(&times, part));
                crate::note(&format!(
                    "{NAME}, round {} of {}, {}, {} % lost: {} / {} / {} ms; main stream {:.0} kbit/s",
                    round + 1,
                    rounds,
                    contender.who,
                    loss * 100.0,
                    at(0.50),
                    at(0.95),
                    at(0.99),
                    turn.main / 1e3,
                ));
                all.push(turn);
            }
        }
    }
    let is_enough = rounds >= crate::ROUNDS && length >= LENGTH && amount.only.is_none();
    Ok((measured(&present, &introductions, rounds, length, &busy), is_enough))
}

fn measure(contender: &'static Contender, ground: &Ground, loss: f64, length: Duration) -> Result<Turn, String> {
    let path = |rate| Path {
        rate: Some(rate),
        delay: Duration::from_millis(40),
        loss: if loss > 0.0 { Loss::Single(loss) } else { Loss::Never },
        queue: 250_000,
        ..Path::default()
    };
    let stage = Stage::make(Setup { up: path(10_000_000), down: path(40_000_000), seed: 1, script: Vec::new() })?;
    let place = Place { sides: Some((&stage.link.near, &stage.link.far)), address: FAR };
    let load = Load { control: false, audio: false, video: MAIN, bulk: false };
    let traffic = Traffic::of(load);
    let listen = |name| {
        let bound = stage.near.run(TcpListener::bind(("127.0.0.1", 0)));
        let listener = bound.map_err(|error| format!("the camera's service: {error}"))?;
        let source = listener.local_addr().map_err(|error| error.to_string())?;
        Ok::<_, String>((listener, Service { name, source }))
    };
    let ((main, main_service), (picture, picture_service)) = (listen("main")?, listen("picture")?);
    let notes = Arc::clone(&traffic);
    stage.near.spawn(async move {
        while let Ok((visitor, _)) = main.accept().await {
            tokio::spawn(feed(Arc::clone(&notes), Flow::Video, Outlet::Octets(Box::new(visitor))));
        }
    });
    stage.near.spawn(serve(picture));
    let mut tunnel = (contender.start)(ground, &place, &[main_service, picture_service])?;
    let (main, picture) = (tunnel.doors[0], tunnel.doors[1]);
    tunnel.wait(|| {
        let got = stage.far.run(async move { tokio::time::timeout(Duration::from_secs(3), get(picture)).await });
        got.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    })?;
    let visitor = stage.far.run(TcpStream::connect(main)).map_err(|error| format!("the main stream: {error}"))?;
    stage.far.spawn(drain(Arc::clone(&traffic), Flow::Video, Inlet::Octets(Box::new(visitor))));
    std::thread::sleep(WARM_UP);
    let (begun, before) = (Instant::now(), traffic.octets()[Flow::Video as usize]);
    let snapshots = Arc::new(Mutex::new(Vec::new()));
    let count = (length.as_millis() / EVERY.as_millis()) as u32;
    let noted = Arc::clone(&snapshots);
    let asked = stage.far.spawn(async move {
        let mut visitors = tokio::task::JoinSet::new();
        for number in 0..count {
            let due = begun + EVERY * number;
            tokio::time::sleep_until(due.into()).await;
            let noted = Arc::clone(&noted);
            visitors.spawn(async move {
                let got = tokio::time::timeout(PATIENCE, get(picture)).await;
                let time =
                    if matches!(got, Ok(Ok(()))) { due.elapsed().as_secs_f64() * 1_000.0 } else { f64::INFINITY };
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(time);
            });
        }
        visitors.join_all().await;
    });
    std::thread::sleep((begun + length).saturating_duration_since(Instant::now()));
    let octets = traffic.octets()[Flow::Video as usize] - before;
    let main = octets as f64 * 8.0 / begun.elapsed().as_secs_f64();
    traffic.check().map_err(|why| format!("{why}; {}; {}", tunnel.server.last_words(), tunnel.agent.last_words()))?;
    stage.far.run(asked).map_err(|error| error.to_string())?;
    traffic.end();
    let snapshots = std::mem::take(&mut *snapshots.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Turn { snapshots, main })
}

/// The camera's HTTP server.
async fn serve(listener: TcpListener) {
    let body = noise(SNAPSHOT);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SNAPSHOT}\r\nConnection: close\r\n\r\n");
    let answer: Arc<[u8]> = [head.as_bytes(), &body].concat().into();
    while let Ok((mut visitor, _)) = listener.accept().await {
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let (mut request, mut length) = ([0; 256], 0);
            while length < request.len() && !request[..length].ends_with(b"\r\n\r\n") {
                match visitor.read(&mut request[length..]).await {
                    Ok(more) if more > 0 => length += more,
                    _ => return Ok(()),
                }
            }
            visitor.write_all(&answer).await
        });
    }
}

/// One snapshot, whole.
async fn get(door: SocketAddr) -> std::io::Result<()> {
    let mut visitor = TcpStream::connect(door).await?;
    visitor.set_nodelay(true)?;
    visitor.write_all(b"GET /snapshot.jpg HTTP/1.1\r\nHost: camera\r\n\r\n").await?;
    let mut answer = Vec::new();
    visitor.read_to_end(&mut answer).await?;
    match answer.len() > SNAPSHOT && answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(std::io::Error::other(format!("{} octets", answer.len()))),
    }
}

fn measured(
    present: &[(&'static Contender, [Vec<Turn>; 2])],
    introductions: &[String],
    rounds: usize,
    length: Duration,
    busy: &str,
) -> Measured {
    let (mut rows, mut shown, mut verdict) = (Vec::new(), Vec::new(), String::new());
    for (contender, results) in present {
        for (turns, loss) in results.iter().zip(LOSSES) {
            let all = sorted(turns.iter().flat_map(|turn| turn.snapshots.iter().copied()));
            let main = percentile(&sorted(turns.iter().map(|turn| turn.main)), 0.5);
            let at = |part| percentile(&all, part);
            if !contender.is_peer && loss == 0.0 {
                let outcome = if at(0.95) <= BAR_MS { "met" } else { "missed" };
                verdict =
                    format!("* snapshot p95 without losses, ms: {} (bar: <= {BAR_MS}): {outcome}", short(at(0.95)));
            }
            let missing = all.iter().filter(|time| time.is_infinite()).count();
            rows.push(json!({
                "bench": "uplink", "work": NAME, "who": contender.who, "peer": contender.is_peer, "metric": "snapshot_ms",
                "loss": loss, "p50": rounded(at(0.50)), "p95": rounded(at(0.95)), "p99": rounded(at(0.99)),
                "max": rounded(at(1.0)), "messages": all.len(), "missing": missing,
                "goodput_ratio": rounded(main / MAIN as f64), "rounds": turns.len(),
            }));
            let times = [0.50, 0.95, 0.99].map(|part| short(at(part))).join(" / ");
            shown.push(json!({
                "who": contender.who, "loss": format!("{}", loss * 100.0),
                "times": times,
                "main": format!("{:.2}", main / 1e6), "missing": missing,
            }));
        }
    }
    let text = format!(
        "10 Mbit/s up, 80 ms round trip, 250 kB of queue. A visitor pulls a main stream of 8 Mbit/s with a key frame of 280 kB \
         every two seconds through one tunnel; through another somebody gets a snapshot of 40 kB every 500 ms, over a new \
         connection each: milliseconds from its connect to its last octet. {rounds} rounds in turn, {} s each after {} s that do \
         not count, with and without losses at once on links of their own (one cubic connection cannot carry such a stream at \
         1 %: reported, no bar). The machine's load average was {busy} when it began. {}.\n\n{verdict}",
        length.as_secs_f64(),
        WARM_UP.as_secs_f64(),
        introductions.join("; "),
    );
    let columns = vec![
        ("who", ""),
        ("loss", "lost, %"),
        ("times", "snapshot p50 / p95 / p99, ms"),
        ("main", "main stream, Mbit/s"),
        ("missing", "not within 10 s"),
    ];
    let title = "A snapshot while a main stream is pulled";
    Measured { name: "uplink-snapshot", title, text, columns, rows, shown: Some(shown) }
}

//! A connection that dies without a word: its packets are swallowed, as by a NAT or firewall that lost its state, while new
//! connections pass. How long it takes until a visitor of the camera gets an answer again.
//!
//! camagent and peers as programs, each on an emulated link of its own, all at once: everybody waits most of the time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use camagent_testkit::emulator::{Change, FAR, Flows, Path, Setup};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::page::Measured;
use crate::programs::{ALL, Contender, Ground, Place, Service, Tunnel};
use crate::stage::{Stage, be_first};

/// Rounds of a comparison that is kept.
pub(crate) const ROUNDS: usize = 10;
/// Who has not come back by then is not waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Rounds that run at once, each contender of each on a link of its own: everybody waits most of the time.
const AT_ONCE: usize = 5;
/// The hole comes so much later in each round, because heartbeats have a phase.
const LATER: Duration = Duration::from_millis(2_300);
/// The bar: the 95th percentile, in seconds.
const BAR_S: f64 = 8.0;
/// Who takes part: those who come back by themselves.
const WHO: [&str; 3] = ["camagent", "rathole", "chisel"];
/// What the camera pours out all the time, so that octets are on their way when the hole comes: 400 kbit/s.
const POUR_OCTETS: usize = 1_000;
const POUR_EVERY: Duration = Duration::from_millis(20);
/// The visitor of it has seen so much before the hole comes: the connection is well used.
const POURED: usize = 100_000;
/// A new visitor asks so often.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long a visitor waits while the tunnel is being made.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Amount {
    /// Holes for everybody.
    pub(crate) rounds: usize,
    /// The longest wait.
    pub(crate) patience: Duration,
    /// Only this contender.
    pub(crate) only: Option<String>,
}

/// Measures everybody who is there.
pub(crate) fn run(amount: &Amount) -> Result<Measured, String> {
    be_first();
    let certificates = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let ground = Ground::make(certificates.path())?;
    let busy = crate::load_average();
    let (mut present, mut introductions) = (Vec::new(), Vec::new());
    let wanted = |who: &str| WHO.contains(&who) && amount.only.as_deref().is_none_or(|only| only == who);
    for contender in ALL.iter().filter(|contender| wanted(contender.who)) {
        match (contender.introduce)(&ground) {
            Ok(introduction) => {
                present.push((contender, Vec::new()));
                introductions.push(introduction);
            }
            Err(why) => {
                crate::note(&format!("{} does not take part: {why}", contender.who));
                introductions.push(format!("{} did not take part: {why}", contender.who));
            }
        }
    }
    let rounds: Vec<_> = (0..amount.rounds).collect();
    for some in rounds.chunks(AT_ONCE) {
        let times = std::thread::scope(|scope| {
            let begin = |contender: &'static Contender, round: usize| {
                let (ground, later) = (&ground, LATER * round as u32);
                scope.spawn(move || measure(contender, ground, later, amount.patience))
            };
            let all = some.iter().flat_map(|round| (0..present.len()).map(move |number| (*round, number)));
            let threads: Vec<_> = all.map(|(round, number)| (round, number, begin(present[number].0, round))).collect();
            let joined = threads
                .into_iter()
                .map(|(round, number, thread)| (round, number, thread.join().expect("a round does not panic")));
            joined.collect::<Vec<_>>()
        });
        for (round, number, time) in times {
            let (contender, all) = &mut present[number];
            let time = time.map_err(|error| format!("{} in round {}: {error}", contender.who, round + 1))?;
            let words = time.map_or("not back in time".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
            crate::note(&format!("outage, round {} of {}, {}: {words}", round + 1, amount.rounds, contender.who));
            all.push(time.map_or(f64::INFINITY, |time| time.as_secs_f64()));
        }
    }
    Ok(measured(&present, &introductions, amount, &busy))
}

/// One hole: the time from it to the next answer.
fn measure(
    contender: &'static Contender,
    ground: &Ground,
    later: Duration,
    patience: Duration,
) -> Result<Option<Duration>, String> {
    let path = Path { rate: Some(10_000_000), delay: Duration::from_millis(25), queue: 250_000, ..Path::default() };
    let stage = Stage::make(Setup { up: path.clone(), down: path, seed: 1, script: Vec::new() })?;
    let place = Place { sides: Some((&stage.link.near, &stage.link.far)), address: FAR };
    let bound = stage.near.run(TcpListener::bind(("127.0.0.1", 0)));
    let listener = bound.map_err(|error| format!("the camera's service: {error}"))?;
    let source = listener.local_addr().map_err(|error| error.to_string())?;
    stage.near.spawn(serve(listener));
    let mut tunnel = (contender.start)(ground, &place, &[Service { name: "bench", source }])?;
    let door = tunnel.doors[0];
    tunnel.wait(|| {
        let asked = stage.far.run(async move { tokio::time::timeout(FIRST_ANSWER, ask(door)).await });
        asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map(drop)
    })?;
    let (tell, told) = std::sync::mpsc::channel();
    stage.far.spawn(async move {
        // Who waits below is there, or has seen enough.
        let _ = tell.send(pour_in(door, &tell).await);
    });
    let why = |tunnel: &Tunnel| format!("{}; {}", tunnel.server.last_words(), tunnel.agent.last_words());
    match told.recv_timeout(crate::programs::PATIENCE) {
        Ok(Ok(())) => {}
        other => return Err(format!("nothing was poured out: {other:?}; {}", why(&tunnel))),
    }
    std::thread::sleep(later);
    stage.link.change(Change::BlackHole(Flows::Known));
    let begun = Instant::now();
    let answered = stage.far.run(async move { tokio::time::timeout(patience, ask_again(door)).await });
    tunnel.server.still_runs()?;
    tunnel.agent.still_runs()?;
    Ok(answered.is_ok().then(|| begun.elapsed()))
}

/// The camera's service: answers `?`, and pours out for ever at `!`.
async fn serve(listener: TcpListener) {
    while let Ok((mut visitor, _)) = listener.accept().await {
        tokio::spawn(async move {
            if visitor.read_u8().await? == b'?' {
                return visitor.write_all(b".").await;
            }
            let mut pace = tokio::time::interval(POUR_EVERY);
            loop {
                pace.tick().await;
                visitor.write_all(&[b'~'; POUR_OCTETS]).await?;
            }
        });
    }
}

/// One visitor: whether the camera answers.
async fn ask(door: SocketAddr) -> std::io::Result<u8> {
    let mut visitor = TcpStream::connect(door).await?;
    visitor.write_u8(b'?').await?;
    visitor.read_u8().await
}

/// Visitors in a row, each of whom waits as long as it takes, until one is answered.
async fn ask_again(door: SocketAddr) {
    let mut visitors = tokio::task::JoinSet::new();
    let mut pace = tokio::time::interval(ASK_EVERY);
    loop {
        tokio::select! {
            _ = pace.tick() => { visitors.spawn(ask(door)); }
            Some(Ok(Ok(_))) = visitors.join_next() => return,
        }
    }
}

/// A visitor that takes everything; it tells when it is well under way.
async fn pour_in(door: SocketAddr, under_way: &std::sync::mpsc::Sender<std::io::Result<()>>) -> std::io::Result<()> {
    let mut visitor = TcpStream::connect(door).await?;
    visitor.write_u8(b'!').await?;
    let (mut buffer, mut poured) = (vec![0; 16 << 10], 0);
    loop {
        match visitor.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ if poured >= POURED => {}
            more => {
                poured += more;
                if poured >= POURED {
                    // Who does not wait has seen enough.
                    let _ = under_way.send(Ok(()));
                }
            }
        }
    }
}

fn measured(present: &[(&Contender, Vec<f64>)], introductions: &[String], amount: &Amount, busy: &str) -> Measured {
    let longest = amount.patience.as_secs_f64();
    let (mut rows, mut shown, mut verdict) = (Vec::new(), Vec::new(), "");
    for (contender, times) in present {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() as f64 * part).ceil() as usize).clamp(1, times.len()) - 1];
        let value = |part| (at(part).min(longest) * 1_000.0).round() / 1_000.0;
        let words = |part| match at(part) {
            time if time.is_infinite() => format!(">= {longest}"),
            time => format!("{time:.1}"),
        };
        if !contender.is_peer {
            verdict = if at(0.95) <= BAR_S { "met" } else { "missed" };
        }
        rows.push(json!({
            "bench": "outage", "who": contender.who, "peer": contender.is_peer, "metric": "resumed_s",
            "p50": value(0.50), "p95": value(0.95), "max": value(1.0), "longest": longest,
            "not_resumed": times.iter().filter(|time| time.is_infinite()).count(), "rounds": times.len(),
        }));
        shown.push(json!({
            "who": contender.who, "least": words(0.0), "p50": words(0.50), "p95": words(0.95), "max": words(1.0),
            "rounds": times.len(),
        }));
    }
    let text = format!(
        "Seconds from the moment when all packets of the tunnel's connections vanish, with 400 kbit/s on their way to a visitor, \
         until the next visitor of the camera's service gets its answer over a new connection; new connections pass at once. \
         10 Mbit/s, 50 ms round trip; a visitor asks every 200 ms; who is not back in {longest} s is not waited for. {} rounds, {AT_ONCE} \
         of them and everybody at once, each on a link of its own, the hole {} s later in each, with the settings that a fresh installation has (retry or reconnect \
         interval 1 s). The machine's load average was {busy} when it began. wstunnel is in no registry that the bench uses and is \
         left out; ssh does not come back by itself. {}.\n\nThe bar is p95 <= {BAR_S} s for camagent: {verdict}.",
        amount.rounds,
        LATER.as_secs_f64(),
        introductions.join("; "),
    );
    let columns = vec![
        ("who", ""),
        ("least", "least, s"),
        ("p50", "p50, s"),
        ("p95", "p95, s"),
        ("max", "most, s"),
        ("rounds", "rounds"),
    ];
    Measured { name: "outage", title: "A connection that dies without a word", text, columns, rows, shown: Some(shown) }
}

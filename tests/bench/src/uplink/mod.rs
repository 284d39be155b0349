//! What a camera's bad uplink does to control messages and live audio while something else fills it: camagent and peers, the
//! same flows over the same emulated link, everybody in TLS over cubic. In a round everybody runs at once, each on a link of
//! its own: what the machine does meanwhile falls on all of them alike, and a few Mbit/s leave its processors idle.

mod camagent;
pub(crate) mod matrix;
pub(crate) mod quick;
mod rathole;
mod report;
mod snapshot;
mod streams;
mod traffic;
mod works;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camagent_testkit::emulator::{Change, Setting, Setup, Way};

use self::traffic::{Flow, Traffic};
use self::works::Work;
use crate::page::Measured;
use crate::programs::{Contender, Ground};
use crate::stage::{Stage, be_first};

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Amount {
    /// Rounds in which everybody takes part; as many as are kept without.
    pub(crate) rounds: Option<usize>,
    /// How long each turn is measured; its own length for each work without.
    pub(crate) length: Option<Duration>,
    /// Only this contender.
    pub(crate) only: Option<String>,
    /// Only this work.
    pub(crate) work: Option<String>,
    /// The matrix of links instead of the works.
    pub(crate) matrix: bool,
    /// Only this cell of it.
    pub(crate) cell: Option<String>,
}

/// How long messages may still arrive after the last was sent.
const LATE: Duration = Duration::from_secs(15);

/// Starts both ends and the flows; they run as long as what is returned.
type Start = fn(&Stage, &Ground, &Arc<Traffic>) -> Result<Box<dyn Any>, String>;

/// One of those who are compared.
pub(crate) struct Person {
    who: &'static str,
    is_peer: bool,
    /// What it is, its version, and how it carries the flows.
    introduce: fn(&Ground) -> Result<String, String>,
    start: Start,
}

/// What runs as long as the value.
fn running(value: impl Any) -> Box<dyn Any> {
    Box::new(value)
}

const CAMAGENT: Person = Person {
    who: "camagent",
    is_peer: false,
    introduce: |_| {
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!("camagent {version} (agent and server as libraries, WebSocket in TLS, pushed media, a tunnel)"))
    },
    start: |stage, _, traffic| camagent::start(stage, traffic).map(running),
};
const PLAIN: Person = Person {
    who: "plain",
    is_peer: true,
    introduce: |_| Ok("plain (one TLS connection, the most urgent message whenever the socket takes one)".into()),
    start: |stage, ground, traffic| streams::plain(stage, ground, traffic).map(running),
};
const SEPARATE: Person = Person {
    who: "separate",
    is_peer: true,
    introduce: |_| Ok("separate (a TLS connection for each flow)".into()),
    start: |stage, ground, traffic| streams::separate(stage, ground, traffic).map(running),
};
const YAMUX: Person = Person {
    who: "yamux",
    is_peer: true,
    introduce: |_| Ok(format!("yamux {} (rust-yamux over TLS, a stream for each flow)", locked_version("yamux"))),
    start: |stage, ground, traffic| streams::yamux(stage, ground, traffic).map(running),
};
const QMUX: Person = Person {
    who: "qmux",
    is_peer: true,
    introduce: |_| Ok(format!("qmux {} (over TLS, a stream and a priority for each flow)", locked_version("qmux"))),
    start: |stage, ground, traffic| streams::qmux(stage, ground, traffic).map(running),
};
const RATHOLE: Person = Person {
    who: "rathole",
    is_peer: true,
    introduce: |ground| Ok(format!("{}, a tunnel for each flow", (Contender::named("rathole")?.introduce)(ground)?)),
    start: |stage, ground, traffic| rathole::start(stage, ground, traffic).map(running),
};
/// Measured beside camagent on the same link, not in turn with it.
const BESIDE: Person = Person {
    who: "bare socket",
    is_peer: true,
    introduce: |_| Ok("bare socket (plain TCP, nothing else in it)".into()),
    start: |stage, _, traffic| streams::bare(stage, traffic).map(running),
};

/// What one turn of one contender gave.
pub(crate) struct Turn {
    /// Delays in milliseconds, of all messages that were due in the measured time.
    control: Vec<f64>,
    audio: Vec<f64>,
    /// Bits a second of each flow that arrived.
    flows: [f64; 4],
    /// The part of the link's bits that were octets of the flows.
    goodput: f64,
    /// The part of the link's bits that were used at all.
    used: f64,
}

/// Measures every work that is asked for; each is a section of its own, with whether enough was measured to be kept.
pub(crate) fn run(amount: &Amount) -> Result<Vec<(Measured, bool)>, String> {
    be_first();
    let certificates = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let ground = Ground::make(certificates.path())?;
    if amount.matrix || amount.cell.is_some() {
        return Ok(vec![matrix::run(amount, &ground)?]);
    }
    let is_wanted = |name: &str| amount.work.as_deref().is_none_or(|wanted| wanted == name);
    let works: Vec<_> = works::ALL.iter().filter(|work| is_wanted(work.name)).collect();
    if works.is_empty() && !is_wanted(snapshot::NAME) {
        let names: Vec<_> = works::ALL.iter().map(|work| work.name).chain([snapshot::NAME]).collect();
        return Err(format!("--work is one of {}", names.join(", ")));
    }
    let rounds = amount.rounds.unwrap_or(crate::ROUNDS);
    let mut sections = Vec::new();
    for work in works {
        let busy = crate::load_average();
        let length = amount.length.unwrap_or(work.length);
        let (mut people, mut introductions) = (Vec::new(), Vec::new());
        for person in work.people.iter().filter(|person| amount.only.as_deref().is_none_or(|only| only == person.who)) {
            match (person.introduce)(&ground) {
                Ok(introduction) => {
                    people.push(person);
                    introductions.push(introduction);
                }
                Err(why) => {
                    crate::note(&format!("{} does not take part: {why}", person.who));
                    introductions.push(format!("{} did not take part: {why}", person.who));
                }
            }
        }
        let mut results = report::Results::default();
        for round in 0..rounds {
            let turns = std::thread::scope(|scope| {
                let ground = &ground;
                let begin = |person: &'static Person| scope.spawn(move || (work.turn)(work, person, ground, length));
                let threads: Vec<_> = people.iter().map(|person| (*person, begin(person))).collect();
                let joined =
                    threads.into_iter().map(|(person, thread)| (person, thread.join().expect("a turn does not panic")));
                joined.collect::<Vec<_>>()
            });
            for (person, turns) in turns {
                for (who, turn) in
                    turns.map_err(|error| format!("{}, {} in round {}: {error}", work.name, person.who, round + 1))?
                {
                    crate::note(&format!(
                        "{}, round {} of {rounds}, {}: {}",
                        work.name,
                        round + 1,
                        who.who,
                        turn.summary()
                    ));
                    results.add(who, turn);
                }
            }
        }
        let is_enough = rounds >= crate::ROUNDS && length >= work.length && amount.only.is_none();
        sections.push((report::measured(work, length, &introductions, &busy, results), is_enough));
    }
    if is_wanted(snapshot::NAME) {
        sections.push(snapshot::run(amount, rounds, &ground)?);
    }
    Ok(sections)
}

/// One contender alone on a link of its own.
fn alone(
    work: &Work,
    person: &'static Person,
    ground: &Ground,
    length: Duration,
) -> Result<Vec<(&'static Person, Turn)>, String> {
    alone_after(work, person, ground, work.warm_up, length)
}

/// The same after another time that does not count.
fn alone_after(
    work: &Work,
    person: &'static Person,
    ground: &Ground,
    warm_up: Duration,
    length: Duration,
) -> Result<Vec<(&'static Person, Turn)>, String> {
    let setup = (work.setup)()?;
    let stage = Stage::make(setup.clone())?;
    let traffic = Traffic::of(work.load);
    let runs = (person.start)(&stage, ground, &traffic)?;
    let turn = observe(&stage, &setup, &[&traffic], warm_up, length, &(work.script)(length));
    drop(runs);
    Ok(vec![(person, turn?.remove(0))])
}

/// Lets the traffic flow for a while, and then measures it: a turn for each.
fn observe(
    stage: &Stage,
    setup: &Setup,
    all: &[&Arc<Traffic>],
    warm_up: Duration,
    length: Duration,
    script: &[(Duration, Change)],
) -> Result<Vec<Turn>, String> {
    std::thread::sleep(warm_up);
    all.iter().try_for_each(|traffic| traffic.check())?;
    let begun = Instant::now();
    let (octets, link) = (all.iter().map(|traffic| traffic.octets()).collect::<Vec<_>>(), stage.link.counters());
    for (at, change) in script {
        std::thread::sleep((begun + *at).saturating_duration_since(Instant::now()));
        stage.link.change(change.clone());
    }
    std::thread::sleep((begun + length).saturating_duration_since(Instant::now()));
    let ended = Instant::now();
    let seconds = (ended - begun).as_secs_f64();
    let later: Vec<_> = all.iter().map(|traffic| traffic.octets()).collect();
    let used_octets = stage.link.counters().up.octets - link.up.octets;
    all.iter().try_for_each(|traffic| traffic.check())?;
    all.iter().for_each(|traffic| traffic.end());
    let capacity = capacity(setup, script, seconds);
    let mut turns = Vec::new();
    for ((traffic, before), after) in all.iter().zip(octets).zip(later) {
        let delays = |flow| traffic.delays(flow, begun, ended);
        while ended.elapsed() < LATE
            && [Flow::Control, Flow::Audio].into_iter().any(|flow| delays(flow).contains(&f64::INFINITY))
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        let flows: [f64; 4] = std::array::from_fn(|flow| (after[flow] - before[flow]) as f64 * 8.0 / seconds);
        turns.push(Turn {
            control: delays(Flow::Control),
            audio: delays(Flow::Audio),
            flows,
            goodput: flows.iter().sum::<f64>() * seconds / capacity,
            used: used_octets as f64 * 8.0 / capacity,
        });
    }
    Ok(turns)
}

/// Bits that the link can carry upwards while it is measured.
fn capacity(setup: &Setup, script: &[(Duration, Change)], seconds: f64) -> f64 {
    let (mut rate, mut since, mut bits) = (setup.up.rate.unwrap_or_default() as f64, 0.0, 0.0);
    for (at, change) in script {
        if let Change::Set(None | Some(Way::Up), Setting::Rate(Some(next))) = change {
            bits += rate * (at.as_secs_f64() - since);
            (rate, since) = (*next as f64, at.as_secs_f64());
        }
    }
    bits + rate * (seconds - since)
}

/// The version of a library that this program is linked with.
fn locked_version(name: &str) -> &'static str {
    let begin = format!("name = \"{name}\"\nversion = \"");
    let lock = include_str!("../../../../Cargo.lock");
    lock.split_once(&begin).and_then(|(_, rest)| rest.split_once('"')).map_or("?", |(version, _)| version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_link_can_carry_follows_its_rate() {
        let mut setup = Setup::profile("dsl-2m-bloat").unwrap();
        setup.up.rate = Some(2_000_000);
        let at = |seconds, rate| (Duration::from_secs(seconds), Change::Set(Some(Way::Up), Setting::Rate(Some(rate))));
        assert_eq!(capacity(&setup, &[], 10.0), 20e6);
        assert_eq!(capacity(&setup, &[at(2, 1_000_000), at(4, 3_000_000)], 10.0), 4e6 + 2e6 + 18e6);
    }

    #[test]
    fn linked_libraries_have_versions() {
        assert!(locked_version("yamux").starts_with("0."));
        assert_eq!(locked_version("no-such-library"), "?");
    }
}

//! What is measured: each work with its link, its flows, who takes part, and its bars.

use std::time::Duration;

use camagent_testkit::emulator::{Change, Setting, Setup, Way};

use super::report::Results;
use super::traffic::{Load, Traffic};
use super::{BESIDE, CAMAGENT, PLAIN, Person, QMUX, RATHOLE, SEPARATE, Turn, YAMUX, alone, observe, streams};
use crate::programs::Ground;
use crate::stage::Stage;

type Turns = Result<Vec<(&'static Person, Turn)>, String>;

/// One of them.
pub(crate) struct Work {
    /// What `--work` takes.
    pub(crate) name: &'static str,
    /// Its section of the page.
    pub(crate) section: &'static str,
    pub(crate) title: &'static str,
    /// The link and the flows, in words.
    pub(crate) text: &'static str,
    pub(super) people: &'static [&'static Person],
    pub(super) setup: fn() -> Result<Setup, String>,
    pub(super) load: Load,
    /// Flows run so long before they are measured: queues fill, windows grow.
    pub(super) warm_up: Duration,
    /// How long each turn is measured.
    pub(crate) length: Duration,
    /// What happens to the link meanwhile.
    pub(super) script: fn(Duration) -> Vec<(Duration, Change)>,
    pub(super) turn: fn(&Work, &'static Person, &Ground, Duration) -> Turns,
    /// The bars, and whether they are met.
    pub(super) verdict: fn(&Results) -> Vec<(String, bool)>,
}

/// 40 % of the usual link.
const VIDEO: u64 = 800_000;
const EVERYTHING: Load = Load { control: true, audio: true, video: VIDEO, bulk: true };

/// All of them.
pub(crate) const ALL: &[Work] = &[
    Work {
        name: "saturated",
        section: "uplink-saturated",
        title: "A saturated uplink",
        text: "2 Mbit/s up with one second of drop-tail queue (250 kB), 20 ms round trip. Four flows for everybody: a control \
               message of 64 octets every 100 ms, G.711 audio in pieces of 20 ms, 800 kbit/s of video, and a bulk that takes \
               whatever is left.",
        people: &[&CAMAGENT, &PLAIN, &SEPARATE, &YAMUX, &QMUX, &RATHOLE],
        setup: || Setup::profile("dsl-2m-bloat"),
        load: EVERYTHING,
        warm_up: Duration::from_secs(6),
        length: Duration::from_secs(15),
        script: |_| Vec::new(),
        turn: alone,
        verdict: |results| {
            let own = results.of("camagent");
            let mut bars = vec![
                at_most("control delay p95, ms", own.control(0.95), 80.0),
                at_most("audio delay p95, ms", own.audio(0.95), 120.0),
                at_least("goodput, part of the link's bits", own.goodput(), 0.93),
            ];
            for (who, factor) in [("qmux", 10.0), ("yamux", 25.0)] {
                if results.has(who) {
                    let times = results.of(who).control(0.95) / own.control(0.95);
                    bars.push(at_least(&format!("control delay p95, times shorter than {who}'s"), times, factor));
                }
            }
            bars
        },
    },
    Work {
        name: "steps",
        section: "uplink-steps",
        title: "An uplink whose rate jumps",
        text: "The same flows and link, whose rate is 2, then 0.7, then 2 Mbit/s for a third of the time each; nobody is told. \
               The queue keeps its 250 kB, which are 2.9 s at the low rate.",
        people: &[&CAMAGENT, &PLAIN, &SEPARATE],
        setup: || Setup::profile("dsl-2m-bloat"),
        load: EVERYTHING,
        warm_up: Duration::from_secs(6),
        length: Duration::from_secs(42),
        script: |length| {
            let rate = |rate| Change::Set(Some(Way::Up), Setting::Rate(Some(rate)));
            vec![(length / 3, rate(700_000)), (length * 2 / 3, rate(2_000_000))]
        },
        turn: alone,
        verdict: |results| {
            let own = results.of("camagent");
            let mut bars = vec![
                at_most("control delay p95, ms", own.control(0.95), 250.0),
                at_most("control delay p99, ms", own.control(0.99), 600.0),
            ];
            if results.has("plain") {
                let share = own.goodput() / results.of("plain").goodput();
                bars.push(at_least("goodput, part of the plain socket's", share, 0.93));
            }
            bars
        },
    },
    Work {
        name: "neighbour",
        section: "uplink-neighbour",
        title: "Another device uploads over the same uplink",
        text: "2 Mbit/s up with one second of drop-tail queue, 20 ms round trip. A plain TCP connection of another device uploads \
               as fast as it can; camagent carries control, audio and 800 kbit/s of video, and beside it a bare TCP socket the \
               same audio, all at once on one link.",
        people: &[&CAMAGENT],
        setup: || Setup::profile("dsl-2m-bloat"),
        load: Load { control: true, audio: true, video: VIDEO, bulk: false },
        warm_up: Duration::from_secs(6),
        length: Duration::from_secs(20),
        script: |_| Vec::new(),
        turn: with_neighbour,
        verdict: |results| {
            let times = |part: f64| results.of("camagent").audio(part) / results.of("bare socket").audio(part);
            vec![
                at_most("audio delay p50, times that of the bare socket", times(0.50), 1.5),
                at_most("audio delay p95, times that of the bare socket", times(0.95), 1.5),
            ]
        },
    },
];

fn at_most(what: &str, value: f64, bar: f64) -> (String, bool) {
    let met = value <= bar;
    (format!("{what}: {} (bar: <= {bar})", super::report::short(value)), met)
}

fn at_least(what: &str, value: f64, bar: f64) -> (String, bool) {
    let met = value >= bar;
    (format!("{what}: {} (bar: >= {bar})", super::report::short(value)), met)
}

/// camagent, a bare audio socket and the upload of another device on one link.
fn with_neighbour(work: &Work, person: &'static Person, ground: &Ground, length: Duration) -> Turns {
    let setup = (work.setup)()?;
    let stage = Stage::make(setup.clone())?;
    let nothing = Load { control: false, audio: false, video: 0, bulk: false };
    let (own, beside) = (Traffic::of(work.load), Traffic::of(Load { audio: true, ..nothing }));
    let neighbour = Traffic::of(Load { bulk: true, ..nothing });
    let runs = (person.start)(&stage, ground, &own)?;
    streams::bare(&stage, &beside)?;
    streams::bare(&stage, &neighbour)?;
    let turns = observe(&stage, &setup, &[&own, &beside, &neighbour], work.warm_up, length, &[]);
    drop(runs);
    let mut turns = turns?.into_iter();
    let (own, beside) = (turns.next(), turns.next());
    Ok([(person, own), (&BESIDE, beside)].into_iter().filter_map(|(who, turn)| Some((who, turn?))).collect())
}

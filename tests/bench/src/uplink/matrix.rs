//! Many different links, a short cell each: rates, round trips, losses and queues so that every pair of values meets in some
//! cell. In each camagent carries everything at once; beside it, on links of their own, a bare socket with the audio alone and
//! one with the bulk alone tell what the link allows.

use std::time::Duration;

use camagent_testkit::emulator::{Loss, Path, Setup};
use serde_json::{Value, json};

use super::report::{Turns, short};
use super::traffic::{Load, Traffic};
use super::{Amount, BESIDE, CAMAGENT, Person, observe};
use crate::page::Measured;
use crate::programs::Ground;
use crate::stage::Stage;

const RATES_KBITS: [u64; 6] = [250, 500, 1_000, 2_000, 5_000, 10_000];
const ROUND_TRIPS_MS: [u64; 4] = [10, 60, 150, 600];
const LOSSES_PERCENT: [u64; 3] = [0, 1, 3];
const QUEUES_MS: [u64; 3] = [50, 300, 1_000];
/// Rounds that are kept.
pub(crate) const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_secs(8);
/// How long each cell is measured.
const LENGTH: Duration = Duration::from_secs(12);
/// The bar: the 95th percentile of audio without losses, beyond that of the bare socket.
const BAR_MS: f64 = 120.0;
/// Cells that are measured at once: each waits most of the time.
const AT_ONCE: usize = 4;

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    rate_kbits: u64,
    round_trip_ms: u64,
    loss_percent: u64,
    queue_ms: u64,
}

impl Cell {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for rate_kbits in RATES_KBITS {
            for round_trip_ms in ROUND_TRIPS_MS {
                for loss_percent in LOSSES_PERCENT {
                    all.extend(QUEUES_MS.map(|queue_ms| Self { rate_kbits, round_trip_ms, loss_percent, queue_ms }));
                }
            }
        }
        all
    }

    /// What `--cell` takes.
    fn parse(text: &str) -> Result<Self, String> {
        let values: Vec<u64> = text.split(',').filter_map(|value| value.trim().parse().ok()).collect();
        match values[..] {
            [rate_kbits, round_trip_ms, loss_percent, queue_ms]
                if rate_kbits > 0 && loss_percent < 100 && text.split(',').count() == 4 =>
            {
                Ok(Self { rate_kbits, round_trip_ms, loss_percent, queue_ms })
            }
            _ => Err(format!("--cell is kbit/s,round trip ms,loss %,queue ms, such as 1000,600,0,50; not {text}")),
        }
    }

    fn values(self) -> [u64; 4] {
        [self.rate_kbits, self.round_trip_ms, self.loss_percent, self.queue_ms]
    }

    /// Two values that meet here, with their places.
    fn pairs(self) -> Vec<[(usize, u64); 2]> {
        let values = self.values();
        let places = (0..values.len()).flat_map(|one| (one + 1..values.len()).map(move |other| (one, other)));
        places.map(|(one, other)| [(one, values[one]), (other, values[other])]).collect()
    }

    /// Long round trips with queues that hold them, without losses: among the few cells below these values meet with losses only.
    fn long_and_deep() -> [Self; 3] {
        [(500, 1_000), (2_000, 300), (5_000, 1_000)].map(|(rate_kbits, queue_ms)| Self {
            rate_kbits,
            round_trip_ms: 600,
            loss_percent: 0,
            queue_ms,
        })
    }

    /// Few cells in which every pair of values meets: always the one with the most new pairs.
    fn pairwise() -> Vec<Self> {
        let all = Self::all();
        let mut missing: Vec<_> = all.iter().flat_map(|cell| cell.pairs()).collect();
        missing.sort_unstable();
        missing.dedup();
        let mut chosen = Vec::new();
        while !missing.is_empty() {
            let new = |cell: &&Self| cell.pairs().iter().filter(|pair| missing.binary_search(pair).is_ok()).count();
            // The first of the best, whatever the order of equals in the library.
            let best = all.iter().rev().max_by_key(new).copied().expect("there are cells");
            missing.retain(|pair| !best.pairs().contains(pair));
            chosen.push(best);
        }
        chosen.sort_by_key(|cell| cell.values());
        chosen
    }

    fn setup(self, seed: u64) -> Setup {
        let path = |rate: u64, queue: u64| Path {
            rate: Some(rate),
            delay: Duration::from_millis(self.round_trip_ms) / 2,
            loss: if self.loss_percent == 0 { Loss::Never } else { Loss::Single(self.loss_percent as f64 / 100.0) },
            // Two packets find room on the slowest link.
            queue: queue.max(3_000) as usize,
            ..Path::default()
        };
        let rate = self.rate_kbits * 1_000;
        let up = path(rate, rate / 8 * self.queue_ms / 1_000);
        Setup { up, down: path(rate * 8, 250_000), seed, script: Vec::new() }
    }
}

/// Rounds of one cell.
struct Measurements {
    cell: Cell,
    own: Turns,
    audio: Turns,
    bulk: Turns,
}

/// Measures all cells.
pub(super) fn run(amount: &Amount, ground: &Ground) -> Result<(Measured, bool), String> {
    let busy = crate::load_average();
    let (rounds, length) = (amount.rounds.unwrap_or(ROUNDS), amount.length.unwrap_or(LENGTH));
    let turns = |person| Turns { person, turns: Vec::new() };
    let cells = match &amount.cell {
        Some(cell) => vec![Cell::parse(cell)?],
        None => {
            let mut cells = Cell::pairwise();
            cells.extend(Cell::long_and_deep());
            cells.sort_by_key(|cell| cell.values());
            cells.dedup();
            cells
        }
    };
    let mut all: Vec<_> = cells
        .into_iter()
        .map(|cell| Measurements { cell, own: turns(&CAMAGENT), audio: turns(&BESIDE), bulk: turns(&BESIDE) })
        .collect();
    let count = all.len();
    for round in 0..rounds {
        for (number, some) in all.chunks_mut(AT_ONCE).enumerate() {
            std::thread::scope(|scope| {
                let begin = |measurements| scope.spawn(move || measure(measurements, ground, round, length));
                let threads: Vec<_> = some.iter_mut().map(begin).collect();
                threads.into_iter().try_for_each(|thread| thread.join().expect("a cell does not panic"))
            })?;
            crate::note(&format!(
                "matrix, round {} of {rounds}: {} of {count} cells",
                round + 1,
                (number + 1).saturating_mul(AT_ONCE).min(count)
            ));
        }
    }
    let is_enough = rounds >= ROUNDS && length >= LENGTH && amount.cell.is_none();
    Ok((measured(&all, rounds, length, &busy), is_enough))
}

fn measure(all: &mut Measurements, ground: &Ground, round: usize, length: Duration) -> Result<(), String> {
    let cell = all.cell;
    let setup = cell.setup(round as u64 + 1);
    let nothing = Load { control: false, audio: false, video: 0, bulk: false };
    // A camera that suits its link: 40 % of it.
    let everything = Load { control: true, audio: true, video: cell.rate_kbits * 400, bulk: true };
    let alone = |person: &'static Person, load| {
        let stage = Stage::make(setup.clone())?;
        let traffic = Traffic::of(load);
        let runs = (person.start)(&stage, ground, &traffic)?;
        let turn = observe(&stage, &setup, &[&traffic], WARM_UP, length, &[]);
        drop(runs);
        Ok::<_, String>(turn?.remove(0))
    };
    let (own, audio, bulk) = std::thread::scope(|scope| {
        let own = scope.spawn(|| alone(&CAMAGENT, everything));
        let audio = scope.spawn(|| alone(&BESIDE, Load { audio: true, ..nothing }));
        let bulk = scope.spawn(|| alone(&BESIDE, Load { bulk: true, ..nothing }));
        let joined = [own, audio, bulk].map(|thread| thread.join().expect("a turn does not panic"));
        let [own, audio, bulk] = joined;
        (own, audio, bulk)
    });
    let told = |error| format!("matrix, {cell:?}: {error}");
    all.own.turns.push(own.map_err(told)?);
    all.audio.turns.push(audio.map_err(told)?);
    all.bulk.turns.push(bulk.map_err(told)?);
    Ok(())
}

fn measured(all: &[Measurements], rounds: usize, length: Duration, busy: &str) -> Measured {
    let (mut rows, mut shown): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let (mut good, mut bad) = (0, Vec::new());
    for Measurements { cell, own, audio, bulk } in all {
        let beyond = own.audio(0.95) - audio.audio(0.95);
        if cell.loss_percent == 0 {
            if own.audio(0.95) <= audio.audio(0.95) + BAR_MS {
                good += 1;
            } else {
                bad.push(format!(
                    "{} Mbit/s, {} ms, queue {} ms: {}",
                    cell.rate_kbits as f64 / 1e3,
                    cell.round_trip_ms,
                    cell.queue_ms,
                    match own.audio(0.95) {
                        own if own.is_infinite() => "a twentieth and more did not arrive".into(),
                        _ => format!("+ {} ms", short(beyond)),
                    }
                ));
            }
        }
        for (turns, load) in [(own, "everything"), (audio, "audio"), (bulk, "bulk")] {
            for mut row in turns.rows("matrix") {
                row["load"] = load.into();
                row["rate_kbits"] = cell.rate_kbits.into();
                row["round_trip_ms"] = cell.round_trip_ms.into();
                row["loss_percent"] = cell.loss_percent.into();
                row["queue_ms"] = cell.queue_ms.into();
                rows.push(row);
            }
        }
        shown.push(json!({
            "rate": cell.rate_kbits as f64 / 1e3, "round_trip": cell.round_trip_ms, "loss": cell.loss_percent,
            "queue": cell.queue_ms,
            "control": format!("{} / {}", short(own.control(0.50)), short(own.control(0.95))),
            "audio": format!("{} / {}", short(own.audio(0.50)), short(own.audio(0.95))),
            "bare": format!("{} / {}", short(audio.audio(0.50)), short(audio.audio(0.95))),
            "goodput": format!("{:.1}", own.goodput() * 100.0),
            "bulk": format!("{:.1}", bulk.goodput() * 100.0),
        }));
    }
    let bad = if bad.is_empty() { String::new() } else { format!(" Missed at {}.", bad.join("; ")) };
    let free = all.iter().filter(|measurements| measurements.cell.loss_percent == 0).count();
    let text = format!(
        "{} cells in which every two of the rates, round trips, losses (each packet by itself, both ways) and queues meet, and three \
         of long round trips with deep queues without losses. camagent \
         carries control, audio, video of 40 % of the rate and a bulk that takes the rest. Beside it, on equal links: a bare \
         TCP socket with the audio alone, and one with a bulk alone. {rounds} rounds, {} s each after {} s that do not count, \
         {AT_ONCE} cells at once; delays one way. The machine's load average was {busy} when it began.\n\n\
         * live audio p95 at most {BAR_MS} ms beyond that of the bare socket, in the cells without losses: {good} of {free}{}.{bad}",
        all.len(),
        length.as_secs_f64(),
        WARM_UP.as_secs_f64(),
        if good == free { ", met" } else { ", missed" },
    );
    let columns = vec![
        ("rate", "Mbit/s"),
        ("round_trip", "round trip, ms"),
        ("loss", "lost, %"),
        ("queue", "queue, ms"),
        ("control", "control p50 / p95, ms"),
        ("audio", "audio p50 / p95, ms"),
        ("bare", "bare audio p50 / p95, ms"),
        ("goodput", "goodput, % of the link"),
        ("bulk", "bare bulk, % of the link"),
    ];
    Measured { name: "uplink-matrix", title: "Many links", text, columns, rows, shown: Some(shown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_values_meets_in_few_cells() {
        let cells = Cell::pairwise();
        let covered: Vec<_> = cells.iter().flat_map(|cell| cell.pairs()).collect();
        for pair in Cell::all().iter().flat_map(|cell| cell.pairs()) {
            assert!(covered.contains(&pair), "{pair:?}");
        }
        // Rates times round trips is the least that is possible.
        assert!((24..=30).contains(&cells.len()), "{} cells", cells.len());
    }

    #[test]
    fn a_queue_lasts_as_long_as_it_says() {
        let cell = Cell { rate_kbits: 2_000, round_trip_ms: 60, loss_percent: 1, queue_ms: 300 };
        let setup = cell.setup(1);
        assert_eq!((setup.up.queue, setup.up.delay), (75_000, Duration::from_millis(30)));
        assert_eq!(setup.up.loss, Loss::Single(0.01));
    }
}

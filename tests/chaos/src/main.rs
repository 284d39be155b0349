//! The program behind `cargo xtask chaos`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use camagent_chaos::{
    campaign::{Sum, explain, told},
    plan::{Outage, Plan},
    planted::Bug,
    real,
};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
usage: cargo xtask chaos [--seed S] [--runs N] [--plant-bug NAME] [--list-bugs]

Runs both ends on a simulated clock and link that do whatever the seed says: cuts at any byte, black holes, agents and
servers that die at any moment, clocks that are set. A checker reads the log of each run. The last line is
  runs N lost L duplicated D unexplained U
and the exit code is 1 when L, D or U is not 0. The first runs that fail are shown, made as small as they still fail.

--seed S          the seed of the first run (1); the others have the numbers behind it
--runs N          how many runs (1000); `--seed S --runs 1` is run S again, exactly
--plant-bug NAME  breaks one rule on purpose: the checker has to find it
--list-bugs       names them, one a line
--log             prints all that happened in the run of the seed

       cargo xtask chaos --day [--seed S] [--runs N]
a run is a day without a link, in which the agent loses its power 200 times while two pictures a second go to its card

       cargo xtask chaos --real [--minutes M] [--seed S] [--worlds W] [--keep]
the same with real processes: the C example pushes, camagent-cloud records, both are killed, frozen and cut off at random;
a run is one outage
--minutes M       no outage begins later (1); then everything is let through and compared
--seed S          decides what is done; when it happens is the machine's
--worlds W        agents with a server each, at the same time (4)
--keep            the folder of a round that fails stays, and is named
";
/// Runs that fail are shown, up to so many.
const SHOWN: usize = 3;
/// Progress is told as often.
const EVERY: Duration = Duration::from_secs(5);

struct Options {
    seed: u64,
    runs: u64,
    bug: Option<Bug>,
    is_told: bool,
    is_day: bool,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--real") {
        return match real_options(std::env::args().skip(1)) {
            Ok(options) => break_real_things(options),
            Err(problem) => {
                eprintln!("chaos: {problem}");
                ExitCode::FAILURE
            }
        };
    }
    let mut options = Options { seed: 1, runs: 1_000, bug: None, is_told: false, is_day: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().unwrap_or_default();
            value.parse().map_err(|_| format!("{argument} needs a number, not {value:?}"))
        };
        let taken = match argument.as_str() {
            "--seed" => number().map(|seed| options.seed = seed),
            "--runs" => number().map(|runs| options.runs = runs),
            "--plant-bug" => {
                let name = arguments.next().unwrap_or_default();
                options.bug = Bug::named(&name);
                let is_known = options.bug.is_some();
                is_known.then_some(()).ok_or_else(|| format!("there is no bug {name:?}; --list-bugs names them"))
            }
            "--log" => {
                options.is_told = true;
                Ok(())
            }
            "--day" => {
                (options.is_day, options.runs) = (true, 1);
                Ok(())
            }
            "--list-bugs" => {
                Bug::ALL.iter().for_each(|bug| println!("{}", bug.name()));
                return ExitCode::SUCCESS;
            }
            "--help" | "-h" => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            other => Err(format!("{other} is not known\n\n{HELP}")),
        };
        if let Err(problem) = taken {
            eprintln!("chaos: {problem}");
            return ExitCode::FAILURE;
        }
    }
    if options.is_told {
        print!("{}", told(options.seed, options.bug));
        return ExitCode::SUCCESS;
    }
    simulate(&options)
}

fn simulate(options: &Options) -> ExitCode {
    let begun = Instant::now();
    let mut told = begun;
    let mut sum = Sum::default();
    for run in 0..options.runs {
        let seed = options.seed.wrapping_add(run);
        match options.is_day {
            true => sum.add_plan(&Plan::outage(seed, Outage::DAY), options.bug),
            false => sum.add(seed, options.bug),
        }
        if told.elapsed() >= EVERY {
            told = Instant::now();
            let rate = sum.runs as f64 / begun.elapsed().as_secs_f64();
            eprintln!("chaos: {} of {}, {rate:.0} runs/s, {} failed", sum.runs, options.runs, sum.failed.len());
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for seed in sum.failed.iter().take(if options.is_day { 0 } else { SHOWN }) {
        println!("{}", explain(*seed, options.bug));
    }
    if !sum.failed.is_empty() {
        let seeds: Vec<_> = sum.failed.iter().map(u64::to_string).collect();
        println!("failed seeds: {}", seeds.join(" "));
    }
    println!(
        "{} frames pushed, {} of them not stored and explained, {} faults, {:.1} s, {:.0} runs/s",
        sum.pushed,
        sum.explained,
        sum.faults,
        seconds,
        sum.runs as f64 / seconds
    );
    if options.is_day {
        println!(
            "{} runs of agents ended without a word; {} frames that were safe then are stored",
            sum.ended, sum.promised
        );
    }
    println!("{}", sum.line());
    if sum.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn real_options(mut arguments: impl Iterator<Item = String>) -> Result<real::Options, String> {
    let mut options = real::Options::default();
    while let Some(argument) = arguments.next() {
        let mut number = |least: f64| {
            let value = arguments.next().unwrap_or_default();
            let parsed = value.parse().ok().filter(|number: &f64| number.is_finite() && *number >= least);
            parsed.ok_or_else(|| format!("{argument} needs a number of at least {least}, not {value:?}"))
        };
        match argument.as_str() {
            "--real" => {}
            "--keep" => options.keep = true,
            "--minutes" => options.lasts = Duration::from_secs_f64(number(0.0)?.min(1e6) * 60.0),
            "--seed" => options.seed = number(0.0)? as u64,
            "--worlds" => options.worlds = number(1.0)?.min(64.0) as usize,
            other => return Err(format!("{other} is not known together with --real\n\n{HELP}")),
        }
    }
    Ok(options)
}

fn break_real_things(options: real::Options) -> ExitCode {
    // Tasks are dropped with the runtime, and with them every process and folder.
    let runtime = tokio::runtime::Runtime::new().expect("threads can be made");
    let told = std::cell::RefCell::new(real::judge::Verdict::default());
    let whole = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
        let campaign = real::campaign(options, |sum, elapsed| {
            eprintln!(
                "chaos: {:.1} min, {}; {} frames pushed, {} cost by kills, the oldest {:.2} s old",
                elapsed.as_secs_f64() / 60.0,
                sum.line(),
                sum.pushed,
                sum.explained,
                sum.oldest_us as f64 / 1e6
            );
            told.replace(sum.clone());
        });
        tokio::select! {
            sum = campaign => Some(sum),
            _ = tokio::signal::ctrl_c() => None,
            _ = terminate.recv() => None,
        }
    });
    drop(runtime);
    if whole.is_none() {
        eprintln!("chaos: interrupted; rounds that were under way do not count");
    }
    let is_whole = whole.is_some();
    let sum = whole.unwrap_or_else(|| told.into_inner());
    sum.told.iter().for_each(|line| println!("{line}"));
    println!("{}", sum.line());
    if sum.is_good() && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

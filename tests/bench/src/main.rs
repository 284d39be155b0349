//! Measurements that a person starts with `cargo xtask bench NAME`. Each is a module; what it finds is printed, as a
//! table or as one JSON object a line, and stands in `sdk-docs/benchmarks.md` afterwards.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person")]

mod join;
mod page;
mod tunnel;

use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
usage: cargo xtask bench NAME [--json] [--joins N] [--rounds N] [--seconds N] [--only WHO]

  join    from a viewer's connect to its first whole key frame, over loopback, at groups of 1, 4 and 10 s
  tunnel  a camera's port through camagent, rathole, ssh -R and chisel, over loopback, everybody encrypted:
          throughput, requests, connect time, CPU and memory of both ends

--json      one JSON object a line instead of a table
--joins N   join: joins at each group length, at least 100 (200 without it)
--rounds N  tunnel: rounds in which everybody has a turn (5 without it; less is not kept in the page)
--seconds N tunnel: how long each load lasts (3 without it)
--only WHO  tunnel: camagent, rathole, ssh or chisel alone; not kept in the page
";

/// Rounds of a comparison that is kept.
const ROUNDS: usize = 5;
/// Length of its loads.
const LENGTH: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next();
    let (mut json, mut joins) = (false, 200);
    let mut amount = tunnel::Amount { rounds: ROUNDS, length: LENGTH, only: None };
    while let Some(argument) = arguments.next() {
        if argument == "--only" {
            amount.only = arguments.next();
            continue;
        }
        let mut number = |least: u64| {
            let number = arguments.next().and_then(|count| count.parse().ok());
            number
                .filter(|count| *count >= least)
                .ok_or_else(|| format!("{argument} needs a number of at least {least}"))
        };
        let taken = match argument.as_str() {
            "--json" => {
                json = true;
                Ok(())
            }
            "--joins" => number(100).map(|count| joins = count as usize),
            "--rounds" => number(1).map(|count| amount.rounds = count as usize),
            "--seconds" => number(1).map(|count| amount.length = Duration::from_secs(count)),
            other => Err(format!("{other} is not known\n\n{HELP}")),
        };
        if let Err(error) = taken {
            return complain(&error);
        }
    }
    match name.as_deref() {
        Some("join") => finish(&join::run(joins), json, true),
        Some("tunnel") => match tunnel::run(&amount) {
            Ok(measured) => {
                finish(&measured, json, amount.rounds >= ROUNDS && amount.length >= LENGTH && amount.only.is_none())
            }
            Err(error) => complain(&error),
        },
        None => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some(other) => complain(&format!("there is no bench {other}\n\n{HELP}")),
    }
}

/// Prints what was measured, and keeps it in the page when it was measured often enough and with optimised code.
fn finish(measured: &page::Measured, json: bool, is_enough: bool) -> ExitCode {
    if json {
        measured.rows.iter().for_each(|row| println!("{row}"));
    } else {
        println!("{}\n\n{}", measured.text, measured.table());
    }
    if cfg!(debug_assertions) || !is_enough {
        eprintln!("bench: built without optimisation or measured too little, so sdk-docs/benchmarks.md stays as it is");
        return ExitCode::SUCCESS;
    }
    match measured.keep() {
        Ok(path) => {
            eprintln!("bench: kept in {}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => complain(&error),
    }
}

fn complain(what: &str) -> ExitCode {
    eprintln!("bench: {what}");
    ExitCode::FAILURE
}

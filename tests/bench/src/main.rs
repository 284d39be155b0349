//! Measurements that a person starts with `cargo xtask bench NAME`. Each is a module; what it finds is printed, as a
//! table or as one JSON object a line, and stands in `sdk-docs/benchmarks.md` afterwards.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person")]

mod join;
mod journal;
mod outage;
mod page;
mod programs;
mod stage;
mod tunnel;
mod uplink;

use std::process::ExitCode;
use std::time::Duration;

use camagent_testkit::allocations::Counting;

/// `journal` tells how often the thread that pushes calls the heap.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HELP: &str = "\
usage: cargo xtask bench NAME [--json] [--joins N] [--rounds N] [--seconds N] [--only WHO] [--work WORK]
                            [--gigabytes N] [--matrix] [--cell CELL] [--quick]

  join    from a viewer's connect to its first whole key frame, over loopback, at groups of 1, 4 and 10 s
  tunnel  a camera's port through camagent, rathole, ssh -R and chisel, over loopback, everybody encrypted:
          throughput, requests, connect time, CPU and memory of both ends; kept only when run as root. Works: cubic (TCP as
          Linux ships it; without --work), bbr (a host that has chosen BBR)
  uplink  a camera's uplink that is full: how long control messages and live audio wait through camagent, rust-yamux,
          QMux, rathole and plain sockets over the emulated link; needs root. Works: saturated, steps, neighbour, snapshot

  outage  a tunnel's connection that dies without a word: seconds until the camera's service answers again, through
          camagent, rathole and chisel over the emulated link; needs root
  journal the agent's journal: pushing while card and network stand still, opening 32 GB, what is written to a card, live
          pictures while the past is sent, an outage that nobody sees; needs root. Works: push, group, open, wear, backfill, bridged

--json      one JSON object a line instead of a table
--joins N   join: joins at each group length, at least 100 (200 without it)
--rounds N  tunnel, uplink, outage: rounds in which everybody has a turn (5 without it, outage 10; less is not kept);
            journal: rounds (as many as are kept without it; less is not kept)
--seconds N tunnel, uplink: how long each load lasts (tunnel: 3 without it); outage: the longest wait (90)
--only WHO  tunnel, uplink, outage: one contender alone; not kept in the page
--work WORK tunnel, uplink, journal: one work alone
--gigabytes N
            journal: size of the folder that is opened (32 without it; less is not kept)
--matrix    uplink: many different links, a short cell each (5 rounds without --rounds)
--cell CELL uplink: one link alone, kbit/s,round trip ms,loss %,queue ms, such as 1000,600,0,50; not kept in the page
--quick     uplink: half a minute, camagent beside separate connections; fails when it is not much better
";

/// Rounds of a comparison that is kept.
const ROUNDS: usize = 5;
/// Length of the loads of a tunnel.
const LENGTH: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next();
    let (mut json, mut joins, mut rounds, mut length) = (false, 200, None, None);
    let (mut only, mut work, mut cell, mut matrix, mut quick, mut gigabytes) = (None, None, None, false, false, None);
    while let Some(argument) = arguments.next() {
        let switch = match argument.as_str() {
            "--json" => Some(&mut json),
            "--matrix" => Some(&mut matrix),
            "--quick" => Some(&mut quick),
            _ => None,
        };
        if let Some(switch) = switch {
            *switch = true;
            continue;
        }
        let value = match argument.as_str() {
            "--joins" | "--rounds" | "--seconds" | "--only" | "--work" | "--cell" | "--gigabytes" => arguments.next(),
            other => return complain(&format!("{other} is not known\n\n{HELP}")),
        };
        let Some(value) = value else { return complain(&format!("{argument} needs a value")) };
        let number = |least: u64| {
            let number = value.parse().ok().filter(|number| *number >= least);
            number.ok_or_else(|| format!("{argument} needs a number of at least {least}"))
        };
        let taken = match argument.as_str() {
            "--joins" => number(100).map(|count| joins = count as usize),
            "--rounds" => number(1).map(|count| rounds = Some(count as usize)),
            "--seconds" => number(1).map(|count| length = Some(Duration::from_secs(count))),
            "--gigabytes" => number(1).map(|count| gigabytes = Some(count as usize)),
            "--only" => {
                only = Some(value);
                Ok(())
            }
            "--cell" => {
                cell = Some(value);
                Ok(())
            }
            _ => {
                work = Some(value);
                Ok(())
            }
        };
        if let Err(error) = taken {
            return complain(&error);
        }
    }
    match name.as_deref() {
        Some("join") => finish(&[(join::run(joins), true)], json),
        Some("tunnel") => {
            let rounds = rounds.unwrap_or(ROUNDS);
            let host = match work.as_deref() {
                None | Some("cubic") => tunnel::Host::Cubic,
                Some("bbr") => tunnel::Host::Bbr,
                Some(other) => return complain(&format!("tunnel has no work {other}; there are cubic and bbr")),
            };
            let amount = tunnel::Amount { rounds, length: length.unwrap_or(LENGTH), only, host };
            let is_enough = amount.rounds >= ROUNDS && amount.length >= LENGTH && amount.only.is_none();
            match tunnel::run(&amount) {
                // A page from which a peer is missing says too much.
                Ok((measured, all_took_part)) => finish(&[(measured, is_enough && all_took_part)], json),
                Err(error) => complain(&error),
            }
        }
        Some("uplink") if quick => match uplink::quick::run() {
            Ok(said) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Err(error) => complain(&error),
        },
        Some("uplink") => match uplink::run(&uplink::Amount { rounds, length, only, work, matrix, cell }) {
            Ok(sections) => finish(&sections, json),
            Err(error) => complain(&error),
        },
        Some("journal") => match journal::run(&journal::Amount { rounds, work, gigabytes }) {
            Ok((sections, failures)) => {
                let kept = finish(&sections, json);
                if failures.is_empty() { kept } else { complain(&failures.join("; ")) }
            }
            Err(error) => complain(&error),
        },
        Some("outage") => {
            let (rounds, patience) = (rounds.unwrap_or(outage::ROUNDS), length.unwrap_or(outage::PATIENCE));
            let is_enough = rounds >= ROUNDS && patience >= outage::PATIENCE && only.is_none();
            match outage::run(&outage::Amount { rounds, patience, only }) {
                Ok(measured) => finish(&[(measured, is_enough)], json),
                Err(error) => complain(&error),
            }
        }
        None | Some("help" | "-h" | "--help") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some(other) => complain(&format!("there is no bench {other}\n\n{HELP}")),
    }
}

/// Prints what was measured, and keeps it in the page where it was measured often enough and with optimised code.
fn finish(sections: &[(page::Measured, bool)], json: bool) -> ExitCode {
    for (measured, is_enough) in sections {
        if json {
            measured.rows.iter().for_each(|row| println!("{row}"));
        } else {
            println!("{}\n\n{}", measured.text, measured.table());
        }
        if cfg!(debug_assertions) || !is_enough {
            note("built without optimisation or measured too little, so sdk-docs/benchmarks.md stays as it is");
            continue;
        }
        match measured.keep() {
            Ok(path) => note(&format!("kept in {}", path.display())),
            Err(error) => return complain(&error),
        }
    }
    ExitCode::SUCCESS
}

/// Tells who waits.
fn note(what: &str) {
    eprintln!("bench: {what}");
}

/// How many want a processor of this machine, in the last minute.
fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_owned()
}

fn complain(what: &str) -> ExitCode {
    note(what);
    ExitCode::FAILURE
}

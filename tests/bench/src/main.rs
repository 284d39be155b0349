//! Measurements that a person starts with `cargo xtask bench NAME`. Each is a module; what it finds is printed, as a
//! table or as one JSON object a line, and stands in `sdk-docs/benchmarks.md` afterwards.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a person")]

mod join;
mod page;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask bench NAME [--json] [--joins N]

  join    from a viewer's connect to its first whole key frame, over loopback, at groups of 1, 4 and 10 s

--json    one JSON object a line instead of a table
--joins N joins at each group length, at least 100 (200 without it)
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next();
    let (mut json, mut joins) = (false, 200);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--joins" => match arguments.next().and_then(|count| count.parse().ok()).filter(|count| *count >= 100) {
                Some(count) => joins = count,
                None => return complain("--joins needs a number of at least 100"),
            },
            other => return complain(&format!("{other} is not known\n\n{HELP}")),
        }
    }
    match name.as_deref() {
        Some("join") => finish(join::run(joins), json),
        None => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some(other) => complain(&format!("there is no bench {other}\n\n{HELP}")),
    }
}

/// Prints what was measured, and keeps it in the page when it was measured with optimised code.
fn finish(measured: page::Measured, json: bool) -> ExitCode {
    if json {
        measured.rows.iter().for_each(|row| println!("{row}"));
    } else {
        println!("{}", measured.table());
    }
    if cfg!(debug_assertions) {
        eprintln!("bench: built without optimisation, so sdk-docs/benchmarks.md stays as it is");
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

//! `cargo xtask`: everything a developer or a build machine runs, one file a command, the same command for both.
//!
//! A command says what it does and what to do when it fails. What a command shares with another lives in [`shell`];
//! nothing here is linked into the agent or the server.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool speaks on the terminal")]

mod bench;
mod c_reference;
mod chaos;
mod check;
mod demo;
mod docs;
mod fuzz;
mod header;
mod layers;
mod library;
mod link;
mod outline;
mod peers;
mod process;
mod shell;
mod site;
mod test;
mod verdict;
mod viewer;

use std::process::ExitCode;

use shell::Outcome;

/// One row of the table below.
struct Command {
    name: &'static str,
    summary: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        summary: "see a camera's frames arrive, on this machine",
        help: demo::HELP,
        run: demo::run,
    },
    Command {
        name: "check",
        summary: "everything a machine can check without running tests",
        help: check::HELP,
        run: check::run,
    },
    Command { name: "test", summary: "check, then every test, strictly", help: test::HELP, run: test::run },
    Command {
        name: "lib",
        summary: "the C library: archive, shared object, header, camagent.pc",
        help: library::HELP,
        run: library::run,
    },
    Command {
        name: "header",
        summary: "regenerate include/camagent.h and its ledger",
        help: header::HELP,
        run: header::run,
    },
    Command {
        name: "layers",
        summary: "compare the sources with the drawing in ARCHITECTURE.md",
        help: layers::HELP,
        run: layers::run,
    },
    Command { name: "fuzz", summary: "run one fuzz target with libFuzzer", help: fuzz::HELP, run: fuzz::run },
    Command { name: "link", summary: "run a command behind an emulated uplink", help: link::HELP, run: link::run },
    Command { name: "bench", summary: "run one measurement", help: bench::HELP, run: bench::run },
    Command { name: "chaos", summary: "prove that no frame is lost", help: chaos::HELP, run: chaos::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = arguments.first() else {
        print!("{}", overview());
        return ExitCode::FAILURE;
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", overview());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprintln!("xtask: there is no command `{name}`\n\n{}", overview());
        return ExitCode::FAILURE;
    };
    let rest = &arguments[1..];
    // What stands after `--` belongs to another program.
    if rest.iter().take_while(|argument| *argument != "--").any(|argument| matches!(argument.as_str(), "-h" | "--help"))
    {
        println!("{}", command.help.trim_end());
        return ExitCode::SUCCESS;
    }
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask {name}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn overview() -> String {
    let mut text = String::from("usage: cargo xtask COMMAND [OPTIONS]      (cargo xtask COMMAND --help says more)\n\n");
    for command in COMMANDS {
        text.push_str(&format!("  {:<8} {}\n", command.name, command.summary));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_help_text_that_starts_with_its_usage() {
        for command in COMMANDS {
            assert!(
                command.help.starts_with(&format!("usage: cargo xtask {}", command.name)),
                "help of `{}`",
                command.name
            );
        }
    }
}

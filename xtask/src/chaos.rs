//! `cargo xtask chaos`: hands over to tests/chaos, built for release, because its runs are counted in hundreds of thousands.

use std::os::unix::process::CommandExt;

use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask chaos [--seed S] [--runs N] [--plant-bug NAME] [--list-bugs]

Runs agent and server on a simulated clock, link and disk that do whatever the seed says: cuts at any byte, black holes,
power cuts, kills between a frame and its acknowledgement, clocks that are set. A checker that shares no code with
either end reads the log of each run. The last line is
  runs N lost L duplicated D unexplained U
and the exit code is 1 when L, D or U is not 0.
  cargo xtask chaos --runs 100000             many
  cargo xtask chaos --seed 17 --runs 1        run 17 again, exactly; when it fails it is shown, made smaller
  cargo xtask chaos --plant-bug NAME          one rule is broken on purpose: the checker has to find it
  cargo xtask chaos --list-bugs               the names, one a line
  cargo xtask chaos --seed 17 --log           all that happened in run 17
CONTRIBUTING.md says how to read what it shows.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::run_silently(
        shell::cargo().args(["build", "--quiet", "--release", "-p", "camagent-chaos"]),
        "the lines above say why it does not build",
    )?;
    let program = shell::target().join("release/camagent-chaos");
    // In its place, so that the exit code and the last line are its own.
    let error = std::process::Command::new(&program).args(arguments).exec();
    Err(format!("{} cannot be started: {error}", program.display()))
}

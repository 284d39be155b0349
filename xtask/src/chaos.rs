//! `cargo xtask chaos`: hands over to tests/chaos, built for release, because its runs are counted in hundreds of thousands.

use std::os::unix::process::CommandExt;

use crate::library::{self, Profile};
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

       cargo xtask chaos --day [--seed S] [--runs N]
A run is a day without a link, in which the agent loses its power 200 times, every second time in the middle of a write,
while two pictures a second go to its card; then the link is back. What was safe has to be on the server, identical.

       cargo xtask chaos --real [--minutes M] [--seed S] [--worlds W] [--keep]
The same with real processes: the C example pushes, camagent-cloud records, a proxy is the link between them. Both are
killed, stopped and frozen, the link is cut, reset and swallows everything, at random; a run is one outage. Every 16
outages everything is let through, and what was recorded is compared with what was pushed, octet by octet.
  --minutes M   no outage begins later (1)
  --seed S      decides what is done; when it happens is the machine's
  --worlds W    agents with a server each, at the same time (4)
  --keep        the folder of a round that fails stays, and is named
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let is_real = arguments.iter().any(|argument| argument == "--real");
    let mut build = shell::cargo();
    build.args(["build", "--quiet", "-p", "camagent-chaos"]);
    // Real processes take their time anyway: they are built as the tests are.
    build.args(if is_real { ["-p", "cloud-server"].as_slice() } else { &["--release"] });
    shell::run_silently(&mut build, "the lines above say why it does not build")?;
    let built = shell::target().join(if is_real { "debug" } else { "release" });
    let program = built.join("camagent-chaos");
    let mut chaos = std::process::Command::new(&program);
    chaos.args(arguments);
    if is_real {
        let sdk = shell::target().join("chaos/sdk");
        library::build(Profile::Dev, &sdk)?;
        chaos.env("CAMAGENT_SDK", sdk).env("CAMAGENT_CLOUD", built.join("camagent-cloud"));
    }
    // In its place, so that the exit code and the last line are its own.
    let error = chaos.exec();
    Err(format!("{} cannot be started: {error}", program.display()))
}

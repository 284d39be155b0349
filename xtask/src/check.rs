//! `cargo xtask check`: the gates that need no running program. The list below is the whole of it.

use std::time::{Duration, Instant};

use crate::docs;
use crate::header;
use crate::layers;
use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask check [STEP…]

Without a name all steps:
format     cargo fmt
clippy     all targets, warnings are errors
layers     the sources stand as ARCHITECTURE.md draws them
no_std     camagent-proto and camagent-media build alone
header     include/camagent.h is what camagent-ffi says, and committed
ledger     include/symbols-in-versions.txt dates each symbol of the header
openapi    cloud-server/api/openapi.json is what the server says
links      relative links and anchors of all documents resolve
reference  sdk-docs/reference/c-api/ is what the header says
foreign    no file names what only its authors have
Every step runs, whatever the one before said; the summary lists those that failed.
";

/// A gate: its name, and what it does.
type Step = (&'static str, fn() -> Outcome);

const STEPS: &[Step] = &[
    ("format", format),
    ("layers", || layers::run(&[])),
    ("links", docs::links),
    ("foreign", docs::nothing_foreign),
    ("no_std", no_std),
    ("clippy", clippy),
    ("header", header_is_committed),
    ("ledger", ledger),
    ("reference", crate::c_reference::compare),
    ("openapi", openapi),
];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    if let Some(unknown) = arguments.iter().find(|argument| STEPS.iter().all(|(name, _)| name != argument)) {
        return Err(format!("there is no step `{unknown}`"));
    }
    let chosen = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let mut ended: Vec<(&str, Duration, Outcome)> = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| chosen(name)) {
        println!("check: {name}");
        let start = Instant::now();
        let outcome = step();
        if let Err(problem) = &outcome {
            eprintln!("  {problem}");
        }
        ended.push((name, start.elapsed(), outcome));
    }
    println!();
    for (name, time, outcome) in &ended {
        println!(
            "check: {} {name:<10} {:>6.1} s",
            if outcome.is_ok() { "ok    " } else { "FAILED" },
            time.as_secs_f64()
        );
    }
    let failed: Vec<&str> = ended.iter().filter(|(_, _, outcome)| outcome.is_err()).map(|(name, _, _)| *name).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("failed: {}. What to do stands above, step by step.", failed.join(", ")))
    }
}

fn format() -> Outcome {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]), "run `cargo fmt --all`")
}

fn clippy() -> Outcome {
    shell::run(
        shell::cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        "mend what clippy names above; an exception is an #[expect(…, reason = \"…\")]",
    )
}

fn no_std() -> Outcome {
    shell::run(
        shell::cargo().args(["check", "--quiet", "-p", "camagent-proto", "-p", "camagent-media", "--lib"]),
        "the two crates at the bottom build with core and alloc only",
    )?;
    for name in ["camagent-proto", "camagent-media"] {
        let source = shell::read(&shell::root().join(name).join("src/lib.rs"))?;
        if !source.lines().any(|line| line.trim() == "#![no_std]") {
            return Err(format!(
                "{name}/src/lib.rs has no #![no_std]: clocks, sockets, files and threads must not slip in"
            ));
        }
    }
    Ok(())
}

fn header_is_committed() -> Outcome {
    header::generate()?;
    shell::run(
        shell::program("git").args(["diff", "--exit-code", "--stat", "HEAD", "--", "include/camagent.h"]),
        "the header changed with camagent-ffi: run `cargo xtask header` and commit include/ with it",
    )
}

fn ledger() -> Outcome {
    let ledger =
        shell::read(&header::ledger_path()).map_err(|problem| format!("{problem}; run `cargo xtask header`"))?;
    header::compare_ledger(&ledger, &shell::read(&header::header_path())?)
}

fn openapi() -> Outcome {
    const FILE: &str = "cloud-server/api/openapi.json";
    let advice = format!("run `cargo run -p cloud-server -- openapi > {FILE}` and commit");
    let told = shell::output(shell::cargo().args(["run", "--quiet", "-p", "cloud-server", "--", "openapi"]), &advice)?;
    let kept = shell::read(&shell::root().join(FILE)).map_err(|problem| format!("{problem}; {advice}"))?;
    if told.trim_end() == kept.trim_end() {
        Ok(())
    } else {
        Err(format!("{FILE} is not what the server says: {advice}"))
    }
}

//! `cargo xtask fuzz`: one target under libFuzzer, built with the installed compiler.
//!
//! Coverage instrumentation is an LLVM pass that stable rustc runs when asked; RUSTC_BOOTSTRAP only keeps the door open for
//! flags that libFuzzer may need later. The instrumented build has a folder of its own.

use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask fuzz TARGET [--seconds N] [-- LIBFUZZER OPTIONS]

Builds tests/fuzz with libFuzzer and coverage instrumentation in target/fuzz and runs TARGET for N seconds (60).
It starts from tests/fuzz/corpus/TARGET and keeps what it learns in target/fuzz/corpus/TARGET; a finding is written to
target/fuzz/findings/. Copy it into the corpus together with its cure. Without TARGET it lists the targets.
Needs a C++ compiler for libFuzzer's own sources.
";

/// What libFuzzer needs to see: a counter an edge, the table of edges, and the operands of comparisons.
const INSTRUMENTATION: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions=yes",
    "-Coverflow-checks=yes",
    "--cfg=fuzzing",
];

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (own, passed) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[] as &[String]),
    };
    let mut own = own.to_vec();
    let seconds = shell::take_number(&mut own, "--seconds")?.unwrap_or(60);
    let targets = targets()?;
    if own.is_empty() {
        return Err(format!("which target?\n  {}", targets.join("\n  ")));
    }
    let target = own.remove(0);
    shell::nothing_left(&own)?;
    if !targets.contains(&target) {
        return Err(format!("there is no target `{target}`, but\n  {}", targets.join("\n  ")));
    }

    let folder = shell::target().join("fuzz");
    let host = host()?;
    let mut build = shell::cargo();
    build.args(["build", "--release", "-p", "camagent-fuzz", "--features", "libfuzzer", "--target", &host]);
    build.env("CARGO_TARGET_DIR", &folder).env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", INSTRUMENTATION.join(" "));
    shell::run(&mut build, "libFuzzer's own sources need a C++ compiler (Debian: g++)")?;

    let learned = folder.join("corpus").join(&target);
    let findings = folder.join("findings");
    shell::make_folder(&learned)?;
    shell::make_folder(&findings)?;
    let mut fuzzer = shell::program(folder.join(&host).join("release/camagent-fuzz"));
    fuzzer.env("CAMAGENT_FUZZ_TARGET", &target);
    fuzzer.arg(format!("-max_total_time={seconds}"));
    fuzzer.arg("-max_len=65536").arg("-timeout=10").arg("-print_final_stats=1");
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", findings.display()));
    fuzzer.args(passed).arg(&learned).arg(shell::root().join("tests/fuzz/corpus").join(&target));
    shell::run(
        &mut fuzzer,
        &format!(
            "a finding lies in {}: `cargo run -p camagent-fuzz -- {target} FILE` shows it again",
            findings.display()
        ),
    )
}

fn targets() -> Result<Vec<String>, String> {
    let folder = shell::root().join("tests/fuzz/corpus");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn host() -> Result<String, String> {
    let text = shell::output(shell::program("rustc").arg("-vV"), "rustc is not in PATH")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}

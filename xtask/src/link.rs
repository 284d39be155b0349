//! `cargo xtask link`: hands over to the kit's emulated uplink.

use std::os::unix::process::CommandExt;

use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask link [--profile NAME] [OPTIONS] [-- COMMAND…]

Runs COMMAND as a camera behind an emulated uplink: rate, queue, delay, jitter, loss, reordering, duplicates, black
holes, resets and changing addresses, to a script, with the kernel's TCP at both ends. Needs root and iproute2.
  cargo xtask link --list-profiles        the links with names: lte, dsl-2m-bloat, satellite …
  cargo xtask link --options              every option
  cargo xtask link --profile dsl-2m-bloat --relay 8443 -- COMMAND
                                          COMMAND reaches this machine's 127.0.0.1:8443 as 203.0.113.2:8443
sdk-docs/howto/emulate-a-bad-uplink.md has the rest.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::run_silently(
        shell::cargo().args(["build", "--quiet", "-p", "camagent-testkit", "--bin", "camagent-kit-link"]),
        "the lines above say why it does not build",
    )?;
    let program = shell::target().join("debug/camagent-kit-link");
    let mut link = std::process::Command::new(&program);
    match arguments {
        [only] if only == "--options" => link.arg("--help"),
        _ => link.args(arguments),
    };
    // In its place, so that signals and the command's exit code need no hands between.
    Err(format!("{} cannot be started: {}", program.display(), link.exec()))
}

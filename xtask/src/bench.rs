//! `cargo xtask bench`: hands over to tests/bench, built for release.

use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask bench NAME [--json] [more arguments of the bench]

Builds tests/bench for release and runs the measurement NAME; without a name it lists them.
--json prints one JSON object instead of a table.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    shell::run(
        shell::cargo().args(["run", "--quiet", "--release", "-p", "camagent-bench", "--"]).args(arguments),
        "the lines above say why; `cargo xtask bench` alone lists the names",
    )
}

//! `cargo xtask bench`: hands over to tests/bench, built for release, with the programs that the measurement runs.

use crate::peers;
use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask bench NAME [--json] [more arguments of the bench]

Builds tests/bench for release and runs the measurement NAME; without a name it lists them.
--json prints one JSON object a line instead of a table.
`bench tunnel`, `bench uplink` and `bench outage` build camagentd and camagent-cloud for release too, and fetch the peers
that they compare with (rathole, chisel, OpenSSH) into target/peers; a peer that cannot be had is named and left out.
";

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut build = shell::cargo();
    build.args(["build", "--quiet", "--release", "-p", "camagent-bench"]);
    if arguments.first().is_some_and(|name| ["tunnel", "uplink", "outage"].contains(&name.as_str())) {
        peers::install()?;
        build.args(["-p", "camagent", "-p", "cloud-server"]);
    }
    shell::run_silently(&mut build, "the lines above say why it does not build")?;
    shell::run_silently(
        shell::program(shell::target().join("release/camagent-bench")).args(arguments),
        "the lines above say why; `cargo xtask bench` alone lists the names",
    )
}

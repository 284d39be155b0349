//! Other people's tunnels for `cargo xtask bench tunnel`: rathole and chisel are built into `target/peers/bin`, OpenSSH
//! comes from Debian. What cannot be had is told and left out: a measurement without one peer is still one.

use std::path::Path;

use crate::shell::{self, Outcome};

/// The crate that is compared. Its own lock file names a `time` that this compiler refuses, so versions are chosen anew.
const RATHOLE: &str = "rathole@0.5.0";
/// The Go module that is compared, and its version.
const CHISEL: (&str, &str) = ("github.com/jpillora/chisel", "1.11.3");

/// Builds what is missing, best effort.
pub(crate) fn install() -> Outcome {
    let folder = shell::target().join("peers");
    shell::make_folder(&folder.join("bin"))?;
    let there = |name: &str| folder.join("bin").join(name).is_file();
    for (name, is_there, build) in [
        ("rathole", there("rathole"), rathole as fn(&Path) -> Outcome),
        ("chisel", there("chisel"), chisel),
        ("OpenSSH", Path::new("/usr/sbin/sshd").exists() && shell::is_installed("ssh"), openssh),
    ] {
        if is_there {
            continue;
        }
        eprintln!("bench: {name} is missing and is fetched");
        if let Err(why) = build(&folder) {
            eprintln!("bench: goes on without {name}: {why}");
        }
    }
    Ok(())
}

fn rathole(folder: &Path) -> Outcome {
    let mut cargo = shell::cargo();
    cargo.args(["install", "--quiet", "--root"]).arg(folder).env("CARGO_TARGET_DIR", folder.join("build"));
    cargo.args([RATHOLE, "--no-default-features", "--features", "client,server,tls,websocket"]);
    shell::run_silently(&mut cargo, "it needs OpenSSL's headers (Debian packages libssl-dev and pkg-config)")
}

/// `go install` of a version asks the proxy for a list of all of them; a module that requires the version does not.
fn chisel(folder: &Path) -> Outcome {
    let (module, version) = CHISEL;
    let (place, program) = (folder.join("chisel"), folder.join("bin/chisel"));
    shell::make_folder(&place)?;
    let text = format!("module camagent.example/peers\n\ngo 1.24\n\nrequire {module} v{version}\n");
    std::fs::write(place.join("go.mod"), text).map_err(|error| format!("{}: {error}", place.display()))?;
    let name = format!("-s -w -X {module}/share.BuildVersion={version}");
    let mut go = shell::program("go");
    go.current_dir(&place).args(["build", "-mod=mod", "-trimpath", "-ldflags", &name, "-o"]).arg(program).arg(module);
    shell::run_silently(&mut go, "it needs Go 1.24 or newer and a module proxy")
}

fn openssh(_: &Path) -> Outcome {
    let install = ["install", "--yes", "--no-install-recommends", "openssh-server", "openssh-client"];
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err(format!("as root: apt-get {}", install.join(" ")));
    }
    let mut apt = shell::program("apt-get");
    shell::run_silently(
        apt.args(install).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr()),
        "apt-get needs a reachable package archive",
    )
}

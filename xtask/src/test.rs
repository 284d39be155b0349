//! `cargo xtask test`: check, then every test of the workspace, none of them skipped.

use std::time::Instant;

use crate::check;
use crate::library::{self, Profile};
use crate::shell::{self, Outcome};

pub(crate) const HELP: &str = "\
usage: cargo xtask test [--no-check]

1. cargo xtask check (left out with --no-check)
2. installs from Debian what the tests need and this machine lacks, each with a line that says why
   (as root or with sudo; otherwise it prints the command and stops)
3. cargo xtask lib: tests link C programs with the library as it is shipped
4. cargo test --workspace, with CAMAGENT_CI_STRICT=1: a test that misses something fails instead of skipping
A plain `cargo test` works too: it skips, loudly, what the machine cannot run.
";

/// What a test runs beside Rust: a program that shows it is there, the Debian packages, and why.
const TOOLS: &[(&str, &[&str], &str)] = &[
    ("cc", &["build-essential"], "compiles the C examples and the header"),
    ("g++", &["g++"], "compiles the header as C++"),
    ("clang", &["clang"], "compiles the header a second time and links fuzz targets"),
    ("valgrind", &["valgrind"], "runs the C examples and finds memory errors"),
    ("ffmpeg", &["ffmpeg"], "receives a relayed source: every NAL unit is compared"),
    (
        "gst-launch-1.0",
        &[
            "gstreamer1.0-tools",
            "gstreamer1.0-plugins-base",
            "gstreamer1.0-plugins-good",
            "gstreamer1.0-plugins-bad",
            "gstreamer1.0-libav",
        ],
        "receives a relayed source with another RTSP implementation",
    ),
    ("pkg-config", &["pkg-config"], "reads camagent.pc"),
    ("ip", &["iproute2"], "makes the network namespaces of a camera behind NAT"),
    ("nft", &["nftables"], "is that NAT"),
    ("tinyproxy", &["tinyproxy-bin"], "is the HTTP proxy that an agent passes"),
];

/// GStreamer elements that the tests name, and the package each comes with: the program may be there without them.
const ELEMENTS: &[(&str, &str)] = &[
    ("rtspsrc", "gstreamer1.0-plugins-good"),
    ("h264parse", "gstreamer1.0-plugins-bad"),
    ("h265parse", "gstreamer1.0-plugins-bad"),
    ("avdec_h264", "gstreamer1.0-libav"),
];

/// GStreamer's RTSP server has no program of its own: Debian's Python with its modules is the camera behind NAT.
const RTSP_SERVER: (&str, &[&str]) =
    ("import gi; gi.require_version('GstRtspServer', '1.0')", &["python3", "python3-gi", "gir1.2-gst-rtsp-server-1.0"]);

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = arguments.to_vec();
    let without_check = shell::take_switch(&mut arguments, "--no-check");
    shell::nothing_left(&arguments)?;
    let start = Instant::now();
    let checked = if without_check { Ok(()) } else { check::run(&[]) };
    if let Err(problem) = &checked {
        eprintln!("test: {problem}");
    }
    install()?;
    println!("test: the C library");
    library::build(Profile::Firmware, &shell::target().join("sdk"))?;
    println!("test: every test of the workspace");
    let tested = shell::run(
        shell::cargo().args(["test", "--workspace", "--no-fail-fast"]).env("CAMAGENT_CI_STRICT", "1"),
        "the names of the failed tests stand above",
    );
    println!("test: {:.0} s in all", start.elapsed().as_secs_f64());
    tested?;
    checked.map_err(|problem| format!("the tests passed, but check did not: {problem}"))
}

/// Installs what is missing.
fn install() -> Outcome {
    let mut packages: Vec<&str> = Vec::new();
    for (program, names, why) in TOOLS.iter().filter(|(program, _, _)| !shell::is_installed(program)) {
        println!("test: {program} is missing ({}): {why}", names.join(" "));
        packages.extend(*names);
    }
    if shell::is_installed("gst-inspect-1.0") {
        for (element, package) in ELEMENTS {
            let known = shell::program("gst-inspect-1.0").args(["--exists", element]).status();
            if !known.is_ok_and(|status| status.success()) && !packages.contains(package) {
                println!("test: GStreamer has no {element} ({package}): receives a relayed source");
                packages.push(package);
            }
        }
    }
    let (import, names) = RTSP_SERVER;
    let known = shell::program("/usr/bin/python3").args(["-c", import]).stderr(std::process::Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        println!("test: GStreamer's RTSP server is missing ({}): is the camera behind NAT", names.join(" "));
        packages.extend(names);
    }
    if packages.is_empty() {
        return Ok(());
    }
    let install = [&["apt-get", "install", "--yes", "--no-install-recommends"], packages.as_slice()].concat();
    // SAFETY: geteuid has no preconditions and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let sudo = !root && shell::program("sudo").args(["-n", "true"]).status().is_ok_and(|status| status.success());
    if !shell::is_installed("apt-get") || !(root || sudo) {
        return Err(format!(
            "install what is missing, then try again:\n  {}",
            ["sudo"].iter().chain(&install).copied().collect::<Vec<_>>().join(" ")
        ));
    }
    let prefix: &[&str] =
        if root { &["env", "DEBIAN_FRONTEND=noninteractive"] } else { &["sudo", "DEBIAN_FRONTEND=noninteractive"] };
    let update = [prefix, &["apt-get", "update", "--quiet"]].concat();
    shell::run(shell::program(update[0]).args(&update[1..]), "apt-get needs a reachable package archive")?;
    let words = [prefix, &install].concat();
    shell::run(shell::program(words[0]).args(&words[1..]), "apt-get needs a reachable package archive")
}

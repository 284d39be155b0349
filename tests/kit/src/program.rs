//! Other people's players as judges: ffmpeg, ffprobe, GStreamer.

use std::path::Path;
use std::process::{Command as Blocking, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::wait;

/// Whether a program is there. When it is not, the test says loudly that it proves nothing, and fails where
/// `CAMAGENT_CI_STRICT=1` demands everything.
pub fn is_installed(program: &str, package: &str) -> bool {
    let there = Blocking::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        is_missing(program, &format!("Debian package {package}"));
    }
    there
}

/// Says what a test misses, and what to do about it; fails where `CAMAGENT_CI_STRICT=1` demands everything.
#[allow(clippy::print_stderr, reason = "a test that proves nothing must say so")]
pub fn is_missing(what: &str, advice: &str) {
    let strict = std::env::var_os("CAMAGENT_CI_STRICT").is_some_and(|value| value == "1");
    assert!(!strict, "{what} is missing ({advice})");
    eprintln!("SKIPPED: {what} is missing ({advice}); this proves nothing");
}

/// Starts a program that is killed with the value; its complaints go to the test's output.
pub fn start(program: &str, arguments: &[&str]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Asks a program to end (SIGINT) and waits for it.
pub async fn end(what: &str, mut child: Child) {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // SAFETY: kill takes no pointers; the child is ours and was not waited for yet.
        unsafe { libc::kill(id, libc::SIGINT) };
    }
    wait::within(what, wait::SOON, child.wait()).await.expect("can be waited for");
}

/// Runs a program to its end: what it wrote.
pub async fn output(program: &str, arguments: &[&str], longest: Duration) -> String {
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = wait::within(program, longest, run).await.unwrap_or_else(|error| panic!("{program}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {out} {err}");
    out.into_owned()
}

/// The octets of a file that a program writes; nothing when it has not begun.
pub fn written(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_default()
}

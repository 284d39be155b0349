//! `camagent-kit-link`, which `cargo xtask link` runs: a command behind a link, a service of this machine at its far end, and
//! nothing that is left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use camagent_testkit::program;

const LINK: &str = env!("CARGO_BIN_EXE_camagent-kit-link");

fn run(words: &[&str]) -> Output {
    Command::new(LINK).args(words).stdin(Stdio::null()).output().expect("it starts")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Whether links can be made here.
fn can() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        program::is_missing("root, who alone makes network namespaces,", "run the test as root");
    }
    root && program::is_installed("ip", "iproute2") && program::is_installed("bash", "bash")
}

#[test]
fn help_profiles_and_mistakes_need_no_root() {
    assert!(text(&run(&["--help"]).stdout).contains("--list-profiles"));
    assert!(text(&run(&["--list-profiles"]).stdout).contains("dsl-2m-bloat"));
    let output = run(&["--profile", "isdn", "--", "true"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no profile `isdn`"), "{}", text(&output.stderr));
}

#[test]
fn a_command_reaches_a_service_of_this_machine_and_its_code_is_the_code() {
    if !can() {
        return;
    }
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port();
    let answer = std::thread::spawn(move || {
        let (mut visitor, _) = service.accept().unwrap();
        let mut line = String::new();
        BufReader::new(visitor.try_clone().unwrap()).read_line(&mut line).unwrap();
        visitor.write_all(format!("heard {line}").as_bytes()).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counters.json");
    let script = format!("exec 3<>/dev/tcp/$CAMAGENT_LINK_FAR/{port}; echo hello >&3; cat <&3; exit 7");
    let (relay, json) = (port.to_string(), file.to_string_lossy().into_owned());
    let output = run(&["--profile", "lte", "--relay", &relay, "--json", &json, "--", "bash", "-c", &script]);
    let told = text(&output.stderr);
    assert_eq!(text(&output.stdout), "heard hello\n", "{told}");
    assert_eq!(output.status.code(), Some(7), "{told}");
    assert!(told.contains("Mbit/s") && told.contains("203.0.113.2"), "{told}");
    let counters: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(counters["up"]["packets_in"].as_u64().unwrap() >= 4, "{counters}");
    answer.join().unwrap();
}

#[test]
fn the_far_end_runs_commands_too() {
    if !can() {
        return;
    }
    // Whoever asks the far end's address in its own namespace and gets an answer is there.
    let output = run(&["--far", "ip -4 -o addr show >&2; exec sleep 60", "--", "ip", "-4", "-o", "addr", "show"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("192.168.77.108"));
    assert!(!text(&output.stdout).contains("203.0.113.2"));
    let output = run(&["--far", "exit 3", "--far-ready", "9", "--", "true"]);
    assert!(text(&output.stderr).contains("exit status: 3"), "{}", text(&output.stderr));
    let output = run(&["--for", "300ms", "--", "sleep", "60"]);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    assert!(text(&run(&["--", "no-such-program"]).stderr).contains("no-such-program"));
}

#[test]
fn nothing_outlives_a_killed_link() {
    if !can() {
        return;
    }
    let mut link = Command::new(LINK)
        .args(["--", "sh", "-c", "echo $$; exec sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(link.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let command = format!("/proc/{}", line.trim());
    let space = std::fs::read_link(format!("{command}/ns/net")).unwrap();
    assert_ne!(space, std::fs::read_link("/proc/self/ns/net").unwrap(), "a namespace of its own");
    link.kill().unwrap();
    link.wait().unwrap();
    let begun = Instant::now();
    // A zombie whose new parent has not looked yet is ended as well: it has no program any more.
    while std::fs::read_link(format!("{command}/exe")).is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the command outlives it");
        std::thread::yield_now();
    }
    let mut told = String::new();
    link.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    let name = told.split(['`', ' ']).find(|word| word.starts_with("camagent-")).unwrap();
    assert!(std::fs::File::open(Path::new("/run/netns").join(name)).is_err(), "{name} leads nowhere");
    // Whoever comes next sweeps up.
    run(&["--", "true"]);
    assert!(std::fs::symlink_metadata(Path::new("/run/netns").join(name)).is_err(), "{name} is gone");
}

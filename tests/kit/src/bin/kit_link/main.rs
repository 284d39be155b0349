//! `camagent-kit-link`: the emulated uplink for a command line. `cargo xtask link` runs it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people and scripts")]

mod options;

use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use camagent_testkit::emulator::{Counters, FAR, NEAR, Profile, Uplink, WayCounters, relay};
use camagent_testkit::netns::Namespace;
use options::{Options, Request};
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long a program that was asked to end has for it.
const GRACE: Duration = Duration::from_secs(5);
/// How long the far end has to listen.
const READY: Duration = Duration::from_secs(30);
/// What a shell says of a program that ran too long (timeout(1)).
const TOO_LONG: u8 = 124;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let options = match options::read(std::env::args().skip(1)) {
        Ok(Request::Link(options)) => *options,
        Ok(Request::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Request::Profiles) => {
            for Profile { name, summary, .. } in Profile::all() {
                println!("{name:<14} {summary}");
            }
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("link: {problem}\nlink: --help lists the options");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("link: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// What ends a link.
enum End {
    Ended(ExitStatus),
    Stopped,
    Late,
}

async fn run(options: Options) -> Result<ExitCode, String> {
    let Options { mut setup, command, far, far_ready, relays, longest, json } = options;
    let mut signals = Signals::new().map_err(|error| format!("signals: {error}"))?;
    let uplink = Uplink::make(setup.clone())?;
    eprintln!(
        "link: camera {NEAR} in `ip netns exec {}`, far end {FAR} in `ip netns exec {}`, seen as {}",
        uplink.near.name(),
        uplink.far.name(),
        uplink.outside()
    );
    for relay in relays {
        let bound = uplink.far.within(|| TcpListener::bind((FAR, relay.port)));
        let listener = bound.map_err(|error| format!("--relay {}: {error}", relay.port))?;
        eprintln!("link: {FAR}:{} is {} of this machine", relay.port, relay.target);
        tokio::spawn(relay::serve(listener, relay.target));
    }
    let mut far = far.map(|line| start(&uplink, &uplink.far, &["sh".into(), "-c".into(), line])).transpose()?;
    if let Some(port) = far_ready {
        wait_until_ready(&uplink, port, far.as_mut()).await?;
    }
    // The script's times count from the command's start.
    setup.script.sort_by_key(|(at, _)| *at);
    uplink.restart(setup);
    let deadline = tokio::time::sleep(longest);
    let (end, near) = if command.is_empty() {
        tokio::select! {
            () = signals.any() => (End::Stopped, None),
            () = deadline => (End::Late, None),
        }
    } else {
        let mut near = start(&uplink, &uplink.near, &command)?;
        let end = tokio::select! {
            status = near.wait() => End::Ended(status.map_err(|error| format!("{}: {error}", command[0]))?),
            () = signals.any() => End::Stopped,
            () = deadline => End::Late,
        };
        (end, Some(near))
    };
    let code = match (end, near) {
        (End::Ended(status), _) => code(status),
        (End::Stopped, Some(mut near)) => stop(&mut near).await.map_or(ExitCode::FAILURE, code),
        (End::Stopped, None) => ExitCode::SUCCESS,
        (End::Late, near) => {
            eprintln!("link: {longest:?} are over (--for)");
            if let Some(mut near) = near {
                stop(&mut near).await;
            }
            ExitCode::from(TOO_LONG)
        }
    };
    let counters = uplink.counters();
    if let Some(mut far) = far {
        stop(&mut far).await;
    }
    eprint!("{counters}");
    if let Some(file) = json {
        std::fs::write(&file, format!("{}\n", as_json(&counters)))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(code)
}

/// Ctrl-C and being asked to end. A terminal sends Ctrl-C to the programs too.
struct Signals(Signal, Signal, Signal);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?))
    }

    async fn any(&mut self) {
        tokio::select! { _ = self.0.recv() => {}, _ = self.1.recv() => {}, _ = self.2.recv() => {} }
    }
}

fn start(uplink: &Uplink, place: &Namespace, words: &[String]) -> Result<Child, String> {
    let mut command: Command = place.command(&words[0]);
    command.args(&words[1..]);
    command.env("CAMAGENT_LINK_FAR", FAR.to_string()).env("CAMAGENT_LINK_NEAR", NEAR.to_string());
    command.env("CAMAGENT_LINK_OUTSIDE", uplink.outside().to_string());
    // SAFETY: prctl is a plain system call, allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // Should this program be killed, its namespaces are left to nobody.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    child.map_err(|error| format!("`{}` cannot be started: {error}", words[0]))
}

/// Asks a program to end, then makes it.
async fn stop(child: &mut Child) -> Option<ExitStatus> {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // SAFETY: kill takes no pointers; the child is ours and was not waited for yet.
        unsafe { libc::kill(id, libc::SIGTERM) };
    }
    if let Ok(ended) = tokio::time::timeout(GRACE, child.wait()).await {
        return ended.ok();
    }
    eprintln!("link: a program did not end within {GRACE:?} and is killed");
    let _ = child.kill().await;
    None
}

async fn wait_until_ready(uplink: &Uplink, port: u16, mut far: Option<&mut Child>) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        if uplink.far.within(|| std::net::TcpStream::connect((FAR, port))).is_ok() {
            return Ok(());
        }
        if let Some(Ok(Some(status))) = far.as_deref_mut().map(Child::try_wait) {
            return Err(format!("the far command ended with {status} and did not listen at {FAR}:{port}"));
        }
        if begun.elapsed() > READY {
            return Err(format!("--far-ready: nobody listens at {FAR}:{port} after {READY:?}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As a shell tells it: 128 and the number of the signal.
fn code(status: ExitStatus) -> ExitCode {
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(number).unwrap_or(1))
}

fn as_json(counters: &Counters) -> serde_json::Value {
    let way = |way: &WayCounters| {
        let ms = |percent| way.waited.percentile(percent).as_secs_f64() * 1e3;
        let dropped = &way.dropped;
        serde_json::json!({
            "packets_in": way.packets_in, "octets_in": way.octets_in, "packets": way.packets, "octets": way.octets,
            "dropped": {
                "queue": dropped.queue, "loss": dropped.loss, "black_hole": dropped.black_hole,
                "reset": dropped.reset, "address": dropped.address, "other": dropped.other,
            },
            "duplicated": way.duplicated, "reordered": way.reordered, "resets": way.resets,
            "queued_octets": way.queued, "queued_most_octets": way.queued_most,
            "waited_ms": {"p50": ms(50.0), "p95": ms(95.0), "p99": ms(99.0), "most": ms(100.0)},
        })
    };
    serde_json::json!({
        "elapsed_s": counters.elapsed.as_secs_f64(), "up": way(&counters.up), "down": way(&counters.down),
    })
}

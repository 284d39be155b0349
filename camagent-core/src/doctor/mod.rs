//! Why does nothing arrive? Goes the agent's way step by step, to the server and to the cameras, and says of each step how it is, what was
//! measured and what to do. For a program that an operator runs by hand; a running agent is not touched.
//!
//! * `server` the clock, the name, TCP, TLS, the WebSocket with the token, the round trip
//! * `register` a whole session, which takes the place of a running agent's: only when asked for
//! * `camera` the cameras' own servers and the other services
//!
//! What does not belong here: how it is shown, and what a server can find out alone.

mod camera;
mod register;
mod server;

use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Builder;

use crate::{
    config::{Config, Secret},
    error::Error,
};

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not looked at, because a step before it failed or nobody asked.
    Skip,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, always the same word: `configuration`, `clock`, `dns`, `tcp`, `proxy`, `tls`, `websocket`, `server_clock`, `round_trip`,
    /// `register`, `rtsp_port`, `describe`, `key_frame`, `service`.
    pub id: &'static str,
    /// Of what: empty for the server (its host and port when there are several), else a camera, `camera/source` or `camera/service`.
    pub subject: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was found, in words and numbers.
    pub measured: String,
    /// What to do about it; empty when there is nothing to do.
    pub advice: String,
}

/// What is looked at, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examination {
    /// Whether a session is registered too. That replaces a running agent of the same id, which comes back within a minute.
    pub register: bool,
    /// What one step may take. Default 10 s; cameras that send a key frame every 10 s or less often need more.
    pub patience: Duration,
}

impl Default for Examination {
    fn default() -> Self {
        Self { register: false, patience: Duration::from_secs(10) }
    }
}

/// Looks at everything, one after the other, and tells each step as soon as it is done; the worst verdict comes back.
///
/// It blocks for as long as that takes, each step at most as long as [`Examination::patience`], and no secret is in what it tells.
/// The error is that of a machine that cannot even begin.
pub fn examine(config: &Config, how: Examination, tell: impl FnMut(&Check)) -> Result<Verdict, Error> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .map_err(Error::io("cannot start an event loop"))?;
    let mut report = Report { secrets: secrets(config), server: String::new(), worst: Verdict::Ok, tell };
    runtime.block_on(async {
        report.configuration(config);
        server::examine(config, how.patience, &mut report).await;
        register::examine(config, how, &mut report);
        camera::examine(config, how.patience, &mut report).await;
    });
    // A resolver that hangs is left behind.
    runtime.shutdown_background();
    Ok(report.worst)
}

/// What was found, as one JSON object: `{"software", "agent", "verdict", "checks": [{"id", "subject", "verdict", "measured", "advice"}]}`.
/// The verdict on top is the worst of them; a step that was not looked at counts as good.
pub fn checks_to_json(agent_id: &str, checks: &[Check]) -> String {
    let worst = checks.iter().map(|check| check.verdict).filter(|verdict| *verdict != Verdict::Skip).max();
    let verdict = worst.unwrap_or(Verdict::Ok);
    serde_json::json!({"software": crate::SOFTWARE, "agent": agent_id, "verdict": verdict, "checks": checks})
        .to_string()
}

/// Where the steps are told.
struct Report<T> {
    secrets: Vec<Secret>,
    /// Which of several servers is looked at.
    server: String,
    worst: Verdict,
    tell: T,
}

impl<T: FnMut(&Check)> Report<T> {
    fn ok(&mut self, id: &'static str, subject: &str, measured: impl Into<String>) {
        self.check(id, subject, Verdict::Ok, measured.into(), String::new());
    }

    fn skip(&mut self, id: &'static str, subject: &str, measured: impl Into<String>) {
        self.check(id, subject, Verdict::Skip, measured.into(), String::new());
    }

    fn warn(&mut self, id: &'static str, subject: &str, measured: impl Into<String>, advice: impl Into<String>) {
        self.check(id, subject, Verdict::Warn, measured.into(), advice.into());
    }

    fn fail(&mut self, id: &'static str, subject: &str, measured: impl Into<String>, advice: impl Into<String>) {
        self.check(id, subject, Verdict::Fail, measured.into(), advice.into());
    }

    fn check(&mut self, id: &'static str, subject: &str, verdict: Verdict, measured: String, advice: String) {
        // Somebody else's words may hold anything: what was sent to him, or an escape sequence for the terminal.
        let mut measured: String = measured.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        for secret in &self.secrets {
            measured = measured.replace(secret.reveal(), "***");
        }
        let subject = if subject.is_empty() { &self.server } else { subject };
        self.worst = self.worst.max(verdict);
        (self.tell)(&Check { id, subject: subject.into(), verdict, measured, advice });
    }

    fn configuration(&mut self, config: &Config) {
        let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
        let through = config.proxy.as_ref().map_or(String::new(), |proxy| format!(" through proxy {proxy}"));
        let (servers, cameras) = (servers.join(", "), config.cameras.len());
        let found = format!("agent {} for {servers}{through}, {cameras} camera(s)", config.agent_id);
        match config.warnings.as_slice() {
            [] => self.ok("configuration", "", found),
            warnings => self.warn("configuration", "", found, warnings.join("; ")),
        }
    }
}

/// What must not be shown. Very short ones would only blot out innocent words.
fn secrets(config: &Config) -> Vec<Secret> {
    let passwords = config.cameras.iter().filter_map(|camera| camera.password.clone());
    passwords
        .chain([config.token.clone()])
        .chain(config.proxy.as_ref().and_then(|proxy| proxy.password()))
        .filter(|secret| secret.reveal().len() > 3)
        .collect()
}

/// A time as people read it.
fn millis(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

/// Host and port as in a URL.
fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_and_no_escape_is_shown_and_the_worst_verdict_stays() {
        let mut config = Config::new("a", "ws://h", "the-token").unwrap();
        config.cameras[0].password = Some(Secret::new("the-password"));
        let mut told = Vec::new();
        let mut report = Report {
            secrets: secrets(&config),
            server: String::new(),
            worst: Verdict::Ok,
            tell: |check: &Check| told.push(check.clone()),
        };
        report.ok("tcp", "", "\u{1b}[2Jyou sent the-token and the-password");
        report.fail("tls", "", "x", "y");
        report.skip("websocket", "", "z");
        assert_eq!(report.worst, Verdict::Fail);
        assert_eq!(told[0].measured, " [2Jyou sent *** and ***");
        let shown = serde_json::to_string(&told[1]).unwrap();
        assert_eq!(shown, r#"{"id":"tls","subject":"","verdict":"fail","measured":"x","advice":"y"}"#);
    }
}

//! One round: an agent in C, a link, a server, each a process or a proxy of its own, in a folder that goes with it. Does what the plan says,
//! then lets everything through, waits until the agent has nothing left, and has the recording judged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use camagent_testkit::c_library::{Sdk, root};
use camagent_testkit::daemon::{self, Daemon};
use camagent_testkit::{Api, CloudProcess, Link, Script, journal, wait};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use super::judge::{Allowance, Played, Shelf, Verdict, judge};
use super::life::{End, Life};
use super::outage::{Kind, Outage, Plan};
use super::probe::Probe;

/// `streaming.buffer_size`: about eight seconds of what is pushed. A disk that stands still for longer costs frames, and is no outage.
const MEMORY: usize = 512 << 10;
/// A second of what is pushed, and more.
const SECOND_OCTETS: usize = 64 << 10;
/// What a kill may cost with `write_ahead`, by the agent's reference …
const WRITE_AHEAD_US: i64 = 1_500_000;
/// … and what a busy machine may add before a thread has its turn.
const BUSY_US: i64 = 2_500_000;
/// The files that are played begin anew after so long.
const PLAYED_US: i64 = 60_000_000;
/// After the last outage everything has come within this time.
const SETTLES: Duration = Duration::from_secs(180);
/// `camagent_stop` waits five seconds for the rest to leave.
const STOPS: Duration = Duration::from_secs(40);
/// A black hole swallows new connections as soon as this.
const DARK_EVERY: Duration = Duration::from_millis(40);

/// What rounds share.
pub struct Stage {
    folder: TempDir,
    played: Played,
    /// ffprobe, when it is there.
    pub probe: Probe,
}

impl Stage {
    /// Compiles the C example and makes what it plays: no picture and no sound is there twice.
    pub fn build() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Sdk::find().compile(&root().join("examples-c/push_file.c"), &[], &folder.path().join("push_file"));
        let (mut pictures, mut sounds) = (Vec::new(), Vec::new());
        for (mut script, file) in
            [(Script::h264_aac().without_audio(), &mut pictures), (Script::h265_pcma().without_video(), &mut sounds)]
        {
            while script.next_time_us() < PLAYED_US {
                file.extend_from_slice(&script.next_piece().data);
            }
        }
        std::fs::write(folder.path().join("pictures.h264"), &pictures).expect("can be written");
        std::fs::write(folder.path().join("sounds.alaw"), &sounds).expect("can be written");
        Self { folder, played: Played { pictures, sounds }, probe: Probe::find() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// One round.
struct World<'a> {
    stage: &'a Stage,
    plan: &'a Plan,
    // In this order: nobody writes any more when the folder goes.
    agent: Option<Daemon>,
    server: Option<CloudProcess>,
    link: Link,
    token: String,
    lives: Vec<Life>,
    shelf: Shelf,
    verdict: Verdict,
    /// What happened, for who looks into a breach.
    log: Vec<String>,
    began: Instant,
    folder: PathBuf,
}

/// Plays a round in a folder that is there and empty; `is_over` ends its outages before their time.
pub async fn round(stage: &Stage, plan: &Plan, folder: &Path, is_over: impl Fn() -> bool) -> Verdict {
    let mut world = World::begin(stage, plan, folder).await;
    for outage in &plan.outages {
        if is_over() {
            break;
        }
        sleep(outage.calm).await;
        world.note(outage.to_string());
        world.suffer(outage).await;
        world.verdict.outages += 1;
    }
    world.settle().await;
    world.end().await
}

/// The machine's steady clock, which the C example's frames have their times of.
fn now_us() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to the value that is handed to it, and nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

fn utc_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 200000")
}

impl<'a> World<'a> {
    async fn begin(stage: &'a Stage, plan: &'a Plan, folder: &Path) -> Self {
        CloudProcess::configure(folder, &format!("segment_seconds = {}", plan.segment_seconds));
        std::fs::create_dir(folder.join("card")).expect("can be made");
        let added = |arguments: &[&str]| match CloudProcess::say(folder, arguments) {
            (true, token) => token,
            (false, said) => panic!("camagent-cloud {arguments:?}: {said}"),
        };
        let (agent_token, token) = (added(&["agent", "add", "cam"]), added(&["token", "add", "chaos"]));
        let server = CloudProcess::start(folder).await;
        let link = Link::to(server.tls).await;
        let config = json!({
            "agent": {
                "agent_id": "cam", "cloud_server_url": format!("wss://{}/agent", link.address()), "cloud_server_token": agent_token,
                "server_pin": server.pin, "log_level": "DEBUG",
            },
            "streaming": {"buffer_size": MEMORY},
            "network": {"connection_timeout": 10, "reconnect_interval": 1, "heartbeat_interval": 1},
            "storage": {
                "path": folder.join("card"), "max_bytes": 64 << 20,
                "mode": if plan.write_ahead { "write_ahead" } else { "spill" },
            },
        });
        std::fs::write(folder.join("agent.json"), config.to_string()).expect("can be written");
        let mut world = Self {
            stage,
            plan,
            agent: None,
            server: Some(server),
            link,
            token,
            lives: Vec::new(),
            shelf: Shelf::default(),
            verdict: Verdict::default(),
            log: Vec::new(),
            began: Instant::now(),
            folder: folder.to_owned(),
        };
        world.note(format!("it is {} us since 1970", utc_us()));
        world.start_agent();
        world
    }

    fn note(&mut self, what: String) {
        self.log.push(format!("{:8.3} s {what}", self.began.elapsed().as_secs_f64()));
    }

    fn recordings(&self) -> PathBuf {
        CloudProcess::recordings(&self.folder)
    }

    fn start_agent(&mut self) {
        let number = self.lives.len();
        let (ledger, log) = (self.folder.join(format!("ledger-{number}")), self.agent_log(number));
        let log = std::fs::File::create(log).expect("can be written");
        let mut command = Command::new(self.stage.path("push_file"));
        command.arg("--config").arg(self.folder.join("agent.json")).arg("--ledger").arg(&ledger);
        command.arg("--video").arg(self.stage.path("pictures.h264"));
        command.arg("--audio").arg(self.stage.path("sounds.alaw")).args(["--linger", "2"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        daemon::dies_with_its_parent(&mut command);
        self.lives.push(Life { ledger, began_us: now_us(), began_utc_us: utc_us(), end: None });
        self.agent = Some(Daemon::spawn(&mut command));
        self.note(format!("run {number} of the agent begins"));
    }

    fn agent_log(&self, number: usize) -> PathBuf {
        self.folder.join(format!("agent-{number}.log"))
    }

    /// Ends the agent's run with a signal, and looks at the card.
    async fn end_agent(&mut self, signal: libc::c_int) {
        let Some(mut agent) = self.agent.take() else { return };
        let number = self.lives.len() - 1;
        if !agent.runs() {
            let log = std::fs::read_to_string(self.agent_log(number)).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(5).collect();
            self.verdict.unexplained(format!("run {number} of the agent ended by itself: {last:?}"));
        }
        // It pushes nothing from now on.
        let utc_us = utc_us();
        agent.signal(signal);
        wait::until("the agent's end", STOPS, || !agent.runs()).await;
        let at_us = now_us();
        let was_killed = signal == libc::SIGKILL;
        let end = End { at_us, utc_us, was_killed, on_card: BTreeSet::new() };
        self.lives[number].end = Some(end);
        let mut held = 0;
        for frame in journal::read(&self.folder.join("card")) {
            // Times tell whose it is: a run's frames came while it ran.
            let life = self.lives.iter_mut().find(|life| life.has(frame.pts_us));
            match life.and_then(|life| life.end.as_mut()) {
                Some(end) => held += u64::from(end.on_card.insert((frame.track, frame.sequence))),
                None => self.verdict.unexplained(format!("a frame of {} on the card is of no run", frame.pts_us)),
            }
        }
        let how = if was_killed { "is killed" } else { "has stopped" };
        self.note(format!("run {number} of the agent {how}; {held} more frames are on the card"));
    }

    /// Ends the server with SIGKILL, and sees whether players still take its files.
    async fn kill_server(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill().await;
            self.note("the server is killed".to_owned());
            for fault in self.stage.probe.look(&self.recordings()).await {
                self.verdict.unexplained(fault);
            }
        }
    }

    async fn start_server(&mut self) {
        let server = CloudProcess::start(&self.folder).await;
        self.link.lead_to(server.tls);
        self.server = Some(server);
        self.note("the server runs".to_owned());
    }

    async fn suffer(&mut self, outage: &Outage) {
        let lasts = outage.lasts;
        match outage.kind {
            Kind::Cut | Kind::Reset | Kind::Away | Kind::AwayAndKilled => {
                if outage.kind == Kind::Cut {
                    self.link.cut_in_mid_record()
                } else {
                    self.link.reset()
                }
                self.link.set_up(false);
                if outage.kind == Kind::AwayAndKilled {
                    sleep(lasts / 4 * 3).await;
                    self.end_agent(libc::SIGKILL).await;
                    self.start_agent();
                    sleep(lasts / 4).await;
                } else {
                    sleep(lasts).await;
                }
                self.link.set_up(true);
            }
            Kind::Dark => {
                let begun = Instant::now();
                while begun.elapsed() < lasts {
                    self.link.swallow();
                    sleep(DARK_EVERY).await;
                }
            }
            Kind::Held => {
                self.link.hold();
                sleep(lasts).await;
                self.link.release();
            }
            Kind::ServerKilled | Kind::BothKilled => {
                if outage.kind == Kind::BothKilled {
                    self.end_agent(libc::SIGKILL).await;
                }
                self.kill_server().await;
                sleep(lasts).await;
                self.start_server().await;
                if outage.kind == Kind::BothKilled {
                    self.start_agent();
                }
            }
            Kind::ServerStopped => {
                if let Some(server) = self.server.take() {
                    server.stop().await;
                }
                sleep(lasts).await;
                self.start_server().await;
            }
            Kind::ServerFrozen => {
                if let Some(server) = &self.server {
                    server.signal(libc::SIGSTOP);
                    sleep(lasts).await;
                    server.signal(libc::SIGCONT);
                }
            }
            Kind::AgentKilled | Kind::AgentStopped => {
                let signal = if outage.kind == Kind::AgentKilled { libc::SIGKILL } else { libc::SIGTERM };
                self.end_agent(signal).await;
                sleep(lasts).await;
                self.start_agent();
            }
        }
    }

    /// Everything is let through until nothing is left at the agent.
    async fn settle(&mut self) {
        self.note("everything is let through".to_owned());
        let begun = Instant::now();
        let folder = self.recordings();
        loop {
            while begun.elapsed() < SETTLES {
                self.shelf.look(&folder);
                let (awaited, runs) = self.shelf.awaited(&self.lives);
                if awaited == 0 && runs.contains(&(self.lives.len() - 1)) {
                    break;
                }
                sleep(Duration::from_millis(250)).await;
            }
            let number = self.lives.len() - 1;
            self.end_agent(libc::SIGTERM).await;
            let log = std::fs::read_to_string(self.agent_log(number)).unwrap_or_default();
            if log.contains("stopped, 0 frames were left") || begun.elapsed() >= SETTLES {
                break;
            }
            // What was left is on the card: another run brings it.
            self.start_agent();
        }
        self.note(format!("settled after {:.1} s", begun.elapsed().as_secs_f64()));
        self.check_coverage().await;
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// What the API says is missing has to be a time when no agent ran.
    async fn check_coverage(&mut self) {
        let Some(server) = &self.server else { return };
        let (status, body) = Api::new(server.http, Some(&self.token)).get("/api/v1/recordings?camera=cam").await;
        let moment = |value: &Value| value.as_str().and_then(rfc3339_us);
        let (Some(gaps), Some(first)) = (body["gaps"].as_array(), body["ranges"][0]["from"].as_str()) else {
            self.verdict.unexplained(format!("the API says {status} {body}"));
            return;
        };
        let (first, last) =
            (rfc3339_us(first), moment(&body["ranges"][body["ranges"].as_array().map_or(0, Vec::len) - 1]["to"]));
        self.shelf.look(&self.recordings());
        let (_, runs) = self.shelf.awaited(&self.lives);
        let lives: Vec<_> = runs.into_iter().map(|number| &self.lives[number]).collect();
        let mut faults = Vec::new();
        for gap in gaps {
            let (Some(from), Some(to)) = (moment(&gap["from"]), moment(&gap["to"])) else {
                faults.push(format!("the API names a gap {gap}"));
                continue;
            };
            if Some(to) <= first || Some(from) >= last {
                continue;
            }
            // Clocks of agents are known to some tens of milliseconds.
            let slack = 500_000;
            let cost = slack
                + match self.allowance() {
                    Allowance::Time(micros) => micros,
                    Allowance::Octets(octets) => octets as i64 * 1_000_000 / SECOND_OCTETS as i64,
                };
            let between = lives.windows(2).any(|pair| {
                let ended = pair[0].end.as_ref().map_or(i64::MAX, |end| end.utc_us);
                from >= ended - cost && to <= pair[1].began_utc_us + BUSY_US + slack
            });
            if !between {
                faults.push(format!("the API names a gap while the agent ran: {gap}"));
            }
        }
        faults.into_iter().for_each(|fault| self.verdict.unexplained(fault));
    }

    /// What a kill may cost.
    fn allowance(&self) -> Allowance {
        match self.plan.write_ahead {
            true => Allowance::Time(WRITE_AHEAD_US + BUSY_US),
            // Beyond half of it what memory holds goes to the card.
            false => Allowance::Octets(MEMORY / 2 + 4 * SECOND_OCTETS),
        }
    }

    async fn end(mut self) -> Verdict {
        let folder = self.recordings();
        let log = std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default();
        for line in log.lines().filter(|line| line.contains("agent_misbehaved") || line.contains("panicked")) {
            self.verdict.unexplained(format!("the server says {line}"));
        }
        let (is_good, said) = CloudProcess::say(&self.folder, &["recordings", "check"]);
        if !is_good || !said.contains("problems 0") {
            self.verdict.unexplained(format!("recordings check: {said}"));
        }
        for fault in self.stage.probe.look(&folder).await {
            self.verdict.unexplained(fault);
        }
        let mut shelf = std::mem::take(&mut self.shelf);
        shelf.look(&folder);
        let allowance = self.allowance();
        let mut verdict = std::mem::take(&mut self.verdict);
        verdict.add(judge(&self.lives, &shelf, &self.stage.played, allowance));
        if !verdict.is_good() {
            let mode = if self.plan.write_ahead { "write_ahead" } else { "spill" };
            let mut told = vec![format!("round of seed {} ({mode}):", self.plan.seed)];
            told.extend(verdict.told.drain(..).map(|what| format!("  {what}")));
            told.extend(self.log.drain(..).map(|what| format!("    {what}")));
            verdict.told = told;
        }
        verdict
    }
}

/// `2026-01-31T12:00:00.123456Z` as microseconds since 1970.
fn rfc3339_us(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers =
        |text: &str, between: char| text.split(between).map(|part| part.parse().ok()).collect::<Option<Vec<i64>>>();
    let [year, month, day] = numbers(date, '-')?[..] else { return None };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hours, minutes, seconds] = numbers(clock, ':')?[..] else { return None };
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    // Days since 1970 of the Gregorian calendar, whose years begin in March here.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    Some((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_api_are_read() {
        assert_eq!(rfc3339_us("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(rfc3339_us("2001-09-09T01:46:40.25Z"), Some(1_000_000_000_250_000));
        assert_eq!(rfc3339_us("2024-02-29T12:00:00.000001Z"), Some(1_709_208_000_000_001));
        assert_eq!(rfc3339_us("soon"), None);
    }
}

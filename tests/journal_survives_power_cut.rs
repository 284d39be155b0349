//! An agent with a folder on flash is killed while there is no connection, again and again: the server gets every frame that was safe, once, with the
//! octets that were pushed, and nobody has to know the former runs. The killed agents are processes of their own: this program, run again.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use camagent_proto::frame::{EndReason, Frame as Wire, Journal, Mack};
use camagent_testkit::{
    core::{Agent, Codec, Config, Event, Frame, Framing, Host, TrackDescription, Warning},
    raw_server::{RawServer, RawSession},
    wait::{self, SOON},
};
use serde_json::json;

const FOLDER: &str = "CAMAGENT_TEST_JOURNAL";
/// Runs that are killed.
const RUNS: usize = 6;

/// The picture of this number: what a run pushes says which picture it is, whoever reads it back.
fn picture(number: u64) -> Vec<u8> {
    let is_key = number.is_multiple_of(25);
    let mut octets = vec![0, 0, 0, 1, if is_key { 0x65 } else { 0x41 }];
    let length = if is_key { 20_000 } else { 2_000 };
    octets.extend((0..length).map(|at: u64| (number.wrapping_mul(37).wrapping_add(at) % 250) as u8 + 3));
    octets
}

fn config(server: &str, folder: &Path) -> Config {
    let text = json!({
        "agent": {"agent_id": "cam", "cloud_server_url": server, "cloud_server_token": "t"},
        // A busy disk may stand for some seconds: then what is pushed so fast waits in memory.
        "streaming": {"buffer_size": 16 << 20},
        "network": {"reconnect_interval": 1},
        "storage": {"path": folder, "max_bytes": 64 << 20},
    });
    Config::from_json(&text.to_string()).expect("a good file")
}

fn start(server: &str, folder: &Path) -> Agent {
    let agent = Agent::start(config(server, folder), Host::default()).expect("it starts");
    agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).expect("a track");
    agent
}

fn push(agent: &Agent, number: u64) {
    let time = i64::try_from(number).expect("small") * 40_000;
    let data = picture(number);
    agent.push_frame(0, Frame { pts_us: time, dts_us: time, data: &data, ..Frame::default() }).expect("it is taken");
}

/// The process that is killed. It is run by the other test and does nothing by itself.
#[test]
#[ignore = "run by the_server_gets_every_frame_that_was_safe, as a process of its own"]
fn run_that_is_killed() {
    let folder = std::env::var_os(FOLDER).expect("run by the other test");
    // Port 9 of loopback: nobody listens.
    let agent = start("ws://127.0.0.1:9/agent", Path::new(&folder));
    let began = Instant::now();
    for number in 0.. {
        push(&agent, number);
        // 25 times as fast as a camera.
        let due = Duration::from_micros(number * 1_600);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

fn child(folder: &Path) -> Child {
    let program = std::env::current_exe().expect("this program");
    Command::new(program)
        .args(["--ignored", "--exact", "run_that_is_killed"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs again")
}

/// Octets of all files of the journal.
fn held(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("the folder is there").filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|data| data.len()).sum()
}

/// What the server got of one lane.
#[derive(Debug)]
struct Lane {
    journal: Journal,
    frames: Vec<Vec<u8>>,
    open: Vec<u8>,
    total: u64,
    end: Option<(u64, EndReason)>,
}

impl Lane {
    fn add(&mut self, octets: &[u8]) {
        self.open.extend_from_slice(octets);
        if self.open.len() as u64 == self.total {
            self.frames.push(std::mem::take(&mut self.open));
        }
    }
}

/// Takes all lanes to their end, as a server that stores them.
async fn take(session: &mut RawSession, runs: usize) -> Vec<Lane> {
    let state = json!({"camera": "cam", "source": "main", "wanted": true, "retention": "record"});
    assert!(session.say("source_state", state).await);
    let mut lanes: BTreeMap<u32, Lane> = BTreeMap::new();
    while lanes.values().filter(|lane| lane.end.is_some()).count() < runs {
        let frame = session.hear("something of the past", |frame| Some(frame.clone())).await;
        let lane = match &frame {
            Wire::Journal(journal) => {
                let new = Lane { journal: journal.clone(), frames: Vec::new(), open: Vec::new(), total: 0, end: None };
                lanes.entry(journal.lane).or_insert(new);
                journal.lane
            }
            Wire::Frame(start) if lanes.contains_key(&start.track) => {
                let lane = lanes.get_mut(&start.track).expect("it is there");
                assert_eq!(
                    start.sequence,
                    lane.journal.info.next + lane.frames.len() as u64,
                    "in order, without a hole"
                );
                assert_eq!(start.head.pts_us, i64::try_from(start.sequence).expect("small") * 40_000);
                assert_eq!(start.head.key, start.sequence.is_multiple_of(25));
                lane.total = start.total;
                lane.add(&start.payload);
                start.track
            }
            Wire::FrameMore(more) if lanes.contains_key(&more.track) => {
                lanes.get_mut(&more.track).expect("it is there").add(&more.payload);
                more.track
            }
            Wire::EpochEnd(end) => {
                lanes.get_mut(&end.lane).expect("a lane that was opened").end = Some((end.next, end.cause));
                end.lane
            }
            Wire::Skip(skip) if lanes.contains_key(&skip.track) => panic!("nothing of it was lost: {skip:?}"),
            _ => continue,
        };
        let Lane { journal, frames, .. } = &lanes[&lane];
        let next = journal.info.next + frames.len() as u64;
        let mack = Mack { track: lane, epoch: journal.info.epoch, received: next, persisted: next };
        assert!(session.push(&[Wire::Mack(mack)]).await, "the agent stays");
    }
    lanes.into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_gets_every_frame_that_was_safe() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path();
    let mut safe = Vec::new();
    for run in 1..=RUNS as u64 {
        let before = held(folder);
        let mut child = child(folder);
        // Written and, as two seconds more went by, safe: a second is the longest that the disk thread leaves it.
        wait::until("frames on the card", SOON, || held(folder) > before + 300_000).await;
        let written = held(folder) - before;
        let later = Instant::now() + Duration::from_secs(2);
        wait::until("the disk thread's sync", SOON, || Instant::now() >= later).await;
        child.kill().expect("it is there");
        child.wait().expect("it is over");
        safe.push((run, written));
    }

    let server = RawServer::start().await;
    let agent = start(&format!("ws://{}/agent", server.address()), folder);
    let mut session = server.session().await;
    let lanes = take(&mut session, RUNS).await;
    assert_eq!(lanes.len(), RUNS);
    for (lane, (run, written)) in lanes.iter().zip(&safe) {
        assert_eq!(
            (lane.journal.info.camera.as_str(), lane.journal.info.source.as_str()),
            ("cam", "main"),
            "run {run}"
        );
        assert!(lane.journal.utc_us > 1_700_000_000_000_000, "run {run}: arrival times can be dated");
        let count = lane.frames.len() as u64;
        assert_eq!(lane.end, Some((count, EndReason::PowerCut)), "run {run}");
        for (number, octets) in lane.frames.iter().enumerate() {
            assert!(*octets == picture(number as u64), "run {run}: other octets in frame {number}");
        }
        let octets: usize = lane.frames.iter().map(Vec::len).sum();
        // Beside the frames' octets there are some 20 for each, and the head.
        assert!(
            octets as u64 + 30 * count + 1_000 >= *written,
            "run {run}: {octets} octets of {written} that were safe"
        );
    }
    let boots: std::collections::BTreeSet<_> = lanes.iter().map(|lane| lane.journal.boot).collect();
    assert_eq!(boots.len(), RUNS, "each run has a name of its own");

    // What is stored is let go, and live frames flow beside it.
    wait::until("room on the card", SOON, || held(folder) < 100_000).await;
    push(&agent, 0);
    let live = session.hear("a live frame", |frame| match frame {
        Wire::Frame(start) if start.track == 0 => Some(start.total),
        _ => None,
    });
    assert_eq!(live.await, picture(0).len() as u64);
    agent.stop(Duration::ZERO).expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_there_is_told_and_live_goes_on() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("card");
    let server = RawServer::start().await;
    let agent = start(&format!("ws://{}/agent", server.address()), &folder);
    let mut session = server.session().await;
    let told = wait::found("the event", SOON, || match agent.poll_event(Duration::from_millis(10)) {
        Some(Event::Warning { warning: Warning::Storage, message }) => Some(message),
        _ => None,
    });
    let told = told.await;
    assert!(told.contains("cannot be used"), "{told}");
    assert!(!folder.exists(), "the mount point of a card that is not there stays empty");
    push(&agent, 0);
    session.hear("a live frame", |frame| matches!(frame, Wire::Frame(_)).then_some(())).await;
    agent.stop(Duration::ZERO).expect("it stops");
}

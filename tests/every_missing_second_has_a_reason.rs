//! One ledger: what an agent lost, what the server's events and metrics tell, what `GET /recordings` says is missing and what lies in the recorded
//! files are the same numbers of frames, and each time without frames has its reasons.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use camagent_testkit::core::{Agent, Codec, Config, Frame, Framing, Host, Pushed, TrackDescription};
use camagent_testkit::script::{AUDIO, VIDEO};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Camera, CloudServer, Script, camera};
use cloud_server::ingest::ranges::Ranges;
use cloud_server::ingest::segment::scan;
use serde_json::Value;

/// Numbers of frames that are in files, by run and track.
fn recorded(folder: &Path) -> BTreeMap<([u8; 16], u32), Ranges> {
    let mut recorded: BTreeMap<_, Ranges> = BTreeMap::new();
    let mut folders = vec![folder.join("open"), folder.join("recordings")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(Ok(info)) = std::fs::read(&path).map(|data| scan(&data, |_, _, _| {})) {
                // One that is moved while this looks is seen at both places.
                let own = recorded.entry((info.head.key.boot, info.head.key.track)).or_default();
                info.runs.iter().for_each(|run| own.insert(run.first, run.next));
            }
        }
    }
    recorded
}

/// Waits until the newest frames that a camera pushed are in files; how many of its frames are not. Those that the agent refused, behind the first one
/// that it took, are among them.
async fn missing(folder: &Path, camera: &Camera) -> u64 {
    let left_out = camera.left_out();
    let refused = |track| left_out.iter().filter(|own| own.track == track).count();
    let pushed = [VIDEO, AUDIO].map(|track| (track, (camera.track(track).len() + refused(track)) as u64));
    let all = || {
        let recorded = recorded(folder);
        let of = |(track, count): (u32, u64)| {
            let own = recorded.iter().filter(|((_, own), _)| *own == track).map(|(_, ranges)| ranges);
            own.filter(|ranges| ranges.contains(count - 1)).map(|ranges| count - ranges.count()).next()
        };
        Some(of(pushed[0])? + of(pushed[1])?)
    };
    wait::found("the newest frames in files", SOON, all).await
}

fn sum(lost: &Value) -> u64 {
    lost.as_object().expect("reasons").values().filter_map(Value::as_u64).sum()
}

fn reasons(gap: &Value) -> Vec<&str> {
    gap["reasons"].as_array().expect("reasons").iter().filter_map(|why| why["reason"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_the_events_the_api_and_the_files_tell_the_same_numbers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recordings = folder.path().to_owned();
    let mut server = CloudServer::with(|config| config.recordings.path = Some(recordings.clone())).await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    // Memory for less than a second.
    let mut json = server.agent_json("cam", &token, server.addresses().tls);
    json["streaming"]["buffer_size"] = serde_json::json!(300_000);
    let config = || camagent_testkit::core::Config::from_json(&json.to_string()).expect("a good file");
    let script = || Script::h264_aac().heavier_by(15_000);
    let mut camera = camera::Setup::new(config(), script()).start();
    wait::until("a beginning", SOON, || recorded(&recordings).values().any(|own| own.count() > 50)).await;

    // The server is away for longer than the agent's memory lasts.
    let before = camera.pictures();
    assert!(server.stop().await);
    wait::until("pictures that have no room", SOON, || camera.pictures() > before + 100).await;
    server.start_again().await;
    let agent = camera.agent().clone();
    wait::until("a loss that is told", SOON, || agent.statistics().packets_lost > 0).await;
    let after = camera.pictures();
    wait::until("pictures behind the hole", SOON, || camera.pictures() > after + 30).await;
    camera.pause();

    let missing = missing(&recordings, &camera).await;
    assert!(missing > 50, "{missing} frames had no room");
    assert_eq!(agent.statistics().packets_lost, missing, "what the agent says");
    let events = std::sync::Arc::clone(server.server().events());
    wait::until("the events say it too", SOON, || events.lost().values().sum::<u64>() == missing).await;
    assert_eq!(events.lost().keys().copied().collect::<Vec<_>>(), ["over_budget"]);
    let (_, _, metrics) = api.get_text("/metrics", "").await;
    let line = format!("camagent_frames_lost_total{{reason=\"over_budget\"}} {missing}");
    assert!(metrics.lines().any(|own| own == line), "{line} is missing in\n{metrics}");

    let (status, body) = api.get("/api/v1/recordings?camera=cam").await;
    assert_eq!((status, sum(&body["lost"])), (200, missing), "{body}");
    assert_eq!(body["lost"]["over_budget"], missing);
    let gaps = body["gaps"].as_array().expect("a list");
    // What went to make room, and what had none beside the group that it belongs to.
    let hole: Vec<_> = gaps.iter().filter(|gap| gap["frames"].as_u64() > Some(0)).collect();
    assert!(!hole.is_empty() && hole.iter().all(|gap| gap["reason"] == "over_budget"), "{body}");
    let all = reasons(hole[0]);
    assert!(all.contains(&"server_down") && all.contains(&"agent_offline"), "{all:?}");
    // Pictures are 40 ms each: the hole is as long as what is missing.
    let moment = |text: &Value| text.as_str().expect("a time")[..19].to_owned();
    assert!(moment(&hole[0]["from"]) < moment(&hole[0]["to"]), "{}", hole[0]);
    let pictures: u64 = hole.iter().filter_map(|gap| gap["frames"].as_u64()).sum();
    assert!(pictures < missing, "the sounds are among them: {pictures} of {missing}");

    // The agent goes without a word about what it still had, and another run comes later.
    drop(agent);
    camera.stop(Duration::ZERO);
    wait::until("it has left", SOON, || server.event_count("agent_offline") > 0).await;
    let left = tokio::time::Instant::now();
    // Longer than what counts as a pause.
    wait::until("a while", SOON, || left.elapsed() > Duration::from_millis(1_500)).await;
    let camera = camera::Setup::new(config(), script()).start();
    wait::until("another run", SOON, || recorded(&recordings).values().filter(|own| own.count() > 40).count() >= 3)
        .await;
    let (_, body) = api.get("/api/v1/recordings?camera=cam").await;
    let last = body["gaps"].as_array().and_then(|gaps| gaps.last()).unwrap_or_else(|| panic!("{body}"));
    assert_eq!(reasons(last), ["agent_restarted", "agent_offline"], "{body}");
    assert_eq!(sum(&body["lost"]), missing, "nothing more is known to be lost: {body}");
    camera.stop(Duration::ZERO);
    assert!(server.stop().await);

    let report = cloud_server::record::check::check(&recordings, false, cloud_server::clock::Clock::new()).await;
    let report = report.expect("it can be checked");
    assert_eq!(report.problems, [""; 0], "the files agree with the ledger");
}

/// An encoder that does everything wrong in turn, and remembers how often a push was not taken.
struct Encoder {
    agent: Agent,
    script: Script,
    at_us: i64,
    /// Frames that were pushed from the first key frame on, and those of them that were not taken.
    pushed: u64,
    refused: u64,
}

impl Encoder {
    /// Ten milliseconds later, so that the recording has the pace of what is pushed.
    async fn pass(&mut self) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.at_us += 10_000;
    }

    /// Pushes something `early_us` before its time; whether it was taken.
    fn push(&mut self, data: &[u8], early_us: i64) -> bool {
        let time_us = self.at_us - early_us;
        let frame = Frame { pts_us: time_us, dts_us: time_us, data, ..Frame::default() };
        let is_kept = matches!(self.agent.push_frame(VIDEO, frame), Ok(Pushed::Kept));
        self.pushed += 1;
        self.refused += u64::from(!is_kept);
        is_kept
    }

    /// Pushes so many pictures of the script, each larger by `filler`; whether the last one was taken.
    async fn go_on(&mut self, pictures: usize, filler: usize) -> bool {
        let mut is_kept = false;
        for _ in 0..pictures {
            self.pass().await;
            let mut data = self.script.next_piece().data.to_vec();
            if filler > 0 {
                data.extend_from_slice(&[0, 0, 0, 1, 12]);
                data.resize(data.len() + filler, 0xff);
                data.push(0x80);
            }
            is_kept = self.push(&data, 0);
        }
        is_kept
    }

    /// Pushes until one is taken; how many were refused since `before` were.
    async fn recover(&mut self, before: u64) -> u64 {
        while !self.go_on(1, 0).await {}
        self.refused - before
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_lost_in_many_ways_are_the_same_numbers_everywhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recordings = folder.path().to_owned();
    let mut server = CloudServer::with(|config| config.recordings.path = Some(recordings.clone())).await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let mut json = server.agent_json("cam", &token, server.addresses().tls);
    json["streaming"]["buffer_size"] = serde_json::json!(300_000);
    let config = Config::from_json(&json.to_string()).expect("a good file");
    let agent = Agent::start(config, Host::default()).expect("starts");
    agent.set_track(VIDEO, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).expect("a good track");
    let script = Script::h264_aac().without_audio().with_group_of(10);
    let mut encoder = Encoder { agent, script, at_us: 0, pushed: 0, refused: 0 };
    assert!(encoder.go_on(25, 0).await);
    wait::until("a beginning", SOON, || recorded(&recordings).values().any(|own| own.count() > 5)).await;

    // A picture whose time goes back, and one that nobody can take: with each go those that may refer to it.
    encoder.pass().await;
    assert!(!encoder.push(&[0, 0, 0, 1, 0x41, 1], 25_000));
    let out_of_order = encoder.recover(0).await;
    let before = encoder.refused;
    encoder.pass().await;
    assert!(!encoder.push(&vec![0; 400_000], 0));
    let too_large = encoder.recover(before).await;
    assert!(encoder.go_on(12, 0).await && out_of_order > 1 && too_large > 1);

    // What this run of the server has told.
    let earlier = std::sync::Arc::clone(server.server().events());
    let so_far = BTreeMap::from([("refused", out_of_order), ("too_large", too_large)]);
    wait::until("events", SOON, || earlier.lost() == so_far).await;

    // The server is away for longer than memory lasts: of old groups only key frames are kept; then a group comes that is larger than memory.
    assert!(server.stop().await);
    encoder.go_on(60, 6_000).await;
    let before = encoder.refused;
    while encoder.go_on(1, 60_000).await {}
    let cut = encoder.recover(before).await;
    server.start_again().await;
    let first_of_outage = encoder.pushed;
    let has_all = |count: u64| recorded(&recordings).values().any(|own| own.contains(count - 1));
    assert!(encoder.go_on(30, 0).await && encoder.pushed > first_of_outage && cut > 0);
    let pushed = encoder.pushed;
    wait::until("the newest picture in a file: each that was pushed has a number", SOON, || has_all(pushed)).await;

    let kept: u64 = recorded(&recordings).values().map(Ranges::count).sum();
    let missing = pushed - kept;
    assert!(missing > encoder.refused, "{missing} are missing, {} were refused", encoder.refused);
    wait::until("the agent says so", SOON, || encoder.agent.statistics().packets_lost == missing).await;
    let events = std::sync::Arc::clone(server.server().events());
    let rest = missing - out_of_order - too_large;
    wait::until("the events say it too", SOON, || events.lost().values().sum::<u64>() == rest).await;
    let later = events.lost();
    assert!(later["thinned"] > 0 && later["over_budget"] >= cut && later.len() == 2, "{later:?}");
    let (_, _, metrics) = api.get_text("/metrics", "").await;
    for (reason, frames) in &later {
        let line = format!("camagent_frames_lost_total{{reason=\"{reason}\"}} {frames}");
        assert!(metrics.lines().any(|own| own == line), "{line} is missing in\n{metrics}");
    }
    let told: BTreeMap<_, _> = so_far.into_iter().chain(later).collect();
    let (status, body) = api.get("/api/v1/recordings?camera=cam").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["lost"].as_object().map(serde_json::Map::len), Some(told.len()), "{body}");
    let gaps = body["gaps"].as_array().expect("a list");
    for (reason, frames) in &told {
        assert_eq!(body["lost"][*reason], *frames, "{reason}: {body}");
        let whys = gaps.iter().flat_map(|gap| gap["reasons"].as_array().expect("reasons"));
        let in_gaps: u64 = whys.filter(|why| why["reason"] == *reason).filter_map(|why| why["frames"].as_u64()).sum();
        assert_eq!(in_gaps, *frames, "{reason}: {body}");
    }
    let in_gaps: u64 = gaps.iter().filter_map(|gap| gap["frames"].as_u64()).sum();
    assert_eq!(in_gaps, missing, "{body}");
    assert!(encoder.agent.stop(Duration::from_secs(5)).expect("stops").has_ended);
    assert!(server.stop().await);
    let report = cloud_server::record::check::check(&recordings, false, cloud_server::clock::Clock::new()).await;
    assert_eq!(report.expect("it can be checked").problems, [""; 0], "the files agree with the ledger");
}

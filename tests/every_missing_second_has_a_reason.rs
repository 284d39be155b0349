//! One ledger: what an agent lost, what the server's events and metrics tell, what `GET /recordings` says is missing and what lies in the recorded
//! files are the same numbers of frames, and each time without frames has its reasons.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

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

/// Waits until the newest frames that a camera pushed are in files; how many of its frames are not.
async fn missing(folder: &Path, camera: &Camera) -> u64 {
    let pushed = [VIDEO, AUDIO].map(|track| (track, camera.track(track).len() as u64));
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
    let hole: Vec<_> = gaps.iter().filter(|gap| gap["frames"].as_u64() > Some(0)).collect();
    assert_eq!(hole.len(), 1, "one hole: {body}");
    assert_eq!(hole[0]["reason"], "over_budget");
    let all = reasons(hole[0]);
    assert!(all.contains(&"server_down") && all.contains(&"agent_offline"), "{all:?}");
    // Pictures are 40 ms each: the hole is as long as what is missing.
    let moment = |text: &Value| text.as_str().expect("a time")[..19].to_owned();
    assert!(moment(&hole[0]["from"]) < moment(&hole[0]["to"]), "{}", hole[0]);
    let pictures = hole[0]["frames"].as_u64().expect("a number");
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

//! After an outage what is live goes first, also without a card: the pictures that memory kept of it come beside what is live, are no part of what live
//! viewers get, and are in the recording to the last one.

use std::time::Duration;

use camagent_testkit::core::Config;
use camagent_testkit::script::VIDEO;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, Script, camera};
use serde_json::{Value, json};

/// Octets that each picture is heavier by.
const WEIGHT: usize = 4_000;
/// Pictures of an outage: some seconds, of several groups.
const MISSED: usize = 150;
/// Those of them that are behind the newest key frame come as live ones.
const GROUP: usize = 25;

/// Pictures that may still come.
fn missing(body: &Value) -> u64 {
    let gaps = body["gaps"].as_array().into_iter().flatten();
    gaps.filter(|gap| gap["reason"] == "not_received").filter_map(|gap| gap["frames"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_memory_kept_comes_beside_what_is_live() {
    let place = tempfile::tempdir().expect("a folder");
    let recordings = place.path().join("recordings");
    let server = CloudServer::with(|config| config.recordings.path = Some(recordings)).await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let link = Link::to(server.addresses().tls).await;
    let mut file = server.agent_json("cam", &token, link.address());
    file["streaming"]["buffer_size"] = json!(8 << 20);
    let script = Script::h264_aac().with_group_of(GROUP).heavier_by(WEIGHT);
    let camera = camera::Setup::new(Config::from_json(&file.to_string()).expect("a good file"), script).start();

    for outage in 1..=2 {
        let arrived = server.frames("cam", "main");
        wait::until("live frames", SOON, || server.frames("cam", "main") > arrived + 100).await;
        link.reset();
        link.set_up(false);
        wait::until("the end of the session", SOON, || !camera.agent().is_connected()).await;
        let before = camera.pictures();
        wait::until("pictures of the outage", SOON, || camera.pictures() > before + MISSED).await;
        link.set_up(true);
        let octets = (outage * (MISSED - 2 * GROUP) * WEIGHT) as u64;
        let begun = std::time::Instant::now();
        loop {
            let (_, month) = api.get("/api/v1/agents/cam/data").await;
            let (_, recorded) = api.get("/api/v1/recordings?camera=cam").await;
            let past = month["cameras"][0]["backfill"]["main"].as_u64().unwrap_or(0);
            if past > octets && missing(&recorded) == 0 && recorded["lost"] == json!({}) {
                break;
            }
            assert!(begun.elapsed() < SOON * 2, "outage {outage}, {octets} octets: {month} {recorded}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!((camera.agent().statistics().packets_lost, camera.left_out().len()), (0, 0));
    let (shown, pushed) = (server.frames("cam", "main"), camera.pushed().len() as u64);
    let pictures = 2 * (MISSED - 2 * GROUP) as u64;
    assert!(shown + pictures < pushed, "live viewers were shown {shown} frames of {pushed}");
    assert!(camera.track(VIDEO).len() > 2 * MISSED);
    camera.stop(SOON);
}

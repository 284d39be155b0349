//! An agent is heard and answered while the server's database cannot be written: what a session tells it is written beside the session,
//! and none of it is lost.

use std::time::Duration;

use bytes::Bytes;
use camagent_proto::frame::{Frame, TrackInfo};
use camagent_testkit::CloudServer;
use camagent_testkit::raw_agent::{RawAgent, registration};
use camagent_testkit::wait::{SOON, within};
use serde_json::json;

/// Heartbeats that are told and answered meanwhile. A session that waited for its commits would be refused each of them first.
const HEARTBEATS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_further_cameras_are_answered_while_others_write() {
    let server = CloudServer::start().await;
    let token = server.add_agent("a").await;
    let mut register = registration("a");
    register["more_cameras"] = json!(true);
    let (mut agent, _) = RawAgent::registered_as(server.addresses().http, "a", &token, register).await;
    let store = server.server().store();
    let others = within("the database", SOON, store.hold_writes()).await.expect("nobody else holds it for long");
    for number in 1..=HEARTBEATS {
        let statistics = json!({"data": {"control": number * 1_000}});
        agent.tell("heartbeat", json!({"sent_us": number, "statistics": statistics})).await;
        assert_eq!(agent.hear("heartbeat_ack").await["sent_us"], number);
    }
    agent.tell("cameras", json!({"cameras": [{"id": "yard", "sources": [{"name": "main"}]}]})).await;
    let (camera, source) = ("yard".to_owned(), "main".to_owned());
    let config = Bytes::new();
    let track = TrackInfo {
        track: 0,
        epoch: 1,
        next: 0,
        camera,
        source,
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config,
    };
    agent.push(&[Frame::Track(track)]).await;
    agent.tell("heartbeat", json!({"sent_us": HEARTBEATS + 1})).await;
    agent.hear("heartbeat_ack").await;
    // SQLite gives up waiting for the others after a while: that is told, and had no session wait for it.
    let refused = server.event_count("disk_trouble");
    assert!(refused < HEARTBEATS, "{refused} writes were refused before as many heartbeats were answered");
    drop(others);
    let statistics = json!({"data": {"control": 77_000}});
    agent.tell("heartbeat", json!({"sent_us": 9, "statistics": statistics})).await;
    agent.hear("heartbeat_ack").await;
    drop(agent);
    // What is left is written at the end of the session.
    let is_written = async || {
        let months = store.data_months("a").await.expect("reads");
        let Some(month) = months.first() else { return false };
        let rows = store.data("a", month).await.expect("reads");
        let control = rows.iter().find(|row| row.cause == "control").map(|row| row.octets);
        control == Some(77_000) && store.camera_owner("yard").await.expect("reads").as_deref() == Some("a")
    };
    within("what was told", SOON, async {
        while !is_written().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

//! Two agents with one id: the newer connection wins at once, the older is told why, and viewers go on.

use std::time::Duration;

use camagent_proto::frame::{Data, Frame, OpenOutcome, OpenResult};
use camagent_testkit::core::Event;
use camagent_testkit::nal::Digest;
use camagent_testkit::raw_agent::{RawAgent, registration};
use camagent_testkit::script::VIDEO;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Script, Viewer, camera};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn the_older_agent_is_told_and_stays_away() {
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let older = camera::Setup::new(server.agent("cam", &token), Script::h264_aac()).start();
    let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
    viewer.wait_count(0, 20, SOON).await;

    let newer = camera::Setup::new(server.agent("cam", &token), Script::h264_aac()).start();
    let (code, reason, retry_in) = older
        .events()
        .wait("the older agent's end", SOON, |event| match event {
            Event::Disconnected { code, reason, retry_in } => Some((*code, reason.clone(), *retry_in)),
            _ => None,
        })
        .await;
    assert_eq!(code, 4009, "{reason}");
    assert!(reason.contains("newer connection"), "in words: {reason}");
    assert!(reason.contains("127.0.0.1"), "and from where: {reason}");
    assert!(retry_in >= Duration::from_secs(30), "two agents do not throw each other out in turns: {retry_in:?}");

    // The same viewer sees the newer camera's pictures, from a key frame on, without asking again.
    let wanted = wait::found("pictures of the newer", SOON, || newer.units(VIDEO).get(40).copied()).await;
    viewer.wait_unit(0, wanted, SOON).await;
    // The looped clip repeats slices; each picture has a unit of its own too.
    let (of_older, of_newer) = (older.units(VIDEO), newer.units(VIDEO));
    let is_older = |unit: &Digest| of_older.contains(unit) && !of_newer.contains(unit);
    let is_newer = |unit: &Digest| of_newer.contains(unit) && !of_older.contains(unit);
    let all = viewer.seen(0).digests();
    let first = all.iter().position(is_newer).expect("seen above");
    assert!(!all[first..].iter().any(is_older), "nothing of the older one comes afterwards");
    assert_eq!((newer.events().sessions(), older.events().sessions()), (1, 1));
    assert!(newer.agent().is_connected() && !older.agent().is_connected());
    assert_eq!(server.event_count("agent_replaced"), 1);
    let (status, body) = server.api("ops").await.get("/agents/cam").await;
    assert_eq!((status, &body["online"], &body["generation"]), (200, &true.into(), &2.into()));
}

/// The camera loses power: its connection dies without a word, and visitors are handed to it until somebody notices.
#[tokio::test(flavor = "multi_thread")]
async fn visitors_of_a_dead_connection_are_carried_by_the_next_run() {
    let server = CloudServer::start().await;
    let token = server.add_agent("a").await;
    let mut register = registration("a");
    register["cameras"][0]["services"] = json!([{"name": "http", "port": 80}]);
    register["features"] = json!(["tunnel-resume"]);
    register["tunnels"] = json!({"streams": 1, "stream_bytes": 65_536, "bytes": 1 << 20, "opens_per_second": 10, "resume_bytes": 1 << 20});
    let address = server.addresses().http;
    let (mut dead, _) = RawAgent::registered_as(address, "a", &token, register.clone()).await;
    let door = server.tunnel("a", "http").await;
    let opened = |frame| match frame {
        Frame::Open(open) => Some(open.stream),
        _ => None,
    };
    let mut visitors = Vec::new();
    for number in 0..2 {
        let mut visitor = TcpStream::connect(door).await.expect("the port is open");
        if number == 0 {
            dead.hear_frame("OPEN", opened).await;
        } else {
            // There is no stream left for it: it waits. What it says stays with it.
            visitor.write_all(b"GET /").await.expect("writes");
        }
        visitors.push(visitor);
    }
    wait::until("both are there", SOON, || server.visitors("a", "http") == 2).await;

    register["boot_id"] = json!("f".repeat(32));
    register["tunnels"]["streams"] = json!(8);
    let (mut next, _) = RawAgent::registered_as(address, "a", &token, register).await;
    // Both in one record.
    let mut streams = Vec::new();
    let both = next.hear_frame("OPEN of both", |frame| {
        streams.extend(opened(frame));
        (streams.len() == visitors.len()).then_some(())
    });
    both.await;
    for (visitor, stream) in visitors.iter_mut().zip(streams) {
        let outcome = OpenOutcome::Connected;
        let answer = Data { stream, fin: true, octets: "hi".into() };
        next.push(&[Frame::OpenResult(OpenResult { stream, outcome, detail: String::new() }), Frame::Data(answer)])
            .await;
        let mut said = String::new();
        let read = wait::within("an answer", SOON, visitor.read_to_string(&mut said)).await;
        assert_eq!((read.map_err(|error| error.kind()), said.as_str()), (Ok(2), "hi"));
    }
}

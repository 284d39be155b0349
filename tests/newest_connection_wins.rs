//! Two agents with one id: the newer connection wins at once, the older is told why, and viewers go on.

use std::time::Duration;

use camagent_testkit::core::Event;
use camagent_testkit::nal::Digest;
use camagent_testkit::script::VIDEO;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Script, Viewer, camera};

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

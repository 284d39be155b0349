//! Quality medium: `main` is on demand. Nobody watches, nothing is uploaded; a viewer comes, it starts at a key frame that
//! the camera was asked for; the last one leaves, and after the linger it stops.

use std::time::Duration;

use camagent_testkit::core::{Config, Event, Pushed};
use camagent_testkit::script::VIDEO;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, Script, Viewer, camera, nal};
use serde_json::json;

/// The server keeps a source so long after its last viewer.
const LINGER: Duration = Duration::from_millis(500);
/// What is older than this is no live picture to begin with.
const FRESH: Duration = Duration::from_secs(1);
/// Frames that the camera makes in twice that time.
const FRAMES_MEANWHILE: usize = 150;

fn wanted(event: &Event) -> Option<bool> {
    match event {
        Event::TrackWanted { track: VIDEO, wanted } => Some(*wanted),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn main_is_uploaded_only_while_somebody_watches() {
    let server = CloudServer::with(|config| {
        config.live.viewer_linger = LINGER;
        config.live.max_viewer_lag = FRESH;
    })
    .await;
    let token = server.add_agent("cam").await;
    let link = Link::to(server.addresses().tls).await;
    let mut json = server.agent_json("cam", &token, link.address());
    json["streaming"]["quality"] = json!("medium");
    let config = Config::from_json(&json.to_string()).expect("a good file");
    let camera = camera::Setup::new(config, Script::h264_aac()).start();

    wait::until("a session", SOON, || camera.agent().is_connected()).await;
    wait::until("frames that nobody wants", SOON, || camera.left_out().len() > 100).await;
    assert!(camera.pushed().is_empty(), "not one frame is kept");
    assert!(camera.left_out().iter().all(|left| left.outcome == Pushed::NotWanted));
    assert!(link.carried_upwards() < 8_000, "only the session itself: {} bytes", link.carried_upwards());
    assert_eq!(server.frames("cam", "main"), 0);

    for round in 1..=2 {
        let before = camera.pictures();
        let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
        // A server that knows the tracks already answers the viewer before the agent hears of it.
        let times_wanted = || camera.events().all().iter().filter_map(wanted).filter(|wanted| *wanted).count();
        wait::until("the source is wanted", SOON, || times_wanted() >= round).await;
        assert_eq!(times_wanted(), round);
        let asked = || camera.events().count(|event| matches!(event, Event::KeyFrameWanted { track: VIDEO }));
        wait::until("the encoder is asked for a key frame", SOON, || asked() >= round).await;
        viewer.wait_count(0, 40, SOON).await;
        let (pushed, seen) = (camera.track(VIDEO)[before..].to_vec(), viewer.seen(0));
        assert!(pushed[0].key, "nothing before the key frame goes up");
        let units: Vec<_> = pushed.iter().flat_map(|frame| frame.units.clone()).collect();
        let start = nal::find_run(&units, &seen.digests()).unwrap_or_else(|hole| panic!("{hole}"));
        assert_eq!(start, 0, "the viewer that caused it sees it from its first picture on");

        drop(viewer);
        let unwanted = || camera.events().all().iter().filter_map(wanted).filter(|wanted| !wanted).count() == round;
        wait::until("the end of the linger", SOON, unwanted).await;
        let (left_out, pictures) = (camera.left_out().len(), camera.pictures());
        wait::until("frames that nobody wants", SOON, || camera.left_out().len() > left_out + FRAMES_MEANWHILE).await;
        assert_eq!(camera.pictures(), pictures, "nothing is kept any more");
    }
    assert_eq!(camera.events().sessions(), 1);
}

//! Server restart, agent restart, a link cut in the middle of a record, a link that swallows everything: the same RTSP URL
//! plays again by itself, and nothing that the journal held while the server lived is missing at a viewer.

use std::time::Duration;

use camagent_testkit::core::Event;
use camagent_testkit::script::{AUDIO, VIDEO};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Camera, CloudServer, Link, Script, Viewer, camera, nal};

/// The longest of the ways back: silence is noticed after a heartbeat of 1 s and 10 s more, then come the pauses.
const BACK: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_server() {
    let mut server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let camera = camera::Setup::new(server.agent("cam", &token), Script::h264_aac()).start();
    let url = server.url("cam", "main");
    let viewer = Viewer::play_again(&url, SOON).await;
    viewer.wait_count(0, 20, SOON).await;

    assert!(server.stop().await, "everybody leaves in time");
    wait::until("the viewer's end", SOON, || viewer.ended().is_some()).await;
    server.start_again().await;
    let viewer = Viewer::play_again(&url, BACK).await;
    viewer.wait_count(0, 60, SOON).await;
    is_run_of(&camera, &viewer);
    assert_eq!(camera.events().sessions(), 2);
    assert_eq!(camera.agent().statistics().reconnections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_agent() {
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let start = || camera::Setup::new(server.agent("cam", &token), Script::h265_pcma()).start();
    let camera = start();
    let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
    viewer.wait_count(0, 20, SOON).await;
    camera.stop(Duration::from_secs(5));
    wait::until("the agent's absence", SOON, || server.event_count("agent_offline") == 1).await;

    // The viewer that was there goes on, and a new one begins.
    let camera = start();
    let first = wait::found("pictures", SOON, || camera.units(VIDEO).first().copied()).await;
    viewer.wait_unit(0, first, SOON).await;
    let again = Viewer::play_again(&server.url("cam", "main"), SOON).await;
    again.wait_count(0, 60, SOON).await;
    is_run_of(&camera, &again);
    assert!(viewer.ended().is_none());
    assert_eq!(viewer.seen(0).holes, 0, "sequence numbers go on over the restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_cuts_in_the_middle_of_records_without_a_missing_frame() {
    let (server, link, mut camera, viewer) = over_a_link().await;
    for cut in 1..=3 {
        let session = camera.events().sessions();
        // The next long chunk is halved; the link stays down until the camera has pushed a second more.
        link.cut_in_mid_record();
        wait::until("a cut", SOON, || link.cuts() == cut).await;
        link.set_up(false);
        let pictures = camera.pictures();
        wait::until("pictures meanwhile", SOON, || camera.pictures() >= pictures + 25).await;
        link.set_up(true);
        wait::until("a new session", BACK, || camera.events().sessions() > session).await;
    }
    arrives_whole(&server, &mut camera, &viewer).await;
    let lost = camera.events().count(|event| matches!(event, Event::Disconnected { code: 1006, .. }));
    assert!(lost >= 3, "each cut was told: {:?}", camera.events().all());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reset_without_a_missing_frame() {
    let (server, link, mut camera, viewer) = over_a_link().await;
    link.reset();
    wait::until("a new session", BACK, || camera.events().sessions() == 2).await;
    let pictures = camera.pictures();
    wait::until("pictures", SOON, || camera.pictures() >= pictures + 25).await;
    arrives_whole(&server, &mut camera, &viewer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_link_that_swallows_everything_without_a_missing_frame() {
    let (server, link, mut camera, viewer) = over_a_link().await;
    link.swallow();
    // The server does not know yet; the newer connection of the same agent takes over.
    wait::until("a new session", BACK, || camera.events().sessions() == 2).await;
    let pictures = camera.pictures();
    wait::until("pictures", SOON, || camera.pictures() >= pictures + 25).await;
    arrives_whole(&server, &mut camera, &viewer).await;
    let reasons: Vec<_> =
        camera.events().all().into_iter().filter(|event| matches!(event, Event::Disconnected { .. })).collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
}

/// A camera behind a link, and a viewer who is patient: it may be late by as much as the outage lasts.
async fn over_a_link() -> (CloudServer, Link, Camera, Viewer) {
    let server = CloudServer::with(|config| config.live.max_viewer_lag = Duration::from_secs(60)).await;
    let token = server.add_agent("cam").await;
    let link = Link::to(server.addresses().tls).await;
    let config = server.agent_at("cam", &token, link.address());
    let camera = camera::Setup::new(config, Script::h264_aac()).start();
    let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
    viewer.wait_count(0, 20, SOON).await;
    (server, link, camera, viewer)
}

/// Everything that was pushed is at the viewer, once and in order, and at the server.
async fn arrives_whole(server: &CloudServer, camera: &mut Camera, viewer: &Viewer) {
    camera.pause();
    for (index, track) in [(0, VIDEO), (1, AUDIO)] {
        let pushed = camera.units(track);
        wait::until("the last unit", SOON, || {
            viewer.seen(index).units.last().map(|unit| unit.digest) == pushed.last().copied()
        })
        .await;
        let seen = viewer.seen(index);
        let start = nal::find_run(&pushed, &seen.digests()).unwrap_or_else(|hole| panic!("track {track}: {hole}"));
        assert_eq!((start + seen.units.len(), seen.holes), (pushed.len(), 0));
    }
    assert_eq!(server.frames("cam", "main"), camera.pushed().len() as u64, "each frame once at the server");
    assert_eq!(camera.agent().statistics().packets_lost, 0);
    wait::until("an empty journal", SOON, || camera.agent().statistics().buffer_size == 0).await;
}

fn is_run_of(camera: &Camera, viewer: &Viewer) {
    let seen = viewer.seen(0);
    nal::find_run(&camera.units(VIDEO), &seen.digests()).unwrap_or_else(|hole| panic!("{hole}"));
    assert_eq!(seen.holes, 0);
}

//! The agent fetches a camera's streams over RTSP by itself: what a viewer at the server gets is what the camera's encoders made, unit by
//! unit, picture and sound on one clock; a source that nobody watches costs the camera nothing; and whatever the camera does, it comes back.

use std::sync::Arc;
use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Event, Host, Warning};
use camagent_testkit::rtsp_camera::{Behaviour, Description, MAIN, SUB, Setup, THIRD};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, RtspCamera, Script, Viewer, events::Recorder, logs::Logs, nal};
use serde_json::json;

/// Pictures that are compared.
const PICTURES: usize = 50;

struct Pulling {
    server: CloudServer,
    camera: RtspCamera,
    agent: Agent,
    events: Recorder,
    logs: Logs,
}

impl Pulling {
    /// A camera, an agent that fetches its sources, and a server. `change` is made to the agent's file.
    async fn start(camera: RtspCamera, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let server = CloudServer::with(|config| {
            config.live.viewer_linger = Duration::from_millis(500);
            config.live.max_viewer_lag = Duration::from_secs(1);
        })
        .await;
        let token = server.add_agent("cam").await;
        let mut json = server.agent_json("cam", &token, server.addresses().tls);
        json["streaming"]["rtsp_port"] = json!(camera.rtsp_address().port());
        json["streaming"]["stream_paths"] = json!([MAIN, SUB, THIRD]);
        json["camera"] = json!({"user": camera.user(), "password": camera.password()});
        change(&mut json);
        let mut config = Config::from_json(&json.to_string()).expect("a good file");
        config.pull_pace.first = Duration::from_millis(50);
        config.pull_pace.longest = Duration::from_millis(500);
        config.pull_pace.refused = Duration::from_millis(300);
        config.pull_pace.silence = Duration::from_secs(3);
        config.pull_pace.without_server = Duration::from_secs(1);
        let (events, logs) = (Recorder::default(), Logs::default());
        let keeper = events.clone();
        let host = Host {
            logger: Some(Arc::new(logs.clone())),
            on_event: Some(Box::new(move |event| keeper.keep(event))),
            ..Host::default()
        };
        let agent = Agent::start(config, host).expect("a good configuration");
        Self { server, camera, agent, events, logs }
    }

    async fn viewer(&self, source: &str) -> Viewer {
        Viewer::play_again(&self.server.url("cam", source), SOON).await
    }

    fn warnings(&self) -> Vec<String> {
        let told = |event: &Event| match event {
            Event::Warning { warning: Warning::Source, message } => Some(message.clone()),
            _ => None,
        };
        self.events.all().iter().filter_map(told).collect()
    }

    /// Waits until a viewer has `count` units more of each track than now, and they are a run of what the camera made.
    async fn gets(&self, viewer: &Viewer, path: &str, count: usize) {
        for track in 0..viewer.tracks().len() {
            viewer.wait_count(track, viewer.count(track) + count, SOON * 2).await;
            let made = self.camera.units(path, track);
            let got = viewer.seen(track);
            assert_eq!(got.holes, 0);
            nal::find_run(&made, &got.digests()).unwrap_or_else(|hole| panic!("{path}, track {track}: {hole}"));
        }
    }
}

/// Sender reports map both tracks to one UTC: from there to the camera's clock it is one constant.
fn apart_us(pulling: &Pulling, viewer: &Viewer, path: &str) -> i128 {
    let mut distances_us = Vec::new();
    for track in 0..2 {
        let seen = viewer.seen(track);
        let report = *seen.reports.first().expect("a report with the first pictures");
        let utc_us = (i128::from(report.ntp) * 1_000_000) >> 32;
        let made = pulling.camera.encoded(path).into_iter().filter(|frame| frame.track == track);
        let made: Vec<_> =
            made.flat_map(|frame| frame.units.into_iter().map(move |unit| (unit, frame.time_us))).collect();
        let names: Vec<_> = made.iter().map(|(unit, _)| *unit).collect();
        let start = nal::find_run(&names, &seen.digests()).expect("a run");
        for (received, (_, time_us)) in seen.units.iter().zip(&made[start..]) {
            let ticks = i128::from(received.time.wrapping_sub(report.rtp_time).cast_signed());
            let at_us = utc_us + ticks * 1_000_000 / i128::from(seen.track.clock_rate);
            distances_us.push(at_us - i128::from(*time_us));
        }
    }
    distances_us.iter().max().expect("units") - distances_us.iter().min().expect("units")
}

async fn all_sources_are_complete(transport: &str) {
    let pulling =
        Pulling::start(RtspCamera::start().await, |json| json["streaming"]["rtsp_transport"] = json!(transport)).await;
    let (main, sub, third) = tokio::join!(pulling.viewer("main"), pulling.viewer("sub"), pulling.viewer("third"));
    assert_eq!((main.tracks().len(), sub.tracks().len(), third.tracks().len()), (2, 2, 1));
    tokio::join!(
        pulling.gets(&main, MAIN, PICTURES * 2),
        pulling.gets(&sub, SUB, PICTURES * 2),
        pulling.gets(&third, THIRD, PICTURES * 2),
    );
    for (viewer, path) in [(&main, MAIN), (&sub, SUB)] {
        let apart = apart_us(&pulling, viewer, path);
        assert!(apart <= 20_000, "picture and sound of {path} are {apart} us apart");
    }
    assert_eq!(pulling.warnings(), [] as [String; 0]);
    assert_eq!(pulling.camera.connections(), 3, "one connection a source");
    let asked = pulling.events.count(|event| matches!(event, Event::KeyFrameWanted { .. } | Event::TrackWanted { .. }));
    assert_eq!(asked, 0, "the host has no encoder to ask");

    let report = pulling.agent.stop(SOON).expect("not on the agent's own thread");
    assert!(report.has_ended && report.frames_left == 0, "{report:?}");
    wait::until("the camera is left", SOON, || pulling.camera.traffic(MAIN).playing == 0).await;
    assert!(!pulling.logs.text().contains(&pulling.camera.password()), "no password in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unit_of_all_sources_arrives_over_tcp() {
    all_sources_are_complete("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_with_a_name_is_found() {
    let pulling = Pulling::start(RtspCamera::start().await, |json| {
        main_only(json);
        // Where that is ::1 first: this camera has IPv4 alone.
        json["camera"]["host"] = json!("localhost");
    })
    .await;
    let viewer = pulling.viewer("main").await;
    pulling.gets(&viewer, MAIN, PICTURES).await;
    assert_eq!(pulling.warnings(), [] as [String; 0]);
    assert!(pulling.logs.text().contains("over tcp from rtsp://localhost:"), "{}", pulling.logs.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_unit_of_all_sources_arrives_over_udp() {
    all_sources_are_complete("udp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_watches_costs_the_camera_nothing() {
    let pulling = Pulling::start(RtspCamera::start().await, |json| {
        json["streaming"]["quality"] = json!("medium");
        json["streaming"]["sources"] = json!({"sub": {"upload": "on_demand"}, "third": {"upload": "off"}});
    })
    .await;
    wait::until("a session", SOON, || pulling.agent.is_connected()).await;
    for round in 1..=2 {
        assert_eq!(pulling.camera.connections(), round - 1);
        let viewer = pulling.viewer("main").await;
        pulling.gets(&viewer, MAIN, PICTURES).await;
        assert_eq!(pulling.camera.connections(), round, "only the source that is watched");
        drop(viewer);
        wait::until("the end of the linger", SOON, || pulling.camera.traffic(MAIN).playing == 0).await;
        // Until what the server still has is no live picture to begin with.
        let made = pulling.camera.encoded(MAIN).len();
        wait::until("frames that nobody wants", SOON, || pulling.camera.encoded(MAIN).len() > made + 150).await;
    }
    assert_eq!((pulling.camera.traffic(SUB).plays, pulling.camera.traffic(THIRD).plays), (0, 0));
    assert_eq!(pulling.warnings(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_nothing_on_demand_is_fetched_for_long() {
    let mut pulling = Pulling::start(RtspCamera::start().await, |json| {
        json["streaming"]["stream_paths"] = json!([MAIN]);
        json["streaming"]["quality"] = json!("medium");
    })
    .await;
    let viewer = pulling.viewer("main").await;
    pulling.gets(&viewer, MAIN, PICTURES).await;
    pulling.server.stop().await;
    wait::until("the camera is left", SOON, || pulling.camera.traffic(MAIN).playing == 0).await;
    pulling.server.start_again().await;
    // What the journal still held may come first.
    let viewer = pulling.viewer("main").await;
    viewer.wait_count(0, PICTURES * 2, SOON * 2).await;
    assert_eq!(pulling.camera.traffic(MAIN).plays, 2);
}

fn main_only(json: &mut serde_json::Value) {
    json["streaming"]["stream_paths"] = json!([MAIN]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_restarts_or_drops_or_falls_silent_comes_back() {
    let mut pulling = Pulling::start(RtspCamera::start().await, main_only).await;
    let viewer = pulling.viewer("main").await;
    pulling.gets(&viewer, MAIN, PICTURES).await;

    pulling.camera.stop().await;
    wait::until("the operator hears of it", SOON, || pulling.warnings().len() == 1).await;
    assert!(pulling.warnings()[0].starts_with("camera cam, source main: "), "{:?}", pulling.warnings());
    pulling.camera.start_again().await;
    viewer.wait_count(0, viewer.count(0) + PICTURES, SOON * 2).await;
    assert!(viewer.ended().is_none(), "who watched goes on watching");

    pulling.camera.behave(|behaviour| behaviour.drop_after = Some(60));
    let plays = pulling.camera.traffic(MAIN).plays;
    pulling.camera.stop().await;
    pulling.camera.start_again().await;
    wait::until("several sessions", SOON * 3, || pulling.camera.traffic(MAIN).plays >= plays + 3).await;

    pulling.camera.behave(|behaviour| {
        *behaviour = Behaviour { silent_after: Some(20), ..Behaviour::default() };
    });
    wait::until("silence is noticed", SOON * 3, || pulling.logs.text().contains("no frame for 3 s")).await;
    pulling.camera.behave(|behaviour| *behaviour = Behaviour::default());
    viewer.wait_count(0, viewer.count(0) + PICTURES, SOON * 2).await;

    let plays = pulling.camera.traffic(MAIN).plays;
    pulling.camera.behave(|behaviour| behaviour.hides_pictures = true);
    wait::until("sound alone is not enough", SOON, || pulling.camera.traffic(MAIN).plays > plays).await;
    pulling.camera.behave(|behaviour| *behaviour = Behaviour::default());
    viewer.wait_count(0, viewer.count(0) + PICTURES, SOON * 2).await;
    assert!(viewer.ended().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_alive() {
    let camera = RtspCamera::start().await;
    camera.behave(|behaviour| behaviour.session_timeout = Some(Duration::from_secs(4)));
    let pulling = Pulling::start(camera, |json| json["streaming"]["stream_paths"] = json!([THIRD])).await;
    let viewer = pulling.viewer("main").await;
    // Fifty pieces are a second.
    pulling.gets(&viewer, THIRD, 500).await;
    assert_eq!((pulling.camera.traffic(THIRD).plays, pulling.warnings().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_never_answers_holds_nothing_up() {
    // The kernel accepts for it; nobody reads.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = silent.local_addr().expect("bound").port();
    let pulling = Pulling::start(RtspCamera::start().await, |json| {
        json["streaming"]["rtsp_port"] = json!(port);
    })
    .await;
    wait::until("a session", SOON, || pulling.agent.is_connected()).await;
    wait::until("a warning", SOON, || !pulling.warnings().is_empty()).await;
    assert!(pulling.warnings()[0].contains("no answer to DESCRIBE within 3 s"), "{:?}", pulling.warnings());
    assert!(pulling.agent.stop(Duration::ZERO).expect("not on its own thread").has_ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_once_and_a_right_one_is_enough() {
    let setup = Setup::default().account("admin", "the old one");
    let camera = setup.start().await.expect("free ports");
    let pulling = Pulling::start(camera, |json| json["camera"]["password"] = json!("the new one")).await;
    wait::until("several attempts", SOON, || pulling.camera.connections() >= 4).await;
    let warnings = pulling.warnings();
    assert_eq!(warnings.len(), 1, "one camera, one warning: {warnings:?}");
    assert!(warnings[0].contains("camera cam refuses the password of user admin"), "{warnings:?}");
    assert!(!pulling.logs.text().contains("the new one"), "no password in the log");

    pulling.camera.set_password("the new one");
    let viewer = pulling.viewer("sub").await;
    pulling.gets(&viewer, SUB, PICTURES).await;
    assert!(pulling.logs.text().contains("camera cam takes the password now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameter_sets_are_found_wherever_the_camera_has_them() {
    for description in [Description::WithoutParameterSets, Description::Garbage] {
        let camera = RtspCamera::start().await;
        camera.behave(|behaviour| {
            (behaviour.description, behaviour.late_key_frame) = (description, Duration::from_millis(500));
        });
        let pulling = Pulling::start(camera, |json| json["streaming"]["stream_paths"] = json!([MAIN, SUB])).await;
        let (main, sub) = tokio::join!(pulling.viewer("main"), pulling.viewer("sub"));
        tokio::join!(pulling.gets(&main, MAIN, PICTURES), pulling.gets(&sub, SUB, PICTURES));
        assert_eq!(pulling.warnings(), [] as [String; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_changes_its_codec_is_followed() {
    let mut pulling = Pulling::start(RtspCamera::start().await, main_only).await;
    let viewer = pulling.viewer("main").await;
    pulling.gets(&viewer, MAIN, PICTURES).await;
    drop(viewer);
    pulling.camera.stop().await;
    pulling.camera.show(MAIN, Script::h264_aac());
    pulling.camera.start_again().await;
    wait::until("the camera plays again", SOON, || pulling.camera.traffic(MAIN).playing == 1).await;
    let viewer = pulling.viewer("main").await;
    let codecs: Vec<_> = viewer.tracks().iter().map(|track| track.codec.name()).collect();
    assert_eq!(codecs, ["H.264", "AAC"]);
    pulling.gets(&viewer, MAIN, PICTURES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_change_in_mid_stream_are_followed() {
    let pulling = Pulling::start(RtspCamera::start().await, |json| {
        json["streaming"]["stream_paths"] = json!([SUB]);
    })
    .await;
    let viewer = pulling.viewer("main").await;
    pulling.gets(&viewer, SUB, PICTURES).await;
    drop(viewer);
    let api = pulling.server.api("looker").await;
    let level = async || {
        let (_, streams) = api.get("/streams").await;
        streams.to_string().to_ascii_lowercase().contains("avc1.64002a")
    };
    assert!(!level().await);
    // The camera's clock begins anew as well.
    pulling.camera.show(SUB, Script::h264_aac().with_level(0x2a));
    wait::within("the new level", SOON, async {
        while !level().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let viewer = pulling.viewer("main").await;
    pulling.gets(&viewer, SUB, PICTURES).await;
    assert_eq!(pulling.camera.traffic(SUB).plays, 1, "all within one session");
    assert_eq!(pulling.warnings(), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_refuses_a_transport_is_named() {
    let camera = RtspCamera::start().await;
    camera.behave(|behaviour| behaviour.refuses_tcp = true);
    let pulling = Pulling::start(camera, main_only).await;
    wait::until("a warning", SOON, || !pulling.warnings().is_empty()).await;
    assert!(pulling.warnings()[0].contains("does not send over tcp: set rtsp_transport"), "{:?}", pulling.warnings());
    pulling.camera.behave(|behaviour| *behaviour = Behaviour::default());
    let viewer = pulling.viewer("main").await;
    pulling.gets(&viewer, MAIN, PICTURES).await;
}

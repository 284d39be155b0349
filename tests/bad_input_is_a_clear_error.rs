//! Bad input, from anywhere, is a clear error to whoever made it, and loses nothing: beside each of these cases a healthy
//! camera plays to a viewer, who misses no unit.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use camagent_proto::frame::{Frame as WireFrame, FrameHead, FrameStart, TrackInfo};
use camagent_testkit::core::{Agent, Codec, Config, Error, Event, Frame, Framing, Host, Pushed, TrackDescription};
use camagent_testkit::raw_agent::{RawAgent, SUBPROTOCOL, registration};
use camagent_testkit::script::{AUDIO, VIDEO};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Camera, CloudServer, Script, Viewer, camera, nal};
use serde_json::json;

/// A camera and a viewer who must not notice anything.
struct Healthy {
    server: CloudServer,
    camera: Camera,
    viewer: Viewer,
}

impl Healthy {
    async fn start() -> Self {
        Self::beside(CloudServer::start().await).await
    }

    async fn beside(server: CloudServer) -> Self {
        let token = server.add_agent("healthy").await;
        let camera = camera::Setup::new(server.agent("healthy", &token), Script::h264_aac()).start();
        let viewer = Viewer::play_again(&server.url("healthy", "main"), SOON).await;
        Self { server, camera, viewer }
    }

    async fn was_never_disturbed(mut self) {
        let count = self.viewer.count(0);
        self.viewer.wait_count(0, count + 20, SOON).await;
        self.camera.pause();
        for (index, track) in [(0, VIDEO), (1, AUDIO)] {
            let pushed = self.camera.units(track);
            self.viewer.wait_unit(index, *pushed.last().expect("it pushed"), SOON).await;
            let seen = self.viewer.seen(index);
            nal::find_run(&pushed, &seen.digests()).unwrap_or_else(|hole| panic!("track {track}: {hole}"));
            assert_eq!(seen.holes, 0);
        }
        assert_eq!(self.camera.events().sessions(), 1);
        assert_eq!(self.camera.events().count(|event| matches!(event, Event::Disconnected { .. })), 0);
    }
}

/// What an agent with this configuration tells when it cannot get a session.
async fn refusal(config: Config) -> (String, u16, Duration) {
    let camera = camera::Setup::new(config, Script::h264_aac()).start();
    let told = camera.events().wait("a refusal", SOON, |event| match event {
        Event::Disconnected { reason, code, retry_in } => Some((reason.clone(), *code, *retry_in)),
        _ => None,
    });
    told.await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_an_unknown_agent() {
    let healthy = Healthy::start().await;
    let server = &healthy.server;
    let token = server.add_agent("cam").await;
    for (id, token) in [("cam", "wrong-token"), ("nobody", token.as_str())] {
        let (reason, _, retry_in) = refusal(server.agent(id, token)).await;
        assert!(reason.contains("401") && reason.contains(id), "{reason}");
        assert!(!reason.contains(token), "no secret in words: {reason}");
        assert!(retry_in >= Duration::from_secs(30), "only a person can help, so it asks rarely: {retry_in:?}");
    }
    let (reason, ..) = refusal({
        let mut config = server.agent("cam", &token);
        config.trust = camagent_testkit::core::Trust::Pin([7; 32]);
        config
    })
    .await;
    assert!(reason.contains("key") || reason.contains("pin"), "a server that is not the pinned one: {reason}");
    assert_eq!(server.event_count("agent_refused"), 2);
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_version() {
    let healthy = Healthy::start().await;
    let address = healthy.server.addresses().http;
    let token = healthy.server.add_agent("cam").await;
    let Err((status, body)) = RawAgent::dial(address, "cam", Some(&token), Some("camagent.v99")).await else {
        panic!("another sub-protocol is let in");
    };
    assert!(status == 400 && body.contains(SUBPROTOCOL), "{status} {body}");
    let mut agent = RawAgent::dial(address, "cam", Some(&token), Some(SUBPROTOCOL)).await.expect("let in");
    let mut data = registration("cam");
    data["versions"] = json!([77]);
    agent.tell("register", data).await;
    let (code, reason) = agent.closed().await;
    assert_eq!(code, 4005, "{reason}");
    assert!(reason.contains('1') && reason.contains("77"), "what is spoken and what was offered: {reason}");
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_broken_records() {
    let healthy = Healthy::start().await;
    let address = healthy.server.addresses().http;
    let token = healthy.server.add_agent("cam").await;
    let track = WireFrame::Track(TrackInfo {
        track: 0,
        epoch: 1,
        next: 0,
        camera: "cam".into(),
        source: "main".into(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config: Default::default(),
    });
    let frame = |sequence: u64, total: u64| {
        let payload = b"\0\0\0\x01\x65x".as_slice().into();
        WireFrame::Frame(FrameStart { track: 0, sequence, head: FrameHead::default(), total, payload })
    };

    let (mut agent, _) = RawAgent::registered(address, "cam", &token).await;
    agent.octets(vec![0; 100_000]).await;
    let (code, reason) = agent.closed().await;
    // The server may have closed the socket before it has read all of it.
    assert!(matches!(code, 4012 | 1006), "oversized: {code} {reason}");

    for (what, broken, expected) in [
        ("a frame longer than its record", vec![0x23, 0x7f, 1, 2, 3], 4000),
        ("an unknown kind that must be known", vec![0x7d, 0], 4000),
        ("nothing but ones", vec![0xff; 64], 4012),
    ] {
        let (mut agent, _) = RawAgent::registered(address, "cam", &token).await;
        agent.octets(broken).await;
        let (code, reason) = agent.closed().await;
        assert!(code == expected && !reason.is_empty(), "{what}: {code} {reason}");
    }
    for (what, frames, expected) in [
        ("a number that leaves a hole", vec![track.clone(), frame(9, 6)], 4000),
        ("a track that nobody announced", vec![frame(0, 6)], 4000),
        ("a frame that claims a gigabyte", vec![track.clone(), frame(0, 1 << 30)], 4012),
    ] {
        let (mut agent, _) = RawAgent::registered(address, "cam", &token).await;
        agent.push(&frames).await;
        let (code, reason) = agent.closed().await;
        assert!(code == expected && !reason.is_empty(), "{what}: {code} {reason}");
    }
    wait::until("every case an event", SOON, || healthy.server.event_count("agent_misbehaved") >= 6).await;
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_json() {
    let healthy = Healthy::start().await;
    let address = healthy.server.addresses().http;
    let token = healthy.server.add_agent("cam").await;
    for (text, expected) in [
        ("{\"type\":".to_owned(), 4000),
        ("[1,2,3]".to_owned(), 4000),
        ("{\"type\":\"heartbeat\",\"data\":7}".to_owned(), 4000),
        (format!("{{\"type\":\"event\",\"data\":\"{}\"}}", "x".repeat(30_000)), 4012),
        (format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000)), 4000),
    ] {
        let (mut agent, _) = RawAgent::registered(address, "cam", &token).await;
        let shown: String = text.chars().take(30).collect();
        agent.text(text).await;
        let (code, reason) = agent.closed().await;
        assert!(code == expected && !reason.is_empty(), "{shown}: {code} {reason}");
    }
    let api = healthy.server.api("ops").await;
    let (status, body) = api.post("/agents/healthy/control", &json!("restart")).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_request")), "{body}");
    healthy.was_never_disturbed().await;
}

/// A file system of one megabyte of its own; unmounted with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let full = std::fs::write(self.0.path().join("ballast"), vec![1; 2 << 20]);
        assert!(full.is_err(), "two megabytes do not fit into one");
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What fails here is the test's own tidiness.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "a weaker proof must say so")]
async fn a_full_disk() {
    let disk = SmallDisk::mount();
    let data_dir = disk.as_ref().map(|disk| disk.path().to_owned());
    let server = CloudServer::with(|config| {
        if let Some(path) = data_dir {
            config.storage.data_dir = path;
        }
    })
    .await;
    let healthy = Healthy::beside(server).await;
    let token = healthy.server.add_agent("cam").await;
    let api = healthy.server.api("ops").await;
    match &disk {
        Some(disk) => disk.fill(),
        None => {
            eprintln!(
                "WEAKER: no tmpfs can be mounted here (needs root), so the full disk is simulated in the database"
            );
            healthy.server.server().store().simulate_full_disk().await.expect("simulated");
        }
    }
    // An agent that comes now is served all the same.
    let camera = camera::Setup::new(healthy.server.agent("cam", &token), Script::h265_pcma()).start();
    let viewer = Viewer::play_again(&healthy.server.url("cam", "main"), SOON).await;
    viewer.wait_count(0, 20, SOON).await;
    nal::find_run(&camera.units(VIDEO), &viewer.seen(0).digests()).unwrap_or_else(|hole| panic!("{hole}"));
    let told = || healthy.server.event_count("disk_trouble") > 0;
    wait::until("the trouble is told", SOON, told).await;
    let (status, health) = api.get("/health").await;
    assert!(status == 200 && health["disk_trouble"].as_u64() > Some(0), "{health}");
    let error = healthy.server.server().add_agent("one-more").await.expect_err("nothing can be kept").to_string();
    assert!(error.contains("full") || error.contains("readonly"), "{error}");
    if let Some(disk) = &disk {
        let folder = disk.path().join("second");
        let started = cloud_server::Server::start(cloud_server::Config::for_tests(&folder)).await;
        let error = started.err().expect("a server cannot begin there").to_string();
        assert!(error.contains(&*folder.to_string_lossy()) || error.contains("full"), "{error}");
    }
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use() {
    let healthy = Healthy::start().await;
    let taken = healthy.server.addresses();
    for (listener, key) in [("HTTP", "listen.http"), ("TLS", "listen.tls"), ("RTSP", "listen.rtsp")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = cloud_server::Config::for_tests(folder.path());
        let address = match listener {
            "HTTP" => std::mem::replace(&mut config.listen.http, taken.http).ip(),
            "TLS" => std::mem::replace(&mut config.listen.tls, taken.tls).ip(),
            _ => std::mem::replace(&mut config.listen.rtsp, taken.rtsp).ip(),
        };
        let error = cloud_server::Server::start(config).await.err().expect("taken").to_string();
        for part in [listener, key, "another program", &address.to_string()] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration() {
    let healthy = Healthy::start().await;
    let good = healthy.server.agent_json("cam", "token", healthy.server.addresses().tls);
    for (section, key, value, parts) in [
        ("streaming", "quality", json!("best"), ["streaming.quality", "best", "high"]),
        ("streaming", "buffer_size", json!(5), ["streaming.buffer_size", "5", "65536"]),
        ("network", "heartbeat_interval", json!(0), ["network.heartbeat_interval", "0", "1"]),
        ("network", "reconnect_interval", json!("soon"), ["network.reconnect_interval", "soon", "1"]),
        ("agent", "cloud_server_url", json!("http://x"), ["agent.cloud_server_url", "http://x", "wss://"]),
        ("agent", "agent_id", json!("a b"), ["agent.agent_id", "a b", "A-Z"]),
        ("agent", "log_level", json!("LOUD"), ["agent.log_level", "LOUD", "DEBUG"]),
        ("agent", "server_pin", json!("sha256/AAAA"), ["agent.server_pin", "sha256/AAAA", "32 bytes"]),
    ] {
        let mut json = good.clone();
        json[section][key] = value;
        let error = Config::from_json(&json.to_string()).expect_err(key).to_string();
        for part in parts {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }
    let error = Config::from_json("{\"agent\":").expect_err("half a file").to_string();
    assert!(error.contains("JSON") && error.contains("line 1"), "{error}");
    let error = Config::from_file("/nowhere/config.json".as_ref()).expect_err("no file").to_string();
    assert!(error.contains("/nowhere/config.json"), "{error}");
    let mut secret = good.clone();
    secret["agent"]["cloud_server_token"] = json!("geheim geheim");
    let error = Config::from_json(&secret.to_string()).expect_err("a blank in a token").to_string();
    assert!(error.contains("agent.cloud_server_token") && !error.contains("geheim"), "{error}");
    let mut odd = good;
    odd["streaming"]["qualitty"] = json!("high");
    let warnings = Config::from_json(&odd.to_string()).expect("an unknown key is no error").warnings;
    assert!(warnings.iter().any(|warning| warning.contains("streaming.qualitty")), "{warnings:?}");

    for (text, part) in [("[live]\nbuffer_bytes = 1", "live.buffer_bytes"), ("[listen]\nhttp = 1", "listen.http")] {
        let error = cloud_server::Config::parse(text).expect_err(text).to_string();
        assert!(error.contains(part), "{error}");
    }
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_out_of_order_broken_or_without_a_key_frame() {
    let healthy = Healthy::start().await;
    let token = healthy.server.add_agent("cam").await;
    let agent = Agent::start(healthy.server.agent("cam", &token), Host::default()).expect("starts");
    agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).expect("a good track");
    let mut script = Script::h264_aac().without_audio();
    let pieces: Vec<_> = (0..60).map(|_| script.next_piece()).collect();
    let push =
        |at_us: i64, data: &[u8]| agent.push_frame(0, Frame { pts_us: at_us, dts_us: at_us, data, ..Frame::default() });

    // No key frame yet: said at once, and nothing is kept.
    assert_eq!(push(0, &pieces[1].data).expect("no error"), Pushed::WaitKey);
    assert_eq!(push(1, &pieces[0].data).expect("no error"), Pushed::Kept);
    assert_eq!(push(40_000, &pieces[1].data).expect("no error"), Pushed::Kept);
    let error = push(20_000, &pieces[2].data).expect_err("out of order");
    assert!(matches!(error, Error::OutOfOrder { track: 0, back_us: 20_000 }), "{error}");
    assert!(error.to_string().contains("in order"), "{error}");
    assert_eq!(push(60_000, &pieces[2].data).expect("no error"), Pushed::WaitKey, "it refers to what was refused");
    assert!(matches!(push(80_000, &[]), Err(Error::Usage(_))));
    assert!(matches!(push(80_000, &vec![0; 5 << 20]), Err(Error::FrameTooLarge { .. })));
    assert_eq!(push(80_000, &pieces[0].data).expect("no error"), Pushed::Kept, "a key frame mends it");
    assert!(matches!(agent.push_frame(9, Frame { data: &[1], ..Frame::default() }), Err(Error::NoTrack(9))));
    // What is not Annex B at all reaches the server: it is told there, and only that frame is left out.
    assert_eq!(push(80_000, b"this is no NAL unit").expect("the agent does not look inside"), Pushed::Kept);
    for (index, piece) in pieces.iter().enumerate().skip(2) {
        assert_eq!(push(40_000 * (index as i64 + 1), &piece.data).expect("good again"), Pushed::Kept);
    }
    wait::until("all frames", SOON, || healthy.server.frames("cam", "main") >= 61).await;
    // The one out of order, the one that refers to it, and the one that was too large.
    wait::until("a loss that is told", SOON, || agent.statistics().packets_lost == 3).await;
    wait::until("its reasons", SOON, || {
        healthy.server.server().events().lost() == [("refused", 2), ("too_large", 1)].into()
    })
    .await;
    assert_eq!(healthy.server.event_count("frame_refused"), 1);
    let viewer = Viewer::play(&healthy.server.url("cam", "main")).await;
    viewer.wait_unit(0, *pieces[59].units.last().expect("a picture"), SOON).await;
    let expected: Vec<_> = pieces[50..].iter().flat_map(|piece| piece.units.clone()).collect();
    assert_eq!(viewer.seen(0).digests(), expected, "from the newest key frame on");
    assert!(agent.stop(Duration::from_secs(5)).expect("stops").has_ended);
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codec_that_changes_in_the_middle_of_a_group() {
    let recordings = tempfile::tempdir().expect("a temporary folder");
    let server = CloudServer::with(|config| {
        config.recordings.path = Some(recordings.path().to_owned());
        config.recordings.sources = vec!["cam/main".to_owned()];
    });
    let healthy = Healthy::beside(server.await).await;
    let token = healthy.server.add_agent("cam").await;
    let api = healthy.server.api("ops").await;
    let agent = Agent::start(healthy.server.agent("cam", &token), Host::default()).expect("starts");
    let mut at_us = 0;
    let mut push = |data: &[u8]| {
        at_us += 40_000;
        let frame = Frame { pts_us: at_us, dts_us: at_us, data, ..Frame::default() };
        agent.push_frame(0, frame).expect("no error")
    };
    let scripts =
        [(Codec::H264, Script::h264_aac().without_audio()), (Codec::H265, Script::h265_pcma().without_audio())];
    for (codec, mut script) in scripts {
        agent.set_track(0, TrackDescription::video("main", codec, Framing::AnnexB)).expect("a good track");
        let pieces: Vec<_> = (0..15).map(|_| script.next_piece()).collect();
        // Nothing of the new codec can be decoded before its first key frame.
        assert_eq!(push(&pieces[1].data), Pushed::WaitKey, "{codec:?}");
        assert!(pieces.iter().all(|piece| push(&piece.data) == Pushed::Kept), "{codec:?}");
    }
    wait::until("all frames", SOON, || healthy.server.frames("cam", "main") >= 30).await;
    assert_eq!(healthy.server.event_count("frame_refused"), 0, "nobody read one codec as the other");

    // In the recording both are there, and a clip is of one of them.
    let path = "/api/v1/recordings?camera=cam";
    let listed = async || {
        let (_, body) = api.get(path).await;
        let ranges = body["ranges"].as_array().cloned().unwrap_or_default();
        let time = |text: &serde_json::Value| text.as_str().expect("a time").to_owned();
        Some((time(&ranges.first()?["from"]), time(&ranges.last()?["to"])))
    };
    let clip = |from: &str, to: &str| format!("/api/v1/recordings/clip?camera=cam&source=main&from={from}&to={to}");
    let begun = std::time::Instant::now();
    let (from, to, message) = loop {
        // The second codec is recorded a moment later.
        if let Some((from, to)) = listed().await {
            let (status, _, body) = api.get_text(&clip(&from, &to), "Range: bytes=4-7\r\n").await;
            if status == 409 {
                let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
                assert_eq!(body["error"]["code"], "codec_changes");
                break (from, to, body["error"]["message"].as_str().expect("words").to_owned());
            }
        }
        assert!(begun.elapsed() < SOON, "both codecs are recorded");
    };
    let change = message.split_whitespace().find_map(|word| word.strip_suffix("Z;")).expect("it says when");
    let change = format!("{change}Z");
    for (from, to) in [(&from, &change), (&change, &to)] {
        let (status, _, body) = api.get_text(&clip(from, to), "Range: bytes=4-7\r\n").await;
        assert_eq!((status, body.as_str()), (206, "ftyp"), "from {from} to {to}");
    }
    agent.stop(Duration::from_secs(5)).expect("stops");
    healthy.was_never_disturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_and_groups_that_are_too_large() {
    let json = json!({
        "agent": {"agent_id": "cam", "cloud_server_url": "ws://127.0.0.1:9/agent", "cloud_server_token": "t"},
        "streaming": {"buffer_size": 204_800},
    });
    let config = Config::from_json(&json.to_string()).expect("a good file");
    let agent = Agent::start(config, Host::default()).expect("starts");
    agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).expect("a good track");
    let mut at_us = 0;
    let mut push = |kind: u8, octets: usize| {
        let mut data = vec![0, 0, 0, 1, kind];
        data.resize(octets, 0x88);
        at_us += 40_000;
        agent.push_frame(0, Frame { pts_us: at_us, dts_us: at_us, data: &data, ..Frame::default() })
    };
    let (key, other) = (0x65, 0x41);
    let error = push(key, 16 << 20).expect_err("16 MB").to_string();
    assert!(error.contains("16777216") && error.contains("204800"), "what came, and what is allowed: {error}");

    // Nobody takes anything: a group that is larger than the journal is cut at its tail, what was kept of it can be decoded.
    assert_eq!(push(key, 50_000).expect("fits"), Pushed::Kept);
    let kept = (0..20).map(|_| push(other, 20_000).expect("no error")).take_while(|own| *own == Pushed::Kept).count();
    assert_eq!(kept, 7, "what fits into the journal");
    assert_eq!(push(other, 10).expect("no error"), Pushed::WaitKey, "also what would fit refers to what is not there");
    let statistics = agent.statistics();
    assert_eq!((statistics.frames_accepted, statistics.packets_lost), (8, 0), "what is not kept has no number");
    assert_eq!(push(key, 50_000).expect("a new group"), Pushed::Kept);
    agent.stop(Duration::ZERO).expect("stops");
}

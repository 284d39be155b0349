//! Mode `shared`: two viewers at a camera's own path on the tunnel's port and one at the relay cost the camera and its uplink
//! what one viewer costs, whoever comes first. What is not carried to the server is still the camera's own business. Mode
//! `raw` costs a connection for each: so the difference is what is saved, and is counted here.

use std::net::SocketAddr;
use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::rtsp_camera::{MAIN, SUB};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, RtspCamera, Script, Viewer, nal, program, rtsp_camera};
use serde_json::json;

/// Units over which octets are counted: 150 pictures with their names, three groups.
const ROUND: usize = 300;
/// Octets that make each picture heavier, so that all weigh the same and heartbeats weigh nothing.
const WEIGHT: usize = 20_000;
/// What a round may take: it lasts six seconds.
const LONG: Duration = Duration::from_secs(40);

struct Site {
    camera: RtspCamera,
    link: Link,
    server: CloudServer,
    _agent: Agent,
    /// The camera's RTSP service at the server.
    rtsp: SocketAddr,
}

impl Site {
    async fn start(mode: &str) -> Self {
        let server = CloudServer::with(|config| config.live.viewer_linger = Duration::from_millis(200)).await;
        let heavy = || Script::h264_aac().heavier_by(WEIGHT);
        let setup = rtsp_camera::Setup::default().scripts([heavy(), heavy(), heavy()]);
        let camera = setup.start().await.expect("loopback has free ports");
        let link = Link::to(server.addresses().tls).await;
        let token = server.add_agent("gate").await;
        let mut config = server.agent_json("gate", &token, link.address());
        config["streaming"]["rtsp_port"] = json!(camera.rtsp_address().port());
        config["streaming"]["stream_paths"] = json!([SUB]);
        config["streaming"]["sources"] = json!({"main": {"upload": "on_demand"}});
        config["camera"] = json!({
            "user": camera.user(), "password": camera.password(), "services": {"rtsp": {"mode": mode}},
        });
        let config = Config::from_json(&config.to_string()).expect("a good file");
        let agent = Agent::start(config, Host::default()).expect("starts");
        let rtsp = server.tunnel("gate", "rtsp").await;
        Self { camera, link, server, _agent: agent, rtsp }
    }

    /// A path of the camera at the tunnel's port, without an account.
    fn url(&self, path: &str) -> String {
        format!("rtsp://{}{path}", self.rtsp)
    }

    /// The same with the camera's account, for who is answered by the camera itself.
    fn with_account(&self, path: &str) -> String {
        self.camera.url(path).replace(&self.camera.rtsp_address().to_string(), &self.rtsp.to_string())
    }

    fn playing(&self) -> u64 {
        self.camera.traffic(SUB).playing
    }

    /// Octets on the uplink while the first of these viewers gets one round; all of them get every unit.
    async fn round(&self, viewers: &[&Viewer]) -> u64 {
        for viewer in viewers {
            viewer.wait_count(0, viewer.count(0) + 10, SOON).await;
        }
        let (before, count) = (self.link.carried_upwards(), viewers[0].count(0));
        viewers[0].wait_count(0, count + ROUND, LONG).await;
        let octets = self.link.carried_upwards() - before;
        for viewer in viewers {
            let seen = viewer.seen(0);
            nal::find_run(&self.camera.units(SUB, 0), &seen.digests()).unwrap_or_else(|hole| panic!("{hole}"));
            assert_eq!(seen.holes, 0);
        }
        octets
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_the_tunnel_and_one_at_the_relay() {
    let site = Site::start("shared").await;
    assert_eq!(site.camera.traffic(SUB).plays, 0, "nobody watches");
    let relayed = Viewer::play_again(&site.server.url("gate", "main"), SOON).await;
    let one = site.round(&[&relayed]).await;
    assert_eq!(site.playing(), 1, "the agent's own");

    let first = Viewer::play_again(&site.url(SUB), SOON).await;
    let second = Viewer::play_again(&site.url(SUB), SOON).await;
    let three = site.round(&[&relayed, &first, &second]).await;
    assert!(three * 100 <= one * 105, "{three} octets for three, {one} for one");
    assert_eq!(site.playing(), 1, "nobody else bothered the camera");

    // The tunnel's viewers alone keep the source coming, and when all are gone it rests.
    drop(relayed);
    let two = site.round(&[&first, &second]).await;
    assert!(two * 100 <= one * 105, "{two} octets for two, {one} for one");
    drop((first, second));
    wait::until("the camera's rest", SOON, || site.playing() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_at_the_tunnel_begins_the_one_upload() {
    let site = Site::start("shared").await;
    let first = Viewer::play_again(&site.url(SUB), SOON).await;
    let second = Viewer::play_again(&site.url(SUB), SOON).await;
    let relayed = Viewer::play_again(&site.server.url("gate", "main"), SOON).await;
    let three = site.round(&[&first, &second, &relayed]).await;
    assert_eq!(site.playing(), 1);
    drop((second, relayed));
    let one = site.round(&[&first]).await;
    assert!(three * 100 <= one * 105, "{three} octets for three, {one} for one");

    // A path that nobody carries is the camera's own business, its password included.
    let refused = Viewer::try_play(&site.url(MAIN)).await.err().expect("the camera asks for its password");
    assert!(refused.contains("401"), "{refused}");
    Viewer::play_again(&site.with_account(MAIN), SOON).await.wait_count(0, 10, SOON).await;
    assert_eq!(site.server.event_count("tunnel_refused"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_is_a_connection_for_each() {
    let site = Site::start("raw").await;
    let refused = Viewer::try_play(&site.url(SUB)).await.err().expect("the camera asks for its password");
    assert!(refused.contains("401"), "{refused}");
    let url = site.with_account(SUB);
    let first = Viewer::play_again(&url, SOON).await;
    let one = site.round(&[&first]).await;
    let second = Viewer::play_again(&url, SOON).await;
    let relayed = Viewer::play_again(&site.server.url("gate", "main"), SOON).await;
    let three = site.round(&[&first, &second, &relayed]).await;
    assert!(three > one * 2, "{three} octets for three, {one} for one: what shared saves is real");
    assert_eq!(site.playing(), 3);

    // Players that begin with UDP, which the camera would send to nobody, hear 461 and go on with TCP.
    if program::is_installed("ffprobe", "ffmpeg") {
        let told = program::output("ffprobe", &["-v", "error", "-show_entries", "stream=codec_name", &url], LONG).await;
        assert!(told.contains("codec_name=h264"), "{told}");
    }
    if program::is_installed("gst-launch-1.0", "gstreamer1.0-tools") {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("packets");
        // It is killed while it plays: at an end of its own it interrupts what it is saying, and calls that an error now and then.
        let line = format!(
            "-q rtspsrc location={url} protocols=udp+tcp latency=0 ! application/x-rtp,media=video ! filesink location={} \
             buffer-mode=unbuffered",
            file.display()
        );
        let _player = program::start("gst-launch-1.0", &line.split_whitespace().collect::<Vec<_>>());
        wait::until("packets at GStreamer", LONG, || program::written(&file).len() > 20_000).await;
    }
}

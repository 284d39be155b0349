//! With `mode: "shared"` a recorder and a player at the camera's own port, and a viewer at the relay, are one upload together; what the
//! server does not have still goes to the camera; and in mode `raw` each is a connection of its own.

use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::rtsp_camera::{MAIN, SUB, Setup};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, RtspCamera, Script, Viewer, nal, program};
use cloud_server::store::TunnelState;
use serde_json::json;

/// Octets that make each picture heavier: heartbeats and acknowledgements should not decide.
const WEIGHT: usize = 20_000;
/// Pictures that the camera sends while it is measured.
const PICTURES: usize = 150;

struct Site {
    server: CloudServer,
    camera: RtspCamera,
    link: Link,
    agent: Agent,
    /// `rtsp://HOST:PORT` of the camera's tunnel.
    tunnel: String,
}

impl Site {
    async fn start(mode: &str) -> Self {
        let heavy = || Script::h264_aac().heavier_by(WEIGHT);
        let setup = Setup::default().scripts([heavy(), heavy(), Script::h265_pcmu().without_video()]);
        let camera = setup.start().await.expect("a camera");
        let server = CloudServer::start().await;
        let token = server.add_agent("cam").await;
        let link = Link::to(server.addresses().tls).await;
        let mut json = server.agent_json("cam", &token, link.address());
        json["streaming"]["rtsp_port"] = json!(camera.rtsp_address().port());
        json["streaming"]["stream_paths"] = json!([MAIN]);
        json["streaming"]["services"] = json!({"rtsp": {"mode": mode}});
        json["camera"] = json!({
            "user": camera.user(), "password": camera.password(), "sources": {"main": {"upload": "on_demand"}},
        });
        let config = Config::from_json(&json.to_string()).expect("a good file");
        let agent = Agent::start(config, Host::default()).expect("starts");
        let listening = || {
            let found = server.server().tunnels().of_agent("cam").pop()?;
            (found.row.state == TunnelState::Listening).then_some(found.address?)
        };
        let address = wait::found("the camera's port", SOON, listening).await;
        Self { tunnel: format!("rtsp://{address}"), server, camera, link, agent }
    }

    fn own(&self, path: &str) -> String {
        format!("{}{path}", self.tunnel)
    }

    /// Octets on the uplink for each octet that the camera sent, with these viewers.
    async fn cost(&self, urls: &[String]) -> f64 {
        let mut viewers = Vec::new();
        for url in urls {
            viewers.push(Viewer::play_again(url, SOON * 2).await);
        }
        for viewer in &viewers {
            viewer.wait_count(0, 10, SOON).await;
        }
        let octets = || self.camera.traffic(MAIN).octets;
        let (sent, carried, seen) = (octets(), self.link.carried_upwards(), viewers[0].count(0));
        viewers[0].wait_count(0, seen + PICTURES, SOON * 2).await;
        let cost = (self.link.carried_upwards() - carried) as f64 / (octets() - sent) as f64;
        for viewer in &viewers {
            let made = self.camera.units(MAIN, 0);
            nal::find_run(&made, &viewer.seen(0).digests()).unwrap_or_else(|hole| panic!("a viewer: {hole}"));
        }
        cost
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_consumers_are_one_upload() {
    let site = Site::start("shared").await;
    assert_eq!(site.camera.traffic(MAIN).plays, 0, "nobody watches");
    let relay = site.server.url("cam", "main");
    let one = site.cost(std::slice::from_ref(&relay)).await;
    let three = site.cost(&[relay, site.own(MAIN), site.own(MAIN)]).await;
    assert!(three <= one * 1.05, "one {one:.3}, three {three:.3}");
    assert_eq!(site.camera.traffic(MAIN).playing, 1, "the camera serves the agent only");

    // A path that is not carried is the camera's own business, with the camera's own login.
    let sub = site.own(SUB);
    assert!(
        Viewer::try_play(&sub).await.is_err_and(|refused| refused.contains("401")),
        "the camera asks for its password"
    );
    assert_eq!(site.server.event_count("tunnel_refused"), 0);
    site.agent.stop(Duration::from_secs(5)).expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_camera_itself_answers_in_mode_raw() {
    let site = Site::start("raw").await;
    let refused = Viewer::try_play(&site.own(MAIN)).await.err().unwrap_or_default();
    assert!(refused.contains("401"), "{refused}");
    // The camera would send over UDP, which nobody would get; players that begin with it hear 461 and go on with TCP.
    let with_account =
        site.camera.url(MAIN).replace(&site.camera.rtsp_address().to_string(), &site.tunnel["rtsp://".len()..]);
    if program::is_installed("ffprobe", "ffmpeg") {
        let asked = ["-v", "error", "-show_entries", "stream=codec_name,width", "-of", "csv", &with_account];
        let told = program::output("ffprobe", &asked, SOON * 2).await;
        assert!(told.contains("h264,640"), "{told}");
    }
    if program::is_installed("gst-launch-1.0", "gstreamer1.0-tools") {
        let location = format!("location={with_account}");
        let pipeline =
            ["-q", "rtspsrc", &location, "protocols=udp+tcp", "latency=0", "!", "application/x-rtp,media=video"];
        let sink = ["!", "identity", "eos-after=50", "!", "fakesink"];
        program::output("gst-launch-1.0", &[&pipeline[..], &sink[..]].concat(), SOON * 2).await;
    }
    assert!(site.camera.traffic(MAIN).plays > 0, "the camera itself");
    site.agent.stop(Duration::from_secs(5)).expect("stops");
}

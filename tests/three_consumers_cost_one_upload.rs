//! Mode `shared`: two viewers at a camera's own path on the tunnel's port and one at the relay cost the camera and its uplink
//! what one viewer costs. Mode `raw` costs it for each: so the difference is what is saved, and is counted here.

use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::rtsp_camera::SUB;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, RtspCamera, Viewer, nal};
use serde_json::json;

/// Pictures over which octets are counted: one whole round of the clip, so that any two rounds weigh the same.
const ROUND: usize = 200;
/// What a round may take: it lasts eight seconds.
const LONG: Duration = Duration::from_secs(40);

struct Site {
    camera: RtspCamera,
    link: Link,
    server: CloudServer,
    _agent: Agent,
    /// The camera's path at the tunnel's port, without an account.
    url: String,
}

impl Site {
    async fn start(mode: &str) -> Self {
        let server = CloudServer::with(|config| config.live.viewer_linger = Duration::from_millis(200)).await;
        let (camera, link) = (RtspCamera::start().await, Link::to(server.addresses().tls).await);
        let token = server.add_agent("gate").await;
        let mut config = server.agent_json("gate", &token, link.address());
        // Two more heartbeats or fewer must not count as video.
        config["network"]["heartbeat_interval"] = json!(30);
        config["streaming"]["rtsp_port"] = json!(camera.rtsp_address().port());
        config["streaming"]["stream_paths"] = json!([SUB]);
        config["streaming"]["sources"] = json!({"main": {"upload": "on_demand"}});
        config["camera"] = json!({
            "user": camera.user(), "password": camera.password(), "services": {"rtsp": {"mode": mode}},
        });
        let config = Config::from_json(&config.to_string()).expect("a good file");
        let agent = Agent::start(config, Host::default()).expect("starts");
        let url = format!("rtsp://{}{SUB}", server.tunnel("gate", "rtsp").await);
        Self { camera, link, server, _agent: agent, url }
    }

    /// The same with the camera's account, for who is answered by the camera itself.
    fn with_account(&self) -> String {
        let place = self.camera.rtsp_address().to_string();
        let own = self.camera.url(SUB);
        own.replace(&place, self.url.strip_prefix("rtsp://").and_then(|rest| rest.split('/').next()).expect("a place"))
    }

    /// Octets on the uplink while the first of these viewers gets one round of pictures; all of them get every unit.
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
async fn shared_and_counted() {
    let site = Site::start("shared").await;
    let relayed = Viewer::play_again(&site.server.url("gate", "main"), SOON).await;
    let one = site.round(&[&relayed]).await;
    assert_eq!(site.camera.traffic(SUB).playing, 1, "the daemon's own");

    let first = Viewer::play_again(&site.url, SOON).await;
    let second = Viewer::play_again(&site.url, SOON).await;
    let three = site.round(&[&relayed, &first, &second]).await;
    assert!(three * 100 <= one * 105, "{three} octets for three, {one} for one");
    assert_eq!(site.camera.traffic(SUB).playing, 1, "nobody else bothered the camera");

    // The tunnel's viewers alone keep the source coming, and when all are gone it rests.
    drop(relayed);
    let two = site.round(&[&first, &second]).await;
    assert!(two * 100 <= one * 105, "{two} octets for two, {one} for one");
    drop((first, second));
    wait::until("the camera's rest", SOON, || site.camera.traffic(SUB).playing == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_is_a_connection_for_each() {
    let site = Site::start("raw").await;
    let first = Viewer::play_again(&site.with_account(), SOON).await;
    let one = site.round(&[&first]).await;
    let second = Viewer::play_again(&site.with_account(), SOON).await;
    let relayed = Viewer::play_again(&site.server.url("gate", "main"), SOON).await;
    let three = site.round(&[&first, &second, &relayed]).await;
    assert!(three > one * 2, "{three} octets for three, {one} for one: what shared saves is real");
    assert_eq!(site.camera.traffic(SUB).playing, 3);
}

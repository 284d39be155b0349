//! A server that says "wanted" and "not wanted" as fast as it can drives the agent into no storm of connections to the camera, and
//! into no row of wrong passwords that would lock the camera's account.

use std::sync::Arc;
use std::time::{Duration, Instant};

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::raw_server::RawSession;
use camagent_testkit::rtsp_camera::MAIN;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{RawServer, RtspCamera, logs::Logs};
use serde_json::json;

/// How often the server changes its mind.
const TOGGLES: usize = 40;
/// The first pause between sessions; each next one is twice as long, and the jitter takes half of it at most.
const FIRST: Duration = Duration::from_millis(400);

struct Site {
    camera: RtspCamera,
    server: RawServer,
    logs: Logs,
    _agent: Agent,
}

impl Site {
    /// An agent that fetches the main stream of a camera on demand, with this password.
    async fn start(camera: RtspCamera, password: &str) -> Self {
        let (server, logs) = (RawServer::start().await, Logs::default());
        let mut json = server.agent_json("cam", &json!({}));
        json["streaming"] = json!({
            "quality": "medium", "rtsp_port": camera.rtsp_address().port(), "stream_paths": [MAIN],
        });
        json["camera"] = json!({"user": camera.user(), "password": password});
        let mut config = Config::from_json(&json.to_string()).expect("a good file");
        config.pull_pace.first = FIRST;
        let host = Host { logger: Some(Arc::new(logs.clone())), ..Host::default() };
        let agent = Agent::start(config, host).expect("a good configuration");
        Self { camera, server, logs, _agent: agent }
    }

    fn playing(&self) -> u64 {
        self.camera.traffic(MAIN).playing
    }
}

async fn wants(session: &mut RawSession, wanted: bool) {
    session.say("source_state", json!({"camera": "cam", "source": "main", "wanted": wanted})).await;
    session.heard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_changes_its_mind_waits_longer_and_longer_for_a_picture() {
    let camera = RtspCamera::start().await;
    let password = camera.password();
    let site = Site::start(camera, &password).await;
    let mut session = site.server.session().await;
    let (mut left, mut pause) = (Instant::now(), Duration::ZERO);
    for round in 1..=3 {
        wants(&mut session, true).await;
        wait::until("pictures", SOON, || site.playing() == 1).await;
        assert!(left.elapsed() >= pause / 2, "round {round}: after {:?}, not {pause:?}", left.elapsed());
        assert_eq!(site.camera.connections(), round, "one connection a session");
        left = Instant::now();
        wants(&mut session, false).await;
        wait::until("the camera is left", SOON, || site.playing() == 0).await;
        pause = FIRST * (1 << (round - 1));
        // The pause goes on meanwhile.
        wants(&mut session, true).await;
        wants(&mut session, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_tried_once_whatever_the_server_says() {
    let site = Site::start(RtspCamera::start().await, "not the password").await;
    let mut session = site.server.session().await;
    for _ in 0..TOGGLES {
        wants(&mut session, true).await;
        wants(&mut session, false).await;
    }
    let refused = || site.logs.text().contains("refuses the password");
    wait::until("the camera's refusal", SOON, refused).await;
    wants(&mut session, true).await;
    assert_eq!(site.camera.connections(), 1);
}

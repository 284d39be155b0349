//! Server, agent and camera restart, links break: the URL of a camera behind a tunnel stays what it was and plays again,
//! and who comes while the agent is on its way back waits for it instead of being turned away.

use std::net::SocketAddr;
use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::rtsp_camera::{SNAPSHOT, SUB};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, RtspCamera, Viewer, nal};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest of the ways back.
const BACK: Duration = Duration::from_secs(40);

/// A camera, its agent, a link that can be broken, a server, and where the camera's services are there.
struct Site {
    camera: RtspCamera,
    agent: Option<Agent>,
    link: Link,
    server: CloudServer,
    token: String,
    rtsp: SocketAddr,
    http: SocketAddr,
}

impl Site {
    async fn start() -> Self {
        Self::on(CloudServer::start().await).await
    }

    /// A site whose visits end with the agent's connection, as they do when it does not come back in time.
    async fn without_resumption() -> Self {
        Self::on(CloudServer::with(|config| config.tunnels.resume_time = Duration::ZERO).await).await
    }

    async fn on(server: CloudServer) -> Self {
        let (camera, link) = (RtspCamera::start().await, Link::to(server.addresses().tls).await);
        let token = server.add_agent("gate").await;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut site = Self { camera, agent: None, link, server, token, rtsp: nowhere, http: nowhere };
        site.start_agent();
        (site.rtsp, site.http) = (site.server.tunnel("gate", "rtsp").await, site.server.tunnel("gate", "http").await);
        site.plays().await;
        site
    }

    fn start_agent(&mut self) {
        let mut config = self.server.agent_json("gate", &self.token, self.link.address());
        let (rtsp, http) = (self.camera.rtsp_address().port(), self.camera.http_address().port());
        config["camera"] = json!({"services": {"rtsp": rtsp, "http": http}});
        let config = Config::from_json(&config.to_string()).expect("a good file");
        self.agent = Some(Agent::start(config, Host::default()).expect("starts"));
    }

    fn stop_agent(&mut self) {
        let agent = self.agent.take().expect("it runs");
        assert!(agent.stop(SOON).expect("it lives").has_ended);
    }

    /// What a VMS was given on the first day.
    fn url(&self) -> String {
        self.camera.url(SUB).replace(&self.camera.rtsp_address().to_string(), &self.rtsp.to_string())
    }

    /// The URLs of the first day work: what a viewer gets is what the camera makes, and the picture comes.
    async fn plays(&self) -> Viewer {
        let viewer = Viewer::play_again(&self.url(), BACK).await;
        self.is_whole(&viewer).await;
        assert!(self.answers_http().await, "the other service too");
        viewer
    }

    async fn is_whole(&self, viewer: &Viewer) {
        viewer.wait_count(0, viewer.count(0) + 30, SOON).await;
        let seen = viewer.seen(0);
        nal::find_run(&self.camera.units(SUB, 0), &seen.digests()).unwrap_or_else(|hole| panic!("{hole}"));
        assert_eq!(seen.holes, 0);
    }

    /// The camera's web server asks for its password.
    async fn answers_http(&self) -> bool {
        let exchange = async {
            let mut stream = TcpStream::connect(self.http).await?;
            stream.write_all(format!("GET {SNAPSHOT} HTTP/1.1\r\nHost: camera\r\n\r\n").as_bytes()).await?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(&answer == b"HTTP/1.1 401")
        };
        wait::within("HTTP", SOON, exchange).await.unwrap_or(false)
    }

    /// Who looked before has gone, on both ends: what is left of a visit would wait for the agent too.
    async fn is_left(&self) {
        wait::until("the end of the visits before", SOON, || self.server.visitors("gate", "rtsp") == 0).await;
    }

    async fn is_offline(&self) {
        let is_online = || self.server.server().agents().status("gate").is_some_and(|status| status.online);
        wait::until("the agent's absence", SOON, || !is_online()).await;
    }
}

/// A viewer learns that it is over.
async fn ends(viewer: &Viewer) {
    wait::until("a viewer's end", BACK, || viewer.ended().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_server() {
    let mut site = Site::start().await;
    for _ in 0..2 {
        let viewer = site.plays().await;
        assert!(site.server.stop().await, "everybody leaves in time");
        ends(&viewer).await;
        site.server.start_again().await;
        site.plays().await;
        assert_eq!(site.server.tunnel("gate", "rtsp").await, site.rtsp);
        assert_eq!(site.server.tunnel("gate", "http").await, site.http);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_agent() {
    let mut site = Site::start().await;
    let viewer = site.plays().await;
    site.stop_agent();
    ends(&viewer).await;
    site.start_agent();
    site.plays().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_camera() {
    let mut site = Site::start().await;
    let viewer = site.plays().await;
    site.camera.stop().await;
    ends(&viewer).await;
    // Nobody is left hanging at a camera that is off.
    let refused = wait::within("an answer", SOON, Viewer::try_play(&site.url())).await;
    assert!(refused.is_err());
    assert!(!site.answers_http().await);
    site.camera.start_again().await;
    site.plays().await;
    assert_eq!(site.link.connections(), 1, "all that was none of the agent's affair");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_cuts_and_resets_of_the_link() {
    let site = Site::without_resumption().await;
    for (turn, cut) in [Link::cut_in_mid_record, Link::reset, Link::cut_in_mid_record].into_iter().enumerate() {
        let viewer = site.plays().await;
        cut(&site.link);
        ends(&viewer).await;
        site.plays().await;
        assert_eq!(site.link.connections(), turn as u32 + 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_link_that_swallowed_everything() {
    let site = Site::without_resumption().await;
    let viewer = site.plays().await;
    site.link.swallow();
    ends(&viewer).await;
    site.plays().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_the_agent_is_away_waits_for_it() {
    let mut site = Site::start().await;
    site.is_left().await;
    site.link.set_up(false);
    site.link.reset();
    site.is_offline().await;
    let url = site.url();
    let early = tokio::spawn(async move { Viewer::try_play(&url).await });
    wait::until("a visitor that waits", SOON, || site.server.visitors("gate", "rtsp") == 1).await;
    assert!(!early.is_finished(), "it is not turned away");
    site.link.set_up(true);
    let viewer = wait::within("the early viewer", SOON, early).await.expect("no panic").expect("it plays");
    site.is_whole(&viewer).await;
    drop(viewer);

    // The same when it is the agent that is started anew.
    site.is_left().await;
    site.stop_agent();
    site.is_offline().await;
    let url = site.url();
    let early = tokio::spawn(async move { Viewer::try_play(&url).await });
    wait::until("a visitor that waits", SOON, || site.server.visitors("gate", "rtsp") == 1).await;
    site.start_agent();
    let viewer = wait::within("the early viewer", SOON, early).await.expect("no panic").expect("it plays");
    site.is_whole(&viewer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_agent_that_does_not_come_is_told() {
    let server = CloudServer::with(|config| config.tunnels.wait = Duration::from_millis(300)).await;
    let camera = RtspCamera::start().await;
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, server.addresses().tls);
    config["camera"] = json!({"services": {"rtsp": camera.rtsp_address().port()}});
    let agent = Agent::start(Config::from_json(&config.to_string()).expect("a good file"), Host::default());
    let rtsp = server.tunnel("gate", "rtsp").await;
    agent.expect("starts").stop(SOON).expect("it lives");
    let url = camera.url(SUB).replace(&camera.rtsp_address().to_string(), &rtsp.to_string());
    let refused = wait::within("an answer", SOON, Viewer::try_play(&url)).await;
    let why = refused.err().expect("there is no agent");
    assert!(why.contains("503"), "{why}");
}

//! A visitor's connection through a tunnel outlives the agent's: after cuts in the middle of records, resets, a link that swallows everything,
//! and half a minute without a link and with another address behind it, RTSP plays on and every octet arrives once, in its place.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::emulator::{Change, Existing, FAR, Flows, Path, Setup, Uplink, relay};
use camagent_testkit::rtsp_camera::SUB;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, RtspCamera, Viewer, nal};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The longest of the ways back.
const BACK: Duration = Duration::from_secs(40);
/// What a visitor sends and gets.
const OCTETS: usize = 12 << 20;
/// Visitors at once.
const VISITORS: u64 = 4;

/// The octet of a flow at a place: a hole, a repetition and a mix-up are seen.
fn octet(flow: u64, at: usize) -> u8 {
    let mixed = (at as u64 / 8).wrapping_add(flow << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.rotate_left(23).to_le_bytes()[at % 8]
}

/// A service that gets one flow and sends another, at once: the first octet says which. The last octet that it sends says that it has got all.
async fn service(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, write) = socket.into_split();
            let flow = u64::from(read.read_u8().await.expect("the flow"));
            let sends = tokio::spawn(send(write, flow + 100));
            take(read, flow, OCTETS).await;
            let mut write = sends.await.expect("the service sends all");
            write.write_u8(octet(flow + 100, OCTETS)).await.expect("the connection lives");
        });
    }
}

async fn send<T: AsyncWriteExt + Unpin>(mut socket: T, flow: u64) -> T {
    let mut at = 0;
    while at < OCTETS {
        let piece: Vec<u8> = (at..(at + 40_000).min(OCTETS)).map(|at| octet(flow, at)).collect();
        socket.write_all(&piece).await.expect("the connection lives");
        at += piece.len();
    }
    socket
}

async fn take(mut socket: impl AsyncReadExt + Unpin, flow: u64, octets: usize) {
    let (mut buffer, mut at) = (vec![0; 64 << 10], 0);
    loop {
        let count = socket.read(&mut buffer).await.expect("the connection lives");
        if count == 0 {
            break;
        }
        for got in &buffer[..count] {
            assert_eq!(*got, octet(flow, at), "octet {at} of flow {flow}");
            at += 1;
        }
    }
    assert_eq!(at, octets, "octets of flow {flow}");
}

/// A visitor who sends and gets at the same time.
async fn visit(address: SocketAddr, flow: u64) {
    let (read, mut write) = TcpStream::connect(address).await.expect("the door").into_split();
    write.write_u8(flow as u8).await.expect("the door");
    let sends = tokio::spawn(async move { send(write, flow).await.shutdown().await.expect("the connection lives") });
    take(read, flow + 100, OCTETS + 1).await;
    sends.await.expect("the visitor sends all");
}

struct Site {
    camera: RtspCamera,
    link: Link,
    server: CloudServer,
    _agent: Agent,
    rtsp: SocketAddr,
    octets: SocketAddr,
}

impl Site {
    async fn start() -> Self {
        let (server, camera) = (CloudServer::start().await, RtspCamera::start().await);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(service(listener));
        let link = Link::to(server.addresses().tls).await;
        let token = server.add_agent("gate").await;
        let mut config = server.agent_json("gate", &token, link.address());
        config["camera"] = json!({"services": {"rtsp": camera.rtsp_address().port(), "octets": port}});
        let config = Config::from_json(&config.to_string()).expect("a good file");
        let agent = Agent::start(config, Host::default()).expect("starts");
        let (rtsp, octets) = (server.tunnel("gate", "rtsp").await, server.tunnel("gate", "octets").await);
        Self { camera, link, server, _agent: agent, rtsp, octets }
    }

    async fn watch(&self) -> Viewer {
        let url = self.camera.url(SUB).replace(&self.camera.rtsp_address().to_string(), &self.rtsp.to_string());
        let viewer = Viewer::play_again(&url, SOON).await;
        viewer.wait_count(0, 20, SOON).await;
        viewer
    }

    async fn connections(&self, count: u32) {
        wait::until("a new connection of the agent", BACK, || {
            self.link.connections() >= count && self.server.event_count("agent_online") >= u64::from(count)
        })
        .await;
    }
}

/// Everything that the camera made since the viewer came is there, once and in order, until now.
async fn plays_on(camera: &RtspCamera, viewer: &Viewer) {
    let start = begins(camera, viewer);
    viewer.wait_count(0, camera.units(SUB, 0).len() - start, BACK).await;
    assert_eq!(viewer.ended(), None);
    assert_eq!((begins(camera, viewer), viewer.seen(0).holes), (start, 0));
}

/// Which of the camera's units is the viewer's first; all others follow it without a hole.
fn begins(camera: &RtspCamera, viewer: &Viewer) -> usize {
    nal::find_run(&camera.units(SUB, 0), &viewer.seen(0).digests()).unwrap_or_else(|hole| panic!("{hole}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rtsp_plays_on_after_cuts_and_resets() {
    let site = Site::start().await;
    let viewer = site.watch().await;
    for (turn, cut) in [Link::cut_in_mid_record, Link::reset, Link::cut_in_mid_record].into_iter().enumerate() {
        cut(&site.link);
        site.connections(turn as u32 + 2).await;
        plays_on(&site.camera, &viewer).await;
    }
    assert_eq!(site.camera.traffic(SUB).plays, 1, "the camera has noticed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn rtsp_plays_on_after_a_link_that_swallowed_everything() {
    let site = Site::start().await;
    let viewer = site.watch().await;
    // The server does not know yet: the new connection takes the streams from one that seems to live.
    site.link.swallow();
    site.connections(2).await;
    plays_on(&site.camera, &viewer).await;
    assert_eq!(site.camera.traffic(SUB).plays, 1, "the camera has noticed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_octet_arrives_once_and_in_its_place() {
    let site = Site::start().await;
    let mut visitors = tokio::task::JoinSet::new();
    for flow in 0..VISITORS {
        visitors.spawn(visit(site.octets, flow));
    }
    let mut cuts = 0;
    let all = VISITORS * OCTETS as u64;
    // Each cut comes when some more of the octets have gone up.
    for turn in 1..=6 {
        let until = turn * all / 8;
        wait::until("octets", BACK, || site.link.carried_upwards() >= until || visitors.is_empty()).await;
        if turn % 2 == 0 {
            site.link.reset()
        } else {
            site.link.cut_in_mid_record()
        }
        cuts += 1;
        site.connections(cuts + 1).await;
    }
    while let Some(visitor) = wait::within("the visitors", BACK, visitors.join_next()).await {
        visitor.expect("a visitor who got everything");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_octet_arrives_once_after_a_reset_with_a_new_address_and_half_a_minute_without_a_link() {
    let path = || Path { rate: Some(50_000_000), delay: Duration::from_millis(10), queue: 500_000, ..Path::default() };
    let Some(uplink) = Uplink::of(Setup { up: path(), down: path(), seed: 1, script: Vec::new() }) else { return };
    let server = CloudServer::start().await;
    let far = uplink.far.within(|| std::net::TcpListener::bind((FAR, 0))).expect("a port");
    let near = uplink.near.within(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let (cloud, port) = (far.local_addr().expect("bound"), near.local_addr().expect("bound").port());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    tokio::spawn(relay::serve(far, server.addresses().tls));
    tokio::spawn(relay::serve(near, listener.local_addr().expect("bound")));
    tokio::spawn(service(listener));
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, cloud);
    config["camera"] = json!({"services": {"octets": port}});
    let config = Config::from_json(&config.to_string()).expect("a good file");
    let _agent = uplink.near.within(|| Agent::start(config, Host::default())).expect("starts");
    let octets = server.tunnel("gate", "octets").await;
    let mut visitors = tokio::task::JoinSet::new();
    for flow in 0..2 {
        visitors.spawn(visit(octets, flow));
    }
    let carried = |part: u64| {
        let (uplink, until) = (&uplink, part * 2 * OCTETS as u64 / 4);
        async move { wait::until("octets", BACK, || uplink.counters().up.octets >= until).await }
    };
    let online = |count: u64| server.event_count("agent_online") >= count;
    carried(1).await;
    let outside = uplink.outside();
    uplink.change(Change::Reset(Flows::All));
    uplink.change(Change::Address(Existing::Lost));
    assert_ne!(uplink.outside(), outside);
    wait::until("a session from there", BACK, || online(2)).await;
    carried(2).await;
    uplink.change(Change::BlackHole(Flows::All));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(visitors.try_join_next().map(|_| ()), None, "nobody is through, nobody was sent away");
    uplink.change(Change::Heal);
    while let Some(visitor) = wait::within("the visitors", 2 * BACK, visitors.join_next()).await {
        visitor.expect("a visitor who got everything");
    }
    assert!(online(3), "the black hole was noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rtsp_plays_on_after_a_reset_with_a_new_address_and_half_a_minute_without_a_link() {
    let Some(uplink) = Uplink::of(Setup::profile("lte").expect("a profile")) else { return };
    let (server, camera) = (CloudServer::start().await, RtspCamera::start().await);
    let far = uplink.far.within(|| std::net::TcpListener::bind((FAR, 0))).expect("a port");
    let near = uplink.near.within(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    let (cloud, port) = (far.local_addr().expect("bound"), near.local_addr().expect("bound").port());
    tokio::spawn(relay::serve(far, server.addresses().tls));
    tokio::spawn(relay::serve(near, camera.rtsp_address()));
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, cloud);
    config["camera"] = json!({"services": {"rtsp": port}});
    let config = Config::from_json(&config.to_string()).expect("a good file");
    // The agent's thread is where the thread is that starts it.
    let _agent = uplink.near.within(|| Agent::start(config, Host::default())).expect("starts");
    let rtsp = server.tunnel("gate", "rtsp").await;
    let url = camera.url(SUB).replace(&camera.rtsp_address().to_string(), &rtsp.to_string());
    let viewer = Viewer::play_again(&url, SOON).await;
    viewer.wait_count(0, 20, SOON).await;

    let outside = uplink.outside();
    uplink.change(Change::Reset(Flows::All));
    uplink.change(Change::Address(Existing::Lost));
    assert_ne!(uplink.outside(), outside);
    wait::until("a session from there", BACK, || server.event_count("agent_online") >= 2).await;
    plays_on(&camera, &viewer).await;

    let (outside, before) = (uplink.outside(), viewer.count(0));
    uplink.change(Change::BlackHole(Flows::All));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let during = viewer.count(0);
    assert!(during - before < 100, "{during} units came through a black hole, {before} before");
    uplink.change(Change::Address(Existing::Lost));
    uplink.change(Change::Heal);
    assert_ne!(uplink.outside(), outside);
    plays_on(&camera, &viewer).await;
    assert!(viewer.count(0) > during + 500, "{} units after {during}", viewer.count(0));
    assert_eq!(camera.traffic(SUB).plays, 1, "the camera has noticed nothing");
}

//! In shared mode whoever asks the camera's own port for what the server has already gets it from there, under the camera's
//! own path, and the camera never hears of it. Everything else still reaches the camera, octet by octet.

mod support;

use std::net::SocketAddr;

use cloud_server::config::RtspMode;
use cloud_server::store::TunnelState;
use support::agent::{FakeAgent, Targets, shared_camera};
use support::{Pushing, Running, eventually, ffprobe, gstreamer, installed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATHS: [(&str, &str); 2] =
    [("main", "/cam/realmonitor?channel=1&subtype=0"), ("sub", "/cam/realmonitor?channel=1&subtype=1")];

/// A camera that only sends back what it hears: what arrives there can be seen.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn start(change: impl FnOnce(&mut cloud_server::Config)) -> (Running, FakeAgent, SocketAddr) {
    let running = Running::with(change).await;
    let targets = Targets::from([(("gate".to_owned(), "rtsp".to_owned()), mirror().await)]);
    let agent = FakeAgent::join(&running.server, "a", vec![shared_camera("gate", &PATHS)], targets).await;
    let status = || running.server.tunnels().of_agent("a").pop();
    eventually("rtsp to listen", || status().is_some_and(|status| status.row.state == TunnelState::Listening)).await;
    let address = status().and_then(|status| status.address).expect("has an address");
    (running, agent, address)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("writes");
    stream.shutdown().await.expect("ends its side");
    let mut all = String::new();
    stream.read_to_string(&mut all).await.expect("reads");
    all
}

fn visits(agent: &FakeAgent) -> usize {
    agent.seen.lock().expect("no panic").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn players_of_a_published_path_are_answered_here() {
    if !installed("ffprobe", "ffmpeg") || !installed("gst-launch-1.0", "gstreamer1.0-tools") {
        return;
    }
    let (running, agent, address) = start(|_| {}).await;
    let pushing = Pushing::start(&running.server, "a", "gate", "main");
    let url = format!("rtsp://admin:camera-secret@{address}{}", PATHS[0].1);
    // Players begin with UDP, hear 461, and go on with TCP by themselves; three at once are one upload.
    let (first, second, third) =
        tokio::join!(ffprobe(&url, &["-rtsp_transport", "tcp"]), ffprobe(&url, &[]), gstreamer(&url, "udp+tcp"));
    for (well, told) in [&first, &second] {
        assert!(*well && told.contains("codec_name=h264"), "{told}");
    }
    assert!(third.0, "{}", third.1);
    assert!(running.server.events().count("viewer_joined") >= 3);
    assert_eq!(visits(&agent), 0, "the camera never heard of it");
    eventually("all to leave", || pushing.source.status().viewers == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_reaches_the_camera_untouched() {
    let (running, agent, address) = start(|config| config.rtsp.describe_timeout = std::time::Duration::ZERO).await;
    let _pushing = Pushing::start(&running.server, "a", "gate", "main");
    let other = "rtsp://h/cam/realmonitor?channel=1&subtype=2";
    for request in [
        format!("DESCRIBE {other} RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
        // Known, but nobody publishes it.
        format!("DESCRIBE rtsp://h{} RTSP/1.0\r\nCSeq: 1\r\n\r\n", PATHS[1].1),
        "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".to_owned(),
        "GET /snapshot HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "\x16\x03\x01 no RTSP at all".to_owned(),
        "OPT".to_owned(),
    ] {
        assert_eq!(ask(address, &request).await, request);
    }
    assert_eq!(visits(&agent), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_has_the_last_word_on_the_mode() {
    let (running, agent, address) = start(|config| config.tunnels.rtsp_mode = RtspMode::Raw).await;
    let _pushing = Pushing::start(&running.server, "a", "gate", "main");
    let request = format!("DESCRIBE rtsp://h{} RTSP/1.0\r\nCSeq: 1\r\n\r\n", PATHS[0].1);
    assert_eq!(ask(address, &request).await, request);
    assert_eq!(visits(&agent), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_login_the_relay_asks_and_the_camera_asks_for_itself() {
    let (running, agent, address) = start(|config| config.rtsp.login = true).await;
    let _pushing = Pushing::start(&running.server, "a", "gate", "main");
    let secret = running.server.add_viewer("ops").await.expect("adds");
    let describe = |path: &str| format!("DESCRIBE rtsp://h{path} RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    let answer = ask(address, &describe(PATHS[0].1)).await;
    assert!(answer.starts_with("RTSP/1.0 401 ") && answer.contains("Digest realm=\"camagent\""), "{answer}");
    assert_eq!(visits(&agent), 0);
    assert_eq!(ask(address, &describe("/other")).await, describe("/other"), "raw is the camera's own login");
    if installed("ffprobe", "ffmpeg") {
        let url = format!("rtsp://ops:{secret}@{address}{}", PATHS[0].1);
        let (well, told) = ffprobe(&url, &["-rtsp_transport", "tcp"]).await;
        assert!(well && told.contains("codec_name=h264"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_before_the_agent_is_shared_too() {
    let (running, agent, address) = start(|_| {}).await;
    agent.leave();
    let url = format!("rtsp://h{}", PATHS[0].1);
    let mut early = TcpStream::connect(address).await.expect("connects");
    early.write_all(format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n").as_bytes()).await.expect("writes");
    let visitors = || running.server.tunnels().of_agent("a")[0].visitors;
    eventually("the visitor to wait", || visitors() == 1).await;
    let agent = FakeAgent::join(&running.server, "a", vec![shared_camera("gate", &PATHS)], Targets::new()).await;
    let _pushing = Pushing::start(&running.server, "a", "gate", "main");
    let mut answer = String::new();
    early.shutdown().await.expect("ends its side");
    early.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("RTSP/1.0 200 OK"), "{answer}");
    assert_eq!(visits(&agent), 0);
}

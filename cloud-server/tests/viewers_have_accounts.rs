//! With a login nobody watches without an account: real players log in, everybody else gets nothing, and beyond loopback
//! the server does not even start without accounts.

mod support;

use std::time::Duration;

use cloud_server::{Config, Server};
use support::{Pushing, Running, eventually, ffprobe, gstreamer, installed};

async fn with_login() -> (Running, Pushing, String) {
    let running = Running::with(|config| config.rtsp.login = true).await;
    running.server.add_agent("agent").await.expect("adds");
    let pushing = Pushing::start(&running.server, "agent", "cam", "main");
    let secret = running.server.add_viewer("ops").await.expect("adds");
    (running, pushing, secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_logs_in() {
    if !installed("ffprobe", "ffmpeg") {
        return;
    }
    let (running, _pushing, secret) = with_login().await;
    let address = running.server.addresses().rtsp;
    let tcp = ["-rtsp_transport", "tcp"];
    let (well, told) = ffprobe(&format!("rtsp://ops:{secret}@{address}/cam/main"), &tcp).await;
    assert!(well && told.contains("codec_name=h264"), "{told}");
    for wrong in ["", "ops:wrong@", "nobody:wrong@"] {
        let (well, told) = ffprobe(&format!("rtsp://{wrong}{address}/cam/main"), &tcp).await;
        assert!(!well && told.contains("401"), "{wrong}: {told}");
    }
    assert!(running.server.events().count("viewer_refused") >= 2, "who tried is told");
    running.server.store().remove_viewer("ops").await.expect("removes");
    let (well, told) = ffprobe(&format!("rtsp://ops:{secret}@{address}/cam/main"), &tcp).await;
    assert!(!well && told.contains("401"), "a removal holds at once: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_logs_in() {
    if !installed("gst-launch-1.0", "gstreamer1.0-tools") {
        return;
    }
    let (running, pushing, secret) = with_login().await;
    let address = running.server.addresses().rtsp;
    let mut events = running.server.events().subscribe();
    let (well, told) = gstreamer(&format!("rtsp://ops:{secret}@{address}/cam/main"), "tcp").await;
    let happened: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
    assert!(well, "{told} {happened:?}");
    let (well, _) = gstreamer(&format!("rtsp://ops:wrong@{address}/cam/main"), "tcp").await;
    assert!(!well);
    eventually("the viewers to leave", || pushing.source.status().viewers == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_with_an_account_that_is_removed_is_sent_away() {
    if !installed("ffmpeg", "ffmpeg") {
        return;
    }
    let (running, pushing, secret) = with_login().await;
    let other = running.server.add_viewer("other").await.expect("adds");
    let address = running.server.addresses().rtsp;
    let play = |name: &str, secret: &str| {
        let url = format!("rtsp://{name}:{secret}@{address}/cam/main");
        let mut command = std::process::Command::new("ffmpeg");
        command.args([
            "-nostdin",
            "-v",
            "error",
            "-rtsp_transport",
            "tcp",
            "-i",
            &url,
            "-f",
            "null",
            "-c",
            "copy",
            "-",
        ]);
        command.stdin(std::process::Stdio::null());
        Player(command.spawn().expect("runs"))
    };
    let mut players = [play("ops", &secret), play("other", &other)];
    eventually("both to watch", || pushing.source.status().viewers == 2).await;
    let mut events = running.server.events().subscribe();
    running.server.store().remove_viewer("ops").await.expect("removes");
    let left = async {
        loop {
            if let cloud_server::event::Event::ViewerLeft { reason, .. } = events.recv().await.expect("the bus lives") {
                return reason;
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(20), left).await.expect("one is sent away");
    assert_eq!(reason, "account removed");
    eventually("the other to watch on", || pushing.source.status().viewers == 1).await;
    assert!(players[1].0.try_wait().expect("asks").is_none(), "the other watches on");
}

/// Ended with the test.
struct Player(std::process::Child);

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_the_server_needs_an_account() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut config = Config::for_tests(folder.path());
    config.listen.rtsp = "0.0.0.0:0".parse().expect("an address");
    let error = Server::start(config.clone()).await.err().expect("refuses").to_string();
    for part in ["listen.rtsp", "0.0.0.0:0", "camagent-cloud viewer add NAME"] {
        assert!(error.contains(part), "{error}");
    }
    let store = cloud_server::store::Store::open(folder.path()).await.expect("opens");
    store.add_viewer("ops", &cloud_server::rtsp::digest::ha1("ops", "secret"), 1).await.expect("adds");
    let server = Server::start(config).await.expect("starts");
    server.add_agent("agent").await.expect("adds");
    let _pushing = Pushing::start(&server, "agent", "cam", "main");
    let port = server.addresses().rtsp.port();
    if installed("ffprobe", "ffmpeg") {
        let (well, told) = ffprobe(&format!("rtsp://127.0.0.1:{port}/cam/main"), &["-rtsp_transport", "tcp"]).await;
        assert!(!well && told.contains("401"), "also for those who come over loopback: {told}");
        let url = format!("rtsp://ops:secret@127.0.0.1:{port}/cam/main");
        let (well, told) = ffprobe(&url, &["-rtsp_transport", "tcp"]).await;
        assert!(well, "{told}");
    }
    assert!(server.stop().await);
}

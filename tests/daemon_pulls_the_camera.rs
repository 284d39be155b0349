//! `camagentd` with the configuration of a camera that has an RTSP server: its pictures arrive, the log says what is fetched and never the
//! password, and on SIGTERM camera and server are left in order.

use std::time::Duration;

use camagent_testkit::daemon::Daemon;
use camagent_testkit::rtsp_camera::{MAIN, SUB};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, RtspCamera, Viewer, nal};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_the_cameras_own_server_arrive() {
    let (server, camera) = (CloudServer::start().await, RtspCamera::start().await);
    let token = server.add_agent("cam").await;
    let mut json = server.agent_json("cam", &token, server.addresses().tls);
    json["streaming"]["rtsp_port"] = json!(camera.rtsp_address().port());
    json["streaming"]["stream_paths"] = json!([MAIN, SUB]);
    json["camera"] = json!({"model": "kit", "user": camera.user(), "password": camera.password()});
    let file = server.folder().join("agent.json");
    std::fs::write(&file, json.to_string()).expect("a file");
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_camagentd"), &["--config", &file.display().to_string()]);

    for (source, path) in [("main", MAIN), ("sub", SUB)] {
        let viewer = Viewer::play_again(&server.url("cam", source), SOON * 2).await;
        for track in 0..2 {
            viewer.wait_count(track, 60, SOON * 2).await;
            let made = camera.units(path, track);
            nal::find_run(&made, &viewer.seen(track).digests()).unwrap_or_else(|hole| panic!("{source}: {hole}"));
        }
    }

    let asked = std::time::Instant::now();
    daemon.signal(libc::SIGTERM);
    let (status, log) = daemon.end().await;
    assert!(status.success() && asked.elapsed() < Duration::from_secs(5), "{status} {log}");
    wait::until("the camera is left", SOON, || camera.traffic(MAIN).playing == 0).await;
    assert!(log.contains("camera cam, source main: H.265 and PCMA over tcp from rtsp://127.0.0.1:"), "{log}");
    assert!(log.contains("camera cam, source sub: H.264 and AAC over tcp"), "{log}");
    assert!(!log.contains(&camera.password()), "{log}");
}

//! One daemon, one file, several cameras: each is relayed under its own name, one that goes away takes nobody with it and comes back, and the
//! daemon ends in time while they play.

use std::net::SocketAddr;
use std::time::Duration;

use camagent_testkit::rtsp_camera::{MAIN, RtspCamera, SUB};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Daemon, Viewer, nal};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DAEMON: &str = env!("CARGO_BIN_EXE_camagentd");
/// Pictures that are compared.
const PICTURES: usize = 30;

/// Waits until the viewer has more pictures than now, and all of them are a run of what the camera made.
async fn gets(viewer: &Viewer, camera: &RtspCamera, path: &str) {
    viewer.wait_count(0, viewer.count(0) + PICTURES, SOON * 2).await;
    let (made, got) = (camera.units(path, 0), viewer.seen(0));
    assert_eq!(got.holes, 0);
    nal::find_run(&made, &got.digests()).unwrap_or_else(|hole| panic!("{path}: {hole}"));
}

/// A service that says this and closes.
async fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut visitor, _)) = listener.accept().await {
            visitor.write_all(name.as_bytes()).await.expect("writes");
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn each_under_its_own_name() {
    let server = CloudServer::start().await;
    let token = server.add_agent("box").await;
    let (gate, mut yard) = (RtspCamera::start().await, RtspCamera::start().await);
    yard.set_password("another-password");
    // A service of the same name at each camera: it says whose it is.
    let named = [named("gate").await, named("yard").await];
    let section = |id: &str, camera: &RtspCamera| -> Value {
        let name = named[usize::from(id == "yard")].port();
        json!({
            "id": id, "host": "127.0.0.1", "rtsp_port": camera.rtsp_address().port(), "user": camera.user(),
            "password": camera.password(), "services": {"http": camera.http_address().port(), "name": name},
        })
    };
    let mut config = server.agent_json("box", &token, server.addresses().tls);
    config["streaming"]["stream_paths"] = json!([MAIN, SUB]);
    config["streaming"]["sources"] = json!({"sub": {"upload": "on_demand"}});
    config["cameras"] = json!([section("gate", &gate), section("yard", &yard)]);
    config["agent"]["log_level"] = json!("DEBUG");
    let file = server.folder().join("box.json");
    std::fs::write(&file, config.to_string()).expect("the folder can be written");
    let daemon = Daemon::start(DAEMON, &["--config", file.to_str().expect("text")]);

    let play = async |camera: &str, source: &str| Viewer::play_again(&server.url(camera, source), SOON).await;
    let (at_gate, at_yard) = tokio::join!(play("gate", "main"), play("yard", "main"));
    let small = play("yard", "sub").await;
    tokio::join!(gets(&at_gate, &gate, MAIN), gets(&at_yard, &yard, MAIN), gets(&small, &yard, SUB));
    assert_eq!(gate.traffic(SUB).plays, 0, "nobody watches it");
    let status = server.server().agents().status("box").expect("it is known");
    let services = |id: &str| -> Vec<(String, u16)> {
        let camera = status.cameras.iter().find(|camera| camera.id == id).expect("it is registered");
        camera.services.iter().map(|service| (service.name.clone(), service.port)).collect()
    };
    assert_eq!(
        services("gate"),
        [
            ("rtsp".to_owned(), gate.rtsp_address().port()),
            ("http".to_owned(), gate.http_address().port()),
            ("name".to_owned(), named[0].port()),
        ]
    );
    for camera in ["gate", "yard"] {
        let tunnels = server.server().tunnels().of_agent("box");
        let tunnel = tunnels.iter().find(|tunnel| tunnel.row.camera == camera && tunnel.row.service == "name");
        let address = tunnel.and_then(|tunnel| tunnel.address).expect("a port");
        let mut visitor = TcpStream::connect(address).await.expect("the port is open");
        let mut said = String::new();
        wait::within("a name", SOON, visitor.read_to_string(&mut said)).await.expect("reads");
        assert_eq!(said, camera, "each visitor reaches the camera it came for");
    }
    assert_eq!(services("yard")[0].1, yard.rtsp_address().port());

    yard.stop().await;
    gets(&at_gate, &gate, MAIN).await;
    yard.start_again().await;
    let again = play("yard", "main").await;
    again.wait_count(0, PICTURES, SOON * 2).await;

    daemon.signal(libc::SIGTERM);
    let (status, log) = daemon.end().await;
    assert_eq!(status.code(), Some(0), "{log}");
    wait::until("both cameras are left alone", Duration::from_secs(5), || {
        [&gate, &yard].iter().all(|camera| camera.traffic(MAIN).playing == 0)
    })
    .await;
    assert!(log.contains("stopped") && log.contains("yard"), "{log}");
    for secret in [token, gate.password(), yard.password()] {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}

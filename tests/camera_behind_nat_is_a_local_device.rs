//! A camera behind NAT, of other people's parts: Debian's GStreamer RTSP server with Digest in a network namespace whose
//! router masquerades. Dialling it fails; through the tunnel it is a device of the server's own machine, picture and sound octet by octet.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use camagent_testkit::gstreamer_camera::{self, GStreamerCamera, PASSWORD, USER};
use camagent_testkit::netns::{CAMERA, CLOUD, ROUTER};
use camagent_testkit::players::{Media, TcpTransportOptions, Transport, UdpTransportOptions};
use camagent_testkit::rtsp_camera::{MAIN, SUB};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Daemon, Nat, players};
use serde_json::{Value, json};

/// The camera's own ports.
const RTSP: u16 = 554;
const HTTP: u16 = 80;
/// Viewers at once.
const VIEWERS: usize = 10;

#[test]
fn directly_it_is_a_camera_on_its_site_and_nothing_from_outside() {
    let Some((nat, camera, folder)) = network() else { return };
    nat.site.block_on(async {
        for path in [MAIN, SUB] {
            let url = url((CAMERA, RTSP).into(), path);
            everybody_plays(&url, path, folder.path()).await;
            let made = GStreamerCamera::media(path);
            let udp = Transport::Udp(UdpTransportOptions::default());
            let got = players::retina(&url, made.wanted(), udp).await.expect("it plays");
            is_run("retina over UDP", &made, &got);
        }
        let wrong = url((CAMERA, RTSP).into(), MAIN).replace(PASSWORD, "wrong");
        let wanted = GStreamerCamera::media(MAIN).wanted();
        let refused = players::retina(&wrong, wanted, tcp()).await.expect_err("Digest");
        assert!(refused.contains("401"), "{refused}");
        assert_eq!(picture((CAMERA, HTTP).into()).await, camera.picture());
    });
    nat.cloud.within(|| {
        for (host, port) in [(CAMERA, RTSP), (CAMERA, HTTP), (ROUTER, RTSP), (ROUTER, HTTP)] {
            let address = SocketAddr::from((host, port));
            let dialled = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5));
            assert!(dialled.is_err(), "{address} answers");
        }
    });
}

#[test]
fn through_the_tunnel_it_is_a_device_of_this_machine() {
    let Some((nat, camera, folder)) = network() else { return };
    nat.cloud.block_on(async {
        let (server, _daemon) = connected(&nat, folder.path(), json!({"rtsp": RTSP, "http": HTTP})).await;
        let rtsp = server.tunnel("gate", "rtsp").await;
        let [main, sub] = [MAIN, SUB].map(|path| url(rtsp, path));
        tokio::join!(everybody_plays(&main, MAIN, folder.path()), everybody_plays(&sub, SUB, folder.path()));

        let made = GStreamerCamera::media(MAIN);
        let viewers = (0..VIEWERS).map(|_| players::retina(&main, made.wanted(), tcp()));
        for got in futures_util::future::join_all(viewers).await {
            is_run("one of ten", &made, &got.unwrap_or_else(|error| panic!("one of ten: {error}")));
        }

        // The camera does talk over UDP, which does not pass: players that can do both then ask for TCP.
        let udp = Transport::Udp(UdpTransportOptions::default());
        let refused = players::retina(&main, made.wanted(), udp).await.expect_err("UDP does not pass");
        assert!(refused.contains("461"), "{refused}");
        let wrong = main.replace(PASSWORD, "wrong");
        let refused = players::retina(&wrong, made.wanted(), tcp()).await.expect_err("it is the camera that asks");
        assert!(refused.contains("401"), "{refused}");

        let http = server.tunnel("gate", "http").await;
        let pictures = (0..VIEWERS).map(|_| picture(http));
        for got in futures_util::future::join_all(pictures).await {
            assert!(got == camera.picture(), "{} octets", got.len());
        }
    });
}

#[test]
fn the_daemon_fetches_it_and_the_relay_shows_it() {
    let Some((nat, _camera, folder)) = network() else { return };
    nat.cloud.block_on(async {
        let (server, _daemon) = connected(&nat, folder.path(), json!({})).await;
        for (source, path) in [("main", MAIN), ("sub", SUB)] {
            wait::until(source, SOON, || server.frames("gate", source) > 0).await;
            everybody_plays(&server.url("gate", source), path, folder.path()).await;
        }
    });
}

/// The server in `cloud`, and a daemon in `site` with a session, which fetches main and sub.
async fn connected(nat: &Nat, folder: &Path, services: Value) -> (CloudServer, Daemon) {
    let server = CloudServer::with(|config| config.listen.tls = (CLOUD, 0).into()).await;
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, server.addresses().tls);
    config["agent"]["log_file"] = json!(folder.join("agent.log"));
    config["streaming"]["stream_paths"] = json!([MAIN, SUB]);
    config["camera"] = json!({"host": CAMERA, "user": USER, "password": PASSWORD, "services": services});
    let file = folder.join("agent.json");
    std::fs::write(&file, config.to_string()).expect("the folder can be written");
    let mut command: Command = nat.site.command(env!("CARGO_BIN_EXE_camagentd"));
    let daemon = Daemon::spawn(command.arg("--config").arg(file));
    let online = || server.server().agents().status("gate").is_some_and(|status| status.online);
    wait::until("the daemon", SOON, online).await;
    (server, daemon)
}

/// ffmpeg, GStreamer and retina get what the camera has, at the same time.
async fn everybody_plays(url: &str, path: &str, folder: &Path) {
    let made = GStreamerCamera::media(path);
    let wanted = made.wanted();
    let got = tokio::join!(
        players::ffmpeg(url, wanted, folder),
        players::gstreamer(url, wanted, folder),
        players::retina(url, wanted, tcp()),
    );
    is_run("ffmpeg", &made, &got.0.expect("installed"));
    if let Some(got) = got.1 {
        is_run("GStreamer", &made, &got);
    }
    is_run("retina", &made, &got.2.unwrap_or_else(|error| panic!("retina: {error}")));
}

fn tcp() -> Transport {
    Transport::Tcp(TcpTransportOptions::default())
}

/// The namespaces, the camera in `site`, a folder; nothing where this machine lacks something.
fn network() -> Option<(Nat, GStreamerCamera, tempfile::TempDir)> {
    if !GStreamerCamera::is_possible() {
        return None;
    }
    let nat = Nat::make()?;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let camera = GStreamerCamera::start(nat.site.command(gstreamer_camera::PYTHON), folder.path(), RTSP, HTTP);
    Some((nat, camera, folder))
}

fn url(place: SocketAddr, path: &str) -> String {
    format!("rtsp://{USER}:{PASSWORD}@{place}{path}")
}

/// The camera's picture over HTTP.
async fn picture(address: SocketAddr) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the camera's HTTP server accepts");
    let request = format!("GET /cgi-bin/snapshot.cgi HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it answers");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    answer.split_off(end + 4)
}

/// Picture and sound, octet by octet.
fn is_run(who: &str, made: &Media, received: &Media) {
    if let Err(hole) = made.find_run(received) {
        panic!("{who}: {hole}");
    }
}

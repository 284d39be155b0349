//! A viewer that stops reading costs the others nothing: their streams go on at full speed on the same port and the same
//! agent, what is held for the stuck one is bounded, and when it reads again it gets every octet.

use std::net::SocketAddr;
use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::rtsp::Connection;
use camagent_testkit::rtsp_camera::{MAIN, SUB};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, RtspCamera, Viewer, nal};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Viewers that read nothing.
const STUCK: usize = 8;
/// Octets of a stream that is read to its end.
const BULK: usize = 24 << 20;
/// What may be held of a stream that is not read: the windows of both ends and four socket buffers.
const HELD: u64 = 16 << 20;

/// The octet at a place of the endless stream: its period is no power of two, so that a hole of any likely size is seen.
fn octet(at: usize) -> u8 {
    (at % 251) as u8
}

/// A service that pours out an endless stream, and stops when nobody takes it.
async fn spring() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A multiple of the period, so that each block goes on where the last one ended.
                let block: Vec<u8> = (0..251 * 256).map(octet).collect();
                while socket.write_all(&block).await.is_ok() {}
            });
        }
    });
    address
}

/// Reads so many octets, which are those of the stream from its beginning.
async fn drink(stream: &mut TcpStream, count: usize) {
    let (mut at, mut buffer) = (0, vec![0; 64 << 10]);
    while at < count {
        let length = stream.read(&mut buffer).await.expect("the stream goes on");
        assert!(length > 0, "it ended after {at} octets");
        assert!(buffer[..length].iter().enumerate().all(|(index, found)| *found == octet(at + index)), "near {at}");
        at += length;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_same_service_and_on_others() {
    let server = CloudServer::start().await;
    let (camera, spring) = (RtspCamera::start().await, spring().await);
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, server.addresses().tls);
    config["camera"] = json!({"services": {"rtsp": camera.rtsp_address().port(), "spring": spring.port()}});
    let config = Config::from_json(&config.to_string()).expect("a good file");
    let agent = Agent::start(config, Host::default()).expect("starts");
    let (rtsp, door) = (server.tunnel("gate", "rtsp").await, server.tunnel("gate", "spring").await);
    let url = |path: &str| camera.url(path).replace(&camera.rtsp_address().to_string(), &rtsp.to_string());

    // Some do not read the endless stream, some do not read the video that they asked for.
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
        stuck.push(socket.connect(door).await.expect("let in"));
    }
    let mut deaf = Connection::open(&url(MAIN), Some(4 << 10)).await.expect("let in");
    deaf.play().await.expect("it plays");
    let carried = || {
        let all = server.server().tunnels().of_agent("gate");
        all.iter().find(|status| status.row.service == "spring").map_or(0, |status| status.to_visitors)
    };
    is_still("nothing more goes to those who do not read", carried).await;
    let held = carried() / STUCK as u64;
    assert!(held < HELD, "{held} octets are held for each");

    // Everybody else has the whole way to themselves.
    let mut bulk = TcpStream::connect(door).await.expect("let in");
    let viewers = [Viewer::play_again(&url(MAIN), SOON).await, Viewer::play_again(&url(SUB), SOON).await];
    wait::within("a stream beside stuck ones", SOON * 3, drink(&mut bulk, BULK)).await;
    for (viewer, path) in viewers.iter().zip([MAIN, SUB]) {
        viewer.wait_count(0, 60, SOON).await;
        let seen = viewer.seen(0);
        nal::find_run(&camera.units(path, 0), &seen.digests()).unwrap_or_else(|hole| panic!("{path}: {hole}"));
        assert_eq!(seen.holes, 0);
    }
    drop(bulk);

    // Those who were stuck have lost nothing.
    for mut stream in stuck {
        wait::within("a stream that was stuck", SOON * 3, drink(&mut stream, BULK / 4)).await;
    }
    assert!(agent.stop(SOON).expect("it lives").has_ended);
}

/// Waits until a number has grown and then stays the same for a while.
async fn is_still(what: &str, number: impl Fn() -> u64) {
    let (mut last, mut same) = (0, 0);
    let standing = async {
        while same < 20 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            same = if number() == last && last > 0 { same + 1 } else { 0 };
            last = number();
        }
    };
    wait::within(what, SOON, standing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn also_when_it_does_not_take_what_it_sends_back() {
    // A camera that reads nothing, and a visitor that writes without end: credit stops the visitor, nobody else.
    let server = CloudServer::start().await;
    let (deaf, spring) = (TcpListener::bind("127.0.0.1:0").await.expect("a free port"), spring().await);
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, server.addresses().tls);
    let port = deaf.local_addr().expect("bound").port();
    config["camera"] = json!({"services": {"deaf": port, "spring": spring.port()}});
    let config = Config::from_json(&config.to_string()).expect("a good file");
    let agent = Agent::start(config, Host::default()).expect("starts");
    let (deaf_door, door) = (server.tunnel("gate", "deaf").await, server.tunnel("gate", "spring").await);

    let mut writers = Vec::new();
    for _ in 0..STUCK {
        let mut stream = TcpStream::connect(deaf_door).await.expect("let in");
        writers.push(tokio::spawn(async move {
            let block = vec![7; 64 << 10];
            while stream.write_all(&block).await.is_ok() {}
        }));
    }
    let carried = || {
        let all = server.server().tunnels().of_agent("gate");
        all.iter().find(|status| status.row.service == "deaf").map_or(0, |status| status.to_camera)
    };
    is_still("nothing more goes to a camera that does not read", carried).await;
    let held = carried() / STUCK as u64;
    assert!(held < HELD, "{held} octets are held for each");
    let mut bulk = TcpStream::connect(door).await.expect("let in");
    wait::within("a stream beside stuck ones", SOON * 3, drink(&mut bulk, BULK)).await;
    assert!(writers.iter().all(|writer| !writer.is_finished()), "they still wait");
    writers.iter().for_each(|writer| writer.abort());
    assert!(agent.stop(SOON).expect("it lives").has_ended);
}

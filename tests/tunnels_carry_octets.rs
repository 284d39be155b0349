//! A camera's own TCP services are reached through the agent: octets arrive whole and in order both ways, each direction ends on its own,
//! and what the agent's configuration does not name is not reached.

use std::time::Duration;

use camagent_core::{Agent, Config, Host};
use camagent_testkit::CloudServer;
use cloud_server::agents::{Farewell, Visit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Octets that differ everywhere, so that a hole or a swap is seen.
fn octets(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

/// A service that reads all that comes, and answers with as much of its own behind it.
async fn service(listener: TcpListener) {
    while let Ok((mut socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut asked = Vec::new();
            // The visitor's half-close tells that it is done.
            socket.read_to_end(&mut asked).await.expect("the visitor's octets");
            asked.reverse();
            socket.write_all(&asked).await.expect("the answer");
        });
    }
}

struct Site {
    server: CloudServer,
    agent: Agent,
}

async fn site(services: serde_json::Value) -> Site {
    let server = CloudServer::start().await;
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, server.addresses().tls);
    config["camera"] = json!({"services": services});
    let config = Config::from_json(&config.to_string()).expect("a configuration");
    let agent = Agent::start(config, Host::default()).expect("starts");
    Site { server, agent }
}

impl Site {
    /// A visitor's connection to a service.
    async fn visit(&self, camera: &str, service: &str) -> (tokio::io::DuplexStream, oneshot::Receiver<Farewell>) {
        let (near, far) = duplex(64 << 10);
        let (farewell, told) = oneshot::channel();
        let visit = Visit {
            camera: camera.into(),
            service: service.into(),
            visitor: "192.0.2.7:1234".into(),
            socket: Box::new(far),
            farewell,
        };
        self.server.server().agents().visit("gate", visit, PATIENCE).await.expect("the agent is there");
        (near, told)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_visitors_at_once_get_their_own_octets_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(service(listener));
    let site = site(json!({"echo": port})).await;
    let visits = (0..20).map(|number| {
        let site = &site;
        async move {
            let length = 200_000 + 77_777 * usize::try_from(number % 5).expect("small");
            let sent = octets(length, number + 1);
            let (mut visitor, told) = site.visit("gate", "echo").await;
            let mut expected = sent.clone();
            expected.reverse();
            let mut got = Vec::new();
            visitor.write_all(&sent).await.expect("the tunnel takes octets");
            visitor.shutdown().await.expect("half-close");
            visitor.read_to_end(&mut got).await.expect("the answer");
            assert!(got == expected, "visitor {number}: {} of {length} octets, or others", got.len());
            drop(visitor);
            let farewell = tokio::time::timeout(PATIENCE, told).await.expect("an end").expect("a farewell");
            assert!(farewell.reached);
            assert_eq!((farewell.to_camera, farewell.to_visitor), (length as u64, length as u64), "{farewell:?}");
        }
    });
    tokio::time::timeout(PATIENCE * 3, futures_util::future::join_all(visits)).await.expect("no tunnel hangs");
    site.agent.stop(Duration::from_secs(1)).expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_does_not_name_is_not_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    // Held and not listening: nobody else can take it meanwhile.
    let held = TcpSocket::new_v4().expect("a socket");
    held.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let site = site(json!({"closed": held.local_addr().expect("an address").port()})).await;
    for (camera, service, reason) in [
        ("gate", "echo", "not_allowed"),
        ("gate", &format!("127.0.0.1:{port}"), "not_allowed"),
        ("other", "closed", "not_allowed"),
        ("gate", "closed", "unreachable"),
    ] {
        let (mut visitor, told) = site.visit(camera, service).await;
        let farewell = tokio::time::timeout(PATIENCE, told).await.expect("an end").expect("a farewell");
        assert!(!farewell.reached && farewell.reason.starts_with(reason), "{camera} {service}: {farewell:?}");
        assert_eq!(visitor.read(&mut [0; 8]).await.expect("an end"), 0);
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
    let (socket, _) = listener.accept().await.expect("our own connection");
    drop(socket);
    let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err(), "the first connection to the service that is not named was the test's own");
    site.agent.stop(Duration::from_secs(1)).expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_in_the_middle_does_not_look_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (breaks, mut told_to_break) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.write_all(b"half").await.expect("the first half");
            // The first connection breaks by itself, the second with the session.
            if told_to_break.recv().await.is_some() {
                socket.set_zero_linger().expect("an option");
            } else {
                std::future::pending::<()>().await;
            }
        }
    });
    let site = site(json!({"breaks": port})).await;
    for by_itself in [true, false] {
        let door = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut visitor = TcpStream::connect(door.local_addr().expect("an address")).await.expect("connects");
        let (far, _) = door.accept().await.expect("accepts");
        let (farewell, _told) = oneshot::channel();
        let visit = Visit {
            camera: "gate".into(),
            service: "breaks".into(),
            visitor: "192.0.2.7:1234".into(),
            socket: Box::new(far),
            farewell,
        };
        site.server.server().agents().visit("gate", visit, PATIENCE).await.expect("the agent is there");
        let mut half = [0; 4];
        visitor.read_exact(&mut half).await.expect("what came before the break");
        if by_itself {
            breaks.send(()).await.expect("the service listens");
        } else {
            site.agent.stop(Duration::ZERO).expect("stops");
        }
        let end = tokio::time::timeout(PATIENCE, visitor.read(&mut half)).await.expect("an end");
        let error = end.expect_err("an end that looks whole");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "by itself: {by_itself}");
    }
}

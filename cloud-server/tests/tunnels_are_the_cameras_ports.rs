//! A service of a camera is a port of the server, always the same one, for whoever may come; and one visitor's trouble is
//! nobody else's.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use cloud_server::Server;
use cloud_server::event::Event;
use cloud_server::store::TunnelState;
use cloud_server::tunnel::TunnelStatus;
use support::agent::{FakeAgent, Targets, camera};
use support::{Running, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A service that greets and then sends back what it hears.
async fn echo(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(greeting.as_bytes()).await;
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

fn targets(list: &[(&str, &str, SocketAddr)]) -> Targets {
    list.iter().map(|(camera, service, address)| (((*camera).into(), (*service).into()), *address)).collect()
}

fn status(server: &Server, agent: &str, service: &str) -> Option<TunnelStatus> {
    server.tunnels().of_agent(agent).into_iter().find(|status| status.row.service == service)
}

async fn listening(server: &Server, agent: &str, service: &str) -> SocketAddr {
    let state = || status(server, agent, service).map(|status| status.row.state);
    eventually(&format!("{service} to listen"), || state() == Some(TunnelState::Listening)).await;
    status(server, agent, service).and_then(|status| status.address).expect("has an address")
}

async fn ask(address: SocketAddr, words: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(words.as_bytes()).await.expect("writes");
    stream.shutdown().await.expect("ends its side");
    let mut all = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut all)).await;
    read.expect("is answered, or closed").expect("reads");
    all
}

/// Events of a kind, as they come.
async fn told(events: &mut tokio::sync::broadcast::Receiver<Event>, name: &str) -> Event {
    let find = async {
        loop {
            let event = events.recv().await.expect("the bus lives");
            if event.name() == name {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), find).await.unwrap_or_else(|_| panic!("{name} is not told"))
}

#[tokio::test(flavor = "multi_thread")]
async fn services_get_ports_that_stay() {
    let running = Running::start().await;
    let (http, snap) = (echo("http ").await, echo("snap ").await);
    let both = targets(&[("gate", "http", http), ("gate", "snap", snap)]);
    let cameras = || vec![camera("gate", &[("http", 80), ("snap", 8081)])];
    let mut events = running.server.events().subscribe();
    let agent = FakeAgent::join(&running.server, "a", cameras(), both.clone()).await;
    let first = listening(&running.server, "a", "http").await;
    let second = listening(&running.server, "a", "snap").await;
    assert!(first.ip().is_loopback() && first != second);
    assert_eq!(ask(first, "hello").await, "http hello");
    let Event::VisitEnded { camera, service, to_visitor: 10, to_camera: 5, .. } =
        told(&mut events, "visit_ended").await
    else {
        panic!("counted")
    };
    assert_eq!((camera.as_str(), service.as_str()), ("gate", "http"));
    assert_eq!(ask(second, "hello").await, "snap hello");
    assert_eq!(agent.seen.lock().expect("no panic")[1].1, "snap");
    let counted = status(&running.server, "a", "http").expect("known");
    assert_eq!((counted.to_visitors, counted.to_camera), (10, 5));

    // The same after a restart of the server, before the agent is back.
    drop(agent);
    let Running { server, folder } = running;
    assert!(server.stop().await);
    let server = Server::start(cloud_server::Config::for_tests(folder.path())).await.expect("starts again");
    assert_eq!(listening(&server, "a", "http").await, first);
    assert_eq!(listening(&server, "a", "snap").await, second);
    let early = tokio::spawn(ask(first, "early"));
    eventually("the visitor to wait", || status(&server, "a", "http").is_some_and(|status| status.visitors == 1)).await;
    let _agent = FakeAgent::join(&server, "a", cameras(), both).await;
    assert_eq!(early.await.expect("ends"), "http early", "who came before the agent is served");
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rtsp_server_is_one_by_its_name() {
    let running = Running::start().await;
    let mirror = echo("").await;
    let names = ["rtsp-nvr", "nvr"];
    let cameras = vec![camera("gate", &names.map(|name| (name, 554)))];
    let both = names.map(|name| ("gate", name, mirror));
    let _agent = FakeAgent::join(&running.server, "a", cameras, targets(&both)).await;
    let setup = "SETUP rtsp://h/a RTSP/1.0\r\nCSeq: 4\r\nTransport: RTP/AVP;unicast;client_port=6-7\r\n\r\n";
    let answer = ask(listening(&running.server, "a", "rtsp-nvr").await, setup).await;
    assert!(answer.starts_with("RTSP/1.0 461 ") && answer.contains("CSeq: 4\r\n"), "{answer}");
    let url = |name: &str| {
        let status = status(&running.server, "a", name).expect("known");
        cloud_server::tunnel::urls(&status.row, status.address.expect("has one"))
    };
    assert!(url("rtsp-nvr")[0].starts_with("rtsp://127.0.0.1:"), "{:?}", url("rtsp-nvr"));
    // Of another name nothing is known, and everything passes.
    assert_eq!(ask(listening(&running.server, "a", "nvr").await, setup).await, setup);
    assert!(url("nvr")[0].starts_with("tcp://127.0.0.1:"), "{:?}", url("nvr"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_waits_for_the_agent_but_not_for_ever() {
    let running = Running::with(|config| config.tunnels.wait = Duration::from_millis(300)).await;
    let agent = FakeAgent::join(
        &running.server,
        "a",
        vec![camera("gate", &[("rtsp", 554), ("http", 80), ("x", 1)])],
        Targets::new(),
    )
    .await;
    let rtsp = listening(&running.server, "a", "rtsp").await;
    let (http, x) = (listening(&running.server, "a", "http").await, listening(&running.server, "a", "x").await);
    agent.leave();
    let mut viewer = TcpStream::connect(rtsp).await.expect("connects");
    viewer.write_all(b"OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: 7\r\n\r\n").await.expect("writes");
    let mut answer = String::new();
    viewer.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("RTSP/1.0 503 ") && answer.contains("CSeq: 7\r\n"), "{answer}");
    assert!(ask(http, "GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 503 "));
    assert_eq!(ask(x, "?").await, "", "a language that nobody knows has no words");
    assert_eq!(running.server.events().count("visitor_refused"), 3);
    eventually("the visitors to be gone", || {
        running.server.tunnels().of_agent("a").iter().all(|status| status.visitors == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_leaves_waits_no_longer() {
    let running = Running::with(|config| config.tunnels.wait = Duration::from_secs(600)).await;
    let cameras = vec![camera("gate", &[("rtsp", 554), ("http", 80)])];
    let http = targets(&[("gate", "http", echo("hi").await)]);
    let agent = FakeAgent::join(&running.server, "a", cameras.clone(), http.clone()).await;
    let (rtsp, web) = (listening(&running.server, "a", "rtsp").await, listening(&running.server, "a", "http").await);
    agent.leave();
    let visitors = || running.server.tunnels().of_agent("a").iter().map(|status| status.visitors).sum::<usize>();
    let mut silent = TcpStream::connect(web).await.expect("connects");
    let mut asking = TcpStream::connect(rtsp).await.expect("connects");
    asking.write_all(b"OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: 7\r\n\r\n").await.expect("writes");
    // Its request is all that it says, and it wants the answer.
    let patient = tokio::spawn(async move { ask(web, "GET / HTTP/1.1\r\n\r\n").await });
    eventually("three wait", || visitors() == 3).await;
    silent.shutdown().await.expect("ends");
    drop(silent);
    drop(asking);
    eventually("two have left", || visitors() == 1).await;
    let agent = FakeAgent::join(&running.server, "a", cameras, http).await;
    assert!(patient.await.expect("no panic").starts_with("hi"));
    assert_eq!(agent.seen.lock().expect("no panic").len(), 1, "the camera sees nobody who has left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_refuses_is_told() {
    let running = Running::start().await;
    let mut events = running.server.events().subscribe();
    let _agent = FakeAgent::join(&running.server, "a", vec![camera("gate", &[("http", 80)])], Targets::new()).await;
    let http = listening(&running.server, "a", "http").await;
    // Nothing that would be left unread, which ends a connection by a reset.
    assert_eq!(ask(http, "").await, "");
    let Event::TunnelRefused { reason, .. } = told(&mut events, "tunnel_refused").await else { panic!("told") };
    assert_eq!(reason, "not allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_withdrawn_closes_and_keeps_its_port() {
    let running = Running::start().await;
    let echo = targets(&[("gate", "http", echo("").await)]);
    let agent = FakeAgent::join(&running.server, "a", vec![camera("gate", &[("http", 80)])], echo.clone()).await;
    let address = listening(&running.server, "a", "http").await;
    drop(agent);
    let agent = FakeAgent::join(&running.server, "a", vec![camera("gate", &[])], echo.clone()).await;
    let state = || status(&running.server, "a", "http").map(|status| status.row.state);
    eventually("the withdrawal", || state() == Some(TunnelState::Withdrawn)).await;
    assert!(TcpStream::connect(address).await.is_err(), "closed");
    drop(agent);
    let _agent = FakeAgent::join(&running.server, "a", vec![camera("gate", &[("http", 8080)])], echo).await;
    assert_eq!(listening(&running.server, "a", "http").await, address);
    assert_eq!(ask(address, "back").await, "back");
    let row = status(&running.server, "a", "http").expect("known").row;
    assert_eq!(row.camera_port, 8080, "the camera's own port may move");
    running.server.store().remove_agent("a").await.expect("removes");
    eventually("the camera to be forgotten", || status(&running.server, "a", "http").is_none()).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_blocked_and_tried_again() {
    let running = Running::start().await;
    let http = targets(&[("gate", "http", echo("").await)]);
    let cameras = || vec![camera("gate", &[("http", 80)])];
    let agent = FakeAgent::join(&running.server, "a", cameras(), http.clone()).await;
    let address = listening(&running.server, "a", "http").await;
    drop(agent);
    let Running { server, folder } = running;
    assert!(server.stop().await);
    let thief = TcpListener::bind(address).await.expect("free while the server is away");
    let server = Server::start(cloud_server::Config::for_tests(folder.path())).await.expect("starts all the same");
    let blocked = status(&server, "a", "http").expect("known");
    assert_eq!(blocked.row.state, TunnelState::Blocked);
    assert!(blocked.row.reason.expect("a reason").contains(&address.to_string()));
    assert_eq!(server.events().count("tunnel_blocked"), 1);
    drop(thief);
    assert_eq!(listening(&server, "a", "http").await, address, "never moved");
    let _agent = FakeAgent::join(&server, "a", cameras(), http).await;
    assert_eq!(ask(address, "hello").await, "hello");
    assert_eq!(server.events().count("tunnel_blocked"), 1, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_a_stranger_holds_is_not_given() {
    let stranger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = stranger.local_addr().expect("bound").port();
    // Ephemeral ports are left out, so only its order can be seen: the port that is given is another one.
    let running = Running::with(|config| config.tunnels.first_port = taken).await;
    let _agent = FakeAgent::join(&running.server, "a", vec![camera("gate", &[("http", 80)])], Targets::new()).await;
    let address = listening(&running.server, "a", "http").await;
    assert!(address.port() > taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_of_a_camera_are_counted_over_its_services() {
    let running = Running::with(|config| config.tunnels.max_visitors = 2).await;
    let address = echo("hi").await;
    let both = targets(&[("gate", "rtsp", address), ("gate", "http", address), ("door", "snap", address)]);
    let cameras = vec![camera("gate", &[("rtsp", 554), ("http", 80)]), camera("door", &[("snap", 80)])];
    let _agent = FakeAgent::join(&running.server, "a", cameras, both).await;
    let (rtsp, http) = (listening(&running.server, "a", "rtsp").await, listening(&running.server, "a", "http").await);
    let mut visitors = Vec::new();
    for address in [rtsp, http] {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.read_exact(&mut [0; 2]).await.expect("is greeted");
        visitors.push(stream);
    }
    let mut refused = TcpStream::connect(rtsp).await.expect("connects");
    let mut answer = String::new();
    refused.read_to_string(&mut answer).await.expect("reads");
    assert!(answer.starts_with("RTSP/1.0 503 Too many visitors"), "{answer}");
    let door = listening(&running.server, "a", "snap").await;
    assert_eq!(ask(door, "").await, "hi", "another camera's are its own");
    drop(visitors.pop());
    eventually("the seat", || status(&running.server, "a", "http").is_some_and(|status| status.visitors == 0)).await;
    assert_eq!(ask(http, "").await, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_visitor_slows_nobody() {
    let running = Running::start().await;
    let flood = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let flood_address = flood.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = flood.accept().await {
            tokio::spawn(async move { while stream.write_all(&[7; 65_536]).await.is_ok() {} });
        }
    });
    let _agent = FakeAgent::join(
        &running.server,
        "a",
        vec![camera("gate", &[("http", 80)])],
        targets(&[("gate", "http", flood_address)]),
    )
    .await;
    let address = listening(&running.server, "a", "http").await;
    let stuck = TcpStream::connect(address).await.expect("connects");
    stuck.readable().await.expect("something came, and is never read");
    let mut quick = TcpStream::connect(address).await.expect("connects");
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..20 {
        quick.read_exact(&mut buffer).await.expect("flows");
    }
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_only_who_is_listed() {
    let Some(own) = own_address() else {
        support::loud("this machine has no address beside loopback");
        return;
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut config = cloud_server::Config::for_tests(folder.path());
    config.tunnels.bind = "0.0.0.0".parse().expect("an address");
    // Documentation networks (RFC 5737), of which this machine may be in one.
    let foreign = if own.to_string().starts_with("192.0.2.") { "198.51.100.0/24" } else { "192.0.2.0/24" };
    config.tunnels.allow = vec![foreign.parse().expect("a network")];
    let error = Server::start(config.clone()).await.err().expect("refuses").to_string();
    assert!(error.contains("tunnels.bind") && error.contains("camagent-cloud viewer add NAME"), "{error}");
    let store = cloud_server::store::Store::open(folder.path()).await.expect("opens");
    store.add_viewer("ops", "0", 1).await.expect("adds");
    let server = Server::start(config.clone()).await.expect("starts");
    let http = targets(&[("gate", "http", echo("hi").await)]);
    let agent = FakeAgent::join(&server, "a", vec![camera("gate", &[("http", 80)])], http.clone()).await;
    let port = listening(&server, "a", "http").await.port();
    assert_eq!(ask(SocketAddr::from(([127, 0, 0, 1], port)), "").await, "hi", "this machine may");
    let mut stranger = TcpStream::connect((own, port)).await.expect("connects");
    let mut answer = String::new();
    let read = stranger.read_to_string(&mut answer).await;
    assert!(answer.is_empty(), "{read:?} {answer}");
    assert_eq!(server.events().count("visitor_refused"), 1);
    assert_eq!(agent.seen.lock().expect("no panic").len(), 1, "the agent never heard of it");
    drop(agent);
    assert!(server.stop().await);
    config.tunnels.allow = vec![ipnet::IpNet::from(own)];
    let server = Server::start(config).await.expect("starts");
    let _agent = FakeAgent::join(&server, "a", vec![camera("gate", &[("http", 80)])], http).await;
    assert_eq!(ask(SocketAddr::new(own, listening(&server, "a", "http").await.port()), "").await, "hi");
}

/// An address of this machine that others would use.
fn own_address() -> Option<std::net::IpAddr> {
    // Nothing is sent: connecting a datagram socket only asks for the route.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback()).then_some(own)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_address_of_its_own_a_camera_keeps_its_ports() {
    let running = Running::with(|config| config.tunnels.loopback_addresses = true).await;
    let http = echo("hi").await;
    let cameras =
        vec![camera("gate", &[("http", 18_080), ("onvif", 18_080), ("low", 81)]), camera("door", &[("http", 18_080)])];
    let _agent =
        FakeAgent::join(&running.server, "a", cameras, targets(&[("gate", "http", http), ("door", "http", http)]))
            .await;
    let of = |camera: &str, service: &str| {
        let all = running.server.tunnels().of_agent("a");
        all.into_iter().find(|status| status.row.camera == camera && status.row.service == service)
    };
    eventually("both cameras", || {
        ["gate", "door"]
            .iter()
            .all(|camera| of(camera, "http").is_some_and(|status| status.row.state == TunnelState::Listening))
    })
    .await;
    let addresses =
        ["gate", "door"].map(|camera| of(camera, "http").and_then(|status| status.address).expect("its own"));
    assert_ne!(addresses[0].ip(), addresses[1].ip());
    for address in addresses {
        assert_eq!(address.port(), 18_080);
        assert!(address.ip().to_string().starts_with("127.10."), "{address}");
        assert_eq!(ask(address, "").await, "hi");
    }
    eventually("the second service of the same port", || {
        of("gate", "onvif").and_then(|status| status.row.reason).is_some_and(|reason| reason.contains("service"))
    })
    .await;
    let reason = of("gate", "onvif").and_then(|status| status.row.reason).expect("a reason");
    assert!(reason.contains("service http"), "{reason}");
    // Whoever runs this may or may not use low ports; without the right it says what to do.
    eventually("the low port", || {
        of("gate", "low").is_some_and(|status| status.row.reason.as_deref() != Some("is being opened"))
    })
    .await;
    let low = of("gate", "low").expect("known").row;
    if let Some(reason) = low.reason {
        assert!(reason.contains("CAP_NET_BIND_SERVICE") && reason.contains("81"), "{reason}");
    } else {
        assert_eq!(low.state, TunnelState::Listening);
    }
}

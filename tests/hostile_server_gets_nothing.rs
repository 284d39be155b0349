//! A server that was taken over reaches what the agent's configuration names and nothing else: no other service, camera, host
//! or port, whatever it says and however often. Each attempt is refused and reported, and the agent lives on, in bounded memory.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use bytes::Bytes;
use camagent_core::{Agent, Event, Host, Warning};
use camagent_proto::frame::{
    Data, Frame, MaxData, MaxStreamData, MaxStreams, OpenOutcome, OpenResult, ResetStream, ReturnStreamData,
    StopSending, StreamError, Tack,
};
use camagent_testkit::events::Recorder;
use camagent_testkit::raw_server::RawSession;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Daemon, RawServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Close codes, as `sdk-docs/protocol/closing.md` has them.
const PROTOCOL_ERROR: u16 = 4000;
const LIMIT_EXCEEDED: u16 = 4012;
const FLOW_CONTROL: u16 = 4014;

/// An agent whose camera `gate` has two services: `rtsp` answers what it hears, `deaf` accepts and reads nothing. Beside
/// them listens what nobody may reach.
struct Site {
    server: RawServer,
    agent: Agent,
    events: Recorder,
    trap: TcpListener,
    _deaf: TcpListener,
}

impl Site {
    async fn start() -> Self {
        let (server, events) = (RawServer::start().await, Recorder::default());
        let (echo, deaf, trap) = (echo().await, listener(), listener());
        trap.set_nonblocking(true).expect("a socket");
        let config = server.agent("gate", &services(echo, &deaf));
        let keeper = events.clone();
        let host = Host { on_event: Some(Box::new(move |event| keeper.keep(event))), ..Host::default() };
        Self { server, agent: Agent::start(config, host).expect("a good configuration"), events, trap, _deaf: deaf }
    }

    fn refusals(&self) -> Vec<String> {
        let refusal = |event: &Event| match event {
            Event::Warning { warning: Warning::TunnelRefused, message } => Some(message.clone()),
            _ => None,
        };
        self.events.all().iter().filter_map(refusal).collect()
    }

    /// How many refusals were told, with those that were told as a number only.
    fn refused(&self) -> u64 {
        self.refusals().iter().map(|told| counted(told)).sum()
    }

    /// The agent lives, comes back, and does what it is there for; nobody has knocked where nobody may.
    async fn is_well(&self) {
        let mut session = self.server.session().await;
        works(&mut session).await;
        drop(session);
        self.is_untouched();
    }

    fn is_untouched(&self) {
        let knock = self.trap.accept().map(|(_, from)| from);
        assert_eq!(knock.expect_err("nobody knocks").kind(), ErrorKind::WouldBlock);
    }
}

/// The refusals that a line tells: itself, and the others before it.
fn counted(line: &str) -> u64 {
    let others =
        line.split_once(" others before").and_then(|(before, _)| before.rsplit([' ', '(']).next()?.parse().ok());
    u64::from(line.contains("tunnel refused: ")) + others.unwrap_or(0)
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("bound").port()
}

fn services(echo: SocketAddr, deaf: &TcpListener) -> Value {
    json!({"rtsp": echo.port(), "deaf": port(deaf)})
}

/// A service that answers what it hears.
async fn echo() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut octets = vec![0; 1 << 10];
                while let Ok(count @ 1..) = socket.read(&mut octets).await {
                    if socket.write_all(&octets[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn data(stream: u64, octets: &[u8], fin: bool) -> Frame {
    Frame::Data(Data { stream, fin, octets: Bytes::copy_from_slice(octets) })
}

/// A visitor reaches `rtsp`, is answered, and leaves.
async fn works(session: &mut RawSession) {
    let (stream, outcome) = session.open("gate", "rtsp").await;
    assert_eq!(outcome, OpenOutcome::Connected);
    session.push(&[data(stream, b"OPTIONS", true)]).await;
    let mut heard = Vec::new();
    let end = session.hear("the answer", |frame| match frame {
        Frame::Data(data) if data.stream == stream => {
            heard.extend_from_slice(&data.octets);
            data.fin.then_some(())
        }
        _ => None,
    });
    end.await;
    assert_eq!(heard, b"OPTIONS");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_service_camera_host_or_port() {
    let site = Site::start().await;
    let mut session = site.server.session().await;
    let trap = port(&site.trap);
    let places: Vec<(String, String)> = [
        ("gate", "http"),
        ("gate", "ssh"),
        ("gate", "22"),
        ("gate", ""),
        ("", "rtsp"),
        ("", ""),
        ("gate", "RTSP"),
        ("gate", " rtsp"),
        ("gate", "rtsp "),
        ("gate", "rtsp\0"),
        ("gate", "rtsp\0http"),
        ("gate\0", "rtsp"),
        ("gate", "rtsp/../http"),
        ("gate", "../../etc/passwd"),
        ("gate", "rtsp\r\nhttp"),
        ("gate", "rtsp:22"),
        ("gate", "127.0.0.1:22"),
        ("127.0.0.1", "rtsp"),
        ("gate/..", "rtsp"),
        ("GATE", "rtsp"),
        ("other", "rtsp"),
        ("*", "*"),
        ("gate", "\u{202e}ptsr"),
        ("gate", "file:///etc/passwd"),
    ]
    .map(|(camera, service)| (camera.to_owned(), service.to_owned()))
    .into_iter()
    .chain([
        ("gate".into(), format!("127.0.0.1:{trap}")),
        ("gate".into(), format!("{trap}")),
        ("gate".into(), format!("[::1]:{trap}")),
        (format!("127.0.0.1:{trap}"), "rtsp".into()),
        ("gate".into(), "x".repeat(64)),
    ])
    .collect();
    for (camera, service) in &places {
        let (_, outcome) = session.open(camera, service).await;
        assert_eq!(outcome, OpenOutcome::NotAllowed, "{camera:?} {service:?}");
    }
    // The host is told, the first at once and others as a number, with what was asked for in a form that cannot forge a line of a log.
    wait::until("a report of all", SOON, || site.refused() == places.len() as u64).await;
    let told = site.refusals();
    assert!(told.len() >= 10 && told[0].contains(r#""gate" "http""#), "{told:?}");
    for told in told.iter().filter(|told| told.starts_with("tunnel refused: ")) {
        let is_of = |(camera, service): &(String, String)| told.contains(&format!("{camera:?} {service:?}"));
        assert!(places.iter().any(is_of) && !told.contains(['\0', '\n']), "{told:?}");
    }
    works(&mut session).await;
    site.is_untouched();
    assert!(site.agent.stop(SOON).expect("it lives").has_ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_server_says_ends_the_session_and_nothing_more() {
    let site = Site::start().await;
    let open = |stream, camera: &str, service: &str| {
        let [camera, service, visitor] = [camera, service, ""].map(String::from);
        Frame::Open(camagent_proto::frame::Open { stream, camera, service, visitor })
    };
    let long = "x".repeat(65);
    let cases: Vec<(&str, Vec<Frame>, u16)> = vec![
        ("a service with too long a name", vec![open(1, "gate", &long)], LIMIT_EXCEEDED),
        ("a camera with too long a name", vec![open(1, &long, "rtsp")], LIMIT_EXCEEDED),
        ("a number left out", vec![open(5, "gate", "rtsp")], PROTOCOL_ERROR),
        ("a number of the agent's", vec![open(2, "gate", "rtsp")], PROTOCOL_ERROR),
        ("a number twice", vec![open(1, "gate", "rtsp"), open(1, "gate", "rtsp")], PROTOCOL_ERROR),
        ("octets of no stream", vec![data(1, b"x", false)], PROTOCOL_ERROR),
        (
            "octets after the end",
            vec![open(1, "gate", "rtsp"), data(1, b"x", true), data(1, b"x", false)],
            PROTOCOL_ERROR,
        ),
        ("a limit of no stream", vec![Frame::MaxStreamData(MaxStreamData { stream: 9, limit: 1 })], PROTOCOL_ERROR),
        ("streams for the server", vec![Frame::MaxStreams(MaxStreams { limit: 9 })], PROTOCOL_ERROR),
        (
            "an answer to nobody",
            vec![Frame::OpenResult(OpenResult { stream: 1, outcome: OpenOutcome::Connected, detail: String::new() })],
            PROTOCOL_ERROR,
        ),
        (
            "more credit given back than there is",
            vec![open(1, "gate", "deaf"), Frame::ReturnStreamData(ReturnStreamData { stream: 1, octets: 1 << 40 })],
            FLOW_CONTROL,
        ),
        (
            "credit given back after the end",
            vec![
                open(1, "gate", "rtsp"),
                data(1, b"", true),
                Frame::ReturnStreamData(ReturnStreamData { stream: 1, octets: 1 }),
            ],
            PROTOCOL_ERROR,
        ),
        ("an acknowledgement where nothing is kept", vec![Frame::Tack(Tack { received: 0 })], PROTOCOL_ERROR),
        ("a wrong final size", vec![open(1, "gate", "deaf"), reset(1, 1 << 40)], PROTOCOL_ERROR),
    ];
    for (what, frames, code) in cases {
        let mut session = site.server.session().await;
        session.push(&frames).await;
        assert_eq!(session.closed().await, code, "{what}");
        ended_with(&site, code, what).await;
    }
    site.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_the_session_and_nothing_more() {
    let site = Site::start().await;

    // More streams than the agent takes at once.
    let mut session = site.server.session().await;
    let limit = session.register["tunnels"]["streams"].as_u64().expect("the agent says how many");
    let opens: Vec<_> = (0..=limit).map(|_| session.next_open("gate", "deaf").1).collect();
    session.push(&opens).await;
    assert_eq!(session.closed().await, FLOW_CONTROL, "one stream too many");
    ended_with(&site, FLOW_CONTROL, "one stream too many").await;

    // Ever more visits that are not allowed, each as soon as the agent has room for it.
    let mut session = site.server.session().await;
    let refused = site.refused();
    let mut allowed = limit;
    let mut sent = 0;
    let code = loop {
        let batch: Vec<_> = (sent..allowed).map(|_| session.next_open("gate", "ssh").1).collect();
        sent = allowed;
        if !session.push(&batch).await {
            break session.closed().await;
        }
        match session
            .hear_or_closed(|frame| match frame {
                Frame::MaxStreams(max) if max.limit > sent => Some(max.limit),
                _ => None,
            })
            .await
        {
            Ok(limit) => allowed = limit,
            Err(code) => break code,
        }
    };
    assert_eq!(code, LIMIT_EXCEEDED, "an endless row of visits");
    ended_with(&site, LIMIT_EXCEEDED, "an endless row of visits").await;
    assert!(site.refused() > refused + 100 && sent < 2_000, "{sent} visits");

    // More octets than there is credit for, to a service that takes none.
    for (what, octets, count, code) in [
        ("octets beyond the credit", &[7; 8 << 10][..], 2_000, FLOW_CONTROL),
        ("empty octets", &[][..], 2_000, LIMIT_EXCEEDED),
    ] {
        let mut session = site.server.session().await;
        let (stream, outcome) = session.open("gate", "deaf").await;
        assert_eq!(outcome, OpenOutcome::Connected);
        session.push(&vec![data(stream, octets, false); count]).await;
        assert_eq!(session.closed().await, code, "{what}");
        ended_with(&site, code, what).await;
    }

    // Frames that cost the server nothing.
    for (what, frame) in [
        ("resets", reset(1, 0)),
        ("stops", Frame::StopSending(StopSending { stream: 1, error: StreamError::Cancelled })),
        ("limits", Frame::MaxData(MaxData { limit: 1 })),
        ("limits of a stream", Frame::MaxStreamData(MaxStreamData { stream: 1, limit: 1 })),
        ("credit given back", Frame::ReturnStreamData(ReturnStreamData { stream: 1, octets: 0 })),
    ] {
        let mut session = site.server.session().await;
        session.open("gate", "ssh").await;
        session.push(&vec![frame; 20_000]).await;
        assert_eq!(session.closed().await, LIMIT_EXCEEDED, "{what}");
        ended_with(&site, LIMIT_EXCEEDED, what).await;
    }

    // Pings, each of which wants an answer.
    let mut session = site.server.session().await;
    session.ping(60).await;
    assert_eq!(session.closed().await, LIMIT_EXCEEDED, "pings");
    ended_with(&site, LIMIT_EXCEEDED, "pings").await;
    site.is_well().await;
}

/// A server that says it would go on with streams, and acknowledges nothing of what it gets: the agent keeps no more of it than it said.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_acknowledged_is_not_kept_without_end() {
    let (server, spring) = (RawServer::start().await, spring().await);
    let keeps = 256 << 10;
    let mut config = server.agent_json("gate", &json!({"spring": spring.port()}));
    config["network"]["tunnel_resume_bytes"] = json!(keeps);
    let config = camagent_core::Config::from_json(&config.to_string()).expect("a good file");
    let agent = Agent::start(config, Host::default()).expect("a good configuration");
    let resuming = |registered: &mut Value| {
        registered["features"] = json!(["tunnel-resume"]);
        registered["limits"]["tunnels"]["resume_bytes"] = json!(1 << 30);
    };
    let mut session = server.session_with(resuming).await;
    assert!(session.register["features"].as_array().is_some_and(|all| all.contains(&json!("tunnel-resume"))));
    let (stream, outcome) = session.open("gate", "spring").await;
    assert_eq!(outcome, OpenOutcome::Connected);
    // There is credit for a megabyte; what the agent answers meanwhile shows that it could have sent that.
    let mut octets = 0;
    let half = session.hear("half of it", |frame| {
        octets += octets_of(frame, stream);
        (octets >= keeps / 2).then_some(())
    });
    half.await;
    for _ in 0..50 {
        session.heard_with(|frame| octets += octets_of(frame, stream)).await;
    }
    assert!(octets <= keeps, "{octets} octets, {keeps} may be kept");
    assert!(agent.is_connected());

    // It goes on as soon as it is told that something arrived.
    session.push(&[Frame::Tack(Tack { received: 2 })]).await;
    session.hear("more", |frame| (octets_of(frame, stream) > 0).then_some(())).await;
    assert!(agent.stop(SOON).expect("it lives").has_ended);
}

fn octets_of(frame: &Frame, stream: u64) -> usize {
    match frame {
        Frame::Data(data) if data.stream == stream => data.octets.len(),
        _ => 0,
    }
}

/// A service that pours out an endless stream.
async fn spring() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move { while socket.write_all(&[7; 16 << 10]).await.is_ok() {} });
        }
    });
    address
}

/// A box with two cameras: one of them takes no more visitors than its share, the other's are none the worse for it.
#[tokio::test(flavor = "multi_thread")]
async fn one_camera_has_no_more_than_its_share() {
    const OF_A_CAMERA: u64 = 32;
    let (server, events, deaf) = (RawServer::start().await, Recorder::default(), listener());
    let mut config = server.agent_json("box", &json!({}));
    config.as_object_mut().expect("an object").remove("camera");
    config["cameras"] = json!([
        {"id": "gate", "services": services(echo().await, &deaf)}, {"id": "yard", "services": services(echo().await, &deaf)},
    ]);
    let config = camagent_core::Config::from_json(&config.to_string()).expect("a good file");
    let keeper = events.clone();
    let host = Host { on_event: Some(Box::new(move |event| keeper.keep(event))), ..Host::default() };
    let agent = Agent::start(config, host).expect("a good configuration");
    let mut session = server.session().await;
    assert_eq!(session.register["tunnels"]["streams"], 2 * OF_A_CAMERA);
    for _ in 0..OF_A_CAMERA {
        assert_eq!(session.open("gate", "deaf").await.1, OpenOutcome::Connected);
    }
    assert_eq!(session.open("gate", "rtsp").await.1, OpenOutcome::Busy);
    assert_eq!(session.open("yard", "rtsp").await.1, OpenOutcome::Connected);
    events
        .wait("the refusal is told", SOON, |event| match event {
            Event::Warning { warning: Warning::TunnelRefused, message } if message.contains("32 streams") => Some(()),
            _ => None,
        })
        .await;
    drop(agent);
}

fn reset(stream: u64, final_size: u64) -> Frame {
    Frame::ResetStream(ResetStream { stream, error: StreamError::Cancelled, final_size })
}

/// The host is told that the session ended with that code.
async fn ended_with(site: &Site, code: u16, what: &str) {
    let sessions = site.events.sessions();
    let last_end = || {
        let events = site.events.all();
        let mut connected = 0;
        events.into_iter().rev().find_map(|event| match event {
            Event::Connected { .. } => {
                connected += 1;
                None
            }
            // The end of an earlier session does not count.
            Event::Disconnected { code, .. } if connected == 0 => Some(code),
            _ => None,
        })
    };
    assert_eq!(wait::found(what, SOON, last_end).await, code, "{what}, session {sessions}");
}

/// The program, with its log: refusals are lines, one a second with the number of the others, and its memory stays where it was.
#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_logs_attempts_and_stays_small() {
    let (server, folder) = (RawServer::start().await, tempfile::tempdir().expect("a temporary folder"));
    let (echo, deaf) = (echo().await, listener());
    let (file, log) = (folder.path().join("agent.json"), folder.path().join("agent.log"));
    let mut config = server.agent_json("gate", &services(echo, &deaf));
    config["agent"]["log_file"] = json!(log);
    std::fs::write(&file, config.to_string()).expect("the folder can be written");
    let mut daemon = Daemon::start(env!("CARGO_BIN_EXE_camagentd"), &["--config", file.to_str().expect("text")]);

    let mut session = server.session().await;
    works(&mut session).await;
    let before = memory(daemon.id());
    for number in 0..30 {
        let (_, outcome) = session.open("gate", &format!("127.0.0.1:{number}")).await;
        assert_eq!(outcome, OpenOutcome::NotAllowed);
    }
    assert!(written(&log).contains("\"127.0.0.1:0\""), "the first at once");
    let logged = || written(&log).lines().map(counted).sum::<u64>();
    wait::until("all attempts", SOON, || logged() == 30).await;

    // As much as the credit allows waits in the agent, on every stream that it takes, session after session.
    for _ in 0..5 {
        let limits = &session.register["tunnels"];
        let (streams, window) =
            (limits["streams"].as_u64().expect("streams"), limits["stream_bytes"].as_u64().expect("octets"));
        let octets = vec![7; usize::try_from(window).expect("small")];
        for _ in session.opened()..streams {
            let (stream, frame) = session.next_open("gate", "deaf");
            session.push(&[frame]).await;
            session.push(&octets.chunks(8 << 10).map(|part| data(stream, part, false)).collect::<Vec<_>>()).await;
        }
        session.push(&vec![Frame::MaxData(MaxData { limit: 1 }); 20_000]).await;
        assert_eq!(session.closed().await, LIMIT_EXCEEDED);
        session = server.session().await;
    }
    works(&mut session).await;
    let grown = memory(daemon.id()).saturating_sub(before);
    assert!(grown < 4 << 20, "{} KiB more than before", grown >> 10);
    assert!(daemon.runs());
    daemon.signal(libc::SIGTERM);
    let (status, said) = daemon.end().await;
    assert_eq!(status.code(), Some(0), "{said}");
}

fn written(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The largest resident set that a process ever had, in octets.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

//! Every number of the page on limits, tried on the code: what is at the limit passes, one more does not.

use bytes::Bytes;
use camagent_proto::{
    CloseCode, Duration, Instant,
    frame::{
        Data, Frame, FrameHead, FrameStart, MAX_CONFIG, MAX_DETAIL, MAX_FRAMES, MAX_NAME, MAX_RECORD, MIN_RECORD,
        MaxData, Open, OpenOutcome, RecordReader, RecordWriter, ResetStream, Skip, SkipReason, StopSending,
        StreamError, TrackInfo,
    },
    message::{
        Camera, Command, Goaway, KeyFrame, Limits, MAX_INTEGER, MAX_REGISTER, MAX_TEXT, Message, Registered, Retention,
        Source, SourceState, TunnelLimits, is_name,
    },
    mux::{Mux, NoStreams},
    pair::TestJournal,
    session::{Accept, Agent, AgentConfig, AgentEvent, Bounds, Server, ServerConfig, ServerEvent, Transmit},
    transfer::Receiver,
    varint,
};
use serde_json::json;

use super::pages::table;

fn limit(name: &str) -> u64 {
    let rows = table("limits.md", "table: limits");
    let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("limits.md has no {name}"));
    row[1].parse().unwrap_or_else(|_| panic!("{name}: {} is no number", row[1]))
}

fn millis(name: &str) -> Duration {
    Duration::from_millis(limit(name))
}

const BOOT: &str = "00112233445566778899aabbccddeeff";

fn connected() -> Server {
    Server::new(ServerConfig::default(), Instant::ZERO, 0)
}

/// A server's end that has welcomed an agent, and what it has said.
fn welcomed(accept: Accept) -> (Server, Vec<Transmit>) {
    let mut server = connected();
    tell(&mut server, "register", json!({"versions": [1], "agent_id": "a", "boot_id": BOOT, "more_cameras": true}));
    assert!(matches!(server.poll_event(), Some(ServerEvent::Register(_))));
    server.accept(Instant::ZERO, accept);
    let said = std::iter::from_fn(|| server.poll_transmit(Instant::ZERO, &mut NoStreams)).collect();
    (server, said)
}

fn tell(server: &mut Server, kind: &str, data: serde_json::Value) {
    server.handle_text(Instant::ZERO, &json!({"type": kind, "data": data}).to_string());
}

/// The code that a server's end closes with, if it does.
fn closes(server: &mut Server) -> Option<CloseCode> {
    std::iter::from_fn(|| server.poll_transmit(Instant::ZERO, &mut NoStreams)).find_map(|transmit| match transmit {
        Transmit::Close(code, _) => Some(code),
        _ => None,
    })
}

fn agent() -> Agent {
    agent_of(Vec::new())
}

fn agent_of(cameras: Vec<Camera>) -> Agent {
    let mut agent = Agent::new(AgentConfig {
        agent_id: "a".into(),
        token: None,
        boot_id: camagent_proto::message::BootId([0; 16]),
        software: String::new(),
        cameras,
        capabilities: Vec::new(),
        heartbeat_interval: Duration::from_secs(30),
        tunnels: Default::default(),
        keep_streams: Duration::ZERO,
    });
    agent.connected(Instant::ZERO, Instant::ZERO + Duration::from_secs(30));
    let welcome = Message::Registered(Registered { version: 1, ..Registered::default() });
    agent.handle_text(Instant::ZERO, &welcome.to_text(), &mut TestJournal::default());
    assert!(agent.is_established());
    agent
}

#[test]
fn sizes_are_those_of_the_table() {
    let named = [
        ("control message", MAX_TEXT as u64),
        ("register, registered, cameras", MAX_REGISTER as u64),
        ("record", MAX_RECORD as u64),
        ("smallest record limit", MIN_RECORD as u64),
        ("frames in a record", MAX_FRAMES as u64),
        ("media frame", Limits::default().frame_bytes),
        ("tracks", u64::from(Limits::default().tracks)),
        ("name", MAX_NAME as u64),
        ("track configuration", MAX_CONFIG as u64),
        ("visitor, words of an answer", MAX_DETAIL as u64),
        ("integer in JSON", MAX_INTEGER),
        ("integer in frames", varint::MAX),
    ];
    for (name, value) in named {
        assert_eq!(limit(name), value, "{name}");
    }
    assert_eq!(Limits::default().record_bytes, limit("record"));
    let windows = Limits::default().tunnels;
    assert_eq!(
        (windows.stream_bytes, windows.bytes),
        (limit("first window of a stream"), limit("window of all streams"))
    );
    let longest = "a".repeat(limit("name") as usize);
    assert!(is_name(&longest) && !is_name(&(longest + "a")));
    assert!(RecordReader::new(Bytes::from(vec![0; MAX_RECORD + 1])).is_err());
}

#[test]
fn a_server_holds_what_it_says() {
    let (mut server, _) = welcomed(Accept::default());
    let cameras = |from: u64, to: u64| json!((from..to).map(|n| json!({"id": format!("c{n}")})).collect::<Vec<_>>());
    let most = limit("cameras of an agent");
    for from in (0..most).step_by(256) {
        tell(&mut server, "cameras", json!({"cameras": cameras(from, from + 256), "more_cameras": true}));
    }
    assert_eq!((most % 256, closes(&mut server)), (0, None));
    tell(&mut server, "cameras", json!({"cameras": cameras(most, most + 1)}));
    assert_eq!(closes(&mut server), Some(CloseCode::LimitExceeded));

    let services = |count: u64| {
        let (mut server, _) = welcomed(Accept::default());
        let services = (0..count).map(|n| json!({"name": format!("s{n}"), "port": 80})).collect::<Vec<_>>();
        tell(&mut server, "cameras", json!({"cameras": [{"id": "a", "services": services}]}));
        closes(&mut server)
    };
    assert_eq!(services(limit("services of a camera")), None);
    assert_eq!(services(limit("services of a camera") + 1), Some(CloseCode::LimitExceeded));

    let (mut server, _) = welcomed(Accept::default());
    (0..limit("heartbeats")).for_each(|_| tell(&mut server, "heartbeat", json!({"sent_us": 1})));
    assert_eq!(closes(&mut server), None);
    tell(&mut server, "heartbeat", json!({"sent_us": 1}));
    assert_eq!(closes(&mut server), Some(CloseCode::LimitExceeded));

    let (mut server, _) = welcomed(Accept::default());
    (0..limit("unknown messages and frames")).for_each(|_| tell(&mut server, "weather", json!({})));
    assert_eq!(closes(&mut server), None);
    server.handle_binary(Instant::ZERO, Bytes::from_static(&[0x30, 0]));
    assert_eq!(closes(&mut server), Some(CloseCode::LimitExceeded));

    let (skips, tracks) = (limit("SKIP") * 10, 1);
    assert_eq!(Bounds::default().skips_in_ten_seconds(tracks), skips);
    assert_eq!(Bounds::default().skips_in_ten_seconds(100), 100 * 30 * 10, "for each track");
    let (mut server, _) = welcomed(Accept::default());
    let skip = |number| Frame::Skip(Skip { track: 0, first: number, last: number, reason: SkipReason::OverBudget });
    let record = |frames: &[Frame]| {
        let mut record = RecordWriter::new(MAX_RECORD);
        assert!(frames.iter().all(|frame| record.push(frame)));
        record.finish()
    };
    server.handle_binary(Instant::ZERO, record(&[track()]));
    (0..skips).for_each(|number| server.handle_binary(Instant::ZERO, record(&[skip(number)])));
    assert_eq!(closes(&mut server), None);
    server.handle_binary(Instant::ZERO, record(&[skip(skips)]));
    assert_eq!(closes(&mut server), Some(CloseCode::LimitExceeded));
    assert_eq!(Bounds::default().held_bytes, limit("octets held for a connection"));

    let state = SourceState { camera: "a".into(), source: "main".into(), wanted: true, retention: Retention::Live };
    let (_, said) = welcomed(Accept { sources: vec![state; 40], ..Accept::default() });
    let Transmit::Text(welcome) = &said[0] else { panic!("{:?}", said[0]) };
    let Ok(Some(Message::Registered(welcome))) = Message::read(welcome) else { panic!("{welcome}") };
    assert_eq!(welcome.sources.len() as u64, limit("sources in registered"));
    assert_eq!(said.len(), 1 + 40 - welcome.sources.len());

    let (mut server, _) = welcomed(Accept::default());
    for _ in 0..limit("waiting control messages") {
        server.request_key_frame(KeyFrame::default());
    }
    assert!(server.is_established());
    server.request_key_frame(KeyFrame::default());
    assert_eq!(closes(&mut server), Some(CloseCode::LimitExceeded));

    let (mut server, _) = welcomed(Accept::default());
    server.refuse(CloseCode::Forbidden, "x".repeat(200));
    let said: Vec<Transmit> = std::iter::from_fn(|| server.poll_transmit(Instant::ZERO, &mut NoStreams)).collect();
    let Some(Transmit::Close(CloseCode::Forbidden, reason)) = said.last() else { panic!("{said:?}") };
    assert_eq!(reason.len() as u64, limit("reason of a close"));
}

#[test]
fn deadlines_are_those_of_the_table() {
    let mut server = connected();
    assert_eq!(server.poll_timeout(), Some(Instant::ZERO + millis("time to register")));
    server.handle_timeout(Instant::ZERO + millis("time to register"));
    assert_eq!(closes(&mut server), Some(CloseCode::RegisterTimeout));

    let (mut server, _) = welcomed(Accept::default());
    let interval = ServerConfig::default().heartbeat_interval;
    let silent = Instant::ZERO + interval * 2 + millis("silence of an agent beyond two intervals");
    assert_eq!(server.poll_timeout(), Some(silent));
    server.handle_timeout(silent);
    assert_eq!(closes(&mut server), Some(CloseCode::LivenessTimeout));

    // The first heartbeat goes out with the welcome.
    let mut agent = agent();
    let silent = Instant::ZERO + millis("answer to a heartbeat");
    assert_eq!(agent.poll_timeout(), Some(silent));
    agent.handle_timeout(silent);
    let said: Vec<Transmit> = std::iter::from_fn(|| {
        agent.poll_transmit(Instant::ZERO, &mut TestJournal::default(), &mut NoStreams, usize::MAX)
    })
    .collect();
    assert!(matches!(said.last(), Some(Transmit::Close(CloseCode::LivenessTimeout, _))), "{said:?}");
}

fn track() -> Frame {
    Frame::Track(TrackInfo {
        track: 0,
        epoch: 1,
        next: 0,
        camera: "a".into(),
        source: "main".into(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config: Bytes::new(),
    })
}

#[test]
fn keys_of_the_server_are_there_with_the_values_of_the_table() {
    let config = cloud_server::Config::default().to_string();
    let mut keys = 0;
    for row in table("limits.md", "table: limits") {
        let Some(key) = row[4].strip_prefix("limits.") else { continue };
        let value: f64 = row[1].parse().expect("a number");
        let value = if row[2] == "ms" { value / 1_000.0 } else { value };
        assert!(config.contains(&format!("\n{key} = {value}\n")), "{key} = {value} is not in\n{config}");
        keys += 1;
    }
    assert!(keys >= 17, "only {keys}");
}

#[test]
fn each_counter_of_the_table_is_provoked_by_a_test() {
    let provoked = [
        include_str!("../limits_have_codes_and_metrics.rs"),
        include_str!("../../cloud-server/tests/silent_strangers_keep_nobody_out.rs"),
    ];
    for row in table("limits.md", "table: limits").iter().filter(|row| !row[5].is_empty()) {
        assert!(provoked.iter().any(|test| test.contains(&format!("\"{}\"", row[5]))), "nobody provokes {}", row[5]);
    }
}

#[test]
fn acknowledgements_come_in_time() {
    let mut receiver = Receiver::new(Limits::default(), &[]);
    receiver.handle(Instant::ZERO, track()).expect("is right");
    assert_eq!(receiver.poll_timeout(), Some(Instant::ZERO + millis("acknowledgement delay")));
    let payload = Bytes::from(vec![0; limit("unacknowledged octets") as usize - 1]);
    for (sequence, payload, due) in [(0, payload, false), (1, Bytes::from_static(b"x"), true)] {
        let total = payload.len() as u64;
        let start = FrameStart { track: 0, sequence, head: FrameHead::default(), total, payload };
        receiver.handle(Instant::ZERO, Frame::Frame(start)).expect("is right");
        assert_eq!(receiver.poll_ack(Instant::ZERO).is_some(), due);
    }
}

#[test]
fn an_agent_remembers_what_it_says() {
    let mut journal = TestJournal::default();
    let mut agent = agent();
    while agent.poll_event().is_some() {}
    let most = limit("remembered commands");
    let give = |agent: &mut Agent, id: u64, journal: &mut TestJournal| {
        let command = Command { id: Some(id.to_string()), action: "x".into(), ..Command::default() };
        agent.handle_text(Instant::ZERO, &Message::Command(command).to_text(), journal);
        matches!(agent.poll_event(), Some(AgentEvent::Command(..)))
    };
    assert!((0..most).all(|id| give(&mut agent, id, &mut journal)));
    assert!(!give(&mut agent, 0, &mut journal), "the oldest is still known");
    assert!(give(&mut agent, most, &mut journal));
    assert!(give(&mut agent, 0, &mut journal), "one more than are remembered");

    let most = limit("waiting events");
    (0..=most).for_each(|_| agent.push_event(Instant::ZERO, None, "x", json!(null)).expect("small"));
    let texts = std::iter::from_fn(|| agent.poll_transmit(Instant::ZERO, &mut journal, &mut NoStreams, usize::MAX))
        .filter_map(|transmit| match transmit {
            Transmit::Text(text) => Message::read(&text).ok().flatten(),
            _ => None,
        });
    let events: Vec<u64> = texts
        .filter_map(|message| if let Message::Event(event) = message { Some(event.sequence) } else { None })
        .collect();
    assert_eq!(events, (2..=most + 1).collect::<Vec<u64>>());
}

/// Says something to an agent again and again at one moment: how often it hears it.
fn heard_by(agent: &mut Agent, said: impl Fn(u64) -> Message) -> u64 {
    let mut journal = TestJournal::default();
    while agent.poll_event().is_some() {}
    for number in 0..100_000 {
        agent.handle_text(Instant::ZERO, &said(number).to_text(), &mut journal);
        match agent.poll_event() {
            Some(AgentEvent::Failed(error)) => {
                assert_eq!(error.close_code(), CloseCode::LimitExceeded, "{error}");
                return number;
            }
            heard => assert!(heard.is_some()),
        }
    }
    panic!("an agent that hears everything");
}

#[test]
fn both_ends_answer_as_many_pings_as_they_say() {
    let most = limit("pings and pongs of the WebSocket") * 10;
    let (mut server, _) = welcomed(Accept::default());
    (0..most).for_each(|_| server.handle_ping(Instant::ZERO));
    assert_eq!(closes(&mut server), None);
    server.handle_ping(Instant::ZERO);
    assert_eq!(closes(&mut server), Some(CloseCode::LimitExceeded));

    let mut agent = agent();
    while agent.poll_event().is_some() {}
    (0..most).for_each(|_| agent.handle_ping(Instant::ZERO));
    assert_eq!(agent.poll_event(), None);
    agent.handle_ping(Instant::ZERO);
    let Some(AgentEvent::Failed(error)) = agent.poll_event() else { panic!("an agent that answers everything") };
    assert_eq!(error.close_code(), CloseCode::LimitExceeded, "{error}");
}

#[test]
fn an_agent_hears_as_much_as_it_says() {
    let command = |id: u64| Message::Command(Command { id: Some(id.to_string()), ..Command::default() });
    assert_eq!(heard_by(&mut agent(), command), limit("commands"));
    assert_eq!(heard_by(&mut agent(), |_| Message::Goaway(Goaway::default())), limit("goaway"));
    assert_eq!(heard_by(&mut agent(), |_| Message::KeyFrame(KeyFrame::default())), limit("key_frame"));
    let state = |_| {
        Message::SourceState(SourceState {
            camera: "a".into(),
            source: "main".into(),
            wanted: true,
            retention: Retention::Live,
        })
    };
    assert_eq!(heard_by(&mut agent(), state), limit("source_state"));
    let source = |number: u64| Source { name: format!("s{number}"), ..Source::default() };
    let camera = Camera { id: "a".into(), sources: (0..100).map(source).collect(), ..Camera::default() };
    assert_eq!(heard_by(&mut agent_of(vec![camera]), state), 20 * 100, "for each source");
}

#[test]
fn a_record_limit_is_kept_within_bounds() {
    let mut record = RecordWriter::new(1);
    while record.push_payload(0x25, &[0], 100, |_| true).is_some() {}
    assert!(record.finish().len() as u64 <= limit("smallest record limit"));
}

/// An agent's end of tunnels, long after the beginning of its clock.
fn tunnels(opens_per_second: u64) -> (Mux, Instant) {
    let takes =
        TunnelLimits { streams: 1 << 20, stream_bytes: 1 << 16, bytes: 1 << 40, opens_per_second, resume_bytes: 0 };
    let now = Instant::from_micros(1 << 40);
    (Mux::acceptor(takes, Limits::default().tunnels, now), now)
}

/// Which of these frames, the first of which opens stream 1, is one too many; counted from 1, the first left out.
fn one_too_many(opens_per_second: u64, mut frame: impl FnMut(u64) -> Frame) -> u64 {
    let (mut mux, now) = tunnels(opens_per_second);
    mux.handle(now, open(0)).expect("the first stream");
    let wrong = (1..100_000).find_map(|count| mux.handle(now, frame(count)).err().map(|error| (count, error)));
    let (count, error) = wrong.expect("too many at last");
    assert_eq!(error.close_code(), CloseCode::LimitExceeded, "{error}");
    count
}

fn open(number: u64) -> Frame {
    let [camera, service, visitor] = ["gate", "rtsp", ""].map(String::from);
    Frame::Open(Open { stream: 4 * number + 1, camera, service, visitor })
}

#[test]
fn tunnels_hold_what_the_table_says() {
    let pace = limit("streams opened, for each a second that the agent takes");
    assert_eq!(one_too_many(3, open), 3 * pace);
    let stop = |_| Frame::StopSending(StopSending { stream: 1, error: StreamError::Broken });
    let resets = "RESET_STREAM and STOP_SENDING";
    assert_eq!(one_too_many(1, stop), limit(resets) + 1);
    assert_eq!(one_too_many(100, stop), 2 * 100 * pace + 1, "never fewer than two for each stream");
    let useless = "tunnel frames without effect";
    assert_eq!(one_too_many(1, |_| Frame::MaxData(MaxData { limit: 0 })), limit(useless) + 1);
    let empty = |_| Frame::Data(Data { stream: 1, fin: false, octets: Bytes::new() });
    assert_eq!(one_too_many(1, empty), limit("empty DATA on a stream") + 1);
    assert_eq!((limit("window of a stream"), limit("pause of a window")), (1 << 20, 10_000));

    let (mut mux, now) = tunnels(10);
    mux.handle(now, open(0)).expect("the first stream");
    mux.answer(1, OpenOutcome::Connected, "");
    let (mut mux_limit, mut now) = (1 << 16, now);
    // Emptied at once, whatever comes: the window doubles up to its largest, and not beyond.
    let mut largest = 0;
    let mut received = 0;
    for pause in [1; 12].into_iter().chain([limit("pause of a window") + 1, 1]) {
        while received < mux_limit {
            let octets = Bytes::from(vec![0; (mux_limit - received).min(10_000) as usize]);
            received += octets.len() as u64;
            mux.handle(now, Frame::Data(Data { stream: 1, fin: false, octets })).expect("within its credit");
            mux.consumed(1, usize::MAX);
        }
        now = now + Duration::from_millis(pause);
        let mut record = RecordWriter::new(MAX_RECORD);
        mux.fill_control(now, &mut record);
        let mut frames = RecordReader::new(record.finish()).expect("a record");
        while let Some(frame) = frames.next_frame().expect("a frame") {
            if let Frame::MaxStreamData(max) = frame {
                mux_limit = max.limit;
            }
        }
        largest = largest.max(mux_limit - received);
        if pause > 1 {
            assert_eq!(mux_limit - received, 1 << 16, "after a pause");
        }
    }
    assert_eq!(largest, limit("window of a stream"));
    let reset = Frame::ResetStream(ResetStream { stream: 1, error: StreamError::Broken, final_size: received });
    mux.handle(now, reset).expect("the size is right");
}

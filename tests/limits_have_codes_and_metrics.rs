//! Whoever goes over a limit of the server's, or breaks the protocol, is told by a close code, and the operator by a counter of
//! `GET /metrics`: one test for each code and each limit, over a real WebSocket, by an agent that does what no agent does.

use std::time::Duration;

use bytes::Bytes;
use camagent_proto::CloseCode;
use camagent_proto::frame::{
    Data, Frame, FrameHead, FrameMore, FrameStart, MaxData, OpenOutcome, OpenResult, Skip, SkipReason, StopSending,
    StreamError, TrackInfo,
};
use camagent_proto::session::AGENT_LIMITS;
use camagent_testkit::core::{Agent, Config as AgentConfig, Host};
use camagent_testkit::raw_agent::{RawAgent, SUBPROTOCOL, registration};
use camagent_testkit::{Api, CloudServer, RawServer, wait};
use cloud_server::Config;
use cloud_server::metrics::{Gauges, Metrics};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server with one agent in its database, and its counters.
struct Site {
    server: CloudServer,
    token: String,
    metrics: std::sync::Arc<Metrics>,
}

impl Site {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let server = CloudServer::with(change).await;
        let token = server.add_agent("a").await;
        let metrics = std::sync::Arc::clone(server.server().metrics());
        Self { server, token, metrics }
    }

    async fn agent(&self) -> RawAgent {
        RawAgent::registered(self.server.addresses().http, "a", &self.token).await.0
    }

    /// An agent that has not registered, and has shown no token.
    async fn stranger(&self) -> RawAgent {
        RawAgent::dial(self.server.addresses().http, "a", None, Some(SUBPROTOCOL)).await.expect("may register")
    }

    /// An agent with one track.
    async fn publisher(&self) -> RawAgent {
        let mut agent = self.agent().await;
        agent.push(&[track(0, "a", "main", Bytes::new())]).await;
        agent
    }

    /// An agent with a visitor at its `http`: the stream, connected.
    async fn visited(&self) -> (RawAgent, TcpStream, u64) {
        let mut register = registration("a");
        register["cameras"][0]["services"] = json!([{"name": "http", "port": 80}]);
        register["tunnels"] = json!({"streams": 8, "stream_bytes": 65_536, "bytes": 1 << 20, "opens_per_second": 9_007_199_254_740_991_u64});
        let address = self.server.addresses().http;
        let (mut agent, _) = RawAgent::registered_as(address, "a", &self.token, register).await;
        let door = self.server.tunnel("a", "http").await;
        let visitor = TcpStream::connect(door).await.expect("the port is open");
        let stream = agent.hear_frame("OPEN", |frame| match frame {
            Frame::Open(open) => Some(open.stream),
            _ => None,
        });
        let stream = stream.await;
        let outcome = OpenOutcome::Connected;
        agent.push(&[Frame::OpenResult(OpenResult { stream, outcome, detail: String::new() })]).await;
        (agent, visitor, stream)
    }

    /// What stands behind a line of the metrics; 0 when it is not there.
    fn value(&self, line: &str) -> u64 {
        let text = self.metrics.text(&Gauges::default());
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    fn sent(&self, code: u16) -> u64 {
        self.value(&format!("camagent_closes_total{{direction=\"sent\",code=\"{code}\"}}"))
    }

    fn received(&self, code: u16) -> u64 {
        self.value(&format!("camagent_closes_total{{direction=\"received\",code=\"{code}\"}}"))
    }

    fn breaches(&self, limit: &str) -> u64 {
        self.value(&format!("camagent_limit_breaches_total{{limit=\"{limit}\"}}"))
    }

    /// The agent is closed with a code, which steps by one.
    async fn closes(&self, agent: &mut RawAgent, code: u16) {
        let (got, reason) = agent.closed().await;
        assert_eq!(got, code, "{reason}");
        assert_eq!(self.sent(code), 1);
    }

    /// The same because of a limit, which steps by one.
    async fn limits(&self, agent: &mut RawAgent, limit: &str) {
        self.closes(agent, 4012).await;
        assert_eq!(self.breaches(limit), 1, "{}", self.metrics.text(&Gauges::default()));
    }
}

fn track(number: u32, camera: &str, source: &str, config: Bytes) -> Frame {
    Frame::Track(TrackInfo {
        track: number,
        epoch: 1,
        next: 0,
        camera: camera.to_owned(),
        source: source.to_owned(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config,
    })
}

fn frame(track: u32, total: u64, payload: usize) -> Frame {
    let payload = Bytes::from(vec![0; payload]);
    Frame::Frame(FrameStart { track, sequence: 0, head: FrameHead::default(), total, payload })
}

fn register_with(token: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut register = registration("a");
    register["token"] = json!(token);
    change(&mut register);
    register
}

// The codes.

#[tokio::test(flavor = "multi_thread")]
async fn code_4000_protocol_error() {
    let site = Site::start().await;
    let mut agent = site.agent().await;
    agent.text("{\"type\":".to_owned()).await;
    site.closes(&mut agent, 4000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4001_auth_failed() {
    let site = Site::start().await;
    let mut agent = site.stranger().await;
    agent.tell("register", register_with("guessed", |_| {})).await;
    site.closes(&mut agent, 4001).await;
}

/// This server's tokens do not expire, and it resumes whatever it can: these codes it says only after an agent that said them.
#[tokio::test(flavor = "multi_thread")]
async fn codes_4002_and_4015_are_answered_with_the_same() {
    for (code, name) in [(4002, "auth_expired"), (4015, "resume_refused")] {
        let site = Site::start().await;
        let mut agent = site.agent().await;
        agent.tell("error", json!({"code": code, "name": name, "detail": ""})).await;
        site.closes(&mut agent, code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4003_forbidden() {
    let site = Site::start().await;
    let _owner = site.agent().await;
    let token = site.server.add_agent("b").await;
    let address = site.server.addresses().http;
    let mut thief = RawAgent::dial(address, "b", Some(&token), Some(SUBPROTOCOL)).await.expect("let in");
    let mut register = registration("b");
    register["cameras"] = json!([{"id": "a"}]);
    thief.tell("register", register).await;
    site.closes(&mut thief, 4003).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4004_agent_removed() {
    let site = Site::start().await;
    let mut agent = site.agent().await;
    site.server.server().store().remove_agent("a").await.expect("is there");
    site.closes(&mut agent, 4004).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4005_version_unsupported() {
    let site = Site::start().await;
    let mut agent = site.stranger().await;
    agent.tell("register", register_with(&site.token, |register| register["versions"] = json!([7]))).await;
    site.closes(&mut agent, 4005).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4006_register_timeout() {
    let site = Site::with(|config| config.limits.register_timeout = Duration::from_millis(100)).await;
    let mut agent = site.stranger().await;
    site.closes(&mut agent, 4006).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4008_liveness_timeout() {
    let quick = |config: &mut Config| {
        config.limits.heartbeat_interval = Duration::from_millis(200);
        config.limits.heartbeat_grace = Duration::from_millis(100);
    };
    let site = Site::with(quick).await;
    let mut agent = site.agent().await;
    site.closes(&mut agent, 4008).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4009_replaced() {
    let site = Site::start().await;
    let mut older = site.agent().await;
    let _newer = site.agent().await;
    site.closes(&mut older, 4009).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4010_draining() {
    let mut site = Site::start().await;
    let mut agent = site.agent().await;
    let (left, ()) = {
        let mut server = site.server;
        let stopped = tokio::spawn(async move { (server.stop().await, server) });
        let (got, reason) = agent.closed().await;
        assert_eq!(got, 4010, "{reason}");
        drop(agent);
        let (left, server) = stopped.await.expect("ends");
        site.server = server;
        (left, ())
    };
    assert!(left);
    assert_eq!(site.sent(4010), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4011_overloaded() {
    let site = Site::start().await;
    let mut agent = site.stranger().await;
    site.server.server().store().close().await;
    agent.tell("register", register_with(&site.token, |_| {})).await;
    assert_eq!(agent.hear("error").await["retry_after_ms"], 10_000, "all agents at once would ask again and again");
    site.closes(&mut agent, 4011).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4014_flow_control() {
    let site = Site::start().await;
    let (mut agent, _visitor, stream) = site.visited().await;
    let octets = Bytes::from(vec![7; 16_000]);
    // The visitor reads nothing; its kernel takes some megabytes, the window 64 KiB.
    for _ in 0..2_000 {
        agent.push(&[Frame::Data(Data { stream, fin: false, octets: octets.clone() })]).await;
    }
    site.closes(&mut agent, 4014).await;
    assert_eq!(site.breaches("max_stream_data") + site.breaches("max_data"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_own_close_is_counted_too_and_made_up_codes_are_others() {
    let site = Site::start().await;
    let mut agent = site.agent().await;
    agent.close(4012).await;
    wait::until("the code", wait::SOON, || site.received(4012) == 1).await;
    let mut agent = site.agent().await;
    agent.close(4321).await;
    let other = "camagent_closes_total{direction=\"received\",code=\"other\"}";
    wait::until("another", wait::SOON, || site.value(other) == 1).await;
    drop(site.agent().await);
    wait::until("an end without a close", wait::SOON, || site.received(1006) == 1).await;
}

// The limits, each with 4012.

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_a_message() {
    let site = Site::start().await;
    let mut agent = site.agent().await;
    agent.tell("event", json!({"sequence": 1, "kind": "x".repeat(5_000)})).await;
    site.limits(&mut agent, "message_octets").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_a_record() {
    let site = Site::start().await;
    let mut agent = site.agent().await;
    agent.octets(vec![0; 16_377]).await;
    site.limits(&mut agent, "record_octets").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_frames_in_a_record() {
    let site = Site::start().await;
    let mut agent = site.agent().await;
    agent.octets([0x30, 0].repeat(257)).await;
    site.limits(&mut agent, "frames_in_a_record").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_a_media_frame() {
    let site = Site::with(|config| config.limits.frame_bytes = 100_000).await;
    let mut agent = site.publisher().await;
    agent.push(&[frame(0, 100_001, 10)]).await;
    site.limits(&mut agent, "frame_total_length").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_tracks() {
    let site = Site::with(|config| config.limits.tracks = 4).await;
    let mut agent = site.agent().await;
    agent.push(&[track(3, "a", "main", Bytes::new()), track(4, "a", "main", Bytes::new())]).await;
    site.limits(&mut agent, "track_track").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_names_and_of_a_tracks_configuration() {
    let long = "x".repeat(65);
    for (frame, limit) in [
        (track(0, &long, "main", Bytes::new()), "track_camera"),
        (track(0, "a", &long, Bytes::new()), "track_source"),
        (track(0, "a", "main", Bytes::from(vec![0; 2_049])), "track_config"),
    ] {
        let site = Site::start().await;
        let mut agent = site.agent().await;
        agent.push(&[frame]).await;
        site.limits(&mut agent, limit).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_cameras() {
    let site = Site::with(|config| config.limits.cameras = 2).await;
    let mut agent = site.stranger().await;
    let cameras = json!([{"id": "a"}, {"id": "b"}, {"id": "c"}]);
    agent.tell("register", register_with(&site.token, |register| register["cameras"] = cameras)).await;
    site.limits(&mut agent, "cameras_of_an_agent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_services() {
    let site = Site::start().await;
    let mut agent = site.stranger().await;
    let services: Vec<_> = (0..17).map(|number| json!({"name": format!("s{number}"), "port": 80})).collect();
    let cameras = json!([{"id": "a", "services": services}]);
    agent.tell("register", register_with(&site.token, |register| register["cameras"] = cameras)).await;
    site.limits(&mut agent, "services_of_a_camera").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_unknown_kinds() {
    let site = Site::with(|config| config.limits.unknown = 10).await;
    let mut agent = site.agent().await;
    for _ in 0..5 {
        agent.tell("weather", json!({})).await;
    }
    agent.octets([0x30, 0].repeat(6)).await;
    site.limits(&mut agent, "unknown_frames_and_messages").await;
    wait::until("what was skipped", wait::SOON, || site.value("camagent_unknown_skipped_total") == 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_heartbeats() {
    let site = Site::with(|config| config.limits.heartbeats_per_minute = 60).await;
    let mut agent = site.agent().await;
    // A minute of the server's clock may begin meanwhile.
    for _ in 0..125 {
        agent.tell("heartbeat", json!({"sent_us": 1})).await;
    }
    site.limits(&mut agent, "heartbeats_a_minute").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_pings() {
    let site = Site::with(|config| config.limits.pings_per_second = 1).await;
    let mut agent = site.agent().await;
    agent.ping(10).await;
    agent.tell("heartbeat", json!({"sent_us": 1})).await;
    agent.hear("heartbeat_ack").await;
    // Ten seconds of the server's clock may begin meanwhile.
    agent.ping(11).await;
    site.limits(&mut agent, "pings_in_ten_seconds").await;
    // Who has not even registered is counted too.
    let mut stranger = site.stranger().await;
    stranger.ping(21).await;
    assert_eq!(stranger.closed().await.0, 4012);
    assert_eq!(site.breaches("pings_in_ten_seconds"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_skips() {
    let site = Site::with(|config| config.limits.skips_per_second = 1).await;
    let mut agent = site.publisher().await;
    let skip = |number| Frame::Skip(Skip { track: 0, first: number, last: number, reason: SkipReason::OverBudget });
    let most = 300;
    for from in (0..most).step_by(100) {
        agent.push(&(from..from + 100).map(skip).collect::<Vec<_>>()).await;
    }
    agent.tell("heartbeat", json!({"sent_us": 1})).await;
    agent.hear("heartbeat_ack").await;
    agent.push(&[skip(most)]).await;
    site.limits(&mut agent, "skip_in_ten_seconds").await;
    let skips = "camagent_frames_received_total{kind=\"SKIP\"}";
    wait::until("the counter", wait::SOON, || site.value(skips) == most + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_octets_held_for_a_connection() {
    let small = |config: &mut Config| {
        config.limits.frame_bytes = 1 << 20;
        config.limits.tunnel_bytes = 65_536;
        config.limits.connection_bytes = (4 << 20) + 65_536;
    };
    let site = Site::with(small).await;
    let mut agent = site.agent().await;
    // On each of eight tracks a frame that is nearly whole: none is over its own limit.
    for number in 0..8 {
        agent.push(&[track(number, "a", &format!("s{number}"), Bytes::new())]).await;
        agent.push(&[frame(number, 1 << 20, 16_000)]).await;
        for _ in 0..60 {
            let payload = Bytes::from(vec![0; 16_000]);
            agent.push(&[Frame::FrameMore(FrameMore { track: number, payload })]).await;
        }
    }
    site.limits(&mut agent, "octets_held_for_a_connection").await;
}

/// Sends heartbeats and reads nothing, until the server does not wait any more.
async fn flood(site: &Site, agent: &mut RawAgent, limit: &str) {
    for count in 0..2_000_000_u64 {
        let fed = agent.feed("heartbeat", json!({"sent_us": count}));
        let is_taken = tokio::time::timeout(Duration::from_secs(2), fed).await;
        if site.breaches(limit) > 0 || is_taken != Ok(true) {
            break;
        }
    }
    wait::until(limit, wait::SOON, || site.breaches(limit) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_waiting_messages() {
    let site = Site::with(|config| config.limits.heartbeats_per_minute = 1_000_000_000).await;
    let mut agent = site.agent().await;
    flood(&site, &mut agent, "waiting_control_messages").await;
    // What had left before is read; then comes the close.
    site.limits(&mut agent, "waiting_control_messages").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_writing() {
    let deaf = |config: &mut Config| {
        config.limits.heartbeats_per_minute = 1_000_000_000;
        config.limits.waiting_messages = 1_000_000_000;
        config.limits.connection_bytes = 1 << 40;
        config.limits.write_timeout = Duration::from_millis(300);
    };
    let site = Site::with(deaf).await;
    let mut agent = site.agent().await;
    // Nothing can be said to somebody who takes nothing: there is no close, the connection is dropped.
    flood(&site, &mut agent, "write_timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_tunnels_frames() {
    let stop = |stream| Frame::StopSending(StopSending { stream, error: StreamError::Cancelled });
    let empty = |stream| Frame::Data(Data { stream, fin: false, octets: Bytes::new() });
    let useless = |_| Frame::MaxData(MaxData { limit: 1 });
    type Case = (fn(u64) -> Frame, usize, &'static str);
    let cases: [Case; 3] = [
        (stop, 101, "reset_stream_and_stop_sending_in_ten_seconds"),
        (empty, 17, "empty_data_on_a_stream"),
        (useless, 1_001, "frames_of_tunnels_without_effect_in_ten_seconds"),
    ];
    for (frame, count, limit) in cases {
        tunnel_frames(|_| {}, frame, count, limit).await;
    }
    // As an operator sets them.
    type Set = fn(&mut Config);
    let sets: [(Set, usize); 3] = [
        (|config| config.limits.tunnel_resets = 500, 501),
        (|config| config.limits.tunnel_empty_data = 3, 4),
        (|config| config.limits.tunnel_useless = 1_500, 1_501),
    ];
    for ((set, count), (frame, _, limit)) in sets.into_iter().zip(cases) {
        tunnel_frames(set, frame, count, limit).await;
    }
}

/// So many of these frames on a stream are one too many.
async fn tunnel_frames(set: fn(&mut Config), frame: fn(u64) -> Frame, count: usize, limit: &str) {
    let site = Site::with(set).await;
    let (mut agent, _visitor, stream) = site.visited().await;
    for part in vec![frame(stream); count - 1].chunks(200) {
        agent.push(part).await;
    }
    // All of them are borne.
    agent.tell("heartbeat", json!({"sent_us": 1})).await;
    agent.hear("heartbeat_ack").await;
    agent.push(&[frame(stream)]).await;
    site.limits(&mut agent, limit).await;
}

// Limits of an agent's own, which a server went over: the agent says which.

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_agents_are_counted_by_their_names() {
    let site = Site::start().await;
    let counted = |limit: &str| site.value(&format!("camagent_agent_limit_breaches_total{{limit=\"{limit}\"}}"));
    for (name, label) in [("commands in ten seconds", "commands_in_ten_seconds"), ("breakfasts", "other")] {
        let mut agent = site.agent().await;
        agent.tell("error", json!({"code": 4012, "name": "limit_exceeded", "detail": "", "limit": name})).await;
        agent.closed().await;
        wait::until("the counter", wait::SOON, || counted(label) == 1).await;
    }
}

/// What a server of this project keeps to: agents name what another one does not.
#[tokio::test(flavor = "multi_thread")]
async fn agents_name_the_limits_that_a_server_goes_over() {
    // One more than allowed, and no more: what is said to an agent that has closed takes its own words with it.
    let many = |count: usize, kind: &'static str, data: Value| vec![(kind, data); count + 1];
    let servers = vec!["wss://b.example/agent"; 9];
    let cases = [
        ("commands_in_ten_seconds", many(200, "command", json!({"id": "", "action": "x"}))),
        ("goaway_in_ten_seconds", many(10, "goaway", json!({"reason": "away", "after_ms": 60_000}))),
        ("servers_in_a_goaway", vec![("goaway", json!({"reason": "away", "after_ms": 60_000, "servers": servers}))]),
        ("key_frame_in_ten_seconds", many(1_000, "key_frame", json!({"camera": "cam", "source": "main"}))),
        (
            "source_state_in_ten_seconds",
            many(1_000, "source_state", json!({"camera": "cam", "source": "main", "wanted": true})),
        ),
        ("open_in_ten_seconds", Vec::new()),
        ("pings_in_ten_seconds", Vec::new()),
    ];
    for (label, messages) in cases {
        let server = RawServer::start().await;
        let mut json = server.agent_json("cam", &json!({"http": 80}));
        json["network"]["tunnel_opens_per_second"] = 1.into();
        let config = AgentConfig::from_json(&json.to_string()).expect("a good file");
        let _agent = Agent::start(config, Host::default()).expect("it starts");
        let mut session = server.session().await;
        if label == "pings_in_ten_seconds" {
            session.ping(41).await;
        } else if messages.is_empty() {
            let opens: Vec<Frame> = (0..=20).map(|_| session.next_open("cam", "none").1).collect();
            session.push(&opens).await;
        }
        for (kind, data) in messages {
            if !session.say(kind, data).await {
                break;
            }
        }
        let (told, code) = session.error().await;
        let name = told["limit"].as_str().unwrap_or_default();
        assert_eq!((name.to_lowercase().replace(' ', "_").as_str(), code), (label, 4012), "{told}");
        assert!(AGENT_LIMITS.contains(&name), "{name} would be counted as another");
    }
}

// Limits of others than agents.

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_visitors_and_what_tunnels_carry() {
    let site = Site::with(|config| config.tunnels.max_visitors = 1).await;
    let (mut agent, mut visitor, stream) = site.visited().await;
    let mut second = TcpStream::connect(site.server.tunnel("a", "http").await).await.expect("the port is open");
    let mut said = String::new();
    let read = wait::within("an answer", wait::SOON, second.read_to_string(&mut said));
    read.await.expect("the end");
    assert!(said.starts_with("HTTP/1.1 503") && site.breaches("visitors_of_a_camera") == 1, "{said}");
    assert_eq!(site.value("camagent_visits_total{outcome=\"refused\"}"), 1);
    let octets = Bytes::from_static(b"hello");
    agent.push(&[Frame::Data(Data { stream, fin: true, octets })]).await;
    let mut heard = String::new();
    wait::within("the octets", wait::SOON, visitor.read_to_string(&mut heard)).await.expect("the end");
    assert_eq!(heard, "hello");
    drop(visitor);
    let reached = "camagent_visits_total{outcome=\"reached\"}";
    agent.hear_frame("the visitor's end", |frame| matches!(frame, Frame::Data(data) if data.fin).then_some(())).await;
    wait::until("the visit's end", wait::SOON, || site.value(reached) == 1).await;
    assert_eq!(site.value("camagent_tunnels_bytes_total{direction=\"to_visitors\"}"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_viewers() {
    let site = Site::with(|config| config.rtsp.max_connections = 1).await;
    let address = site.server.addresses().rtsp;
    let _first = TcpStream::connect(address).await.expect("the relay listens");
    let mut second = TcpStream::connect(address).await.expect("the relay listens");
    let mut said = String::new();
    wait::within("an answer", wait::SOON, second.read_to_string(&mut said)).await.expect("the end");
    assert!(said.starts_with("RTSP/1.0 503") && site.breaches("viewers") == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_commands() {
    let site = Site::start().await;
    let mut agent = site.agent().await;
    let api = site.server.api("ops").await;
    let command = json!({"action": "x", "timeout_ms": 1});
    let mut status = 0;
    for _ in 0..101 {
        (status, _) = api.post("/agents/a/control", &command).await;
    }
    assert_eq!((status, site.breaches("commands_of_an_agent")), (429, 1));
    agent.hear("command").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_silence_before_a_request() {
    let site = Site::with(|config| config.limits.request_timeout = Duration::from_millis(200)).await;
    let mut socket = TcpStream::connect(site.server.addresses().http).await.expect("the server listens");
    let end = wait::within("the end", wait::SOON, socket.read(&mut [0; 64])).await;
    assert!(!matches!(end, Ok(1..)), "nothing is said to who said nothing");
    wait::until("the counter", wait::SOON, || site.breaches("request_timeout") == 1).await;
    // Who asks something, and who goes by himself, is not counted.
    drop(TcpStream::connect(site.server.addresses().http).await.expect("the server listens"));
    let mut socket = TcpStream::connect(site.server.addresses().http).await.expect("the server listens");
    socket.write_all(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it reads");
    let mut said = String::new();
    wait::within("the answer", wait::SOON, socket.read_to_string(&mut said)).await.expect("the end");
    assert!(said.starts_with("HTTP/1.1 404") && site.breaches("request_timeout") == 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limit_of_silence_in_a_tls_handshake() {
    let site = Site::with(|config| config.limits.handshake_timeout = Duration::from_millis(200)).await;
    let mut socket = TcpStream::connect(site.server.addresses().tls).await.expect("the server listens");
    let end = wait::within("the end", wait::SOON, socket.read(&mut [0; 64])).await;
    assert!(!matches!(end, Ok(1..)), "nothing is said to who said nothing");
    wait::until("the counter", wait::SOON, || site.breaches("handshake_timeout") == 1).await;
}

// The page of codes: none is without a test here. For limits see `tests/wire/limits.rs`.

#[test]
fn every_code_has_a_test() {
    let tests = include_str!("limits_have_codes_and_metrics.rs");
    let names: Vec<&str> = tests.lines().filter_map(|line| line.trim().strip_prefix("async fn code")).collect();
    // What was planned is none, and 4012 is what the limits close with.
    for code in CloseCode::ALL.iter().filter(|code| ![1000, 4012].contains(&code.number())) {
        let number = code.number().to_string();
        assert!(names.iter().any(|name| name.contains(&number)), "no test closes with {number} {}", code.name());
    }
}

// The page of numbers itself.

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_open_on_this_machine_and_guarded_beyond() {
    let site = Site::start().await;
    let _agent = site.publisher().await;
    let (open, token) = (Api::new(site.server.addresses().http, None), site.server.api("ops").await);
    for path in ["/metrics", "/api/v1/metrics"] {
        let (status, head, text) = open.get_text(path, "").await;
        assert_eq!(status, 200);
        assert!(head.to_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        for line in
            ["camagent_agents_online 1", "camagent_sessions_total 1", "camagent_events_total{event=\"agent_online\"} 1"]
        {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
    for passed_on in ["X-Forwarded-For: 203.0.113.7\r\n", "Forwarded: for=203.0.113.7\r\n", "Via: 1.1 proxy\r\n"] {
        assert_eq!(open.get_text("/metrics", passed_on).await.0, 401, "{passed_on}");
        assert_eq!(token.get_text("/metrics", passed_on).await.0, 200, "{passed_on}");
    }
    let beyond = Site::with(|config| config.listen.http = ([0, 0, 0, 0], 0).into()).await;
    let address = ([127, 0, 0, 1], beyond.server.addresses().http.port()).into();
    assert_eq!(Api::new(address, None).get_text("/metrics", "").await.0, 401, "the listener is open to others");
}

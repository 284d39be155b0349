//! What an agent meets at `/agent/{id}`: who is let in, what is told to whom is not, and what becomes of what it says.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use camagent_proto::frame::{Frame, FrameHead, FrameStart, RecordReader, RecordWriter, TrackInfo};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::{Running, clip, eventually, h264_pictures, http};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const BOOT: &str = "00112233445566778899aabbccddeeff";

struct Agent {
    socket: WebSocketStream<TcpStream>,
}

/// What the server said.
#[derive(Debug)]
enum Said {
    Text(Value),
    Record(Vec<Frame>),
    Closed(u16, String),
}

impl Agent {
    /// Dials; the error is the HTTP status.
    async fn dial(address: SocketAddr, id: &str, token: Option<&str>, protocol: Option<&str>) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).await.expect("connects");
        let mut request = format!("ws://{address}/agent/{id}").into_client_request().expect("a request");
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a header");
            request.headers_mut().insert("Authorization", value);
        }
        if let Some(protocol) = protocol {
            let value = HeaderValue::from_str(protocol).expect("a header");
            request.headers_mut().insert("Sec-WebSocket-Protocol", value);
        }
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("neither upgraded nor refused: {error}"),
        }
    }

    async fn registered(running: &Running, id: &str, token: &str, data: Value) -> (Self, Value) {
        let address = running.server.addresses().http;
        let mut agent = Self::dial(address, id, Some(token), Some("camagent.v1")).await.expect("let in");
        agent.tell("register", data).await;
        let welcome = agent.hear("registered").await;
        (agent, welcome)
    }

    async fn tell(&mut self, kind: &str, data: Value) {
        self.send(Message::text(json!({"type": kind, "data": data}).to_string())).await;
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("writes");
    }

    async fn push(&mut self, frames: &[Frame]) {
        let mut record = RecordWriter::new(16_376);
        for frame in frames {
            record.push(frame);
        }
        self.send(Message::Binary(record.finish())).await;
    }

    async fn listen(&mut self) -> Said {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.socket.next()).await.expect("speaks");
            match message {
                Some(Ok(Message::Text(text))) => return Said::Text(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(Message::Binary(record))) => {
                    let mut reader = RecordReader::new(record).expect("a record");
                    let mut frames = Vec::new();
                    while let Some(frame) = reader.next_frame().expect("a frame") {
                        frames.push(frame);
                    }
                    return Said::Record(frames);
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Said::Closed(u16::from(frame.code), frame.reason.to_string());
                }
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Said::Closed(1006, String::new()),
            }
        }
    }

    /// Waits for a message of that type and gives its data.
    async fn hear(&mut self, kind: &str) -> Value {
        loop {
            match self.listen().await {
                Said::Text(mut message) if message["type"] == kind => return message["data"].take(),
                Said::Closed(code, reason) => panic!("closed with {code} {reason} instead of {kind}"),
                _ => {}
            }
        }
    }

    async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Said::Closed(code, reason) = self.listen().await {
                return (code, reason);
            }
        }
    }
}

fn register(id: &str, boot: &str) -> Value {
    json!({
        "versions": [1], "agent_id": id, "boot_id": boot, "software": "test/1", "monotonic_us": 1_000_000,
        "cameras": [{"id": id, "model": "x", "sources": [{"name": "main"}, {"name": "sub", "policy": "on_demand"}]}],
    })
}

fn track(id: &str) -> Frame {
    Frame::Track(TrackInfo {
        track: 0,
        epoch: 1,
        next: 0,
        camera: id.to_owned(),
        source: "main".to_owned(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config: Bytes::new(),
    })
}

fn picture(sequence: u64, payload: &Bytes, key: bool) -> Frame {
    let at = 1_000_000 + sequence * 40_000;
    let pts_us = i64::try_from(at).expect("small");
    let head = FrameHead { pts_us, dts_us: pts_us, arrival_us: at, key, ..FrameHead::default() };
    Frame::Frame(FrameStart { track: 0, sequence, head, total: payload.len() as u64, payload: payload.clone() })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_turned_away_is_told_why() {
    let running = Running::start().await;
    let address = running.server.addresses().http;
    let token = running.server.add_agent("a").await.expect("adds");
    let dial = async |id: &str, token: Option<&str>, protocol: Option<&str>| {
        Agent::dial(address, id, token, protocol).await.map(|_| ())
    };
    let v1 = Some("camagent.v1");
    assert_eq!(dial("a", Some("wrong"), v1).await, Err(401));
    assert_eq!(dial("nobody", Some(&token), v1).await, Err(401));
    assert_eq!(dial("a", Some(&token), None).await, Err(400));
    assert_eq!(dial("a", Some(&token), Some("chat")).await, Err(400));
    assert_eq!(dial("%20", Some(&token), v1).await, Err(400));
    assert_eq!(running.server.events().count("agent_refused"), 5);
    let (status, body) = http(address, "GET", "/agent/a", Some(&token), None).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("websocket_expected")));

    let talk = async |first: Message| {
        let mut agent = Agent::dial(address, "a", None, v1).await.expect("register may bring the token");
        agent.send(first).await;
        agent.closed().await
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut data = register("a", BOOT);
        data["token"] = json!(token);
        change(&mut data);
        Message::text(json!({"type": "register", "data": data}).to_string())
    };
    for (message, code, words) in [
        (with(&|data| data["token"] = json!("wrong")), 4001, "not its token"),
        (with(&|data| data["token"] = Value::Null), 4001, "no token"),
        (with(&|data| data["versions"] = json!([7])), 4005, "versions"),
        (with(&|data| data["agent_id"] = json!("b")), 4000, "registered as"),
        (with(&|data| data["cameras"] = json!([{"id": "../x"}])), 4000, "camera id"),
        (Message::text("{\"type\":"), 4000, "control message"),
        (Message::text(json!({"type": "heartbeat", "data": {"sent_us": 1}}).to_string()), 4000, "register"),
        (Message::Binary(Bytes::from_static(&[0x21, 0x00])), 4000, "register"),
        (Message::text("x".repeat(20_000)), 4012, "octets"),
    ] {
        let shown = format!("{message:?}").chars().take(80).collect::<String>();
        let (got, reason) = talk(message).await;
        assert_eq!(got, code, "{shown}: {reason}");
        assert!(reason.contains(words), "{shown}: {reason}");
    }
    let (mut agent, welcome) = {
        let mut agent = Agent::dial(address, "a", None, v1).await.expect("let in");
        agent.send(with(&|_| {})).await;
        let welcome = agent.hear("registered").await;
        (agent, welcome)
    };
    assert_eq!(welcome["generation"], 1);
    agent.send(Message::Binary(Bytes::from(vec![0x23; 200_000]))).await;
    let (code, _) = agent.closed().await;
    assert!(matches!(code, 4012 | 1006), "an oversized message ends the session: {code}");
    assert!(running.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn media_commands_and_demand_flow() {
    let running = Running::start().await;
    let http_address = running.server.addresses().http;
    let token = running.server.add_agent("a").await.expect("adds");
    let api = running.server.add_token("ops").await.expect("adds");
    let (mut agent, welcome) = Agent::registered(&running, "a", &token, register("a", BOOT)).await;
    let wanted =
        |source: &str, wanted: bool| json!({"camera": "a", "source": source, "wanted": wanted, "retention": "live"});
    assert_eq!(welcome["sources"], json!([wanted("main", true), wanted("sub", false)]));

    let pictures = h264_pictures(&clip("main.h264"));
    agent.push(&[track("a")]).await;
    let mut sequence = 0;
    for (payload, key) in pictures.iter().filter(|(payload, _)| payload.len() < 16_000).take(50) {
        agent.push(&[picture(sequence, payload, *key)]).await;
        sequence += 1;
    }
    loop {
        if let Said::Record(frames) = agent.listen().await
            && frames.iter().any(|frame| matches!(frame, Frame::Mack(mack) if mack.received == sequence))
        {
            break;
        }
    }
    agent.tell("heartbeat", json!({"sent_us": 3_000_000, "statistics": {"bytes_sent": 77, "own_number": 5}})).await;
    assert_eq!(agent.hear("heartbeat_ack").await["sent_us"], 3_000_000);
    let (_, body) = http(http_address, "GET", "/agents/a", Some(&api), None).await;
    assert_eq!((&body["online"], &body["software"]), (&json!(true), &json!("test/1")));
    assert_eq!((&body["statistics"]["bytes_sent"], &body["statistics"]["own_number"]), (&json!(77), &json!(5)));
    assert_eq!(body["cameras"][0]["model"], "x");
    let (_, body) = http(http_address, "GET", "/streams", Some(&api), None).await;
    let stream = &body["streams"][0];
    assert_eq!((&stream["camera"], &stream["source"], &stream["online"]), (&json!("a"), &json!("main"), &json!(true)));
    assert_eq!((&stream["frames"], &stream["tracks"][0]["width"]), (&json!(sequence), &json!(640)));

    // A viewer of the source on demand: wanted, and a key frame please; ten seconds after it, not wanted.
    let source = running.server.hub().sources().into_iter().find(|source| source.name == "sub").expect("offered");
    let viewer = source.join(1);
    assert_eq!(agent.hear("source_state").await, wanted("sub", true));
    assert_eq!(agent.hear("key_frame").await, json!({"camera": "a", "source": "sub"}));
    drop(viewer);

    let ask = |body: Value| {
        let api = api.clone();
        tokio::spawn(async move { http(http_address, "POST", "/agents/a/control", Some(&api), Some(&body)).await })
    };
    let restart = ask(json!({"action": "restart", "camera": "a", "args": {"hard": true}}));
    let command = agent.hear("command").await;
    assert_eq!(
        (&command["action"], &command["camera"], &command["args"]["hard"]),
        (&json!("restart"), &json!("a"), &json!(true))
    );
    agent.tell("command_result", json!({"id": command["id"], "status": "ok", "result": {"done": 1}})).await;
    let (status, body) = restart.await.expect("answered");
    assert_eq!((status, &body["status"], &body["result"]["done"]), (200, &json!("ok"), &json!(1)));
    let unknown = ask(json!({"action": "dance"}));
    let command = agent.hear("command").await;
    let error = json!({"code": "unsupported", "message": "cannot dance"});
    agent.tell("command_result", json!({"id": command["id"], "status": "error", "error": error})).await;
    assert_eq!(unknown.await.expect("answered"), (422, json!({"error": error})));
    let (status, body) = ask(json!({"action": "sleep", "timeout_ms": 50})).await.expect("answered");
    assert_eq!((status, &body["error"]["code"]), (504, &json!("timeout")));

    agent.tell("event", json!({"sequence": 1, "kind": "journal_overflow", "camera": "a"})).await;
    assert_eq!(agent.hear("event_ack").await["sequence"], 1);
    assert_eq!(running.server.events().count("agent_event"), 1);

    // The same boot comes back: it goes on where it was, and the older connection is told.
    let (mut again, welcome) = Agent::registered(&running, "a", &token, register("a", BOOT)).await;
    assert_eq!(welcome["resume"], json!([{"track": 0, "epoch": 1, "next": sequence}]));
    let (code, reason) = agent.closed().await;
    assert_eq!(code, 4009);
    assert!(reason.contains("newer connection"), "{reason}");
    let (_, body) = http(http_address, "GET", "/agents/a", Some(&api), None).await;
    assert_eq!((&body["online"], &body["generation"]), (&json!(true), &json!(2)));

    // A stop says goodbye.
    let stopped = tokio::spawn(running.server.stop());
    assert_eq!(again.closed().await.0, 4010);
    drop(again);
    assert!(stopped.await.expect("ends"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_agents_camera_is_refused_and_a_removed_agent_leaves() {
    let running = Running::start().await;
    let (a, b) =
        (running.server.add_agent("a").await.expect("adds"), running.server.add_agent("b").await.expect("adds"));
    let (mut first, _) = Agent::registered(&running, "a", &a, register("a", BOOT)).await;
    let dial = async || {
        let address = running.server.addresses().http;
        Agent::dial(address, "b", Some(&b), Some("camagent.v1")).await.expect("let in")
    };
    let mut thief = dial().await;
    let mut data = register("b", "ff112233445566778899aabbccddeeff");
    data["cameras"] = json!([{"id": "a", "sources": [{"name": "main"}]}]);
    thief.tell("register", data).await;
    let (code, reason) = thief.closed().await;
    assert_eq!(code, 4003);
    assert!(reason.contains("belongs to another agent"), "{reason}");
    assert_eq!(running.server.events().count("camera_refused"), 1);
    let (mut thief, _) = Agent::registered(&running, "b", &b, register("b", BOOT)).await;
    thief.push(&[track("a")]).await;
    assert_eq!(thief.closed().await.0, 4003, "nor by a TRACK");

    running.server.store().remove_agent("a").await.expect("removes");
    assert_eq!(first.closed().await.0, 4004);
    eventually("the camera is gone", || running.server.hub().sources().iter().all(|source| source.camera != "a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_live_video_goes_on() {
    let running = Running::start().await;
    let token = running.server.add_agent("a").await.expect("adds");
    running.server.store().simulate_full_disk().await.expect("simulated");
    let (mut agent, _) = Agent::registered(&running, "a", &token, register("a", BOOT)).await;
    let pictures = h264_pictures(&clip("main.h264"));
    let (payload, key) = pictures.iter().find(|(payload, _)| payload.len() < 16_000).expect("a small one");
    agent.push(&[track("a")]).await;
    agent.push(&[picture(0, payload, *key)]).await;
    let frames = || running.server.hub().status().iter().map(|status| status.frames).sum::<u64>();
    eventually("the frame is there", || frames() == 1).await;
    assert!(running.server.events().count("disk_trouble") > 0);
    let (_, health) = http(running.server.addresses().http, "GET", "/health", None, None).await;
    assert!(health["disk_trouble"].as_u64() > Some(0), "{health}");
}

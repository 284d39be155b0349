//! A server that says whatever a test wants said to an agent: right, wrong or hostile. It speaks plain `ws://`.

use std::net::SocketAddr;

use bytes::Bytes;
use camagent_core::Config;
use camagent_proto::frame::{Frame, MAX_RECORD, Open, OpenOutcome, RecordReader, RecordWriter};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::raw_agent::SUBPROTOCOL;
use crate::wait::{SOON, within};

/// A listener for agents.
pub struct RawServer {
    listener: TcpListener,
}

impl RawServer {
    /// On a free port of loopback.
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port") }
    }

    /// Where agents dial.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("bound")
    }

    /// A configuration of an agent of this server, whose camera has these services.
    pub fn agent_json(&self, id: &str, services: &Value) -> Value {
        json!({
            "agent": {"agent_id": id, "cloud_server_url": format!("ws://{}/agent", self.address()), "cloud_server_token": "t"},
            "network": {"reconnect_interval": 1, "heartbeat_interval": 60},
            "camera": {"services": services},
        })
    }

    /// The same, read.
    pub fn agent(&self, id: &str, services: &Value) -> Config {
        Config::from_json(&self.agent_json(id, services).to_string()).expect("a good file")
    }

    /// The next agent that comes and registers, registered.
    pub async fn session(&self) -> RawSession {
        self.session_with(|_| {}).await
    }

    /// The same with a version of the protocol that this server claims to have picked.
    pub async fn session_of(&self, version: u32) -> RawSession {
        self.session_with(|registered| registered["version"] = json!(version)).await
    }

    /// The same with another `registered`.
    pub async fn session_with(&self, change: impl Fn(&mut Value)) -> RawSession {
        within("an agent", SOON, async {
            loop {
                let stream = self.next().await;
                // An agent that stops in the middle of a dial is none.
                if let Some(session) = RawSession::begin(stream, &change).await {
                    return session;
                }
            }
        })
        .await
    }

    /// Upgrades the next connection with these headers instead of the sub-protocol, and answers its pings until it ends.
    pub async fn upgrade_with(&self, headers: &[(&'static str, &str)]) {
        let serve = async {
            let Ok(mut socket) = upgraded(self.next().await, headers).await else { return };
            // Whoever asked is answered by the WebSocket layer when it reads on.
            while let Some(Ok(_)) = socket.next().await {}
        };
        within("the end of a connection", SOON, serve).await;
    }

    /// Upgrades the next connection as a server does, and then hears nothing: what stands between swallows all until the agent has left.
    pub async fn upgrade_and_swallow(&self) {
        let serve = async {
            let headers = [("Sec-WebSocket-Protocol", SUBPROTOCOL)];
            let Ok(socket) = upgraded(self.next().await, &headers).await else { return };
            let mut below = socket.into_inner();
            let mut swallowed = [0; 4096];
            while matches!(below.read(&mut swallowed).await, Ok(1..)) {}
        };
        within("the end of a connection", SOON, serve).await;
    }

    /// Answers the next connection's request with this status and JSON.
    pub async fn refuse(&self, status: u16, json: &str) {
        let answer = async {
            let mut stream = self.next().await;
            let mut request = [0; 4096];
            // A request is short and comes at once.
            let _ = stream.read(&mut request).await;
            let head =
                format!("HTTP/1.1 {status} Refused\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", json.len());
            stream.write_all((head + json).as_bytes()).await.expect("the agent reads");
            // Its end comes first: an answer that is reset is none.
            while matches!(stream.read(&mut request).await, Ok(1..)) {}
        };
        within("a request", SOON, answer).await;
    }

    async fn next(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().await.expect("agents come");
        stream.set_nodelay(true).expect("a socket");
        stream
    }
}

/// The WebSocket, whose handshake was answered with these headers.
async fn upgraded(stream: TcpStream, headers: &[(&'static str, &str)]) -> Result<WebSocketStream<TcpStream>, Error> {
    #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let agree = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        for (name, value) in headers {
            response.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a header"));
        }
        Ok(response)
    };
    accept_hdr_async(stream, agree).await
}

/// A session with one agent.
pub struct RawSession {
    socket: WebSocketStream<TcpStream>,
    /// What the agent said of itself.
    pub register: Value,
    opened: u64,
    commands: u64,
    frames: Vec<Frame>,
}

impl RawSession {
    async fn begin(stream: TcpStream, change: &impl Fn(&mut Value)) -> Option<Self> {
        let mut socket = upgraded(stream, &[("Sec-WebSocket-Protocol", SUBPROTOCOL)]).await.ok()?;
        let Some(Ok(Message::Text(text))) = socket.next().await else { return None };
        let mut register: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(register["type"], "register");
        let tunnels = json!({"streams": 0, "stream_bytes": 1 << 20, "bytes": 64 << 20, "opens_per_second": 0});
        let mut registered = json!({
            "version": 1, "session_id": "raw", "generation": 1, "heartbeat_interval_ms": 0, "limits": {"tunnels": tunnels},
        });
        change(&mut registered);
        let text = json!({"type": "registered", "data": registered}).to_string();
        socket.send(Message::text(text)).await.ok()?;
        Some(Self { socket, register: register["data"].take(), opened: 0, commands: 0, frames: Vec::new() })
    }

    /// Sends a control message; `false` when the agent has left.
    pub async fn say(&mut self, kind: &str, data: Value) -> bool {
        self.socket.send(Message::text(json!({"type": kind, "data": data}).to_string())).await.is_ok()
    }

    /// Sends WebSocket pings; `false` when the agent has left.
    pub async fn ping(&mut self, count: usize) -> bool {
        for number in 0..count {
            if self.socket.send(Message::Ping(number.to_be_bytes().to_vec().into())).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Waits until the agent has acted on everything that was said: it answers a command that no agent knows. Records go by.
    pub async fn heard(&mut self) {
        self.heard_with(|_| {}).await;
    }

    /// The same; frames that come meanwhile are told.
    pub async fn heard_with(&mut self, mut tell: impl FnMut(&Frame)) {
        self.commands += 1;
        let id = self.commands.to_string();
        assert!(self.say("command", json!({"id": id, "action": "no such action"})).await, "the agent has left");
        within("the agent's answer", SOON, async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Binary(octets) = &message {
                    frames_of(octets.clone()).iter().for_each(&mut tell);
                }
                let Message::Text(text) = message else { continue };
                let text: Value = serde_json::from_str(&text).expect("JSON");
                if text["type"] == "command_result" && text["data"]["id"] == id {
                    return;
                }
            }
            panic!("the agent has left");
        })
        .await;
    }

    /// Sends frames, as many in a record as fit; `false` when the agent has left.
    pub async fn push(&mut self, frames: &[Frame]) -> bool {
        let mut frames = frames.iter().peekable();
        while frames.peek().is_some() {
            let mut record = RecordWriter::new(MAX_RECORD);
            while frames.next_if(|frame| record.push(frame)).is_some() {}
            let octets = Bytes::from(record.finish().to_vec());
            assert!(!octets.is_empty(), "a frame that fits into no record");
            if self.socket.send(Message::Binary(octets)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Says `error` and closes with a code, as a server does that ends a session.
    pub async fn close(mut self, code: u16) {
        self.say("error", json!({"code": code, "name": "", "detail": "a test says so"})).await;
        let frame = CloseFrame { code: code.into(), reason: "a test says so".into() };
        // An agent that was faster has closed already.
        let _ = self.socket.send(Message::Close(Some(frame))).await;
        let answered = async { while let Some(Ok(_)) = self.socket.next().await {} };
        within("the end of the connection", SOON, answered).await;
    }

    /// An OPEN with the next number, not sent.
    pub fn next_open(&mut self, camera: &str, service: &str) -> (u64, Frame) {
        let stream = 4 * self.opened + 1;
        self.opened += 1;
        let [camera, service, visitor] = [camera, service, "203.0.113.9:1"].map(String::from);
        (stream, Frame::Open(Open { stream, camera, service, visitor }))
    }

    /// Opens a stream: its number, and what the agent says.
    pub async fn open(&mut self, camera: &str, service: &str) -> (u64, OpenOutcome) {
        let (stream, frame) = self.next_open(camera, service);
        self.push(&[frame]).await;
        let outcome = self.hear("OPEN_RESULT", |frame| match frame {
            Frame::OpenResult(result) if result.stream == stream => Some(result.outcome),
            _ => None,
        });
        (stream, outcome.await)
    }

    /// How many OPENs were made so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Waits for a frame that `pick` takes; the others go by.
    pub async fn hear<T>(&mut self, what: &str, pick: impl FnMut(&Frame) -> Option<T>) -> T {
        match self.hear_or_closed(pick).await {
            Ok(picked) => picked,
            Err(code) => panic!("closed with {code} instead of {what}"),
        }
    }

    /// Waits for a frame that `pick` takes, or for the agent's close: its code.
    pub async fn hear_or_closed<T>(&mut self, mut pick: impl FnMut(&Frame) -> Option<T>) -> Result<T, u16> {
        loop {
            while !self.frames.is_empty() {
                if let Some(picked) = pick(&self.frames.remove(0)) {
                    return Ok(picked);
                }
            }
            match within("a frame of the agent", SOON, self.socket.next()).await {
                Some(Ok(Message::Binary(octets))) => self.frames.extend(frames_of(octets)),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Err(1006),
            }
        }
    }

    /// Waits until the agent ends the session because of the server: what it says, and the code of its close.
    pub async fn error(&mut self) -> (Value, u16) {
        let mut told = Value::Null;
        loop {
            match within("the agent's end of the session", SOON, self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let mut text: Value = serde_json::from_str(&text).expect("JSON");
                    if text["type"] == "error" {
                        told = text["data"].take();
                    }
                }
                Some(Ok(Message::Close(frame))) => return (told, frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return (told, 1006),
            }
        }
    }

    /// Waits for the agent's close: its code; 1006 when the connection ended without.
    pub async fn closed(&mut self) -> u16 {
        let never = |_: &Frame| None::<u16>;
        self.hear_or_closed(never).await.unwrap_or_else(|code| code)
    }
}

/// The frames of a record.
fn frames_of(record: Bytes) -> Vec<Frame> {
    let mut reader = RecordReader::new(record).expect("a record");
    std::iter::from_fn(|| reader.next_frame().expect("good frames")).collect()
}

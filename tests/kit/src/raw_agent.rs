//! A WebSocket to the gateway that says whatever a test wants said: right, wrong or broken.

use std::net::SocketAddr;

use bytes::Bytes;
use camagent_proto::frame::{Frame, RecordReader, RecordWriter};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::wait::{SOON, within};

/// The sub-protocol of version 1.
pub const SUBPROTOCOL: &str = "camagent.v1";

/// One connection.
pub struct RawAgent {
    socket: WebSocketStream<TcpStream>,
}

impl RawAgent {
    /// Dials `ws://address/agent/id`. The error is the HTTP status and what the server said with it.
    pub async fn dial(
        address: SocketAddr,
        id: &str,
        token: Option<&str>,
        protocol: Option<&str>,
    ) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(address).await.expect("the server accepts");
        let mut request = format!("ws://{address}/agent/{id}").into_client_request().expect("a request");
        let token = token.map(|token| format!("Bearer {token}"));
        for (name, value) in [("Authorization", token.as_deref()), ("Sec-WebSocket-Protocol", protocol)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header"));
            }
        }
        match within("a WebSocket handshake", SOON, client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(error) => panic!("neither upgraded nor refused: {error}"),
        }
    }

    /// Dials with the right token and registers: the server's welcome too.
    pub async fn registered(address: SocketAddr, id: &str, token: &str) -> (Self, Value) {
        Self::registered_as(address, id, token, registration(id)).await
    }

    /// The same with another `register`.
    pub async fn registered_as(address: SocketAddr, id: &str, token: &str, register: Value) -> (Self, Value) {
        let mut agent = Self::dial(address, id, Some(token), Some(SUBPROTOCOL)).await.expect("let in");
        agent.tell("register", register).await;
        let welcome = agent.hear("registered").await;
        (agent, welcome)
    }

    /// Sends a control message.
    pub async fn tell(&mut self, kind: &str, data: Value) {
        self.text(json!({"type": kind, "data": data}).to_string()).await;
    }

    /// Sends any text.
    pub async fn text(&mut self, text: String) {
        // A server that has closed already says so when it is heard.
        let _ = self.socket.send(Message::text(text)).await;
    }

    /// Sends any octets.
    pub async fn octets(&mut self, octets: Vec<u8>) {
        let _ = self.socket.send(Message::Binary(Bytes::from(octets))).await;
    }

    /// Sends WebSocket pings.
    pub async fn ping(&mut self, count: usize) {
        for number in 0..count {
            let _ = self.socket.send(Message::Ping(number.to_be_bytes().to_vec().into())).await;
        }
    }

    /// Sends a record of frames.
    pub async fn push(&mut self, frames: &[Frame]) {
        let mut record = RecordWriter::new(camagent_proto::frame::MAX_RECORD);
        for frame in frames {
            record.push(frame);
        }
        self.octets(record.finish().to_vec()).await;
    }

    /// Waits for a control message of that type: its data.
    pub async fn hear(&mut self, kind: &str) -> Value {
        loop {
            match within(kind, SOON, self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    let mut message: Value = serde_json::from_str(&text).expect("JSON");
                    if message["type"] == kind {
                        return message["data"].take();
                    }
                }
                Some(Ok(Message::Close(frame))) => panic!("closed with {frame:?} instead of {kind}"),
                Some(Ok(_)) => {}
                ended => panic!("{ended:?} instead of {kind}"),
            }
        }
    }

    /// Waits for a frame that `pick` takes; everything else goes by.
    pub async fn hear_frame<T>(&mut self, what: &str, mut pick: impl FnMut(Frame) -> Option<T>) -> T {
        loop {
            match within(what, SOON, self.socket.next()).await {
                Some(Ok(Message::Binary(record))) => {
                    let mut reader = RecordReader::new(record).expect("a record");
                    while let Some(frame) = reader.next_frame().expect("good frames") {
                        if let Some(picked) = pick(frame) {
                            return picked;
                        }
                    }
                }
                Some(Ok(Message::Close(frame))) => panic!("closed with {frame:?} instead of {what}"),
                Some(Ok(_)) => {}
                ended => panic!("{ended:?} instead of {what}"),
            }
        }
    }

    /// Sends a message without waiting until it has left; `false` when the server has gone.
    pub async fn feed(&mut self, kind: &str, data: Value) -> bool {
        self.socket.feed(Message::text(json!({"type": kind, "data": data}).to_string())).await.is_ok()
    }

    /// Closes with a code.
    pub async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        let _ = self.socket.close(Some(frame)).await;
    }

    /// Waits for the close: its code and words; 1006 when the connection ended without.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match within("a close", SOON, self.socket.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return (1006, String::new()),
            }
        }
    }
}

/// A good `register` of an agent with one camera of the same name.
pub fn registration(id: &str) -> Value {
    json!({
        "versions": [1], "agent_id": id, "boot_id": "00112233445566778899aabbccddeeff", "software": "raw/1",
        "monotonic_us": 1_000_000, "cameras": [{"id": id, "sources": [{"name": "main"}]}],
    })
}

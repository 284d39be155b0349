//! The server's API as a client of one exchange a connection sees it: HTTP/1.1 by hand, bodies as JSON.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::{SOON, within};

/// The API with a token, or without.
#[derive(Clone, Debug)]
pub struct Api {
    address: SocketAddr,
    token: Option<String>,
}

impl Api {
    /// The API at an address.
    pub fn new(address: SocketAddr, token: Option<&str>) -> Self {
        Self { address, token: token.map(str::to_owned) }
    }

    /// The token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// `GET`: status and body.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.ask("GET", path, None).await
    }

    /// `POST` of JSON: status and body.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask("POST", path, Some(body)).await
    }

    /// `GET` of something else than JSON, with further header lines (each ended by CR LF): status, head and body.
    pub async fn get_text(&self, path: &str, headers: &str) -> (u16, String, String) {
        within(path, SOON, self.exchange("GET", path, headers, None)).await
    }

    /// One exchange: status, and the body as JSON (null when it is none).
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, _, body) = within(path, SOON, self.exchange(method, path, "", body)).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn exchange(&self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.expect("the server accepts");
        let body = body.map(Value::to_string).unwrap_or_default();
        let token = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{token}{headers}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.expect("the server answers");
        let text = String::from_utf8(response).expect("UTF-8");
        let status = text.get(9..12).and_then(|status| status.parse().ok()).expect("a status line");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        (status, head.to_owned(), body.to_owned())
    }
}

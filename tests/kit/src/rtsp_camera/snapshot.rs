//! The HTTP server of the camera: one exchange a connection, a picture behind Digest, 404 for everything else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{SNAPSHOT, Shared, digest};
use crate::clip;

/// More than this without an end is no request.
const MOST_REQUEST: usize = 16 << 10;

/// Serves one connection.
pub(super) async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    // A client that leaves in the middle is nothing to tell anybody of.
    let _ = exchange(&mut stream, &shared).await;
}

async fn exchange(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 || request.len() > MOST_REQUEST {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let authorization = request.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization").then(|| value.trim())
    });
    let nonce = &shared.http_nonce;
    let is_allowed =
        authorization.is_some_and(|header| shared.account.accepts(header, method, nonce, |uri| uri == target));
    let path = target.split('?').next().unwrap_or_default();
    let (status, header, body) = match (is_allowed, method, path) {
        (false, ..) => {
            ("401 Unauthorized", format!("WWW-Authenticate: {}\r\n", digest::challenge(nonce, true)), Vec::new())
        }
        (true, "GET", SNAPSHOT) => {
            shared.snapshots.fetch_add(1, Ordering::Relaxed);
            ("200 OK", "Content-Type: image/jpeg\r\n".into(), clip::read("snapshot.jpg"))
        }
        (true, "GET", _) => ("404 Not Found", String::new(), Vec::new()),
        _ => ("405 Method Not Allowed", "Allow: GET\r\n".into(), Vec::new()),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

//! What a visitor is told that cannot be served, in the language of the service where that is known: 503 in RTSP and HTTP.

use std::time::Duration;

use rtsp_types::{StatusCode, headers};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::address::{RTSP, language};
use crate::rtsp::message::{Decoder, Incoming, response};

/// A visitor that does not take the answer is left alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// Octets of a visitor that are still read, so that the answer is not lost in a reset of the connection.
const MOST_READ: usize = 64 << 10;

/// The answer to a request with this CSeq; none where the language is not known.
pub(super) fn text(service: &str, cseq: Option<&str>, reason: &str) -> Option<Vec<u8>> {
    match language(service) {
        RTSP => Some(response(StatusCode::ServiceUnavailable, Some(reason), cseq, &[], None)),
        "http" | "onvif" => Some(
            format!(
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\
                 Retry-After: 5\r\n\r\n{reason}\n",
                reason.len() + 1
            )
            .into_bytes(),
        ),
        _ => None,
    }
}

/// Says it and closes; `said` is what was read of the visitor before.
pub(super) async fn say(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    service: &str,
    mut said: Vec<u8>,
    reason: &str,
) {
    let answered = async {
        let mut chunk = [0; 4096];
        if said.is_empty() {
            let count = stream.read(&mut chunk).await?;
            said.extend_from_slice(&chunk[..count]);
        }
        if let Some(text) = text(service, cseq(&said).as_deref(), reason) {
            stream.write_all(&text).await?;
        }
        stream.shutdown().await?;
        let mut read = 0;
        while read < MOST_READ {
            match stream.read(&mut chunk).await? {
                0 => break,
                count => read += count,
            }
        }
        std::io::Result::Ok(())
    };
    // Whoever does not listen any more needs no answer.
    let _ = tokio::time::timeout(PATIENCE, answered).await;
}

fn cseq(said: &[u8]) -> Option<String> {
    let mut decoder = Decoder::default();
    decoder.push(said);
    match decoder.poll()? {
        Incoming::Request(request) => request.header(&headers::CSEQ).map(str::to_owned),
        Incoming::Bad { cseq, .. } => cseq,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_language_of_the_service() {
        let text = |service| {
            text(service, Some("4"), "Camera is offline").map(|text| String::from_utf8_lossy(&text).into_owned())
        };
        let rtsp = text("rtsp").expect("known");
        assert!(rtsp.starts_with("RTSP/1.0 503 Camera is offline\r\nCSeq: 4\r\n"), "{rtsp}");
        let http = text("http").expect("known");
        assert!(http.starts_with("HTTP/1.1 503 ") && http.ends_with("\r\n\r\nCamera is offline\n"), "{http}");
        assert_eq!((text("rtsp-nvr"), text("http-nvr")), (Some(rtsp), Some(http)));
        assert_eq!(text("snap"), None);
        assert_eq!(cseq(b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n").as_deref(), Some("9"));
        assert_eq!(cseq(b""), None);
    }
}

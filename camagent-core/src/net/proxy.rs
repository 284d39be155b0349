//! A way through an HTTP proxy: CONNECT (RFC 9110 section 9.3.6) with Basic (RFC 7617), and what its refusals mean.
//! What does not belong here: the connection to the proxy (`dial`), and what goes through it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{base64::Base64, retry_after};
use crate::{
    config::{Proxy, ServerUrl},
    error::Error,
};

/// The head of an answer has at most so many octets; proxies send some hundred.
const MAX_HEAD: usize = 8 << 10;

/// Asks the proxy at the other end of `socket` for a way to `server`. Afterwards the socket leads there.
pub(crate) async fn pass<S>(socket: &mut S, proxy: &Proxy, server: &ServerUrl) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |why: &dyn std::fmt::Display| Error::Unreachable(format!("proxy {proxy}: {why}"));
    let authority = server.authority();
    let mut request =
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {}\r\n", crate::SOFTWARE);
    if let Some(account) = proxy.account() {
        request.push_str(&format!("Proxy-Authorization: Basic {}\r\n", Base64(account.reveal().as_bytes())));
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).await.map_err(|error| broken(&error))?;
    socket.flush().await.map_err(|error| broken(&error))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // One octet at a time: what comes behind the head belongs to the server.
        let octet = match socket.read_u8().await {
            Ok(octet) => octet,
            Err(_) if head.is_empty() => {
                return Err(broken(&"it ended the connection without an answer; is it an HTTP proxy?"));
            }
            Err(error) => return Err(broken(&error)),
        };
        head.push(octet);
        let begins_well = b"HTTP/1.".starts_with(&head[..head.len().min(7)]);
        if !begins_well || head.len() > MAX_HEAD {
            return Err(broken(&"what answers there is no HTTP proxy"));
        }
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    let status = status.ok_or_else(|| broken(&"what answers there is no HTTP proxy"))?;
    if (200..300).contains(&status) {
        return Ok(());
    }
    let header = |name: &str| {
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    };
    let retry_after_s = header("Retry-After").and_then(|value| retry_after::seconds(value, header("Date")));
    Err(Error::Proxy { proxy: proxy.to_string(), server: authority, status, retry_after_s })
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What comes of an answer, and what was asked.
    fn ask(proxy: &str, answer: &str) -> (Result<(), Error>, String) {
        let (mut near, mut far) = duplex(1 << 14);
        let (proxy, server) = (Proxy::parse(proxy).unwrap(), ServerUrl::parse("wss://video.example").unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            far.write_all(answer.as_bytes()).await.unwrap();
            far.shutdown().await.unwrap();
            let outcome = pass(&mut near, &proxy, &server).await;
            drop(near);
            let mut request = String::new();
            far.read_to_string(&mut request).await.unwrap();
            (outcome, request)
        })
    }

    #[test]
    fn a_proxy_is_asked_with_the_account_and_lets_through() {
        let (outcome, request) = ask("http://me:secret@p:3128", "HTTP/1.0 200 Connection established\r\n\r\n");
        outcome.unwrap();
        assert!(request.starts_with("CONNECT video.example:443 HTTP/1.1\r\nHost: video.example:443\r\n"), "{request}");
        assert!(request.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{request}");
        assert!(!ask("http://p", "HTTP/1.1 200 OK\r\n\r\n").1.contains("Authorization"));
    }

    #[test]
    fn each_refusal_says_what_to_do_and_no_secret() {
        for (answer, words) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "user and password"),
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", "user and password"),
            ("HTTP/1.1 403 Filtered\r\n\r\n", "does not allow"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot reach"),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP 400"),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP proxy"),
            ("HTTP/1.1 nonsense\r\n\r\n", "no HTTP proxy"),
            ("", "is it an HTTP proxy"),
            ("HTTP/1.1 200 OK\r\n", "proxy http://p:80"),
        ] {
            let (outcome, _) = ask("http://me:secret@p", answer);
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("secret"), "{answer:?}: {error}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        assert!(ask("http://p", &endless).0.unwrap_err().to_string().contains("no HTTP proxy"));
    }

    #[test]
    fn octets_behind_the_answer_stay_for_who_comes_next() {
        let (mut near, mut far) = duplex(1 << 10);
        let (proxy, server) = (Proxy::parse("http://p").unwrap(), ServerUrl::parse("ws://h").unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            far.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.unwrap();
            pass(&mut near, &proxy, &server).await.unwrap();
            let mut rest = [0; 5];
            near.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"hello");
        });
    }
}

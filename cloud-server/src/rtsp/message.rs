//! Cuts a viewer's byte stream into RTSP messages and interleaved frames (RFC 2326, 4 and 10.12). The words of a message
//! are read by `rtsp-types`; this file makes of what real clients send what that crate accepts (line ends, blanks,
//! leading empty lines), holds the limits, and finds the next message after garbage. Nothing here panics.

use rtsp_types::headers::{self, HeaderName};
use rtsp_types::{Message, Method, Request as Parsed, Response, StatusCode, Url, Version};

/// ffmpeg's longest URL.
const MAX_URL: usize = 4096;
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
const MAX_BODY: usize = 64 << 10;
/// Bytes between messages that are no message; more of them is no RTSP client.
const MAX_GARBAGE: usize = 64 << 10;

/// One thing from the stream.
#[derive(Debug)]
pub enum Incoming {
    /// A request.
    Request(Box<Request>),
    /// An interleaved frame, RTCP as a rule. Its content is of no interest: that it came says that the viewer lives.
    Interleaved {
        /// The channel.
        channel: u8,
    },
    /// A response to a request that was never sent; ignored.
    Response,
    /// A request that cannot be read.
    Bad {
        /// What to answer.
        status: StatusCode,
        /// What to say.
        reason: &'static str,
        /// The CSeq to echo.
        cseq: Option<String>,
        /// Whether the stream has lost its rhythm, so that nothing after it can be trusted.
        fatal: bool,
    },
}

/// A readable request.
#[derive(Debug)]
pub struct Request {
    parsed: Parsed<Vec<u8>>,
}

impl Request {
    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        self.parsed.method()
    }

    /// The URL; none for `*`.
    #[must_use]
    pub fn url(&self) -> Option<&Url> {
        self.parsed.request_uri()
    }

    /// A header's value without blanks around it.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.parsed.header(name).map(|value| value.as_str().trim())
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.parsed.body()
    }
}

/// The stream's decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    garbage: usize,
}

impl Decoder {
    /// Puts bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// True while a message has begun and not ended.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Takes the next thing out; none when more bytes are needed.
    pub fn poll(&mut self) -> Option<Incoming> {
        loop {
            let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.buffer.drain(..blank);
            match *self.buffer.first()? {
                b'$' => {
                    let [_, channel, high, low] = *self.buffer.first_chunk()?;
                    let length = 4 + usize::from(u16::from_be_bytes([high, low]));
                    if self.buffer.len() < length {
                        return None;
                    }
                    self.buffer.drain(..length);
                    return Some(Incoming::Interleaved { channel });
                }
                byte if byte.is_ascii_alphabetic() => return self.poll_message(),
                _ => {
                    let skip = self.resynchronize();
                    self.garbage = self.garbage.saturating_add(skip);
                    if self.garbage > MAX_GARBAGE {
                        return Some(self.fatal(StatusCode::BadRequest, "This is not RTSP"));
                    }
                    self.buffer.drain(..skip);
                }
            }
        }
    }

    /// How many bytes to leave out until something may begin: a `$` with a plausible channel, or a word at the begin of a
    /// line. At least one.
    fn resynchronize(&self) -> usize {
        let begins = |at: usize| match self.buffer[at] {
            b'$' => self.buffer.get(at + 1).is_none_or(|channel| *channel < 32),
            byte if byte.is_ascii_uppercase() => self.buffer[at..].iter().take(12).any(|byte| *byte == b' '),
            _ => false,
        };
        (1..self.buffer.len()).find(|at| begins(*at)).unwrap_or(self.buffer.len())
    }

    fn poll_message(&mut self) -> Option<Incoming> {
        let Some(head_end) = end_of_head(&self.buffer) else {
            if self.buffer.len() <= MAX_HEAD {
                return None;
            }
            let long_line = !self.buffer[..MAX_URL].contains(&b'\n');
            return Some(if long_line {
                self.fatal(StatusCode::RequestURITooLong, "URL longer than 4096 bytes")
            } else {
                self.fatal(StatusCode::BadRequest, "Header longer than 16384 bytes")
            });
        };
        if head_end > MAX_HEAD {
            return Some(self.fatal(StatusCode::BadRequest, "Header longer than 16384 bytes"));
        }
        let head = Head::read(&self.buffer[..head_end]);
        let length = match head.content_length() {
            Ok(length) if length <= MAX_BODY => length,
            Ok(_) => return Some(self.fatal(StatusCode::RequestMessageBodyTooLarge, "Body longer than 65536 bytes")),
            Err(()) => return Some(self.fatal(StatusCode::BadRequest, "Content-Length is not one number")),
        };
        let end = head_end + length;
        if self.buffer.len() < end {
            return None;
        }
        let incoming = head.parse(&self.buffer[head_end..end]);
        self.buffer.drain(..end);
        self.garbage = 0;
        Some(incoming)
    }

    fn fatal(&mut self, status: StatusCode, reason: &'static str) -> Incoming {
        let cseq = Head::read(&self.buffer[..self.buffer.len().min(MAX_HEAD)]).cseq();
        self.buffer = Vec::new();
        Incoming::Bad { status, reason, cseq, fatal: true }
    }
}

/// Length of the head with its empty line, for any mix of CRLF and LF.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'\n' {
            continue;
        }
        if matches!(&bytes[line_start..at], [] | [b'\r']) {
            return Some(at + 1);
        }
        line_start = at + 1;
    }
    None
}

/// The lines of a head, untied.
struct Head {
    first_line: String,
    headers: Vec<(String, String)>,
    broken: Option<&'static str>,
}

impl Head {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let first_line = lines.next().unwrap_or_default().trim().to_owned();
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut broken = None;
        for line in lines.filter(|line| !line.trim().is_empty()) {
            if line.starts_with([' ', '\t']) {
                // A folded line continues the one before it.
                if let Some((_, value)) = headers.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                    continue;
                }
            }
            match line.split_once(':') {
                Some((name, value)) if is_token(name.trim()) => {
                    let value: String = value.trim().chars().filter(|character| !character.is_control()).collect();
                    headers.push((name.trim().to_owned(), value));
                }
                _ => broken = Some("A header line has no name"),
            }
        }
        if headers.len() > MAX_HEADERS {
            broken = Some("More than 64 headers");
        }
        Self { first_line, headers, broken }
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn cseq(&self) -> Option<String> {
        self.values("CSeq").next().filter(|value| value.len() <= 32).map(str::to_owned)
    }

    fn content_length(&self) -> Result<usize, ()> {
        let mut values = self.values("Content-Length");
        let Some(first) = values.next() else { return Ok(0) };
        if values.any(|other| other != first) || !first.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        // A number that does not fit is far beyond the limit.
        if first.is_empty() { Err(()) } else { Ok(first.parse().unwrap_or(usize::MAX)) }
    }

    fn parse(&self, body: &[u8]) -> Incoming {
        let bad = |status, reason, fatal| Incoming::Bad { status, reason, cseq: self.cseq(), fatal };
        if self.first_line.starts_with("RTSP/") {
            return Incoming::Response;
        }
        let words: Vec<_> = self.first_line.split_ascii_whitespace().collect();
        let [method, url, version] = words[..] else {
            return bad(StatusCode::BadRequest, "The request line is not \"METHOD URL RTSP/1.0\"", false);
        };
        let Some(version) = version.strip_prefix("RTSP/") else {
            return bad(StatusCode::BadRequest, "This port speaks RTSP", true);
        };
        if version != "1.0" {
            return bad(StatusCode::RTSPVersionNotSupported, "RTSP/1.0 is spoken here", false);
        }
        if url.len() > MAX_URL {
            return bad(StatusCode::RequestURITooLong, "URL longer than 4096 bytes", false);
        }
        if let Some(reason) = self.broken {
            return bad(StatusCode::BadRequest, reason, false);
        }
        if self.cseq().is_none() {
            return bad(StatusCode::BadRequest, "CSeq is missing", false);
        }
        let mut canonical = format!("{method} {url} RTSP/1.0\r\n").into_bytes();
        for (name, value) in &self.headers {
            // Written anew below, once.
            if name.eq_ignore_ascii_case("Content-Length") || value.is_empty() {
                continue;
            }
            canonical.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        canonical.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        canonical.extend_from_slice(body);
        match Message::<Vec<u8>>::parse(&canonical) {
            Ok((Message::Request(parsed), _)) => Incoming::Request(Box::new(Request { parsed })),
            _ => bad(StatusCode::BadRequest, "The request cannot be read", false),
        }
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A response as bytes.
#[must_use]
pub fn response(
    status: StatusCode,
    reason: Option<&str>,
    cseq: Option<&str>,
    fields: &[(HeaderName, &str)],
    body: Option<&str>,
) -> Vec<u8> {
    let mut builder = Response::builder(Version::V1_0, status);
    // The word of RFC 2326; the crate's own is "Ok".
    if let Some(reason) = reason.or((status == StatusCode::Ok).then_some("OK")) {
        builder = builder.reason_phrase(reason);
    }
    if let Some(cseq) = cseq {
        builder = builder.header(headers::CSEQ, cseq);
    }
    builder = builder.header(headers::SERVER, concat!("camagent-cloud/", env!("CARGO_PKG_VERSION")));
    for (name, value) in fields {
        builder = builder.header(name.clone(), *value);
    }
    let mut out = Vec::new();
    // Writing into memory cannot fail.
    let _ = match body {
        Some(body) => builder.build(body.as_bytes()).write(&mut out),
        None => builder.empty().write(&mut out),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.poll()).map(|incoming| show(&incoming)).collect()
    }

    fn show(incoming: &Incoming) -> String {
        match incoming {
            Incoming::Request(request) => {
                let cseq = request.header(&headers::CSEQ).unwrap_or_default();
                format!("{:?} {cseq}", request.method())
            }
            Incoming::Interleaved { channel } => format!("${channel}"),
            Incoming::Response => "response".to_owned(),
            Incoming::Bad { status, cseq, fatal, .. } => format!("{} {cseq:?} {fatal}", u16::from(*status)),
        }
    }

    const MIXED: &[u8] = b"\r\n\nOPTIONS * RTSP/1.0\r\ncseq: 1 \r\n\r\n$\x01\x00\x03abcGET_PARAMETER rtsp://h/a/b RTSP/1.0\n\
        CSEQ:2\nContent-Length: 4\n\nping$\x00\x00\x00RTSP/1.0 200 OK\r\nCSeq: 9\r\n\r\nPLAY rtsp://h/a RTSP/1.0\r\nCSeq: 3\r\n\r\n";

    #[test]
    fn requests_and_frames_mix_in_any_order() {
        assert_eq!(all(MIXED), ["Options 1", "$1", "GetParameter 2", "$0", "response", "Play 3"]);
    }

    #[test]
    fn any_split_gives_the_same() {
        for size in 1..7 {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for chunk in MIXED.chunks(size) {
                decoder.push(chunk);
                seen.extend(std::iter::from_fn(|| decoder.poll()).map(|incoming| show(&incoming)));
            }
            assert_eq!(seen, ["Options 1", "$1", "GetParameter 2", "$0", "response", "Play 3"]);
            assert!(!decoder.has_partial());
        }
    }

    #[test]
    fn header_names_have_no_case_and_values_no_blanks() {
        let mut decoder = Decoder::default();
        decoder.push(b"SETUP rtsp://h/a RTSP/1.0\r\nCSeq: 4\r\ntRaNsPoRt :  RTP/AVP/TCP; \r\n\tunicast \r\n\r\n");
        let Some(Incoming::Request(request)) = decoder.poll() else { panic!("a request") };
        assert_eq!(request.header(&headers::TRANSPORT), Some("RTP/AVP/TCP; unicast"));
    }

    #[test]
    fn another_version_is_505_and_the_stream_goes_on() {
        let bytes = b"OPTIONS * RTSP/2.0\r\nCSeq: 7\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 8\r\n\r\n";
        assert_eq!(all(bytes), ["505 Some(\"7\") false", "Options 8"]);
    }

    #[test]
    fn http_is_turned_away() {
        assert_eq!(all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ["400 None true"]);
    }

    #[test]
    fn limits() {
        let long_url = format!("DESCRIBE rtsp://h/{} RTSP/1.0\r\nCSeq: 1\r\n\r\n", "a".repeat(5000));
        assert_eq!(all(long_url.as_bytes()), ["414 Some(\"1\") false"]);
        let endless_url = format!("DESCRIBE rtsp://h/{}", "a".repeat(20_000));
        assert_eq!(all(endless_url.as_bytes()), ["414 None true"]);
        let endless_head = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nA: {}", "a".repeat(20_000));
        assert_eq!(all(endless_head.as_bytes()), ["400 Some(\"1\") true"]);
        let many = format!("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n{}\r\n", "A: b\r\n".repeat(70));
        assert_eq!(all(many.as_bytes()), ["400 Some(\"1\") false"]);
        let body = b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999999999999999999\r\n\r\n";
        assert_eq!(all(body), ["413 Some(\"1\") true"]);
        let body = b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n";
        assert_eq!(all(body), ["400 Some(\"1\") true"]);
    }

    #[test]
    fn garbage_is_stepped_over_and_bounded() {
        assert_eq!(
            all(b"\x80\xc9\x00\x07lost$\x01\x00\x01xOPTIONS * RTSP/1.0\r\nCSeq: 2\r\n\r\n"),
            ["$1", "Options 2"]
        );
        assert_eq!(all(&vec![0x80; 100_000]), ["400 None true"]);
    }

    #[test]
    fn what_cannot_be_read_is_400_with_its_cseq() {
        assert_eq!(all(b"OPTIONS *\r\nCSeq: 5\r\n\r\n"), ["400 Some(\"5\") false"]);
        assert_eq!(all(b"OPTIONS :// RTSP/1.0\r\nCSeq: 5\r\n\r\n"), ["400 Some(\"5\") false"]);
        assert_eq!(all(b"OPTIONS * RTSP/1.0\r\nno colon\r\nCSeq: 5\r\n\r\n"), ["400 Some(\"5\") false"]);
        assert_eq!(all(b"OPTIONS * RTSP/1.0\r\n\r\n"), ["400 None false"]);
    }

    #[test]
    fn a_response_is_rfc_2326() {
        let bytes = response(StatusCode::Ok, None, Some("3"), &[(headers::SESSION, "ab;timeout=60")], Some("v=0\r\n"));
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.starts_with("RTSP/1.0 200 OK\r\n"), "{text}");
        for part in ["CSeq: 3\r\n", "Session: ab;timeout=60\r\n", "Content-Length: 5\r\n", "\r\n\r\nv=0\r\n"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

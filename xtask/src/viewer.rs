//! A small RTSP viewer for `cargo xtask demo --check`: it plays a source over interleaved TCP (RFC 2326), with Digest when it is asked
//! for a password (RFC 2617), and counts.
//!
//! Not a player, and on purpose not camagent-media either: what checks the server must not share its parsers.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What arrived of one track.
#[derive(Debug, Default, Clone)]
pub(crate) struct Track {
    /// `video` or `audio`.
    pub(crate) kind: String,
    /// As in SDP: `H264`, `H265`, `MPEG4-GENERIC`, `PCMA`.
    pub(crate) codec: String,
    /// RTP packets.
    pub(crate) packets: u64,
    /// RTP packets that are missing between the first and the last.
    pub(crate) missing: u64,
    /// Access units: packets with a new timestamp.
    pub(crate) frames: u64,
    /// Pictures that start with a random access point.
    pub(crate) key_frames: u64,
    /// Payload bytes.
    pub(crate) bytes: u64,
    last_sequence: Option<u16>,
    last_time: Option<u32>,
    last_key_time: Option<u32>,
    control: String,
}

/// What a viewer saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// In the order of the description.
    pub(crate) tracks: Vec<Track>,
    /// From before the TCP connect to the first packet of the first random access point.
    pub(crate) first_key: Option<Duration>,
    /// How long it watched.
    pub(crate) watched: Duration,
}

/// User and password.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
}

/// Watches `url` for `time`, or until `stop` says so. The account is used when the server asks for one.
pub(crate) fn watch(
    url: &str,
    account: Option<Account>,
    time: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<Seen, String> {
    let start = Instant::now();
    let mut connection = Connection::open(url, account)?;
    connection.request("OPTIONS", url, &[])?;
    let description = connection.request("DESCRIBE", url, &[("Accept", "application/sdp")])?;
    let base = description.header("content-base").unwrap_or(url).trim_end_matches('/').to_owned();
    let mut tracks = read_description(&description.body)?;
    for (index, track) in tracks.iter().enumerate() {
        let control = match track.control.as_str() {
            absolute if absolute.starts_with("rtsp://") => absolute.to_owned(),
            relative => format!("{base}/{relative}"),
        };
        let transport = format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * index, 2 * index + 1);
        let answer = connection.request("SETUP", &control, &[("Transport", &transport)])?;
        let session = answer.header("session").ok_or("SETUP was answered without a Session")?;
        connection.session = session.split(';').next().map(str::to_owned);
    }
    connection.request("PLAY", &format!("{base}/"), &[("Range", "npt=now-")])?;

    let mut first_key = None;
    let deadline = Instant::now() + time;
    while Instant::now() < deadline && !stop() {
        let Some((channel, packet)) = connection.next_packet(deadline)? else { continue };
        if channel % 2 == 1 {
            continue; // RTCP
        }
        let Some(track) = tracks.get_mut(usize::from(channel / 2)) else {
            return Err(format!("a packet came on channel {channel}, which no SETUP named"));
        };
        if track.take(&packet)? && first_key.is_none() {
            first_key = Some(start.elapsed());
        }
    }
    let watched = start.elapsed();
    // The server may close at once; that is its right.
    let _ = connection.send("TEARDOWN", &format!("{base}/"), &[]);
    Ok(Seen { tracks, first_key, watched })
}

impl Track {
    /// Counts one RTP packet; true when it starts a random access point of a video track.
    fn take(&mut self, packet: &[u8]) -> Result<bool, String> {
        let [first, _, sequence_high, sequence_low, a, b, c, d, ..] = *packet else {
            return Err(format!("an RTP packet of {} bytes", packet.len()));
        };
        let header = 12 + 4 * usize::from(first & 0x0f);
        if first >> 6 != 2 || packet.len() < header {
            return Err("a packet that is not RTP version 2".to_owned());
        }
        let sequence = u16::from_be_bytes([sequence_high, sequence_low]);
        let time = u32::from_be_bytes([a, b, c, d]);
        if let Some(last) = self.last_sequence {
            let step = sequence.wrapping_sub(last);
            if step == 0 || step > 0x8000 {
                return Err(format!("{}: packet {sequence} came after {last}", self.codec));
            }
            self.missing += u64::from(step - 1);
        }
        self.last_sequence = Some(sequence);
        self.packets += 1;
        self.bytes += (packet.len() - header) as u64;
        if self.last_time != Some(time) {
            self.frames += 1;
            self.last_time = Some(time);
        }
        let key = self.kind == "video"
            && starts_random_access(&self.codec, &packet[header..])
            && self.last_key_time != Some(time);
        if key {
            self.key_frames += 1;
            self.last_key_time = Some(time);
        }
        Ok(key)
    }
}

/// Whether an RTP payload starts an IDR picture (H.264, RFC 6184) or an IRAP picture (H.265, RFC 7798).
fn starts_random_access(codec: &str, payload: &[u8]) -> bool {
    let h264 = |byte: u8| byte & 0x1f == 5;
    let h265 = |byte: u8| (16..=21).contains(&(byte >> 1 & 0x3f));
    match (codec, payload) {
        ("H264", [first, rest @ ..]) => match first & 0x1f {
            28 => rest.first().is_some_and(|fu| fu & 0x80 != 0 && h264(*fu)),
            24 => aggregated(rest).any(h264),
            _ => h264(*first),
        },
        ("H265", [first, _, rest @ ..]) => match first >> 1 & 0x3f {
            49 => rest.first().is_some_and(|fu| fu & 0x80 != 0 && (16..=21).contains(&(fu & 0x3f))),
            48 => aggregated(rest).any(h265),
            _ => h265(*first),
        },
        _ => false,
    }
}

/// The first byte of each NAL unit in an aggregation packet.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let [high, low, unit @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let first = unit.first().copied()?;
        rest = unit.get(length..)?;
        Some(first)
    })
}

/// The tracks of an SDP text (RFC 8866).
fn read_description(sdp: &str) -> Result<Vec<Track>, String> {
    let mut tracks: Vec<Track> = Vec::new();
    for line in sdp.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split(' ');
            let kind = words.next().unwrap_or_default().to_owned();
            // Static payload types need no rtpmap (RFC 3551).
            let codec = match words.nth(2) {
                Some("0") => "PCMU",
                Some("8") => "PCMA",
                _ => "",
            };
            tracks.push(Track { kind, codec: codec.to_owned(), ..Track::default() });
        } else if let Some(track) = tracks.last_mut() {
            if let Some((_, map)) = line.strip_prefix("a=rtpmap:").and_then(|map| map.split_once(' ')) {
                track.codec = map.split('/').next().unwrap_or_default().to_uppercase();
            } else if let Some(control) = line.strip_prefix("a=control:") {
                track.control = control.to_owned();
            }
        }
    }
    if tracks.is_empty() { Err(format!("the description names no media:\n{sdp}")) } else { Ok(tracks) }
}

struct Response {
    status: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Response {
    /// The status code with the blank before it; nothing when this is no RTSP.
    fn code(&self) -> &str {
        self.status.strip_prefix("RTSP/1.0").and_then(|rest| rest.get(..4)).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// One RTSP connection with requests, answers and interleaved packets on it.
struct Connection {
    stream: BufReader<TcpStream>,
    sequence: u32,
    session: Option<String>,
    account: Option<Account>,
    /// What answers the server's challenge, once there was one.
    digest: Option<http_auth::PasswordClient>,
}

impl Connection {
    fn open(url: &str, account: Option<Account>) -> Result<Self, String> {
        let rest = url.strip_prefix("rtsp://").ok_or_else(|| format!("{url} does not start with rtsp://"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(host).map_err(|error| format!("{host}: {error}"))?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(10))))
            .map_err(|error| format!("{host}: {error}"))?;
        Ok(Self {
            stream: BufReader::with_capacity(1 << 16, stream),
            sequence: 0,
            session: None,
            account,
            digest: None,
        })
    }

    fn send(&mut self, method: &str, url: &str, headers: &[(&str, &str)]) -> Result<(), String> {
        self.sequence += 1;
        let mut text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: xtask-viewer\r\n", self.sequence);
        if let Some(session) = &self.session {
            text.push_str(&format!("Session: {session}\r\n"));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let (Some(digest), Some(account)) = (&mut self.digest, self.account) {
            let Account { user: username, password } = account;
            let request = http_auth::PasswordParams { username, password, uri: url, method, body: Some(&[]) };
            let answer = digest.respond(&request).map_err(|error| format!("{method}: {error}"))?;
            text.push_str(&format!("Authorization: {answer}\r\n"));
        }
        text.push_str("\r\n");
        self.stream.get_mut().write_all(text.as_bytes()).map_err(|error| format!("{method}: {error}"))
    }

    /// Asks; when the server wants to know who does, asks again and says so.
    fn request(&mut self, method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Response, String> {
        let mut answer = self.exchange(method, url, headers)?;
        if let (" 401", Some(challenge), true) =
            (answer.code(), answer.header("www-authenticate"), self.account.is_some() && self.digest.is_none())
        {
            let client = http_auth::PasswordClient::try_from(challenge);
            self.digest = Some(client.map_err(|error| format!("{method} {url}: {challenge}: {error}"))?);
            answer = self.exchange(method, url, headers)?;
        }
        if answer.code() != " 200" {
            return Err(format!("{method} {url} was answered with `{}`", answer.status));
        }
        Ok(answer)
    }

    fn exchange(&mut self, method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Response, String> {
        self.send(method, url, headers)?;
        let told = |error: std::io::Error| format!("{method} {url}: {error}");
        let mut status = self.line().map_err(told)?;
        while status.is_empty() {
            status = self.line().map_err(told)?;
        }
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().map_err(told)?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
            }
        }
        let length: usize = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length.min(1 << 20)];
        self.stream.read_exact(&mut body).map_err(told)?;
        Ok(Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < 8192 {
            self.stream.read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => break,
                b'\r' => {}
                other => line.push(other),
            }
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// The next interleaved packet (RFC 2326, 10.12), or nothing when the deadline came first.
    fn next_packet(&mut self, deadline: Instant) -> Result<Option<(u8, Vec<u8>)>, String> {
        let patience = deadline
            .saturating_duration_since(Instant::now())
            .clamp(Duration::from_millis(1), Duration::from_millis(200));
        let told = |error: std::io::Error| format!("while packets were expected: {error}");
        let mut head = [0; 4];
        self.stream.get_ref().set_read_timeout(Some(patience)).map_err(told)?;
        match self.stream.read(&mut head[..1]) {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut | std::io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(told(error)),
        }
        if head[0] != b'$' {
            return Err(format!("byte {:#04x} where a packet should start", head[0]));
        }
        self.stream.get_ref().set_read_timeout(Some(Duration::from_secs(10))).map_err(told)?;
        self.stream.read_exact(&mut head[1..]).map_err(told)?;
        let mut packet = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        self.stream.read_exact(&mut packet).map_err(told)?;
        Ok(Some((head[1], packet)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, time: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend(sequence.to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend([0, 0, 0, 1]);
        packet.extend(payload);
        packet
    }

    #[test]
    fn packets_frames_key_frames_and_gaps_are_counted() {
        let mut track = Track { kind: "video".to_owned(), codec: "H264".to_owned(), ..Track::default() };
        assert_eq!(track.take(&packet(65535, 0, &[0x78, 0, 1, 0x67, 0, 1, 0x68])), Ok(false));
        assert_eq!(track.take(&packet(0, 0, &[0x7c, 0x85, 1])), Ok(true));
        assert_eq!(track.take(&packet(1, 0, &[0x7c, 0x05, 1])), Ok(false));
        assert_eq!(track.take(&packet(4, 3600, &[0x41, 1])), Ok(false));
        assert_eq!((track.packets, track.frames, track.key_frames, track.missing), (4, 2, 1, 2));
        assert!(track.take(&packet(3, 3600, &[0x41])).is_err());
        assert!(track.take(&[0x80]).is_err());
    }

    #[test]
    fn random_access_of_h265_is_found_in_each_payload_form() {
        for payload in [&[0x26, 1, 0][..], &[0x62, 1, 0x93], &[0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x28, 1]] {
            assert!(starts_random_access("H265", payload), "{payload:x?}");
        }
        for payload in [&[0x02, 1, 0][..], &[0x62, 1, 0x13], &[0x60, 1, 0, 2, 0x40, 1], &[]] {
            assert!(!starts_random_access("H265", payload), "{payload:x?}");
        }
    }

    #[test]
    fn a_description_names_its_tracks() {
        let sdp = "v=0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H265/90000\r\na=control:video\r\nm=audio 0 RTP/AVP 8\r\na=control:audio\r\n";
        let tracks = read_description(sdp).unwrap();
        let told: Vec<_> =
            tracks.iter().map(|track| (track.kind.as_str(), track.codec.as_str(), track.control.as_str())).collect();
        assert_eq!(told, [("video", "H265", "video"), ("audio", "PCMA", "audio")]);
        assert!(read_description("v=0\r\n").is_err());
    }

    /// Answers the requests of a viewer as a camera does, which wants to know who watches, then sends two pictures and a sender report.
    fn serve_once(listener: &std::net::TcpListener) -> std::io::Result<Vec<String>> {
        let (stream, _) = listener.accept()?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut requests = Vec::new();
        loop {
            let mut head = String::new();
            loop {
                let mut line = String::new();
                if std::io::BufRead::read_line(&mut reader, &mut line)? == 0 {
                    return Ok(requests);
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            let method = head.split(' ').next().unwrap_or_default().to_owned();
            let sdp = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:video\r\n";
            let more = match method.as_str() {
                "DESCRIBE" => format!("Content-Base: rtsp://x/c/main/\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()),
                "SETUP" => "Session: 7;timeout=60\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n".to_owned(),
                _ => "\r\n".to_owned(),
            };
            let is_stranger = method != "OPTIONS" && !head.contains("\r\nAuthorization: Digest ");
            requests.push(head);
            if is_stranger {
                let challenge = "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\"";
                let answer = format!("RTSP/1.0 401 Unauthorized\r\nCSeq: {}\r\n{challenge}\r\n\r\n", requests.len());
                (&stream).write_all(answer.as_bytes())?;
                continue;
            }
            if method == "TEARDOWN" {
                // Nobody waits for this answer.
                return Ok(requests);
            }
            (&stream).write_all(format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\n{more}", requests.len()).as_bytes())?;
            if method == "PLAY" {
                for (channel, packet) in
                    [(1, vec![0x80, 200, 0, 1]), (0, packet(1, 0, &[0x65, 1])), (0, packet(2, 3600, &[0x41, 1]))]
                {
                    let length = u16::try_from(packet.len()).expect("a small packet").to_be_bytes();
                    (&stream).write_all(&[&[b'$', channel][..], &length, &packet].concat())?;
                }
            }
        }
    }

    #[test]
    fn a_session_is_played_from_options_to_teardown() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("rtsp://{}/c/main", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || serve_once(&listener).unwrap());
        let account = Account { user: "admin", password: "secret" };
        let seen = watch(&url, Some(account), Duration::from_millis(300), &|| false).unwrap();
        assert_eq!((seen.tracks[0].packets, seen.tracks[0].key_frames, seen.tracks[0].missing), (2, 1, 0));
        assert!(seen.first_key.is_some());
        let requests = server.join().unwrap();
        let methods: Vec<&str> = requests.iter().map(|request| request.split(' ').next().unwrap()).collect();
        assert_eq!(methods, ["OPTIONS", "DESCRIBE", "DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]);
        let uri = requests[2].split(' ').nth(1).unwrap();
        assert!(requests[2].contains(&format!("uri=\"{uri}\"")) && requests[2].contains("username=\"admin\""));
        assert!(!requests.concat().contains("secret"));
        assert!(requests[3].starts_with("SETUP rtsp://x/c/main/video "), "{}", requests[3]);
        assert!(requests[4].contains("Session: 7\r\n"), "{}", requests[4]);
    }
}

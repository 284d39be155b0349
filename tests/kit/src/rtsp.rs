//! The asking side of RTSP (RFC 2326) over one TCP connection with interleaved media: DESCRIBE, SETUP of every track, PLAY;
//! with Digest (RFC 2617) when it is asked for and the URL names an account.

use std::io;
use std::net::SocketAddr;

use camagent_core::Codec;

use crate::rtsp_camera::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A track as its SDP describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// How it is coded.
    pub codec: Codec,
    /// Ticks of its RTP clock in a second.
    pub clock_rate: u32,
    /// Its control attribute.
    pub control: String,
}

/// What came.
#[derive(Debug)]
pub enum Incoming {
    /// An interleaved packet and its channel: twice the track's index for RTP, one more for RTCP.
    Packet(u8, Vec<u8>),
    /// A response: its head and its body.
    Response(String, String),
}

/// A connection to a relay.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    at: usize,
    url: String,
    /// User and password.
    account: Option<(String, String)>,
    /// Realm and nonce of the last challenge.
    challenge: Option<(String, String)>,
    sequence: u32,
    session: Option<String>,
}

impl Connection {
    /// Connects to the server of `url`; `receive_buffer` limits what the kernel takes for a reader that does not read.
    pub async fn open(url: &str, receive_buffer: Option<u32>) -> io::Result<Self> {
        let (place, path) = url.strip_prefix("rtsp://").and_then(|rest| rest.split_once('/')).unwrap_or_default();
        let (account, place) = place.rsplit_once('@').map_or((None, place), |(account, place)| (Some(account), place));
        let account =
            account.and_then(|account| account.split_once(':')).map(|(user, word)| (decoded(user), decoded(word)));
        let address: SocketAddr = place.parse().map_err(|_| io::Error::other(format!("{url}: no address")))?;
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let url = format!("rtsp://{place}/{path}");
        Ok(Self { stream, buffer: Vec::new(), at: 0, url, account, challenge: None, sequence: 0, session: None })
    }

    /// Asks for all tracks and plays them. The error is what the server said.
    pub async fn play(&mut self) -> Result<Vec<Track>, String> {
        let (_, sdp) = self.ask("DESCRIBE", "", "Accept: application/sdp\r\n").await?;
        let tracks = read_sdp(&sdp)?;
        for (index, track) in tracks.iter().enumerate() {
            let transport = format!("Transport: RTP/AVP/TCP;unicast;interleaved={}-{}\r\n", index * 2, index * 2 + 1);
            let (head, _) = self.ask("SETUP", &format!("/{}", track.control), &transport).await?;
            let session = head.lines().find_map(|line| line.strip_prefix("Session: "));
            self.session = session.and_then(|line| line.split(';').next()).map(str::to_owned);
        }
        self.ask("PLAY", "/", "Range: npt=now-\r\n").await?;
        Ok(tracks)
    }

    /// One request to the URL with `suffix`, again with the account when that is asked for: head and body of the answer.
    pub async fn ask(&mut self, method: &str, suffix: &str, headers: &str) -> Result<(String, String), String> {
        for _ in 0..2 {
            self.sequence += 1;
            let session = self.session.as_ref().map(|session| format!("Session: {session}\r\n")).unwrap_or_default();
            let (uri, sequence) = (format!("{}{suffix}", self.url), self.sequence);
            let login = self.login(method, &uri);
            let request = format!("{method} {uri} RTSP/1.0\r\nCSeq: {sequence}\r\n{login}{session}{headers}\r\n");
            self.stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
            let (head, body) = match self.next().await {
                Ok(Incoming::Response(head, body)) => (head, body),
                Ok(Incoming::Packet(channel, _)) => {
                    return Err(format!("a packet on channel {channel} before {method} was answered"));
                }
                Err(error) => return Err(error.to_string()),
            };
            if head.starts_with("RTSP/1.0 200") {
                return Ok((head, body));
            }
            let challenge = head.lines().find_map(|line| line.strip_prefix("WWW-Authenticate: Digest "));
            let first = self.challenge.is_none();
            self.challenge = challenge.map(|text| {
                let values = digest::values(text);
                let value = |name: &str| values.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
                (value("realm").to_owned(), value("nonce").to_owned())
            });
            if self.account.is_none() || self.challenge.is_none() || !first {
                return Err(head.lines().next().unwrap_or_default().to_owned());
            }
        }
        Err("the account is not believed".into())
    }

    fn login(&self, method: &str, uri: &str) -> String {
        let (Some((user, password)), Some((realm, nonce))) = (&self.account, &self.challenge) else {
            return String::new();
        };
        let account = digest::hex(&format!("{user}:{realm}:{password}"));
        let response = digest::hex(&format!("{account}:{nonce}:{}", digest::hex(&format!("{method}:{uri}"))));
        format!(
            "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\"\r\n"
        )
    }

    /// The next packet or response.
    pub async fn next(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some(incoming) = self.take()? {
                return Ok(incoming);
            }
            self.buffer.drain(..self.at);
            self.at = 0;
            self.buffer.reserve(64 << 10);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Incoming>> {
        let rest = &self.buffer[self.at..];
        if let [b'$', channel, high, low, rest @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(packet) = rest.get(..length) else { return Ok(None) };
            let incoming = Incoming::Packet(*channel, packet.to_vec());
            self.at += 4 + length;
            return Ok(Some(incoming));
        }
        if rest.first() == Some(&b'$') {
            return Ok(None);
        }
        let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") else {
            let is_sane = rest.len() < 16 << 10;
            return if is_sane { Ok(None) } else { Err(io::Error::other("neither a packet nor a response")) };
        };
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        if !head.starts_with("RTSP/1.0 ") {
            return Err(io::Error::other(format!("neither a packet nor a response: {head:?}")));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        let Some(body) = rest.get(end + 4..end + 4 + length) else { return Ok(None) };
        let body = String::from_utf8_lossy(body).into_owned();
        self.at += end + 4 + length;
        Ok(Some(Incoming::Response(head, body)))
    }
}

/// Percent-encoded octets (RFC 3986) as they are meant.
pub(crate) fn decoded(text: &str) -> String {
    let (mut octets, mut rest) = (Vec::new(), text);
    while let Some((plain, coded)) = rest.split_once('%') {
        octets.extend(plain.bytes());
        let (number, behind) = coded.split_at_checked(2).unwrap_or((coded, ""));
        octets.push(u8::from_str_radix(number, 16).expect("two hexadecimal digits"));
        rest = behind;
    }
    octets.extend(rest.bytes());
    String::from_utf8(octets).expect("UTF-8")
}

/// The tracks of a session description (RFC 8866).
fn read_sdp(sdp: &str) -> Result<Vec<Track>, String> {
    let mut tracks = Vec::new();
    for media in sdp.split("\r\nm=").skip(1) {
        let attribute = |name: &str| media.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name));
        let control = attribute("control:").ok_or("media without control")?.to_owned();
        let payload_type = media.lines().next().and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
        let map = attribute("rtpmap:").and_then(|map| map.split(' ').nth(1));
        let form = map.unwrap_or(match payload_type {
            "0" => "PCMU/8000",
            "8" => "PCMA/8000",
            _ => "",
        });
        let mut parts = form.split('/');
        let codec = match parts.next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "H264" => Codec::H264,
            "H265" => Codec::H265,
            "MPEG4-GENERIC" => Codec::Aac,
            "PCMA" => Codec::Pcma,
            "PCMU" => Codec::Pcmu,
            other => return Err(format!("codec {other:?} in {media}")),
        };
        let clock_rate = parts.next().and_then(|rate| rate.parse().ok()).ok_or("a track without clock rate")?;
        tracks.push(Track { codec, clock_rate, control });
    }
    if tracks.is_empty() { Err(format!("no media in {sdp:?}")) } else { Ok(tracks) }
}

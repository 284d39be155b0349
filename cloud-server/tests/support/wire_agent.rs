//! An agent that speaks the wire, with a journal that forgets nothing: a camera of a bundled clip, pictures and sound, whose
//! frames are sent again from where the server says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use camagent_proto::frame::{
    EndReason, EpochEnd, Frame, FrameHead, FrameMore, FrameStart, Journal, RecordReader, RecordWriter, Skip,
    SkipReason, TrackInfo,
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{adts_units, clip, h264_pictures};

pub const BOOT: &str = "000102030405060708090a0b0c0d0e0f";
/// The same as on the wire.
pub const BOOT_BYTES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// The camera's clock at its first frame: it does not begin at zero.
const BEGIN_US: i64 = 5_000_000;

/// Frames of a camera, without end: its clip again and again.
pub struct Camera {
    pictures: Vec<(Bytes, bool)>,
    sounds: Vec<Bytes>,
}

impl Camera {
    pub fn new() -> Self {
        Self { pictures: h264_pictures(&clip("main.h264")), sounds: adts_units(&clip("main.aac")) }
    }

    pub fn payload(&self, track: u32, sequence: u64) -> Bytes {
        match track {
            0 => self.pictures[sequence as usize % self.pictures.len()].0.clone(),
            _ => self.sounds[sequence as usize % self.sounds.len()].clone(),
        }
    }

    /// The camera's time, from its first frame on.
    pub fn time_us(track: u32, sequence: u64) -> i64 {
        if track == 0 { sequence as i64 * 40_000 } else { sequence as i64 * 1_024_000_000 / 48_000 }
    }

    /// The number of frames of a track that begin before a time.
    pub fn frames_before(track: u32, us: i64) -> u64 {
        (0..).find(|sequence| Self::time_us(track, *sequence) >= us).unwrap_or_default()
    }
}

/// The first frame was pushed so long before the agent registered: what is sent faster than time must not lie in the future.
pub const PUSHED_BEFORE_US: i64 = 600_000_000;

pub struct WireAgent {
    socket: WebSocketStream<TcpStream>,
    pub camera: Camera,
    pub welcome: Value,
    /// The next number of each track.
    pub next: BTreeMap<u32, u64>,
    /// What the server has persisted and received of each track.
    pub persisted: BTreeMap<u32, u64>,
    pub received: BTreeMap<u32, u64>,
}

impl WireAgent {
    /// Dials, registers, announces pictures as track 0 and sound as track 1, and goes on where the server says; `promised` is how far
    /// each track was persisted before.
    pub async fn join(
        address: SocketAddr,
        token: &str,
        promised: &BTreeMap<u32, u64>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(address).await?;
        let mut request = format!("ws://{address}/agent/cam").into_client_request()?;
        request.headers_mut().insert("Authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("camagent.v1"));
        let (socket, _) = client_async(request, stream).await?;
        let mut agent = Self {
            socket,
            camera: Camera::new(),
            welcome: Value::Null,
            next: BTreeMap::new(),
            persisted: promised.clone(),
            received: BTreeMap::new(),
        };
        let register = json!({"type": "register", "data": {
            "versions": [1], "agent_id": "cam", "boot_id": BOOT, "monotonic_us": BEGIN_US + PUSHED_BEFORE_US,
            "cameras": [{"id": "cam", "sources": [{"name": "main", "retention": "record"}]}],
        }});
        agent.socket.send(Message::text(register.to_string())).await?;
        while agent.welcome.is_null() {
            agent.listen().await?;
        }
        for track in [0, 1] {
            let resume = agent.welcome["resume"].as_array().cloned().unwrap_or_default();
            let point = resume.iter().find(|point| point["track"] == track);
            let next = point.and_then(|point| point["next"].as_u64()).unwrap_or(0);
            agent.next.insert(track, next);
            agent.announce(track, next).await?;
        }
        Ok(agent)
    }

    pub async fn announce(&mut self, track: u32, next: u64) -> Result<(), Box<dyn std::error::Error>> {
        let info = TrackInfo {
            track,
            epoch: 1,
            next,
            camera: "cam".into(),
            source: "main".into(),
            codec: if track == 0 { 1 } else { 16 },
            framing: if track == 0 { 1 } else { 3 },
            sample_rate: if track == 0 { 0 } else { 48_000 },
            channels: u8::from(track == 1),
            config: Bytes::new(),
        };
        self.record(&[Frame::Track(info)]).await
    }

    async fn record(&mut self, frames: &[Frame]) -> Result<(), Box<dyn std::error::Error>> {
        let mut record = RecordWriter::new(16_376);
        for frame in frames {
            assert!(record.push(frame), "it fits");
        }
        self.socket.feed(Message::Binary(record.finish())).await?;
        Ok(())
    }

    /// Sends everything up to a time of the camera, in the order of time.
    pub async fn push_until(&mut self, us: i64) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            let next =
                self.next.iter().map(|(track, sequence)| (Camera::time_us(*track, *sequence), *track, *sequence));
            let Some((at_us, track, sequence)) = next.min() else { return Ok(()) };
            if at_us >= us {
                self.socket.flush().await?;
                return Ok(());
            }
            let payload = self.camera.payload(track, sequence);
            let at_us = BEGIN_US + at_us;
            let head = FrameHead { pts_us: at_us, dts_us: at_us, arrival_us: at_us as u64, ..FrameHead::default() };
            let mut rest = payload.clone();
            let first = rest.split_to(rest.len().min(8_000));
            let total = payload.len() as u64;
            self.record(&[Frame::Frame(FrameStart { track, sequence, head, total, payload: first })]).await?;
            while !rest.is_empty() {
                let payload = rest.split_to(rest.len().min(8_000));
                self.record(&[Frame::FrameMore(FrameMore { track, payload })]).await?;
            }
            self.next.insert(track, sequence + 1);
        }
    }

    /// Offers `first..end` of the pictures of a former run on a lane, and sends what the server does not have. That run began at
    /// `utc_us`.
    pub async fn push_past(
        &mut self,
        lane: u32,
        boot: [u8; 16],
        (first, end): (u64, u64),
        utc_us: u64,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let info = TrackInfo {
            track: 0,
            epoch: 1,
            next: first,
            camera: "cam".into(),
            source: "main".into(),
            codec: 1,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: Bytes::new(),
        };
        let clock_us = if utc_us == 0 { 0 } else { BEGIN_US as u64 };
        self.record(&[Frame::Journal(Journal { lane, boot, end, clock_us, utc_us, info })]).await?;
        self.socket.flush().await?;
        while !self.received.contains_key(&lane) {
            self.listen().await?;
        }
        for sequence in self.received[&lane]..end {
            let payload = self.camera.payload(0, sequence);
            let at_us = BEGIN_US + Camera::time_us(0, sequence);
            let head = FrameHead { pts_us: at_us, dts_us: at_us, arrival_us: at_us as u64, ..FrameHead::default() };
            let mut rest = payload.clone();
            let first = rest.split_to(rest.len().min(8_000));
            let total = payload.len() as u64;
            self.record(&[Frame::Frame(FrameStart { track: lane, sequence, head, total, payload: first })]).await?;
            while !rest.is_empty() {
                let payload = rest.split_to(rest.len().min(8_000));
                self.record(&[Frame::FrameMore(FrameMore { track: lane, payload })]).await?;
            }
        }
        self.socket.flush().await?;
        while self.persisted.get(&lane).is_none_or(|stored| *stored < end) {
            self.listen().await?;
        }
        Ok(())
    }

    /// The epoch of a lane is over.
    pub async fn end_past(&mut self, lane: u32, next: u64, cause: EndReason) -> Result<(), Box<dyn std::error::Error>> {
        self.record(&[Frame::EpochEnd(EpochEnd { lane, next, cause })]).await?;
        self.socket.flush().await?;
        Ok(())
    }

    /// Frames of a track up to a number are gone.
    pub async fn skip_to(
        &mut self,
        track: u32,
        next: u64,
        reason: SkipReason,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let first = self.next.insert(track, next).expect("announced");
        self.record(&[Frame::Skip(Skip { track, first, last: next - 1, reason })]).await?;
        self.socket.flush().await?;
        Ok(())
    }

    /// Takes what the server says next.
    pub async fn listen(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let said = tokio::time::timeout(Duration::from_secs(20), self.socket.next()).await?;
        match said.ok_or("closed")?? {
            Message::Binary(record) => {
                let mut reader = RecordReader::new(record)?;
                while let Some(frame) = reader.next_frame()? {
                    if let Frame::Mack(mack) = frame {
                        let persisted = self.persisted.entry(mack.track).or_default();
                        *persisted = (*persisted).max(mack.persisted);
                        self.received.insert(mack.track, mack.received);
                    }
                }
            }
            Message::Text(text) => {
                let mut message: Value = serde_json::from_str(&text)?;
                if message["type"] == "registered" {
                    self.welcome = message["data"].take();
                }
            }
            Message::Close(frame) => return Err(format!("closed: {frame:?}").into()),
            _ => {}
        }
        Ok(())
    }

    /// Waits until everything that was sent is persisted.
    pub async fn all_persisted(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        while self.next.iter().any(|(track, next)| self.persisted.get(track).is_none_or(|stored| stored < next)) {
            self.listen().await?;
        }
        Ok(())
    }
}

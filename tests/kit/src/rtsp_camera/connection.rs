//! One RTSP connection to the camera (RFC 2326): requests, their answers, and the frames of what it plays.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rtsp_types::{HeaderName, Message, Method, ParseError, Request, Response, StatusCode, Version, headers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use super::encoder::{Encoder, Live};
use super::transport::{Outlet, Way};
use super::{Shared, digest};

/// More than this without an end is no request.
const MOST_REQUEST: usize = 64 << 10;
const SESSION: &str = "1185124863";

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    // Packets are small and must leave when they are made; without it they leave a little later.
    let _ = stream.set_nodelay(true);
    let Ok(here) = stream.local_addr() else { return };
    let mut connection = Connection {
        stream,
        here,
        peer,
        shared: &shared,
        nonce: digest::nonce(),
        path: None,
        outlets: Vec::new(),
        playing: None,
    };
    // A viewer that leaves without TEARDOWN is nothing to tell anybody of.
    let _ = connection.run().await;
}

struct Connection<'a> {
    stream: TcpStream,
    here: SocketAddr,
    peer: SocketAddr,
    shared: &'a Shared,
    nonce: String,
    path: Option<&'a Encoder>,
    outlets: Vec<Outlet>,
    playing: Option<Playing<'a>>,
}

/// What is sent, from PLAY on.
struct Playing<'a> {
    encoder: &'a Encoder,
    frames: broadcast::Receiver<Arc<Live>>,
    since: Instant,
    waits_for_key: bool,
    sent: u64,
}

impl<'a> Playing<'a> {
    fn new(encoder: &'a Encoder, waits_for_key: bool) -> Self {
        encoder.count(|traffic| (traffic.plays, traffic.playing) = (traffic.plays + 1, traffic.playing + 1));
        Self { encoder, frames: encoder.watch(), since: Instant::now(), waits_for_key, sent: 0 }
    }
}

impl Drop for Playing<'_> {
    fn drop(&mut self) {
        self.encoder.count(|traffic| traffic.playing -= 1);
    }
}

impl<'a> Connection<'a> {
    async fn run(&mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut asked_at = tokio::time::Instant::now();
        loop {
            while let Some((message, length)) = parse(&buffer)? {
                buffer.drain(..length);
                if let Message::Request(request) = message {
                    asked_at = tokio::time::Instant::now();
                    self.answer(&request).await?;
                }
            }
            let expires = asked_at + self.shared.behaviour().session_timeout();
            let frame = async {
                match &mut self.playing {
                    Some(playing) => playing.frames.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                read = self.stream.read_buf(&mut buffer) => if read? == 0 { return Ok(()) },
                () = tokio::time::sleep_until(expires) => return Ok(()),
                frame = frame => match frame {
                    Ok(live) => if !self.forward(&live).await? { return Ok(()) },
                    Err(_) => if let Some(playing) = &mut self.playing { playing.waits_for_key = true },
                },
            }
        }
    }

    /// Sends a frame, unless the behaviour says otherwise; `false` when the connection is to be cut.
    async fn forward(&mut self, live: &Live) -> io::Result<bool> {
        let Some(playing) = &mut self.playing else { return Ok(true) };
        let Some(outlet) = self.outlets.iter_mut().find(|outlet| outlet.track == live.track) else { return Ok(true) };
        let behaviour = self.shared.behaviour().clone();
        if live.is_video {
            let is_late = playing.since.elapsed() < behaviour.late_key_frame;
            if behaviour.hides_pictures || is_late && live.key || playing.waits_for_key && !live.key {
                return Ok(true);
            }
            playing.waits_for_key = false;
        }
        if behaviour.drop_after.is_some_and(|most| playing.sent >= most) {
            return Ok(false);
        }
        if behaviour.silent_after.is_some_and(|most| playing.sent >= most) {
            return Ok(true);
        }
        playing.sent += 1;
        let mut out = Vec::new();
        let octets = outlet.send(live, playing.encoder.unix_us(live.time_us), &mut out).await?;
        playing.encoder.count(|traffic| traffic.octets += octets);
        self.stream.write_all(&out).await?;
        Ok(true)
    }

    async fn answer(&mut self, request: &Request<Vec<u8>>) -> io::Result<()> {
        let sequence = request.header(&headers::CSEQ).map_or("0", |value| value.as_str()).to_owned();
        let mut answer = Answer::new(StatusCode::Ok);
        if self.is_allowed(request) {
            self.carry_out(request, &mut answer).await?;
        } else {
            answer = Answer::new(StatusCode::Unauthorized);
            answer.header(headers::WWW_AUTHENTICATE, digest::challenge(&self.nonce, false));
        }
        let mut response = Response::builder(Version::V1_0, answer.status).header(headers::CSEQ, sequence);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        let mut octets = Vec::new();
        response.build(answer.body).write(&mut octets).map_err(io::Error::other)?;
        self.stream.write_all(&octets).await?;
        match request.method() {
            Method::Teardown => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    /// What a camera is asked for first needs no password.
    fn is_allowed(&self, request: &Request<Vec<u8>>) -> bool {
        if *request.method() == Method::Options {
            return true;
        }
        let Some(header) = request.header(&headers::AUTHORIZATION) else { return false };
        let is_target = |uri: &str| rtsp_types::Url::parse(uri).ok().as_ref() == request.request_uri();
        let method: &str = request.method().into();
        self.shared.account.accepts(header.as_str(), method, &self.nonce, is_target)
    }

    async fn carry_out(&mut self, request: &Request<Vec<u8>>, answer: &mut Answer) -> io::Result<()> {
        let shared = self.shared;
        let (path, control) = target(request);
        match request.method() {
            Method::Options => answer.header(
                headers::PUBLIC,
                "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER".into(),
            ),
            Method::Describe => match shared.encoder(&path) {
                Some(encoder) => {
                    answer.header(headers::CONTENT_BASE, format!("{}/", uri(request)));
                    answer.header(headers::CONTENT_TYPE, "application/sdp".into());
                    let how = shared.behaviour().description;
                    answer.body = encoder.describe(how).into_bytes();
                }
                None => answer.status = StatusCode::NotFound,
            },
            Method::Setup => match (shared.encoder(&path), control) {
                (Some(encoder), Some(track)) if self.path.is_none_or(|old| old.path == encoder.path) => {
                    self.set_up(encoder, track, request, answer).await;
                }
                _ => answer.status = StatusCode::NotFound,
            },
            Method::Play => self.play(request, answer),
            Method::Pause => self.playing = None,
            Method::Teardown => {
                self.playing = None;
                self.outlets.clear();
            }
            Method::GetParameter | Method::SetParameter => {}
            _ => answer.status = StatusCode::MethodNotAllowed,
        }
        if !self.outlets.is_empty() {
            let timeout = shared.behaviour().session_timeout().as_secs();
            answer.header(headers::SESSION, format!("{SESSION};timeout={timeout}"));
        }
        Ok(())
    }

    async fn set_up(&mut self, encoder: &'a Encoder, track: usize, request: &Request<Vec<u8>>, answer: &mut Answer) {
        let Some(live) = encoder.tracks().into_iter().nth(track) else {
            answer.status = StatusCode::NotFound;
            return;
        };
        let wish = request.header(&headers::TRANSPORT).map_or("", |value| value.as_str());
        let behaviour = self.shared.behaviour().clone();
        let refused = if wish.starts_with("RTP/AVP/TCP") { behaviour.refuses_tcp } else { behaviour.refuses_udp };
        let agreed = Way::agree(wish, self.here.ip(), self.peer.ip()).await;
        match agreed {
            Ok((way, transport)) if !refused => {
                self.outlets.retain(|outlet| outlet.track != track);
                let outlet = Outlet::new(track, &live, way);
                answer.header(headers::TRANSPORT, format!("{transport};ssrc={:08X}", outlet.ssrc()));
                self.outlets.push(outlet);
                self.path = Some(encoder);
            }
            _ => answer.status = StatusCode::UnsupportedTransport,
        }
    }

    fn play(&mut self, request: &Request<Vec<u8>>, answer: &mut Answer) {
        let Some(encoder) = self.path else {
            answer.status = StatusCode::SessionNotFound;
            return;
        };
        let is_late = !self.shared.behaviour().late_key_frame.is_zero();
        let playing = Playing::new(encoder, !is_late);
        let time_us = encoder.now_us();
        let base = uri(request);
        let base = base.trim_end_matches('/');
        let info = self.outlets.iter().map(|outlet| {
            let (track, sequence, time) = (outlet.track, outlet.next_sequence(), outlet.rtp_time(time_us));
            format!("url={base}/trackID={track};seq={sequence};rtptime={time}")
        });
        answer.header(headers::RTP_INFO, info.collect::<Vec<_>>().join(","));
        answer.header(headers::RANGE, "npt=0.000-".into());
        self.playing = Some(playing);
    }
}

/// What is answered.
struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    fn header(&mut self, name: HeaderName, value: String) {
        self.headers.push((name, value));
    }
}

/// The first message of what was read, and its length.
fn parse(buffer: &[u8]) -> io::Result<Option<(Message<Vec<u8>>, usize)>> {
    if buffer.is_empty() {
        return Ok(None);
    }
    match Message::parse(buffer) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(ParseError::Incomplete(_)) if buffer.len() < MOST_REQUEST => Ok(None),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn uri(request: &Request<Vec<u8>>) -> String {
    request.request_uri().map(ToString::to_string).unwrap_or_default()
}

/// The path with its query, and the track that is named behind it: `/cam/realmonitor?channel=1&subtype=0/trackID=1`.
fn target(request: &Request<Vec<u8>>) -> (String, Option<usize>) {
    let Some(url) = request.request_uri() else { return Default::default() };
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let whole = format!("{}{query}", url.path());
    let (path, control) = whole.split_once("/trackID=").unwrap_or((&whole, ""));
    (path.trim_end_matches('/').into(), control.parse().ok())
}

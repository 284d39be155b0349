//! One viewer's conversation (RFC 2326, server role) as a value. Calling rule:
//!
//! 1. put bytes in with [`Session::receive`];
//! 2. take steps out with [`Session::poll`] until there is none, doing each before asking for the next;
//! 3. a [`Step::Lookup`] is answered by [`Session::looked_up`], a [`Step::Play`] by [`Session::started`], a
//!    [`Step::Authenticate`] by [`Session::judged`]; until then later requests stay in the buffer, so that pipelined
//!    requests are answered in order.
//!
//! With a login, DESCRIBE and SETUP are judged each time; what follows them in the connection needs no more than that one
//! was granted, so that a nonce that grows old does not break a running session.
//!
//! No socket, clock or camera is in here.

use rtsp_types::headers::{self, HeaderName};
use rtsp_types::{Method, StatusCode, Url};

use super::accounts::{Claim, Judgement};
use super::message::{Decoder, Incoming, Request, response};
use super::names::{Names, without_control};
use super::path::{Control, Path, content_base};
use super::transport::{Channels, Wanted, choose, free_channels};
use crate::live::{Presentation, Start};

/// What is announced in `Public` and `Allow`.
const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, GET_PARAMETER, SET_PARAMETER, TEARDOWN";

/// Wrong names or secrets in one connection; after so many it is closed.
const MOST_WRONG_LOGINS: u32 = 10;

/// What the driver has to do next.
#[derive(Debug)]
pub enum Step {
    /// Write these bytes, whole, before anything else.
    Send(Vec<u8>),
    /// Find out whether the request may pass.
    Authenticate(Claim),
    /// Find out what the source offers.
    Lookup(Path),
    /// Start (or go on) sending the given tracks.
    Play {
        /// The source.
        path: Path,
        /// A bit for each track.
        tracks: u32,
        /// The set of tracks that was described.
        layout: u32,
    },
    /// Stop sending, stay connected.
    Pause,
    /// Send fewer tracks from now on; none of them is the end of the session.
    Keep {
        /// A bit for each track.
        tracks: u32,
    },
    /// Close the connection.
    Close,
}

/// Why a look-up has no presentation, as RTSP says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 404, nobody knows such a camera.
    UnknownCamera,
    /// 404, the camera has no such source.
    UnknownSource,
    /// 503, the camera's agent is not connected.
    Offline,
    /// 503, the camera is connected and silent.
    NoPicture,
    /// 400, the delay is not one that is served.
    BadDelay,
    /// 404, what is not recorded cannot be shown later.
    NotRecorded,
    /// 404, nothing is recorded of that time.
    NothingThen,
    /// 503, too many delays are being watched.
    TooManyDelays,
}

/// The conversation.
#[derive(Debug)]
pub struct Session {
    id: String,
    description_id: u64,
    timeout_s: u64,
    names: Names,
    login: Login,
    decoder: Decoder,
    described: Option<(Path, Presentation)>,
    /// `Content-Base` of the last description.
    base: Option<Url>,
    bound: Option<Bound>,
    waiting: Option<Waiting>,
    after: Option<Vec<u8>>,
    playing: bool,
    closing: bool,
}

/// What the session's SETUPs agreed on.
#[derive(Debug)]
struct Bound {
    path: Path,
    base: String,
    channels: Vec<(usize, Channels)>,
}

/// Whether viewers must say who they are.
#[derive(Debug, Default)]
struct Login {
    needed: bool,
    granted: bool,
    wrong: u32,
}

#[derive(Debug)]
enum Waiting {
    Login(Box<Request>),
    Describe(Box<Request>, Path),
    Setup(Box<Request>, Path),
    Play(Box<Request>),
}

impl Session {
    /// A new conversation. `id` becomes the session id and must be hard to guess, `description_id` the id of SDPs.
    #[must_use]
    pub fn new(id: String, description_id: u64, timeout_s: u64) -> Self {
        Self {
            id,
            description_id,
            timeout_s,
            names: Names::default(),
            login: Login::default(),
            decoder: Decoder::default(),
            described: None,
            base: None,
            bound: None,
            waiting: None,
            after: None,
            playing: false,
            closing: false,
        }
    }

    /// The same with other names than the relay's.
    #[must_use]
    pub fn with_names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    /// The same for viewers that must (or need not) say who they are.
    #[must_use]
    pub fn with_login(mut self, needed: bool) -> Self {
        self.login.needed = needed;
        self
    }

    /// Takes bytes in.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next thing to do; none when more bytes, or an answer, are needed.
    pub fn poll(&mut self) -> Option<Step> {
        if let Some(bytes) = self.after.take() {
            return Some(Step::Send(bytes));
        }
        if self.closing {
            return Some(Step::Close);
        }
        if self.waiting.is_some() {
            return None;
        }
        loop {
            match self.decoder.poll()? {
                Incoming::Request(request) => return Some(self.handle(request)),
                Incoming::Interleaved { .. } | Incoming::Response => {}
                Incoming::Bad { status, reason, cseq, fatal } => {
                    self.closing = fatal;
                    return Some(Step::Send(response(status, Some(reason), cseq.as_deref(), &[], None)));
                }
            }
        }
    }

    /// True while a message has begun and not ended.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        self.decoder.has_partial()
    }

    /// True while media is sent.
    #[must_use]
    pub fn is_playing(&self) -> bool {
        self.playing
    }

    /// The channels of a track.
    #[must_use]
    pub fn channels(&self, track: usize) -> Option<Channels> {
        let bound = self.bound.as_ref()?;
        bound.channels.iter().find(|(index, _)| *index == track).map(|(_, channels)| *channels)
    }

    /// Answers [`Step::Authenticate`].
    pub fn judged(&mut self, judgement: Judgement) -> Step {
        let Some(Waiting::Login(request)) = self.waiting.take() else {
            self.closing = true;
            return Step::Close;
        };
        let challenge = match judgement {
            Judgement::Granted(_) => {
                self.login.granted = true;
                return self.route(request);
            }
            Judgement::Challenged(challenge) => challenge,
            Judgement::Refused { challenge, .. } => {
                self.login.wrong += 1;
                self.closing = self.login.wrong >= MOST_WRONG_LOGINS;
                challenge
            }
        };
        let fields = [(headers::WWW_AUTHENTICATE, challenge.as_str())];
        Step::Send(response(StatusCode::Unauthorized, None, cseq(&request), &fields, None))
    }

    /// Answers [`Step::Lookup`].
    pub fn looked_up(&mut self, found: Result<Presentation, Refusal>) -> Step {
        match (self.waiting.take(), found) {
            (Some(Waiting::Describe(request, path)), Ok(presentation)) => {
                self.base = request.url().and_then(|url| Url::parse(&content_base(url)).ok());
                let step = self.describe(&request, &presentation);
                self.described = Some((path, presentation));
                step
            }
            (Some(Waiting::Setup(request, path)), Ok(presentation)) => {
                self.described = Some((path.clone(), presentation));
                self.setup(&request, &path)
            }
            (
                Some(Waiting::Describe(request, _) | Waiting::Setup(request, _) | Waiting::Play(request)),
                Err(refusal),
            ) => {
                let (status, reason) = match refusal {
                    Refusal::UnknownCamera => (StatusCode::NotFound, "No such camera"),
                    Refusal::UnknownSource => (StatusCode::NotFound, "The camera has no such source"),
                    Refusal::Offline => (StatusCode::ServiceUnavailable, "Camera is offline"),
                    Refusal::NoPicture => (StatusCode::ServiceUnavailable, "Camera sends no picture yet"),
                    Refusal::BadDelay => (StatusCode::BadRequest, "delay is 5 to 86400 whole seconds"),
                    Refusal::NotRecorded => (StatusCode::NotFound, "The source is not recorded, so it has no delay"),
                    Refusal::NothingThen => (StatusCode::NotFound, "Nothing is recorded of that time yet"),
                    Refusal::TooManyDelays => (StatusCode::ServiceUnavailable, "Too many delays are being watched"),
                };
                refuse(&request, status, reason)
            }
            (waiting, _) => {
                self.waiting = waiting;
                self.closing = true;
                Step::Close
            }
        }
    }

    /// Answers [`Step::Play`] with where each track begins (RFC 2326 12.33); what is not known is left out.
    pub fn started(&mut self, starts: &[Start]) -> Step {
        let (Some(Waiting::Play(request)), Some(bound)) = (self.waiting.take(), &self.bound) else {
            self.closing = true;
            return Step::Close;
        };
        self.playing = true;
        let infos: Vec<_> = starts
            .iter()
            .map(|start| {
                let url = format!("url={}trackID={};seq={}", bound.base, start.track, start.sequence);
                start.rtp_time.map_or(url.clone(), |time| format!("{url};rtptime={time}"))
            })
            .collect();
        let infos = infos.join(",");
        let mut fields = vec![(headers::RANGE, "npt=now-")];
        if !infos.is_empty() {
            fields.push((headers::RTP_INFO, infos.as_str()));
        }
        self.grant(&request, &fields, None)
    }

    fn handle(&mut self, request: Box<Request>) -> Step {
        let judged_each_time = matches!(request.method(), Method::Describe | Method::Setup);
        if self.login.needed && *request.method() != Method::Options && (judged_each_time || !self.login.granted) {
            let claim = Claim {
                method: <&str>::from(request.method()).to_owned(),
                authorization: request.header(&headers::AUTHORIZATION).map(str::to_owned),
            };
            self.waiting = Some(Waiting::Login(request));
            return Step::Authenticate(claim);
        }
        self.route(request)
    }

    fn route(&mut self, request: Box<Request>) -> Step {
        if let Some(options) = request.header(&headers::REQUIRE) {
            let fields = [(headers::UNSUPPORTED, options)];
            return Step::Send(response(StatusCode::OptionNotSupported, None, cseq(&request), &fields, None));
        }
        let names_session = request.header(&headers::SESSION).map(|value| value.split(';').next().unwrap_or("").trim());
        if names_session.is_some_and(|named| self.bound.is_none() || named != self.id)
            && *request.method() != Method::Options
        {
            return refuse(&request, StatusCode::SessionNotFound, "Session Not Found");
        }
        match request.method() {
            Method::Options => self.grant(&request, &[(headers::PUBLIC, METHODS)], None),
            Method::Describe => self.handle_describe(request),
            Method::Setup => self.handle_setup(request),
            Method::Play => self.handle_play(request),
            Method::Pause => self.handle_pause(&request),
            // A keep-alive, with or without a body (RFC 2326 10.8).
            Method::GetParameter => self.grant(&request, &[], None),
            Method::SetParameter if request.body().iter().all(u8::is_ascii_whitespace) => {
                self.grant(&request, &[], None)
            }
            Method::SetParameter => refuse(&request, StatusCode::ParameterNotUnderstood, "Parameter Not Understood"),
            Method::Teardown => self.handle_teardown(&request),
            method => {
                let status = match method {
                    Method::Extension(_) => StatusCode::NotImplemented,
                    _ => StatusCode::MethodNotAllowed,
                };
                let fields = [(headers::ALLOW, METHODS), (headers::PUBLIC, METHODS)];
                Step::Send(response(status, None, cseq(&request), &fields, None))
            }
        }
    }

    fn handle_describe(&mut self, request: Box<Request>) -> Step {
        let accept = request.header(&headers::ACCEPT).unwrap_or("application/sdp").to_ascii_lowercase();
        if !["application/sdp", "application/*", "*/*"].iter().any(|kind| accept.contains(kind)) {
            return refuse(&request, StatusCode::NotAcceptable, "Only application/sdp can be had");
        }
        let Some(path) = self.named(&request) else { return self.not_found(&request) };
        self.waiting = Some(Waiting::Describe(request, path.clone()));
        Step::Lookup(path)
    }

    fn describe(&self, request: &Request, presentation: &Presentation) -> Step {
        let controls: Vec<_> = presentation.tracks.iter().map(|track| format!("trackID={}", track.index)).collect();
        let media = presentation.tracks.iter().zip(&controls).map(|(track, control)| camagent_media::sdp::Media {
            parameters: &track.parameters,
            payload_type: track.payload_type,
            control,
        });
        let description =
            camagent_media::sdp::Session { id: self.description_id, name: "camagent", media: media.collect() };
        let base = request.url().map(content_base).unwrap_or_default();
        let fields = [
            (headers::CONTENT_BASE, base.as_str()),
            (headers::CONTENT_TYPE, "application/sdp"),
            (headers::CACHE_CONTROL, "no-cache"),
        ];
        self.grant(request, &fields, Some(&description.to_string()))
    }

    fn handle_setup(&mut self, request: Box<Request>) -> Step {
        let Some(path) = self.named(&request) else { return self.not_found(&request) };
        if self.playing {
            return refuse(&request, StatusCode::MethodNotValidInThisState, "SETUP while playing");
        }
        if self.bound.as_ref().is_some_and(|bound| !bound.path.is_same_source(&path)) {
            return refuse(&request, StatusCode::MethodNotValidInThisState, "One connection carries one session");
        }
        if self.described.as_ref().is_some_and(|(described, _)| described.is_same_source(&path)) {
            return self.setup(&request, &path);
        }
        self.waiting = Some(Waiting::Setup(request, path.clone()));
        Step::Lookup(path)
    }

    fn setup(&mut self, request: &Request, path: &Path) -> Step {
        let Some((_, presentation)) = &self.described else { return self.not_found(request) };
        let track = match path.track {
            Control::Track(index) => presentation.tracks.iter().find(|track| track.index == index),
            Control::Unknown => None,
            Control::Aggregate => match &presentation.tracks[..] {
                [only] => Some(only),
                _ => {
                    let reason = "SETUP names no track of several";
                    return refuse(request, StatusCode::AggregateOperationNotAllowed, reason);
                }
            },
        };
        let Some(track) = track else { return refuse(request, StatusCode::NotFound, "The source has no such track") };
        let taken: Vec<_> = self.bound.iter().flat_map(|bound| bound.channels.iter().map(|(_, pair)| *pair)).collect();
        if self.channels(track.index).is_some() {
            return refuse(request, StatusCode::MethodNotValidInThisState, "The track is set up already");
        }
        let channels = match choose(request.header(&headers::TRANSPORT).unwrap_or("RTP/AVP/TCP")) {
            Wanted::Unsupported => {
                let reason = "Only RTP/AVP/TCP interleaved is served";
                return refuse(request, StatusCode::UnsupportedTransport, reason);
            }
            Wanted::BadChannels => {
                return refuse(request, StatusCode::BadRequest, "Interleaved channels cannot be read");
            }
            Wanted::Interleaved(Some(channels)) if taken.iter().any(|taken| taken.overlap(channels)) => {
                return refuse(request, StatusCode::BadRequest, "Interleaved channels are taken");
            }
            Wanted::Interleaved(Some(channels)) => channels,
            Wanted::Interleaved(None) => match free_channels(track.index, &taken) {
                Some(channels) => channels,
                None => return refuse(request, StatusCode::BadRequest, "No interleaved channels are left"),
            },
        };
        let transport = format!(
            "RTP/AVP/TCP;unicast;interleaved={}-{};ssrc={:08X};mode=\"PLAY\"",
            channels.rtp, channels.rtcp, track.ssrc
        );
        let index = track.index;
        let base = request.url().map(content_base).unwrap_or_default();
        let bound = self.bound.get_or_insert_with(|| Bound { path: path.clone(), base, channels: Vec::new() });
        bound.channels.push((index, channels));
        self.grant(request, &[(headers::TRANSPORT, &transport)], None)
    }

    fn handle_play(&mut self, request: Box<Request>) -> Step {
        let Some(bound) = &self.bound else {
            return refuse(&request, StatusCode::MethodNotValidInThisState, "PLAY before SETUP");
        };
        if !self.is_of_session(&request) {
            return self.not_found(&request);
        }
        if self.playing {
            // There is nowhere else to play: live goes on.
            return self.grant(&request, &[(headers::RANGE, "npt=now-")], None);
        }
        let layout = self.described.as_ref().map_or(0, |(_, presentation)| presentation.layout);
        let step = Step::Play { path: bound.path.clone(), tracks: mask(&bound.channels), layout };
        self.waiting = Some(Waiting::Play(request));
        step
    }

    fn handle_pause(&mut self, request: &Request) -> Step {
        if self.bound.is_none() {
            return refuse(request, StatusCode::MethodNotValidInThisState, "PAUSE before SETUP");
        }
        // The response follows when the driver asks next.
        self.playing = false;
        self.queue(request, Step::Pause)
    }

    fn handle_teardown(&mut self, request: &Request) -> Step {
        let path = self.named(request);
        let Some(bound) = &mut self.bound else {
            return refuse(request, StatusCode::SessionNotFound, "Session Not Found");
        };
        match path.map(|path| path.track) {
            Some(Control::Track(index)) if bound.channels.len() > 1 => {
                bound.channels.retain(|(own, _)| *own != index);
                let tracks = mask(&bound.channels);
                self.queue(request, Step::Keep { tracks })
            }
            _ => {
                let step = self.queue(request, Step::Keep { tracks: 0 });
                self.bound = None;
                self.described = None;
                self.playing = false;
                step
            }
        }
    }

    /// A URL of the session's source, aggregate or a track, or `*`.
    fn is_of_session(&self, request: &Request) -> bool {
        let path = self.named(request);
        match (&self.bound, path) {
            (Some(bound), Some(path)) => bound.path.is_same_source(&path),
            (_, None) => request.url().is_none(),
            (None, Some(_)) => false,
        }
    }

    /// The source that the request's URL names. Who resolves a control by RFC 3986 against a base with a query loses the
    /// path's last part, and what is left may look like another source: so what was described is thought of first.
    fn named(&self, request: &Request) -> Option<Path> {
        let url = request.url()?;
        let resolved = || {
            let (described, _) = self.described.as_ref()?;
            let track = without_control(url).1?;
            let resolved = self.base.as_ref()?.join(url.path().trim_end_matches('/').rsplit('/').next()?).ok()?;
            let same = resolved.path() == url.path() && resolved.query() == url.query();
            same.then(|| Path { track, ..described.clone() })
        };
        resolved().or_else(|| self.names.find(url))
    }

    fn not_found(&self, request: &Request) -> Step {
        refuse(request, StatusCode::NotFound, self.names.expected())
    }

    /// First the deed, then its response: media must have stopped before the client reads that it has.
    fn queue(&mut self, request: &Request, step: Step) -> Step {
        self.after = match self.grant(request, &[], None) {
            Step::Send(bytes) => Some(bytes),
            _ => None,
        };
        step
    }

    fn grant(&self, request: &Request, fields: &[(HeaderName, &str)], body: Option<&str>) -> Step {
        let session = format!("{};timeout={}", self.id, self.timeout_s);
        let mut all = fields.to_vec();
        if self.bound.is_some() {
            all.push((headers::SESSION, session.as_str()));
        }
        Step::Send(response(StatusCode::Ok, None, cseq(request), &all, body))
    }
}

fn mask(channels: &[(usize, Channels)]) -> u32 {
    channels.iter().fold(0, |mask, (index, _)| mask | 1 << (index & 31))
}

fn cseq(request: &Request) -> Option<&str> {
    request.header(&headers::CSEQ)
}

fn refuse(request: &Request, status: StatusCode, reason: &str) -> Step {
    Step::Send(response(status, Some(reason), cseq(request), &[], None))
}

#[cfg(test)]
mod tests;

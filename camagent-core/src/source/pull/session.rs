//! One RTSP session with a camera (RFC 2326): DESCRIBE, SETUP of what can be carried, PLAY, and every frame on its way to the journal.
//!
//! The parsing is `retina`'s. Units stay as the camera made them; only parameter sets are put before each key frame, also when the camera
//! tells them in its description alone.

use std::{io, net::SocketAddr, pin::pin, sync::Arc};

use camagent_media::{Codec, Framing};
use futures_util::StreamExt;
use retina::{
    client::{
        Credentials, Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup, SessionIdPolicy,
        SessionOptions, SetupOptions, Stream, Transport,
    },
    codec::{CodecItem, FrameFormat, ParameterSetInsertion, ParametersRef, aac, h26x},
};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};

use super::{
    Puller,
    timeline::{Timeline, micros, now_us},
};
use crate::{
    clock,
    config::RtspTransport,
    error::Error,
    resolve::Resolver,
    source::{Frame, Intake, Pushed, TrackDescription},
};

/// Annex B with parameter sets before each key frame, raw AAC.
const FORMAT: FrameFormat = FrameFormat {
    h26x_framing: h26x::Framing::AnnexB,
    parameter_set_insertion: ParameterSetInsertion::EachKeyFrame,
    aac_framing: aac::Framing::Raw,
};

/// Why a session ended, or did not begin.
#[derive(Debug)]
pub(super) enum Ending {
    /// The agent takes no frames any more.
    Stopped,
    /// The camera refuses the account.
    Refused,
    /// The source is not to be uploaded any more; `soon` after it began to play.
    Unwanted { soon: bool },
    /// In words.
    Lost(String),
}

impl From<retina::Error> for Ending {
    fn from(error: retina::Error) -> Self {
        if error.status_code() == Some(401) {
            return Ending::Refused;
        }
        // Behind the first line stand addresses and positions for who has the packets.
        let text = error.to_string();
        Ending::Lost(text.lines().next().unwrap_or_default().into())
    }
}

/// A track of the camera that is carried on, by its index in the session.
struct Carried {
    stream: usize,
    number: u32,
    codec: Codec,
    last_dts_us: i64,
    /// Decoding can start only at a key frame.
    waits_for_key: bool,
}

/// A session that plays.
pub(super) struct Playing {
    demuxed: Demuxed,
    tracks: Vec<Carried>,
    timeline: Timeline,
    /// What it carries, in words.
    pub(super) what: String,
}

/// The numbers under which a source's tracks are known to the server; they stay the same over sessions.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    video: Option<u32>,
    audio: Option<u32>,
}

/// Asks the camera what it has.
pub(super) async fn describe(puller: &Puller, group: &Arc<SessionGroup>) -> Result<Session<Described>, Ending> {
    let url = Url::parse(&puller.url).map_err(|error| Ending::Lost(format!("{}: {error}", puller.url)))?;
    match timeout(puller.pace.silence, describe_anywhere(puller, url, group)).await {
        Err(_) => Err(Ending::Lost(format!("no answer to DESCRIBE within {} s", puller.pace.silence.as_secs()))),
        Ok(Err(ending)) => Err(ending),
        Ok(Ok(Err(error))) if error.status_code() == Some(404) => {
            Err(Ending::Lost(format!("the camera has no stream at this path ({})", first_line(&error))))
        }
        Ok(Ok(described)) => Ok(described?),
    }
}

fn options(puller: &Puller, group: &Arc<SessionGroup>) -> SessionOptions {
    let account = puller.account.as_ref();
    SessionOptions::default()
        .creds(account.map(|(username, password)| Credentials {
            username: username.clone(),
            password: password.reveal().to_owned(),
        }))
        .user_agent(crate::SOFTWARE.into())
        .session_group(Arc::clone(group))
        // Some cameras change it, and understand the first one all the same.
        .session_id(SessionIdPolicy::UseFirst)
}

/// Asks at each address of the host until one takes the connection.
async fn describe_anywhere(
    puller: &Puller,
    url: Url,
    group: &Arc<SessionGroup>,
) -> Result<Result<Session<Described>, retina::Error>, Ending> {
    let urls = addressed(url, &puller.addresses).await.map_err(|error| Ending::Lost(error.to_string()))?;
    let mut last = Err(Ending::Lost("its host has no address".into()));
    for url in urls {
        match Session::describe(url, options(puller, group)).await {
            Err(error) if is_unreachable(&error) => last = Ok(Err(error)),
            described => return Ok(described),
        }
    }
    last
}

/// The URL with each address of its host instead of the name, so that nothing is left to look up when it is dialled.
async fn addressed(url: Url, addresses: &Resolver) -> io::Result<Vec<Url>> {
    let Some(Host::Domain(name)) = url.host() else { return Ok(vec![url]) };
    let found = addresses.resolve(name, url.port().unwrap_or(554)).await?;
    let with = |address: SocketAddr| {
        let mut url = url.clone();
        // An RTSP URL with a name takes an address as well.
        url.set_ip_host(address.ip()).is_ok().then_some(url)
    };
    Ok(found.into_iter().filter_map(with).collect())
}

/// Whether there was no TCP connection.
fn is_unreachable(error: &retina::Error) -> bool {
    // The only way that retina tells it.
    error.to_string().starts_with("Unable to connect")
}

/// Sets up the first video and the first audio that can be carried, and plays them.
pub(super) async fn play(
    puller: &Puller,
    session: Session<Described>,
    intake: &Intake,
    numbers: &mut Numbers,
) -> Result<Playing, Ending> {
    let limit = puller.pace.silence;
    match timeout(limit, set_up_and_play(puller, session, intake, numbers)).await {
        Ok(playing) => playing,
        Err(_) => Err(Ending::Lost(format!("no answer to SETUP or PLAY within {} s", limit.as_secs()))),
    }
}

async fn set_up_and_play(
    puller: &Puller,
    mut session: Session<Described>,
    intake: &Intake,
    numbers: &mut Numbers,
) -> Result<Playing, Ending> {
    let (mut video, mut audio) = (None, None);
    for (index, stream) in session.streams().iter().enumerate() {
        let slot = match stream.media() {
            "video" => &mut video,
            "audio" => &mut audio,
            // What cameras tell of events.
            _ => continue,
        };
        match describe_track(puller, stream) {
            Some(track) if slot.is_none() => *slot = Some((index, track)),
            Some(_) => {}
            None => puller.logger.debug(format_args!(
                "{puller}: {} {} cannot be carried",
                stream.media(),
                stream.encoding_name()
            )),
        }
    }
    if video.is_none() && audio.is_none() {
        let offered: Vec<_> = session.streams().iter().map(Stream::encoding_name).collect();
        return Err(Ending::Lost(format!("nothing that can be carried among its streams ({})", offered.join(", "))));
    }
    let (transport, way) = match puller.transport {
        RtspTransport::Tcp => (Transport::Tcp(Default::default()), "tcp"),
        RtspTransport::Udp => (Transport::Udp(Default::default()), "udp"),
    };
    for (index, _) in video.iter().chain(&audio) {
        let options = SetupOptions::default().transport(transport.clone()).frame_format(FORMAT);
        session.setup(*index, options).await.map_err(|error| match error.status_code() {
            Some(461) => Ending::Lost(format!(
                "the camera does not send over {way}: set rtsp_transport to the other one ({})",
                first_line(&error)
            )),
            _ => error.into(),
        })?;
    }
    // The tracks are known before the first frame; a server that somebody asks for this source waits for all of them.
    let mut tracks = Vec::new();
    for (found, number) in [(&video, &mut numbers.video), (&audio, &mut numbers.audio)] {
        match found {
            Some((stream, track)) => {
                let given = intake.set_pulled_track(*number, track).map_err(|error| Ending::Lost(error.to_string()))?;
                *number = Some(given);
                tracks.push(Carried {
                    stream: *stream,
                    number: given,
                    codec: track.codec,
                    last_dts_us: i64::MIN,
                    waits_for_key: track.codec.is_video(),
                });
            }
            None => forget(intake, number),
        }
    }
    let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    let demuxed = session.play(options).await?.demuxed()?;
    let names: Vec<_> = tracks.iter().map(|track| track.codec.name()).collect();
    let what = format!("{} over {way}", names.join(" and "));
    Ok(Playing { demuxed, tracks, timeline: Timeline::default(), what })
}

/// A track that the camera does not have any more.
fn forget(intake: &Intake, number: &mut Option<u32>) {
    if let Some(number) = number.take() {
        // It was added by this source, and nobody else removes it.
        let _ = intake.remove_track(number);
    }
}

fn describe_track(puller: &Puller, stream: &Stream) -> Option<TrackDescription> {
    let codec = match (stream.media(), stream.encoding_name()) {
        ("video", "h264") => Codec::H264,
        ("video", "h265") => Codec::H265,
        ("audio", "mpeg4-generic") => Codec::Aac,
        ("audio", "pcma") => Codec::Pcma,
        ("audio", "pcmu") => Codec::Pcmu,
        _ => return None,
    };
    let mut track = match codec {
        Codec::H264 | Codec::H265 => TrackDescription::video(&puller.source, codec, Framing::AnnexB),
        _ => {
            let parameters = match stream.parameters() {
                Some(ParametersRef::Audio(parameters)) => Some(parameters),
                _ => None,
            };
            let channels = parameters.map(|parameters| parameters.channels()).or(stream.channels());
            let channels = channels.map_or(Some(1), |channels| u8::try_from(channels.get()).ok())?;
            let mut track =
                TrackDescription::audio(&puller.source, codec, Framing::Raw, stream.clock_rate_hz(), channels);
            if codec == Codec::Aac {
                track.config = parameters?.extra_data().to_vec();
            }
            track
        }
    };
    track.camera = Some(puller.camera.clone());
    Some(track)
}

fn first_line(error: &retina::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().into()
}

impl Playing {
    /// Carries frames until the session ends. `carried` is called after each frame that the journal took.
    pub(super) async fn carry(&mut self, puller: &Puller, intake: &Intake, mut carried: impl FnMut()) -> Ending {
        let Self { demuxed, tracks, timeline, .. } = self;
        let mut demuxed = pin!(demuxed);
        let mut deadline = Instant::now() + puller.pace.silence;
        // Sound may pause; pictures that do are a camera in trouble, sound or not.
        let has_video = tracks.iter().any(|track| track.codec.is_video());
        let mut refused_told = false;
        loop {
            let item = match timeout_at(deadline, demuxed.next()).await {
                Err(_) => return Ending::Lost(format!("no frame for {} s", puller.pace.silence.as_secs())),
                Ok(None) => return Ending::Lost("the camera closed the connection".into()),
                Ok(Some(Err(error))) => return error.into(),
                Ok(Some(Ok(item))) => item,
            };
            let (stream, timestamp, loss, data) = match &item {
                CodecItem::VideoFrame(frame) => (frame.stream_id(), frame.timestamp(), frame.loss(), frame.data()),
                CodecItem::AudioFrame(frame) => (frame.stream_id(), frame.timestamp(), frame.loss(), frame.data()),
                _ => continue,
            };
            let Some((index, track)) = tracks.iter_mut().enumerate().find(|(_, track)| track.stream == stream) else {
                continue;
            };
            if track.codec.is_video() || !has_video {
                deadline = Instant::now() + puller.pace.silence;
            }
            let is_first = track.last_dts_us == i64::MIN;
            if track.waits_for_key && !camagent_media::codec::is_key(track.codec, Framing::AnnexB, data) {
                continue;
            }
            track.waits_for_key = false;
            let elapsed_us = micros(timestamp.elapsed(), timestamp.clock_rate().get());
            let place = timeline.place(index, now_us(), elapsed_us);
            let discontinuity = place.breaks || is_first || loss > 0;
            // Cameras make no B pictures; should one do it, the journal still gets its frames in the order of decoding.
            let dts_us = if place.breaks { place.time_us } else { place.time_us.max(track.last_dts_us) };
            track.last_dts_us = dts_us;
            let frame = Frame { pts_us: place.time_us, dts_us, discontinuity, data, ..Frame::default() };
            match intake.push(clock::now(), track.number, frame) {
                Ok(Pushed::NotWanted) => {}
                Ok(_) => carried(),
                Err(Error::Stopped) => return Ending::Stopped,
                Err(error) => {
                    if !std::mem::replace(&mut refused_told, true) {
                        puller.logger.warn(format_args!("{puller}: a frame is left out: {error}"));
                    }
                }
            }
        }
    }
}

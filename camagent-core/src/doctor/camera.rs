//! The cameras' own servers: whether the RTSP port takes connections, what DESCRIBE answers for each path (RFC 2326 section 10.2), when
//! key frames come, and whether the services are there that tunnels lead to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use retina::{
    client::{
        Credentials, Described, PlayOptions, Session, SessionGroup, SessionOptions, SetupOptions, Stream,
        TcpTransportOptions, Transport, UdpTransportOptions,
    },
    codec::{CodecItem, ParametersRef},
};
use tokio::time::{timeout, timeout_at};
use url::Url;

use super::{Check, Report, millis, place, server::knock};
use crate::config::{CameraConfig, Config, RtspTransport};

/// A key frame less often than this makes each first picture late, and each loss long.
const RARE: Duration = Duration::from_secs(5);
/// Key frames that are watched for: two of them make an interval, the third confirms it.
const KEY_FRAMES: usize = 3;
/// What a farewell may take; the camera forgets us without it too.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) async fn examine<T: FnMut(&Check)>(config: &Config, patience: Duration, report: &mut Report<T>) {
    for camera in &config.cameras {
        let has_streams = camera.sources.iter().any(|source| source.path.is_some());
        if has_streams {
            rtsp(camera, patience, report).await;
        }
        for service in &camera.services {
            if has_streams && (&service.host, service.port) == (&camera.host, camera.rtsp_port) {
                // `rtsp_port` has just knocked there.
                continue;
            }
            let subject = format!("{}/{}", camera.id, service.name);
            let place = place(&service.host, service.port);
            match knock(&service.host, service.port, patience).await {
                Ok(took) => report.ok("service", &subject, format!("connected to {place} ({})", millis(took))),
                Err((measured, advice)) => report.fail("service", &subject, measured, advice),
            }
        }
    }
}

async fn rtsp<T: FnMut(&Check)>(camera: &CameraConfig, patience: Duration, report: &mut Report<T>) {
    let place = place(&camera.host, camera.rtsp_port);
    let answers = match knock(&camera.host, camera.rtsp_port, patience).await {
        Ok(took) => {
            report.ok("rtsp_port", &camera.id, format!("connected to {place} ({})", millis(took)));
            true
        }
        Err((measured, advice)) => {
            report.fail("rtsp_port", &camera.id, measured, advice);
            false
        }
    };
    let paths = camera.sources.iter().filter_map(|source| Some((source.name.as_str(), source.path.as_deref()?)));
    for (name, path) in paths {
        let subject = format!("{}/{name}", camera.id);
        if !answers {
            report.skip("describe", &subject, "the port takes no connection");
            continue;
        }
        let group = Arc::new(SessionGroup::default());
        if let Some((session, video)) = describe(camera, name, path, &group, patience, report).await {
            key_frames(camera, &subject, session, video, patience, report).await;
        }
        // Sessions have been dropped: what they still say to the camera is said now, or never.
        let _ = timeout(FAREWELL, group.await_teardown()).await;
    }
}

/// What the camera has under a path; the session and its first video stream when there is one.
async fn describe<T: FnMut(&Check)>(
    camera: &CameraConfig,
    name: &str,
    path: &str,
    group: &Arc<SessionGroup>,
    patience: Duration,
    report: &mut Report<T>,
) -> Option<(Session<Described>, usize)> {
    let subject = format!("{}/{name}", camera.id);
    let url = match Url::parse(&format!("rtsp://{}{path}", place(&camera.host, camera.rtsp_port))) {
        Ok(url) => url,
        Err(error) => {
            report.fail(
                "describe",
                &subject,
                format!("{path}: {error}"),
                "write the path as the camera's manual has it",
            );
            return None;
        }
    };
    let account = camera.user.as_ref().map(|user| Credentials {
        username: user.clone(),
        password: camera.password.as_ref().map(|password| password.reveal().to_owned()).unwrap_or_default(),
    });
    let has_account = account.is_some();
    let options =
        SessionOptions::default().creds(account).user_agent(crate::SOFTWARE.into()).session_group(Arc::clone(group));
    let began = Instant::now();
    let session = match timeout(patience, Session::describe(url, options)).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            let advice = describe_advice(&error, has_account);
            report.fail("describe", &subject, format!("{path}: {}", first_line(&error)), advice);
            return None;
        }
        Err(_) => {
            let advice = "the camera takes connections and does not answer RTSP: is this its RTSP port? A reboot of the camera helps when it hangs";
            report.fail("describe", &subject, format!("{path}: no answer within {}", millis(patience)), advice);
            return None;
        }
    };
    let took = millis(began.elapsed());
    let streams: Vec<String> = session.streams().iter().map(shown).collect();
    let found = format!("{path}: {} ({took})", streams.join(", "));
    let video = session.streams().iter().position(|stream| stream.media() == "video");
    let promised = camera.description.get("codec").and_then(|codec| codec.as_str()).filter(|_| name == "main");
    let encoding = video.map(|at| codec_name(session.streams()[at].encoding_name()));
    match (encoding, promised) {
        (None, _) if streams.is_empty() => {
            report.fail(
                "describe",
                &subject,
                format!("{path}: no stream ({took})"),
                "is the encoder of this path on in the camera's settings?",
            );
            return None;
        }
        (Some(encoding), Some(promised)) if encoding != promised => {
            let advice = format!("camera.codec says {promised}: correct it, or the encoder's settings");
            report.warn("describe", &subject, found, advice);
        }
        _ => report.ok("describe", &subject, found),
    }
    match video {
        Some(video) => Some((session, video)),
        None => {
            report.skip("key_frame", &subject, "no video");
            None
        }
    }
}

/// Plays the video and waits for key frames.
async fn key_frames<T: FnMut(&Check)>(
    camera: &CameraConfig,
    subject: &str,
    mut session: Session<Described>,
    video: usize,
    patience: Duration,
    report: &mut Report<T>,
) {
    let transport = match camera.rtsp_transport {
        RtspTransport::Tcp => Transport::Tcp(TcpTransportOptions::default()),
        RtspTransport::Udp => Transport::Udp(UdpTransportOptions::default()),
    };
    let until = tokio::time::Instant::now() + patience;
    let played = timeout_at(until, async {
        session.setup(video, SetupOptions::default().transport(transport)).await?;
        session.play(PlayOptions::default()).await?.demuxed()
    });
    let began = Instant::now();
    let mut playing = match played.await {
        Ok(Ok(playing)) => playing,
        Ok(Err(error)) => {
            let advice = match error.status_code() {
                Some(461) => "the camera refuses this transport: set rtsp_transport to the other one, tcp or udp",
                Some(453 | 503) => "the camera serves no more viewers: close others, or raise its limit",
                _ => "the camera described the stream and does not play it: a reboot of the camera may help",
            };
            return report.fail("key_frame", subject, first_line(&error), advice);
        }
        Err(_) => {
            let advice = "the camera described the stream and does not play it: a reboot of the camera may help";
            return report.fail(
                "key_frame",
                subject,
                format!("PLAY was not answered within {}", millis(patience)),
                advice,
            );
        }
    };
    let (mut frames, mut keys, mut trouble) = (0_u32, Vec::new(), None);
    // Some cameras send nothing until their next key frame: that wait is no slow encoder.
    let (mut first_frame, mut last_frame) = (None, Duration::ZERO);
    while keys.len() < KEY_FRAMES {
        match timeout_at(until, playing.next()).await {
            Ok(Some(Ok(CodecItem::VideoFrame(frame)))) => {
                frames += 1;
                last_frame = began.elapsed();
                first_frame.get_or_insert(last_frame);
                if frame.is_random_access_point() {
                    keys.push(began.elapsed());
                }
            }
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => {
                trouble = Some(first_line(&error));
                break;
            }
            Ok(None) => {
                trouble = Some("the camera ended the stream".into());
                break;
            }
            Err(_) => break,
        }
    }
    let watched = began.elapsed();
    let what = shown(&playing.streams()[video]);
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        let (measured, advice) = match trouble {
            Some(trouble) => (trouble, "the camera or the network cut the stream: the camera's log may say why"),
            None if frames == 0 => (
                format!("no picture within {}", millis(watched)),
                "the camera plays and sends nothing: with rtsp_transport udp a firewall may be in the way, else reboot the camera",
            ),
            None => (
                format!("{frames} pictures and no key frame within {}", millis(watched)),
                "shorten the interval of key frames (I frames) in the camera's encoder, and switch its \"smart codec\" (H.265+, H.264+) off",
            ),
        };
        return report.fail("key_frame", subject, measured, advice);
    };
    let during = last_frame.saturating_sub(first_frame.unwrap_or_default());
    let rate = f64::from(frames - 1) / during.as_secs_f64().max(0.001);
    let mut measured = format!("{what}: first after {}, {rate:.0} pictures/s", millis(*first));
    let interval = match keys.len() {
        1 => watched - *first,
        count => (*last - *first) / (count as u32 - 1),
    };
    let is_only_one = keys.len() == 1;
    measured.push_str(&format!(
        ", a key frame every {}{}",
        if is_only_one { "more than " } else { "" },
        millis(interval)
    ));
    if let Some(trouble) = trouble {
        report.warn(
            "key_frame",
            subject,
            format!("{measured}; then {trouble}"),
            "the stream breaks off: look at the network between agent and camera",
        );
    } else if interval > RARE {
        report.warn(
            "key_frame",
            subject,
            measured,
            "first pictures come late: shorten the interval of key frames, and switch a \"smart codec\" off",
        );
    } else {
        report.ok("key_frame", subject, measured);
    }
}

fn describe_advice(error: &retina::Error, has_account: bool) -> String {
    match error.status_code() {
        Some(401) if has_account => "the camera does not take user and password of the configuration. Correct them before you try again: cameras lock an account after a few wrong attempts".into(),
        Some(401) => "the camera wants a user and a password: the keys user and password of this camera".into(),
        Some(403) => "the camera knows this user and denies him the stream: give him the right to watch".into(),
        Some(400 | 404 | 451 | 454) => {
            "the camera has nothing under this path: correct stream_paths. Dahua: /cam/realmonitor?channel=1&subtype=0 (main), subtype=1 (sub)".into()
        }
        Some(453 | 503) => "the camera serves no more viewers: close others, or raise its limit".into(),
        Some(_) => "the camera's log may say why".into(),
        None => "what answers there is no RTSP server, or cuts the connection: is rtsp_port right?".into(),
    }
}

/// An error without the addresses and byte positions that follow for those who have a packet trace.
fn first_line(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_end().into()
}

/// A stream as people name it.
fn shown(stream: &Stream) -> String {
    let name = codec_name(stream.encoding_name());
    match stream.parameters() {
        Some(ParametersRef::Video(video)) => {
            let (width, height) = video.pixel_dimensions();
            format!("{name} {width}x{height}")
        }
        Some(ParametersRef::Audio(audio)) => format!("{name} {} Hz", audio.clock_rate()),
        _ if stream.media() == "video" => format!("{name} (size not told)"),
        _ => name,
    }
}

/// The name of the configuration for an encoding's name of SDP.
fn codec_name(encoding: &str) -> String {
    match encoding.to_ascii_lowercase().as_str() {
        "h264" => "H.264".into(),
        "h265" => "H.265".into(),
        "jpeg" => "MJPEG".into(),
        "mpeg4-generic" => "AAC".into(),
        other => other.to_ascii_uppercase(),
    }
}

//! Three independent players as judges: each plays a URL for a while and tells which units of the video it got, byte by byte.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use camagent_core::Codec;
use futures_util::StreamExt;
use retina::client::{Credentials, InitialTimestampPolicy, PlayOptions, Session, SessionOptions, SetupOptions};
use retina::codec::CodecItem;

pub use retina::client::{TcpTransportOptions, Transport, UdpTransportOptions};

use crate::nal::{self, Digest};
use crate::program;
use crate::rtsp::decoded;
use crate::wait::{self, SOON};

/// What each is asked to get at least: more than two groups of pictures.
const UNITS: usize = 110;

/// ffmpeg with `-c copy`. Nothing when it is not installed.
pub async fn ffmpeg(url: &str, codec: Codec, folder: &Path) -> Option<Vec<Digest>> {
    if !program::is_installed("ffmpeg", "ffmpeg") {
        return None;
    }
    let file = new_file(folder);
    let (form, path) = (if codec == Codec::H264 { "h264" } else { "hevc" }, file.to_string_lossy());
    let input = ["-v", "error", "-y", "-rtsp_transport", "tcp", "-i", url, "-map", "0:v", "-c", "copy"];
    let child = program::start("ffmpeg", &[&input[..], &["-flush_packets", "1", "-f", form, &path]].concat());
    written("ffmpeg", child, &file, codec).await
}

/// `rtspsrc` with interleaved media. Nothing when it is not installed.
pub async fn gstreamer(url: &str, codec: Codec, folder: &Path) -> Option<Vec<Digest>> {
    if !program::is_installed("gst-launch-1.0", "gstreamer1.0-tools") {
        return None;
    }
    let file = new_file(folder);
    let name = if codec == Codec::H264 { "h264" } else { "h265" };
    let line = format!(
        "-q -e rtspsrc location={url} protocols=tcp latency=200 name=source source. ! application/x-rtp,media=video ! \
         rtp{name}depay ! video/x-{name},stream-format=byte-stream ! filesink location={} buffer-mode=unbuffered sync=false",
        file.display()
    );
    let child = program::start("gst-launch-1.0", &line.split(' ').collect::<Vec<_>>());
    written("gst-launch-1.0", child, &file, codec).await
}

fn new_file(folder: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    folder.join(format!("played-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

async fn written(who: &str, child: tokio::process::Child, file: &Path, codec: Codec) -> Option<Vec<Digest>> {
    let wrote = || nal::digests(codec, &program::written(file)).len() > UNITS;
    wait::until(&format!("pictures from {who}"), SOON * 2, wrote).await;
    program::end(who, child).await;
    let mut units = nal::digests(codec, &program::written(file));
    // The end came in the middle of it, perhaps.
    units.pop();
    Some(units)
}

/// retina, over TCP or UDP; the error is its.
pub async fn retina(url: &str, codec: Codec, transport: Transport) -> Result<Vec<Digest>, String> {
    wait::within(&format!("retina at {url} over {transport}"), SOON * 2, play(url, codec, transport)).await
}

async fn play(url: &str, codec: Codec, transport: Transport) -> Result<Vec<Digest>, String> {
    let said = |error: retina::Error| error.to_string();
    let mut url: url::Url = url.parse().map_err(|error| format!("{error}"))?;
    let account =
        url.password().map(|password| Credentials { username: url.username().to_owned(), password: decoded(password) });
    let _ = (url.set_username(""), url.set_password(None));
    let mut session = Session::describe(url, SessionOptions::default().creds(account)).await.map_err(said)?;
    for index in 0..session.streams().len() {
        session.setup(index, SetupOptions::default().transport(transport.clone())).await.map_err(said)?;
    }
    let options = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    let playing = session.play(options).await.map_err(said)?;
    let mut frames = playing.demuxed().map_err(said)?;
    let mut units = Vec::new();
    while units.len() < UNITS {
        match frames.next().await.ok_or("the end")?.map_err(said)? {
            CodecItem::VideoFrame(frame) if frame.loss() > 0 => {
                return Err(format!("{} packets are lost", frame.loss()));
            }
            CodecItem::VideoFrame(frame) => {
                units.extend(by_length(frame.data()).filter(|unit| nal::counts(codec, unit)).map(Digest::of));
            }
            _ => {}
        }
    }
    Ok(units)
}

/// Units behind their lengths, four octets each, as retina hands a picture out.
fn by_length(mut picture: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = picture.split_first_chunk()?;
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        picture = rest;
        Some(unit)
    })
}

//! Three independent players as judges: each plays a URL for a while and tells what it got of picture and sound, byte by byte.

use std::fmt;
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
/// Octets of G.711 that each is asked to get at least: more than two of the clip's beeps, between which a hole would not show.
const SOUND: usize = 3 * 8_000;

/// What a player plays, or what a camera has.
#[derive(Clone)]
pub struct Media {
    /// The codec of the video.
    pub codec: Codec,
    /// Its units.
    pub units: Vec<Digest>,
    /// The octets of its A-law sound; `None` without a track of it.
    pub sound: Option<Vec<u8>>,
}

/// What is looked for at a URL.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The codec of the video.
    pub codec: Codec,
    /// Whether there is A-law sound beside it.
    pub sound: bool,
}

impl Media {
    /// What a player finds where this is shown.
    pub fn wanted(&self) -> Wanted {
        Wanted { codec: self.codec, sound: self.sound.is_some() }
    }

    /// Where `played` lies in this as one run without a hole, picture and sound each; the error says where it breaks.
    pub fn find_run(&self, played: &Self) -> Result<(), String> {
        nal::find_run(&self.units, &played.units)?;
        match (&self.sound, &played.sound) {
            (None, None) => Ok(()),
            (Some(made), Some(sound)) if sound.len() >= SOUND && made.windows(sound.len()).any(|run| run == sound) => {
                Ok(())
            }
            (_, sound) => Err(format!("the sound is another: {:?} octets", sound.as_ref().map(Vec::len))),
        }
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} units, {:?} octets of sound", self.units.len(), self.sound.as_ref().map(Vec::len))
    }
}

/// ffmpeg with `-c copy`. Nothing when it is not installed.
pub async fn ffmpeg(url: &str, wanted: Wanted, folder: &Path) -> Option<Media> {
    if !program::is_installed("ffmpeg", "ffmpeg") {
        return None;
    }
    let files = Files::new(folder, wanted);
    let form = if wanted.codec == Codec::H264 { "h264" } else { "hevc" };
    let (picture, sound) = (files.picture.to_string_lossy(), files.sound.to_string_lossy());
    let mut line = vec!["-v", "error", "-y", "-rtsp_transport", "tcp", "-i", url];
    line.extend(["-map", "0:v", "-c", "copy", "-flush_packets", "1", "-f", form, &picture]);
    if wanted.sound {
        line.extend(["-map", "0:a", "-c", "copy", "-flush_packets", "1", "-f", "alaw", &sound]);
    }
    let child = program::start("ffmpeg", &line);
    files.written("ffmpeg", child).await
}

/// `rtspsrc` with interleaved media. Nothing when it is not installed.
pub async fn gstreamer(url: &str, wanted: Wanted, folder: &Path) -> Option<Media> {
    if !program::is_installed("gst-launch-1.0", "gstreamer1.0-tools") {
        return None;
    }
    let files = Files::new(folder, wanted);
    let name = if wanted.codec == Codec::H264 { "h264" } else { "h265" };
    let into = |file: &Path| format!("filesink location={} buffer-mode=unbuffered sync=false", file.display());
    let mut line = format!(
        "-q -e rtspsrc location={url} protocols=tcp latency=200 name=source source. ! application/x-rtp,media=video ! \
         rtp{name}depay ! video/x-{name},stream-format=byte-stream ! {}",
        into(&files.picture)
    );
    if wanted.sound {
        line += &format!(" source. ! application/x-rtp,media=audio ! rtppcmadepay ! {}", into(&files.sound));
    }
    let child = program::start("gst-launch-1.0", &line.split(' ').collect::<Vec<_>>());
    files.written("gst-launch-1.0", child).await
}

/// What a program writes.
struct Files {
    wanted: Wanted,
    picture: PathBuf,
    sound: PathBuf,
}

impl Files {
    fn new(folder: &Path, wanted: Wanted) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [picture, sound] = ["picture", "sound"].map(|what| folder.join(format!("{what}-{number}")));
        Self { wanted, picture, sound }
    }

    fn read(&self) -> Media {
        let Wanted { codec, sound } = self.wanted;
        let units = nal::digests(codec, &program::written(&self.picture));
        Media { codec, units, sound: sound.then(|| program::written(&self.sound)) }
    }

    async fn written(&self, who: &str, child: tokio::process::Child) -> Option<Media> {
        wait::until(&format!("pictures and sound from {who}"), SOON * 2, || is_enough(&self.read())).await;
        program::end(who, child).await;
        let mut media = self.read();
        // The end came in the middle of it, perhaps.
        media.units.pop();
        Some(media)
    }
}

fn is_enough(media: &Media) -> bool {
    media.units.len() > UNITS && media.sound.as_ref().is_none_or(|sound| sound.len() >= SOUND)
}

/// retina, over TCP or UDP; the error is its.
pub async fn retina(url: &str, wanted: Wanted, transport: Transport) -> Result<Media, String> {
    wait::within(&format!("retina at {url} over {transport}"), SOON * 2, play(url, wanted, transport)).await
}

async fn play(url: &str, wanted: Wanted, transport: Transport) -> Result<Media, String> {
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
    let mut media = Media { codec: wanted.codec, units: Vec::new(), sound: wanted.sound.then(Vec::new) };
    while !is_enough(&media) {
        match frames.next().await.ok_or("the end")?.map_err(said)? {
            CodecItem::VideoFrame(frame) if frame.loss() > 0 => {
                return Err(format!("{} packets of the picture are lost", frame.loss()));
            }
            CodecItem::AudioFrame(frame) if frame.loss() > 0 => {
                return Err(format!("{} packets of the sound are lost", frame.loss()));
            }
            CodecItem::VideoFrame(frame) => {
                let counts = |unit: &&[u8]| nal::counts(wanted.codec, unit);
                media.units.extend(by_length(frame.data()).filter(counts).map(Digest::of));
            }
            CodecItem::AudioFrame(frame) => {
                media.sound.get_or_insert_default().extend_from_slice(frame.data());
            }
            _ => {}
        }
    }
    Ok(media)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_in_the_sound_is_found() {
        let made = Media {
            codec: Codec::H265,
            units: vec![Digest::of(b"1"), Digest::of(b"2")],
            sound: Some(crate::clip::read("second.alaw")),
        };
        let all = made.sound.as_ref().expect("it has some");
        let played = |sound: Option<Vec<u8>>| Media { sound, ..made.clone() };
        assert_eq!(made.find_run(&played(Some(all[100..100 + SOUND].to_vec()))), Ok(()));
        for lost in (0..SOUND).step_by(160) {
            let hole = [&all[..lost], &all[lost + 160..lost + 160 + SOUND]].concat();
            assert!(lost == 0 || made.find_run(&played(Some(hole))).is_err(), "a packet is lost at {lost}");
        }
        for wrong in [None, Some(all[..SOUND - 1].to_vec()), Some(vec![0xd5; SOUND])] {
            assert!(made.find_run(&played(wrong)).is_err());
        }
    }
}

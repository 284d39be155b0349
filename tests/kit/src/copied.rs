//! ffmpeg as a judge of whole streams: it copies pictures and sound of a URL, and notes the time of each packet as its demuxer tells it.

use std::path::{Path, PathBuf};

use camagent_core::Codec;
use tokio::process::{Child, Command};

use crate::nal::{self, Digest};
use crate::wait::{self, SOON};
use crate::{clip, program};

/// How often it is looked at what was copied.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);
/// Octets of a piece of G.711 in every script.
const G711_OCTETS: usize = 160;

/// A copy that is being made. Pictures are the first stream, sound the second.
pub struct Copying {
    child: Child,
    codecs: [Codec; 2],
    files: [PathBuf; 2],
    times: PathBuf,
    said: PathBuf,
}

/// What was copied of one stream.
#[derive(Clone, Debug, Default)]
pub struct Copied {
    /// The names of its units that count, in order.
    pub units: Vec<Digest>,
    /// Decoding times of its packets in seconds, in order.
    pub times_s: Vec<f64>,
    /// The same for presentation.
    pub shown_s: Vec<f64>,
    /// Length of a tick of its clock in seconds.
    pub tick_s: f64,
}

impl Copied {
    /// From each packet to the next, in seconds.
    pub fn steps_s(&self) -> Vec<f64> {
        self.times_s.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

impl Copying {
    /// Begins. `input` are options of the input; `codecs` are those of pictures and sound. Nothing when ffmpeg is not installed.
    pub fn start(input: &[&str], url: &str, codecs: [Codec; 2], folder: &Path) -> Option<Self> {
        if !program::is_installed("ffmpeg", "ffmpeg") {
            return None;
        }
        let forms = codecs.map(|codec| match codec {
            Codec::H264 => "h264",
            Codec::H265 => "hevc",
            Codec::Aac => "adts",
            Codec::Pcma => "alaw",
            _ => "mulaw",
        });
        let files = forms.map(|form| folder.join(format!("copied.{form}")));
        let (times, said) = (folder.join("copied.times"), folder.join("copied.said"));
        let mut ffmpeg = Command::new("ffmpeg");
        // Who repairs a time says so as a warning.
        ffmpeg.args(["-v", "warning", "-nostdin", "-y", "-copyts"]).args(input).args(["-i", url]);
        for ((file, form), map) in files.iter().zip(forms).zip(["0:v", "0:a"]) {
            ffmpeg.args(["-map", map, "-c", "copy", "-flush_packets", "1", "-f", form]).arg(file);
        }
        ffmpeg.args(["-map", "0:v", "-map", "0:a", "-c", "copy", "-flush_packets", "1", "-f", "framehash"]);
        ffmpeg.args(["-hash", "adler32"]).arg(&times);
        let log = std::fs::File::create(&said).expect("the folder can be written");
        let child = ffmpeg.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(log);
        let child = child.kill_on_drop(true).spawn().expect("ffmpeg is installed");
        Some(Self { child, codecs, files, times, said })
    }

    /// The names of the units of a stream (0: pictures, 1: sound) so far.
    pub fn units(&self, stream: usize) -> Vec<Digest> {
        let octets = program::written(&self.files[stream]);
        match self.codecs[stream] {
            Codec::Aac => {
                let frames = clip::adts_frames(&octets);
                frames.iter().map(|frame| Digest::of(clip::without_adts_header(frame))).collect()
            }
            codec @ (Codec::H264 | Codec::H265) => nal::digests(codec, &octets),
            _ => octets.chunks_exact(G711_OCTETS).map(Digest::of).collect(),
        }
    }

    /// Waits until a unit was copied.
    pub async fn wait_unit(&self, stream: usize, unit: Digest, longest: std::time::Duration) {
        let begun = tokio::time::Instant::now();
        while !self.units(stream).contains(&unit) {
            let said = self.said();
            assert!(
                begun.elapsed() < longest,
                "unit {unit:?} of stream {stream} is not at ffmpeg, which says {said:?}"
            );
            // All that was copied is read each time.
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What ffmpeg complained about.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Ends it while it copies: pictures and sound. The last unit of the pictures is left out, because the end may have come in the middle of it.
    pub async fn stop(mut self) -> [Copied; 2] {
        let runs = self.child.try_wait().expect("can be waited for").is_none();
        assert!(runs, "ffmpeg ended by itself: {}", self.said());
        let id = self.child.id().and_then(|id| libc::pid_t::try_from(id).ok()).expect("it runs");
        // SAFETY: kill takes no pointers; the child is ours and was not waited for yet.
        unsafe { libc::kill(id, libc::SIGINT) };
        wait::within("the end of a copy", SOON, self.child.wait()).await.expect("can be waited for");
        let mut copied = self.read();
        copied[0].units.pop();
        copied
    }

    /// Waits until it has copied everything: pictures and sound.
    pub async fn finish(mut self) -> [Copied; 2] {
        let status = wait::within("the end of a copy", SOON * 2, self.child.wait()).await.expect("can be waited for");
        assert!(status.success(), "ffmpeg says {}", self.said());
        self.read()
    }

    fn read(&self) -> [Copied; 2] {
        let text = std::fs::read_to_string(&self.times).unwrap_or_default();
        let mut copied = [0, 1].map(|stream| Copied { units: self.units(stream), ..Copied::default() });
        note_times(&text, &mut copied);
        copied
    }
}

/// Takes the times of packets from a list of the form `framehash`.
fn note_times(text: &str, copied: &mut [Copied; 2]) {
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        if let Some((stream, tick)) = line.strip_prefix("#tb ").and_then(|line| line.split_once(": ")) {
            let (top, bottom) = tick.split_once('/').expect("a fraction");
            let number = |text: &str| text.parse::<f64>().expect("a number");
            copied[stream.parse::<usize>().expect("a number")].tick_s = number(top) / number(bottom);
        }
        let fields: Vec<_> = line.split(',').map(|field| field.trim().parse::<i64>()).collect();
        if let [Ok(stream), Ok(decoded), Ok(shown), ..] = fields[..] {
            let copied = &mut copied[usize::try_from(stream).expect("a number")];
            copied.times_s.push(decoded as f64 * copied.tick_s);
            copied.shown_s.push(shown as f64 * copied.tick_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_seconds_of_each_stream() {
        let text = "#format: frame checksums\n#tb 0: 1/1200000\n#tb 1: 1/48000\n#stream#, dts, pts, duration, size, hash\n\
                    0,          0,      48000,    48000,     4675, dc659ab5\n1,       1024,       1024,     1024,      180, 45b7627b\n0, 12";
        let mut copied = [Copied::default(), Copied::default()];
        note_times(text, &mut copied);
        assert_eq!((copied[0].times_s.as_slice(), copied[0].shown_s.as_slice()), (&[0.0][..], &[0.04][..]));
        assert_eq!(copied[1].times_s, [1_024.0 / 48_000.0]);
        assert!(copied[0].steps_s().is_empty());
    }
}

//! Real players read what `fmp4` writes: ffprobe opens every file at every prefix that ends at a part, and ffmpeg decodes it
//! without a complaint.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use camagent_media::codec::aac::AdtsHeader;
use camagent_media::fmp4::{
    Chunk, InitTrack, MOVIE_TIMESCALE, Movie, MovieSample, MovieTrack, Sample, init, length_prefixed, part, timescale,
};
use camagent_media::{Codec, Framing, Parameters, TrackReader, annexb};

/// Samples of a clip, all of one duration.
struct Clip {
    parameters: Parameters,
    duration: u32,
    samples: Vec<(Vec<u8>, bool)>,
}

fn clip(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/clips").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pictures(codec: Codec, name: &str) -> Clip {
    let units = annexb::split(&clip(name).into()).expect("Annex B");
    let mut reader = TrackReader::new(codec, Framing::AnnexB, &[], 0, 0).expect("a track");
    let mut frames: Vec<Vec<Bytes>> = vec![Vec::new()];
    for unit in units {
        // One slice a picture in these clips: a picture ends with it.
        let is_slice = match codec {
            Codec::H264 => matches!(unit[0] & 0x1f, 1 | 5),
            _ => unit[0] >> 1 & 0x3f < 32,
        };
        frames.last_mut().expect("never empty").push(unit);
        if is_slice {
            frames.push(Vec::new());
        }
    }
    frames.pop();
    let samples = frames.iter().map(|frame| {
        let unit = reader.read(&annexb::join(frame).into()).expect("a frame");
        (length_prefixed(&unit.parts), unit.key)
    });
    let samples = samples.collect();
    Clip { parameters: reader.parameters().expect("sets").clone(), duration: 3_600, samples }
}

fn sound(codec: Codec, name: &str) -> Clip {
    let octets = clip(name);
    let (mut samples, mut config) = (Vec::new(), Vec::new());
    if codec == Codec::Aac {
        let mut at = 0;
        while at < octets.len() {
            let header = AdtsHeader::parse(&octets[at..], at).expect("ADTS");
            samples.push((octets[at + header.header_bytes..at + header.frame_bytes].to_vec(), true));
            config = header.config().to_vec();
            at += header.frame_bytes;
        }
    } else {
        samples = octets.chunks(320).map(|chunk| (chunk.to_vec(), true)).collect();
    }
    let rate = if codec == Codec::Aac { 48_000 } else { 8_000 };
    let reader = TrackReader::new(codec, Framing::Raw, &config, rate, 1).expect("a track");
    let duration = if codec == Codec::Aac { 1_024 } else { 320 };
    Clip { parameters: reader.parameters().expect("known").clone(), duration, samples }
}

fn clips() -> [(&'static str, Clip); 5] {
    [
        ("h264", pictures(Codec::H264, "main.h264")),
        ("hevc", pictures(Codec::H265, "second.h265")),
        ("aac", sound(Codec::Aac, "main.aac")),
        ("pcm_alaw", sound(Codec::Pcma, "second.alaw")),
        ("pcm_mulaw", sound(Codec::Pcmu, "second.ulaw")),
    ]
}

#[allow(clippy::print_stderr, reason = "a test that proves nothing must say so")]
fn installed() -> bool {
    let there = ["ffprobe", "ffmpeg"].iter().all(|program| Command::new(program).arg("-version").output().is_ok());
    if !there {
        assert!(std::env::var_os("CAMAGENT_CI_STRICT").is_none(), "ffmpeg is not installed (Debian package ffmpeg)");
        eprintln!("SKIPPED: ffmpeg is not installed (Debian package ffmpeg)");
    }
    there
}

/// Runs a program; what it printed, and what it complained about.
fn run(program: &str, arguments: &[&str]) -> (String, String) {
    let output = Command::new("timeout").arg("60").arg(program).args(arguments).output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("writes");
    path
}

fn probe(path: &Path, entries: &str) -> String {
    let path = path.to_str().expect("text");
    let (out, errors) =
        run("ffprobe", &["-v", "warning", "-count_packets", "-show_entries", entries, "-of", "csv=p=0", path]);
    assert_eq!(errors, "", "{path}");
    out.trim().to_owned()
}

#[test]
fn every_prefix_that_ends_at_a_part_opens() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    for (name, clip) in clips() {
        let mut file = init(&[InitTrack { id: 1, parameters: &clip.parameters }]);
        let (mut ends, mut decode_time) = (Vec::new(), 0);
        for (sequence, frames) in (1..).zip(clip.samples.chunks(40)) {
            let sample = |(bytes, key): &(Vec<u8>, bool)| Sample {
                duration: clip.duration,
                composition: 0,
                size: bytes.len() as u32,
                key: *key,
            };
            let samples: Vec<_> = frames.iter().map(sample).collect();
            let payload: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes).copied().collect();
            part(&mut file, sequence, 1, decode_time, &samples, &payload);
            decode_time += u64::from(clip.duration) * frames.len() as u64;
            ends.push((file.len(), (sequence as usize * 40).min(clip.samples.len())));
        }
        for (end, frames) in &ends {
            let path = write(folder.path(), "prefix.mp4", &file[..*end]);
            assert_eq!(probe(&path, "stream=codec_name,nb_read_packets"), format!("{name},{frames}"));
        }
        let path = write(folder.path(), "whole.mp4", &file);
        let (_, errors) = run("ffmpeg", &["-v", "warning", "-i", path.to_str().expect("text"), "-f", "null", "-"]);
        let complaints: Vec<_> = errors.lines().filter(|line| !line.contains("Guessed Channel Layout")).collect();
        assert_eq!(complaints, [""; 0], "{name} decodes");
    }
}

#[test]
fn a_movie_of_pictures_and_sound_plays_and_hides_its_lead_in() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let (video, audio) = (pictures(Codec::H264, "main.h264"), sound(Codec::Aac, "main.aac"));
    let track = |clip: &Clip, delay, skip| MovieTrack {
        timescale: timescale(&clip.parameters),
        entries: vec![clip.parameters.clone()],
        samples: clip
            .samples
            .iter()
            .map(|(bytes, key)| MovieSample {
                duration: clip.duration,
                composition: 0,
                size: bytes.len() as u32,
                key: *key,
            })
            .collect(),
        delay,
        skip,
    };
    let chunk = |track: usize, samples: &[(Vec<u8>, bool)]| Chunk {
        track,
        samples: samples.len() as u32,
        bytes: samples.iter().map(|(bytes, _)| bytes.len() as u64).sum(),
        entry: 0,
    };
    let (mut chunks, mut payload) = (Vec::new(), Vec::new());
    for (pictures, sounds) in video.samples.chunks(25).zip(audio.samples.chunks(47)) {
        for (index, samples) in [(0, pictures), (1, sounds)] {
            chunks.push(chunk(index, samples));
            samples.iter().for_each(|(bytes, _)| payload.extend_from_slice(bytes));
        }
    }
    // A second of pictures is only there to be decoded; sound begins half a second late.
    let movie = Movie {
        tracks: vec![track(&video, 0, 90_000), track(&audio, u64::from(MOVIE_TIMESCALE) / 2, 0)],
        chunks,
        duration: u64::from(MOVIE_TIMESCALE) * 7,
    };
    let mut file = movie.head();
    assert_eq!(movie.media_bytes(), payload.len() as u64);
    file.extend_from_slice(&payload);
    let path = write(folder.path(), "movie.mp4", &file);
    assert_eq!(probe(&path, "format=duration"), "7.000000");
    let path = path.to_str().expect("text");
    let (out, errors) = run("ffmpeg", &["-v", "warning", "-i", path, "-map", "0:v", "-f", "framemd5", "-"]);
    assert_eq!(errors, "");
    let frames = out.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(frames, 175, "seven of eight seconds are shown");
    let (out, _) =
        run("ffprobe", &["-v", "error", "-show_entries", "stream=codec_name,start_time", "-of", "csv=p=0", path]);
    assert_eq!(out.trim(), "h264,0.000000\naac,0.500000");
}

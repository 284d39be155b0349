//! What a camera plays: an endless flow of frames of a looped clip, video and audio on one clock, in the order of their
//! times. Each picture carries a message with a number of its own, and each piece of G.711 begins with one.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use camagent_core::{Codec, Framing, TrackDescription};

use crate::clip::{self, Picture};
use crate::nal::{self, Digest};

/// Track number of the video in every script.
pub const VIDEO: u32 = 0;
/// Track number of the audio in every script.
pub const AUDIO: u32 = 1;
/// The clips' frame rate of 25 in microseconds.
pub const PICTURE_US: i64 = 40_000;
/// Samples in an AAC unit.
const AAC_SAMPLES: i64 = 1_024;
const AAC_RATE: i64 = 48_000;
/// Samples in a piece of G.711: 20 ms.
const G711_SAMPLES: usize = 160;
const G711_RATE: i64 = 8_000;

/// Numbers of pictures and pieces, never given twice in a process.
static NEXT_NAME: AtomicU32 = AtomicU32::new(0);

/// One frame as a camera pushes it.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its track.
    pub track: u32,
    /// Presentation time from the beginning of the script.
    pub time_us: i64,
    /// Whether decoding can start here.
    pub key: bool,
    /// Its octets.
    pub data: Bytes,
    /// The names of the units in it that must arrive.
    pub units: Vec<Digest>,
}

/// An endless flow of frames.
#[derive(Clone, Debug)]
pub struct Script {
    video: Codec,
    /// Empty without video.
    pictures: Vec<Picture>,
    audio: Option<(Codec, Vec<Vec<u8>>)>,
    next_picture: usize,
    next_audio: usize,
    weight: usize,
}

impl Script {
    /// H.264 with AAC, 640x360 at 25 a second and 48 kHz mono.
    pub fn h264_aac() -> Self {
        let pictures = clip::pictures(Codec::H264, &clip::read("main.h264"));
        let audio = clip::adts_frames(&clip::read("main.aac"));
        Self {
            video: Codec::H264,
            pictures,
            audio: Some((Codec::Aac, audio)),
            next_picture: 0,
            next_audio: 0,
            weight: 0,
        }
    }

    /// H.265 with G.711 A-law, 640x360 at 25 a second and 8 kHz mono.
    pub fn h265_pcma() -> Self {
        Self::h265_with(Codec::Pcma, "second.alaw")
    }

    /// H.265 with G.711 mu-law.
    pub fn h265_pcmu() -> Self {
        Self::h265_with(Codec::Pcmu, "second.ulaw")
    }

    fn h265_with(law: Codec, name: &str) -> Self {
        let pictures = clip::pictures(Codec::H265, &clip::read("second.h265"));
        let audio = clip::read(name).chunks_exact(G711_SAMPLES).map(<[u8]>::to_vec).collect();
        Self { video: Codec::H265, pictures, audio: Some((law, audio)), next_picture: 0, next_audio: 0, weight: 0 }
    }

    /// Without the audio.
    pub fn without_audio(mut self) -> Self {
        self.audio = None;
        self
    }

    /// Without the video.
    pub fn without_video(mut self) -> Self {
        self.pictures = Vec::new();
        self
    }

    /// With so many octets more in each picture: what fills socket buffers soon.
    pub fn heavier_by(mut self, weight: usize) -> Self {
        self.weight = weight;
        self
    }

    /// H.264 of another level: as if somebody had changed the encoder's settings.
    pub fn with_level(mut self, level: u8) -> Self {
        const SPS: u8 = 7;
        let units = self.pictures.iter_mut().flat_map(|picture| &mut picture.units);
        units.filter(|unit| nal::kind(Codec::H264, unit) == SPS).for_each(|sps| sps[3] = level);
        self
    }

    /// With a key frame every `length` pictures: groups are cut off, or go on with the clip's other pictures.
    pub fn with_group_of(mut self, length: usize) -> Self {
        let keys: Vec<_> = self.pictures.iter().filter(|picture| picture.key).cloned().collect();
        let others: Vec<_> = self.pictures.iter().filter(|picture| !picture.key).cloned().collect();
        let mut others = others.into_iter().cycle();
        self.pictures = keys
            .into_iter()
            .flat_map(|key| std::iter::once(key).chain(others.by_ref().take(length - 1)).collect::<Vec<_>>())
            .collect();
        self
    }

    /// The codec of the video.
    pub fn video_codec(&self) -> Codec {
        self.video
    }

    /// The codec of the audio.
    pub fn audio_codec(&self) -> Option<Codec> {
        self.audio.as_ref().map(|(codec, _)| *codec)
    }

    /// The tracks as an agent announces them, for a source of its first camera.
    pub fn tracks(&self, source: &str) -> Vec<(u32, TrackDescription)> {
        let mut tracks = Vec::new();
        if !self.pictures.is_empty() {
            tracks.push((VIDEO, TrackDescription::video(source, self.video, Framing::AnnexB)));
        }
        match self.audio_codec() {
            Some(Codec::Aac) => {
                let audio = TrackDescription::audio(source, Codec::Aac, Framing::Adts, AAC_RATE as u32, 1);
                tracks.push((AUDIO, audio));
            }
            Some(law) => tracks.push((AUDIO, TrackDescription::audio(source, law, Framing::Raw, G711_RATE as u32, 1))),
            None => {}
        }
        tracks
    }

    /// The time of the next frame.
    pub fn next_time_us(&self) -> i64 {
        let picture_us = self.next_picture as i64 * PICTURE_US;
        match self.audio_us() {
            Some(audio_us) if audio_us < picture_us || self.pictures.is_empty() => audio_us,
            _ => picture_us,
        }
    }

    /// The next frame.
    pub fn next_piece(&mut self) -> Piece {
        let picture_us = self.next_picture as i64 * PICTURE_US;
        match self.audio_us() {
            Some(audio_us) if audio_us < picture_us || self.pictures.is_empty() => self.audio_piece(audio_us),
            _ => self.picture(picture_us),
        }
    }

    fn audio_us(&self) -> Option<i64> {
        let number = self.next_audio as i64;
        match self.audio.as_ref()?.0 {
            Codec::Aac => Some(number * AAC_SAMPLES * 1_000_000 / AAC_RATE),
            _ => Some(number * G711_SAMPLES as i64 * 1_000_000 / G711_RATE),
        }
    }

    fn picture(&mut self, time_us: i64) -> Piece {
        let picture = &self.pictures[self.next_picture % self.pictures.len()];
        self.next_picture += 1;
        let tag = nal::name_tag(self.video, NEXT_NAME.fetch_add(1, Ordering::Relaxed), self.weight);
        let (mut data, mut units) = (Vec::new(), Vec::new());
        let first_slice = picture.units.iter().position(|unit| nal::is_slice(self.video, unit)).unwrap_or(0);
        let (head, slices) = picture.units.split_at(first_slice);
        for unit in head.iter().chain([&tag]).chain(slices) {
            data.extend_from_slice(&[0, 0, 0, 1]);
            data.extend_from_slice(unit);
            if nal::counts(self.video, unit) {
                units.push(Digest::of(unit));
            }
        }
        Piece { track: VIDEO, time_us, key: picture.key, data: data.into(), units }
    }

    fn audio_piece(&mut self, time_us: i64) -> Piece {
        let Some((codec, pieces)) = &self.audio else { unreachable!("asked for with audio only") };
        let mut data = pieces[self.next_audio % pieces.len()].clone();
        self.next_audio += 1;
        let unit = if *codec == Codec::Aac {
            Digest::of(clip::without_adts_header(&data))
        } else {
            // Samples are any octets at all, so some of them can be a name.
            let name = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
            data[..4].copy_from_slice(&name.to_be_bytes());
            Digest::of(&data)
        };
        Piece { track: AUDIO, time_us, key: true, data: data.into(), units: vec![unit] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_never_go_back_and_groups_have_the_length_that_was_asked_for() {
        let mut script = Script::h264_aac().with_group_of(70);
        let (mut last, mut keys) = (0, Vec::new());
        for _ in 0..1_000 {
            let piece = script.next_piece();
            assert!(piece.time_us >= last);
            last = piece.time_us;
            if piece.track == VIDEO && piece.key {
                keys.push(piece.time_us / PICTURE_US);
            }
        }
        assert_eq!(keys[..4], [0, 70, 140, 210]);
    }
}

//! The head of a movie whose samples are all known (ISO/IEC 14496-12, 8.5 to 8.7): `ftyp`, `moov` with every sample table, and
//! the head of the one `mdat` behind it. Players know duration and seek points before the first picture, and its length is
//! known before a byte of the samples was read.
//!
//! Where tracks begin differently, or pictures before the wanted beginning are needed to decode it, an edit list (8.6.6) says
//! what is shown.

use alloc::vec::Vec;

use super::boxes::{i32_, put, put_full, u32_, u64_};
use super::entry::put_entry;
use super::init::{media, movie_header, track_header};
use crate::codec::Parameters;

/// Ticks in a second of the movie's own clock: durations and edit lists.
pub const MOVIE_TIMESCALE: u32 = 90_000;

/// A movie.
#[derive(Debug, Clone, Default)]
pub struct Movie {
    /// Its tracks; track_ID is the place here and one.
    pub tracks: Vec<MovieTrack>,
    /// How the samples lie in the `mdat`.
    pub chunks: Vec<Chunk>,
    /// How long the movie is shown, in ticks of [`MOVIE_TIMESCALE`].
    pub duration: u64,
}

/// One track.
#[derive(Debug, Clone)]
pub struct MovieTrack {
    /// What decoders must know: the first for the first samples, another where a camera changed. At least one, all of one codec.
    pub entries: Vec<Parameters>,
    /// Ticks in a second.
    pub timescale: u32,
    /// The samples in decoding order.
    pub samples: Vec<MovieSample>,
    /// Nothing is shown for so long, in ticks of [`MOVIE_TIMESCALE`], before the track begins.
    pub delay: u64,
    /// Ticks behind the decoding time of the first sample, at which what is shown begins.
    pub skip: u64,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovieSample {
    /// How long it lasts, in ticks.
    pub duration: u32,
    /// Presentation time minus decoding time, in ticks.
    pub composition: i32,
    /// Bytes.
    pub size: u32,
    /// Decoding can start here.
    pub key: bool,
}

/// Samples of one track that lie one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The track's place in [`Movie::tracks`].
    pub track: usize,
    /// How many samples, at least one.
    pub samples: u32,
    /// Their bytes.
    pub bytes: u64,
    /// The place of what decodes them in [`MovieTrack::entries`].
    pub entry: usize,
}

impl Movie {
    /// Everything before the first sample.
    pub fn head(&self) -> Vec<u8> {
        let mut head = self.head_at(0);
        let first = head.len() as u64;
        head = self.head_at(first);
        debug_assert_eq!(head.len() as u64, first, "offsets have one size");
        head
    }

    /// Bytes of all samples.
    pub fn media_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    fn head_at(&self, first: u64) -> Vec<u8> {
        let samples: usize = self.tracks.iter().map(|track| track.samples.len()).sum();
        let mut out = Vec::with_capacity(2048 + samples * 24 + self.chunks.len() * 20);
        put(&mut out, b"ftyp", |out| {
            out.extend_from_slice(b"isom");
            u32_(out, 512);
            out.extend_from_slice(b"isomiso2mp41");
        });
        put(&mut out, b"moov", |out| {
            let next = u32::try_from(self.tracks.len() + 1).unwrap_or(u32::MAX);
            movie_header(out, MOVIE_TIMESCALE, self.duration, next);
            for (index, track) in self.tracks.iter().enumerate() {
                put(out, b"trak", |out| self.track(out, index, track, first));
            }
        });
        // Always the long form, so that the head's size does not depend on the movie's.
        u32_(&mut out, 1);
        out.extend_from_slice(b"mdat");
        u64_(&mut out, 16 + self.media_bytes());
        out
    }

    fn track(&self, out: &mut Vec<u8>, index: usize, track: &MovieTrack, first: u64) {
        let Some(parameters) = track.entries.first() else { return };
        let duration: u64 = track.samples.iter().map(|sample| u64::from(sample.duration)).sum();
        let shown = self.duration.saturating_sub(track.delay);
        track_header(out, u32::try_from(index + 1).unwrap_or(u32::MAX), self.duration, parameters);
        put(out, b"edts", |out| {
            put_full(out, b"elst", 1, 0, |out| {
                u32_(out, 1 + u32::from(track.delay > 0));
                if track.delay > 0 {
                    edit(out, track.delay, u64::MAX);
                }
                edit(out, shown, track.skip);
            });
        });
        media(out, track.timescale, duration, parameters, |out| {
            put_full(out, b"stsd", 0, 0, |out| {
                u32_(out, u32::try_from(track.entries.len()).unwrap_or(u32::MAX));
                track.entries.iter().for_each(|entry| put_entry(out, entry));
            });
            let durations = runs(track.samples.iter().map(|sample| sample.duration));
            put_full(out, b"stts", 0, 0, |out| table(out, &durations, u32_));
            if track.samples.iter().any(|sample| sample.composition != 0) {
                let offsets = runs(track.samples.iter().map(|sample| sample.composition));
                put_full(out, b"ctts", 1, 0, |out| table(out, &offsets, i32_));
            }
            if track.samples.iter().any(|sample| !sample.key) {
                let keys = || (1..).zip(&track.samples).filter(|(_, sample)| sample.key).map(|(number, _)| number);
                put_full(out, b"stss", 0, 0, |out| {
                    u32_(out, u32::try_from(keys().count()).unwrap_or(u32::MAX));
                    keys().for_each(|number| u32_(out, number));
                });
            }
            self.places(out, index, first);
            put_full(out, b"stsz", 0, 0, |out| {
                u32_(out, 0);
                u32_(out, u32::try_from(track.samples.len()).unwrap_or(u32::MAX));
                track.samples.iter().for_each(|sample| u32_(out, sample.size));
            });
        });
    }

    /// `stsc` and `co64` (8.7.4, 8.7.5).
    fn places(&self, out: &mut Vec<u8>, index: usize, first: u64) {
        let own = || self.chunks.iter().filter(|chunk| chunk.track == index);
        let kinds = runs(own().map(|chunk| (chunk.samples, chunk.entry)));
        put_full(out, b"stsc", 0, 0, |out| {
            u32_(out, u32::try_from(kinds.len()).unwrap_or(u32::MAX));
            let mut chunk = 1;
            for (count, (samples, entry)) in kinds {
                u32_(out, chunk);
                u32_(out, samples);
                u32_(out, u32::try_from(entry + 1).unwrap_or(u32::MAX));
                chunk += count;
            }
        });
        put_full(out, b"co64", 0, 0, |out| {
            u32_(out, u32::try_from(own().count()).unwrap_or(u32::MAX));
            let mut at = first;
            for chunk in &self.chunks {
                if chunk.track == index {
                    u64_(out, at);
                }
                at += chunk.bytes;
            }
        });
    }
}

fn edit(out: &mut Vec<u8>, duration: u64, media_time: u64) {
    u64_(out, duration);
    u64_(out, media_time);
    u32_(out, 0x1_0000);
}

/// Equal values that follow each other, with their count.
fn runs<T: PartialEq + Copy>(values: impl Iterator<Item = T>) -> Vec<(u32, T)> {
    let mut runs: Vec<(u32, T)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((count, last)) if *last == value => *count += 1,
            _ => runs.push((1, value)),
        }
    }
    runs
}

fn table<T: Copy>(out: &mut Vec<u8>, runs: &[(u32, T)], mut write: impl FnMut(&mut Vec<u8>, T)) {
    u32_(out, u32::try_from(runs.len()).unwrap_or(u32::MAX));
    for (count, value) in runs {
        u32_(out, *count);
        write(out, *value);
    }
}

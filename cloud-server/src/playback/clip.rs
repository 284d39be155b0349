//! A time of a source as one MP4: pictures and sound, a head that knows every sample, and the samples where they are. The file is
//! never made: its length is known from the heads of the parts, and whoever wants bytes of it gets them from the recorded files.
//!
//! The clip shows what was seen between two moments of UTC. It begins with the key frame at or before the first of them; an edit
//! list hides what is before. A time without frames stays as long as it was: the picture before it stands still. A file that cannot be read is such a
//! time.

use std::ops::Range;

use bytes::Bytes;
use camagent_media::fmp4::{Chunk, MOVIE_TIMESCALE, Movie, MovieSample, MovieTrack, timescale};
use camagent_media::{Codec, Parameters};

use super::pace::Pace;
use super::samples::{self, Sample, SampleTable};
use crate::error::Error;
use crate::record::coverage::is_video;
use crate::record::{Archive, Found};

/// The longest clip: three hours are some 50 MB of tables in memory.
pub const LONGEST_US: i64 = 3 * 3_600 * 1_000_000;
/// A key frame is looked for so long before the beginning.
const LOOK_BACK_US: i64 = 600 * 1_000_000;
/// Pictures and sound alternate in pieces of this length.
const INTERLEAVE_US: i64 = 1_000_000;

/// A difference between where sound should be and where it says it is that is no hole.
const SOUND_JITTER_US: i64 = 60_000;

/// Why there is no clip.
#[derive(Debug)]
pub enum ClipError {
    /// Nothing is recorded of that time.
    Nothing,
    /// It is longer than [`LONGEST_US`].
    TooLong,
    /// Pictures are coded another way from this moment on, UTC in microseconds: no one file can hold both.
    CodecChanges(i64),
    /// None of the files can be read, or the index cannot.
    Failed(Error),
}

impl From<Error> for ClipError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A clip.
pub struct Clip {
    head: Bytes,
    files: Vec<Found>,
    pieces: Vec<Piece>,
    length: u64,
    /// UTC of what is shown first, microseconds since 1970.
    pub start_us: i64,
    /// UTC of the end.
    pub end_us: i64,
}

/// Bytes of one file, and where they are in the clip.
#[derive(Clone, Copy, Debug)]
struct Piece {
    clip_at: u64,
    file: usize,
    at: u64,
    bytes: u64,
}

/// A sample and the file it is in.
#[derive(Clone, Copy)]
struct Placed {
    file: usize,
    entry: usize,
    sample: Sample,
}

#[derive(Default)]
struct Kind {
    entries: Vec<Parameters>,
    samples: Vec<Placed>,
}

impl Clip {
    /// Prepares a clip of a source from one moment of UTC to another.
    pub async fn make(
        archive: &Archive,
        camera: &str,
        source: &str,
        from_us: i64,
        to_us: i64,
    ) -> Result<Self, ClipError> {
        if to_us.saturating_sub(from_us) > LONGEST_US {
            return Err(ClipError::TooLong);
        }
        let (mut files, mut tables, mut damage) = (Vec::new(), Vec::new(), None);
        for file in archive.find(camera, source, from_us, to_us).await? {
            match samples::read(archive, &file).await {
                Ok(table) => {
                    tables.push(table);
                    files.push(file);
                }
                Err(error) => {
                    tracing::warn!(%error, "a recorded file is left out of a clip");
                    damage = Some(error);
                }
            }
        }
        if files.is_empty() {
            return Err(damage.map_or(ClipError::Nothing, ClipError::Failed));
        }
        reach_key(archive, camera, source, from_us, &mut files, &mut tables).await?;
        even(&files, &mut tables);
        let (mut video, mut audio) = (Kind::default(), Kind::default());
        for (file, table) in tables.into_iter().enumerate() {
            let is_video = table.parameters.codec().is_video();
            let kind = if is_video { &mut video } else { &mut audio };
            if let Some(first) = kind.entries.first()
                && (first.codec(), timescale(first)) != (table.parameters.codec(), timescale(&table.parameters))
            {
                if is_video {
                    return Err(ClipError::CodecChanges(table.samples.first().map_or(from_us, |sample| sample.utc_us)));
                }
                // Sound that no longer fits is left out; pictures go on.
                continue;
            }
            let known = kind.entries.iter().position(|entry| *entry == table.parameters);
            let entry = known.unwrap_or_else(|| {
                kind.entries.push(table.parameters.clone());
                kind.entries.len() - 1
            });
            kind.samples.extend(table.samples.into_iter().map(|sample| Placed { file, entry, sample }));
        }
        for kind in [&mut video, &mut audio] {
            // Late frames are in files of their own, between others in time.
            kind.samples.sort_by_key(|placed| (placed.sample.utc_us, placed.sample.sequence));
        }
        lead_in(&mut video.samples, from_us);
        let ends_us = |sample: &Sample| sample.utc_us.saturating_add(sample.lasts_us);
        audio.samples.retain(|placed| ends_us(&placed.sample) > from_us);
        for kind in [&mut video, &mut audio] {
            kind.samples.retain(|placed| placed.sample.utc_us < to_us);
        }
        let all = || video.samples.iter().chain(&audio.samples);
        let Some(first_us) = all().map(|placed| placed.sample.utc_us + placed.sample.composition_us).min() else {
            return Err(ClipError::Nothing);
        };
        let start_us = from_us.max(first_us);
        let end_us = all().map(|placed| ends_us(&placed.sample)).max().unwrap_or(start_us).min(to_us);
        if end_us <= start_us {
            return Err(ClipError::Nothing);
        }
        Ok(Self::build(files, [video, audio], start_us, end_us))
    }

    fn build(files: Vec<Found>, kinds: [Kind; 2], start_us: i64, end_us: i64) -> Self {
        let kinds: Vec<_> = kinds.into_iter().filter(|kind| !kind.samples.is_empty()).collect();
        let tracks = kinds.iter().map(|kind| track(kind, &files, start_us)).collect();
        let (mut chunks, mut pieces): (Vec<Chunk>, Vec<Piece>) = (Vec::new(), Vec::new());
        let mut next = vec![0; kinds.len()];
        let mut until_us = i64::MIN;
        loop {
            let waiting = kinds.iter().zip(&next).filter_map(|(kind, next)| kind.samples.get(*next));
            let Some(earliest) = waiting.map(|placed| placed.sample.utc_us).min() else { break };
            until_us = until_us.max(earliest.saturating_add(INTERLEAVE_US));
            for (track, kind) in kinds.iter().enumerate() {
                let mut open: Option<Chunk> = None;
                while let Some(placed) = kind.samples.get(next[track]).filter(|placed| placed.sample.utc_us < until_us)
                {
                    next[track] += 1;
                    let bytes = u64::from(placed.sample.bytes);
                    match &mut open {
                        Some(chunk) if chunk.entry == placed.entry => {
                            chunk.samples += 1;
                            chunk.bytes += bytes;
                        }
                        other => chunks.extend(other.replace(Chunk { track, samples: 1, bytes, entry: placed.entry })),
                    }
                    let clip_at = pieces.last().map_or(0, |piece| piece.clip_at + piece.bytes);
                    match pieces.last_mut() {
                        Some(piece) if piece.file == placed.file && piece.at + piece.bytes == placed.sample.at => {
                            piece.bytes += bytes;
                        }
                        _ => pieces.push(Piece { clip_at, file: placed.file, at: placed.sample.at, bytes }),
                    }
                }
                chunks.extend(open);
            }
        }
        let duration = ticks(end_us - start_us, MOVIE_TIMESCALE);
        let movie = Movie { tracks, chunks, duration: u64::try_from(duration).unwrap_or(0) };
        let head = Bytes::from(movie.head());
        let length = head.len() as u64 + movie.media_bytes();
        let head_bytes = head.len() as u64;
        pieces.iter_mut().for_each(|piece| piece.clip_at += head_bytes);
        Self { head, files, pieces, length, start_us, end_us }
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Names this very content (RFC 9110 8.8.3).
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{:08x}-{:x}\"", crc32fast::hash(&self.head), self.length)
    }

    /// Reads from a place on: something, but not necessarily all of what is asked for.
    pub async fn read(&self, archive: &Archive, range: Range<u64>) -> Result<Bytes, Error> {
        let head_bytes = self.head.len() as u64;
        if range.start < head_bytes {
            let (start, end) = (range.start as usize, range.end.min(head_bytes) as usize);
            return Ok(self.head.slice(start..end));
        }
        let index = self.pieces.partition_point(|piece| piece.clip_at + piece.bytes <= range.start);
        let Some(piece) = self.pieces.get(index) else { return Ok(Bytes::new()) };
        let within = range.start - piece.clip_at;
        let bytes = (piece.bytes - within).min(range.end - range.start);
        let start = piece.at + within;
        let data = archive.read(&self.files[piece.file], start..start + bytes).await?;
        if data.is_empty() {
            let reason = "it was cut while it was read".to_owned();
            return Err(Error::Recordings { path: self.files[piece.file].name.clone().into(), reason });
        }
        Ok(data)
    }
}

/// Dates all samples anew, the earliest file first.
fn even(files: &[Found], tables: &mut [SampleTable]) {
    let mut both: Vec<_> = files.iter().zip(tables).collect();
    both.sort_by_key(|(file, _)| file.start_us());
    let mut pace = Pace::default();
    for (file, table) in both {
        table.samples.iter_mut().for_each(|sample| pace.place(&file.key, sample));
    }
}

/// When the first picture cannot be decoded by itself, the files before it are looked through for a key frame.
async fn reach_key(
    archive: &Archive,
    camera: &str,
    source: &str,
    from_us: i64,
    files: &mut Vec<Found>,
    tables: &mut Vec<SampleTable>,
) -> Result<(), ClipError> {
    let mut earlier: Option<Vec<Found>> = None;
    loop {
        let pictures = files.iter().zip(tables.iter()).filter(|(file, _)| is_video(file));
        let Some((first, table)) = pictures.min_by_key(|(file, _)| file.start_us()) else { return Ok(()) };
        if table.samples.iter().take_while(|sample| sample.utc_us <= from_us).any(|sample| sample.key) {
            return Ok(());
        }
        if table.samples.first().is_none_or(|sample| sample.key) {
            return Ok(());
        }
        let (key, number) = (first.key.clone(), first.runs.first().map_or(0, |run| run.first));
        if earlier.is_none() {
            earlier = Some(archive.find(camera, source, from_us.saturating_sub(LOOK_BACK_US), from_us).await?);
        }
        let before = earlier
            .iter_mut()
            .flatten()
            .find(|file| file.key == key && file.runs.last().is_some_and(|run| run.next == number));
        let Some(before) = before.cloned() else { return Ok(()) };
        // Without it the clip begins with a later key frame.
        let Ok(table) = samples::read(archive, &before).await else { return Ok(()) };
        tables.push(table);
        files.push(before);
    }
}

/// Pictures begin with the last key frame at or before the beginning, if what follows it is whole; else with the first after.
fn lead_in(samples: &mut Vec<Placed>, from_us: i64) {
    let shown = |placed: &Placed| placed.sample.utc_us + placed.sample.composition_us;
    let before = samples.iter().rposition(|placed| placed.sample.key && shown(placed) <= from_us);
    let first = before.or_else(|| samples.iter().position(|placed| placed.sample.key));
    match first {
        Some(first) => drop(samples.drain(..first)),
        None => samples.clear(),
    }
}

/// Whether nothing is missing between two samples.
fn goes_on(files: &[Found], one: &Placed, other: &Placed) -> bool {
    files[one.file].key == files[other.file].key && other.sample.sequence.wrapping_sub(one.sample.sequence) <= 1
}

fn track(kind: &Kind, files: &[Found], start_us: i64) -> MovieTrack {
    let timescale = kind.entries.first().map_or(90_000, timescale);
    let base_us = kind.samples.first().map_or(0, |placed| placed.sample.utc_us);
    let is_sound = kind.entries.first().is_some_and(|entry| !matches!(entry.codec(), Codec::H264 | Codec::H265));
    let mut places: Vec<i64> = Vec::with_capacity(kind.samples.len());
    let mut before: Option<&Placed> = None;
    for placed in &kind.samples {
        let own = ticks(placed.sample.utc_us - base_us, timescale);
        let last = places.last().copied().unwrap_or(-1);
        // Sound is pushed unevenly, but it is one flow: where a file ends and the next goes on with it too.
        let expected = before.filter(|before| is_sound && goes_on(files, before, placed));
        let expected = expected.map(|before| last + ticks(before.sample.lasts_us, timescale));
        let near = ticks(SOUND_JITTER_US, timescale);
        places.push(expected.filter(|at| (own - at).abs() <= near).unwrap_or(own).max(last + 1));
        before = Some(placed);
    }
    let mut samples = Vec::with_capacity(places.len());
    for (index, placed) in kind.samples.iter().enumerate() {
        let own = ticks(placed.sample.lasts_us, timescale);
        let lasts = places.get(index + 1).map_or(own, |next| next - places[index]);
        let moved = ticks(placed.sample.utc_us - base_us, timescale) - places[index];
        let composition = ticks(placed.sample.composition_us, timescale) + moved;
        samples.push(MovieSample {
            duration: u32::try_from(lasts.max(1)).unwrap_or(u32::MAX),
            composition: if is_sound { 0 } else { i32::try_from(composition).unwrap_or(0) },
            size: placed.sample.bytes,
            key: placed.sample.key,
        });
    }
    let first_shown_us = kind.samples.first().map_or(start_us, |placed| base_us + placed.sample.composition_us);
    let delay_us = (first_shown_us - start_us).max(0);
    let skip_us = (start_us - base_us).max(first_shown_us - base_us);
    let positive = |ticks: i64| u64::try_from(ticks).unwrap_or(0);
    MovieTrack {
        entries: kind.entries.clone(),
        timescale,
        samples,
        delay: positive(ticks(delay_us, MOVIE_TIMESCALE)),
        skip: positive(ticks(skip_us, timescale)),
    }
}

/// Ticks of a time, rounded to the nearest.
fn ticks(us: i64, timescale: u32) -> i64 {
    let ticks = i128::from(us) * i128::from(timescale);
    i64::try_from((ticks + 500_000 * ticks.signum()) / 1_000_000).unwrap_or(0)
}

//! The recorded samples of a source in the order in which they are shown, as time passes. A file that grows is read on where it
//! ended, and what an agent sent late is in other files of the same time: so each look finds what is new, and a sample is given
//! out once. Samples are places in files here; their bytes are read by [`Reel::bytes`].
//!
//! Frames of one numbering are in the order of their numbers, also where the times of two lanes differ a little; others are in the
//! order of time.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use camagent_media::Parameters;

use super::pace::Pace;
use super::samples::{PartReader, ReadPart, Sample};
use crate::error::Result;
use crate::ingest::TrackKey;
use crate::record::{Archive, Found};

/// Two lanes may tell the same moment this far apart.
const SEAM_US: i64 = 2_000_000;
/// How far before the first moment a key frame is looked for.
pub const LOOK_BACK_US: i64 = 30_000_000;
/// What a look changes the pace by at most: a looker comes twice a second, and a fifth of a thousandth is no jump.
const FOLLOW_US: i64 = 100;
/// Bytes of a track that are taken at once.
const MOST_BYTES: u64 = 8 << 20;

/// A sample of a track.
#[derive(Clone, Debug)]
pub struct Placed {
    /// When it is due: UTC of its decoding, never earlier than the one before.
    pub due_us: i64,
    /// Where and what it is.
    pub sample: Sample,
    /// What a decoder must know.
    pub parameters: Arc<Parameters>,
    /// Frames before it are missing.
    pub discontinuity: bool,
    file: Arc<Found>,
    /// Which sample of its frame.
    within: u32,
    /// It follows the frame before this number.
    after: u64,
    /// The number behind it, and behind frames without samples that follow.
    next: u64,
}

/// Pictures, or sound.
#[derive(Default)]
struct Kind {
    pending: Vec<Placed>,
    last: Option<Last>,
    floor_us: i64,
}

/// What was given out last.
struct Last {
    key: TrackKey,
    sequence: u64,
    within: u32,
    next: u64,
    due_us: i64,
}

/// The samples of one source.
pub struct Reel {
    camera: String,
    source: String,
    from_us: i64,
    begun: bool,
    files: BTreeMap<(TrackKey, u64), (Arc<Parameters>, PartReader)>,
    kinds: [Kind; 2],
    pace: Pace,
}

impl Reel {
    /// Begins at the last key frame at or before a moment, or with the first one after it.
    #[must_use]
    pub fn new(camera: &str, source: &str, from_us: i64) -> Self {
        Self {
            camera: camera.to_owned(),
            source: source.to_owned(),
            from_us,
            begun: false,
            files: BTreeMap::new(),
            kinds: [Kind::default(), Kind::default()],
            pace: Pace::default(),
        }
    }

    /// What a decoder must know of the first pictures and the first sound between two moments.
    pub async fn formats(&self, archive: &Archive, from_us: i64, to_us: i64) -> Result<Vec<Parameters>> {
        let rows = archive.find(&self.camera, &self.source, from_us.saturating_sub(LOOK_BACK_US), to_us).await?;
        let mut formats: Vec<Parameters> = Vec::new();
        for is_video in [true, false] {
            if let Some(row) = rows.iter().find(|row| crate::record::coverage::is_video(row) == is_video) {
                formats.push(PartReader::open(archive, row).await?.parameters);
            }
        }
        Ok(formats)
    }

    /// Finds what is new of the time before `until_us`; `now_us` is the moment that is being shown.
    pub async fn look(&mut self, archive: &Archive, now_us: i64, until_us: i64) -> Result<()> {
        let back_us = if self.begun { 2 * SEAM_US } else { LOOK_BACK_US };
        let (from_us, to_us) = (now_us.saturating_sub(back_us), until_us.saturating_add(SEAM_US));
        let rows = archive.find(&self.camera, &self.source, from_us, to_us).await?;
        self.pace.follow(FOLLOW_US);
        let name = |row: &Found| (row.key.clone(), row.runs.first().map_or(0, |run| run.first));
        self.files.retain(|known, _| rows.iter().any(|row| name(row) == *known));
        for row in rows {
            let name = name(&row);
            if !self.files.contains_key(&name) {
                match PartReader::open(archive, &row).await {
                    Ok(reader) => drop(self.files.insert(name.clone(), (Arc::new(reader.parameters.clone()), reader))),
                    // Retention may have been quicker; the others are played.
                    Err(error) => tracing::debug!(%error, "a recorded file is left out"),
                }
            }
            let Some((parameters, reader)) = self.files.get_mut(&name) else { continue };
            let row = Arc::new(row);
            loop {
                let mut part = match reader.next(archive, &row).await {
                    Ok(Some(part)) => part,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "a part of a recorded file is left out");
                        break;
                    }
                };
                let is_beyond = part.utc_us >= to_us;
                part.samples.iter_mut().for_each(|sample| self.pace.place(&row.key, sample));
                self.kinds[usize::from(!parameters.codec().is_video())].add(&row, parameters, part);
                if is_beyond {
                    break;
                }
            }
        }
        if !self.begun {
            self.begin(now_us);
        }
        Ok(())
    }

    /// Pictures begin with a key frame, and sound with the pictures.
    fn begin(&mut self, now_us: i64) {
        let [video, audio] = &mut self.kinds;
        let too_old_us = self.from_us.max(now_us).saturating_sub(LOOK_BACK_US);
        let keys = || video.pending.iter().filter(|placed| placed.sample.key).map(|placed| placed.sample.utc_us);
        let first_us = keys().filter(|utc_us| *utc_us <= now_us).max().or_else(|| keys().min());
        let floor_us = match first_us {
            Some(first_us) => first_us,
            None if video.pending.is_empty() && !audio.pending.is_empty() => now_us,
            None => too_old_us,
        };
        self.begun = first_us.is_some() || floor_us == now_us;
        for kind in [video, audio] {
            kind.floor_us = floor_us;
            kind.pending.retain(|placed| placed.sample.utc_us >= floor_us);
        }
    }

    /// Takes what is due before a moment, pictures and sound in the order of time. True with it: there is more.
    pub fn take(&mut self, until_us: i64) -> (Vec<Placed>, bool) {
        if !self.begun {
            return (Vec::new(), false);
        }
        let mut taken = Vec::new();
        let mut more = false;
        for kind in &mut self.kinds {
            more |= kind.take(until_us, &mut taken);
        }
        (taken, more)
    }

    /// Reads the bytes of samples, in pieces as long as they lie one behind the other; a sample that cannot be read is left out.
    pub async fn bytes(archive: &Archive, samples: Vec<Placed>) -> Vec<(Placed, Bytes)> {
        let mut read = Vec::with_capacity(samples.len());
        let follows = |one: &Placed, other: &Placed| {
            Arc::ptr_eq(&one.file, &other.file) && one.sample.at + u64::from(one.sample.bytes) == other.sample.at
        };
        for piece in samples.chunk_by(follows) {
            let (Some(first), Some(last)) = (piece.first(), piece.last()) else { continue };
            let (start, end) = (first.sample.at, last.sample.at + u64::from(last.sample.bytes));
            let mut bytes = match archive.read(&first.file, start..end).await {
                Ok(bytes) if bytes.len() as u64 == end - start => bytes,
                other => {
                    tracing::debug!(file = first.file.name, error = ?other.err(), "recorded frames are left out");
                    continue;
                }
            };
            for placed in piece {
                read.push((placed.clone(), bytes.split_to(placed.sample.bytes as usize)));
            }
        }
        read
    }
}

impl Kind {
    fn add(&mut self, file: &Arc<Found>, parameters: &Arc<Parameters>, part: ReadPart) {
        let before = self.pending.len();
        if part.samples.is_empty() {
            // Frames without samples, of parameter sets for one: what follows them follows what was before them.
            let known = self.pending.iter_mut().find(|placed| placed.file.key == file.key && placed.next == part.first);
            if let Some(placed) = known {
                placed.next = part.next;
            } else if let Some(last) = &mut self.last
                && last.key == file.key
                && last.next == part.first
            {
                last.next = part.next;
            }
            return;
        }
        let (mut sequence, mut within) = (None, 0);
        for sample in part.samples {
            within = if sequence == Some(sample.sequence) { within + 1 } else { 0 };
            let after = if sequence.is_none() { part.first } else { 0 };
            sequence = Some(sample.sequence);
            self.pending.push(Placed {
                due_us: sample.utc_us,
                parameters: Arc::clone(parameters),
                discontinuity: false,
                file: Arc::clone(file),
                within,
                after,
                next: sample.sequence + 1,
                sample,
            });
        }
        if let Some(last) = self.pending.last_mut() {
            last.next = part.next;
        }
        // Nothing grows by what is over.
        let fresh = self.pending.split_off(before);
        self.pending.extend(fresh.into_iter().filter(|placed| is_new(placed, self.last.as_ref(), self.floor_us)));
    }

    fn take(&mut self, until_us: i64, taken: &mut Vec<Placed>) -> bool {
        let place = |placed: &Placed| (placed.sample.sequence, placed.within);
        self.pending.sort_by(|one, other| (&one.file.key, place(one)).cmp(&(&other.file.key, place(other))));
        self.pending.dedup_by(|one, other| one.file.key == other.file.key && place(one) == place(other));
        let mut before: Option<(&TrackKey, i64)> = self.last.as_ref().map(|last| (&last.key, last.due_us));
        let pending = std::mem::take(&mut self.pending);
        let dues: Vec<_> = pending
            .iter()
            .map(|placed| {
                let own_us = placed.sample.utc_us;
                let due_us = match before {
                    Some((key, at_us)) if *key == placed.file.key && at_us.saturating_sub(own_us) <= SEAM_US => {
                        own_us.max(at_us)
                    }
                    _ => own_us,
                };
                before = Some((&placed.file.key, due_us));
                due_us
            })
            .collect();
        self.pending = pending;
        self.pending.iter_mut().zip(dues).for_each(|(placed, due_us)| placed.due_us = due_us);
        // Stable: within one numbering the order of numbers stays.
        self.pending.sort_by_key(|placed| placed.due_us);
        let mut bytes = 0;
        let mut count = 0;
        for placed in &mut self.pending {
            if placed.due_us >= until_us || bytes > MOST_BYTES {
                break;
            }
            count += 1;
            if !is_new(placed, self.last.as_ref(), self.floor_us) {
                continue;
            }
            let goes_on = |last: &Last| last.key == placed.file.key && placed.after <= last.next;
            placed.discontinuity = !self.last.as_ref().is_none_or(goes_on);
            bytes += u64::from(placed.sample.bytes);
            self.last = Some(Last {
                key: placed.file.key.clone(),
                sequence: placed.sample.sequence,
                within: placed.within,
                next: placed.next,
                due_us: placed.due_us,
            });
            taken.push(placed.clone());
        }
        self.pending.drain(..count);
        self.pending.first().is_some_and(|placed| placed.due_us < until_us)
    }
}

/// Whether a sample comes behind what was given out.
fn is_new(placed: &Placed, last: Option<&Last>, floor_us: i64) -> bool {
    match last {
        None => placed.sample.utc_us >= floor_us,
        Some(last) if last.key == placed.file.key => {
            (placed.sample.sequence, placed.within) > (last.sequence, last.within)
        }
        Some(last) => placed.sample.utc_us > last.due_us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, times: &[i64]) -> ReadPart {
        let sample = |(index, utc_us): (usize, &i64)| Sample {
            sequence: first + index as u64,
            utc_us: *utc_us,
            camera_us: *utc_us,
            composition_us: 0,
            lasts_us: 40,
            key: index == 0,
            at: 0,
            bytes: 10,
        };
        let samples: Vec<_> = times.iter().enumerate().map(sample).collect();
        ReadPart { first, next: first + times.len() as u64, utc_us: times.first().copied().unwrap_or(0), samples }
    }

    fn file(boot: u8) -> Arc<Found> {
        Arc::new(Found {
            name: String::new(),
            camera: String::new(),
            source: String::new(),
            key: TrackKey { agent: String::new(), boot: [boot; 16], track: 0, epoch: 0 },
            codec: "PCMA".into(),
            bytes: 0,
            runs: Vec::new(),
        })
    }

    fn take(kind: &mut Kind, until_us: i64) -> Vec<(u64, bool)> {
        let mut taken = Vec::new();
        kind.take(until_us, &mut taken);
        taken.iter().map(|placed| (placed.sample.sequence, placed.discontinuity)).collect()
    }

    #[test]
    fn what_comes_late_is_in_its_place_and_comes_once() {
        let law = camagent_media::codec::g711::Law::A;
        let parameters = Arc::new(Parameters::G711 { law, sample_rate: 8_000, channels: 1 });
        let mut kind = Kind::default();
        kind.add(&file(1), &parameters, part(0, &[100, 140]));
        assert_eq!(take(&mut kind, 130), [(0, false)]);
        kind.add(&file(1), &parameters, part(4, &[260, 300]));
        // Of the lane that brings 2 and 3 the clock is a little ahead.
        kind.add(&file(1), &parameters, part(2, &[230, 270]));
        assert_eq!(take(&mut kind, 265), [(1, false), (2, false)], "4 is not due before 3 is");
        kind.add(&file(1), &parameters, part(2, &[230, 270]));
        assert_eq!(take(&mut kind, 301), [(3, false), (4, false), (5, false)]);
        kind.add(&file(1), &parameters, part(6, &[]));
        kind.add(&file(1), &parameters, part(8, &[400]));
        kind.add(&file(2), &parameters, part(0, &[90, 500]));
        assert_eq!(
            take(&mut kind, 1_000),
            [(8, true), (1, true)],
            "6 and 7 are missing, and another run is another flow"
        );
        assert!(kind.pending.is_empty());
    }
}

//! A recorded file: fragmented MP4 (`camagent_media::fmp4`) of one track, with two kinds of boxes of our own between. Players
//! pass over them.
//!
//! Behind `moov`, a `uuid` box "camagent segment" says whose frames these are; before each part, a `uuid` box "camagent frames."
//! says which, when, and has the CRC-32 of itself and the part. So a file explains itself: the index can be made anew from the
//! files alone, and a part that a power cut tore is known, also where a file system left zeros. All integers are big-endian.

use camagent_media::fmp4::{self, Cut, Found, InitTrack, Part};
use camagent_media::{MediaError, Parameters};

use super::{Flow, TrackKey};

/// track_ID of the one track.
pub const TRACK: u32 = 1;
const HEAD: &[u8; 16] = b"camagent segment";
const PART: &[u8; 16] = b"camagent frames.";
/// The layout of both boxes.
const VERSION: u8 = 1;
/// A pause within a file that is longer than this begins another run.
const PAUSE_US: i64 = 1_000_000;

/// Whose frames a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The store that wrote it.
    pub storage_epoch: [u8; 16],
    /// What the numbers count in.
    pub key: TrackKey,
    /// The camera.
    pub camera: String,
    /// The source.
    pub source: String,
}

/// Frames of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The number of the first; the others follow without a hole.
    pub first: u64,
    /// How many.
    pub frames: u32,
    /// UTC at the decoding time of the first sample, microseconds since 1970.
    pub utc_us: i64,
    /// The camera's own presentation time of the first frame, microseconds.
    pub pts_us: i64,
    /// Samples of each frame; empty when each has one. A frame that held nothing to be decoded has none.
    pub samples: Vec<u16>,
}

impl PartHead {
    /// The number behind the last.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.frames))
    }
}

/// Frames that follow each other without a hole, and without a pause of more than a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first number.
    pub first: u64,
    /// The number behind the last.
    pub next: u64,
    /// UTC of the beginning, microseconds since 1970.
    pub start_us: i64,
    /// UTC of the end.
    pub end_us: i64,
}

/// Adds a part to runs.
pub fn extend_runs(runs: &mut Vec<Run>, part: Run) {
    match runs.last_mut() {
        Some(last) if last.next == part.first && part.start_us.saturating_sub(last.end_us) <= PAUSE_US => {
            last.next = part.next;
            last.end_us = last.end_us.max(part.end_us);
        }
        _ => runs.push(part),
    }
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Whose frames.
    pub head: SegmentHead,
    /// What a decoder must know.
    pub parameters: Parameters,
    /// What it holds; at least one run.
    pub runs: Vec<Run>,
    /// Bytes that count: whole parts, safe on the disk.
    pub bytes: u64,
}

impl SegmentInfo {
    /// UTC of the beginning.
    #[must_use]
    pub fn start_us(&self) -> i64 {
        self.runs.iter().map(|run| run.start_us).min().unwrap_or_default()
    }

    /// UTC of the end.
    #[must_use]
    pub fn end_us(&self) -> i64 {
        self.runs.iter().map(|run| run.end_us).max().unwrap_or_default()
    }
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It was begun by a recorder, and no part of it was ever whole.
    Empty,
    /// A later version wrote it.
    Newer(u8),
    /// It is something else, or was damaged at its beginning.
    Foreign(String),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("no part of it is whole"),
            Self::Newer(version) => write!(f, "a later version wrote it (layout {version}, known is {VERSION})"),
            Self::Foreign(why) => write!(f, "it is no recorded file: {why}"),
        }
    }
}

/// The beginning of a file.
#[must_use]
pub fn head(flow: &Flow, parameters: &Parameters, storage_epoch: &[u8; 16]) -> Vec<u8> {
    let mut out = fmp4::init(&[InitTrack { id: TRACK, parameters }]);
    let mut body = vec![VERSION];
    body.extend_from_slice(storage_epoch);
    body.extend_from_slice(&flow.key.boot);
    body.extend_from_slice(&flow.key.track.to_be_bytes());
    body.extend_from_slice(&flow.key.epoch.to_be_bytes());
    for name in [&flow.key.agent, &flow.camera, &flow.source] {
        // Names were checked when they came: they are shorter.
        body.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        body.extend_from_slice(name.as_bytes());
    }
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(&crc.to_be_bytes());
    fmp4::put_uuid(&mut out, HEAD, &body);
    out
}

/// Appends a part, of which `media` is the `moof` and the `mdat`.
pub fn put_part(out: &mut Vec<u8>, head: &PartHead, media: &[u8]) {
    let mut body = vec![VERSION];
    body.extend_from_slice(&head.first.to_be_bytes());
    body.extend_from_slice(&head.frames.to_be_bytes());
    body.extend_from_slice(&head.utc_us.to_be_bytes());
    body.extend_from_slice(&head.pts_us.to_be_bytes());
    body.extend_from_slice(&u32::try_from(head.samples.len()).unwrap_or_default().to_be_bytes());
    head.samples.iter().for_each(|count| body.extend_from_slice(&count.to_be_bytes()));
    let crc = part_crc(&body, media);
    body.extend_from_slice(&crc.to_be_bytes());
    fmp4::put_uuid(out, PART, &body);
    out.extend_from_slice(media);
}

fn part_crc(body: &[u8], media: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(body);
    crc.update(media);
    crc.finalize()
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (found, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*found)
    }

    fn name(&mut self) -> Option<String> {
        let [length] = self.take()?;
        let (name, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        String::from_utf8(name.to_vec()).ok()
    }
}

fn read_head(body: &[u8]) -> Result<SegmentHead, Unusable> {
    let cut = || Unusable::Foreign("its head is damaged".to_owned());
    let Some((body, crc)) = body.split_last_chunk::<4>() else { return Err(cut()) };
    match body.first() {
        Some(&version) if version > VERSION => return Err(Unusable::Newer(version)),
        Some(&VERSION) if crc32fast::hash(body) == u32::from_be_bytes(*crc) => {}
        _ => return Err(cut()),
    }
    let mut fields = Fields(&body[1..]);
    let mut read = || {
        let (storage_epoch, boot) = (fields.take()?, fields.take()?);
        let (track, epoch) = (u32::from_be_bytes(fields.take()?), u64::from_be_bytes(fields.take()?));
        let (agent, camera, source) = (fields.name()?, fields.name()?, fields.name()?);
        Some(SegmentHead { storage_epoch, key: TrackKey { agent, boot, track, epoch }, camera, source })
    };
    read().ok_or_else(cut)
}

fn read_part_head(body: &[u8]) -> Option<(PartHead, u32)> {
    let (body, crc) = body.split_last_chunk::<4>()?;
    let mut fields = Fields(body);
    let [version] = fields.take()?;
    if version != VERSION {
        return None;
    }
    let first = u64::from_be_bytes(fields.take()?);
    let frames = u32::from_be_bytes(fields.take()?);
    let (utc_us, pts_us) = (i64::from_be_bytes(fields.take()?), i64::from_be_bytes(fields.take()?));
    let count = u32::from_be_bytes(fields.take()?);
    if count != 0 && (count != frames || fields.0.len() != count as usize * 2) {
        return None;
    }
    let samples = fields.0.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    Some((PartHead { first, frames, utc_us, pts_us, samples }, u32::from_be_bytes(*crc)))
}

/// What the beginning of a file says, and where its first part begins.
pub fn read_start(data: &[u8]) -> Result<Result<(SegmentHead, Parameters, usize), Cut>, Unusable> {
    let foreign = |error: MediaError| Unusable::Foreign(error.to_string());
    let init = match fmp4::read_init(data).map_err(foreign)? {
        Ok(init) => init,
        Err(cut) => return Ok(Err(cut)),
    };
    let Some((TRACK, _, parameters)) = init.tracks.into_iter().next() else {
        return Err(Unusable::Foreign("it has no track of a known codec".to_owned()));
    };
    let rest = &data[init.bytes..];
    let Some(own) = fmp4::box_head(rest).map_err(foreign)? else {
        return Ok(Err(Cut { needed: init.bytes as u64 + 8 }));
    };
    if own.kind != *b"uuid" {
        return Err(Unusable::Foreign("it does not say whose frames it has".to_owned()));
    }
    let end = init.bytes as u64 + own.bytes;
    let Some(body) = usize::try_from(own.bytes).ok().and_then(|bytes| rest.get(own.head_bytes..bytes)) else {
        return Ok(Err(Cut { needed: end }));
    };
    match body.split_first_chunk::<16>() {
        Some((HEAD, body)) => {
            let start = init.bytes + usize::try_from(own.bytes).unwrap_or(usize::MAX);
            Ok(Ok((read_head(body)?, parameters, start)))
        }
        _ => Err(Unusable::Foreign("it does not say whose frames it has".to_owned())),
    }
}

/// A part and its head, of which the samples need not be there: where `moof` begins from the start of `data`, too. The CRC is not
/// looked at.
pub fn read_part(data: &[u8]) -> Result<Result<(PartHead, Part, u64), Cut>, MediaError> {
    let wrong = || MediaError::new("recorded part", "a box \"camagent frames.\" and a part", "something else");
    let Some(own) = fmp4::box_head(data)? else { return Ok(Err(Cut { needed: 16 })) };
    if own.kind != *b"uuid" || own.bytes > 1 << 20 {
        return Err(wrong());
    }
    let Some(body) = usize::try_from(own.bytes).ok().and_then(|bytes| data.get(own.head_bytes..bytes)) else {
        return Ok(Err(Cut { needed: own.bytes + 8 }));
    };
    let head = match body.split_first_chunk::<16>() {
        Some((PART, body)) => read_part_head(body).ok_or_else(wrong)?.0,
        _ => return Err(wrong()),
    };
    let moof_at = own.bytes;
    match fmp4::read_part(&data[usize::try_from(moof_at).unwrap_or(usize::MAX)..])? {
        Ok(part) => Ok(Ok((head, part, moof_at))),
        Err(cut) => Ok(Err(Cut { needed: cut.needed + moof_at })),
    }
}

/// Reads a whole file up to its last whole part: each part before it has its right CRC. `each` gets every part with the bytes
/// of its samples.
pub fn scan(data: &[u8], mut each: impl FnMut(&PartHead, &Part, &[u8])) -> Result<SegmentInfo, Unusable> {
    if data.iter().take(4096).all(|byte| *byte == 0) {
        return Err(Unusable::Empty);
    }
    let own_type = &fmp4::init(&[])[..28];
    if !own_type.iter().zip(data).all(|(own, byte)| own == byte) {
        return Err(Unusable::Foreign("it does not begin as recorded files do".to_owned()));
    }
    let (head, parameters, _) = match read_start(data)? {
        Ok(start) => start,
        Err(_) => return Err(Unusable::Empty),
    };
    let timescale = fmp4::timescale(&parameters);
    let mut runs = Vec::new();
    let mut announced: Option<(PartHead, u32, Vec<u8>)> = None;
    let whole = fmp4::whole_parts(data, |_, found| match found {
        Found::Other(kind, body) if kind == *b"uuid" && body.starts_with(PART) => {
            let own = body[PART.len()..].to_vec();
            announced = read_part_head(&own).map(|(head, crc)| (head, crc, own));
            announced.is_some()
        }
        Found::Other(..) => true,
        Found::Part(part, bytes) => {
            let Some((head, crc, body)) = announced.take() else { return false };
            if part_crc(&body[..body.len() - 4], bytes) != crc {
                return false;
            }
            extend_runs(&mut runs, run_of(&head, part, timescale));
            let start = usize::try_from(part.data_at).unwrap_or(usize::MAX);
            each(&head, part, bytes.get(start..).unwrap_or_default());
            true
        }
    });
    let whole = whole.map_err(|error| Unusable::Foreign(error.to_string()))?.ok_or(Unusable::Empty)?;
    if runs.is_empty() {
        return Err(Unusable::Empty);
    }
    Ok(SegmentInfo { head, parameters, runs, bytes: whole as u64 })
}

/// The run that a part is.
#[must_use]
pub fn run_of(head: &PartHead, part: &Part, timescale: u32) -> Run {
    let ticks: u64 = part.samples.iter().map(|sample| u64::from(sample.duration)).sum();
    let lasts_us = i64::try_from(u128::from(ticks) * 1_000_000 / u128::from(timescale.max(1))).unwrap_or(i64::MAX);
    Run { first: head.first, next: head.next(), start_us: head.utc_us, end_us: head.utc_us.saturating_add(lasts_us) }
}

//! The way back from bytes to samples. A file may have been cut anywhere, by a crash or by who writes it right now: a
//! [`Cut`] says how much more it takes, [`whole_parts`] where the last whole part ends.

use alloc::format;
use alloc::vec::Vec;

use super::boxes::{BoxHead, Fields, box_head, child, children};
use super::entry::read_entries;
use super::part::{NON_SYNC, Sample};
use crate::codec::Parameters;
use crate::error::{MediaError, dump};

/// Samples of a part: an hour of pictures is far less, and a hostile file gets no memory for a claim.
const MOST_SAMPLES: u32 = 1 << 20;

/// There are not enough bytes: so many from the start of what was given would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Bytes.
    pub needed: u64,
}

/// What the head of a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Bytes up to the end of `moov`.
    pub bytes: usize,
    /// track_ID, ticks in a second, and what decoders must know; of the tracks whose codec is known here.
    pub tracks: Vec<(u32, u32, Parameters)>,
}

/// A part: what its `moof` says, and where its samples are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// mfhd sequence_number.
    pub sequence: u32,
    /// track_ID.
    pub track: u32,
    /// Decoding time of the first sample, in ticks.
    pub decode_time: u64,
    /// The samples.
    pub samples: Vec<Sample>,
    /// Where the first sample begins, from the start of `moof`.
    pub data_at: u64,
    /// Bytes of `moof` and `mdat`.
    pub bytes: u64,
}

/// Reads `ftyp` and `moov` at the start of a file; boxes of other kinds before `moov` are passed over.
pub fn read_init(data: &[u8]) -> Result<Result<Init, Cut>, MediaError> {
    let mut at = 0;
    loop {
        let (head, end) = match whole_box(data, at)? {
            Ok(found) => found,
            Err(cut) => return Ok(Err(cut)),
        };
        if at == 0 && head.kind != *b"ftyp" {
            return Err(MediaError::new("MP4 file", "a box \"ftyp\" at its start", dump(data)));
        }
        if matches!(&head.kind, b"moof" | b"mdat") {
            return Err(MediaError::new("MP4 file", "\"moov\" before media", dump(&data[at..])));
        }
        if head.kind == *b"moov" {
            let tracks = tracks(&data[at + head.head_bytes..end])?;
            return Ok(Ok(Init { bytes: end, tracks }));
        }
        at = end;
    }
}

fn tracks(moov: &[u8]) -> Result<Vec<(u32, u32, Parameters)>, MediaError> {
    let mut tracks = Vec::new();
    for found in children(moov) {
        let (kind, trak) = found?;
        if kind != *b"trak" {
            continue;
        }
        let mut header = Fields::new("tkhd", child(trak, b"tkhd")?);
        let (version, _) = header.full()?;
        header.bytes(if version == 1 { 16 } else { 8 })?;
        let id = header.u32()?;
        let mdia = child(trak, b"mdia")?;
        let mut header = Fields::new("mdhd", child(mdia, b"mdhd")?);
        let (version, _) = header.full()?;
        header.bytes(if version == 1 { 16 } else { 8 })?;
        let timescale = header.u32()?;
        if timescale == 0 {
            return Err(MediaError::new("mdhd", "a timescale", "0"));
        }
        let stsd = child(child(child(mdia, b"minf")?, b"stbl")?, b"stsd")?;
        tracks.extend(read_entries(stsd)?.into_iter().map(|parameters| (id, timescale, parameters)));
    }
    Ok(tracks)
}

/// Reads the part at the start of `data`, of which the `moof` and the head of the `mdat` must be there, not the samples.
pub fn read_part(data: &[u8]) -> Result<Result<Part, Cut>, MediaError> {
    let (head, end) = match whole_box(data, 0)? {
        Ok(found) => found,
        Err(cut) => return Ok(Err(cut)),
    };
    if head.kind != *b"moof" {
        return Err(MediaError::new("MP4 part", "a box \"moof\"", dump(data)));
    }
    let Some(mdat) = box_head(&data[end..])? else { return Ok(Err(Cut { needed: end as u64 + 16 })) };
    if mdat.kind != *b"mdat" {
        return Err(MediaError::new("MP4 part", "a box \"mdat\" behind \"moof\"", dump(&data[end..])));
    }
    let moof = &data[head.head_bytes..end];
    let sequence = {
        let mut fields = Fields::new("mfhd", child(moof, b"mfhd")?);
        fields.full()?;
        fields.u32()?
    };
    let traf = child(moof, b"traf")?;
    let track = {
        let mut fields = Fields::new("tfhd", child(traf, b"tfhd")?);
        fields.full()?;
        fields.u32()?
    };
    let decode_time = {
        let mut fields = Fields::new("tfdt", child(traf, b"tfdt")?);
        match fields.full()? {
            (0, _) => u64::from(fields.u32()?),
            _ => fields.u64()?,
        }
    };
    let (data_at, samples) = run(child(traf, b"trun")?)?;
    let bytes = (end as u64).saturating_add(mdat.bytes);
    let media: u64 = samples.iter().map(|sample| u64::from(sample.size)).sum();
    if data_at < end as u64 + mdat.head_bytes as u64 || data_at + media > bytes {
        let got = format!("{media} bytes from byte {data_at} of {bytes}");
        return Err(MediaError::new("MP4 part", "samples within the \"mdat\"", got));
    }
    Ok(Ok(Part { sequence, track, decode_time, samples, data_at, bytes }))
}

/// `trun` in the form that this crate writes: everything said for each sample.
fn run(trun: &[u8]) -> Result<(u64, Vec<Sample>), MediaError> {
    let mut fields = Fields::new("trun", trun);
    let (_, flags) = fields.full()?;
    if flags != 0xf01 {
        let expected = "flags f01: offset, and each sample's duration, size, flags and composition offset";
        return Err(MediaError::new("trun", expected, format!("{flags:x}")));
    }
    let count = fields.u32()?;
    let data_at = u64::from(fields.u32()?);
    if count > MOST_SAMPLES || count as usize * 16 > fields.remaining() {
        return Err(MediaError::new("trun", "16 bytes for each sample", format!("{count} samples")));
    }
    let mut samples = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (duration, size, flags) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let composition = i32::from_be_bytes(fields.array()?);
        samples.push(Sample { duration, composition, size, key: flags & NON_SYNC == 0 });
    }
    Ok((data_at, samples))
}

/// The head of the box at `at` and where it ends, when all of it is there.
fn whole_box(data: &[u8], at: usize) -> Result<Result<(BoxHead, usize), Cut>, MediaError> {
    let Some(head) = box_head(&data[at..])? else { return Ok(Err(Cut { needed: at as u64 + 16 })) };
    let end = (at as u64).saturating_add(head.bytes);
    match usize::try_from(end) {
        Ok(end) if end <= data.len() => Ok(Ok((head, end))),
        _ => Ok(Err(Cut { needed: end })),
    }
}

/// Where the last whole part of a file ends: what is behind was torn off. Each part is handed to `found` with its place, and
/// so is every box between parts, as its place, kind and body; `found` may turn one down, which ends the file before it. None
/// when the head is not whole; an error when this is no file of the kind.
pub fn whole_parts(data: &[u8], mut found: impl FnMut(usize, Found<'_>) -> bool) -> Result<Option<usize>, MediaError> {
    let Ok(init) = read_init(data)? else { return Ok(None) };
    let (mut at, mut whole) = (init.bytes, init.bytes);
    // What cannot be read behind a whole part was torn, whatever it looks like.
    while let Ok(Ok((head, end))) = whole_box(data, at) {
        if head.kind != *b"moof" {
            if !found(at, Found::Other(head.kind, &data[at + head.head_bytes..end])) {
                break;
            }
            at = end;
            continue;
        }
        let Ok(Ok(part)) = read_part(&data[at..]) else { break };
        let end = (at as u64).saturating_add(part.bytes);
        let Some(end) = usize::try_from(end).ok().filter(|end| *end <= data.len()) else { break };
        if !found(at, Found::Part(&part, &data[at..end])) {
            break;
        }
        (at, whole) = (end, end);
    }
    Ok(Some(whole))
}

/// What [`whole_parts`] found.
#[derive(Debug)]
pub enum Found<'a> {
    /// A part, and all its bytes.
    Part(&'a Part, &'a [u8]),
    /// Another box: its kind and body.
    Other([u8; 4], &'a [u8]),
}

//! The server's folder of recordings as a reader who knows MP4 (ISO/IEC 14496-12) and the two boxes of our own sees it: every frame with its name
//! and its octets. It shares no code with who writes them.

use std::path::{Path, PathBuf};

use crate::journal::Boot;

/// The polynomial of ISO 3309, reflected.
const CRC_32: u32 = 0xedb8_8320;

/// A frame in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The run of the agent.
    pub boot: Boot,
    /// Its track.
    pub track: u32,
    /// The epoch of the track.
    pub epoch: u64,
    /// Its number.
    pub sequence: u64,
    /// Its time on the camera's clock; told of the first frame of each part.
    pub pts_us: Option<i64>,
    /// Its samples, one after the other: NAL units behind lengths of four octets, or sound.
    pub octets: Vec<u8>,
}

/// All files of frames in a folder of recordings, those that are being written included.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.join("open"), folder.join("recordings")]);
    while let Some(folder) = folders.pop() {
        // What was moved in between is found where it is now, or the next time.
        for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Every frame of the whole parts of a file; the error says what is wrong with it.
pub fn read(file: &Path) -> Result<Vec<Recorded>, String> {
    let data = std::fs::read(file).map_err(|error| error.to_string())?;
    frames(&data)
}

/// NAL units behind lengths of four octets.
pub fn units(sample: &[u8]) -> Result<Vec<&[u8]>, String> {
    let (mut units, mut rest) = (Vec::new(), sample);
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (unit, behind) =
            behind.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or("a unit longer than its sample")?;
        units.push(unit);
        rest = behind;
    }
    if rest.is_empty() { Ok(units) } else { Err("octets behind the last unit".to_owned()) }
}

fn frames(data: &[u8]) -> Result<Vec<Recorded>, String> {
    let (mut rest, mut frames) = (data, Vec::new());
    let (mut whose, mut announced, mut moof): (_, _, Option<&[u8]>) = (None, None, None);
    // What is behind the last whole box was not whole when somebody was killed, or is being written.
    while let Some(Boxed { whole, kind, body, behind }) = next_box(rest) {
        match &kind {
            b"ftyp" | b"moov" => {}
            b"uuid" if body.starts_with(b"camagent segment") => whose = Some(head(&body[16..])?),
            b"uuid" if body.starts_with(b"camagent frames.") => announced = Some(&body[16..]),
            b"moof" => moof = Some(whole),
            b"mdat" => {
                let (Some(whose), Some(part), Some(moof)) = (&whose, announced.take(), moof.take()) else {
                    return Err("samples that nobody announced".to_owned());
                };
                let (part, sum) = part.split_last_chunk::<4>().ok_or("a part without a sum")?;
                if crc_32(&[part, moof, whole]) != u32::from_be_bytes(*sum) {
                    break;
                }
                take_part(whose, part, moof, whole, &mut frames)?;
            }
            [0, 0, 0, 0] => break,
            other => return Err(format!("a box {:?}", String::from_utf8_lossy(other))),
        }
        rest = behind;
    }
    Ok(frames)
}

/// A box with its head, its kind, its body, and what is behind it.
struct Boxed<'a> {
    whole: &'a [u8],
    kind: [u8; 4],
    body: &'a [u8],
    behind: &'a [u8],
}

/// The box at the front; None when it is not whole.
fn next_box(data: &[u8]) -> Option<Boxed<'_>> {
    let (short, kind) = (u32::from_be_bytes(*data.first_chunk()?), *data[4..].first_chunk::<4>()?);
    let (head, bytes) = match short {
        1 => (16, u64::from_be_bytes(*data.get(8..)?.first_chunk()?)),
        bytes => (8, u64::from(bytes)),
    };
    let (whole, behind) = data.split_at_checked(usize::try_from(bytes).ok()?)?;
    Some(Boxed { whole, kind, body: whole.get(head..)?, behind })
}

fn child<'a>(body: &'a [u8], wanted: &[u8; 4]) -> Result<&'a [u8], String> {
    let mut rest = body;
    while let Some(Boxed { kind, body, behind, .. }) = next_box(rest) {
        if kind == *wanted {
            return Ok(body);
        }
        rest = behind;
    }
    Err(format!("no box {:?}", String::from_utf8_lossy(wanted)))
}

/// Run, track and epoch.
fn head(body: &[u8]) -> Result<(Boot, u32, u64), String> {
    let mut fields = Fields(body);
    let [version] = fields.take()?;
    let [_storage_epoch, boot] = [fields.take::<16>()?, fields.take()?];
    let (track, epoch) = (u32::from_be_bytes(fields.take()?), u64::from_be_bytes(fields.take()?));
    if version == 1 { Ok((boot, track, epoch)) } else { Err(format!("version {version} of the head")) }
}

fn take_part(
    (boot, track, epoch): &(Boot, u32, u64),
    part: &[u8],
    moof: &[u8],
    mdat: &[u8],
    frames: &mut Vec<Recorded>,
) -> Result<(), String> {
    let mut fields = Fields(part);
    let [_version] = fields.take()?;
    let (first, count) = (u64::from_be_bytes(fields.take()?), u32::from_be_bytes(fields.take()?));
    let (_utc_us, pts_us) = (i64::from_be_bytes(fields.take()?), i64::from_be_bytes(fields.take()?));
    let is_uneven = u32::from_be_bytes(fields.take()?) != 0;

    let mut run = Fields(child(child(&moof[8..], b"traf")?, b"trun")?);
    if run.take()? != [1, 0, 0xf, 1] {
        return Err("another kind of trun".to_owned());
    }
    let samples = u32::from_be_bytes(run.take()?);
    let at = u32::from_be_bytes(run.take()?) as usize;
    let mut octets = at.checked_sub(moof.len()).and_then(|at| mdat.get(at..)).ok_or("samples outside their box")?;
    let mut left = samples;
    for number in 0..count {
        let own = if is_uneven { u32::from(u16::from_be_bytes(fields.take()?)) } else { 1 };
        left = left.checked_sub(own).ok_or("fewer samples than frames")?;
        let mut frame = Vec::new();
        for _ in 0..own {
            let [_duration, size, _flags, _offset] = [run.take()?, run.take()?, run.take()?, run.take()?];
            let (sample, behind) =
                octets.split_at_checked(u32::from_be_bytes(size) as usize).ok_or("a sample outside its box")?;
            frame.extend_from_slice(sample);
            octets = behind;
        }
        frames.push(Recorded {
            boot: *boot,
            track: *track,
            epoch: *epoch,
            sequence: first + u64::from(number),
            pts_us: (number == 0).then_some(pts_us),
            octets: frame,
        });
    }
    if left == 0 { Ok(()) } else { Err(format!("{left} samples of no frame")) }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (found, rest) = self.0.split_first_chunk::<N>().ok_or("a box that is too short")?;
        self.0 = rest;
        Ok(*found)
    }
}

fn crc_32(parts: &[&[u8]]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|at| {
        (0..8).fold(at as u32, |value, _| if value & 1 == 1 { value >> 1 ^ CRC_32 } else { value >> 1 })
    });
    let octets = parts.iter().copied().flatten();
    !octets.fold(u32::MAX, |sum, octet| sum >> 8 ^ table[((sum ^ u32::from(*octet)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_of_iso_3309() {
        assert_eq!(crc_32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn what_is_not_whole_is_not_there_and_what_is_strange_is_named() {
        assert_eq!(frames(&[]), Ok(Vec::new()));
        assert_eq!(frames(b"\0\0\0\x10ftypisom\0\0\0\0\0\0\x02\0moof"), Ok(Vec::new()));
        assert!(frames(b"\0\0\0\x08mdat").unwrap_err().contains("nobody announced"));
        assert!(frames(b"RIFF....").is_ok(), "longer than it is");
        assert!(frames(b"\0\0\0\x08free").unwrap_err().contains("free"));
        assert_eq!(units(&[0, 0, 0, 1, 9, 0, 0, 0, 2, 7, 7]), Ok(vec![&[9][..], &[7, 7]]));
        assert!(units(&[0, 0, 0, 2, 9]).is_err() && units(&[0, 0]).is_err());
    }
}

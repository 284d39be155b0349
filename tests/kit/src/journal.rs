//! An agent's journal folder as somebody sees it who takes the card out: every frame in its whole records, with its name and octets. It shares no code
//! with the agent; the form of the files is told in `camagent-core/src/journal/flash/segment.rs`.

use std::path::Path;

/// The name of a run of an agent.
pub type Boot = [u8; 16];

/// CRC-32C, reflected.
const CRC_32C: u32 = 0x82f6_3b78;
/// Octets before the first record.
const HEAD: usize = 12;
const START: u8 = 1;
const FRAME: u8 = 3;

/// A frame on the card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The run of the agent.
    pub boot: Boot,
    /// Its track.
    pub track: u32,
    /// The epoch of the track.
    pub epoch: u64,
    /// Its number.
    pub sequence: u64,
    /// Its time on the camera's clock.
    pub pts_us: i64,
    /// Its octets.
    pub octets: Vec<u8>,
}

/// Every frame that a folder has. Nobody writes into it meanwhile.
pub fn read(folder: &Path) -> Vec<Kept> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().into_string().unwrap_or_default();
        let number = name.strip_suffix(".camj").and_then(|number| u64::from_str_radix(number, 16).ok());
        if let (Some(number), Ok(data)) = (number, std::fs::read(entry.path())) {
            read_file(number, &data, &mut kept);
        }
    }
    kept.sort_by_key(|frame| (frame.boot, frame.track, frame.epoch, frame.sequence));
    kept
}

fn read_file(number: u64, data: &[u8], kept: &mut Vec<Kept>) {
    let (mut at, mut boot) = (HEAD, None);
    // The first record that is not whole is the end: a kill tore it.
    while let Some((kind, body, whole)) = record(number, at, data.get(at..).unwrap_or_default()) {
        match kind {
            START => boot = body.first_chunk().copied(),
            FRAME => kept.extend(boot.and_then(|boot| frame(boot, body))),
            _ => {}
        }
        at += whole;
    }
}

/// Kind, body, and octets that it takes.
fn record(number: u64, at: usize, data: &[u8]) -> Option<(u8, &[u8], usize)> {
    let length = *data.first_chunk::<4>()?;
    let kind = *data.get(4)?;
    let end = 5 + u32::from_le_bytes(length) as usize;
    let (body, sum) = (data.get(5..end)?, data.get(end..)?.first_chunk::<4>()?);
    let summed = [&number.to_le_bytes()[..], &(at as u64).to_le_bytes(), &length, &[kind], body];
    (crc_32c(&summed) == u32::from_le_bytes(*sum)).then_some((kind, body, end + 4))
}

fn frame(boot: Boot, body: &[u8]) -> Option<Kept> {
    let mut rest = body;
    let mut number = || {
        // The integers of RFC 9000, 16.
        let length = 1 << (rest.first()? >> 6);
        let (octets, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(octets[1..].iter().fold(u64::from(octets[0] & 0x3f), |value, octet| value << 8 | u64::from(*octet)))
    };
    let (epoch, track, sequence, pts) = (number()?, number()?, number()?, number()?);
    let [_before_pts, _arrival, _flags, total] = [number()?, number()?, number()?, number()?];
    if rest.len() as u64 != total {
        return None;
    }
    let pts_us = (pts >> 1).cast_signed() ^ -(pts & 1).cast_signed();
    Some(Kept { boot, track: u32::try_from(track).ok()?, epoch, sequence, pts_us, octets: rest.to_vec() })
}

fn crc_32c(parts: &[&[u8]]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|at| {
        (0..8).fold(at as u32, |value, _| if value & 1 == 1 { value >> 1 ^ CRC_32C } else { value >> 1 })
    });
    let octets = parts.iter().copied().flatten();
    !octets.fold(u32::MAX, |sum, octet| sum >> 8 ^ table[((sum ^ u32::from(*octet)) & 0xff) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_one_of_rfc_3720() {
        assert_eq!(crc_32c(&[&[0; 32]]), 0x8a91_36aa);
    }
}

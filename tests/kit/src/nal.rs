//! NAL units as the H.264 and H.265 standards lay them out (Annex B), and names for units: their SHA-256.
//!
//! What may differ between what a camera pushes and what a viewer gets is left out of the comparison here and nowhere
//! else: access unit delimiters, and parameter sets, which may be repeated.

use std::fmt;

use camagent_core::Codec;

/// The name of a unit: SHA-256 of its octets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The name of these octets.
    pub fn of(unit: &[u8]) -> Self {
        let mut name = [0; 32];
        name.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, unit).as_ref());
        Self(name)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The NAL units of an Annex B stream, without start codes and trailing zeros.
pub fn units(stream: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at + 3 <= stream.len() {
        if stream[at..at + 3] == [0, 0, 1] {
            starts.push(at);
            at += 3;
        } else {
            at += 1;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let units = starts.iter().zip(ends).map(|(start, end)| {
        let mut unit = &stream[start + 3..end];
        while let [rest @ .., 0] = unit {
            unit = rest;
        }
        unit
    });
    units.filter(|unit| !unit.is_empty()).collect()
}

/// The type of a unit: `nal_unit_type`.
pub fn kind(codec: Codec, unit: &[u8]) -> u8 {
    match codec {
        Codec::H264 => unit[0] & 0x1f,
        _ => unit[0] >> 1 & 0x3f,
    }
}

/// Whether a unit is a slice of a picture.
pub fn is_slice(codec: Codec, unit: &[u8]) -> bool {
    match codec {
        Codec::H264 => matches!(kind(codec, unit), 1..=5),
        _ => kind(codec, unit) < 32,
    }
}

/// Whether a slice is the first of its picture: `first_mb_in_slice` 0, or `first_slice_segment_in_pic_flag`.
pub fn begins_picture(codec: Codec, slice: &[u8]) -> bool {
    let header = if codec == Codec::H264 { 1 } else { 2 };
    slice.get(header).is_some_and(|byte| byte & 0x80 != 0)
}

/// Whether decoding can start at this slice: IDR of H.264, IRAP of H.265.
pub fn is_key(codec: Codec, unit: &[u8]) -> bool {
    match codec {
        Codec::H264 => kind(codec, unit) == 5,
        _ => (16..=23).contains(&kind(codec, unit)),
    }
}

/// Whether a unit must arrive as it was pushed, exactly once.
pub fn counts(codec: Codec, unit: &[u8]) -> bool {
    match codec {
        Codec::H264 => !matches!(kind(codec, unit), 7..=9),
        Codec::H265 => !matches!(kind(codec, unit), 32..=35),
        _ => true,
    }
}

/// The names of all units that count in an Annex B stream.
pub fn digests(codec: Codec, stream: &[u8]) -> Vec<Digest> {
    units(stream).into_iter().filter(|unit| counts(codec, unit)).map(Digest::of).collect()
}

/// A supplemental enhancement message that names a picture: user data (type 5) with the number in letters, so that no
/// picture of a looped clip equals another and a repeated or lost round is noticed. `weight` more octets make it heavier.
pub fn name_tag(codec: Codec, number: u32, weight: usize) -> Vec<u8> {
    let mut unit = match codec {
        Codec::H264 => vec![0x06],
        _ => vec![39 << 1, 1],
    };
    let text = format!("camagent-testkit{number:08x}{:x<weight$}", "");
    unit.push(5);
    unit.extend(std::iter::repeat_n(255, text.len() / 255));
    unit.push((text.len() % 255) as u8);
    unit.extend(text.as_bytes());
    unit.push(0x80);
    unit
}

/// Where `received` lies in `pushed` as one run without a hole; the error says where it breaks.
pub fn find_run<T: PartialEq + fmt::Debug>(pushed: &[T], received: &[T]) -> Result<usize, String> {
    let Some(first) = received.first() else { return Err("nothing was received".into()) };
    let mut best = (0, 0);
    for start in (0..pushed.len()).filter(|&start| pushed[start] == *first) {
        let same = pushed[start..].iter().zip(received).take_while(|(one, other)| one == other).count();
        if same == received.len() {
            return Ok(start);
        }
        best = best.max((same, start));
    }
    let (same, start) = best;
    let elsewhere = received.get(same).and_then(|unit| pushed.iter().position(|other| other == unit));
    Err(format!(
        "{same} units are the same from {start} of {} on, then came {:?} (pushed as {elsewhere:?}) instead of {:?}; {} received",
        pushed.len(),
        received.get(same),
        pushed.get(start + same),
        received.len(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_and_a_hole_is_told() {
        assert_eq!(find_run(&[1, 2, 1, 2, 3, 4], &[1, 2, 3]), Ok(2));
        assert!(find_run(&[1, 2, 3, 4], &[1, 2, 4]).unwrap_err().contains("2 units are the same"));
        assert!(find_run::<u8>(&[1], &[]).is_err());
    }

    #[test]
    fn what_counts() {
        let stream = [0, 0, 0, 1, 9, 0x10, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x65, 0x88, 0, 0, 0, 1, 0x41, 0x9a];
        assert_eq!(digests(Codec::H264, &stream), [Digest::of(&[0x65, 0x88]), Digest::of(&[0x41, 0x9a])]);
        assert!(is_key(Codec::H265, &[19 << 1, 1]) && !is_key(Codec::H265, &[1 << 1, 1]));
    }
}

//! Where one NAL unit ends and the next begins: start codes (H.264 and H.265 Annex B) and 4-byte lengths
//! (ISO/IEC 14496-15 with `lengthSizeMinusOne` 3).
//!
//! Everything here is positions in, positions out; nothing is copied, so a unit can stay a slice of the frame it came
//! in. What a unit is, by its header, belongs into `codec`.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use bytes::Bytes;

use crate::error::{MediaError, dump};

/// The NAL units of an Annex B byte stream, without their start codes.
///
/// Start codes of 3 and 4 bytes may be mixed. Zero bytes before a start code and at the end belong to no unit, and units
/// of length 0 are left out. Fails when the data does not begin with a start code.
pub fn units(data: &[u8]) -> Result<Units<'_>, MediaError> {
    let zeros = data.iter().take_while(|byte| **byte == 0).count();
    if zeros < 2 || data.get(zeros) != Some(&1) {
        return Err(MediaError::new("Annex B data", "a start code 00 00 01 or 00 00 00 01 first", dump(data)));
    }
    Ok(Units { data, next: Some(zeros + 1) })
}

/// The first answer of `pick`, which is asked with the first two octets of each unit of [`units`] (or with all of a shorter one). The unit
/// that is taken is not read to its end: a large picture costs no more than a small one.
pub fn pick<T>(data: &[u8], mut pick: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    let mut units = units(data).ok()?;
    while let Some(start) = units.next {
        match data.get(start..start + 2) {
            // No start code begins here, and nothing of this is a zero behind the unit's end.
            Some(front) if !front.contains(&0) => {
                if let Some(picked) = pick(front) {
                    return Some(picked);
                }
                units.next = find_start_code(data, start + 2).map(|code| code + 3);
            }
            _ => {
                let unit = units.next()?;
                if let Some(picked) = pick(&data[unit.start..unit.end.min(unit.start + 2)]) {
                    return Some(picked);
                }
            }
        }
    }
    None
}

/// Iterator of [`units`].
#[derive(Debug, Clone)]
pub struct Units<'a> {
    data: &'a [u8],
    /// Where the next unit begins; None behind the last.
    next: Option<usize>,
}

impl Iterator for Units<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let start = self.next?;
            let mut end = match find_start_code(self.data, start) {
                Some(code) => {
                    self.next = Some(code + 3);
                    code
                }
                None => {
                    self.next = None;
                    self.data.len()
                }
            };
            // A NAL unit never ends with a zero byte: these are trailing_zero_8bits, or the first of a 4-byte start code.
            while end > start && self.data[end - 1] == 0 {
                end -= 1;
            }
            if end > start {
                return Some(start..end);
            }
        }
    }
}

/// Index of the first 00 00 01 at or behind `from`.
fn find_start_code(data: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(&[first, second, third]) = data.get(at..at + 3) {
        // The third byte decides how far to jump: above 1 no start code can contain it.
        if third > 1 {
            at += 3;
        } else if third == 1 {
            if first == 0 && second == 0 {
                return Some(at);
            }
            at += 3;
        } else {
            at += 1;
        }
    }
    None
}

/// The NAL units of a frame in which each is preceded by its length, 4 bytes big-endian.
///
/// Units of length 0 are left out. A length that leads beyond the end is an error and the last item.
pub fn length_prefixed(data: &[u8]) -> LengthPrefixed<'_> {
    LengthPrefixed { data, next: 0 }
}

/// Iterator of [`length_prefixed`].
#[derive(Debug, Clone)]
pub struct LengthPrefixed<'a> {
    data: &'a [u8],
    next: usize,
}

impl Iterator for LengthPrefixed<'_> {
    type Item = Result<Range<usize>, MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.data.len() {
            let at = self.next;
            let rest = &self.data[at..];
            let place = |_| format!("length-prefixed data, byte {at}");
            let Some((&length, behind)) = rest.split_first_chunk::<4>() else {
                self.next = self.data.len();
                return Some(Err(MediaError::new(place(()), "a length of 4 bytes", dump(rest))));
            };
            let length = u32::from_be_bytes(length) as usize;
            if length > behind.len() {
                self.next = self.data.len();
                let expected = format!("a NAL unit length of at most {}, the bytes left", behind.len());
                return Some(Err(MediaError::new(place(()), expected, format!("{length}"))));
            }
            self.next = at + 4 + length;
            if length > 0 {
                return Some(Ok(at + 4..at + 4 + length));
            }
        }
        None
    }
}

/// The units of an Annex B frame, as slices that share the memory of `frame`.
pub fn split(frame: &Bytes) -> Result<Vec<Bytes>, MediaError> {
    Ok(units(frame)?.map(|range| frame.slice(range)).collect())
}

/// Puts units behind 4-byte start codes: the opposite of [`split`].
pub fn join<T: AsRef<[u8]>>(parts: &[T]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.as_ref().len() + 4).sum());
    for part in parts {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(part.as_ref());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn split_bytes(data: &[u8]) -> Vec<Vec<u8>> {
        units(data).unwrap().map(|range| data[range].to_vec()).collect()
    }

    #[test]
    fn start_codes_of_both_lengths() {
        assert_eq!(split_bytes(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 2]), [vec![9, 0xf0], vec![0x67, 1, 2]]);
        assert_eq!(split_bytes(&[0, 0, 1, 0x65, 0, 0, 0, 1, 0x41]), [vec![0x65], vec![0x41]]);
    }

    #[test]
    fn zeros_around_units_belong_to_none() {
        assert_eq!(
            split_bytes(&[0, 0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0, 1, 8, 0, 0, 0]),
            [vec![7], vec![8]],
            "leading_zero_8bits, trailing_zero_8bits"
        );
        assert_eq!(split_bytes(&[0, 0, 1, 7, 0, 0]), [vec![7]]);
    }

    #[test]
    fn empty_units_are_left_out() {
        assert_eq!(split_bytes(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 5, 0, 0, 1]), [vec![5]]);
        assert_eq!(split_bytes(&[0, 0, 0, 1]), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn emulation_prevention_is_no_start_code() {
        assert_eq!(split_bytes(&[0, 0, 1, 7, 0, 0, 3, 1, 0, 0, 3]), [vec![7, 0, 0, 3, 1, 0, 0, 3]]);
    }

    #[test]
    fn names_the_missing_start_code() {
        for data in [&[][..], &[0, 0], &[0, 1, 2], &[0x67, 0, 0, 1], &[0, 0, 2], &[0, 0, 0]] {
            assert!(units(data).is_err(), "{data:?}");
        }
        assert_eq!(
            units(&[0, 0, 0, 2, 0x67, 0x42]).unwrap_err().to_string(),
            "Annex B data: expected a start code 00 00 01 or 00 00 00 01 first, got 00 00 00 02 67 42 (6 bytes)"
        );
    }

    #[test]
    fn finds_what_a_naive_search_finds() {
        // All strings of 9 bytes over {0, 1, 2}: every phase of the jumping search.
        for number in 0..3u32.pow(9) {
            let data: Vec<u8> = (0..9).map(|digit| (number / 3u32.pow(digit) % 3) as u8).collect();
            let naive = data.windows(3).position(|window| window == [0, 0, 1]);
            assert_eq!(find_start_code(&data, 0), naive, "{data:?}");
        }
    }

    #[test]
    fn picks_what_all_units_hold() {
        // All strings of 8 bytes over {0, 1, 2} behind a start code.
        for number in 0..3u32.pow(8) {
            let mut data = vec![0, 0, 1];
            data.extend((0..8).map(|digit| (number / 3u32.pow(digit) % 3) as u8));
            let mut fronts = Vec::new();
            assert_eq!(
                pick(&data, |front| {
                    fronts.push(front.to_vec());
                    None::<()>
                }),
                None
            );
            let mut all = split_bytes(&data);
            all.iter_mut().for_each(|unit| unit.truncate(2));
            assert_eq!(fronts, all, "{data:?}");
        }
        assert_eq!(pick(&[0, 0, 1, 7, 1, 0, 0, 1, 8, 1], |front| (front[0] == 8).then_some(8)), Some(8));
        assert_eq!(pick(b"no start code", |_| Some(())), None);
    }

    #[test]
    fn lengths_lead_from_unit_to_unit() {
        let data = [0, 0, 0, 2, 0x67, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x68];
        let found: Result<Vec<_>, _> = length_prefixed(&data).collect();
        assert_eq!(found.unwrap(), [4..6, 14..15]);
    }

    #[test]
    fn names_a_length_beyond_the_end() {
        let mut found = length_prefixed(&[0, 0, 0, 1, 7, 0, 0, 1, 0, 1, 2, 3]);
        assert_eq!(found.next(), Some(Ok(4..5)));
        assert_eq!(
            found.next().unwrap().unwrap_err().to_string(),
            "length-prefixed data, byte 5: expected a NAL unit length of at most 3, the bytes left, got 256"
        );
        assert_eq!(found.next(), None);
        assert!(length_prefixed(&[0, 0, 1]).next().unwrap().is_err());
        assert!(length_prefixed(&[255; 8]).next().unwrap().is_err());
    }

    #[test]
    fn splitting_shares_memory_and_joining_brings_it_back() {
        let frame = Bytes::from_static(&[0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x65, 2, 3]);
        let parts = split(&frame).unwrap();
        assert_eq!(parts[1].as_ptr(), frame[10..].as_ptr());
        assert_eq!(join(&parts), frame);
    }
}

//! Integers on the wire: the variable-length encoding of RFC 9000 section 16, and zigzag for signed values.
//!
//! A value below 2^62 takes 1, 2, 4 or 8 bytes; the two top bits of the first byte tell which. Longer than necessary is legal.

use alloc::vec::Vec;

/// The largest value that the encoding holds, 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// How many bytes `value` takes. Values above [`MAX`] count as 8: they are cut by [`put`].
pub const fn size(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value`. A value above [`MAX`] is written as [`MAX`]: callers bound their numbers long before.
pub fn put(value: u64, out: &mut Vec<u8>) {
    let value = value.min(MAX);
    let bytes = value.to_be_bytes();
    match size(value) {
        1 => out.push(bytes[7]),
        2 => out.extend_from_slice(&[bytes[6] | 0x40, bytes[7]]),
        4 => out.extend_from_slice(&[bytes[4] | 0x80, bytes[5], bytes[6], bytes[7]]),
        _ => {
            out.push(bytes[0] | 0xc0);
            out.extend_from_slice(&bytes[1..]);
        }
    }
}

/// Reads one integer from the front of `bytes`: the value and its length. `None` when the bytes end too early.
pub fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

/// Maps a signed value to an unsigned one, small magnitudes to small numbers: 0, -1, 1, -2 … become 0, 1, 2, 3 …
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_rfc_9000_appendix_a1() {
        let samples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in samples {
            assert_eq!(get(bytes), Some((value, bytes.len())));
        }
    }

    #[test]
    fn every_size_comes_back() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, MAX] {
            let mut bytes = Vec::new();
            put(value, &mut bytes);
            assert_eq!(bytes.len(), size(value));
            assert_eq!(get(&bytes), Some((value, bytes.len())));
            assert_eq!(get(&bytes[..bytes.len() - 1]), None, "a cut integer is not an integer");
        }
    }

    #[test]
    fn signed_values_come_back() {
        for value in [0, -1, 1, -2, i64::from(i32::MAX), -(1 << 60), 1 << 60] {
            assert_eq!(unzigzag(zigzag(value)), value);
            assert!(zigzag(value) <= MAX);
        }
    }
}

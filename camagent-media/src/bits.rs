//! A bit reader for parameter sets and audio headers, most significant bit first.
//!
//! For NAL units it removes the emulation prevention bytes as it goes (H.264 clause 7.4.1, H.265 clause 7.4.2: in
//! 00 00 03 the 03 does not belong to the RBSP), so nothing is copied and only what is asked for is read.
//! What the bits mean belongs into `codec`.

/// There was no such value: the data ended, or an Exp-Golomb code was longer than 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoValue {
    /// How many bits had been read before the value, emulation prevention bytes not counted.
    pub at_bit: usize,
}

/// Reads bits from a slice. Reading past the end is an error, never a panic.
#[derive(Debug, Clone)]
pub struct Bits<'a> {
    data: &'a [u8],
    /// Index of the byte that follows `current`.
    next: usize,
    current: u8,
    /// Bits of `current` not yet read.
    left: u32,
    /// Zero bytes directly before `next`, up to 2.
    zeros: u32,
    /// Whether 00 00 03 loses its 03.
    escaped: bool,
    read: usize,
}

impl<'a> Bits<'a> {
    /// Over a NAL unit behind its header: emulation prevention bytes are skipped.
    pub const fn rbsp(data: &'a [u8]) -> Self {
        Self { data, next: 0, current: 0, left: 0, zeros: 0, escaped: true, read: 0 }
    }

    /// Over bytes as they are.
    pub const fn plain(data: &'a [u8]) -> Self {
        Self { data, next: 0, current: 0, left: 0, zeros: 0, escaped: false, read: 0 }
    }

    /// How many bits have been read, emulation prevention bytes not counted.
    pub const fn position(&self) -> usize {
        self.read
    }

    /// The next bit: `u(1)`.
    pub fn flag(&mut self) -> Result<bool, NoValue> {
        if self.left == 0 {
            self.load()?;
        }
        self.left -= 1;
        self.read += 1;
        Ok(self.current >> self.left & 1 == 1)
    }

    /// The next `count` bits, at most 32: `u(n)`.
    pub fn bits(&mut self, count: u32) -> Result<u32, NoValue> {
        debug_assert!(count <= 32, "a value has at most 32 bits");
        let at_bit = self.read;
        let mut value = 0u32;
        let mut wanted = count.min(32);
        while wanted > 0 {
            if self.left == 0 {
                self.load().map_err(|_| NoValue { at_bit })?;
            }
            let take = wanted.min(self.left);
            self.left -= take;
            self.read += take as usize;
            wanted -= take;
            let chunk = u32::from(self.current) >> self.left & ((1 << take) - 1);
            // A shift by 32 cannot happen: `take` is at most 8.
            value = value << take | chunk;
        }
        Ok(value)
    }

    /// One byte: `u(8)`.
    pub fn byte(&mut self) -> Result<u8, NoValue> {
        // Eight bits fit a byte, the cast loses nothing.
        self.bits(8).map(|value| value as u8)
    }

    /// Reads `count` bits and forgets them.
    pub fn skip(&mut self, count: usize) -> Result<(), NoValue> {
        let mut left = count;
        while left > 0 {
            let now = left.min(32);
            self.bits(now as u32)?;
            left -= now;
        }
        Ok(())
    }

    /// An unsigned Exp-Golomb code, `ue(v)` (H.264 clause 9.1).
    pub fn ue(&mut self) -> Result<u32, NoValue> {
        let at_bit = self.read;
        let mut zeros = 0;
        while !self.flag().map_err(|_| NoValue { at_bit })? {
            zeros += 1;
            if zeros > 32 {
                return Err(NoValue { at_bit });
            }
        }
        let suffix = u64::from(self.bits(zeros).map_err(|_| NoValue { at_bit })?);
        u32::try_from((1u64 << zeros) - 1 + suffix).map_err(|_| NoValue { at_bit })
    }

    /// A signed Exp-Golomb code, `se(v)` (H.264 clause 9.1.1).
    pub fn se(&mut self) -> Result<i32, NoValue> {
        let at_bit = self.read;
        let code = i64::from(self.ue()?);
        let value = if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) };
        i32::try_from(value).map_err(|_| NoValue { at_bit })
    }

    fn load(&mut self) -> Result<(), NoValue> {
        let end = NoValue { at_bit: self.read };
        let mut byte = *self.data.get(self.next).ok_or(end)?;
        self.next += 1;
        if self.escaped && self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            byte = *self.data.get(self.next).ok_or(end)?;
            self.next += 1;
        }
        self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
        self.current = byte;
        self.left = 8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_across_bytes() {
        let mut bits = Bits::plain(&[0b1010_0101, 0xff, 0x00, 0x12, 0x34, 0x56]);
        assert_eq!(bits.flag(), Ok(true));
        assert_eq!(bits.bits(3), Ok(0b010));
        assert_eq!(bits.bits(8), Ok(0b0101_1111));
        assert_eq!(bits.bits(32), Ok(0xf001_2345));
        assert_eq!(bits.position(), 44);
        assert_eq!(bits.bits(0), Ok(0));
        assert_eq!(bits.bits(5), Err(NoValue { at_bit: 44 }));
    }

    #[test]
    fn exp_golomb_table_of_the_standard() {
        // 1, 010, 011, 00100, 00101, 00110, 00111, 0001000 are 0 to 7.
        let mut bits = Bits::plain(&[0b1010_0110, 0b0100_0010, 0b1001_1000, 0b1110_0010, 0b0000_0000]);
        for wanted in 0..8 {
            assert_eq!(bits.ue(), Ok(wanted));
        }
        let mut bits = Bits::plain(&[0b1010_0110, 0b0100_0010, 0b1001_1000, 0b1110_0010, 0b0000_0000]);
        for wanted in [0, 1, -1, 2, -2, 3, -3, 4] {
            assert_eq!(bits.se(), Ok(wanted));
        }
    }

    #[test]
    fn the_largest_code_and_one_too_long() {
        // 32 zeros, a one, then 32 bits: 2^32 - 1 + suffix, of which only the suffix 0 fits.
        let mut largest = [0u8; 9];
        largest[4] = 0x80;
        assert_eq!(Bits::plain(&largest).ue(), Ok(u32::MAX));
        largest[8] = 0x80;
        assert_eq!(Bits::plain(&largest).ue(), Err(NoValue { at_bit: 0 }));
        assert_eq!(Bits::plain(&[0; 32]).ue(), Err(NoValue { at_bit: 0 }));
        assert_eq!(Bits::plain(&[0; 2]).ue(), Err(NoValue { at_bit: 0 }));
        assert_eq!(Bits::plain(&[]).ue(), Err(NoValue { at_bit: 0 }));
    }

    #[test]
    fn emulation_prevention_is_removed_only_where_it_is_one() {
        let read = |data: &[u8], count: usize| {
            let mut bits = Bits::rbsp(data);
            (0..count).map(|_| bits.byte()).collect::<Result<alloc::vec::Vec<_>, _>>()
        };
        assert_eq!(read(&[0, 0, 3, 1, 9], 4).unwrap(), [0, 0, 1, 9]);
        assert_eq!(read(&[0, 0, 3, 0, 0, 3, 0], 5).unwrap(), [0, 0, 0, 0, 0]);
        assert_eq!(read(&[0, 3, 0, 0, 3, 3], 5).unwrap(), [0, 3, 0, 0, 3]);
        assert_eq!(read(&[0, 0, 3], 2).unwrap(), [0, 0]);
        assert_eq!(read(&[0, 0, 3], 3), Err(NoValue { at_bit: 16 }));
        assert_eq!(Bits::plain(&[0, 0, 3]).bits(24), Ok(3));
    }

    #[test]
    fn skipping_ends_with_the_data() {
        let mut bits = Bits::plain(&[0xff; 6]);
        assert_eq!(bits.skip(47), Ok(()));
        assert_eq!(bits.flag(), Ok(true));
        assert_eq!(bits.skip(1), Err(NoValue { at_bit: 48 }));
    }
}

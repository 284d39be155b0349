//! CRC-32C (Castagnoli), as RFC 3720 appendix B.4 has it: it finds every burst of up to 32 wrong bits.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut value = at as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
}

/// A sum over octets that come in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc(u32);

impl Crc {
    pub(super) fn new() -> Self {
        Self(u32::MAX)
    }

    pub(super) fn add(self, octets: &[u8]) -> Self {
        let step = |sum: u32, octet: &u8| sum >> 8 ^ TABLE[((sum ^ u32::from(*octet)) & 0xff) as usize];
        Self(octets.iter().fold(self.0, step))
    }

    pub(super) fn sum(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_rfc_3720() {
        assert_eq!(Crc::new().add(&[0; 32]).sum(), 0x8a91_36aa);
        assert_eq!(Crc::new().add(&[0xff; 32]).sum(), 0x62a8_ab43);
        assert_eq!(Crc::new().add(b"1234").add(b"56789").sum(), 0xe306_9283);
    }
}

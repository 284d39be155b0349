//! RTCP (RFC 3550, section 6) as a sender needs it: sender report, SDES with CNAME, BYE.
//!
//! The sender report tells which wall clock time an RTP time stamp is, so that a player can join tracks. What receivers
//! report is not read here.

use alloc::vec::Vec;

/// A wall clock time as NTP has it: seconds since 1900 in the upper 32 bits, fractions in the lower. Wraps in 2036.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From microseconds since 1970, UTC, which may be negative.
    pub const fn from_unix_micros(micros: i64) -> Self {
        /// From 1900 to 1970: 70 years, 17 of them leap years.
        const EPOCH_SECONDS: i64 = 2_208_988_800;
        const MICROS: i64 = 1_000_000;
        let seconds = micros.div_euclid(MICROS) + EPOCH_SECONDS;
        let fraction = ((micros.rem_euclid(MICROS) as u64) << 32) / MICROS as u64;
        // Seconds are modulo 2^32 (the era is not sent), the fraction is below 2^32.
        Self((seconds as u64) << 32 | fraction)
    }
}

/// What a sender tells about its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// The stream.
    pub ssrc: u32,
    /// A moment on the wall clock.
    pub ntp: NtpTime,
    /// The same moment as an RTP time stamp of the stream.
    pub rtp_time: u32,
    /// Packets sent, modulo 2^32.
    pub packet_count: u32,
    /// Bytes of payload sent, without RTP headers, modulo 2^32.
    pub octet_count: u32,
}

impl SenderReport {
    /// Appends a compound packet: this report, and who we are. Of `cname` at most 255 bytes are used.
    pub fn write(&self, cname: &str, out: &mut Vec<u8>) {
        begin(out, 0, SENDER_REPORT, 6);
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(&self.ntp.0.to_be_bytes());
        for word in [self.rtp_time, self.packet_count, self.octet_count] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        self.write_cname(cname, out);
    }

    /// Appends a compound packet that ends the stream: this report, who we are, and BYE.
    pub fn write_bye(&self, cname: &str, out: &mut Vec<u8>) {
        self.write(cname, out);
        begin(out, 1, BYE, 1);
        out.extend_from_slice(&self.ssrc.to_be_bytes());
    }

    fn write_cname(&self, cname: &str, out: &mut Vec<u8>) {
        const CNAME: u8 = 1;
        const MOST_BYTES: usize = 255;
        let name = &cname[..cname.floor_char_boundary(MOST_BYTES)];
        // SSRC, then type, length and text, then one to four zeros up to the next word.
        let words = 1 + (2 + name.len()) / 4 + 1;
        // At most 66, the cast loses nothing.
        begin(out, 1, SOURCE_DESCRIPTION, words as u16);
        let end = out.len() + words * 4;
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        // At most 255, the cast loses nothing.
        out.extend_from_slice(&[CNAME, name.len() as u8]);
        out.extend_from_slice(name.as_bytes());
        out.resize(end, 0);
    }
}

const SENDER_REPORT: u8 = 200;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;

/// The common header: version 2, no padding, `count`, type, and the words behind this one.
fn begin(out: &mut Vec<u8>, count: u8, packet_type: u8, words: u16) {
    const VERSION_2: u8 = 0x80;
    out.extend_from_slice(&[VERSION_2 | count, packet_type]);
    out.extend_from_slice(&words.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use rtcp_types::{Bye, Compound, Packet, Sdes};

    const REPORT: SenderReport = SenderReport {
        ssrc: 0xdead_beef,
        ntp: NtpTime(0x0123_4567_89ab_cdef),
        rtp_time: 90_000,
        packet_count: 7,
        octet_count: 7000,
    };

    fn read_sdes_cname(sdes: &Sdes<'_>) -> String {
        let chunk = sdes.chunks().next().unwrap();
        assert_eq!(chunk.ssrc(), REPORT.ssrc);
        let item = chunk.items().next().unwrap();
        assert_eq!(item.type_(), 1, "CNAME");
        item.get_value_string().unwrap()
    }

    #[test]
    fn the_compound_as_another_implementation_reads_it() {
        // All paddings of the item, and the empty name.
        for name in ["", "c", "ca", "cam", "cam1", "camagent@host"] {
            let mut bytes = Vec::new();
            REPORT.write(name, &mut bytes);
            assert_eq!(bytes.len() % 4, 0);
            let packets: Vec<_> = Compound::parse(&bytes).unwrap().map(Result::unwrap).collect();
            let [Packet::Sr(report), Packet::Sdes(sdes)] = packets.as_slice() else { panic!("{packets:?}") };
            assert_eq!((report.ssrc(), report.ntp_timestamp()), (REPORT.ssrc, REPORT.ntp.0));
            assert_eq!((report.rtp_timestamp(), report.packet_count(), report.octet_count()), (90_000, 7, 7000));
            assert_eq!(report.n_reports(), 0);
            assert_eq!(read_sdes_cname(sdes), name);
        }
    }

    #[test]
    fn bye_ends_the_compound() {
        let mut bytes = alloc::vec![0xaa];
        REPORT.write_bye("cam", &mut bytes);
        assert_eq!(bytes[0], 0xaa, "appended");
        let packets: Vec<_> = Compound::parse(&bytes[1..]).unwrap().map(Result::unwrap).collect();
        let [Packet::Sr(_), Packet::Sdes(_), Packet::Bye(bye)] = packets.as_slice() else { panic!("{packets:?}") };
        assert_eq!(Bye::ssrcs(bye).collect::<Vec<_>>(), [REPORT.ssrc]);
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let mut bytes = Vec::new();
        // 254 bytes, then a letter of two.
        REPORT.write(&("x".repeat(254) + "é"), &mut bytes);
        let packets: Vec<_> = Compound::parse(&bytes).unwrap().map(Result::unwrap).collect();
        let Packet::Sdes(sdes) = &packets[1] else { panic!("{packets:?}") };
        assert_eq!(read_sdes_cname(sdes), "x".repeat(254));
    }

    #[test]
    fn wall_clock_times() {
        let ntp = |micros| NtpTime::from_unix_micros(micros).0;
        assert_eq!(ntp(0), 2_208_988_800 << 32);
        assert_eq!(ntp(500_000), 2_208_988_800 << 32 | 0x8000_0000);
        assert_eq!(ntp(-500_000), 2_208_988_799 << 32 | 0x8000_0000);
        // 2026-01-01 00:00:00.999999 UTC; one microsecond is 4294.967296 fractions.
        assert_eq!(ntp(1_767_225_600_999_999), 3_976_214_400 << 32 | 4_294_963_001);
        // Era 1 begins on 2036-02-07 06:28:16 UTC.
        assert_eq!(ntp(2_085_978_495_999_999) >> 32, 0xffff_ffff);
        assert_eq!(ntp(2_085_978_496_000_000), 0);
        for extreme in [i64::MIN, i64::MAX] {
            ntp(extreme);
        }
    }
}

//! The payload format of AAC (RFC 3640, mode AAC-hbr): sizelength=13, indexlength=3, indexdeltalength=3.
//!
//! Each access unit has packets of its own, so that each has a time stamp of its own: receivers differ in what they make
//! of the second unit in a packet.

use bytes::Bytes;

use super::{Sink, Stream};
use crate::codec::aac::{MOST_UNIT_BYTES, SAMPLES_PER_UNIT};

/// AU-headers-length: one header of 16 bits.
const AU_HEADERS_LENGTH: [u8; 2] = [0, 16];

/// Section 3.2. A unit longer than 13 bits can say is left out; a `TrackReader` lets none through.
pub(super) fn packetize(stream: &mut Stream, parts: &[Bytes], rtp_time: u32, sink: &mut Sink<'_>) {
    let mut time = rtp_time;
    for part in parts {
        if !part.is_empty() && part.len() <= MOST_UNIT_BYTES {
            send_unit(stream, part, time, sink);
        }
        time = time.wrapping_add(SAMPLES_PER_UNIT);
    }
}

fn send_unit(stream: &mut Stream, unit: &[u8], time: u32, sink: &mut Sink<'_>) {
    // The size of the whole unit, in fragments too, and AU-Index 0. At most 8191, so it fits.
    let au_header = ((unit.len() as u16) << 3).to_be_bytes();
    let size = stream.max_payload - AU_HEADERS_LENGTH.len() - au_header.len();
    let count = unit.len().div_ceil(size);
    for (index, fragment) in unit.chunks(size).enumerate() {
        let marker = index + 1 == count;
        stream.send(marker, time, &[&AU_HEADERS_LENGTH, &au_header, fragment], sink);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packetizer;
    use super::super::depacketize::Packet;
    use super::*;
    use alloc::vec::Vec;

    fn send(max_payload: usize, parts: &[&[u8]]) -> Vec<Packet> {
        let parts: Vec<_> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
        let mut packets = Vec::new();
        let mut packetizer = Packetizer::new(crate::codec::Codec::Aac, 96, 1, 0, max_payload);
        packetizer.packetize(&parts, u32::MAX - 1023, &mut |header, pieces| packets.push(Packet::new(header, pieces)));
        packets
    }

    #[test]
    fn au_headers_of_aac_hbr() {
        let packets = send(1200, &[&[7; 372]]);
        // 16 bits of AU headers; 372 in 13 bits and AU-Index 0.
        assert_eq!(packets[0].payload[..4], [0, 16, 0x0b, 0xa0]);
        assert_eq!(packets[0].payload[4..], [7; 372]);
        assert!(packets[0].marker);
    }

    #[test]
    fn each_unit_is_1024_samples_behind_the_one_before() {
        let packets = send(1200, &[&[1; 10], &[2; 20], &[3; 30]]);
        assert_eq!(packets.iter().map(|packet| packet.time).collect::<Vec<_>>(), [u32::MAX - 1023, 0, 1024]);
        assert!(packets.iter().all(|packet| packet.marker));
    }

    #[test]
    fn fragments_have_the_size_of_the_whole_and_one_marker() {
        let packets = send(32, &[&[9; 70]]);
        let payloads: Vec<_> = packets.iter().map(|packet| packet.payload.clone()).collect();
        let expected = [28, 28, 14].map(|length| [&[0, 16, 0x02, 0x30][..], &[9; 70][..length]].concat());
        assert_eq!(payloads, expected);
        assert_eq!(packets.iter().map(|packet| packet.marker).collect::<Vec<_>>(), [false, false, true]);
        assert!(packets.iter().all(|packet| packet.time == packets[0].time));
    }

    #[test]
    fn the_longest_unit_and_one_too_long() {
        assert_eq!(send(60_000, &[&[0; 8191]])[0].payload[..4], [0, 16, 0xff, 0xf8]);
        let packets = send(60_000, &[&[0; 8192], &[1; 5]]);
        assert_eq!((packets.len(), packets[0].time), (1, 0), "left out, its time passes");
    }
}

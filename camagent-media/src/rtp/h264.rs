//! The payload format of H.264 (RFC 6184), packetization mode 1: single NAL units, STAP-A, FU-A.

use bytes::Bytes;

use super::nal::{self, Format};
use super::{Sink, Stream};
use crate::codec::Codec;

pub(super) fn packetize(stream: &mut Stream, parts: &[Bytes], rtp_time: u32, sink: &mut Sink<'_>) {
    nal::packetize::<H264>(stream, parts, rtp_time, sink);
}

struct H264;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// forbidden_zero_bit.
const F: u8 = 0x80;
/// nal_ref_idc.
const NRI: u8 = 0x60;
const TYPE: u8 = 0x1f;

impl Format for H264 {
    const CODEC: Codec = Codec::H264;
    const UNIT_HEADER_BYTES: usize = 1;
    type AggregationHeader = [u8; 1];
    const AGGREGATION_HEADER_BYTES: usize = 1;
    type FragmentHeader = [u8; 2];
    const FRAGMENT_HEADER_BYTES: usize = 2;

    /// Section 5.7: F is set when it is in any unit, NRI is the highest of all.
    fn aggregation_header(parts: &[Bytes]) -> [u8; 1] {
        let headers = || parts.iter().filter_map(|part| part.first());
        let forbidden = headers().fold(0, |bits, header| bits | header & F);
        let importance = headers().map(|header| header & NRI).max().unwrap_or(0);
        [forbidden | importance | STAP_A]
    }

    /// Section 5.8: FU indicator and FU header.
    fn fragment_header(unit: &[u8], first: bool, last: bool) -> [u8; 2] {
        let header = unit[0];
        [header & (F | NRI) | FU_A, u8::from(first) << 7 | u8::from(last) << 6 | header & TYPE]
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
        let mut packetizer = Packetizer::new(Codec::H264, 96, 1, 0, max_payload);
        packetizer.packetize(&parts, 3000, &mut |header, pieces| packets.push(Packet::new(header, pieces)));
        packets
    }

    fn payloads(packets: &[Packet]) -> Vec<&[u8]> {
        packets.iter().map(|packet| packet.payload.as_slice()).collect()
    }

    #[test]
    fn sets_travel_in_one_stap_a() {
        let packets = send(1200, &[&[0x67, 1, 2], &[0x28, 3], &[0x06, 4], &[0x65, 5, 6, 7]]);
        assert_eq!(
            payloads(&packets),
            // NRI 3 is the highest; lengths of 16 bits.
            [&[0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x28, 3, 0, 2, 0x06, 4][..], &[0x65, 5, 6, 7]]
        );
        assert_eq!(packets.iter().map(|packet| packet.marker).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_stap_a_carries_the_forbidden_bit_and_the_highest_nri() {
        assert_eq!(send(1200, &[&[0x06, 1], &[0xa8, 2]])[0].payload[0], 0x80 | 0x20 | 24);
    }

    #[test]
    fn what_does_not_fit_together_travels_alone() {
        let long = [0x06; 31];
        let packets = send(32, &[&[0x67, 1, 2], &long, &[0x68, 9], &[0x68, 8]]);
        assert_eq!(payloads(&packets), [&[0x67, 1, 2][..], &long, &[0x78, 0, 2, 0x68, 9, 0, 2, 0x68, 8]]);
        assert!(packets.iter().all(|packet| !packet.marker), "sets alone end no picture");
    }

    #[test]
    fn fu_a_bit_by_bit() {
        let unit: Vec<u8> = [0x65].into_iter().chain(1..=70).collect();
        let packets = send(32, &[&unit]);
        let expected: [Vec<u8>; 3] = [
            // FU indicator with NRI 3 and type 28; S, E, R and type 5.
            [0x7c, 0x85].into_iter().chain(1..=30).collect(),
            [0x7c, 0x05].into_iter().chain(31..=60).collect(),
            [0x7c, 0x45].into_iter().chain(61..=70).collect(),
        ];
        assert_eq!(payloads(&packets), expected);
        assert_eq!(packets.iter().map(|packet| packet.marker).collect::<Vec<_>>(), [false, false, true]);
        assert!(packets.iter().all(|packet| packet.time == 3000));
    }

    #[test]
    fn a_unit_of_exactly_one_packet_is_not_cut() {
        let unit = [0x41; 32];
        assert_eq!(payloads(&send(32, &[&unit])), [unit]);
        assert_eq!(send(32, &[&[0x41; 33]]).len(), 2);
    }

    #[test]
    fn every_slice_is_a_packet_and_only_the_last_has_the_marker() {
        let packets = send(1200, &[&[0x65, 1], &[0x65, 2], &[0x06, 3]]);
        assert_eq!(payloads(&packets), [[0x65, 1], [0x65, 2], [0x06, 3]]);
        assert_eq!(packets.iter().map(|packet| packet.marker).collect::<Vec<_>>(), [false, false, true]);
    }
}

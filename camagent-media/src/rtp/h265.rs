//! The payload format of H.265 (RFC 7798): single NAL units, aggregation packets, fragmentation units; without DONL fields.

use bytes::Bytes;

use super::nal::{self, Format};
use super::{Sink, Stream};
use crate::codec::Codec;

pub(super) fn packetize(stream: &mut Stream, parts: &[Bytes], rtp_time: u32, sink: &mut Sink<'_>) {
    nal::packetize::<H265>(stream, parts, rtp_time, sink);
}

struct H265;

const AP: u8 = 48;
const FU: u8 = 49;
/// forbidden_zero_bit, and the highest bit of nuh_layer_id, which is in the first byte too.
const F: u8 = 0x80;
const LAYER_HIGH: u8 = 0x01;

impl Format for H265 {
    const CODEC: Codec = Codec::H265;
    const UNIT_HEADER_BYTES: usize = 2;
    type AggregationHeader = [u8; 2];
    const AGGREGATION_HEADER_BYTES: usize = 2;
    type FragmentHeader = [u8; 3];
    const FRAGMENT_HEADER_BYTES: usize = 3;

    /// Section 4.4.2: F is set when it is in any unit, layer and temporal id are the lowest of all.
    fn aggregation_header(parts: &[Bytes]) -> [u8; 2] {
        let headers = || parts.iter().filter_map(|part| part.first_chunk::<2>());
        let forbidden = headers().fold(0, |bits, header| bits | header[0] & F);
        let layer = headers().map(|header| (header[0] & LAYER_HIGH) << 5 | header[1] >> 3).min().unwrap_or(0);
        let temporal = headers().map(|header| header[1] & 7).min().unwrap_or(1);
        [forbidden | AP << 1 | layer >> 5, layer << 3 | temporal]
    }

    /// Section 4.4.3: payload header and FU header.
    fn fragment_header(unit: &[u8], first: bool, last: bool) -> [u8; 3] {
        let nal_type = unit[0] >> 1 & 0x3f;
        [unit[0] & (F | LAYER_HIGH) | FU << 1, unit[1], u8::from(first) << 7 | u8::from(last) << 6 | nal_type]
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
        let mut packetizer = Packetizer::new(Codec::H265, 96, 1, 0, max_payload);
        packetizer.packetize(&parts, 3000, &mut |header, pieces| packets.push(Packet::new(header, pieces)));
        packets
    }

    fn payloads(packets: &[Packet]) -> Vec<&[u8]> {
        packets.iter().map(|packet| packet.payload.as_slice()).collect()
    }

    #[test]
    fn sets_travel_in_one_ap() {
        let packets = send(1200, &[&[0x40, 1, 7], &[0x42, 1], &[0x44, 1, 8], &[0x26, 1, 5, 6]]);
        assert_eq!(
            payloads(&packets),
            [&[0x60, 1, 0, 3, 0x40, 1, 7, 0, 2, 0x42, 1, 0, 3, 0x44, 1, 8][..], &[0x26, 1, 5, 6]]
        );
        assert_eq!(packets.iter().map(|packet| packet.marker).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn an_ap_has_the_lowest_layer_and_temporal_id() {
        // SEI of layer 33, temporal id 3, and of layer 2, temporal id 2 with the forbidden bit.
        let packets = send(1200, &[&[0x4f, 1 << 3 | 3, 0], &[0xce, 2 << 3 | 2, 0]]);
        assert_eq!(packets[0].payload[..2], [0x80 | 48 << 1, 2 << 3 | 2]);
        let packets = send(1200, &[&[0x4f, 1 << 3 | 3, 0], &[0x4f, 2 << 3 | 4, 0]]);
        assert_eq!(packets[0].payload[..2], [48 << 1 | 1, 1 << 3 | 3]);
    }

    #[test]
    fn fu_bit_by_bit() {
        let unit: Vec<u8> = [0x26, 0x01].into_iter().chain(1..=70).collect();
        let packets = send(32, &[&unit]);
        let expected: [Vec<u8>; 3] = [
            // Payload header with type 49; S, E and type 19 (IDR_W_RADL).
            [0x62, 0x01, 0x93].into_iter().chain(1..=29).collect(),
            [0x62, 0x01, 0x13].into_iter().chain(30..=58).collect(),
            [0x62, 0x01, 0x53].into_iter().chain(59..=70).collect(),
        ];
        assert_eq!(payloads(&packets), expected);
        assert_eq!(packets.iter().map(|packet| packet.marker).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn a_fragment_keeps_layer_and_temporal_id() {
        let unit: Vec<u8> = [0x83, 0x1b].into_iter().chain([9; 40]).collect();
        assert_eq!(send(32, &[&unit])[0].payload[..3], [0x80 | 49 << 1 | 1, 0x1b, 0x80 | 1]);
    }

    #[test]
    fn half_a_header_is_not_sent() {
        assert_eq!(payloads(&send(1200, &[&[0x26, 1, 2], &[0x26]])), [[0x26, 1, 2]]);
        assert!(send(1200, &[&[0x26, 1, 2], &[0x26]])[0].marker);
    }
}

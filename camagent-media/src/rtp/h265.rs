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

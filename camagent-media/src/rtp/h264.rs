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

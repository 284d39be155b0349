//! What RFC 6184 and RFC 7798 share: which units go into a packet together, and which are cut into fragments.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{Sink, Stream};
use crate::codec::{Codec, NalKind, nal_kind};

/// The differences between the payload formats.
pub(super) trait Format {
    const CODEC: Codec;
    /// Bytes before the first unit of an aggregation packet.
    type AggregationHeader: AsRef<[u8]>;
    /// Bytes before a fragment.
    type FragmentHeader: AsRef<[u8]>;
    /// Bytes of a NAL unit header, which fragments carry in another form.
    const UNIT_HEADER_BYTES: usize;
    const AGGREGATION_HEADER_BYTES: usize;
    const FRAGMENT_HEADER_BYTES: usize;

    fn aggregation_header(parts: &[Bytes]) -> Self::AggregationHeader;
    fn fragment_header(unit: &[u8], first: bool, last: bool) -> Self::FragmentHeader;
}

/// Bytes of the length before each unit of an aggregation packet.
const LENGTH_BYTES: usize = 2;

/// Sends the units of one access unit: parameter sets and SEI together where they fit, slices alone, long ones in fragments.
pub(super) fn packetize<F: Format>(stream: &mut Stream, parts: &[Bytes], rtp_time: u32, sink: &mut Sink<'_>) {
    // A unit of nothing but a header cannot be cut, and an empty one cannot be sent.
    let sendable = |part: &Bytes| part.len() >= F::UNIT_HEADER_BYTES;
    // Sets that are pushed alone do not end a picture.
    let picture = parts.iter().any(|part| matches!(nal_kind(F::CODEC, part), NalKind::Slice { .. }));
    let Some(last) = parts.iter().rposition(sendable) else { return };
    let mut index = 0;
    while index <= last {
        let part = &parts[index];
        let together = aggregate::<F>(&parts[index..=last], stream.max_payload);
        let next = index + together.max(1);
        let marker = picture && next > last;
        if together > 1 {
            send_aggregation::<F>(stream, &parts[index..next], rtp_time, marker, sink);
        } else if part.len() > stream.max_payload {
            send_fragments::<F>(stream, part, rtp_time, marker, sink);
        } else if sendable(part) {
            stream.send(marker, rtp_time, &[part], sink);
        }
        index = next;
    }
}

/// How many of the first units fit into one aggregation packet and are not slices.
fn aggregate<F: Format>(parts: &[Bytes], max_payload: usize) -> usize {
    let mut size = F::AGGREGATION_HEADER_BYTES;
    let mut count = 0;
    for part in parts {
        size += LENGTH_BYTES + part.len();
        let slice = matches!(nal_kind(F::CODEC, part), NalKind::Slice { .. });
        if slice || size > max_payload || part.len() < F::UNIT_HEADER_BYTES {
            break;
        }
        count += 1;
    }
    count
}

fn send_aggregation<F: Format>(stream: &mut Stream, parts: &[Bytes], rtp_time: u32, marker: bool, sink: &mut Sink<'_>) {
    let header = F::aggregation_header(parts);
    // The packet is at most 65,523 bytes, so a unit's length fits 16 bits.
    let lengths: Vec<[u8; LENGTH_BYTES]> = parts.iter().map(|part| (part.len() as u16).to_be_bytes()).collect();
    let mut pieces: Vec<&[u8]> = Vec::with_capacity(1 + 2 * parts.len());
    pieces.push(header.as_ref());
    for (length, part) in lengths.iter().zip(parts) {
        pieces.push(length);
        pieces.push(part);
    }
    stream.send(marker, rtp_time, &pieces, sink);
}

fn send_fragments<F: Format>(stream: &mut Stream, unit: &[u8], rtp_time: u32, marker: bool, sink: &mut Sink<'_>) {
    let (_, body) = unit.split_at(F::UNIT_HEADER_BYTES);
    let size = stream.max_payload - F::FRAGMENT_HEADER_BYTES;
    let count = body.len().div_ceil(size);
    for (index, fragment) in body.chunks(size).enumerate() {
        let last = index + 1 == count;
        let header = F::fragment_header(unit, index == 0, last);
        stream.send(marker && last, rtp_time, &[header.as_ref(), fragment], sink);
    }
}

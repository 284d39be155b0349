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

//! The payload format of G.711 (RFC 3551, section 4.5.14): samples, and nothing else.

use bytes::Bytes;

use super::{Sink, Stream};

/// Cuts between samples only. The marker would be the end of a silence, and we send none (section 4.1).
pub(super) fn packetize(stream: &mut Stream, parts: &[Bytes], rtp_time: u32, channels: usize, sink: &mut Sink<'_>) {
    // A sample of more channels than bytes in a packet does not exist; at least one byte keeps the cutting going.
    let size = (stream.max_payload / channels * channels).max(1);
    let mut time = rtp_time;
    for part in parts {
        for samples in part.chunks(size) {
            stream.send(false, time, &[samples], sink);
            // At most 65,523, the cast loses nothing.
            time = time.wrapping_add((samples.len() / channels) as u32);
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::super::Packetizer;
    use super::super::depacketize::Packet;
    use super::*;
    use alloc::vec::Vec;

    fn send(max_payload: usize, channels: u16, parts: &[&[u8]]) -> Vec<Packet> {
        let parts: Vec<_> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
        let mut packets = Vec::new();
        let mut packetizer = Packetizer::new(crate::codec::Codec::Pcma, 96, 1, 0, max_payload).with_channels(channels);
        packetizer.packetize(&parts, u32::MAX - 159, &mut |header, pieces| packets.push(Packet::new(header, pieces)));
        packets
    }

    #[test]
    fn time_goes_on_with_the_samples_and_no_packet_is_marked() {
        let packets = send(160, 1, &[&[0xd5; 400], &[0x55; 10]]);
        let seen: Vec<_> = packets.iter().map(|packet| (packet.time, packet.payload.len(), packet.marker)).collect();
        assert_eq!(seen, [(u32::MAX - 159, 160, false), (0, 160, false), (160, 80, false), (240, 10, false)]);
    }

    #[test]
    fn channels_are_not_torn_apart() {
        let packets = send(33, 2, &[&[1; 64]]);
        let seen: Vec<_> = packets.iter().map(|packet| (packet.time, packet.payload.len())).collect();
        assert_eq!(seen, [(u32::MAX - 159, 32), (u32::MAX - 143, 32)]);
    }
}

//! RTP (RFC 3550): units of a track in, packets out. One file for each payload format; sender reports in [`rtcp`].
//!
//! A packet is handed out as its fixed header and the pieces of its payload, slices of the units: nothing is copied, and
//! one packetizing can serve every viewer. Sockets and interleaving belong into the server.

mod aac;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod depacketize;
mod g711;
mod h264;
mod h265;
mod nal;
pub mod rtcp;

use bytes::Bytes;

use crate::codec::g711::Law;
use crate::codec::{Codec, Parameters};

/// Bytes of the fixed header: no CSRC, no extension.
pub const HEADER_BYTES: usize = 12;

/// Where packets go: the fixed header, and payload pieces to be put behind it one after the other.
pub type Sink<'a> = dyn FnMut(&[u8; HEADER_BYTES], &[&[u8]]) + 'a;

/// Turns the units of one track into the packets of one RTP stream.
#[derive(Debug, Clone)]
pub struct Packetizer {
    codec: Codec,
    channels: u16,
    stream: Stream,
}

impl Packetizer {
    /// A packetizer for a stream that begins with `first_sequence`.
    ///
    /// `max_payload` is the most bytes behind the 12-byte header, made 32 to 65,523: below there is no room for the
    /// headers of the payload formats, above for the 16-bit length of interleaved RTSP.
    pub fn new(codec: Codec, payload_type: u8, ssrc: u32, first_sequence: u16, max_payload: usize) -> Self {
        let max_payload = max_payload.clamp(32, usize::from(u16::MAX) - HEADER_BYTES);
        let stream = Stream { payload_type: payload_type & 0x7f, ssrc, sequence: first_sequence, max_payload };
        Self { codec, channels: 1, stream }
    }

    /// For G.711 with several channels, whose samples are interleaved byte by byte: packets are cut between samples and
    /// time stamps count samples of one channel. Without it there is one channel.
    pub fn with_channels(mut self, channels: u16) -> Self {
        self.channels = channels.max(1);
        self
    }

    /// Makes packets of the units of one frame and calls `sink` once for each, in order.
    ///
    /// The marker is that of the codec's RFC: the last packet of a picture, every packet that ends an AAC access unit, none
    /// of G.711. `parts` come from a [`crate::TrackReader`]; empty ones are passed over. Of several AAC access units each
    /// has the time 1024 samples behind the one before it.
    pub fn packetize(&mut self, parts: &[Bytes], rtp_time: u32, sink: &mut Sink<'_>) {
        match self.codec {
            Codec::H264 => h264::packetize(&mut self.stream, parts, rtp_time, sink),
            Codec::H265 => h265::packetize(&mut self.stream, parts, rtp_time, sink),
            Codec::Aac => aac::packetize(&mut self.stream, parts, rtp_time, sink),
            Codec::Pcma | Codec::Pcmu => {
                g711::packetize(&mut self.stream, parts, rtp_time, usize::from(self.channels), sink);
            }
        }
    }

    /// The sequence number that the next packet gets.
    pub const fn next_sequence(&self) -> u16 {
        self.stream.sequence
    }
}

/// What the packets of one stream have in common.
#[derive(Debug, Clone)]
struct Stream {
    payload_type: u8,
    ssrc: u32,
    sequence: u16,
    max_payload: usize,
}

impl Stream {
    fn send(&mut self, marker: bool, rtp_time: u32, pieces: &[&[u8]], sink: &mut Sink<'_>) {
        sink(&header(marker, self.payload_type, self.sequence, rtp_time, self.ssrc), pieces);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// The fixed header (RFC 3550, section 5.1) without padding, extension and CSRC.
pub fn header(marker: bool, payload_type: u8, sequence: u16, rtp_time: u32, ssrc: u32) -> [u8; HEADER_BYTES] {
    const VERSION_2: u8 = 0x80;
    let [s0, s1] = sequence.to_be_bytes();
    let [t0, t1, t2, t3] = rtp_time.to_be_bytes();
    let [i0, i1, i2, i3] = ssrc.to_be_bytes();
    [VERSION_2, u8::from(marker) << 7 | payload_type & 0x7f, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3]
}

/// The RTP time stamp of a media time in microseconds, which may be negative: exact, rounded to the nearest tick, modulo
/// 2^32. `offset` is the time stamp of media time 0.
pub fn timestamp(media_us: i64, clock_rate: u32, offset: u32) -> u32 {
    const MICROS: i128 = 1_000_000;
    let ticks = (i128::from(media_us) * i128::from(clock_rate) + MICROS / 2).div_euclid(MICROS);
    // RTP time is modulo 2^32: cutting off is what is wanted.
    offset.wrapping_add(ticks as u32)
}

/// The payload type for a track: the static one of RFC 3551 for G.711 at 8,000 Hz with one channel, else `dynamic`.
pub const fn payload_type(parameters: &Parameters, dynamic: u8) -> u8 {
    match parameters {
        Parameters::G711 { law: Law::Mu, sample_rate: 8_000, channels: 1 } => 0,
        Parameters::G711 { law: Law::A, sample_rate: 8_000, channels: 1 } => 8,
        _ => dynamic,
    }
}

#[cfg(test)]
mod tests {
    use super::depacketize::{Packet, depacketize};
    use super::*;
    use alloc::vec::Vec;

    fn packets(packetizer: &mut Packetizer, parts: &[Bytes], time: u32) -> Vec<Packet> {
        let mut packets = Vec::new();
        packetizer.packetize(parts, time, &mut |header, pieces| packets.push(Packet::new(header, pieces)));
        packets
    }

    #[test]
    fn the_header_as_another_implementation_reads_it() {
        let packet = [&header(true, 96, 0xabcd, 0x0102_0304, 0xdead_beef)[..], &[1, 2, 3]].concat();
        let read = rtp_types::RtpPacket::parse(&packet).unwrap();
        assert_eq!((read.version(), read.marker_bit(), read.payload_type()), (2, true, 96));
        assert_eq!((read.sequence_number(), read.timestamp(), read.ssrc()), (0xabcd, 0x0102_0304, 0xdead_beef));
        assert_eq!((read.n_csrcs(), read.extension(), read.padding()), (0, None, None));
        assert_eq!(read.payload(), [1, 2, 3]);
        assert!(!rtp_types::RtpPacket::parse(&header(false, 8, 0, 0, 0)).unwrap().marker_bit());
    }

    #[test]
    fn sequence_numbers_wrap_and_go_on() {
        let mut packetizer = Packetizer::new(Codec::Pcmu, 0, 7, 0xffff, 160);
        let sent = packets(&mut packetizer, &[Bytes::from(alloc::vec![0xff; 480])], 0);
        assert_eq!(sent.iter().map(|packet| packet.sequence).collect::<Vec<_>>(), [0xffff, 0, 1]);
        assert_eq!(packetizer.next_sequence(), 2);
    }

    #[test]
    fn every_size_of_unit_and_packet_comes_back() {
        let unit = |first: &[u8], length: usize| -> Bytes {
            first.iter().copied().chain((0..).map(|index: usize| index as u8)).take(length).collect()
        };
        for max_payload in [32, 33, 100] {
            for length in (2..80).chain(max_payload - 4..max_payload + 5).chain([300, 1000, 5000]) {
                for (codec, set, slice) in
                    [(Codec::H264, &[0x67][..], &[0x65][..]), (Codec::H265, &[0x42, 1], &[0x28, 1])]
                {
                    let parts = [unit(set, 20), unit(set, length), unit(slice, length), unit(slice, 7)];
                    let mut packetizer = Packetizer::new(codec, 96, 1, 0, max_payload);
                    let sent = packets(&mut packetizer, &parts, 90);
                    assert!(sent.iter().all(|packet| packet.payload.len() <= max_payload && packet.time == 90));
                    let (last, before) = sent.split_last().unwrap();
                    assert!(last.marker && before.iter().all(|packet| !packet.marker), "marker at the end only");
                    let back: Vec<_> = depacketize(codec, &sent).into_iter().map(|(_, unit)| unit).collect();
                    assert_eq!(back, parts, "{codec:?}, {length} in {max_payload}");
                }
                let parts = [unit(&[], length)];
                let sent = packets(&mut Packetizer::new(Codec::Aac, 97, 1, 0, max_payload), &parts, 0);
                assert_eq!(depacketize(Codec::Aac, &sent), [(0, parts[0].to_vec())]);
            }
        }
    }

    #[test]
    fn nothing_makes_no_packet() {
        for codec in Codec::ALL {
            let mut packetizer = Packetizer::new(codec, 96, 1, 5, 1200);
            assert!(packets(&mut packetizer, &[], 0).is_empty());
            assert!(packets(&mut packetizer, &[Bytes::new(), Bytes::new()], 0).is_empty());
            assert_eq!(packetizer.next_sequence(), 5);
        }
    }

    #[test]
    fn sizes_of_packets_have_limits() {
        let unit = Bytes::from(alloc::vec![0x65; 200_000]);
        for (asked, got) in [(0, 32), (usize::MAX, 65_523)] {
            let sent = packets(&mut Packetizer::new(Codec::H264, 96, 1, 0, asked), core::slice::from_ref(&unit), 0);
            assert_eq!(sent.iter().map(|packet| packet.payload.len()).max(), Some(got));
        }
    }

    #[test]
    fn timestamps_are_exact_round_and_wrap() {
        assert_eq!(timestamp(0, 90_000, 77), 77);
        assert_eq!(timestamp(1_000_000, 90_000, 0), 90_000);
        assert_eq!(timestamp(33_333, 90_000, 0), 3_000, "2999.97");
        assert_eq!(timestamp(-1_000_000, 90_000, 0), 90_000u32.wrapping_neg());
        assert_eq!(timestamp(-5, 90_000, 0), 0, "-0.45 of a tick");
        assert_eq!(timestamp(-6, 90_000, 0), u32::MAX, "-0.54 of a tick");
        assert_eq!(timestamp(47_721_858_844, 90_000, 0), 0, "2^32 ticks are 13.25 hours");
        assert_eq!(timestamp(47_721_858_844, 90_000, u32::MAX), u32::MAX);
        // No drift: every AAC access unit of a year of 48 kHz lasts exactly 1024 ticks, though its time was cut to 1 µs.
        for unit in [1i64, 2, 3, 1000, 1_478_250_000] {
            let micros = unit * 1024 * 1_000_000 / 48_000;
            assert_eq!(timestamp(micros, 48_000, 0), (unit * 1024) as u32);
        }
        for extreme in [i64::MIN, i64::MAX] {
            timestamp(extreme, u32::MAX, u32::MAX);
        }
    }

    #[test]
    fn static_payload_types_only_where_they_say_all() {
        let g711 = |law, sample_rate, channels| payload_type(&Parameters::G711 { law, sample_rate, channels }, 98);
        assert_eq!((g711(Law::Mu, 8_000, 1), g711(Law::A, 8_000, 1)), (0, 8));
        assert_eq!((g711(Law::Mu, 16_000, 1), g711(Law::A, 8_000, 2)), (98, 98));
    }
}

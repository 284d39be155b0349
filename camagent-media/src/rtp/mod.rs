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

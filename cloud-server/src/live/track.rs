//! One track of a source: reads what the camera pushed and makes RTP packets of it (RFC 3550), each with the prefix of
//! RFC 2326 10.12 in front, in one piece of memory for a whole frame.

use bytes::Bytes;
use camagent_media::rtp::{self, Packetizer};
use camagent_media::{Codec, Framing, MediaError, Parameters, TrackReader};

use super::frame_log::Frame;

/// RTP payload bytes in one packet: with headers it stays below an Ethernet frame, for clients that relay to UDP.
const MAX_PAYLOAD: usize = 1400;

/// What an agent announces about a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackFormat {
    /// The codec.
    pub codec: Codec,
    /// How a pushed frame is laid out.
    pub framing: Framing,
    /// Samples a second; audio only.
    pub sample_rate: u32,
    /// Channels; audio only.
    pub channels: u16,
    /// Parameter sets or AudioSpecificConfig known beforehand; may be empty.
    pub config: Bytes,
}

/// What a player must know about a track.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackDescription {
    /// Index within the source: `trackID=` of the control URL.
    pub index: usize,
    /// RTP payload type.
    pub payload_type: u8,
    /// The synchronization source of its packets.
    pub ssrc: u32,
    /// The codec's parameters.
    pub parameters: Parameters,
}

/// The state of one track.
pub(super) struct Track {
    pub(super) number: u32,
    pub(super) format: TrackFormat,
    pub(super) announced: bool,
    pub(super) ssrc: u32,
    pub(super) clock_rate: u32,
    pub(super) frames: u64,
    reader: TrackReader,
    packetizer: Packetizer,
    index: u8,
    rtp_offset: u32,
    needs_key: bool,
}

impl Track {
    pub(super) fn new(index: u8, number: u32, format: TrackFormat) -> Result<Self, MediaError> {
        let reader = reader(&format)?;
        // Initial values are random (RFC 3550 5.1); an attacker who guesses them gains nothing inside a TCP stream, so
        // a machine without randomness may do without.
        let mut random = [0; 10];
        let _ = getrandom::fill(&mut random);
        let [a, b, c, d, e, f, g, h, i, j] = random;
        let ssrc = u32::from_be_bytes([a, b, c, d]);
        let payload_type = payload_type(index, &format);
        let packetizer = Packetizer::new(format.codec, payload_type, ssrc, u16::from_be_bytes([i, j]), MAX_PAYLOAD)
            .with_channels(format.channels);
        let clock_rate = format.codec.rtp_clock_rate(format.sample_rate);
        let rtp_offset = u32::from_be_bytes([e, f, g, h]);
        let needs_key = format.codec.is_video();
        Ok(Self {
            number,
            format,
            announced: true,
            ssrc,
            clock_rate,
            frames: 0,
            reader,
            packetizer,
            index,
            rtp_offset,
            needs_key,
        })
    }

    /// The same flow goes on under this number; sequence numbers and time stamps continue.
    pub(super) fn resume(&mut self, number: u32, format: TrackFormat, is_new_boot: bool) -> Result<(), MediaError> {
        if is_new_boot || format != self.format {
            self.reader = reader(&format)?;
            self.needs_key = format.codec.is_video();
        }
        self.number = number;
        self.format = format;
        self.announced = true;
        Ok(())
    }

    /// True when viewers need not notice that this format follows the present one.
    pub(super) fn fits(&self, format: &TrackFormat) -> bool {
        self.format.codec == format.codec
            && (format.codec.is_video()
                || (self.format.sample_rate == format.sample_rate && self.format.channels == format.channels))
    }

    pub(super) fn is_video(&self) -> bool {
        self.format.codec.is_video()
    }

    /// Frames are missing before the next one: what refers to them cannot be shown.
    pub(super) fn expect_key(&mut self) {
        self.needs_key = self.is_video();
    }

    pub(super) fn needs_key(&self) -> bool {
        self.needs_key
    }

    pub(super) fn parameters(&self) -> Option<&Parameters> {
        self.reader.parameters()
    }

    pub(super) fn describe(&self) -> Option<TrackDescription> {
        Some(TrackDescription {
            index: usize::from(self.index),
            payload_type: payload_type(self.index, &self.format),
            ssrc: self.ssrc,
            parameters: self.parameters()?.clone(),
        })
    }

    pub(super) fn next_sequence(&self) -> u16 {
        self.packetizer.next_sequence()
    }

    pub(super) fn rtp_time(&self, media_us: i64) -> u32 {
        // What the SDP says is what the clock ticks: the rate in the stream's own headers, when they are known.
        let clock_rate = self.parameters().map_or(self.clock_rate, Parameters::rtp_clock_rate);
        rtp::timestamp(media_us, clock_rate, self.rtp_offset)
    }

    /// Reads one pushed frame. None when it is of no use: no picture in it, or it refers to what was lost.
    pub(super) fn read(&mut self, payload: &Bytes) -> Result<Option<Read>, MediaError> {
        let unit = self.reader.read(payload)?;
        self.frames += 1;
        if unit.parts.is_empty() || (self.needs_key && !unit.key) {
            return Ok(None);
        }
        self.needs_key = false;
        let mut parts = unit.parts;
        if unit.key
            && self.is_video()
            && let Some(parameters) = self.reader.parameters()
        {
            prepend_missing_sets(&mut parts, parameters);
        }
        Ok(Some(Read { parts, key: unit.key }))
    }

    /// Makes the packets of what was read.
    pub(super) fn packetize(&mut self, read: &Read, media_us: i64, begins_group: bool) -> Frame {
        let rtp_time = self.rtp_time(media_us);
        let first_sequence = self.packetizer.next_sequence();
        let size: usize = read.parts.iter().map(Bytes::len).sum();
        let mut data = Vec::with_capacity(size + (size / MAX_PAYLOAD + read.parts.len() + 1) * 24);
        let (mut packets, mut octets) = (0_u32, 0_u32);
        let channel = self.index * 2;
        self.packetizer.packetize(&read.parts, rtp_time, &mut |header, pieces| {
            let payload: usize = pieces.iter().map(|piece| piece.len()).sum();
            let length = u16::try_from(header.len() + payload).unwrap_or(u16::MAX);
            data.extend_from_slice(&[b'$', channel]);
            data.extend_from_slice(&length.to_be_bytes());
            data.extend_from_slice(header);
            for piece in pieces {
                data.extend_from_slice(piece);
            }
            packets += 1;
            octets = octets.wrapping_add(u32::try_from(payload).unwrap_or_default());
        });
        let data = Bytes::from(data);
        Frame { track: self.index, key: begins_group, media_us, rtp_time, first_sequence, packets, octets, data }
    }
}

/// The parts of one readable frame.
pub(super) struct Read {
    parts: Vec<Bytes>,
    pub(super) key: bool,
}

fn reader(format: &TrackFormat) -> Result<TrackReader, MediaError> {
    TrackReader::new(format.codec, format.framing, &format.config, format.sample_rate, format.channels)
}

/// Static types of RFC 3551 where they mean exactly this, dynamic ones otherwise.
fn payload_type(index: u8, format: &TrackFormat) -> u8 {
    match (format.codec, format.sample_rate, format.channels) {
        (Codec::Pcmu, 8000, 1) => 0,
        (Codec::Pcma, 8000, 1) => 8,
        _ => 96 + index,
    }
}

/// A player that joins late or lost a packet needs the sets in band before each key frame; many cameras send them
/// only once.
fn prepend_missing_sets(parts: &mut Vec<Bytes>, parameters: &Parameters) {
    let mut sets: Vec<&Bytes> = Vec::new();
    let kind: fn(u8) -> u8 = match parameters {
        Parameters::H264 { sps, pps, .. } => {
            sets.push(sps);
            sets.extend(pps);
            |byte| byte & 0x1f
        }
        Parameters::H265 { vps, sps, pps, .. } => {
            sets.extend([vps, sps]);
            sets.extend(pps);
            |byte| (byte >> 1) & 0x3f
        }
        _ => return,
    };
    let kind_of = |nal: &Bytes| nal.first().map(|byte| kind(*byte));
    let missing: Vec<Bytes> = sets
        .into_iter()
        .filter(|set| !set.is_empty() && !parts.iter().any(|part| kind_of(part) == kind_of(set)))
        .cloned()
        .collect();
    parts.splice(0..0, missing);
}

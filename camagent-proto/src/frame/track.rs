//! TRACK: what a track is, and in which epoch its numbers count.

use alloc::{string::String, vec::Vec};

use bytes::Bytes;

use super::{Body, Reader, put_text};
use crate::{error::Error, varint};

/// Octets that camera ids and source names may have.
pub const MAX_NAME: usize = 64;
/// Octets of parameter sets or decoder configuration that a TRACK may carry.
pub const MAX_CONFIG: usize = 2_048;

/// A track as announced by the agent. Codec and framing are numbers here; their meaning is in `sdk-docs/protocol/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Number of the track on this agent, below the server's `limits.tracks`: 128 unless it says otherwise.
    pub track: u32,
    /// Numbering era of the track within the agent's boot: grows whenever codec, camera or source of the track change or the track is added again.
    pub epoch: u64,
    /// Sequence of the next frame that will follow.
    pub next: u64,
    /// Camera that the track belongs to.
    pub camera: String,
    /// Source of that camera: `main`, `sub` …; the tracks of a source share one clock.
    pub source: String,
    /// Codec number.
    pub codec: u8,
    /// How the octets of a frame are laid out: framing number.
    pub framing: u8,
    /// Samples per second of audio, 0 for video.
    pub sample_rate: u32,
    /// Channels of audio, 0 for video.
    pub channels: u8,
    /// Parameter sets (Annex B) or AudioSpecificConfig; empty when they come in band.
    pub config: Bytes,
}

impl Body for TrackInfo {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let small = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
        Ok(Self {
            track: reader.integer32("TRACK track")?,
            epoch: reader.integer("TRACK epoch")?,
            next: reader.integer("TRACK next")?,
            camera: reader.text(MAX_NAME, "TRACK camera")?,
            source: reader.text(MAX_NAME, "TRACK source")?,
            codec: small(reader.integer("TRACK codec")?),
            framing: small(reader.integer("TRACK framing")?),
            sample_rate: reader.integer32("TRACK sample rate")?,
            channels: small(reader.integer("TRACK channels")?),
            config: reader.octets(MAX_CONFIG, "TRACK config")?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(u64::from(self.track), out);
        varint::put(self.epoch, out);
        varint::put(self.next, out);
        put_text(&self.camera, out);
        put_text(&self.source, out);
        varint::put(u64::from(self.codec), out);
        varint::put(u64::from(self.framing), out);
        varint::put(u64::from(self.sample_rate), out);
        varint::put(u64::from(self.channels), out);
        varint::put(self.config.len() as u64, out);
        out.extend_from_slice(&self.config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_comes_back_and_later_fields_are_ignored() {
        let track = TrackInfo {
            track: 3,
            epoch: 2,
            next: 70,
            camera: "gate".into(),
            source: "main".into(),
            codec: 2,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: Bytes::from_static(&[0, 0, 1, 0x40]),
        };
        let mut bytes = Vec::new();
        track.write(&mut bytes);
        bytes.extend_from_slice(b"from a newer agent");
        assert_eq!(TrackInfo::read(&mut Reader::new(bytes.into())).unwrap(), track);
    }
}

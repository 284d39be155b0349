//! What a track is, as the host describes it.

use camagent_media::{Codec, Framing};
use camagent_proto::{
    frame::{MAX_CONFIG, TrackInfo},
    message::is_name,
};

use crate::error::Error;

/// One flow of coded pictures or audio units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackDescription {
    /// The camera it belongs to; `None` for the first camera of the configuration.
    pub camera: Option<String>,
    /// The source it belongs to, `main`, `sub` …: the tracks of a source are on one clock and are played together.
    pub source: String,
    /// How it is coded.
    pub codec: Codec,
    /// How the octets of a frame are laid out.
    pub framing: Framing,
    /// Samples per second of audio; 0 for video.
    pub sample_rate: u32,
    /// Channels of audio; 0 for video.
    pub channels: u8,
    /// Parameter sets (Annex B) or AudioSpecificConfig, at most 2 048 octets. Empty when they come in band, as they mostly do.
    pub config: Vec<u8>,
}

impl TrackDescription {
    /// A video track of the first camera, with parameter sets in band.
    pub fn video(source: &str, codec: Codec, framing: Framing) -> Self {
        Self { camera: None, source: source.into(), codec, framing, sample_rate: 0, channels: 0, config: Vec::new() }
    }

    /// An audio track of the first camera.
    pub fn audio(source: &str, codec: Codec, framing: Framing, sample_rate: u32, channels: u8) -> Self {
        Self { camera: None, source: source.into(), codec, framing, sample_rate, channels, config: Vec::new() }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::Usage(what));
        for name in self.camera.iter().chain([&self.source]) {
            if !is_name(name) {
                return wrong(format!("{name:?} names no camera or source: {}", crate::config::NAME));
            }
        }
        if !self.framing.fits(self.codec) {
            return wrong(format!("{} frames cannot be laid out as {}", self.codec.name(), self.framing.name()));
        }
        if self.config.len() > MAX_CONFIG {
            return wrong(format!("{} octets of configuration, at most {MAX_CONFIG} fit", self.config.len()));
        }
        if self.codec.is_video() {
            return Ok(());
        }
        if !(1_000..=192_000).contains(&self.sample_rate) || !(1..=8).contains(&self.channels) {
            return wrong(format!(
                "audio of {} Hz with {} channels: 1000 to 192000 Hz and 1 to 8 channels are possible",
                self.sample_rate, self.channels
            ));
        }
        if self.codec == Codec::Aac && self.framing == Framing::Raw && self.config.is_empty() {
            return wrong("raw AAC needs its AudioSpecificConfig, or ADTS framing".into());
        }
        Ok(())
    }

    pub(super) fn info(&self, track: u32, epoch: u64, first_camera: &str) -> TrackInfo {
        TrackInfo {
            track,
            epoch,
            next: 0,
            camera: self.camera.clone().unwrap_or_else(|| first_camera.into()),
            source: self.source.clone(),
            codec: self.codec.number(),
            framing: self.framing.number(),
            sample_rate: self.sample_rate,
            channels: self.channels,
            config: self.config.clone().into(),
        }
    }
}

//! Frames of one track in; units, key frames and current parameters out.
//!
//! The reader is the door: what comes through it is NAL units or audio access units that every later part can rely on.
//! It copies no media, units are slices of the frame they came in. How they are sent belongs into `rtp`.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::annexb;
use crate::codec::aac::{AdtsHeader, AudioSpecificConfig, MOST_UNIT_BYTES};
use crate::codec::g711::Law;
use crate::codec::sets::ParameterSets;
use crate::codec::{Codec, Framing, NalKind, Parameters, nal_kind};
use crate::error::{MediaError, dump};

/// What one frame holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// NAL units without start code or length, or raw audio access units, in order. Empty when the frame held nothing
    /// that is passed on.
    pub parts: Vec<Bytes>,
    /// Decoding can start here. For audio always.
    pub key: bool,
    /// [`TrackReader::parameters`] are others than before this frame.
    pub parameters_changed: bool,
}

/// Reads the frames of one track, one after the other.
///
/// A frame that is refused leaves the reader as it was.
#[derive(Debug, Clone)]
pub struct TrackReader {
    codec: Codec,
    framing: Framing,
    parameters: Option<Parameters>,
    /// Of video.
    sets: ParameterSets,
    /// The AudioSpecificConfig that the last ADTS header stands for.
    adts_config: Option<[u8; 2]>,
    /// What the track was announced with, for ADTS headers that do not tell.
    channels: u16,
}

impl TrackReader {
    /// A reader for a track as it was announced.
    ///
    /// `config` may be empty, else it is what the frames leave out: parameter sets in Annex B, whatever the framing, or an
    /// AudioSpecificConfig. `sample_rate` and `channels` count where nothing better tells: for G.711, and for raw AAC
    /// without a config, which then is AAC LC.
    pub fn new(
        codec: Codec,
        framing: Framing,
        config: &[u8],
        sample_rate: u32,
        channels: u16,
    ) -> Result<Self, MediaError> {
        if !framing.fits(codec) {
            let expected = format!("a framing for {}", codec.name());
            return Err(MediaError::new("track", expected, framing.name()));
        }
        let mut reader =
            Self { codec, framing, parameters: None, sets: ParameterSets::new(codec), adts_config: None, channels };
        match codec {
            Codec::H264 | Codec::H265 if config.is_empty() => {}
            Codec::H264 | Codec::H265 => {
                let parts: Vec<_> = annexb::units(config)?.map(|range| &config[range]).collect();
                let sets = reader.sets_after(&parts)?;
                reader.commit(sets);
            }
            Codec::Aac if !config.is_empty() => {
                let read = AudioSpecificConfig::parse(config)?;
                let config = Bytes::copy_from_slice(config);
                reader.parameters = Some(reader.aac(config, read.sample_rate, read.channels)?);
            }
            Codec::Aac if framing == Framing::Raw => {
                let Some(config) = AudioSpecificConfig::lc(sample_rate, channels) else {
                    let expected = "an AudioSpecificConfig, or a sample rate and channels of AAC LC";
                    let got = format!("{sample_rate} Hz, {channels} channels and no config");
                    return Err(MediaError::new("track", expected, got));
                };
                let config = Bytes::copy_from_slice(&config);
                reader.parameters = Some(Parameters::Aac { config, sample_rate, channels });
            }
            Codec::Aac => {}
            Codec::Pcma | Codec::Pcmu => {
                if sample_rate == 0 || channels == 0 {
                    let got = format!("{sample_rate} Hz, {channels} channels");
                    return Err(MediaError::new("track", "a sample rate and at least one channel", got));
                }
                let law = if codec == Codec::Pcma { Law::A } else { Law::Mu };
                reader.parameters = Some(Parameters::G711 { law, sample_rate, channels });
            }
        }
        Ok(reader)
    }

    /// Reads a frame as it was pushed.
    pub fn read(&mut self, payload: &Bytes) -> Result<Unit, MediaError> {
        if payload.is_empty() {
            return Err(MediaError::new("frame", "at least one byte", "an empty payload"));
        }
        match self.framing {
            Framing::AnnexB => self.picture(annexb::split(payload)?),
            Framing::Length4 => {
                let ranges: Result<Vec<_>, _> = annexb::length_prefixed(payload).collect();
                self.picture(ranges?.into_iter().map(|range| payload.slice(range)).collect())
            }
            Framing::Adts => self.adts(payload),
            Framing::Raw => self.raw(payload),
        }
    }

    /// What a player must know beforehand; None until it was seen.
    pub const fn parameters(&self) -> Option<&Parameters> {
        self.parameters.as_ref()
    }

    fn picture(&mut self, mut parts: Vec<Bytes>) -> Result<Unit, MediaError> {
        if let Some(cut) = parts.iter().find(|part| self.codec == Codec::H265 && part.len() < 2) {
            return Err(MediaError::new("H.265 NAL unit", "a header of 2 bytes", dump(cut)));
        }
        parts.retain(|part| nal_kind(self.codec, part) != NalKind::Dropped);
        let key = parts.iter().find_map(|part| match nal_kind(self.codec, part) {
            NalKind::Slice { key } => Some(key),
            _ => None,
        });
        let sets = self.sets_after(&parts)?;
        let parameters_changed = self.commit(sets);
        Ok(Unit { parts, key: key == Some(true), parameters_changed })
    }

    /// The sets after a frame with these units; None when they are the same as before, which is the common case.
    fn sets_after(&self, parts: &[impl AsRef<[u8]>]) -> Result<Option<ParameterSets>, MediaError> {
        let of_kind = |wanted| {
            let units = parts.iter().map(AsRef::as_ref);
            units.filter(move |unit| nal_kind(self.codec, unit) == wanted)
        };
        let mut after = None;
        if of_kind(NalKind::ParameterSet).any(|set| !self.sets.contains(set)) {
            let changed = after.insert(self.sets.clone());
            of_kind(NalKind::ParameterSet).try_for_each(|set| changed.insert(set))?;
        }
        // The other slices of the picture use sets with the same SPS.
        if let Some(slice) = of_kind(NalKind::Slice { key: true }).next()
            && let Some(pps_id) = after.as_ref().unwrap_or(&self.sets).other_than_active(slice)
        {
            after.get_or_insert_with(|| self.sets.clone()).activate(pps_id);
        }
        Ok(after)
    }

    /// Takes changed sets over, and tells whether the parameters are others now.
    fn commit(&mut self, sets: Option<ParameterSets>) -> bool {
        let Some(sets) = sets else { return false };
        let parameters = sets.parameters();
        self.sets = sets;
        // A new PPS may refer to an SPS that is still to come: what was known stays until then.
        let changed = parameters.is_some() && parameters != self.parameters;
        if changed {
            self.parameters = parameters;
        }
        changed
    }

    fn adts(&mut self, payload: &Bytes) -> Result<Unit, MediaError> {
        let mut parts = Vec::with_capacity(1);
        let mut last = None;
        let mut offset = 0;
        while offset < payload.len() {
            let header = AdtsHeader::parse(&payload[offset..], offset)?;
            parts.push(payload.slice(offset + header.header_bytes..offset + header.frame_bytes));
            offset += header.frame_bytes;
            last = Some(header);
        }
        let parameters_changed = match last {
            Some(header) if self.adts_config != Some(header.config()) => self.take_adts_config(&header)?,
            _ => false,
        };
        Ok(Unit { parts, key: true, parameters_changed })
    }

    /// A config that the track was announced with says more than the header (SBR), as long as they do not disagree.
    fn take_adts_config(&mut self, header: &AdtsHeader) -> Result<bool, MediaError> {
        let config = header.config();
        let read = AudioSpecificConfig::parse(&config)?;
        let announced = self.adts_config.is_none()
            && matches!(&self.parameters, Some(Parameters::Aac { sample_rate, channels, .. })
                if *sample_rate == read.sample_rate && read.channels.is_none_or(|count| count == *channels));
        let mut changed = false;
        if !announced {
            let parameters = self.aac(Bytes::copy_from_slice(&config), read.sample_rate, read.channels)?;
            changed = self.parameters.as_ref() != Some(&parameters);
            self.parameters = Some(parameters);
        }
        self.adts_config = Some(config);
        Ok(changed)
    }

    /// AAC parameters; the channels that the track was announced with count where the config does not tell.
    fn aac(&self, config: Bytes, sample_rate: u32, channels: Option<u16>) -> Result<Parameters, MediaError> {
        match channels.unwrap_or(self.channels) {
            0 => Err(MediaError::new("AAC track", "a number of channels, in the config or with the track", "0")),
            channels => Ok(Parameters::Aac { config, sample_rate, channels }),
        }
    }

    fn raw(&self, payload: &Bytes) -> Result<Unit, MediaError> {
        match &self.parameters {
            Some(Parameters::G711 { channels, .. }) if !payload.len().is_multiple_of(usize::from(*channels)) => {
                let expected = format!("the same number of samples in each of {channels} channels");
                Err(MediaError::new("G.711 frame", expected, format!("{} bytes", payload.len())))
            }
            Some(Parameters::Aac { .. }) if payload.len() > MOST_UNIT_BYTES => {
                let expected = format!("at most {MOST_UNIT_BYTES} bytes");
                Err(MediaError::new("AAC access unit", expected, format!("{}", payload.len())))
            }
            _ => Ok(Unit { parts: vec![payload.clone()], key: true, parameters_changed: false }),
        }
    }
}

#[cfg(test)]
mod tests;

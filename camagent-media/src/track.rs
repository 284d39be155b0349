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
mod tests {
    use super::*;
    use crate::annexb::join;
    use crate::test_data::{H264_1920X1080, H264_2688X1520, H265_1920X1080, H265_2688X1520, hex};
    use alloc::string::{String, ToString};

    const IDR: &str = "65888404bffef7847e0537";
    const SECOND_IDR_SLICE: &str = "65122210e83180038030";
    const P: &str = "419a2013af041800aa26";
    const SEI: &str = "0605ffff56dc45";
    const AUD: &str = "09f0";

    fn annexb(units: &[&str]) -> Bytes {
        join(&units.iter().map(|unit| hex(unit)).collect::<Vec<_>>()).into()
    }

    fn length4(units: &[&str]) -> Bytes {
        let units = units.iter().map(|unit| hex(unit));
        units.flat_map(|unit| [&(unit.len() as u32).to_be_bytes()[..], &unit].concat()).collect()
    }

    fn parts(units: &[&str]) -> Vec<Bytes> {
        units.iter().map(|unit| hex(unit).into()).collect()
    }

    fn h264() -> TrackReader {
        TrackReader::new(Codec::H264, Framing::AnnexB, &[], 0, 0).unwrap()
    }

    fn size(reader: &TrackReader) -> Option<(u32, u32)> {
        reader.parameters().and_then(Parameters::dimensions)
    }

    fn error(result: Result<impl Sized, MediaError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_key_frame_brings_parameters_and_loses_its_delimiter() {
        let [sps, pps] = H264_1920X1080;
        let mut reader = h264();
        assert_eq!(reader.parameters(), None);
        let unit = reader.read(&annexb(&[AUD, sps, pps, SEI, IDR, SECOND_IDR_SLICE])).unwrap();
        assert_eq!(unit.parts, parts(&[sps, pps, SEI, IDR, SECOND_IDR_SLICE]), "sets stay, in order; both slices");
        assert!(unit.key && unit.parameters_changed);
        assert_eq!(size(&reader), Some((1920, 1080)));
        let unit = reader.read(&annexb(&[AUD, P])).unwrap();
        assert_eq!(unit, Unit { parts: parts(&[P]), key: false, parameters_changed: false });
    }

    #[test]
    fn repeated_sets_are_no_change_and_others_are() {
        let [sps, pps] = H264_1920X1080;
        let mut reader = h264();
        assert!(reader.read(&annexb(&[sps, pps, IDR])).unwrap().parameters_changed);
        assert!(!reader.read(&annexb(&[sps, pps, IDR])).unwrap().parameters_changed);
        let [other_sps, other_pps] = H264_2688X1520;
        assert!(reader.read(&annexb(&[other_sps, other_pps, IDR])).unwrap().parameters_changed);
        assert_eq!(size(&reader), Some((2688, 1520)));
        // Garbage behind a set is kept as it came: it is another set, that says the same.
        let longer = [sps, "deadbeef"].concat();
        assert!(reader.read(&annexb(&[&longer, pps, IDR])).unwrap().parameters_changed);
        assert!(!reader.read(&annexb(&[&longer, pps, IDR])).unwrap().parameters_changed);
        assert_eq!(size(&reader), Some((1920, 1080)));
    }

    #[test]
    fn sets_may_come_before_the_picture_in_frames_of_their_own() {
        let [vps, sps, pps] = H265_2688X1520;
        let mut reader = TrackReader::new(Codec::H265, Framing::Length4, &[], 0, 0).unwrap();
        assert!(!reader.read(&length4(&[vps])).unwrap().parameters_changed);
        assert!(!reader.read(&length4(&[sps])).unwrap().parameters_changed);
        let unit = reader.read(&length4(&[pps])).unwrap();
        assert!(unit.parameters_changed && !unit.key);
        assert_eq!(size(&reader), Some((2688, 1520)));
        let unit = reader.read(&length4(&["460110", vps, sps, pps, "2801ac4498037ac633bf"])).unwrap();
        assert!(unit.key && !unit.parameters_changed);
        assert_eq!(unit.parts.len(), 4);
    }

    #[test]
    fn the_config_counts_as_seen() {
        let [vps, sps, pps] = H265_1920X1080;
        let config = annexb(&[vps, sps, pps]);
        for framing in [Framing::AnnexB, Framing::Length4] {
            let mut reader = TrackReader::new(Codec::H265, framing, &config, 0, 0).unwrap();
            assert_eq!(size(&reader), Some((1920, 1080)));
            let frame = [vps, sps, pps, "2801ac4498037ac633bf"];
            let frame = if framing == Framing::AnnexB { annexb(&frame) } else { length4(&frame) };
            let unit = reader.read(&frame).unwrap();
            assert!(unit.key && !unit.parameters_changed);
        }
        let Parameters::H265 { vps: found, .. } =
            TrackReader::new(Codec::H265, Framing::AnnexB, &config, 0, 0).unwrap().parameters.unwrap()
        else {
            panic!("H.265 parameters")
        };
        assert_eq!(found, hex(vps));
    }

    #[test]
    fn in_force_is_what_the_key_frame_refers_to() {
        // The same SPS and PPS as PPS 7 -> SPS 3 of another size; both pairs in every key frame.
        let [sps, pps] = H264_1920X1080;
        let other_sps = "6764001e22db4d34d34d34d12054b4d34d34d34d34d34d34d34d34d34d34d34d34d34d34d34d28533142ca05a127ebff\
            00070005b5010101d4000003000400000300ca10";
        let other_pps = "6810438e20";
        // I slices that use PPS 0, PPS 7.
        let (uses_first, uses_other) = ("65b880", "6588108080");
        let mut reader = h264();
        assert!(reader.read(&annexb(&[sps, pps, other_sps, other_pps, uses_first])).unwrap().parameters_changed);
        assert_eq!(size(&reader), Some((1920, 1080)));
        assert!(!reader.read(&annexb(&[other_sps, other_pps, sps, pps, uses_first])).unwrap().parameters_changed);
        assert!(reader.read(&annexb(&[sps, pps, other_sps, other_pps, uses_other])).unwrap().parameters_changed);
        assert_eq!(size(&reader), Some((720, 572)));
    }

    #[test]
    fn several_pps_of_one_sps_are_all_told() {
        let [sps, pps] = H264_1920X1080;
        // PPS 1 that refers to SPS 0.
        let second_pps = "685b8f2c8b";
        let mut reader = h264();
        assert!(reader.read(&annexb(&[sps, second_pps, pps, IDR])).unwrap().parameters_changed);
        let Some(Parameters::H264 { pps: found, .. }) = reader.parameters() else { panic!("H.264 parameters") };
        assert_eq!(found, &parts(&[pps, second_pps]), "by id");
        assert!(!reader.read(&annexb(&[sps, second_pps, pps, IDR])).unwrap().parameters_changed);
    }

    #[test]
    fn a_refused_frame_changes_nothing() {
        let [sps, pps] = H264_1920X1080;
        let mut reader = h264();
        reader.read(&annexb(&[sps, pps, IDR])).unwrap();
        let before = reader.parameters().cloned();
        let [other_sps, _] = H264_2688X1520;
        assert!(error(reader.read(&annexb(&[other_sps, "6742c0", IDR]))).starts_with("H.264 SPS, "));
        assert_eq!(reader.parameters().cloned(), before);
        assert!(!reader.read(&annexb(&[sps, pps, IDR])).unwrap().parameters_changed);
    }

    #[test]
    fn says_what_is_wrong_with_a_frame() {
        let mut reader = h264();
        assert_eq!(error(reader.read(&Bytes::new())), "frame: expected at least one byte, got an empty payload");
        assert_eq!(
            error(reader.read(&hex(IDR).into())),
            "Annex B data: expected a start code 00 00 01 or 00 00 00 01 first, got 65 88 84 04 bf fe f7 84 … (11 bytes)"
        );
        let endless = [&hex("6742c032")[..], &[7; 5000]].concat();
        assert_eq!(
            error(reader.read(&join(&[endless]).into())),
            "parameter set: expected at most 4096 bytes, got 5004"
        );
        let mut reader = TrackReader::new(Codec::H265, Framing::AnnexB, &[], 0, 0).unwrap();
        assert_eq!(
            error(reader.read(&annexb(&["28"]))),
            "H.265 NAL unit: expected a header of 2 bytes, got 28 (1 bytes)"
        );
    }

    #[test]
    fn empty_units_are_passed_over() {
        let mut reader = h264();
        assert_eq!(reader.read(&Bytes::from_static(&[0, 0, 1, 0, 0, 1, 0x41, 0x9a])).unwrap().parts, parts(&["419a"]));
        assert_eq!(reader.read(&Bytes::from_static(&[0, 0, 0, 1])).unwrap(), Unit::default());
        let mut reader = TrackReader::new(Codec::H264, Framing::Length4, &[], 0, 0).unwrap();
        assert_eq!(reader.read(&length4(&["", "419a", ""])).unwrap().parts, parts(&["419a"]));
    }

    #[test]
    fn units_share_the_memory_of_the_frame_and_sets_do_not() {
        let [sps, pps] = H264_1920X1080;
        let frame = annexb(&[sps, pps, IDR]);
        let mut reader = h264();
        let unit = reader.read(&frame).unwrap();
        let inside = |part: &Bytes| frame.as_ptr_range().contains(&part.as_ptr());
        assert!(unit.parts.iter().all(inside));
        let Some(Parameters::H264 { sps, pps, .. }) = reader.parameters() else { panic!("H.264 parameters") };
        assert!(!inside(sps) && !pps.iter().any(inside), "a set does not keep its frame alive");
    }

    #[test]
    fn several_adts_frames_in_one() {
        let frame = |payload: &[u8]| {
            let length = 7 + payload.len() as u8;
            [&[0xff, 0xf1, 0x4c, 0x80, length >> 3, length << 5 | 0x1f, 0xfc], payload].concat()
        };
        let mut reader = TrackReader::new(Codec::Aac, Framing::Adts, &[], 0, 0).unwrap();
        let unit = reader.read(&[frame(&[1, 2, 3]), frame(&[4])].concat().into()).unwrap();
        assert_eq!(unit.parts, [&[1, 2, 3][..], &[4]]);
        assert!(unit.key && unit.parameters_changed);
        let expected = Parameters::Aac { config: Bytes::from_static(&[0x11, 0x90]), sample_rate: 48_000, channels: 2 };
        assert_eq!(reader.parameters(), Some(&expected));
        assert!(!reader.read(&frame(&[5]).into()).unwrap().parameters_changed);
        let garbage = [frame(&[1, 2, 3]), vec![0xde, 0xad, 0, 0, 0, 0, 0]].concat();
        assert!(error(reader.read(&garbage.into())).starts_with("ADTS header at byte 10: expected the syncword"));
    }

    #[test]
    fn an_announced_config_says_more_than_the_header() {
        let header = [0xff, 0xf1, 0x58, 0x80, 0x01, 0x1f, 0xfc, 0x21];
        // HE-AAC over a 24 kHz stereo core, and a header of that core.
        let mut reader = TrackReader::new(Codec::Aac, Framing::Adts, &[0x2b, 0x11, 0x88, 0x00], 0, 0).unwrap();
        assert!(!reader.read(&Bytes::copy_from_slice(&header)).unwrap().parameters_changed);
        assert_eq!(reader.parameters().unwrap().rfc6381(), "mp4a.40.5");
        // The header of another rate wins.
        let mut other = header;
        other[2] = 0x4c;
        assert!(reader.read(&Bytes::copy_from_slice(&other)).unwrap().parameters_changed);
        assert_eq!(reader.parameters().unwrap().rtp_clock_rate(), 48_000);
    }

    #[test]
    fn raw_audio() {
        let mut aac = TrackReader::new(Codec::Aac, Framing::Raw, &[], 16_000, 1).unwrap();
        let config = Bytes::from_static(&[0x14, 0x08]);
        assert_eq!(aac.parameters(), Some(&Parameters::Aac { config, sample_rate: 16_000, channels: 1 }));
        assert_eq!(aac.read(&Bytes::from_static(&[0x21, 7])).unwrap().parts, [&[0x21, 7][..]]);
        assert_eq!(error(aac.read(&vec![0; 8192].into())), "AAC access unit: expected at most 8191 bytes, got 8192");

        let mut stereo = TrackReader::new(Codec::Pcmu, Framing::Raw, &[], 8_000, 2).unwrap();
        assert_eq!(stereo.read(&vec![0xff; 320].into()).unwrap().parts, [vec![0xff; 320]]);
        assert!(error(stereo.read(&vec![0xff; 321].into())).contains("in each of 2 channels, got 321 bytes"));
    }

    #[test]
    fn says_what_is_wrong_with_a_track() {
        let new = |codec, framing, config: &[u8], rate, channels| {
            error(TrackReader::new(codec, framing, config, rate, channels))
        };
        assert_eq!(new(Codec::H264, Framing::Adts, &[], 0, 0), "track: expected a framing for H.264, got ADTS");
        assert!(
            new(Codec::H264, Framing::Length4, &[1, 0x64, 0, 0x28], 0, 0).contains("expected a start code"),
            "an avcC"
        );
        assert!(new(Codec::Pcma, Framing::Raw, &[], 0, 1).contains("got 0 Hz, 1 channels"));
        assert!(new(Codec::Pcma, Framing::Raw, &[], 8_000, 0).contains("got 8000 Hz, 0 channels"));
        assert!(new(Codec::Aac, Framing::Raw, &[], 8_001, 1).contains("got 8001 Hz, 1 channels and no config"));
        assert!(new(Codec::Aac, Framing::Raw, &[0x11, 0x80], 0, 0).contains("a number of channels"));
        assert_eq!(new(Codec::Aac, Framing::Raw, &[0x11, 0x80], 0, 2), "", "a program config element, and 2 announced");
    }
}

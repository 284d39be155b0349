//! AAC (ISO/IEC 14496-3): the AudioSpecificConfig (clause 1.6.2.1) and the ADTS header (clause 1.A.3.2).
//!
//! Only what has 1024 samples in an access unit: AAC Main, LC, SSR, LTP, and HE-AAC, whose core counts. All time here runs
//! at the core's sample rate, so that every access unit lasts 1024 ticks also when a decoder doubles the rate (SBR).

use alloc::format;

use super::fields::Fields;
use crate::bits::Bits;
use crate::error::{MediaError, dump};

/// Samples of one channel in an access unit.
pub const SAMPLES_PER_UNIT: u32 = 1024;
/// The longest access unit that an AU header with 13 bits of size can announce (RFC 3640 AAC-hbr); ADTS has the same limit.
pub const MOST_UNIT_BYTES: usize = 8191;

/// What an AudioSpecificConfig says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// The first audio object type: 2 is AAC LC, 5 HE-AAC, 29 HE-AAC v2.
    pub object_type: u8,
    /// Samples in a second of the core, 7,350 to 96,000 in practice.
    pub sample_rate: u32,
    /// Channels of the core; None when a program config element in the stream says it.
    pub channels: Option<u16>,
}

impl AudioSpecificConfig {
    /// Reads it. Bytes behind it are not looked at.
    pub fn parse(config: &[u8]) -> Result<Self, MediaError> {
        let mut fields = Fields::new("AudioSpecificConfig", Bits::plain(config));
        let object_type = audio_object_type(&mut fields)?;
        let sample_rate = sampling_frequency(&mut fields)?;
        let channels = channels(&mut fields)?;
        let core = if matches!(object_type, SBR | PS) {
            sampling_frequency(&mut fields)?;
            audio_object_type(&mut fields)?
        } else {
            object_type
        };
        if !(1..=4).contains(&core) {
            let expected = "1 to 4 (AAC Main, LC, SSR, LTP), or 5 or 29 over one of them";
            return Err(fields.wrong("audioObjectType", expected, format!("{core}")));
        }
        if fields.flag("frameLengthFlag")? {
            return Err(fields.wrong("frameLengthFlag", "0 (1024 samples in an access unit)", "1 (960 samples)"));
        }
        Ok(Self { object_type, sample_rate, channels })
    }

    /// The two bytes that announce AAC LC; None when the rate is not in the table or the channels have no configuration.
    pub fn lc(sample_rate: u32, channels: u16) -> Option<[u8; 2]> {
        let index = SAMPLING_FREQUENCIES.iter().position(|rate| *rate == sample_rate)?;
        let configuration = CHANNELS.iter().position(|count| *count == Some(channels))?;
        // Both indices are below 16, the casts lose nothing.
        Some(short_config(2, index as u8, configuration as u8))
    }
}

/// An ADTS header (adts_fixed_header and adts_variable_header).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdtsHeader {
    /// The audio object type, 1 to 4.
    pub object_type: u8,
    /// Index into the table of sample rates.
    sampling_frequency_index: u8,
    /// Samples in a second.
    pub sample_rate: u32,
    /// channel_configuration; 0 when a program config element says it.
    pub channel_configuration: u8,
    /// Bytes of the header, 7 or with CRC 9.
    pub header_bytes: usize,
    /// Bytes of the header and the access unit.
    pub frame_bytes: usize,
}

impl AdtsHeader {
    /// Reads the header at the start of `data`. `offset` is where that is in the frame, for the error.
    pub fn parse(data: &[u8], offset: usize) -> Result<Self, MediaError> {
        let wrong = |expected: alloc::borrow::Cow<'static, str>, got: alloc::string::String| {
            MediaError::new(format!("ADTS header at byte {offset}"), expected, got)
        };
        let Some(&[sync, flags, profile, channels, length, length_low, blocks]) = data.first_chunk::<7>() else {
            return Err(wrong("7 bytes".into(), dump(data)));
        };
        // syncword, then layer, which is always 0.
        if sync != 0xff || flags & 0xf6 != 0xf0 {
            return Err(wrong("the syncword ff f0, f1, f8 or f9".into(), dump(data)));
        }
        let sampling_frequency_index = profile >> 2 & 0xf;
        let Some(&sample_rate) = SAMPLING_FREQUENCIES.get(usize::from(sampling_frequency_index)) else {
            return Err(wrong("sampling_frequency_index 0 to 12".into(), format!("{sampling_frequency_index}")));
        };
        let header_bytes = if flags & 1 == 1 { 7 } else { 9 };
        let frame_bytes = usize::from(channels & 3) << 11 | usize::from(length) << 3 | usize::from(length_low >> 5);
        if frame_bytes <= header_bytes || frame_bytes > data.len() {
            let expected = format!("aac_frame_length {} to {}, the bytes left", header_bytes + 1, data.len());
            return Err(wrong(expected.into(), format!("{frame_bytes}")));
        }
        // Without decoding them there is no way to tell where the second of several blocks begins.
        if blocks & 3 != 0 {
            let got = format!("{}", (blocks & 3) + 1);
            return Err(wrong("one raw data block in each ADTS frame".into(), got));
        }
        Ok(Self {
            object_type: (profile >> 6) + 1,
            sampling_frequency_index,
            sample_rate,
            channel_configuration: (profile & 1) << 2 | channels >> 6,
            header_bytes,
            frame_bytes,
        })
    }

    /// The AudioSpecificConfig that says the same.
    pub const fn config(&self) -> [u8; 2] {
        short_config(self.object_type, self.sampling_frequency_index, self.channel_configuration)
    }
}

/// Spectral band replication: HE-AAC.
const SBR: u8 = 5;
/// Parametric stereo: HE-AAC v2.
const PS: u8 = 29;

/// Table 1.18.
const SAMPLING_FREQUENCIES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Table 1.19: the channels of a channelConfiguration.
const CHANNELS: [Option<u16>; 15] = [
    None,
    Some(1),
    Some(2),
    Some(3),
    Some(4),
    Some(5),
    Some(6),
    Some(8),
    None,
    None,
    None,
    Some(7),
    Some(8),
    Some(24),
    Some(8),
];

/// Object type, rate and channels in 13 bits, then three zero flags: 1024 samples, no core coder, no extension.
const fn short_config(object_type: u8, frequency_index: u8, channel_configuration: u8) -> [u8; 2] {
    [object_type << 3 | frequency_index >> 1, frequency_index << 7 | channel_configuration << 3]
}

fn audio_object_type(fields: &mut Fields<'_>) -> Result<u8, MediaError> {
    const ESCAPE: u32 = 31;
    let short = fields.bits(5, "audioObjectType")?;
    let long = if short == ESCAPE { 32 + fields.bits(6, "audioObjectTypeExt")? } else { short };
    // At most 95, the cast loses nothing.
    Ok(long as u8)
}

fn sampling_frequency(fields: &mut Fields<'_>) -> Result<u32, MediaError> {
    const EXPLICIT: u32 = 15;
    let index = fields.bits(4, "samplingFrequencyIndex")?;
    if index == EXPLICIT {
        let rate = fields.bits(24, "samplingFrequency")?;
        return if rate > 0 { Ok(rate) } else { Err(fields.wrong("samplingFrequency", "more than 0", "0")) };
    }
    let rate = SAMPLING_FREQUENCIES.get(index as usize);
    rate.copied().ok_or_else(|| fields.wrong("samplingFrequencyIndex", "0 to 12, or 15", format!("{index}")))
}

fn channels(fields: &mut Fields<'_>) -> Result<Option<u16>, MediaError> {
    match fields.bits(4, "channelConfiguration")? {
        0 => Ok(None),
        configuration => match CHANNELS.get(configuration as usize) {
            Some(Some(count)) => Ok(Some(*count)),
            _ => Err(fields.wrong("channelConfiguration", "0 to 7 or 11 to 14", format!("{configuration}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// As ffmpeg's encoder writes it: AAC LC, 48 kHz, stereo, without CRC, here for 21 bytes in all.
    const HEADER: [u8; 7] = [0xff, 0xf1, 0x4c, 0x80, 0x02, 0xbf, 0xfc];

    #[test]
    fn reads_the_usual_configs() {
        let config = |object_type, sample_rate, channels| AudioSpecificConfig { object_type, sample_rate, channels };
        let parse = AudioSpecificConfig::parse;
        assert_eq!(parse(&[0x11, 0x90]), Ok(config(2, 48_000, Some(2))));
        assert_eq!(parse(&[0x12, 0x10]), Ok(config(2, 44_100, Some(2))));
        assert_eq!(parse(&[0x14, 0x08]), Ok(config(2, 16_000, Some(1))));
        assert_eq!(parse(&[0x15, 0x88]), Ok(config(2, 8_000, Some(1))));
        // With the backward compatible extension that ffmpeg appends.
        assert_eq!(parse(&[0x11, 0x90, 0x56, 0xe5, 0x00]), Ok(config(2, 48_000, Some(2))));
        // HE-AAC, 24 kHz core under 48 kHz; HE-AAC v2 with a mono core.
        assert_eq!(parse(&[0x2b, 0x11, 0x88, 0x00]), Ok(config(5, 24_000, Some(2))));
        assert_eq!(parse(&[0xeb, 0x09, 0x88, 0x00]), Ok(config(29, 24_000, Some(1))));
        // A rate outside the table, and a program config element.
        assert_eq!(parse(&[0x17, 0x80, 0x4e, 0x20, 0x08]), Ok(config(2, 40_000, Some(1))));
        assert_eq!(parse(&[0x11, 0x80]), Ok(config(2, 48_000, None)));
    }

    #[test]
    fn refuses_what_cannot_be_carried() {
        let error = |config: &[u8]| AudioSpecificConfig::parse(config).unwrap_err().to_string();
        assert_eq!(
            error(&[0x11, 0x94]),
            "AudioSpecificConfig, frameLengthFlag: expected 0 (1024 samples in an access unit), got 1 (960 samples)"
        );
        assert!(error(&[0xb9, 0x90]).contains("got 23"), "AAC LD");
        assert!(error(&[0x16, 0x90]).contains("samplingFrequencyIndex: expected 0 to 12, or 15, got 13"));
        assert!(error(&[0x11, 0xc0]).contains("channelConfiguration: expected 0 to 7 or 11 to 14, got 8"));
        assert!(error(&[0x11]).contains("samplingFrequencyIndex: expected a value"));
        assert!(error(&[]).contains("audioObjectType: expected a value"));
    }

    #[test]
    fn announces_lc() {
        assert_eq!(AudioSpecificConfig::lc(48_000, 2), Some([0x11, 0x90]));
        assert_eq!(AudioSpecificConfig::lc(8_000, 1), Some([0x15, 0x88]));
        assert_eq!(AudioSpecificConfig::lc(48_000, 8), Some([0x11, 0xb8]));
        assert_eq!(AudioSpecificConfig::lc(48_001, 2), None);
        assert_eq!(AudioSpecificConfig::lc(48_000, 0), None);
    }

    #[test]
    fn reads_an_adts_header() {
        let mut frame = [0; 30];
        frame[..7].copy_from_slice(&HEADER);
        let header = AdtsHeader::parse(&frame, 0).unwrap();
        assert_eq!((header.object_type, header.sample_rate, header.channel_configuration), (2, 48_000, 2));
        assert_eq!((header.header_bytes, header.frame_bytes), (7, 21));
        assert_eq!(header.config(), [0x11, 0x90]);
        frame[1] = 0xf0;
        assert_eq!(AdtsHeader::parse(&frame, 0).unwrap().header_bytes, 9, "with CRC");
    }

    #[test]
    fn names_what_is_wrong_in_an_adts_header() {
        let error = |change: fn(&mut [u8; 30])| {
            let mut frame = [0; 30];
            frame[..7].copy_from_slice(&HEADER);
            change(&mut frame);
            AdtsHeader::parse(&frame, 40).unwrap_err().to_string()
        };
        assert!(error(|frame| frame[0] = 0xfe).starts_with("ADTS header at byte 40: expected the syncword"));
        assert!(error(|frame| frame[1] = 0xf3).contains("the syncword"), "layer 1");
        assert!(error(|frame| frame[2] = 0x74).contains("sampling_frequency_index 0 to 12, got 13"));
        assert!(error(|frame| frame[4] = 0xff).contains("aac_frame_length 8 to 30, the bytes left, got 2045"));
        assert!(error(|frame| (frame[4], frame[5]) = (0, 0xff)).contains("got 7"), "a header alone");
        assert!(error(|frame| frame[6] = 0xfd).contains("one raw data block in each ADTS frame, got 2"));
        assert!(AdtsHeader::parse(&HEADER[..6], 0).unwrap_err().to_string().contains("7 bytes"));
    }
}

//! What a player must know before the first frame, whichever way it is told: SDP, an MP4 header, a line for people.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;

use super::Codec;
use super::aac::AudioSpecificConfig;
use super::g711::Law;
use super::h265::ProfileTierLevel;

/// The parameters of one track. Parameter sets are NAL units without start code; equal means the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parameters {
    /// H.264.
    H264 {
        /// The sequence parameter set in force.
        sps: Bytes,
        /// The picture parameter sets that refer to it, by id; at least one.
        pps: Vec<Bytes>,
        /// Width of the picture shown, in pixels.
        width: u32,
        /// Height of the picture shown, in pixels.
        height: u32,
        /// profile_idc, constraint flags, level_idc.
        profile_level_id: [u8; 3],
        /// Frames in a second as a reduced fraction, when the SPS tells.
        frame_rate: Option<(u32, u32)>,
    },
    /// H.265.
    H265 {
        /// The video parameter set; empty when the camera leaves it out.
        vps: Bytes,
        /// The sequence parameter set in force.
        sps: Bytes,
        /// The picture parameter sets that refer to it, by id; at least one.
        pps: Vec<Bytes>,
        /// Width of the picture shown, in pixels.
        width: u32,
        /// Height of the picture shown, in pixels.
        height: u32,
        /// What a decoder must be able to decode.
        profile_tier_level: ProfileTierLevel,
        /// Pictures in a second as a reduced fraction, when SPS or VPS tell.
        frame_rate: Option<(u32, u32)>,
    },
    /// AAC.
    Aac {
        /// The AudioSpecificConfig.
        config: Bytes,
        /// Samples in a second of the core: each access unit is 1024 of them.
        sample_rate: u32,
        /// Channels, at least one.
        channels: u16,
    },
    /// G.711.
    G711 {
        /// How a sample is compressed.
        law: Law,
        /// Samples in a second, nearly always 8,000.
        sample_rate: u32,
        /// Channels, at least one.
        channels: u16,
    },
}

impl Parameters {
    /// The codec of the track.
    pub const fn codec(&self) -> Codec {
        match self {
            Self::H264 { .. } => Codec::H264,
            Self::H265 { .. } => Codec::H265,
            Self::Aac { .. } => Codec::Aac,
            Self::G711 { law, .. } => law.codec(),
        }
    }

    /// Ticks of an RTP time stamp in a second.
    pub const fn rtp_clock_rate(&self) -> u32 {
        match self {
            Self::H264 { .. } | Self::H265 { .. } => self.codec().rtp_clock_rate(0),
            Self::Aac { sample_rate, .. } | Self::G711 { sample_rate, .. } => *sample_rate,
        }
    }

    /// Width and height of the picture shown, in pixels; None for audio.
    pub const fn dimensions(&self) -> Option<(u32, u32)> {
        match self {
            Self::H264 { width, height, .. } | Self::H265 { width, height, .. } => Some((*width, *height)),
            Self::Aac { .. } | Self::G711 { .. } => None,
        }
    }

    /// Pictures in a second as a reduced fraction, when the stream tells; None for audio.
    pub const fn frame_rate(&self) -> Option<(u32, u32)> {
        match self {
            Self::H264 { frame_rate, .. } | Self::H265 { frame_rate, .. } => *frame_rate,
            Self::Aac { .. } | Self::G711 { .. } => None,
        }
    }

    /// Samples in a second; None for video.
    pub const fn sample_rate(&self) -> Option<u32> {
        match self {
            Self::H264 { .. } | Self::H265 { .. } => None,
            Self::Aac { sample_rate, .. } | Self::G711 { sample_rate, .. } => Some(*sample_rate),
        }
    }

    /// Channels; None for video.
    pub const fn channels(&self) -> Option<u16> {
        match self {
            Self::H264 { .. } | Self::H265 { .. } => None,
            Self::Aac { channels, .. } | Self::G711 { channels, .. } => Some(*channels),
        }
    }

    /// The codec as browsers and players name it (RFC 6381, ISO/IEC 14496-15 annex E): "avc1.640028", "hvc1.1.6.L93.B0",
    /// "mp4a.40.2". G.711 has no such name and gets that of its MP4 sample entry.
    pub fn rfc6381(&self) -> String {
        match self {
            Self::H264 { profile_level_id: [profile, constraints, level], .. } => {
                format!("avc1.{profile:02X}{constraints:02X}{level:02X}")
            }
            Self::H265 { profile_tier_level, .. } => hvc1(profile_tier_level),
            Self::Aac { config, .. } => {
                let object_type = AudioSpecificConfig::parse(config).map_or(2, |config| config.object_type);
                format!("mp4a.40.{object_type}")
            }
            Self::G711 { law: Law::A, .. } => String::from("alaw"),
            Self::G711 { law: Law::Mu, .. } => String::from("ulaw"),
        }
    }
}

/// ISO/IEC 14496-15, E.3: space and profile, compatibility flags with flag 0 lowest, tier and level, constraint bytes
/// up to the last that is not zero.
fn hvc1(of: &ProfileTierLevel) -> String {
    let space = ["", "A", "B", "C"][usize::from(of.profile_space & 3)];
    let tier = if of.high_tier { 'H' } else { 'L' };
    let compatibility = of.compatibility_flags.reverse_bits();
    let mut name = format!("hvc1.{space}{}.{compatibility:X}.{tier}{}", of.profile_idc, of.level_idc);
    let count = of.constraint_flags.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &of.constraint_flags[..count] {
        // Writing to a String cannot fail.
        let _ = write!(name, ".{byte:X}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_example_strings() {
        let main = ProfileTierLevel {
            profile_idc: 1,
            compatibility_flags: 0x6000_0000,
            constraint_flags: [0xb0, 0, 0, 0, 0, 0],
            level_idc: 93,
            ..ProfileTierLevel::default()
        };
        assert_eq!(hvc1(&main), "hvc1.1.6.L93.B0");
        // The other example of the standard: profile space A, high tier, more constraint bytes.
        let other = ProfileTierLevel {
            profile_space: 1,
            high_tier: true,
            profile_idc: 4,
            compatibility_flags: 0x0800_0000,
            constraint_flags: [0xb0, 0, 0x23, 0, 0, 0],
            level_idc: 120,
        };
        assert_eq!(hvc1(&other), "hvc1.A4.10.H120.B0.0.23");
        assert_eq!(hvc1(&ProfileTierLevel::default()), "hvc1.0.0.L0");
    }

    #[test]
    fn audio_says_rate_and_channels_and_no_size() {
        let aac = Parameters::Aac { config: Bytes::from_static(&[0x11, 0x90]), sample_rate: 48_000, channels: 2 };
        assert_eq!((aac.codec(), aac.rtp_clock_rate(), aac.rfc6381().as_str()), (Codec::Aac, 48_000, "mp4a.40.2"));
        assert_eq!((aac.dimensions(), aac.frame_rate(), aac.sample_rate()), (None, None, Some(48_000)));
        let g711 = Parameters::G711 { law: Law::Mu, sample_rate: 8_000, channels: 1 };
        assert_eq!((g711.codec(), g711.rtp_clock_rate(), g711.channels()), (Codec::Pcmu, 8_000, Some(1)));
        assert_eq!(g711.rfc6381(), "ulaw");
    }

    #[test]
    fn video_ticks_at_90_khz() {
        let video = Parameters::H264 {
            sps: Bytes::new(),
            pps: Vec::new(),
            width: 1920,
            height: 1080,
            profile_level_id: [0x64, 0, 0x28],
            frame_rate: Some((25, 1)),
        };
        assert_eq!((video.rtp_clock_rate(), video.dimensions()), (90_000, Some((1920, 1080))));
        assert_eq!((video.rfc6381().as_str(), video.frame_rate()), ("avc1.640028", Some((25, 1))));
        assert_eq!((video.sample_rate(), video.channels()), (None, None));
    }
}

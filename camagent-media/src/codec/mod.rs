//! The codecs and framings we carry, and what their parameter sets and headers say.
//!
//! The numbers are those of the wire and of the C header, fixed for ever. One file for each codec; [`sets`] keeps the
//! parameter sets of a track. How media is put into packets belongs into `rtp`.

pub mod aac;
pub(crate) mod fields;
pub mod g711;
pub mod h264;
pub mod h265;
pub mod parameters;
pub mod sets;
#[cfg(test)]
pub(crate) mod test_data;

pub use parameters::Parameters;

use crate::annexb;

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
    /// MPEG-4 AAC (ISO/IEC 14496-3) with 1024 samples in an access unit.
    Aac,
    /// ITU-T G.711, A-law.
    Pcma,
    /// ITU-T G.711, µ-law.
    Pcmu,
}

impl Codec {
    /// All codecs, by number.
    pub const ALL: [Self; 5] = [Self::H264, Self::H265, Self::Aac, Self::Pcma, Self::Pcmu];

    /// The number on the wire and in the C header.
    pub const fn number(self) -> u8 {
        match self {
            Self::H264 => 1,
            Self::H265 => 2,
            Self::Aac => 16,
            Self::Pcma => 17,
            Self::Pcmu => 18,
        }
    }

    /// The codec of a number; None for one that this version does not know.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::H264),
            2 => Some(Self::H265),
            16 => Some(Self::Aac),
            17 => Some(Self::Pcma),
            18 => Some(Self::Pcmu),
            _ => None,
        }
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
            Self::Aac => "AAC",
            Self::Pcma => "PCMA",
            Self::Pcmu => "PCMU",
        }
    }

    /// Whether it carries pictures.
    pub const fn is_video(self) -> bool {
        matches!(self, Self::H264 | Self::H265)
    }

    /// Ticks of an RTP time stamp in a second: 90,000 for video, the sample rate for audio.
    pub const fn rtp_clock_rate(self, sample_rate: u32) -> u32 {
        if self.is_video() { 90_000 } else { sample_rate }
    }
}

/// How the bytes of one pushed frame are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framing {
    /// NAL units behind start codes.
    AnnexB,
    /// NAL units behind their length, 4 bytes big-endian.
    Length4,
    /// AAC access units behind ADTS headers.
    Adts,
    /// G.711 samples, or one AAC access unit, and nothing else.
    Raw,
}

impl Framing {
    /// All framings, by number.
    pub const ALL: [Self; 4] = [Self::AnnexB, Self::Length4, Self::Adts, Self::Raw];

    /// The number on the wire and in the C header.
    pub const fn number(self) -> u8 {
        match self {
            Self::AnnexB => 1,
            Self::Length4 => 2,
            Self::Adts => 3,
            Self::Raw => 4,
        }
    }

    /// The framing of a number; None for one that this version does not know.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::AnnexB),
            2 => Some(Self::Length4),
            3 => Some(Self::Adts),
            4 => Some(Self::Raw),
            _ => None,
        }
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnnexB => "Annex B",
            Self::Length4 => "length-prefixed",
            Self::Adts => "ADTS",
            Self::Raw => "raw",
        }
    }

    /// Whether frames of `codec` can be laid out so.
    pub const fn fits(self, codec: Codec) -> bool {
        match codec {
            Codec::H264 | Codec::H265 => matches!(self, Self::AnnexB | Self::Length4),
            Codec::Aac => matches!(self, Self::Adts | Self::Raw),
            Codec::Pcma | Codec::Pcmu => matches!(self, Self::Raw),
        }
    }
}

/// What a NAL unit is to somebody who carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NalKind {
    /// A piece of a picture; `key` when decoding can start with this picture.
    Slice {
        /// IDR in H.264, IRAP in H.265.
        key: bool,
    },
    /// A parameter set of the base layer.
    ParameterSet,
    /// Carries nothing that a decoder behind RTP or MP4 needs, or has a type that RTP payload formats use for themselves:
    /// access unit delimiter, filler data, end of sequence, unspecified types.
    Dropped,
    /// Everything else, SEI for one: passed on.
    Other,
}

/// What the NAL unit is, by the type in its header. For audio codecs always [`NalKind::Other`].
pub fn nal_kind(codec: Codec, unit: &[u8]) -> NalKind {
    match (codec, unit) {
        (Codec::H264, [header, ..]) => h264::nal_kind(*header),
        (Codec::H265, [first, second, ..]) => h265::nal_kind([*first, *second]),
        _ => NalKind::Other,
    }
}

/// Is this frame a random access point?
///
/// Cheap: looks at NAL unit types up to the first slice only, and not into that (IDR in H.264; IDR, CRA or BLA in H.265). Data that is not
/// what `framing` says is no random access point. Audio always is.
pub fn is_key(codec: Codec, framing: Framing, data: &[u8]) -> bool {
    if !codec.is_video() {
        return true;
    }
    let slice = |unit: &[u8]| match nal_kind(codec, unit) {
        NalKind::Slice { key } => Some(key),
        _ => None,
    };
    // The slices of one picture agree about being a random access point, so the first one decides.
    let first = match framing {
        Framing::AnnexB => annexb::pick(data, slice),
        Framing::Length4 => annexb::length_prefixed(data).map_while(Result::ok).find_map(|unit| slice(&data[unit])),
        Framing::Adts | Framing::Raw => None,
    };
    first == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_fixed_and_lead_back() {
        assert_eq!(Codec::ALL.map(Codec::number), [1, 2, 16, 17, 18]);
        assert_eq!(Framing::ALL.map(Framing::number), [1, 2, 3, 4]);
        for number in 0..=255 {
            assert!(Codec::from_number(number).is_none_or(|codec| codec.number() == number));
            assert!(Framing::from_number(number).is_none_or(|framing| framing.number() == number));
        }
        assert!(Codec::ALL.iter().all(|codec| Codec::from_number(codec.number()) == Some(*codec)));
        assert!(Framing::ALL.iter().all(|framing| Framing::from_number(framing.number()) == Some(*framing)));
    }

    #[test]
    fn each_codec_has_its_framings() {
        let fitting = |codec| Framing::ALL.map(|framing| framing.fits(codec));
        assert_eq!(fitting(Codec::H264), [true, true, false, false]);
        assert_eq!(fitting(Codec::H265), [true, true, false, false]);
        assert_eq!(fitting(Codec::Aac), [false, false, true, true]);
        assert_eq!(fitting(Codec::Pcma), [false, false, false, true]);
        assert_eq!(fitting(Codec::Pcmu), [false, false, false, true]);
    }

    #[test]
    fn clock_rates() {
        assert_eq!(Codec::H264.rtp_clock_rate(0), 90_000);
        assert_eq!(Codec::Aac.rtp_clock_rate(48_000), 48_000);
        assert_eq!(Codec::Pcmu.rtp_clock_rate(8_000), 8_000);
    }

    #[test]
    fn key_frames_by_their_first_slice() {
        let h264 = |data: &[u8]| is_key(Codec::H264, Framing::AnnexB, data);
        assert!(h264(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x65, 0x88]));
        assert!(!h264(&[0, 0, 0, 1, 9, 0x30, 0, 0, 1, 0x41, 0x9a]));
        assert!(!h264(&[0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 1]), "parameter sets alone");
        assert!(!h264(&[0x65, 0x88]), "no start code");
        assert!(!h264(&[]));

        // TRAIL_R, RASL_R, then BLA_W_LP to RSV_IRAP_VCL23, then reserved non-IRAP.
        for (nal_type, wanted) in [(1, false), (9, false), (16, true), (19, true), (20, true), (21, true), (24, false)]
        {
            let data = [0, 0, 0, 3, nal_type << 1, 1, 0x80];
            assert_eq!(is_key(Codec::H265, Framing::Length4, &data), wanted, "type {nal_type}");
        }
        assert!(!is_key(Codec::H265, Framing::Length4, &[0, 0, 0, 9, 19 << 1, 1]), "truncated");
        assert!(is_key(Codec::Pcma, Framing::Raw, &[0xd5]));
        assert!(is_key(Codec::Aac, Framing::Adts, &[]));
    }
}

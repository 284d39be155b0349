//! H.265 (ITU-T H.265, 07/2024): NAL unit types, and of the parameter sets what a player must know beforehand.
//!
//! As in H.264: bytes behind a set are never looked at, and a part behind the picture size that cannot be read only costs
//! the frame rate. Sets and slices of enhancement layers (nuh_layer_id above 0) are passed on and not interpreted.

use alloc::format;

mod timing;

use super::NalKind;
use super::fields::Fields;
use crate::bits::Bits;
use crate::error::{MediaError, dump};

/// nal_unit_type of a VPS.
pub const VPS: u8 = 32;
/// nal_unit_type of an SPS.
pub const SPS: u8 = 33;
/// nal_unit_type of a PPS.
pub const PPS: u8 = 34;

/// nal_unit_type, table 7-1.
pub const fn nal_type(header: u8) -> u8 {
    header >> 1 & 0x3f
}

/// What the unit is, by its header.
pub(super) const fn nal_kind(header: [u8; 2]) -> NalKind {
    let layer_id = (header[0] & 1) << 5 | header[1] >> 3;
    match nal_type(header[0]) {
        // Delimiter, end of sequence, end of bitstream, filler data; 48 to 63 are unspecified, and RFC 7798 uses them.
        35..=38 | 48..=63 => NalKind::Dropped,
        _ if layer_id > 0 => NalKind::Other,
        nal_type @ 0..=31 => NalKind::Slice { key: is_irap(nal_type) },
        VPS | SPS | PPS => NalKind::ParameterSet,
        _ => NalKind::Other,
    }
}

/// BLA, IDR, CRA and the two types reserved for their like.
const fn is_irap(nal_type: u8) -> bool {
    matches!(nal_type, 16..=23)
}

/// What stream a decoder must be able to decode (clause 7.3.3, the general part).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProfileTierLevel {
    /// general_profile_space, 0 to 3.
    pub profile_space: u8,
    /// general_tier_flag: the high tier.
    pub high_tier: bool,
    /// general_profile_idc: 1 is Main, 2 Main 10.
    pub profile_idc: u8,
    /// general_profile_compatibility_flag, flag 0 in the highest bit.
    pub compatibility_flags: u32,
    /// The 48 bits from general_progressive_source_flag on.
    pub constraint_flags: [u8; 6],
    /// general_level_idc: 30 times the level.
    pub level_idc: u8,
}

impl ProfileTierLevel {
    pub(super) fn parse(fields: &mut Fields<'_>, max_sub_layers_minus1: u32) -> Result<Self, MediaError> {
        let first = fields.byte("general_profile_idc")?;
        let mut found = Self {
            profile_space: first >> 6,
            high_tier: first & 0x20 != 0,
            profile_idc: first & 0x1f,
            compatibility_flags: fields.bits(32, "general_profile_compatibility_flags")?,
            ..Self::default()
        };
        for byte in &mut found.constraint_flags {
            *byte = fields.byte("general constraint flags")?;
        }
        found.level_idc = fields.byte("general_level_idc")?;
        let mut sub_layers = 0;
        for _ in 0..max_sub_layers_minus1 {
            sub_layers += if fields.flag("sub_layer_profile_present_flag")? { 88 } else { 0 };
            sub_layers += if fields.flag("sub_layer_level_present_flag")? { 8 } else { 0 };
        }
        if max_sub_layers_minus1 > 0 {
            // The flags are aligned as if there were eight sub-layers.
            sub_layers += 2 * (8 - max_sub_layers_minus1 as usize);
        }
        fields.skip(sub_layers, "sub-layer profiles and levels")?;
        Ok(found)
    }
}

/// What a video parameter set says (clause 7.3.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vps {
    /// vps_video_parameter_set_id, 0 to 15.
    pub id: u8,
    /// Pictures in a second as a reduced fraction, when it has timing information.
    pub frame_rate: Option<(u32, u32)>,
}

impl Vps {
    /// Reads the NAL unit, its header included.
    pub fn parse(unit: &[u8]) -> Result<Self, MediaError> {
        let mut fields = Fields::new("H.265 VPS", Bits::rbsp(body(unit, VPS, "H.265 VPS")?));
        let id = fields.bits(4, "vps_video_parameter_set_id")? as u8;
        Ok(Self { id, frame_rate: timing::of_vps(&mut fields).ok().flatten() })
    }
}

/// What a sequence parameter set says (clause 7.3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// sps_seq_parameter_set_id, 0 to 15.
    pub id: u8,
    /// The VPS that it refers to.
    pub vps_id: u8,
    /// What a decoder must be able to decode.
    pub profile_tier_level: ProfileTierLevel,
    /// Width of the picture shown, in pixels: the conformance window.
    pub width: u32,
    /// Height of the picture shown, in pixels: the conformance window.
    pub height: u32,
    /// Pictures in a second as a reduced fraction, when the VUI has it.
    pub frame_rate: Option<(u32, u32)>,
}

impl Sps {
    /// Reads the NAL unit, its header included.
    pub fn parse(unit: &[u8]) -> Result<Self, MediaError> {
        let mut fields = Fields::new("H.265 SPS", Bits::rbsp(body(unit, SPS, "H.265 SPS")?));
        let vps_id = fields.bits(4, "sps_video_parameter_set_id")? as u8;
        let max_sub_layers_minus1 = fields.bits(3, "sps_max_sub_layers_minus1")?;
        fields.flag("sps_temporal_id_nesting_flag")?;
        let profile_tier_level = ProfileTierLevel::parse(&mut fields, max_sub_layers_minus1)?;
        let id = fields.ue(15, "sps_seq_parameter_set_id")? as u8;
        let chroma_format_idc = fields.ue(3, "chroma_format_idc")?;
        if chroma_format_idc == 3 {
            fields.flag("separate_colour_plane_flag")?;
        }
        let mut width = fields.ue(MOST_PIXELS, "pic_width_in_luma_samples")?;
        let mut height = fields.ue(MOST_PIXELS, "pic_height_in_luma_samples")?;
        // Table 6-1: how many luma samples one chroma sample covers.
        let (sub_width, sub_height) = match chroma_format_idc {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        let (mut left_right, mut top_bottom) = (0, 0);
        if fields.flag("conformance_window_flag")? {
            left_right = window(&mut fields, "conf_win_left_offset and _right_offset", width, sub_width)?;
            top_bottom = window(&mut fields, "conf_win_top_offset and _bottom_offset", height, sub_height)?;
        }
        width = remaining(&fields, "pic_width_in_luma_samples", width, left_right)?;
        height = remaining(&fields, "pic_height_in_luma_samples", height, top_bottom)?;
        let frame_rate = timing::of_sps(&mut fields, max_sub_layers_minus1).ok().flatten();
        Ok(Self { id, vps_id, profile_tier_level, width, height, frame_rate })
    }
}

/// What a picture parameter set says about others (clause 7.3.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pps {
    /// pps_pic_parameter_set_id, 0 to 63.
    pub id: u8,
    /// The SPS that it refers to.
    pub sps_id: u8,
}

impl Pps {
    /// Reads the NAL unit, its header included.
    pub fn parse(unit: &[u8]) -> Result<Self, MediaError> {
        let mut fields = Fields::new("H.265 PPS", Bits::rbsp(body(unit, PPS, "H.265 PPS")?));
        let id = fields.ue(63, "pps_pic_parameter_set_id")? as u8;
        Ok(Self { id, sps_id: fields.ue(15, "pps_seq_parameter_set_id")? as u8 })
    }
}

/// Which PPS a slice segment uses (clause 7.3.6.1). Reads the first bytes only; None when there are none.
pub fn slice_pps_id(unit: &[u8]) -> Option<u8> {
    let mut bits = Bits::rbsp(unit.get(2..)?);
    bits.flag().ok()?; // first_slice_segment_in_pic_flag
    if is_irap(nal_type(*unit.first()?)) {
        bits.flag().ok()?; // no_output_of_prior_pics_flag
    }
    u8::try_from(bits.ue().ok()?).ok()
}

/// Far above every level, and small enough that no product overflows.
const MOST_PIXELS: u32 = 65_536;

/// The unit behind its header, when it has the right type.
fn body<'a>(unit: &'a [u8], wanted: u8, place: &'static str) -> Result<&'a [u8], MediaError> {
    match unit {
        [header, _, body @ ..] if nal_type(*header) == wanted => Ok(body),
        _ => Err(MediaError::new(place, format!("a NAL unit of type {wanted}"), dump(unit))),
    }
}

/// Two offsets of the conformance window, together, in luma samples.
fn window(fields: &mut Fields<'_>, name: &'static str, size: u32, unit: u32) -> Result<u32, MediaError> {
    Ok((fields.ue(size, name)? + fields.ue(size, name)?) * unit)
}

/// At least one pixel must be left.
fn remaining(fields: &Fields<'_>, name: &'static str, size: u32, off: u32) -> Result<u32, MediaError> {
    if off >= size {
        return Err(fields.wrong(
            name,
            format!("more than the {off} outside the conformance window"),
            format!("{size}"),
        ));
    }
    Ok(size - off)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::test_data::{self, hex};
    use crate::codec::{Codec, nal_kind};
    use alloc::string::ToString;

    fn sps(text: &str) -> Sps {
        Sps::parse(&hex(text)).unwrap()
    }

    #[test]
    fn sizes_and_rates_of_x265() {
        let seen = |text| {
            let sps = sps(text);
            (sps.width, sps.height, sps.frame_rate)
        };
        assert_eq!(seen(test_data::H265_1920X1080[1]), (1920, 1080, Some((25, 1))), "8 lines outside the window");
        assert_eq!(seen(test_data::H265_2688X1520[1]), (2688, 1520, Some((20, 1))));
        assert_eq!(seen(SPS_640X480_10_BIT), (640, 480, Some((30_000, 1001))));
        assert_eq!(seen(SPS_1366X768_444), (1366, 768, Some((15, 1))), "the window counts luma samples in 4:4:4");
        assert_eq!(seen(SPS_3840X2160), (3840, 2160, Some((30, 1))));
        assert_eq!(seen(SPS_352X288_TWO_LAYERS), (352, 288, Some((25, 1))), "two temporal sub-layers");
        assert_eq!(seen(SPS_1280X720_VUI), (1280, 720, Some((25, 1))), "4:2:2 and all of the VUI");
        assert_eq!(seen(SPS_1918X1078_FIELDS), (1918, 1078, Some((50, 1))));
    }

    #[test]
    fn scaling_lists_in_the_sps() {
        let sps = Sps::parse(&hex(test_data::H265_SCALING_LISTS)).unwrap();
        assert_eq!((sps.width, sps.height, sps.frame_rate), (1280, 720, Some((25, 1))));
    }

    #[test]
    fn profiles_tiers_and_levels() {
        let main = sps(test_data::H265_1920X1080[1]).profile_tier_level;
        assert_eq!((main.profile_space, main.profile_idc, main.high_tier, main.level_idc), (0, 1, false, 120));
        assert_eq!((main.compatibility_flags, main.constraint_flags), (0x6000_0000, [0x90, 0, 0, 0, 0, 0]));
        let main_10 = sps(SPS_640X480_10_BIT).profile_tier_level;
        assert_eq!((main_10.profile_idc, main_10.level_idc, main_10.compatibility_flags), (2, 90, 0x2000_0000));
        let high_tier = sps(SPS_3840X2160).profile_tier_level;
        assert_eq!((high_tier.high_tier, high_tier.level_idc), (true, 153));
    }

    /// Written by hand and read back with ffmpeg's trace_headers: three sub-layers with their own profile and level, PCM,
    /// predicted reference picture sets of which one loses a picture, long-term pictures, a default display window.
    #[test]
    fn everything_that_may_stand_before_the_frame_rate() {
        let found = sps(SPS_EVERYTHING);
        assert_eq!((found.id, found.vps_id, found.width, found.height), (3, 2, 2688, 1520));
        assert_eq!(found.frame_rate, Some((30_000, 1001)));
        assert_eq!((found.profile_tier_level.high_tier, found.profile_tier_level.level_idc), (true, 123));
        assert_eq!(Vps::parse(&hex(VPS_EVERYTHING)), Ok(Vps { id: 2, frame_rate: Some((15, 1)) }));
        assert_eq!(Pps::parse(&hex(PPS_EVERYTHING)), Ok(Pps { id: 5, sps_id: 3 }));
    }

    #[test]
    fn a_vps_without_timing_and_a_plain_pps() {
        assert_eq!(Vps::parse(&hex(test_data::H265_1920X1080[0])), Ok(Vps { id: 0, frame_rate: None }));
        assert_eq!(Pps::parse(&hex(test_data::H265_1920X1080[2])), Ok(Pps { id: 0, sps_id: 0 }));
    }

    #[test]
    fn bytes_behind_a_set_and_a_cut_vui_cost_nothing_else() {
        let whole = hex(test_data::H265_2688X1520[1]);
        let longer = [&whole[..], &[0xde, 0xad, 0xbe, 0xef]].concat();
        assert_eq!(Sps::parse(&longer), Sps::parse(&whole));
        let cut = Sps::parse(&whole[..whole.len() - 6]).unwrap();
        assert_eq!((cut.width, cut.height, cut.frame_rate), (2688, 1520, None));
    }

    #[test]
    fn says_what_is_wrong() {
        let whole = hex(test_data::H265_2688X1520[1]);
        assert!(Sps::parse(&whole[..20]).unwrap_err().to_string().starts_with("H.265 SPS, "));
        assert_eq!(
            Sps::parse(&hex(test_data::H265_2688X1520[0])).unwrap_err().to_string(),
            "H.265 SPS: expected a NAL unit of type 33, got 40 01 0c 01 ff ff 01 60 … (24 bytes)"
        );
        assert!(Vps::parse(&[0x40]).is_err() && Pps::parse(&[]).is_err());
    }

    #[test]
    fn kinds_of_nal_units() {
        let kind = |nal_type: u8, layer: u8| nal_kind(Codec::H265, &[nal_type << 1, layer << 3 | 1, 0]);
        assert_eq!(kind(1, 0), NalKind::Slice { key: false });
        assert_eq!(kind(19, 0), NalKind::Slice { key: true });
        assert_eq!(kind(21, 0), NalKind::Slice { key: true });
        for (nal_type, wanted) in [(32, NalKind::ParameterSet), (35, NalKind::Dropped), (36, NalKind::Dropped)] {
            assert_eq!(kind(nal_type, 0), wanted);
        }
        for (nal_type, wanted) in
            [(38, NalKind::Dropped), (39, NalKind::Other), (40, NalKind::Other), (49, NalKind::Dropped)]
        {
            assert_eq!(kind(nal_type, 0), wanted);
        }
        assert_eq!((kind(33, 1), kind(1, 1)), (NalKind::Other, NalKind::Other), "an enhancement layer");
        assert_eq!(nal_kind(Codec::H265, &[0x40]), NalKind::Other, "no whole header");
    }

    #[test]
    fn slices_name_their_pps() {
        // An IDR of x265, and one that uses PPS 5; a TRAIL_N of x265.
        assert_eq!(slice_pps_id(&hex("2801ac4498037ac633bf")), Some(0));
        assert_eq!(slice_pps_id(&[0x28, 1, 0b1000_1101]), Some(5));
        assert_eq!(slice_pps_id(&hex("1001e024be081280b250")), Some(0));
        assert_eq!(slice_pps_id(&[0x28, 1]), None);
    }

    const SPS_640X480_10_BIT: &str =
        "42010102200000030090000003000003005aa0050201e136595952930bc05a02000007d20000ea6010";
    const SPS_1366X768_444: &str =
        "4201010408000003009e080000030000789000561006038bf2caca94985e02d010000003001000000300f080";
    const SPS_3840X2160: &str =
        "420101216000000300900000030000030099a001e020021c5965654a4c2f016808000003000800000300f040";
    const SPS_352X288_TWO_LAYERS: &str =
        "42010201600000030090000003000003003c0000a00b080485965652b2a5270bc05a020000030002000003003210";
    const SPS_1280X720_VUI: &str =
        "4201010408000003009d0800000300005db00280802d1365959a4932bc0aa4244026d840000003004000000642";
    const SPS_1918X1078_FIELDS: &str =
        "42010101600000030040000003000003007ba003c08010e75596566924caf016876728980000030008000003019040";
    const SPS_EVERYTHING: &str = "42012521600000030090000003000003007bd00001600000030090000003000003005a5d2200152200601\
        94b1396572b95e4912bbbdccd6bda75e5e5ec0e12e034c900000303e90000753008";
    const VPS_EVERYTHING: &str =
        "40012c05ffff21600000030090000003000003007bd00001600000030090000003000003005a5d15c3510000030001000003000f50";
    const PPS_EVERYTHING: &str = "44013100718012";
}

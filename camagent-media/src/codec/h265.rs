//! H.265 (ITU-T H.265, 07/2024): NAL unit types, and of the parameter sets what a player must know beforehand.
//!
//! As in H.264: bytes behind a set are never looked at, and a part behind the picture size that cannot be read only costs
//! the frame rate. Sets and slices of enhancement layers (nuh_layer_id above 0) are passed on and not interpreted.

use alloc::format;

use super::NalKind;
use super::fields::Fields;
use super::h264::{reduced_rate, vui_until_chroma_loc};
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
    fn parse(fields: &mut Fields<'_>, max_sub_layers_minus1: u32) -> Result<Self, MediaError> {
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
        Ok(Self { id, frame_rate: vps_frame_rate(&mut fields).ok().flatten() })
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
        let frame_rate = sps_frame_rate(&mut fields, max_sub_layers_minus1).ok().flatten();
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

/// The VPS up to its timing information.
fn vps_frame_rate(fields: &mut Fields<'_>) -> Result<Option<(u32, u32)>, MediaError> {
    fields.skip(2 + 6, "vps_max_layers_minus1")?;
    let max_sub_layers_minus1 = fields.bits(3, "vps_max_sub_layers_minus1")?;
    fields.skip(1 + 16, "vps_temporal_id_nesting_flag")?;
    ProfileTierLevel::parse(fields, max_sub_layers_minus1)?;
    skip_sub_layer_ordering(fields, max_sub_layers_minus1)?;
    let max_layer_id = fields.bits(6, "vps_max_layer_id")? as usize;
    let layer_sets = fields.ue(1023, "vps_num_layer_sets_minus1")? as usize;
    fields.skip(layer_sets * (max_layer_id + 1), "layer_id_included_flag")?;
    timing(fields, "vps_timing_info_present_flag")
}

/// The SPS from behind the conformance window to the timing information of the VUI.
fn sps_frame_rate(fields: &mut Fields<'_>, max_sub_layers_minus1: u32) -> Result<Option<(u32, u32)>, MediaError> {
    fields.ue(8, "bit_depth_luma_minus8")?;
    fields.ue(8, "bit_depth_chroma_minus8")?;
    let poc_lsb_bits = fields.ue(12, "log2_max_pic_order_cnt_lsb_minus4")? + 4;
    skip_sub_layer_ordering(fields, max_sub_layers_minus1)?;
    for name in [
        "log2_min_luma_coding_block_size_minus3",
        "log2_diff_max_min_luma_coding_block_size",
        "log2_min_luma_transform_block_size_minus2",
        "log2_diff_max_min_luma_transform_block_size",
        "max_transform_hierarchy_depth_inter",
        "max_transform_hierarchy_depth_intra",
    ] {
        fields.ue(u32::MAX, name)?;
    }
    if fields.flag("scaling_list_enabled_flag")? && fields.flag("sps_scaling_list_data_present_flag")? {
        skip_scaling_lists(fields)?;
    }
    fields.skip(2, "amp_enabled_flag and sample_adaptive_offset_enabled_flag")?;
    if fields.flag("pcm_enabled_flag")? {
        fields.skip(8, "pcm_sample_bit_depth")?;
        fields.ue(u32::MAX, "log2_min_pcm_luma_coding_block_size_minus3")?;
        fields.ue(u32::MAX, "log2_diff_max_min_pcm_luma_coding_block_size")?;
        fields.flag("pcm_loop_filter_disabled_flag")?;
    }
    let mut previous_pictures = 0;
    for index in 0..fields.ue(64, "num_short_term_ref_pic_sets")? {
        previous_pictures = short_term_ref_pic_set(fields, index, previous_pictures)?;
    }
    if fields.flag("long_term_ref_pics_present_flag")? {
        for _ in 0..fields.ue(32, "num_long_term_ref_pics_sps")? {
            fields.bits(poc_lsb_bits, "lt_ref_pic_poc_lsb_sps")?;
            fields.flag("used_by_curr_pic_lt_sps_flag")?;
        }
    }
    fields.skip(2, "sps_temporal_mvp_enabled_flag and strong_intra_smoothing_enabled_flag")?;
    if !fields.flag("vui_parameters_present_flag")? {
        return Ok(None);
    }
    vui_until_chroma_loc(fields)?;
    fields.skip(3, "neutral_chroma_indication_flag to frame_field_info_present_flag")?;
    if fields.flag("default_display_window_flag")? {
        for _ in 0..4 {
            fields.ue(u32::MAX, "def_disp_win_offset")?;
        }
    }
    timing(fields, "vui_timing_info_present_flag")
}

fn timing(fields: &mut Fields<'_>, present: &'static str) -> Result<Option<(u32, u32)>, MediaError> {
    if !fields.flag(present)? {
        return Ok(None);
    }
    let ticks = fields.bits(32, "num_units_in_tick")?;
    let scale = fields.bits(32, "time_scale")?;
    // Unlike in H.264 a tick is the time of a picture.
    Ok(reduced_rate(u64::from(scale), u64::from(ticks)))
}

/// max_dec_pic_buffering, max_num_reorder and max_latency_increase, for each sub-layer or for the last.
fn skip_sub_layer_ordering(fields: &mut Fields<'_>, max_sub_layers_minus1: u32) -> Result<(), MediaError> {
    let all = fields.flag("sub_layer_ordering_info_present_flag")?;
    for _ in 0..if all { max_sub_layers_minus1 + 1 } else { 1 } {
        for name in ["max_dec_pic_buffering_minus1", "max_num_reorder_pics", "max_latency_increase_plus1"] {
            fields.ue(u32::MAX, name)?;
        }
    }
    Ok(())
}

/// Clause 7.3.4.
fn skip_scaling_lists(fields: &mut Fields<'_>) -> Result<(), MediaError> {
    for size_id in 0..4u32 {
        for _ in 0..if size_id == 3 { 2 } else { 6 } {
            if !fields.flag("scaling_list_pred_mode_flag")? {
                fields.ue(u32::MAX, "scaling_list_pred_matrix_id_delta")?;
                continue;
            }
            if size_id > 1 {
                fields.se("scaling_list_dc_coef_minus8")?;
            }
            for _ in 0..64.min(1 << (4 + 2 * size_id)) {
                fields.se("scaling_list_delta_coef")?;
            }
        }
    }
    Ok(())
}

/// Clause 7.3.7 as it is in an SPS. Takes and gives the number of pictures in the set (NumDeltaPocs), which the next one needs.
fn short_term_ref_pic_set(fields: &mut Fields<'_>, index: u32, previous_pictures: u32) -> Result<u32, MediaError> {
    if index > 0 && fields.flag("inter_ref_pic_set_prediction_flag")? {
        fields.flag("delta_rps_sign")?;
        fields.ue(u32::MAX, "abs_delta_rps_minus1")?;
        let mut pictures = 0;
        for _ in 0..=previous_pictures {
            let used = fields.flag("used_by_curr_pic_flag")?;
            if used || fields.flag("use_delta_flag")? {
                pictures += 1;
            }
        }
        return Ok(pictures);
    }
    let negative = fields.ue(16, "num_negative_pics")?;
    let positive = fields.ue(16, "num_positive_pics")?;
    for _ in 0..negative + positive {
        fields.ue(u32::MAX, "delta_poc_minus1")?;
        fields.flag("used_by_curr_pic_flag")?;
    }
    Ok(negative + positive)
}

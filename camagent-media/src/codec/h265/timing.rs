//! The long way to the frame rate of H.265: it stands behind nearly everything else in SPS and VPS, so all of that is read.

use alloc::vec::Vec;

use super::ProfileTierLevel;
use crate::codec::fields::Fields;
use crate::codec::h264::{reduced_rate, vui_until_chroma_loc};
use crate::error::MediaError;

/// The VPS up to its timing information.
pub(super) fn of_vps(fields: &mut Fields<'_>) -> Result<Option<(u32, u32)>, MediaError> {
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
pub(super) fn of_sps(fields: &mut Fields<'_>, max_sub_layers_minus1: u32) -> Result<Option<(u32, u32)>, MediaError> {
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
    let mut before = None;
    for _ in 0..fields.ue(64, "num_short_term_ref_pic_sets")? {
        before = Some(short_term_ref_pic_set(fields, before.as_ref())?);
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

/// The distances of a short-term reference picture set, in picture order counts: DeltaPocS0 and DeltaPocS1.
#[derive(Default)]
struct RefPicSet {
    negative: Vec<i32>,
    positive: Vec<i32>,
}

/// Clause 7.3.7 as it is in an SPS: a set may be told by what differs from the one before it.
fn short_term_ref_pic_set(fields: &mut Fields<'_>, before: Option<&RefPicSet>) -> Result<RefPicSet, MediaError> {
    if let Some(before) = before
        && fields.flag("inter_ref_pic_set_prediction_flag")?
    {
        return predicted_ref_pic_set(fields, before);
    }
    let negative = fields.ue(16, "num_negative_pics")?;
    let positive = fields.ue(16, "num_positive_pics")?;
    let mut pictures = |count, sign| -> Result<Vec<i32>, MediaError> {
        let mut distance = 0;
        (0..count)
            .map(|_| {
                // At most 2^15 each, so nothing overflows.
                distance += sign * (fields.ue(MOST_DELTA_POC - 1, "delta_poc_minus1")? as i32 + 1);
                fields.flag("used_by_curr_pic_flag").map(|_| distance)
            })
            .collect()
    };
    Ok(RefPicSet { negative: pictures(negative, -1)?, positive: pictures(positive, 1)? })
}

/// Equations 7-61 and 7-62.
fn predicted_ref_pic_set(fields: &mut Fields<'_>, before: &RefPicSet) -> Result<RefPicSet, MediaError> {
    let sign = if fields.flag("delta_rps_sign")? { -1 } else { 1 };
    let delta = sign * (fields.ue(MOST_DELTA_POC - 1, "abs_delta_rps_minus1")? as i32 + 1);
    let mut set = RefPicSet::default();
    // Each picture of the set before, then the picture that had it; all move by `delta`.
    let distances = before.negative.iter().chain(&before.positive).map(|distance| distance + delta);
    for distance in distances.chain([delta]) {
        let used = fields.flag("used_by_curr_pic_flag")? || fields.flag("use_delta_flag")?;
        match distance.signum() {
            -1 if used => set.negative.push(distance),
            1 if used => set.positive.push(distance),
            _ => {}
        }
    }
    // Nearest first: what the order of the two equations comes to.
    set.negative.sort_unstable_by(|a, b| b.cmp(a));
    set.positive.sort_unstable();
    Ok(set)
}

/// Pictures of one set are less than 2^15 apart.
const MOST_DELTA_POC: u32 = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::Bits;
    use alloc::vec;

    #[test]
    fn reference_picture_sets_are_predicted_as_in_the_standard() {
        // {-1, -3, +1} moved by +1 with flags 1, 0 1, 0 0, 1: the first falls onto the picture itself, the third is left out.
        let before = RefPicSet { negative: vec![-1, -3], positive: vec![1] };
        let mut fields = Fields::new("test", Bits::plain(&[0b0110_1001, 0]));
        let set = predicted_ref_pic_set(&mut fields, &before).unwrap();
        assert_eq!((set.negative, set.positive), (vec![-2], vec![1]));
    }
}

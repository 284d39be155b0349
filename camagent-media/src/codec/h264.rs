//! H.264 (ITU-T H.264, 08/2021): NAL unit types, and of the parameter sets what a player must know beforehand.
//!
//! An SPS is read up to the frame rate in its VUI. What follows, bytes behind the set included, is never looked at, and a
//! VUI that cannot be read only costs the frame rate: cameras that write a broken one still have a valid picture size.

use alloc::format;

use super::NalKind;
use super::fields::Fields;
use crate::bits::Bits;
use crate::error::{MediaError, dump};

/// nal_unit_type of an SPS.
pub const SPS: u8 = 7;
/// nal_unit_type of a PPS.
pub const PPS: u8 = 8;

/// nal_unit_type, table 7-1.
pub const fn nal_type(header: u8) -> u8 {
    header & 0x1f
}

/// What the unit is, by its header byte.
pub(super) const fn nal_kind(header: u8) -> NalKind {
    match nal_type(header) {
        1..=4 => NalKind::Slice { key: false },
        5 => NalKind::Slice { key: true },
        SPS | PPS => NalKind::ParameterSet,
        // Delimiter, end of sequence, end of stream, filler data; 0 and 24 to 31 are unspecified, and RFC 6184 uses them.
        0 | 9..=12 | 24..=31 => NalKind::Dropped,
        _ => NalKind::Other,
    }
}

/// What a sequence parameter set says (clause 7.3.2.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// seq_parameter_set_id, 0 to 31.
    pub id: u8,
    /// profile_idc, the constraint flags, level_idc.
    pub profile_level_id: [u8; 3],
    /// Width of the picture shown, in pixels: cropping is taken off.
    pub width: u32,
    /// Height of the picture shown, in pixels: of the frame, also when it is coded as two fields.
    pub height: u32,
    /// Frames in a second as a reduced fraction, when the VUI has it.
    pub frame_rate: Option<(u32, u32)>,
}

impl Sps {
    /// Reads the NAL unit, its header included.
    pub fn parse(unit: &[u8]) -> Result<Self, MediaError> {
        let mut fields = Fields::new("H.264 SPS", Bits::rbsp(body(unit, SPS, "H.264 SPS")?));
        let profile_idc = fields.byte("profile_idc")?;
        let profile_level_id = [profile_idc, fields.byte("constraint_set_flags")?, fields.byte("level_idc")?];
        // At most 31, so the casts of ids lose nothing.
        let id = fields.ue(31, "seq_parameter_set_id")? as u8;
        let chroma =
            if HAS_CHROMA_FORMAT.contains(&profile_idc) { Chroma::parse(&mut fields)? } else { Chroma::YUV420 };
        fields.ue(12, "log2_max_frame_num_minus4")?;
        match fields.ue(2, "pic_order_cnt_type")? {
            0 => {
                fields.ue(12, "log2_max_pic_order_cnt_lsb_minus4")?;
            }
            1 => {
                fields.flag("delta_pic_order_always_zero_flag")?;
                fields.se("offset_for_non_ref_pic")?;
                fields.se("offset_for_top_to_bottom_field")?;
                for _ in 0..fields.ue(255, "num_ref_frames_in_pic_order_cnt_cycle")? {
                    fields.se("offset_for_ref_frame")?;
                }
            }
            _ => {}
        }
        fields.ue(u32::MAX, "max_num_ref_frames")?;
        fields.flag("gaps_in_frame_num_value_allowed_flag")?;
        let width_mbs = fields.ue(MOST_MBS - 1, "pic_width_in_mbs_minus1")? + 1;
        let height_units = fields.ue(MOST_MBS - 1, "pic_height_in_map_units_minus1")? + 1;
        let fields_in_unit = if fields.flag("frame_mbs_only_flag")? {
            1
        } else {
            fields.flag("mb_adaptive_frame_field_flag")?;
            2
        };
        fields.flag("direct_8x8_inference_flag")?;
        let mut width = width_mbs * 16;
        let mut height = height_units * fields_in_unit * 16;
        if fields.flag("frame_cropping_flag")? {
            width = crop(&mut fields, "frame_crop_left_offset and _right_offset", width, chroma.crop_unit_x)?;
            height = crop(
                &mut fields,
                "frame_crop_top_offset and _bottom_offset",
                height,
                chroma.crop_unit_y * fields_in_unit,
            )?;
        }
        let frame_rate = frame_rate(&mut fields).ok().flatten();
        Ok(Self { id, profile_level_id, width, height, frame_rate })
    }
}

/// What a picture parameter set says about others (clause 7.3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pps {
    /// pic_parameter_set_id.
    pub id: u8,
    /// The SPS that it refers to.
    pub sps_id: u8,
}

impl Pps {
    /// Reads the NAL unit, its header included.
    pub fn parse(unit: &[u8]) -> Result<Self, MediaError> {
        let mut fields = Fields::new("H.264 PPS", Bits::rbsp(body(unit, PPS, "H.264 PPS")?));
        let id = fields.ue(255, "pic_parameter_set_id")? as u8;
        Ok(Self { id, sps_id: fields.ue(31, "seq_parameter_set_id")? as u8 })
    }
}

/// Which PPS a slice uses (clause 7.3.3). Reads the first bytes of the slice only; None when there are none.
pub fn slice_pps_id(unit: &[u8]) -> Option<u8> {
    let mut bits = Bits::rbsp(unit.get(1..)?);
    bits.ue().ok()?; // first_mb_in_slice
    bits.ue().ok()?; // slice_type
    u8::try_from(bits.ue().ok()?).ok()
}

/// profile_idc values whose SPS has chroma_format_idc and scaling matrices.
const HAS_CHROMA_FORMAT: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// 65,536 pixels in one direction: far above every level, and small enough that no product overflows.
const MOST_MBS: u32 = 4096;

/// The unit behind its header, when it has the right type.
fn body<'a>(unit: &'a [u8], wanted: u8, place: &'static str) -> Result<&'a [u8], MediaError> {
    match unit {
        [header, body @ ..] if nal_type(*header) == wanted => Ok(body),
        _ => Err(MediaError::new(place, format!("a NAL unit of type {wanted}"), dump(unit))),
    }
}

/// How many luma samples one unit of cropping is (table 6-1, equations 7-19 to 7-22), for a frame of progressive lines.
struct Chroma {
    crop_unit_x: u32,
    crop_unit_y: u32,
}

impl Chroma {
    const YUV420: Self = Self { crop_unit_x: 2, crop_unit_y: 2 };

    fn parse(fields: &mut Fields<'_>) -> Result<Self, MediaError> {
        let format = fields.ue(3, "chroma_format_idc")?;
        if format == 3 {
            fields.flag("separate_colour_plane_flag")?;
        }
        fields.ue(6, "bit_depth_luma_minus8")?;
        fields.ue(6, "bit_depth_chroma_minus8")?;
        fields.flag("qpprime_y_zero_transform_bypass_flag")?;
        if fields.flag("seq_scaling_matrix_present_flag")? {
            for list in 0..if format == 3 { 12 } else { 8 } {
                if fields.flag("seq_scaling_list_present_flag")? {
                    skip_scaling_list(fields, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Ok(match format {
            1 => Self::YUV420,
            2 => Self { crop_unit_x: 2, crop_unit_y: 1 },
            // Monochrome, 4:4:4, and three separate planes.
            _ => Self { crop_unit_x: 1, crop_unit_y: 1 },
        })
    }
}

/// Clause 7.3.2.1.1.1.
fn skip_scaling_list(fields: &mut Fields<'_>, size: u32) -> Result<(), MediaError> {
    let mut last = 8i32;
    let mut next = 8i32;
    for _ in 0..size {
        if next != 0 {
            let delta = fields.se("delta_scale")?;
            next = (last.wrapping_add(delta)) & 0xff;
        }
        last = if next == 0 { last } else { next };
    }
    Ok(())
}

/// Takes two cropping offsets in units of `unit` off `size`.
fn crop(fields: &mut Fields<'_>, name: &'static str, size: u32, unit: u32) -> Result<u32, MediaError> {
    let most = size / unit;
    let off = fields.ue(most, name)? + fields.ue(most, name)?;
    // At least one pixel must be left.
    if off * unit >= size {
        return Err(fields.wrong(name, format!("less than {size} pixels together"), format!("{}", off * unit)));
    }
    Ok(size - off * unit)
}

/// The VUI up to the timing information (clause E.1.1).
fn frame_rate(fields: &mut Fields<'_>) -> Result<Option<(u32, u32)>, MediaError> {
    if !fields.flag("vui_parameters_present_flag")? {
        return Ok(None);
    }
    vui_until_chroma_loc(fields)?;
    if !fields.flag("timing_info_present_flag")? {
        return Ok(None);
    }
    let ticks = fields.bits(32, "num_units_in_tick")?;
    let scale = fields.bits(32, "time_scale")?;
    // A tick is the time of a field (equation C-1 and table E-6), a frame has two.
    Ok(reduced_rate(u64::from(scale), u64::from(ticks) * 2))
}

/// The part of the VUI that H.264 and H.265 share: aspect ratio to chroma sample location.
pub(super) fn vui_until_chroma_loc(fields: &mut Fields<'_>) -> Result<(), MediaError> {
    const EXTENDED_SAR: u8 = 255;
    if fields.flag("aspect_ratio_info_present_flag")? && fields.byte("aspect_ratio_idc")? == EXTENDED_SAR {
        fields.skip(32, "sar_width and sar_height")?;
    }
    if fields.flag("overscan_info_present_flag")? {
        fields.flag("overscan_appropriate_flag")?;
    }
    if fields.flag("video_signal_type_present_flag")? {
        fields.skip(4, "video_format and video_full_range_flag")?;
        if fields.flag("colour_description_present_flag")? {
            fields.skip(24, "colour description")?;
        }
    }
    if fields.flag("chroma_loc_info_present_flag")? {
        fields.ue(u32::MAX, "chroma_sample_loc_type_top_field")?;
        fields.ue(u32::MAX, "chroma_sample_loc_type_bottom_field")?;
    }
    Ok(())
}

/// Pictures in a second as a reduced fraction; None for a rate that cannot be.
pub(super) fn reduced_rate(pictures: u64, seconds: u64) -> Option<(u32, u32)> {
    let divisor = gcd(pictures, seconds);
    match (pictures.checked_div(divisor)?, seconds.checked_div(divisor)?) {
        (0, _) | (_, 0) => None,
        (pictures, seconds) => Some((u32::try_from(pictures).ok()?, u32::try_from(seconds).ok()?)),
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

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
    fn sizes_and_rates_of_x264() {
        let seen = |text| {
            let sps = sps(text);
            (sps.width, sps.height, sps.frame_rate)
        };
        assert_eq!(seen(test_data::H264_1920X1080[0]), (1920, 1080, Some((25, 1))), "8 lines cropped");
        assert_eq!(seen(test_data::H264_2688X1520[0]), (2688, 1520, Some((20, 1))));
        assert_eq!(seen(SPS_640X480), (640, 480, Some((30_000, 1001))));
        assert_eq!(seen(SPS_704X576_444), (704, 576, Some((15, 1))));
        assert_eq!(seen(SPS_1366X768_422), (1366, 768, Some((30, 1))), "cropped by 2 in 4:2:2 at 10 bits");
        assert_eq!(seen(SPS_1920X1080_FIELDS), (1920, 1080, Some((25, 1))), "two fields, cropped by 4 lines a unit");
        assert_eq!(seen(SPS_1280X720_GRAY), (1280, 720, Some((10, 1))), "monochrome");
        assert_eq!(seen(SPS_1280X720_VUI), (1280, 720, Some((25, 1))), "all of the VUI");
    }

    /// Written by hand and read back with ffmpeg's trace_headers: scaling lists, one of them ended early, pic_order_cnt_type 1,
    /// field coding with cropping, every part of the VUI.
    #[test]
    fn everything_that_may_stand_before_the_frame_rate() {
        let found = sps(
            "6764001e22db4d34d34d34d12054b4d34d34d34d34d34d34d34d34d34d34d34d34d34d34d34d28533142ca05a127ebff0007000\
            5b5010101d4000003000400000300ca10",
        );
        assert_eq!((found.id, found.width, found.height, found.frame_rate), (3, 720, 572, Some((25, 1))));
        assert_eq!(Pps::parse(&hex("6810438e20")), Ok(Pps { id: 7, sps_id: 3 }));
    }

    #[test]
    fn profiles_and_levels() {
        assert_eq!(sps(test_data::H264_1920X1080[0]).profile_level_id, [0x64, 0x00, 0x28]);
        assert_eq!(sps(test_data::H264_2688X1520[0]).profile_level_id, [0x42, 0xc0, 0x32]);
        assert_eq!(Pps::parse(&hex(test_data::H264_1920X1080[1])), Ok(Pps { id: 0, sps_id: 0 }));
    }

    #[test]
    fn bytes_behind_a_set_and_a_cut_vui_cost_nothing_else() {
        let whole = hex(test_data::H264_2688X1520[0]);
        let longer = [&whole[..], &[0xde, 0xad, 0xbe, 0xef]].concat();
        assert_eq!(Sps::parse(&longer), Sps::parse(&whole));
        let cut = Sps::parse(&whole[..12]).unwrap();
        assert_eq!((cut.width, cut.height, cut.frame_rate), (2688, 1520, None));
    }

    #[test]
    fn says_what_is_wrong() {
        let whole = hex(test_data::H264_2688X1520[0]);
        assert_eq!(
            Sps::parse(&whole[..6]).unwrap_err().to_string(),
            "H.264 SPS, pic_width_in_mbs_minus1: expected a value, got the end of the data behind bit 33"
        );
        assert_eq!(
            Sps::parse(&whole[1..]).unwrap_err().to_string(),
            "H.264 SPS: expected a NAL unit of type 7, got 42 c0 32 da 00 a8 02 fe … (24 bytes)"
        );
        assert!(Sps::parse(&[]).is_err() && Pps::parse(&[0x68]).is_err());
    }

    #[test]
    fn cropping_away_everything_is_refused() {
        // 16 by 16 pixels, of which 8 units of 2 are cropped left: profile 66, ids 0, then ue values.
        let bits = [0x67, 66, 0, 10, 0b1101_1101, 0b1111_0001, 0b0011_1100];
        let error = Sps::parse(&bits).unwrap_err().to_string();
        assert!(
            error.contains("frame_crop_left_offset and _right_offset: expected less than 16 pixels together, got 16"),
            "{error}"
        );
    }

    #[test]
    fn kinds_of_nal_units() {
        let kind = |header: u8| nal_kind(Codec::H264, &[header]);
        assert_eq!((kind(0x65), kind(0x41)), (NalKind::Slice { key: true }, NalKind::Slice { key: false }));
        assert_eq!((kind(0x67), kind(0x68)), (NalKind::ParameterSet, NalKind::ParameterSet));
        for dropped in [0, 9, 10, 11, 12, 24, 28, 31] {
            assert_eq!(kind(dropped), NalKind::Dropped, "type {dropped}");
        }
        for other in [6, 13, 14, 15, 19, 20] {
            assert_eq!(kind(other), NalKind::Other, "type {other}");
        }
        assert_eq!(nal_kind(Codec::H264, &[]), NalKind::Other);
    }

    #[test]
    fn slices_name_their_pps() {
        // The first and second slice of an IDR by x264, and a slice that uses PPS 7.
        assert_eq!(slice_pps_id(&hex("6588843a0c6000800020")), Some(0));
        assert_eq!(slice_pps_id(&hex("65122210e83180038030")), Some(0));
        assert_eq!(slice_pps_id(&[0x65, 0b1000_1000, 0b0001_0000]), Some(7));
        assert_eq!(slice_pps_id(&[0x65]), None);
    }

    const SPS_640X480: &str = "6742c01eda0280f6c04400000fa40003a9803c58ba80";
    const SPS_704X576_444: &str = "67f4001e919680b0126c0440000003004000000783c58ba8";
    const SPS_1366X768_422: &str = "677a0020b6cb402b030f378088000003000800000301e078c195";
    const SPS_1920X1080_FIELDS: &str = "674d4028f403c0227ef011000003000100000300321f162ea0";
    const SPS_1280X720_GRAY: &str = "6764101ff2e02802dd80b640000003004000000501";
    const SPS_1280X720_VUI: &str = "6764001facd9405005bbff00070005a7010101a5000003000100000300320f183196";
}

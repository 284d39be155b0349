//! Parameter sets that several tests read, as ffmpeg wrote them with libx264 and libx265 from its `testsrc`.

use alloc::vec::Vec;

/// Bytes of hexadecimal digits.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "two digits a byte");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// SPS and PPS: High, level 4.0, 25 frames a second, 8x8 transform.
pub(crate) const H264_1920X1080: [&str; 2] =
    ["67640028acd940780227e5c044000003000400000300c83c60c658", "68ebe3cb3002c0"];
/// SPS and PPS: Baseline, level 5.0, 20 frames a second.
pub(crate) const H264_2688X1520: [&str; 2] = ["6742c032da00a802fec044000003000400000300a03c60ca80", "68ce0fc8"];
/// VPS, SPS and PPS: Main, level 4.0, 25 frames a second.
pub(crate) const H265_1920X1080: [&str; 3] = [
    "40010c01ffff016000000300900000030000030078959409",
    "420101016000000300900000030000030078a003c0801107cb965654a4c2f0168080000003008000000c84",
    "4401c073c189",
];
/// VPS, SPS and PPS: Main, level 5.0, 20 frames a second.
pub(crate) const H265_2688X1520: [&str; 3] = [
    "40010c01ffff016000000300900000030000030096959409",
    "420101016000000300900000030000030096a001502005f16595952930bc05a02000000300200000030281",
    "4401c073c189",
];

//! Frames as encoders and cameras push them, against what comes out.

use super::*;
use crate::annexb::join;
use crate::codec::test_data::{H264_1920X1080, H264_2688X1520, H265_1920X1080, H265_2688X1520, hex};
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
    assert_eq!(error(reader.read(&join(&[endless]).into())), "parameter set: expected at most 4096 bytes, got 5004");
    let mut reader = TrackReader::new(Codec::H265, Framing::AnnexB, &[], 0, 0).unwrap();
    assert_eq!(error(reader.read(&annexb(&["28"]))), "H.265 NAL unit: expected a header of 2 bytes, got 28 (1 bytes)");
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
    let new =
        |codec, framing, config: &[u8], rate, channels| error(TrackReader::new(codec, framing, config, rate, channels));
    assert_eq!(new(Codec::H264, Framing::Adts, &[], 0, 0), "track: expected a framing for H.264, got ADTS");
    assert!(new(Codec::H264, Framing::Length4, &[1, 0x64, 0, 0x28], 0, 0).contains("expected a start code"), "an avcC");
    assert!(new(Codec::Pcma, Framing::Raw, &[], 0, 1).contains("got 0 Hz, 1 channels"));
    assert!(new(Codec::Pcma, Framing::Raw, &[], 8_000, 0).contains("got 8000 Hz, 0 channels"));
    assert!(new(Codec::Aac, Framing::Raw, &[], 8_001, 1).contains("got 8001 Hz, 1 channels and no config"));
    assert!(new(Codec::Aac, Framing::Raw, &[0x11, 0x80], 0, 0).contains("a number of channels"));
    assert_eq!(new(Codec::Aac, Framing::Raw, &[0x11, 0x80], 0, 2), "", "a program config element, and 2 announced");
}

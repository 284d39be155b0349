//! Sample entries (ISO/IEC 14496-12, 8.5.2): what a decoder must know before the first sample.
//!
//! `avc1` and `hvc1` (14496-15, 5.4.2 and 8.4.1) hold the parameter sets; `mp4a` (14496-14, 5.6) the AudioSpecificConfig;
//! G.711 has the `alaw` and `ulaw` of QuickTime, which ffmpeg, VLC and GStreamer play and browsers do not.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::boxes::{Fields, child, children, put, put_full, u8_, u16_, u32_, zeros};
use crate::annexb;
use crate::bits::{Bits, NoValue};
use crate::codec::g711::Law;
use crate::codec::h265::ProfileTierLevel;
use crate::codec::{Codec, Framing, Parameters};
use crate::error::MediaError;
use crate::track::TrackReader;

/// Appends the sample entry.
pub(super) fn put_entry(out: &mut Vec<u8>, parameters: &Parameters) {
    match parameters {
        Parameters::H264 { sps, pps, width, height, profile_level_id, .. } => put(out, b"avc1", |out| {
            visual(out, *width, *height);
            put(out, b"avcC", |out| avc_config(out, sps, pps, *profile_level_id));
        }),
        Parameters::H265 { vps, sps, pps, width, height, profile_tier_level, .. } => put(out, b"hvc1", |out| {
            visual(out, *width, *height);
            put(out, b"hvcC", |out| hevc_config(out, vps, sps, pps, profile_tier_level));
        }),
        Parameters::Aac { config, sample_rate, channels } => put(out, b"mp4a", |out| {
            audio(out, *sample_rate, *channels);
            put_full(out, b"esds", 0, 0, |out| elementary_stream(out, config));
        }),
        Parameters::G711 { law, sample_rate, channels } => {
            let kind = if *law == Law::A { b"alaw" } else { b"ulaw" };
            put(out, kind, |out| audio(out, *sample_rate, *channels));
        }
    }
}

/// VisualSampleEntry (12.1.3).
fn visual(out: &mut Vec<u8>, width: u32, height: u32) {
    let short = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    zeros(out, 6);
    u16_(out, 1); // data_reference_index
    zeros(out, 16);
    u16_(out, short(width));
    u16_(out, short(height));
    u32_(out, 0x48_0000); // 72 dpi
    u32_(out, 0x48_0000);
    zeros(out, 4);
    u16_(out, 1); // frame_count
    zeros(out, 32);
    u16_(out, 0x18); // depth
    u16_(out, 0xffff);
}

/// AudioSampleEntry (12.2.3).
fn audio(out: &mut Vec<u8>, sample_rate: u32, channels: u16) {
    zeros(out, 6);
    u16_(out, 1); // data_reference_index
    zeros(out, 8);
    u16_(out, channels);
    u16_(out, 16); // samplesize
    zeros(out, 4);
    // 16.16; a rate above has no room here, and esds says it too.
    u32_(out, u32::from(u16::try_from(sample_rate).unwrap_or_default()) << 16);
}

/// AVCDecoderConfigurationRecord (14496-15, 5.3.3.1).
fn avc_config(out: &mut Vec<u8>, sps: &Bytes, pps: &[Bytes], [profile, constraints, level]: [u8; 3]) {
    out.extend_from_slice(&[1, profile, constraints, level, 0xfc | 3, 0xe0 | 1]);
    set(out, sps);
    let count = pps.len().min(255);
    u8_(out, count as u8);
    pps.iter().take(count).for_each(|pps| set(out, pps));
    if matches!(profile, 100 | 110 | 122 | 144) {
        let (chroma, luma_depth, chroma_depth) = avc_samples(sps).unwrap_or((1, 0, 0));
        out.extend_from_slice(&[0xfc | chroma, 0xf8 | luma_depth, 0xf8 | chroma_depth, 0]);
    }
}

/// A parameter set behind its length. None is longer than `MOST_SET_BYTES`.
fn set(out: &mut Vec<u8>, unit: &[u8]) {
    u16_(out, u16::try_from(unit.len()).unwrap_or_default());
    out.extend_from_slice(unit);
}

/// chroma_format_idc, bit_depth_luma_minus8, bit_depth_chroma_minus8 of an SPS of the high profiles (H.264 7.3.2.1.1).
fn avc_samples(sps: &[u8]) -> Result<(u8, u8, u8), NoValue> {
    let mut bits = Bits::rbsp(sps.get(4..).unwrap_or_default());
    bits.ue()?;
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.flag()?;
    }
    Ok((chroma as u8 & 3, bits.ue()? as u8 & 7, bits.ue()? as u8 & 7))
}

/// HEVCDecoderConfigurationRecord (14496-15, 8.3.3.1).
fn hevc_config(out: &mut Vec<u8>, vps: &Bytes, sps: &Bytes, pps: &[Bytes], profile: &ProfileTierLevel) {
    let samples = hevc_samples(sps).unwrap_or_default();
    u8_(out, 1);
    u8_(out, profile.profile_space << 6 | u8::from(profile.high_tier) << 5 | profile.profile_idc & 0x1f);
    u32_(out, profile.compatibility_flags);
    out.extend_from_slice(&profile.constraint_flags);
    u8_(out, profile.level_idc);
    u16_(out, 0xf000); // min_spatial_segmentation_idc: unknown
    u8_(out, 0xfc); // parallelismType: unknown
    u8_(out, 0xfc | samples.chroma);
    u8_(out, 0xf8 | samples.luma_depth);
    u8_(out, 0xf8 | samples.chroma_depth);
    u16_(out, 0); // avgFrameRate: unknown
    u8_(out, samples.temporal_layers << 3 | u8::from(samples.nested) << 2 | 3);
    let arrays: [(u8, &[Bytes]); 3] = [(32, core::slice::from_ref(vps)), (33, core::slice::from_ref(sps)), (34, pps)];
    let arrays = || arrays.iter().filter(|(_, units)| units.iter().any(|unit| !unit.is_empty()));
    u8_(out, arrays().count() as u8);
    for (nal_type, units) in arrays() {
        u8_(out, 0x80 | nal_type); // array_completeness
        u16_(out, u16::try_from(units.len()).unwrap_or_default());
        units.iter().for_each(|unit| set(out, unit));
    }
}

#[derive(Clone, Copy)]
struct HevcSamples {
    chroma: u8,
    luma_depth: u8,
    chroma_depth: u8,
    temporal_layers: u8,
    nested: bool,
}

impl Default for HevcSamples {
    fn default() -> Self {
        Self { chroma: 1, luma_depth: 0, chroma_depth: 0, temporal_layers: 1, nested: true }
    }
}

/// The beginning of an SPS (H.265 7.3.2.2.1), up to the bit depths.
fn hevc_samples(sps: &[u8]) -> Result<HevcSamples, NoValue> {
    let mut bits = Bits::rbsp(sps.get(2..).unwrap_or_default());
    bits.bits(4)?;
    let sub_layers = bits.bits(3)?;
    let nested = bits.flag()?;
    bits.skip(96)?;
    let mut behind = 0;
    for _ in 0..sub_layers {
        behind += if bits.flag()? { 88 } else { 0 };
        behind += if bits.flag()? { 8 } else { 0 };
    }
    if sub_layers > 0 {
        behind += 2 * (8 - sub_layers as usize);
    }
    bits.skip(behind)?;
    bits.ue()?;
    let chroma = bits.ue()?;
    if chroma == 3 {
        bits.flag()?;
    }
    bits.ue()?;
    bits.ue()?;
    if bits.flag()? {
        for _ in 0..4 {
            bits.ue()?;
        }
    }
    let (luma_depth, chroma_depth) = (bits.ue()? as u8 & 7, bits.ue()? as u8 & 7);
    Ok(HevcSamples {
        chroma: chroma as u8 & 3,
        luma_depth,
        chroma_depth,
        temporal_layers: (sub_layers as u8 + 1) & 7,
        nested,
    })
}

/// ES_Descriptor (ISO/IEC 14496-1, 7.2.6.5) with the AudioSpecificConfig.
fn elementary_stream(out: &mut Vec<u8>, config: &Bytes) {
    let length = |more: usize| u8::try_from(config.len() + more).unwrap_or(127).min(127);
    out.extend_from_slice(&[3, length(23), 0, 0, 0]);
    out.extend_from_slice(&[4, length(15), 0x40, 0x15, 0, 0, 0]);
    zeros(out, 8); // buffer size and bit rates: unknown
    out.extend_from_slice(&[5, length(0)]);
    out.extend_from_slice(config);
    out.extend_from_slice(&[6, 1, 2]);
}

/// Bytes of the fields before the boxes in a visual and in an audio sample entry.
const VISUAL_BYTES: usize = 78;
const AUDIO_BYTES: usize = 28;

/// The parameters of a sample entry; None for a kind that this crate does not write.
pub(super) fn read_entry(kind: [u8; 4], body: &[u8]) -> Result<Option<Parameters>, MediaError> {
    let behind = |bytes: usize| body.get(bytes..).ok_or_else(|| MediaError::new("sample entry", "its fields", "less"));
    let sound = || -> Result<(u16, u32), MediaError> {
        let mut fields = Fields::new("AudioSampleEntry", body);
        fields.bytes(16)?;
        let channels = fields.u16()?;
        fields.bytes(6)?;
        Ok((channels, fields.u32()? >> 16))
    };
    let reader = match &kind {
        b"avc1" => {
            let config = join(avc_sets(child(behind(VISUAL_BYTES)?, b"avcC")?)?);
            TrackReader::new(Codec::H264, Framing::Length4, &config, 0, 0)?
        }
        b"hvc1" => {
            let config = join(hevc_sets(child(behind(VISUAL_BYTES)?, b"hvcC")?)?);
            TrackReader::new(Codec::H265, Framing::Length4, &config, 0, 0)?
        }
        b"mp4a" => {
            let (channels, rate) = sound()?;
            let config = decoder_specific(child(behind(AUDIO_BYTES)?, b"esds")?)?;
            TrackReader::new(Codec::Aac, Framing::Raw, config, rate, channels)?
        }
        b"alaw" | b"ulaw" => {
            let (channels, rate) = sound()?;
            let codec = if kind == *b"alaw" { Codec::Pcma } else { Codec::Pcmu };
            TrackReader::new(codec, Framing::Raw, &[], rate, channels)?
        }
        _ => return Ok(None),
    };
    match reader.parameters() {
        Some(parameters) => Ok(Some(parameters.clone())),
        None => Err(MediaError::new("sample entry", "SPS and PPS", format!("{kind:?} without them"))),
    }
}

fn join(sets: Vec<Bytes>) -> Vec<u8> {
    annexb::join(&sets)
}

fn avc_sets(config: &[u8]) -> Result<Vec<Bytes>, MediaError> {
    let mut fields = Fields::new("avcC", config);
    fields.bytes(5)?;
    let mut sets = Vec::new();
    for mask in [0x1f, 0xff] {
        for _ in 0..fields.u8()? & mask {
            let length = fields.u16()?;
            sets.push(Bytes::copy_from_slice(fields.bytes(usize::from(length))?));
        }
    }
    Ok(sets)
}

fn hevc_sets(config: &[u8]) -> Result<Vec<Bytes>, MediaError> {
    let mut fields = Fields::new("hvcC", config);
    fields.bytes(22)?;
    let mut sets = Vec::new();
    for _ in 0..fields.u8()? {
        fields.u8()?;
        for _ in 0..fields.u16()? {
            let length = fields.u16()?;
            sets.push(Bytes::copy_from_slice(fields.bytes(usize::from(length))?));
        }
    }
    Ok(sets)
}

/// The DecoderSpecificInfo of an `esds` that this crate wrote: lengths of one byte.
fn decoder_specific(esds: &[u8]) -> Result<&[u8], MediaError> {
    let mut fields = Fields::new("esds", esds);
    fields.bytes(4 + 5 + 15)?;
    if fields.u8()? != 5 {
        return Err(MediaError::new("esds", "a DecoderSpecificInfo at byte 24", "something else"));
    }
    let length = fields.u8()?;
    fields.bytes(usize::from(length))
}

/// The sample entries of an `stsd`.
pub(super) fn read_entries(stsd: &[u8]) -> Result<Vec<Parameters>, MediaError> {
    let entries = stsd.get(8..).ok_or_else(|| MediaError::new("stsd", "8 bytes before its entries", "less"))?;
    let mut read = Vec::new();
    for entry in children(entries) {
        let (kind, body) = entry?;
        read.extend(read_entry(kind, body)?);
    }
    Ok(read)
}

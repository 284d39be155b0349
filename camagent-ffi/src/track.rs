//! Tracks: what is pushed.

use std::{
    ffi::{c_char, c_void},
    slice,
};

use camagent_core::{Codec, Framing, TrackDescription};

use crate::{
    guard::{Sized32, guard, optional_text, read},
    handle::{camagent_t, find},
    result::{CAMAGENT_E_INVAL, CAMAGENT_OK, Failure, camagent_result},
};

/// ITU-T H.264.
pub const CAMAGENT_CODEC_H264: u32 = 1;
/// ITU-T H.265.
pub const CAMAGENT_CODEC_H265: u32 = 2;
/// MPEG-4 AAC.
pub const CAMAGENT_CODEC_AAC: u32 = 16;
/// G.711 A-law.
pub const CAMAGENT_CODEC_PCMA: u32 = 17;
/// G.711 mu-law.
pub const CAMAGENT_CODEC_PCMU: u32 = 18;

/// NAL units behind start codes (ITU-T H.264 and H.265 Annex B): what encoders give.
pub const CAMAGENT_FRAMING_ANNEXB: u32 = 1;
/// NAL units behind lengths of 4 bytes, big endian (ISO/IEC 14496-15).
pub const CAMAGENT_FRAMING_LENGTH4: u32 = 2;
/// AAC access units behind ADTS headers.
pub const CAMAGENT_FRAMING_ADTS: u32 = 3;
/// G.711 samples, or one AAC access unit without header.
pub const CAMAGENT_FRAMING_RAW: u32 = 4;

// The header's numbers are the library's.
const _: () = {
    assert!(CAMAGENT_CODEC_H264 == Codec::H264.number() as u32 && CAMAGENT_CODEC_H265 == Codec::H265.number() as u32);
    assert!(CAMAGENT_CODEC_AAC == Codec::Aac.number() as u32);
    assert!(CAMAGENT_CODEC_PCMA == Codec::Pcma.number() as u32 && CAMAGENT_CODEC_PCMU == Codec::Pcmu.number() as u32);
    assert!(CAMAGENT_FRAMING_ANNEXB == Framing::AnnexB.number() as u32);
    assert!(CAMAGENT_FRAMING_LENGTH4 == Framing::Length4.number() as u32);
    assert!(
        CAMAGENT_FRAMING_ADTS == Framing::Adts.number() as u32 && CAMAGENT_FRAMING_RAW == Framing::Raw.number() as u32
    );
};

/// A track: one flow of coded pictures or audio units. Set everything to 0 first, then struct_size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camagent_track_t {
    /// Set it to sizeof(camagent_track_t).
    pub struct_size: u32,
    /// One of CAMAGENT_CODEC_*.
    pub codec: u32,
    /// One of CAMAGENT_FRAMING_*.
    pub framing: u32,
    /// Samples per second of audio; 0 for video.
    pub sample_rate: u32,
    /// Channels of audio; 0 for video.
    pub channels: u32,
    /// Bytes at `config`, at most 2 048.
    pub config_size: u32,
    /// The source: "main", "sub" ... Its tracks are on one clock and are played together. NULL for "main".
    pub source: *const c_char,
    /// The camera; NULL for the first one of the configuration.
    pub camera: *const c_char,
    /// Parameter sets (Annex B) or AudioSpecificConfig. NULL when they come in band, as they mostly do.
    pub config: *const c_void,
}

// SAFETY: repr(C), begins with a u32, and zeros (NULL, numbers) are a value.
unsafe impl Sized32 for camagent_track_t {
    const NAME: &'static str = "camagent_track_t";
    const LEAST: usize = size_of::<camagent_track_t>();
}

/// Adds a track, or changes it: frames from now on are of the new kind. At any time, from any thread; never waits.
///
/// @param agent   the agent
/// @param number  0 to 127, your choice: frames are pushed under it
/// @param track   what it is; copied
/// @return CAMAGENT_OK, CAMAGENT_E_INVAL, CAMAGENT_E_VERSION, CAMAGENT_E_STATE (256 changes wait for the agent's thread: try again later),
///         CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
///
/// # Safety
/// `track` is NULL or as many readable bytes as its struct_size says, and its pointers are NULL or valid as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_track_set(
    agent: *mut camagent_t,
    number: u32,
    track: *const camagent_track_t,
) -> camagent_result {
    guard(|| {
        let running = find(agent)?;
        // SAFETY: the caller vouches for `track`.
        let track = unsafe { read(track) }?.ok_or_else(|| Failure::null("track"))?;
        // SAFETY: as above, for the pointers inside.
        running.agent.set_track(number, unsafe { description(&track) }?)?;
        Ok(CAMAGENT_OK)
    })
}

/// Ends a track. What the journal holds of it is still sent; viewers see no end of it, only no more frames.
///
/// @param agent   the agent
/// @param number  the track
/// @return CAMAGENT_OK, CAMAGENT_E_NOENT, CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
#[unsafe(no_mangle)]
pub extern "C" fn camagent_track_remove(agent: *mut camagent_t, number: u32) -> camagent_result {
    guard(|| {
        find(agent)?.agent.remove_track(number)?;
        Ok(CAMAGENT_OK)
    })
}

/// # Safety
/// The pointers in `track` are NULL or valid as its members describe.
unsafe fn description(track: &camagent_track_t) -> Result<TrackDescription, Failure> {
    let unknown = |member: &str, value: u32| {
        Failure::new(CAMAGENT_E_INVAL, format!("camagent_track_t.{member} is {value}, which is no known one"))
    };
    let small = |value: u32| u8::try_from(value).ok();
    let codec = small(track.codec).and_then(Codec::from_number).ok_or_else(|| unknown("codec", track.codec))?;
    let framing =
        small(track.framing).and_then(Framing::from_number).ok_or_else(|| unknown("framing", track.framing))?;
    let channels = small(track.channels).ok_or_else(|| unknown("channels", track.channels))?;
    let config = match (track.config.is_null(), track.config_size) {
        (_, 0) => Vec::new(),
        (true, _) => return Err(Failure::null("camagent_track_t.config")),
        // SAFETY: the caller vouches for `config_size` bytes.
        (false, size) => unsafe { slice::from_raw_parts(track.config.cast::<u8>(), size as usize) }.to_vec(),
    };
    // SAFETY: the caller vouches for both texts.
    let (source, camera) = unsafe { (optional_text(track.source, "source")?, optional_text(track.camera, "camera")?) };
    Ok(TrackDescription {
        camera: camera.map(String::from),
        source: source.unwrap_or("main").into(),
        codec,
        framing,
        sample_rate: track.sample_rate,
        channels,
        config,
    })
}

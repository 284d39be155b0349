//! Frames: the call that a camera makes sixty times a second.

use std::{ffi::c_void, slice};

use camagent_core::{Frame, Pushed};

use crate::{
    guard::guard,
    handle::{camagent_t, find},
    result::{
        CAMAGENT_CLOCK_STEPPED, CAMAGENT_E_INVAL, CAMAGENT_NOT_WANTED, CAMAGENT_OK, CAMAGENT_WAIT_KEY, Failure,
        camagent_result,
    },
};

/// Decoding can start here. Key frames of H.264 and H.265 are seen without it.
pub const CAMAGENT_FRAME_KEY: u32 = 1;
/// No other frame refers to this one.
pub const CAMAGENT_FRAME_DISPOSABLE: u32 = 2;
/// The camera's clock jumped, or frames were lost before this one.
pub const CAMAGENT_FRAME_DISCONTINUITY: u32 = 4;

/// Copies a frame into the journal, which the agent sends it from. It never waits for network or disk, and allocates nothing. Any thread may call it; frames of
/// one track have to be pushed in their order, by one thread at a time.
///
/// @param agent   the agent
/// @param track   the track's number
/// @param pts_us  presentation time in microseconds of a steady clock, any zero; tracks of one source share the clock. Frames are pushed in decoding
///                order, so a stream with B pictures cannot be pushed by this call
/// @param flags   CAMAGENT_FRAME_* or 0
/// @param data    one whole picture, or one or more audio units, laid out as the track's framing says
/// @param size    its bytes, 1 to 4 MiB and no more than streaming.buffer_size
/// @return CAMAGENT_OK, CAMAGENT_NOT_WANTED, CAMAGENT_WAIT_KEY, CAMAGENT_CLOCK_STEPPED, CAMAGENT_E_ORDER, CAMAGENT_E_TOO_LARGE, CAMAGENT_E_NOENT (no such
///         track), CAMAGENT_E_INVAL, CAMAGENT_E_STATE (being stopped), CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
///
/// # Safety
/// `data` is NULL or `size` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_push_frame(
    agent: *mut camagent_t,
    track: u32,
    pts_us: i64,
    flags: u32,
    data: *const c_void,
    size: usize,
) -> camagent_result {
    guard(|| {
        let running = find(agent)?;
        if data.is_null() {
            return Err(Failure::null("data"));
        }
        if flags & !(CAMAGENT_FRAME_KEY | CAMAGENT_FRAME_DISPOSABLE | CAMAGENT_FRAME_DISCONTINUITY) != 0 {
            return Err(Failure::new(CAMAGENT_E_INVAL, format!("flags has unknown bits: {flags:#x}")));
        }
        if isize::try_from(size).is_err() {
            return Err(Failure::new(CAMAGENT_E_INVAL, format!("size is {size}, which no object has")));
        }
        // SAFETY: not NULL, no longer than an object can be, and the caller vouches for `size` bytes.
        let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), size) };
        let frame = Frame {
            pts_us,
            dts_us: pts_us,
            key: flags & CAMAGENT_FRAME_KEY != 0,
            disposable: flags & CAMAGENT_FRAME_DISPOSABLE != 0,
            discontinuity: flags & CAMAGENT_FRAME_DISCONTINUITY != 0,
            data,
        };
        Ok(match running.agent.push_frame(track, frame)? {
            Pushed::NotWanted => CAMAGENT_NOT_WANTED,
            Pushed::WaitKey => CAMAGENT_WAIT_KEY,
            Pushed::ClockStepped => CAMAGENT_CLOCK_STEPPED,
            _ => CAMAGENT_OK,
        })
    })
}

//! MP4 files (ISO/IEC 14496-12, and 14496-15 for NAL units): fragmented ones that can be played at every whole part, and
//! whole movies made of their samples.
//!
//! * `boxes` the layout of every box: a size, a kind, a body
//! * `entry` sample entries: what a decoder must know, `avc1`, `hvc1`, `mp4a`, `alaw`, `ulaw`
//! * `init` the head of a file: `ftyp` and `moov`
//! * `part` `moof` and `mdat`: a few samples
//! * `movie` the head of a file whose samples are all known: players may seek in it from the first byte
//! * `read` the way back: where the last whole part ends, which samples it has, what the head says
//!
//! Pictures are NAL units behind lengths of four bytes, as [`length_prefixed`] writes them. Who keeps files, and what else he
//! writes between the boxes, does not belong here.

mod boxes;
mod entry;
mod init;
mod movie;
mod part;
mod read;

pub use boxes::{BoxHead, box_head, put_uuid};
pub use init::{InitTrack, init};
pub use movie::{Chunk, MOVIE_TIMESCALE, Movie, MovieSample, MovieTrack};
pub use part::{Sample, part};
pub use read::{Cut, Found, Init, Part, read_init, read_part, whole_parts};

use alloc::vec::Vec;

use bytes::Bytes;

use crate::codec::Parameters;

/// Ticks in a second of a track's clock: 90,000 for pictures, the sample rate for sound.
pub const fn timescale(parameters: &Parameters) -> u32 {
    parameters.rtp_clock_rate()
}

/// NAL units behind lengths of four bytes: one sample of a video track (ISO/IEC 14496-15, 4.3.3).
pub fn length_prefixed(parts: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        // A frame is far below 4 GiB.
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests;

//! The head of a fragmented file (ISO/IEC 14496-12, 8.8): `ftyp`, and a `moov` that has tracks and no samples. The parts of
//! [`super::part`] follow, in any number: nothing in the head need be changed when they do.

use alloc::vec::Vec;

use super::boxes::{matrix, put, put_full, u16_, u32_, u64_, zeros};
use super::entry::put_entry;
use crate::codec::Parameters;

/// One track of a head.
#[derive(Debug, Clone, Copy)]
pub struct InitTrack<'a> {
    /// track_ID, not 0.
    pub id: u32,
    /// What a decoder must know. The track's clock ticks [`super::timescale`] times in a second.
    pub parameters: &'a Parameters,
}

/// The head of a file with these tracks.
pub fn init(tracks: &[InitTrack<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    put(&mut out, b"ftyp", |out| {
        out.extend_from_slice(b"iso5");
        u32_(out, 512);
        out.extend_from_slice(b"iso5iso6mp41");
    });
    put(&mut out, b"moov", |out| {
        movie_header(out, 1_000, 0, tracks.iter().map(|track| track.id).max().unwrap_or_default() + 1);
        for track in tracks {
            put(out, b"trak", |out| {
                track_header(out, track.id, 0, track.parameters);
                media(out, super::timescale(track.parameters), 0, track.parameters, |out| {
                    put_full(out, b"stsd", 0, 0, |out| {
                        u32_(out, 1);
                        put_entry(out, track.parameters);
                    });
                    for (kind, bytes) in [(b"stts", 4), (b"stsc", 4), (b"stsz", 8), (b"stco", 4)] {
                        put_full(out, kind, 0, 0, |out| zeros(out, bytes));
                    }
                });
            });
        }
        put(out, b"mvex", |out| {
            for track in tracks {
                put_full(out, b"trex", 0, 0, |out| {
                    u32_(out, track.id);
                    u32_(out, 1); // default_sample_description_index
                    zeros(out, 12);
                });
            }
        });
    });
    out
}

/// `mvhd` (8.2.2).
pub(super) fn movie_header(out: &mut Vec<u8>, timescale: u32, duration: u64, next_track: u32) {
    put_full(out, b"mvhd", 1, 0, |out| {
        zeros(out, 16);
        u32_(out, timescale);
        u64_(out, duration);
        u32_(out, 0x1_0000); // rate
        u16_(out, 0x100); // volume
        zeros(out, 10);
        matrix(out);
        zeros(out, 24);
        u32_(out, next_track);
    });
}

/// `tkhd` (8.3.2): enabled, in the movie.
pub(super) fn track_header(out: &mut Vec<u8>, id: u32, duration: u64, parameters: &Parameters) {
    put_full(out, b"tkhd", 1, 3, |out| {
        zeros(out, 16);
        u32_(out, id);
        zeros(out, 4);
        u64_(out, duration);
        zeros(out, 12);
        u16_(out, if parameters.codec().is_video() { 0 } else { 0x100 });
        zeros(out, 2);
        matrix(out);
        let (width, height) = parameters.dimensions().unwrap_or_default();
        for pixels in [width, height] {
            u32_(out, u32::from(u16::try_from(pixels).unwrap_or(u16::MAX)) << 16);
        }
    });
}

/// `mdia` (8.4) with the sample tables that `tables` writes.
pub(super) fn media(
    out: &mut Vec<u8>,
    timescale: u32,
    duration: u64,
    parameters: &Parameters,
    tables: impl FnOnce(&mut Vec<u8>),
) {
    let is_video = parameters.codec().is_video();
    put(out, b"mdia", |out| {
        put_full(out, b"mdhd", 1, 0, |out| {
            zeros(out, 16);
            u32_(out, timescale);
            u64_(out, duration);
            u16_(out, 0x55c4); // "und"
            zeros(out, 2);
        });
        put_full(out, b"hdlr", 0, 0, |out| {
            zeros(out, 4);
            out.extend_from_slice(if is_video { b"vide" } else { b"soun" });
            zeros(out, 12);
            out.extend_from_slice(b"camagent\0");
        });
        put(out, b"minf", |out| {
            if is_video {
                put_full(out, b"vmhd", 0, 1, |out| zeros(out, 8));
            } else {
                put_full(out, b"smhd", 0, 0, |out| zeros(out, 4));
            }
            put(out, b"dinf", |out| {
                put_full(out, b"dref", 0, 0, |out| {
                    u32_(out, 1);
                    // The samples are in this very file.
                    put_full(out, b"url ", 0, 1, |_| {});
                });
            });
            put(out, b"stbl", tables);
        });
    });
}

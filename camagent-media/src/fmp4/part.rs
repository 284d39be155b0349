//! A part: a few samples of one track, `moof` and `mdat` (ISO/IEC 14496-12, 8.8.4 and 8.1.1). A file may end behind any.

use alloc::vec::Vec;

use super::boxes::{i32_, put, put_full, u32_, u64_};

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How long it lasts, in ticks of the track; decoding times add up from it.
    pub duration: u32,
    /// Presentation time minus decoding time, in ticks.
    pub composition: i32,
    /// Bytes.
    pub size: u32,
    /// Decoding can start here.
    pub key: bool,
}

/// Depends on no other sample; is a sync sample.
const FLAGS_KEY: u32 = 0x0200_0000;
/// Depends on others; is no sync sample.
const FLAGS_OTHER: u32 = 0x0101_0000;

/// Bit 16: sample_is_non_sync_sample.
pub(super) const NON_SYNC: u32 = 0x1_0000;

/// Appends a part. `sequence` counts the parts of a file from 1, `decode_time` is that of the first sample, in ticks since the
/// start of the file; `payload` holds the samples one after the other.
pub fn part(out: &mut Vec<u8>, sequence: u32, track: u32, decode_time: u64, samples: &[Sample], payload: &[u8]) {
    debug_assert_eq!(samples.iter().map(|sample| sample.size as usize).sum::<usize>(), payload.len());
    let start = out.len();
    let mut data_offset = 0;
    put(out, b"moof", |out| {
        put_full(out, b"mfhd", 0, 0, |out| u32_(out, sequence));
        put(out, b"traf", |out| {
            // default-base-is-moof
            put_full(out, b"tfhd", 0, 0x2_0000, |out| u32_(out, track));
            put_full(out, b"tfdt", 1, 0, |out| u64_(out, decode_time));
            // Data offset; duration, size, flags and composition offset of each sample.
            put_full(out, b"trun", 1, 0xf01, |out| {
                u32_(out, u32::try_from(samples.len()).unwrap_or(u32::MAX));
                data_offset = out.len();
                u32_(out, 0);
                for sample in samples {
                    u32_(out, sample.duration);
                    u32_(out, sample.size);
                    u32_(out, if sample.key { FLAGS_KEY } else { FLAGS_OTHER });
                    i32_(out, sample.composition);
                }
            });
        });
    });
    let behind_head = u32::try_from(out.len() - start + 8).unwrap_or(u32::MAX);
    out[data_offset..data_offset + 4].copy_from_slice(&behind_head.to_be_bytes());
    put(out, b"mdat", |out| out.extend_from_slice(payload));
}

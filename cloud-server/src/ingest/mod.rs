//! Frames become files. What an agent sends is given to the viewers first and to the ingest then; here it is written to the
//! open segment of its track, at most half a second of it at a time, and is *persisted* when one group of fdatasync calls and
//! the record of what they made safe are done.
//!
//! * `disk` the few things that are done with files, as a trait: the real folder, and one in memory that can lose its power
//! * `ranges` sets of numbers
//! * `segment` the recording's own boxes between those of MP4, and the way back from a torn file
//! * `ledger` why frames are missing
//! * `cursors` where each row of numbers goes on, so that gaps have their times
//! * `losses` events about it
//! * `log` the append-only file of what is persisted, and of the ledger
//! * `clock` from the camera's clock to UTC, for a whole source at once
//! * `undated` where runs are put that never knew UTC
//! * `writer` one open segment
//! * `standing` what of each track is persisted, waits, or could not be taken and is asked for again
//! * `recorder` the value that does all of it: frames and time in, files and progress out
//! * `thread` the thread that a disk may hold up, and the bounded queue in front of it
//!
//! What must stay true, and what `camagent-cloud recordings check` verifies, is written in `sdk-docs/reference/recordings.md`. Where
//! closed segments go, how long they stay, and who plays them does not belong here.

mod clock;
mod cursors;
pub mod disk;
pub mod ledger;
pub(crate) mod log;
mod losses;
pub mod ranges;
mod recorder;
pub mod segment;
pub mod sim_disk;
pub mod standing;
mod thread;
pub mod undated;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use camagent_media::{Codec, Framing};
use camagent_proto::frame::{EndReason, FrameHead};

pub use ledger::{Gap, GapReason};
pub use losses::Losses;
pub use recorder::{KEPT, OPEN, Progress, Recorder, SET_ASIDE, Settings, Told};
pub use segment::{Run, SegmentInfo};
pub use thread::{Ingest, Leaves, News, Offered, Persisted, Watched};

/// The numbering that a frame's sequence counts in: (agent, boot, track, epoch).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackKey {
    /// The agent.
    pub agent: String,
    /// Its boot.
    pub boot: [u8; 16],
    /// The track.
    pub track: u32,
    /// The epoch.
    pub epoch: u64,
}

/// A track as its agent announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The numbering of its frames.
    pub key: TrackKey,
    /// The camera.
    pub camera: String,
    /// The source.
    pub source: String,
    /// The codec.
    pub codec: Codec,
    /// How a pushed frame is laid out.
    pub framing: Framing,
    /// Samples a second; audio only.
    pub sample_rate: u32,
    /// Channels; audio only.
    pub channels: u16,
    /// What was said of parameter sets or the AudioSpecificConfig.
    pub config: Bytes,
}

/// What comes in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A track was announced; its next frame has this number.
    Track {
        /// The track.
        flow: Arc<Flow>,
        /// The number.
        next: u64,
    },
    /// A frame.
    Frame {
        /// Its track.
        flow: Arc<Flow>,
        /// Its number.
        sequence: u64,
        /// Times and flags.
        head: FrameHead,
        /// UTC when it was pushed at the agent, microseconds since 1970, as well as it is known.
        utc_us: i64,
        /// Its octets as they were pushed.
        payload: Bytes,
    },
    /// Frames `first..=last` will never come.
    Skip {
        /// Their track.
        flow: Arc<Flow>,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// Why.
        reason: GapReason,
    },
    /// The epoch is over: numbers from `next` on will never come.
    Ended {
        /// Its track.
        flow: Arc<Flow>,
        /// The number behind the last frame.
        next: u64,
        /// Why.
        cause: EndReason,
    },
}

impl Input {
    /// The track that this is about.
    #[must_use]
    pub fn flow(&self) -> &Arc<Flow> {
        match self {
            Self::Track { flow, .. }
            | Self::Frame { flow, .. }
            | Self::Skip { flow, .. }
            | Self::Ended { flow, .. } => flow,
        }
    }
}

/// The body of the fuzz target `persisted_log`: whatever stands in that file, reading ends, and what was understood is written down and read again
/// as it was. The first octet says what the rest is: a file (even), or entries that get a head and right sums (odd).
pub fn fuzz_persisted_log(data: &[u8]) {
    log::fuzz(data);
}

#[cfg(test)]
mod tests;

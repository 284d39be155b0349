//! The way of media from the agent's journal to the server: in order, resumed after a cut, acknowledged.
//!
//! A frame is named by (agent, boot, track, epoch, sequence). The [`Sender`] reads the agent's [`Journal`] and fills records, the
//! [`Receiver`] puts frames together, drops what it has, and acknowledges. With retention `live` an acknowledgement frees the journal.
//! What does not belong here: who may send at all (`session`), where frames are kept (the journal behind the trait).

mod backfill;
mod bitrate;
mod flow;
mod lanes;
mod late;
mod live;
mod receiver;
mod sender;

pub use backfill::{Backlog, Look, Waiting};
pub use lanes::{EpochKey, MAX_LANES, Past};
pub use receiver::{Delivery, MediaFrame, Receiver};
pub use sender::{Sender, TransferCounts};

use crate::frame::{FrameHead, SkipReason, TrackInfo};

/// A frame as the journal knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the epoch.
    pub sequence: u64,
    /// Times and flags.
    pub head: FrameHead,
    /// Its octets.
    pub length: u64,
}

/// The agent's journal as the sender reads it: frames of several tracks, each track's in the order of their numbers. Only its owner evicts.
/// Frames may come, and may be evicted, between any two calls: others write to it at the same time.
pub trait Journal {
    /// The oldest frame of that epoch with a number not below `sequence`.
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry>;
    /// The newest key frame of that epoch, if there is one.
    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64>;
    /// The number that the next frame of that epoch will get, or would have got.
    fn end(&mut self, track: u32, epoch: u64) -> u64;
    /// Why `number`, which was pushed and is not there, will not come, and up to which one that holds, at most to the next one that is there.
    fn missing(&mut self, _track: u32, _epoch: u64, _number: u64) -> (SkipReason, u64) {
        (SkipReason::OverBudget, u64::MAX)
    }
    /// Copies octets of a frame, from `offset` on, into all of `into`. `false` when the frame is gone.
    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool;
    /// All frames of that epoch below `next` may go: the server has received them, or stored them when it records the track.
    fn received(&mut self, track: u32, epoch: u64, next: u64);
    /// Where the live reader goes on that comes to `next`: behind it when frames in between are in the backlog, and are brought from there.
    fn live_from(&mut self, _track: u32, _epoch: u64, next: u64) -> u64 {
        next
    }
    /// The live reader goes on at `to`: whether the backlog takes what lies before it, from `from` on, and brings it. `is_over` when the track has left
    /// this epoch. With both numbers the same the live reader has come back to there, and all that follows is its own again; the
    /// answer is whether there is such a backlog.
    fn leave(&mut self, _info: &TrackInfo, _from: u64, _to: u64, _is_over: bool) -> bool {
        false
    }
    /// What waits to be brought beside the live frames, if the journal has such a tier.
    fn backlog(&mut self) -> Option<&mut dyn Backlog> {
        None
    }
}

//! The journal: frames from their arrival until the server has them, in memory that is taken once.
//!
//! One arena for all tracks, given out in pieces. Only the journal evicts: when a new frame needs room, the oldest groups of pictures are thinned to
//! their key frames first, and then the oldest go whole. Nothing here allocates after [`Journal::new`], but the list of a track's former epochs.
//! What does not belong here: which frames are taken (`source`), and what happens to them on the wire (`camagent_proto::transfer`).

mod arena;
pub(crate) mod flash;
mod ring;

#[cfg(feature = "fuzz")]
pub use flash::fuzz::journal_segment as fuzz_journal_segment;
pub(crate) use ring::{Copied, Hole, Journal};

/// Largest frame, whatever the arena holds: the server's default limit.
pub(crate) const MAX_FRAME: usize = 4 << 20;
/// Tracks that an agent may have.
pub(crate) const MAX_TRACKS: u32 = 128;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is held.
    Yes {
        /// How many older frames had to go for it.
        evicted: u64,
    },
    /// It belongs to a group of pictures that is larger than the arena: it and what follows it are left out until the next key frame.
    CutAtTail,
}

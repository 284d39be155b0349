//! The journal's second tier: frames in a folder on flash or a card, so that an outage may last longer than memory and a power cut does not end it.
//!
//! **What is safe.** A frame is safe when the `fdatasync` behind it has returned. The disk thread syncs at the latest `storage.sync_interval`, a second
//! as a rule, after the oldest octet that is not safe was written, or after a mebibyte. A power cut therefore costs: of frames on the card, what was written since then;
//! of frames that were in memory only, all of them. A frame leaves memory for the card only after it is safe there. A segment's first
//! record and its name are safe before a frame is written into it; what a power cut leaves behind the last whole record is cut at the next start.
//!
//! **What wears the card.** Frames are appended, never rewritten; key frames and sound are copied once when an outage is longer than the card.
//! Beside the frames' octets there are about 20 for each frame, a summary for each segment, and the last page of each sync once more, with what the
//! file system writes for it: so it is synced no oftener than has to be, and a segment's room is set aside when it begins.
//!
//! **What lies there.** `NUMBER.camj`, 16 digits in hexadecimal, is a segment; `NUMBER.thin.camj` one of which only key frames and sound are left, or a
//! copy that is to become one as long as the other is there. `set-aside` has what was not understood, `lock` keeps a second agent out.
//!
//! The map: [`disk`] is the card as a trait (`sim` one that fails on purpose), `segment` the octets of a file, `store` what is appended and let go,
//! `room` what goes when there is no more room, `thin` how it is made smaller first, `open` what a folder turns out to hold, `backlog` how it is read
//! back. What does not belong here: which frames come here, and when.

pub(crate) mod backlog;
mod crc;
pub(crate) mod disk;
#[cfg(feature = "fuzz")]
pub(super) mod fuzz;
pub(crate) mod held;
pub(crate) mod open;
mod room;
pub(crate) mod segment;
#[cfg(any(test, feature = "fuzz"))]
#[cfg_attr(not(test), allow(dead_code, reason = "for the fuzz target the card is well"))]
pub(crate) mod sim;
pub(crate) mod store;
#[cfg(test)]
mod tests;
mod thin;

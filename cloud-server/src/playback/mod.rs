//! What players get of what was recorded.
//!
//! * [`samples`] the samples of recorded files, without reading the pictures
//! * [`clip`] a time of a source as one MP4, of which any bytes can be read

pub mod clip;
pub mod samples;

pub use clip::{Clip, ClipError};

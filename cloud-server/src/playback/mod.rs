//! What players get of what was recorded.
//!
//! * [`samples`] the samples of recorded files, without reading the pictures
//! * [`clip`] a time of a source as one MP4, of which any bytes can be read
//! * [`reel`] the samples of a source in order, as time passes, late ones included
//! * `pace` an even time for them
//! * [`delayed`] a source as it was some seconds ago, for viewers

pub mod clip;
pub mod delayed;
mod pace;
pub mod reel;
pub mod samples;

pub use clip::{Clip, ClipError};
pub use delayed::Delayed;

//! Media formats, as values: NAL units, parameter sets, RTP payloads, RTCP, SDP, MP4.
//!
//! Frames of a camera go in as bytes, what a player or a recorder needs comes out. The crate is `no_std` + `alloc`: no
//! clock, socket, file or thread can slip in. Bad input never panics, it is a [`MediaError`] that says what was expected.
//!
//! From the ground up, each module using only those above it in this list:
//!
//! * [`error`] what was wrong with the bytes, and [`bits`] the bit reader under every parser
//! * [`annexb`] where one NAL unit ends and the next begins
//! * [`codec`] the table of codecs, and what their parameter sets and headers say
//! * [`track`] frames of one track in, units and current parameters out
//! * [`fmp4`] MP4 files: units in, a file that plays at every part out, and back
//! * [`rtp`] units in, RTP packets out; sender reports
//! * [`sdp`] the description of a session
//! * `fuzz` (feature) the bodies of the fuzz targets

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod annexb;
pub mod bits;
pub mod codec;
pub mod error;
pub mod fmp4;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod rtp;
pub mod sdp;
pub mod track;

pub use codec::{Codec, Framing, Parameters};
pub use error::MediaError;
pub use track::{TrackReader, Unit};

//! Live video in memory: who publishes ([`source`]), who reads ([`viewer`]), and who wants what ([`demand`]).
//! A frame is packetized once, for all viewers of its source; nothing is queued for a viewer. This row knows neither
//! the agents' protocol nor RTSP's: the gateway and the relay meet here.

pub mod demand;
pub mod frame_log;
pub mod hub;
pub mod source;
pub mod timeline;
pub mod track;
pub mod viewer;

pub use demand::{Demand, Interest, Want};
pub use frame_log::Frame;
pub use hub::{Found, Hub};
pub use source::{Presentation, PublishedFrame, Publisher, Source, SourceStatus, TrackStatus, Unavailable};
pub use track::{TrackDescription, TrackFormat};
pub use viewer::{Ended, Report, Skip, Start, Viewer};

#[cfg(test)]
mod tests;

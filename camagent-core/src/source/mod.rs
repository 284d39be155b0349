//! Where frames come from: the host pushes them (`push`), or the agent fetches them from its cameras (`pull`, a feature). What a frame becomes
//! is the same for every source.

mod outage;
#[cfg(feature = "pull")]
pub(crate) mod pull;
mod push;
mod track;

pub(crate) use push::{Fill, Intake, SpentEpoch};
pub use push::{Frame, Pushed};
pub use track::TrackDescription;

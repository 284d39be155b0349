//! Where frames come from. Today: the host pushes them (`push`). What a frame becomes is the same for every source.

mod push;
mod track;

pub(crate) use push::Intake;
pub use push::{Frame, Pushed};
pub use track::TrackDescription;

//! `source_state` and `key_frame`: what the server wants of a source.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::Retention;

/// `source_state`: frames of this source are wanted, or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The camera.
    pub camera: String,
    /// Its source.
    pub source: String,
    /// Whether its frames are to be uploaded.
    pub wanted: bool,
    /// What lets go of its frames.
    #[serde(default)]
    pub retention: Retention,
}

/// `key_frame`: please let the encoder start a new GOP soon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFrame {
    /// The camera.
    pub camera: String,
    /// Its source.
    pub source: String,
}

//! Cameras as an agent reports them, their sources, and what is to be done with those.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// When a source's frames are uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// All the time.
    #[default]
    Always,
    /// While somebody watches.
    OnDemand,
    /// Never.
    Off,
}

/// What frees a frame from the agent's journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// That the server received it.
    #[default]
    Live,
    /// That the server stored it.
    Record,
}

/// One source of a camera: its tracks are on one clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `main`, `sub` …, see [`super::is_name`].
    pub name: String,
    /// When it is uploaded.
    #[serde(default)]
    pub policy: Policy,
    /// What frees its frames.
    #[serde(default)]
    pub retention: Retention,
    /// Its path on the camera's own RTSP server, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How the server answers viewers of a tunnelled RTSP service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceMode {
    /// Octets pass untouched, each connection costs its own upload.
    #[default]
    Raw,
    /// Sources that are carried to the server anyway are answered from there; everything else passes untouched.
    Shared,
}

/// A TCP service of a camera that may be reached through a tunnel: its name is all that the server can ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `rtsp`, `http`, `onvif` or a name of the operator's, see [`super::is_name`].
    pub name: String,
    /// The camera's own port, for people and for addresses that keep it.
    pub port: u16,
    /// How RTSP viewers are answered.
    #[serde(default)]
    pub mode: ServiceMode,
}

/// One camera behind an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Camera {
    /// Unique on the server, see [`super::is_name`].
    pub id: String,
    /// Its sources.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// Its services that may be reached through tunnels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What the configuration tells of the camera: model, max_resolution, max_fps, codec, features and whatever else. For people, not for decisions.
    #[serde(flatten)]
    pub description: BTreeMap<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_pass_through() {
        let text = r#"{"id":"gate","sources":[{"name":"main","policy":"on_demand"}],"model":"x","max_fps":20}"#;
        let camera: Camera = serde_json::from_str(text).unwrap();
        assert_eq!(camera.sources[0].policy, Policy::OnDemand);
        assert_eq!(camera.description["max_fps"], 20);
        let again: Camera = serde_json::from_str(&serde_json::to_string(&camera).unwrap()).unwrap();
        assert_eq!(again, camera);
    }
}

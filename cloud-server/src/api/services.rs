//! Cameras and their services in the API: what the agent told of a camera, and where its services are found on this server.

use std::collections::{BTreeMap, BTreeSet};

use camagent_proto::message::{Camera, Policy, Retention, ServiceMode};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::tunnel::{TunnelStatus, urls};

/// One camera of an agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct CameraBody {
    /// Its id.
    pub id: String,
    /// Its sources, as the agent registered them; none while the agent was not seen since the server started.
    pub sources: Vec<SourceBody>,
    /// Its services, as ports of this server.
    pub services: Vec<ServiceBody>,
    /// What else the agent's configuration tells of it: model, max_resolution, features and so on.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub description: BTreeMap<String, Value>,
}

/// One source of a camera.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceBody {
    /// Its name.
    #[schema(example = "main")]
    pub name: String,
    /// When it is uploaded: `always`, `on_demand` or `off`.
    #[schema(example = "on_demand")]
    pub policy: &'static str,
    /// What the agent would keep its frames for: `live`, until they were received, or `record`, until they were stored.
    #[schema(example = "live")]
    pub retention: &'static str,
    /// Its path on the camera's own RTSP server.
    pub path: Option<String>,
}

/// One service of a camera, offered as a port of this server.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceBody {
    /// Its name: `rtsp`, `http`, `onvif` or another.
    #[schema(example = "rtsp")]
    pub name: String,
    /// The camera's own port.
    pub port: u16,
    /// Where it is found on this server; missing while it has no address.
    #[schema(example = "127.0.0.1:8554")]
    pub address: Option<String>,
    /// Ready URLs; for `rtsp` one for each source.
    #[schema(example = json!(["rtsp://127.0.0.1:8554/cam/realmonitor?channel=1&subtype=0"]))]
    pub urls: Vec<String>,
    /// `listening`, `blocked` (see `reason`; tried again) or `withdrawn` (the agent does not offer it any more).
    #[schema(example = "listening")]
    pub state: &'static str,
    /// Why it is blocked.
    pub reason: Option<String>,
    /// `raw`, or `shared` when the agent lets the server answer RTSP viewers with what it has already.
    #[schema(example = "raw")]
    pub mode: &'static str,
    /// Visitors now.
    pub visitors: usize,
    /// Octets carried from the camera to visitors since the server started; what the relay answered in shared mode is not in it.
    pub octets_to_visitors: u64,
    /// Octets from visitors to the camera.
    pub octets_to_camera: u64,
}

impl CameraBody {
    /// All cameras that the agent told of, or that have tunnels, by id.
    #[must_use]
    pub fn all(cameras: Vec<Camera>, tunnels: Vec<TunnelStatus>) -> Vec<Self> {
        let mut services: BTreeMap<String, Vec<ServiceBody>> = BTreeMap::new();
        for status in tunnels {
            services.entry(status.row.camera.clone()).or_default().push(ServiceBody::from(status));
        }
        // A camera that was named twice is as it was named last.
        let mut told: BTreeMap<String, Camera> =
            cameras.into_iter().map(|camera| (camera.id.clone(), camera)).collect();
        let ids: BTreeSet<String> = told.keys().chain(services.keys()).cloned().collect();
        ids.into_iter()
            .map(|id| {
                let camera = told.remove(&id).unwrap_or_default();
                let sources = camera.sources.into_iter().map(|source| SourceBody {
                    name: source.name,
                    policy: match source.policy {
                        Policy::Always => "always",
                        Policy::OnDemand => "on_demand",
                        Policy::Off => "off",
                    },
                    retention: match source.retention {
                        Retention::Live => "live",
                        Retention::Record => "record",
                    },
                    path: source.path,
                });
                Self {
                    sources: sources.collect(),
                    services: services.remove(&id).unwrap_or_default(),
                    description: camera.description,
                    id,
                }
            })
            .collect()
    }
}

impl From<TunnelStatus> for ServiceBody {
    fn from(status: TunnelStatus) -> Self {
        Self {
            port: status.row.camera_port,
            address: status.address.map(|address| address.to_string()),
            urls: status.address.map(|address| urls(&status.row, address)).unwrap_or_default(),
            state: status.row.state.word(),
            mode: match status.row.mode {
                ServiceMode::Raw => "raw",
                ServiceMode::Shared => "shared",
            },
            visitors: status.visitors,
            octets_to_visitors: status.to_visitors,
            octets_to_camera: status.to_camera,
            name: status.row.service,
            reason: status.row.reason,
        }
    }
}

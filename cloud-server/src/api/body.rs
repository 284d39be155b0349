//! What the API says and hears, as JSON. Times are RFC 3339.

use std::collections::BTreeMap;

use camagent_proto::stats::Statistics;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::services::CameraBody;
use crate::agents::AgentStatus;
use crate::clock::rfc3339;
use crate::live::{SourceStatus, TrackStatus};
use crate::store::AgentRow;
use crate::tunnel::TunnelStatus;

/// `GET /health`.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthBody {
    /// `ok`, or `degraded` when the database cannot be read.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// The server's version.
    pub version: &'static str,
    /// Agents that are connected.
    pub agents_online: usize,
    /// How often, since the start, the database or the index of recordings could not be written, or old recordings not be removed.
    pub disk_trouble: u64,
}

/// One agent.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentBody {
    /// Its id.
    pub id: String,
    /// Whether it is connected.
    pub online: bool,
    /// When it was added to the server.
    pub created_at: String,
    /// When a session of it last began or ended.
    pub last_seen: Option<String>,
    /// When its present session began.
    pub connected_at: Option<String>,
    /// When its last heartbeat came.
    pub last_heartbeat: Option<String>,
    /// Where it connects from.
    pub address: Option<String>,
    /// Its software and version.
    pub software: Option<String>,
    /// The server's count of its connections since the server started.
    pub generation: u64,
    /// Its cameras, with their services.
    pub cameras: Vec<CameraBody>,
    /// Commands it answers beside `restart`.
    pub capabilities: Vec<String>,
    /// The numbers of its last heartbeat: bytes_sent, bytes_received, packets_lost, reconnections, uptime, buffer_size
    /// and more.
    #[schema(value_type = Option<Object>)]
    pub statistics: Option<Statistics>,
}

/// `GET /agents`.
#[derive(Debug, Serialize, ToSchema)]
pub struct AgentsBody {
    /// All agents by id.
    pub agents: Vec<AgentBody>,
}

/// One source that can be watched.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamBody {
    /// The camera.
    pub camera: String,
    /// Its source.
    pub source: String,
    /// The agent that brings it.
    pub agent: String,
    /// Whether the agent is connected and publishes it.
    pub online: bool,
    /// Where players find it.
    #[schema(example = "rtsp://127.0.0.1:7554/camera/main")]
    pub url: String,
    /// Its tracks.
    pub tracks: Vec<TrackBody>,
    /// Viewers that play it.
    pub viewers: u32,
    /// How often a viewer was too slow and continued at the newest key frame.
    pub viewer_skips: u32,
    /// Frames received since the server started.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes in the shared buffer.
    pub buffered_bytes: usize,
}

/// One track.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrackBody {
    /// The codec's name.
    #[schema(example = "H.264")]
    pub codec: &'static str,
    /// The codec as browsers name it (RFC 6381), once its parameters are known.
    #[schema(example = "avc1.640028")]
    pub rfc6381: Option<String>,
    /// Width in pixels.
    pub width: Option<u32>,
    /// Height in pixels.
    pub height: Option<u32>,
    /// Samples a second.
    pub sample_rate: Option<u32>,
    /// Channels.
    pub channels: Option<u16>,
    /// Frames received in this form.
    pub frames: u64,
}

/// `GET /streams`.
#[derive(Debug, Serialize, ToSchema)]
pub struct StreamsBody {
    /// All sources by camera and name.
    pub streams: Vec<StreamBody>,
}

/// `POST /agents/{id}/control`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlBody {
    /// What to do.
    #[schema(example = "restart")]
    pub action: String,
    /// The camera it is for; the whole agent without it.
    #[serde(default)]
    pub camera: Option<String>,
    /// What the action needs.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub args: Option<BTreeMap<String, serde_json::Value>>,
    /// How long to wait for the answer: 1 to 120000, 10000 without it.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// The answer of an agent that did it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ControlResultBody {
    /// The command's id.
    pub id: String,
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// What the agent gave back.
    #[schema(value_type = Object)]
    pub result: serde_json::Value,
}

impl AgentBody {
    /// What the database, the registry and the tunnels know together.
    #[must_use]
    pub fn new(row: AgentRow, status: Option<AgentStatus>, tunnels: Vec<TunnelStatus>) -> Self {
        let status = status.unwrap_or_default();
        let known = |text: String| (!text.is_empty()).then_some(text);
        Self {
            id: row.id,
            online: status.online,
            created_at: rfc3339(row.created_us),
            last_seen: row.seen_us.map(rfc3339),
            connected_at: status.connected_us.filter(|_| status.online).map(rfc3339),
            last_heartbeat: status.heartbeat_us.map(rfc3339),
            address: known(status.address),
            software: known(status.software),
            generation: status.generation,
            cameras: CameraBody::all(status.cameras, tunnels),
            capabilities: status.capabilities,
            statistics: status.statistics,
        }
    }
}

impl StreamBody {
    /// A source and where it is found.
    #[must_use]
    pub fn new(status: SourceStatus, rtsp_address: &str) -> Self {
        Self {
            url: format!("rtsp://{rtsp_address}/{}/{}", status.camera, status.source),
            camera: status.camera,
            source: status.source,
            agent: status.agent,
            online: status.online,
            tracks: status.tracks.into_iter().map(TrackBody::from).collect(),
            viewers: status.viewers,
            viewer_skips: status.viewer_skips,
            frames: status.frames,
            bytes: status.bytes,
            buffered_bytes: status.buffered_bytes,
        }
    }
}

impl From<TrackStatus> for TrackBody {
    fn from(status: TrackStatus) -> Self {
        Self {
            codec: status.codec,
            rfc6381: status.rfc6381,
            width: status.dimensions.map(|(width, _)| width),
            height: status.dimensions.map(|(_, height)| height),
            sample_rate: status.sample_rate,
            channels: status.channels,
            frames: status.frames,
        }
    }
}

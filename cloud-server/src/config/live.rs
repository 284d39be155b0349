//! `[live]`: how much of a source is kept in memory, and how patient the server is with both ends.

use std::time::Duration;

use super::reader::Section;

/// Buffers and patience of live video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Memory of one source's shared frame log, which is also its GOP cache. Default 8 MiB: 16 s of 4 Mbit/s.
    pub buffer_bytes: usize,
    /// A viewer this much media time behind jumps to the newest key frame. Default 4 s.
    pub max_viewer_lag: Duration,
    /// How long viewers stay connected while the camera's agent is away. Default 30 s.
    pub offline_patience: Duration,
    /// How long an on-demand source keeps coming after its last viewer left. Default 10 s.
    pub viewer_linger: Duration,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            buffer_bytes: 8 << 20,
            max_viewer_lag: Duration::from_secs(4),
            offline_patience: Duration::from_secs(30),
            viewer_linger: Duration::from_secs(10),
        }
    }
}

impl Live {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let bytes = section.integer("buffer_bytes", 65_536..=1 << 30, default.buffer_bytes as i64);
        Self {
            buffer_bytes: usize::try_from(bytes).unwrap_or(default.buffer_bytes),
            max_viewer_lag: section.seconds("max_viewer_lag", 0.5..=60.0, default.max_viewer_lag),
            offline_patience: section.seconds("offline_patience", 0.0..=3600.0, default.offline_patience),
            viewer_linger: section.seconds("viewer_linger", 0.0..=3600.0, default.viewer_linger),
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("buffer_bytes", self.buffer_bytes.to_string()),
            ("max_viewer_lag", self.max_viewer_lag.as_secs_f64().to_string()),
            ("offline_patience", self.offline_patience.as_secs_f64().to_string()),
            ("viewer_linger", self.viewer_linger.as_secs_f64().to_string()),
        ]
    }
}

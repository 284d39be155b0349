//! `[recordings]`: what is recorded, where to, and for how long. Nothing is recorded until a folder is named.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Section, quoted};

/// Recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recordings {
    /// The folder of the recordings; nothing is recorded without one. It should have a disk of its own.
    pub path: Option<PathBuf>,
    /// Whether new frames are recorded. Default true, when there is a folder; what was recorded can be read either way.
    pub enabled: bool,
    /// Which sources are recorded, as `CAMERA/SOURCE`; `*` stands for any. Default all. Recording uploads nothing by itself: of
    /// a source that is sent on demand only what somebody watched is there.
    pub sources: Vec<String>,
    /// A file ends with the first key frame after so much time. Default 60 s.
    pub segment_seconds: Duration,
    /// What is older goes. Default 30 days; 0 keeps everything.
    pub retention_days: u32,
    /// The oldest goes while a camera has more bytes than this. Default 0, no limit.
    pub max_bytes_per_camera: u64,
    /// Bytes of frames that wait for a slow disk. Default 64 MiB: two minutes of 4 Mbit/s. What comes beyond is not recorded
    /// now; an agent with a journal keeps it.
    pub queue_bytes: usize,
}

impl Default for Recordings {
    fn default() -> Self {
        Self {
            path: None,
            enabled: true,
            sources: vec!["*/*".to_owned()],
            segment_seconds: Duration::from_secs(60),
            retention_days: 30,
            max_bytes_per_camera: 0,
            queue_bytes: 64 << 20,
        }
    }
}

impl Recordings {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let whole = |number: i64| u64::try_from(number).unwrap_or_default();
        let sources = section.texts("sources");
        Self {
            path: section.text("path").map(PathBuf::from),
            enabled: section.flag("enabled", default.enabled),
            sources: if sources.is_empty() { default.sources } else { sources },
            segment_seconds: section.seconds("segment_seconds", 2.0..=3600.0, default.segment_seconds),
            retention_days: u32::try_from(section.integer(
                "retention_days",
                0..=36_500,
                i64::from(default.retention_days),
            ))
            .unwrap_or(default.retention_days),
            max_bytes_per_camera: whole(section.integer("max_bytes_per_camera", 0..=i64::MAX, 0)),
            queue_bytes: usize::try_from(section.integer("queue_bytes", 1 << 20..=1 << 34, default.queue_bytes as i64))
                .unwrap_or(default.queue_bytes),
        }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let path = self.path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        let sources: Vec<_> = self.sources.iter().map(|source| quoted(source)).collect();
        vec![
            ("path", quoted(&path)),
            ("enabled", self.enabled.to_string()),
            ("sources", format!("[{}]", sources.join(", "))),
            ("segment_seconds", self.segment_seconds.as_secs_f64().to_string()),
            ("retention_days", self.retention_days.to_string()),
            ("max_bytes_per_camera", self.max_bytes_per_camera.to_string()),
            ("queue_bytes", self.queue_bytes.to_string()),
        ]
    }

    /// Whether frames of this source are recorded.
    #[must_use]
    pub fn records(&self, camera: &str, source: &str) -> bool {
        let fits = |pattern: &str, name: &str| pattern == "*" || pattern == name;
        let named = |entry: &String| match entry.split_once('/') {
            Some((one, other)) => fits(one, camera) && fits(other, source),
            None => fits(entry, camera),
        };
        self.enabled && self.path.is_some() && self.sources.iter().any(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_chosen_by_name_or_star() {
        let recordings = Recordings {
            path: Some("/x".into()),
            sources: ["gate/main", "*/sub", "yard"].map(str::to_owned).to_vec(),
            ..Recordings::default()
        };
        assert!(
            recordings.records("gate", "main") && recordings.records("any", "sub") && recordings.records("yard", "x")
        );
        assert!(!recordings.records("any", "main"));
        assert!(!Recordings { path: None, ..recordings.clone() }.records("gate", "main"), "no folder, no recording");
        assert!(!Recordings { enabled: false, ..recordings }.records("gate", "main"));
    }
}

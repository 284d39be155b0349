//! `[log]`: how much is logged. Lines go to standard error.

use super::reader::{Section, quoted};

/// Verbosity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// error, warn, info, debug or trace. Default info.
    pub level: &'static str,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info" }
    }
}

impl Log {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self { level: section.word("level", &["error", "warn", "info", "debug", "trace"], "info") }
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("level", quoted(self.level))]
    }
}

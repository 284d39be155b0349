//! `[storage]`: where the server keeps what must outlive it.

use std::path::PathBuf;

use super::reader::{Section, quoted};

/// The data folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Database, certificate and key. Default `camagent-data` in the working folder; `--data-dir` moves it.
    pub data_dir: PathBuf,
}

impl Default for Storage {
    fn default() -> Self {
        Self { data_dir: PathBuf::from("camagent-data") }
    }
}

impl Storage {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        section.text("data_dir").map_or_else(Self::default, |path| Self { data_dir: PathBuf::from(path) })
    }

    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("data_dir", quoted(&self.data_dir.to_string_lossy()))]
    }
}

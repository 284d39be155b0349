//! A look through the complete files after each start, by name only. A file goes a moment after its row: a kill between the two leaves one that
//! counts nowhere and would stay for ever. It is entered again, and goes the way of all files.
//!
//! A folder at a time, between other work. What the files hold is the business of `check`.

use std::path::Path;

use super::archive::{Archive, KEPT};
use crate::error::{Error, Result};

/// Folders that are still to be looked through.
pub(super) struct Sweep {
    folders: Vec<String>,
    entered: u64,
}

impl Sweep {
    pub(super) fn new() -> Self {
        Self { folders: vec![KEPT.to_owned()], entered: 0 }
    }

    /// Looks through the next folder. True when there is none left.
    pub(super) async fn step(&mut self, archive: &Archive) -> bool {
        let Some(folder) = self.folders.pop() else {
            if self.entered > 0 {
                tracing::info!(files = self.entered, "recorded files without a row in the index have one again");
            }
            return true;
        };
        if let Err(error) = self.look(archive, &folder).await {
            tracing::warn!(folder, %error, "this folder of recordings is not looked through");
        }
        false
    }

    async fn look(&mut self, archive: &Archive, folder: &str) -> Result<()> {
        let unreadable = |reason: String| Error::Recordings { path: folder.into(), reason };
        let path = archive.folder().join(folder);
        let listed = tokio::task::spawn_blocking(move || list(&path)).await;
        let listed = listed.map_err(|error| unreadable(error.to_string()))?;
        let (folders, files) = match listed {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        self.folders.extend(folders.into_iter().map(|name| format!("{folder}/{name}")));
        if files.is_empty() {
            return Ok(());
        }
        let known = archive.index().names_in(folder).await?;
        for name in files.into_iter().map(|name| format!("{folder}/{name}")) {
            if !known.contains(&name) {
                self.entered += u64::from(archive.enter(name).await?);
            }
        }
        Ok(())
    }
}

/// The names of folders, and of recorded files: what else somebody keeps there is not looked at.
fn list(path: &Path) -> std::io::Result<(Vec<String>, Vec<String>)> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // What is not text was not made here.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if kind.is_dir() {
            folders.push(name);
        } else if kind.is_file() && name.ends_with(".mp4") {
            files.push(name);
        }
    }
    Ok((folders, files))
}

//! ffprobe as a judge of what a killed server leaves: it opens every file that has a whole part.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camagent_testkit::{program, recordings};
use tokio::process::Command;

/// ffprobe has said nothing by then.
const LONGEST: Duration = Duration::from_secs(60);

/// ffprobe, or nobody.
pub struct Probe {
    is_there: bool,
    /// Complete files never change: each is looked at once.
    seen: Mutex<BTreeSet<PathBuf>>,
}

impl Probe {
    /// Says so when it is not there.
    pub fn find() -> Self {
        Self { is_there: program::is_installed("ffprobe", "ffmpeg"), seen: Mutex::default() }
    }

    /// Opens what is new in a folder of recordings; no server runs. What is wrong, a line for each file.
    pub async fn look(&self, folder: &Path) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.is_there {
            return faults;
        }
        for file in recordings::files(folder) {
            let is_open = file.starts_with(folder.join("open"));
            if !is_open && !self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(file.clone()) {
                continue;
            }
            // A kill at its first octets leaves a file that holds nothing yet.
            if recordings::read(&file).is_ok_and(|frames| frames.is_empty()) {
                continue;
            }
            let mut ffprobe = Command::new("ffprobe");
            ffprobe.args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"]).arg(&file);
            let run = ffprobe.stdin(Stdio::null()).kill_on_drop(true).output();
            let said = match tokio::time::timeout(LONGEST, run).await {
                Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
                other => format!("{other:?}"),
            };
            if said != "h264" && said != "pcm_alaw" {
                faults.push(format!("ffprobe does not open {}: {said}", file.display()));
            }
        }
        faults
    }
}

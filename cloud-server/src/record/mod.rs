//! What was recorded, as a whole: complete segments are moved to the object store and entered into the index, old ones go, and
//! readers find frames by camera, source and time.
//!
//! * [`index`] SQLite beside the files; it can be made anew from them
//! * [`archive`] files and index together: keep, find, read
//! * [`coverage`] which times are there, and why others are not
//! * `keeper` the task that keeps what is complete, `retention` what it lets go of, `sweep` what it looks for after a start
//! * [`check`] `camagent-cloud recordings check`
//!
//! How files are written belongs into `ingest`, what players get into `playback`.

pub mod archive;
pub mod check;
pub mod coverage;
pub mod index;
mod keeper;
mod retention;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub use archive::{Archive, Found};

use crate::clock::Clock;
use crate::config::Recordings;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::ingest::disk::Folder;
use crate::ingest::{Ingest, Recorder, Settings};

/// What is persisted is remembered for so many days, or longer when recordings are kept longer.
const REMEMBER_DAYS: u64 = 90;
const REMEMBER_FOR_EVER: u64 = 36_500;
/// Complete files that wait for the index; the ingest leaves behind what is more.
const WAITING: usize = 1_024;

/// A recorder at work.
pub struct Recording {
    /// Where frames go; nothing goes there when the configuration says so.
    pub ingest: Arc<Ingest>,
    /// What was recorded.
    pub archive: Arc<Archive>,
    task: tokio::task::JoinHandle<()>,
    _lock: std::fs::File,
}

/// Opens the folder and starts. An error is a folder that cannot be used: the server runs without recordings then, and says so.
pub async fn start(config: &Recordings, clock: Clock, events: Arc<Events>) -> Result<Option<Recording>> {
    let Some(path) = &config.path else { return Ok(None) };
    let unusable = |reason: String| Error::Recordings { path: path.clone(), reason };
    let folder = Folder::open(path).map_err(|error| unusable(error.to_string()))?;
    let lock = archive::lock(path)?;
    let mut new_epoch = [0; 16];
    getrandom::fill(&mut new_epoch).map_err(|error| unusable(format!("no random numbers: {error}")))?;
    let days = match config.retention_days {
        0 => REMEMBER_FOR_EVER,
        days => REMEMBER_DAYS.max(u64::from(days)),
    };
    let remember = Duration::from_secs(days * 86_400);
    let settings = Settings { segment: config.segment_seconds, new_epoch, remember };
    let now_us = clock.utc_us();
    let opened = tokio::task::spawn_blocking(move || Recorder::open(folder, settings, now_us)).await;
    let recorder = match opened {
        Ok(Ok(recorder)) => recorder,
        Ok(Err(error)) => return Err(unusable(error.to_string())),
        Err(error) => return Err(unusable(format!("the recorder failed: {error}"))),
    };
    let (sender, receiver) = mpsc::channel(WAITING);
    let sources = recorder.sources();
    let ingest = Ingest::start(config.clone(), recorder, clock, Arc::clone(&events), sender)
        .map_err(|error| unusable(error.to_string()))?;
    for (camera, source) in sources {
        ingest.source_recorded(&camera, &source, now_us, config.records(&camera, &source));
    }
    let archive = Arc::new(Archive::open(config, Some(Arc::clone(&ingest)), clock, &events).await?);
    let task = tokio::spawn(keeper::run(Arc::clone(&archive), Arc::clone(&ingest), receiver, Arc::clone(&events)));
    Ok(Some(Recording { ingest, archive, task, _lock: lock }))
}

/// Starts, or tells why not: a folder of recordings that cannot be used keeps nobody from watching.
pub async fn start_or_tell(config: &Recordings, clock: Clock, events: &Arc<Events>) -> Option<Recording> {
    match start(config, clock, Arc::clone(events)).await {
        Ok(recording) => recording,
        Err(error) => {
            tracing::error!(%error, "nothing is recorded");
            events.emit(Event::RecordingsOff { reason: error.to_string() });
            None
        }
    }
}

impl Recording {
    /// Writes what waits, closes all files and the index. Takes as long as the disk does.
    pub async fn stop(self) {
        let ingest = Arc::clone(&self.ingest);
        // Ends the thread, whose end of the channel ends the task.
        let _ = tokio::task::spawn_blocking(move || ingest.stop()).await;
        let _ = self.task.await;
        self.archive.close().await;
    }
}

//! Files and index together. A complete segment gets its row, then is renamed into the object store, and only then is forgotten by
//! the ingest: at every moment a reader finds it in one of both places. A kill before the renaming leaves it open: the next start of the server
//! does all of it again.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};

use super::coverage::is_video;
use super::index::{Index, Opened, SegmentRow};
use crate::clock::Clock;
use crate::config::Recordings;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::ingest::disk::{Disk, Folder};
use crate::ingest::ledger::Ledger;
use crate::ingest::segment::scan;
use crate::ingest::{Ingest, SegmentInfo};
use crate::metrics::RecordingGauges;

pub use crate::ingest::KEPT;

/// The sums over all files are made anew so often.
const TOTALS_EVERY: Duration = Duration::from_secs(10);

/// What was recorded.
pub struct Archive {
    folder: PathBuf,
    pub(super) config: Recordings,
    index: Index,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) ingest: Option<Arc<Ingest>>,
    clock: Clock,
    totals: Mutex<Option<(Instant, Totals)>>,
    /// Why complete files could not be put in their place when that was tried last.
    trouble: Mutex<Option<String>>,
}

/// Bytes, files, and the beginning of the oldest.
type Totals = (u64, u64, Option<i64>);

/// A file that holds something of what was asked for.
pub type Found = SegmentRow;

/// Makes sure that nobody else writes to the folder.
pub fn lock(folder: &Path) -> Result<File> {
    let unusable = |reason: String| Error::Recordings { path: folder.to_owned(), reason };
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(folder.join("lock"))
        .map_err(|error| unusable(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(unusable("another process records into it".to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(error.to_string())),
    }
}

/// Whether another process records into a folder. Nothing is made and nothing stays locked.
pub fn is_used(folder: &Path) -> bool {
    let file = File::open(folder.join("lock"));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

impl Archive {
    /// Opens index and object store; a new index is filled from the files.
    pub async fn open(config: &Recordings, ingest: Option<Arc<Ingest>>, clock: Clock, events: &Events) -> Result<Self> {
        let folder = config.path.clone().unwrap_or_default();
        let unusable = |reason: String| Error::Recordings { path: folder.clone(), reason };
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(|error| unusable(error.to_string()))?;
        let (index, is_new) = match Index::open(&folder, clock.utc_us()).await? {
            Opened::Found(index) => (index, false),
            Opened::New(index) => (index, true),
            Opened::Replaced(index, moved, reason) => {
                let reason = format!("the index could not be used and is made anew: {reason}");
                events.emit(Event::RecordingSetAside { name: moved.display().to_string(), reason });
                (index, true)
            }
        };
        let store = Arc::new(store.with_fsync(true));
        let archive = Self {
            folder: folder.clone(),
            config: config.clone(),
            index,
            store,
            ingest,
            clock,
            totals: Mutex::default(),
            trouble: Mutex::default(),
        };
        if is_new {
            archive.rebuild().await?;
            archive.index.complete().await?;
        }
        Ok(archive)
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether frames of a source are recorded now.
    #[must_use]
    pub fn records(&self, camera: &str, source: &str) -> bool {
        self.config.records(camera, source)
    }

    /// What is wrong at present, if anything: nothing can be written, or complete files cannot be put in their place.
    #[must_use]
    pub fn stalled(&self) -> Option<String> {
        let ingest = self.ingest.as_ref()?;
        ingest.stalled().or_else(|| {
            let reason = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
            Some(format!("complete files that wait in {}/: {}; {reason}", crate::ingest::OPEN, ingest.left_behind()))
        })
    }

    /// Whether nothing can be written at present.
    #[must_use]
    pub fn takes_nothing(&self) -> bool {
        self.ingest.as_ref().is_some_and(|ingest| ingest.stalled().is_some())
    }

    /// Notes why complete files wait, or that none does. True when that is news.
    pub(super) fn note_trouble(&self, reason: Option<String>) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = trouble.is_none() && reason.is_some();
        *trouble = reason;
        is_news
    }

    /// Files of a source that touch a time, with those that are being written, oldest first.
    pub async fn find(&self, camera: &str, source: &str, from_us: i64, to_us: i64) -> Result<Vec<Found>> {
        // The open ones first: one that moves between the two looks is then seen twice, and not never.
        let open = self.ingest.as_ref().map(|ingest| ingest.open_segments()).unwrap_or_default();
        let mut found = self.index.find(camera, source, from_us, to_us).await?;
        for (name, info) in open {
            let row = SegmentRow::new(name, &info);
            let fits = row.camera == camera && row.source == source && row.end_us() > from_us && row.start_us() < to_us;
            let is_known = |kept: &SegmentRow| {
                kept.key == row.key && kept.runs.first().map(|run| run.first) == row.runs.first().map(|run| run.first)
            };
            if fits && !found.iter().any(is_known) {
                found.push(row);
            }
        }
        found.sort_by(|one, other| (one.start_us(), &one.name).cmp(&(other.start_us(), &other.name)));
        Ok(found)
    }

    /// The file of a source's pictures, or of its sound, that ends last at or before a time, and the one that begins first at or
    /// after another.
    pub async fn around(
        &self,
        camera: &str,
        source: &str,
        video: bool,
        from_us: i64,
        to_us: i64,
    ) -> Result<(Option<Found>, Option<Found>)> {
        let open = self.ingest.as_ref().map(|ingest| ingest.open_segments()).unwrap_or_default();
        let open = open.into_iter().map(|(name, info)| SegmentRow::new(name, &info));
        let own = |row: &SegmentRow| row.camera == camera && row.source == source && is_video(row) == video;
        let open: Vec<_> = open.filter(own).collect();
        let before = self.index.last_before(camera, source, video, from_us).await?;
        let after = self.index.first_after(camera, source, video, to_us).await?;
        let earlier = open.iter().filter(|row| row.end_us() <= from_us).cloned();
        let later = open.iter().filter(|row| row.start_us() >= to_us).cloned();
        Ok((earlier.chain(before).max_by_key(SegmentRow::end_us), later.chain(after).min_by_key(SegmentRow::start_us)))
    }

    /// Looks at why something is missing.
    pub fn ledger<T: Default>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        self.ingest.as_ref().map(|ingest| ingest.ledger(look)).unwrap_or_default()
    }

    /// Numbers for monitoring. Sums over all files are at most [`TOTALS_EVERY`] old.
    pub async fn gauges(&self) -> RecordingGauges {
        let now_us = self.clock.utc_us();
        let known = self.totals().filter(|(at, _)| at.elapsed() < TOTALS_EVERY);
        let (bytes, files, oldest_us) = match known {
            Some((_, totals)) => totals,
            // An index that cannot be read is told by whoever writes to it.
            None => self.index.totals().await.unwrap_or_default(),
        };
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(known.unwrap_or_else(|| (Instant::now(), (bytes, files, oldest_us))));
        let oldest_us = oldest_us.map_or(0, |oldest_us| now_us.saturating_sub(oldest_us));
        let ingest = self.ingest.as_ref();
        RecordingGauges {
            bytes,
            files,
            oldest_seconds: u64::try_from(oldest_us / 1_000_000).unwrap_or(0),
            open_files: ingest.map_or(0, |ingest| ingest.open_segments().len() as u64),
            waiting_bytes: ingest.map_or(0, |ingest| ingest.waiting_bytes() as u64),
            is_stalled: self.stalled().is_some(),
            withheld: ingest.map_or(0, |ingest| ingest.withheld()),
        }
    }

    fn totals(&self) -> Option<(Instant, Totals)> {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the machine's clock says, UTC in microseconds since 1970.
    #[must_use]
    pub fn utc_us(&self) -> i64 {
        self.clock.utc_us()
    }

    /// Reads bytes of a file.
    pub async fn read(&self, row: &Found, range: Range<u64>) -> Result<Bytes> {
        let range = range.start.min(row.bytes)..range.end.min(row.bytes);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        match self.store.get_range(&row.name.as_str().into(), range.clone()).await {
            Ok(bytes) => Ok(bytes),
            // It was completed and moved since it was found, or has its row and is about to be moved.
            Err(object_store::Error::NotFound { .. }) => {
                let open = self.open_name(&row.name).unwrap_or_else(|| kept_name(row));
                match self.store.get_range(&open.as_str().into(), range.clone()).await {
                    Err(object_store::Error::NotFound { .. }) => {
                        self.store.get_range(&kept_name(row).into(), range).await
                    }
                    other => other,
                }
                .map_err(|error| unreadable(&row.name, &error))
            }
            Err(error) => Err(unreadable(&row.name, &error)),
        }
    }

    /// The name that a file has now which will be kept under this one.
    fn open_name(&self, kept: &str) -> Option<String> {
        let open = self.ingest.as_ref()?.open_segments();
        let mut own = open.into_iter().filter(|(_, info)| kept_name(&SegmentRow::new(String::new(), info)) == kept);
        own.next().map(|(name, _)| name)
    }

    /// Enters a complete file and moves it into the object store. Were it moved first, a kill in between would leave a file that no reader finds.
    pub(super) async fn keep(&self, name: &str, info: &SegmentInfo) -> Result<()> {
        let row = SegmentRow::new(name.to_owned(), info);
        let kept = kept_name(&row);
        let path = self.folder.join(name);
        let is_open = path.exists();
        let stored_us = stored_us(if is_open { path.clone() } else { self.folder.join(&kept) }.as_path());
        if is_open {
            let cut = info.bytes;
            let cut = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
                let file = File::options().write(true).open(&path)?;
                // What a failed write left behind the last whole part.
                if file.metadata()?.len() > cut {
                    file.set_len(cut)?;
                    file.sync_all()?;
                }
                Ok(())
            });
            cut.await.map_err(|error| unreadable(name, &error))?.map_err(|error| unreadable(name, &error))?;
        }
        self.index.put(&SegmentRow { name: kept.clone(), ..row }, stored_us).await?;
        if is_open {
            let rename = self.store.rename(&name.into(), &kept.as_str().into()).await;
            rename.map_err(|error| unreadable(name, &error))?;
            // The object store made the new name safe; the old one must not come back.
            let folder = self.folder.join(crate::ingest::OPEN);
            let _ = tokio::task::spawn_blocking(move || File::open(folder).and_then(|folder| folder.sync_all())).await;
        }
        if let Some(ingest) = &self.ingest {
            ingest.forget(name);
        }
        Ok(())
    }

    /// Enters all files again.
    async fn rebuild(&self) -> Result<()> {
        let mut folder = Folder::open(&self.folder).map_err(|error| unreadable(KEPT, &error))?;
        let names = folder.list(KEPT).map_err(|error| unreadable(KEPT, &error))?;
        for name in names {
            self.enter(name).await?;
        }
        Ok(())
    }

    /// Enters a file that is in its place; false for one that holds no recording.
    pub(super) async fn enter(&self, name: String) -> Result<bool> {
        let path = self.folder.join(&name);
        let read = move || Some((scan(&std::fs::read(&path).ok()?, |_, _, _| {}), stored_us(&path)));
        match tokio::task::spawn_blocking(read).await {
            Ok(Some((Ok(info), stored_us))) => {
                self.index.put(&SegmentRow::new(name, &info), stored_us).await.map(|()| true)
            }
            other => {
                tracing::warn!(name, ?other, "this file is not entered into the index");
                Ok(false)
            }
        }
    }

    pub(super) async fn close(&self) {
        self.index.close().await;
    }
}

/// When a file was last written to, UTC in microseconds since 1970; 0 when nobody knows.
pub(super) fn stored_us(path: &Path) -> i64 {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    let since = modified.ok().and_then(|modified| modified.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0)
}

/// Where a complete file is: found by people as well, day by day.
#[must_use]
pub fn kept_name(row: &SegmentRow) -> String {
    let start = jiff::Timestamp::from_microsecond(row.start_us()).unwrap_or_default();
    let start = start.to_zoned(jiff::tz::TimeZone::UTC);
    let boot: String = row.key.boot.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let first = row.runs.first().map_or(0, |run| run.first);
    format!(
        "{KEPT}/{}/{}/{}/{}Z-{boot}-{}-{}-{first}.mp4",
        row.camera,
        row.source,
        start.strftime("%Y-%m-%d"),
        start.strftime("%H%M%S.%3f"),
        row.key.track,
        row.key.epoch,
    )
}

pub(super) fn unreadable(what: &str, error: &impl std::fmt::Display) -> Error {
    Error::Recordings { path: PathBuf::from(what), reason: error.to_string() }
}

//! What goes: files that are too old, and the oldest of a camera that has too much. A file that cannot be removed is told and passed over: it keeps no
//! other one, and is tried again with the next round.
//!
//! What does not belong here: when a round begins (`keeper`), and what the ledger says of frames that went (`ingest`).

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;

use super::archive::{Archive, unreadable};
use super::index::SegmentRow;
use crate::error::{Error, Result};

/// Files that are tried before it is looked again whether something is complete.
const AT_ONCE: u32 = 100;
/// Files that may go before it is written down that they went.
const MOST_REMOVALS: usize = 1_000;
/// With so many that cannot be removed a round ends: each costs the index two writes.
const MOST_STUCK: u32 = 1_000;

/// One look at everything that may have to go.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Files that went.
    pub(super) gone: u64,
    /// Files that could not be removed.
    pub(super) stuck: u32,
    /// Why the first of those could not.
    pub(super) trouble: Option<Error>,
    /// Of the files that are too old, and of those of each camera, so many of the oldest are stuck.
    passed_by_age: u32,
    passed_of: BTreeMap<String, Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    files: u32,
    bytes: u64,
}

impl Round {
    /// What became of a file; true when it went.
    fn note(&mut self, removed: Result<()>) -> bool {
        let is_gone = removed.is_ok();
        self.gone += u64::from(is_gone);
        self.stuck += u32::from(!is_gone);
        self.trouble = self.trouble.take().or(removed.err());
        is_gone
    }
}

impl Archive {
    /// Lets go of some of what is too old, or too much; whether there may be more. A little at a time, because what is complete waits meanwhile. An
    /// error is an index that takes nothing.
    pub(super) async fn let_go(&self, round: &mut Round) -> Result<bool> {
        if self.ingest.as_ref().is_some_and(|ingest| ingest.waiting_removals() >= MOST_REMOVALS) {
            // That something went has to be written down, and cannot be at present.
            return Ok(false);
        }
        let mut tried = 0;
        if self.config.retention_days > 0 {
            let days_us = i64::from(self.config.retention_days) * 86_400 * 1_000_000;
            let before_us = self.utc_us().saturating_sub(days_us);
            for row in self.index().older_than(before_us, round.passed_by_age, AT_ONCE).await? {
                tried += 1;
                let removed = self.remove(&row).await?;
                round.passed_by_age += u32::from(!round.note(removed));
            }
        }
        if self.config.max_bytes_per_camera > 0 && tried < AT_ONCE {
            for (camera, bytes) in self.index().cameras().await? {
                let mut passed = round.passed_of.remove(&camera).unwrap_or_default();
                // What cannot be removed is no reason that newer ones go for it.
                let mut bytes = bytes.saturating_sub(passed.bytes);
                if bytes > self.config.max_bytes_per_camera {
                    for row in self.index().oldest_of(&camera, passed.files, AT_ONCE).await? {
                        if bytes <= self.config.max_bytes_per_camera || tried >= AT_ONCE {
                            break;
                        }
                        tried += 1;
                        bytes = bytes.saturating_sub(row.bytes);
                        let removed = self.remove(&row).await?;
                        if !round.note(removed) {
                            passed.files += 1;
                            passed.bytes += row.bytes;
                        }
                    }
                }
                round.passed_of.insert(camera, passed);
            }
        }
        Ok(tried >= AT_ONCE && round.stuck < MOST_STUCK)
    }

    /// The row first: a file without a row is found at the next start, a row without a file would break a clip. The outer error is the index's, the inner
    /// one that of the file.
    async fn remove(&self, row: &SegmentRow) -> Result<Result<()>> {
        if let Some(ingest) = &self.ingest {
            ingest.removed(row.key.clone(), row.camera.clone(), row.source.clone(), row.runs.clone());
        }
        let kept_us = self.index().remove(&row.name).await?;
        match self.store.delete(&row.name.as_str().into()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Ok(())),
            Err(error) => {
                // What is there is found, counts, and goes when it can; its place in the row is as before.
                self.index().put(row, kept_us.unwrap_or(0)).await?;
                Ok(Err(unreadable(&row.name, &error)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Recordings;
    use crate::event::Events;
    use crate::ingest::TrackKey;
    use crate::ingest::segment::Run;

    const BYTES: u64 = 10;

    /// Files of a camera, oldest first, the first of which is a folder that is not empty: nobody can remove it as a file.
    async fn archive(folder: &Path, files: u64, limits: impl FnOnce(&mut Recordings)) -> Archive {
        let mut config = Recordings { path: Some(folder.to_owned()), ..Recordings::default() };
        limits(&mut config);
        let archive = Archive::open(&config, None, Clock::new(), &Events::new()).await.expect("opens");
        std::fs::create_dir_all(folder.join("recordings/cam")).expect("made");
        for number in 0..files {
            let name = format!("recordings/cam/{number:04}.mp4");
            if number == 0 {
                std::fs::create_dir(folder.join(&name)).expect("made");
                std::fs::write(folder.join(&name).join("letter.txt"), b"dear reader").expect("written");
            } else {
                std::fs::write(folder.join(&name), b"a file").expect("written");
            }
            let at_us = number as i64 + 10;
            let row = SegmentRow {
                name,
                camera: "cam".to_owned(),
                source: "main".to_owned(),
                key: TrackKey { agent: "a".to_owned(), boot: [1; 16], track: 0, epoch: 1 },
                codec: "H.264".to_owned(),
                bytes: BYTES,
                runs: vec![Run { first: number, next: number + 1, start_us: at_us - 1, end_us: at_us }],
            };
            archive.index().put(&row, 0).await.expect("enters");
        }
        archive
    }

    async fn names(archive: &Archive) -> Vec<String> {
        archive.index().all().await.expect("reads").into_iter().map(|row| row.name).collect()
    }

    #[tokio::test]
    async fn one_file_that_cannot_be_removed_slows_no_other_down() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let archive = archive(folder.path(), 251, |config| config.retention_days = 1).await;
        for _ in 0..2 {
            let mut round = Round::default();
            while archive.let_go(&mut round).await.expect("the index is well") {}
            let trouble = round.trouble.expect("told").to_string();
            assert!(round.stuck == 1 && trouble.contains("0000.mp4"), "{} {trouble}", round.stuck);
            assert_eq!(names(&archive).await, ["recordings/cam/0000.mp4"]);
        }
        let left = std::fs::read_dir(folder.path().join("recordings/cam")).expect("there").count();
        assert_eq!(left, 1);
        std::fs::remove_dir_all(folder.path().join("recordings/cam/0000.mp4")).expect("there");
        std::fs::write(folder.path().join("recordings/cam/0000.mp4"), b"a file").expect("written");
        let mut round = Round::default();
        assert!(!archive.let_go(&mut round).await.expect("the index is well"));
        assert_eq!((round.gone, round.stuck, names(&archive).await.len()), (1, 0, 0), "it is tried again");
    }

    #[tokio::test]
    async fn newer_files_do_not_go_for_one_that_cannot_be_removed() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let limits = |config: &mut Recordings| (config.retention_days, config.max_bytes_per_camera) = (0, 20 * BYTES);
        let archive = archive(folder.path(), 251, limits).await;
        for gone in [230, 0] {
            let mut round = Round::default();
            while archive.let_go(&mut round).await.expect("the index is well") {}
            assert_eq!((round.gone, round.stuck), (gone, 1));
            let left = names(&archive).await;
            assert_eq!(
                (left.len(), left[0].as_str(), left[1].as_str()),
                (21, "recordings/cam/0000.mp4", "recordings/cam/0231.mp4")
            );
        }
    }
}

//! Verifies the invariants of a folder of recordings, as `sdk-docs/reference/recordings.md` numbers them, and mends what can be
//! mended: rows are made from files, and what is no recorded file is moved aside. No file with frames is ever removed.

use std::collections::BTreeMap;
use std::path::Path;

use super::archive::{KEPT, kept_name};
use super::index::{Index, Opened, SegmentRow};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ingest::disk::{Disk, Folder};
use crate::ingest::ranges::Ranges;
use crate::ingest::segment::{Unusable, scan};
use crate::ingest::{OPEN, SET_ASIDE, TrackKey};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that are right.
    pub files: usize,
    /// Frames in them.
    pub frames: u64,
    /// One line for each invariant that does not hold, with its number.
    pub problems: Vec<String>,
    /// How many of them were mended.
    pub mended: usize,
}

/// Checks a folder. With `repair` nobody else may use it.
pub async fn check(folder: &Path, repair: bool, clock: Clock) -> Result<Report> {
    let unusable =
        |error: &dyn std::fmt::Display| Error::Recordings { path: folder.to_owned(), reason: error.to_string() };
    if !folder.join("store").exists() {
        return Err(unusable(&"there are no recordings in it"));
    }
    let _lock = if repair { Some(super::archive::lock(folder)?) } else { None };
    let mut disk = Folder::open(folder).map_err(|error| unusable(&error))?;
    let mut report = Report::default();
    let (index, was_replaced) = match Index::open(folder, clock.utc_us()).await? {
        Opened::Found(index) => (index, None),
        Opened::New(index) => (index, Some("there was no index".to_owned())),
        Opened::Replaced(index, moved, reason) => {
            (index, Some(format!("the index could not be used ({reason}) and is at {}", moved.display())))
        }
    };
    let mut rows: BTreeMap<String, SegmentRow> =
        index.all().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
    if let Some(problem) = was_replaced {
        report.problems.push(format!("2: {problem}"));
        report.mended += usize::from(repair);
    }
    let mut seen: BTreeMap<TrackKey, Ranges> = BTreeMap::new();
    for name in disk.list(KEPT).map_err(|error| unusable(&error))? {
        let data = disk.read(&name).map_err(|error| unusable(&error))?;
        let info = match scan(&data, |_, _, _| {}) {
            Ok(info) => info,
            Err(reason) => {
                report.problems.push(format!("4: {name}: {reason}"));
                if repair && !matches!(reason, Unusable::Newer(_)) {
                    let last = name.rsplit('/').next().unwrap_or(&name);
                    let aside = format!("{SET_ASIDE}/{}-{last}", clock.utc_us());
                    disk.rename(&name, &aside).map_err(|error| unusable(&error))?;
                    if rows.remove(&name).is_some() {
                        index.remove(&name).await?;
                    }
                    report.mended += 1;
                }
                continue;
            }
        };
        report.files += 1;
        let known = seen.entry(info.head.key.clone()).or_default();
        for run in &info.runs {
            report.frames += run.next - run.first;
            let twice = (run.first..run.next).find(|sequence| known.contains(*sequence));
            if let Some(sequence) = twice {
                report.problems.push(format!("3: {name}: frame {sequence} is in another file as well"));
            }
            known.insert(run.first, run.next);
        }
        let row = SegmentRow::new(name.clone(), &info);
        match rows.remove(&name) {
            Some(own) if own == row && data.len() as u64 == row.bytes => continue,
            Some(own) if own.bytes > row.bytes => {
                report.problems.push(format!("1: {name}: the index says {} bytes, {} are whole", own.bytes, row.bytes))
            }
            Some(_) => report.problems.push(format!("2: {name}: the index says something else than the file")),
            None => report.problems.push(format!("2: {name}: it is not in the index")),
        }
        if repair {
            index.put(&row).await?;
            report.mended += 1;
        }
    }
    // A file that is about to be moved has its row already.
    let waiting = open_files(&mut disk).map_err(|error| unusable(&error))?;
    for name in rows.into_keys().filter(|name| !waiting.iter().any(|(_, row)| kept_name(row) == *name)) {
        report.problems.push(format!("1: {name}: the file is gone, its row is not"));
        if repair {
            index.remove(&name).await?;
            report.mended += 1;
        }
    }
    if repair {
        mend_open(&mut disk, &index, &mut report).await?;
    }
    index.close().await;
    Ok(report)
}

/// Files that are open, or that a crash left so, as far as they are whole.
fn open_files(disk: &mut Folder) -> std::io::Result<Vec<(String, SegmentRow)>> {
    let mut files = Vec::new();
    for name in disk.list(OPEN)? {
        let data = disk.read(&name)?;
        if let Ok(info) = scan(&data, |_, _, _| {}) {
            files.push((name.clone(), SegmentRow::new(name, &info)));
        }
    }
    Ok(files)
}

/// Files that a crash left open: whole parts are kept as a start of the server would keep them.
async fn mend_open(disk: &mut Folder, index: &Index, report: &mut Report) -> Result<()> {
    let broken = |error: std::io::Error| Error::Recordings { path: OPEN.into(), reason: error.to_string() };
    for (name, row) in open_files(disk).map_err(broken)? {
        disk.truncate(&name, row.bytes).map_err(broken)?;
        let kept = kept_name(&row);
        report.files += 1;
        report.frames += row.runs.iter().map(|run| run.next - run.first).sum::<u64>();
        index.put(&SegmentRow { name: kept.clone(), ..row }).await?;
        disk.rename(&name, &kept).map_err(broken)?;
    }
    Ok(())
}

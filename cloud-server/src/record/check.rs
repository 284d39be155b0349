//! Verifies the invariants of a folder of recordings, as `sdk-docs/reference/recordings.md` numbers them, and mends what can be
//! mended: rows and the log of what is persisted are made from files, what is gone is entered into the ledger, and what is no recorded file is
//! moved aside. No file with frames is ever removed, and what a later version wrote is left alone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use super::archive::{KEPT, kept_name, stored_us};
use super::index::{Index, Opened, SegmentRow};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ingest::disk::{Disk, Folder};
use crate::ingest::log::{self, Contents, Known, Log};
use crate::ingest::ranges::Ranges;
use crate::ingest::segment::{Unusable, scan};
use crate::ingest::{Gap, GapReason, OPEN, SET_ASIDE, SegmentInfo, TrackKey};

/// What a log need not know any more.
const OLD_US: i64 = 90 * 86_400 * 1_000_000;

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
    // A server that records there writes to the log while the files are looked at.
    let is_live = !repair && super::archive::is_used(folder);
    let mut disk = Folder::open(folder).map_err(|error| unusable(&error))?;
    let persisted = log::read(&mut disk).map_err(|error| unusable(&error))?;
    let mut report = Report::default();
    // Who only looks makes nothing and moves nothing.
    let (index, was_replaced) = match repair {
        false => match Index::look(folder).await {
            Ok(Some(index)) => (Some(index), None),
            Ok(None) => (None, Some("there is no index".to_owned())),
            Err(error) => (None, Some(format!("the index could not be used: {error}"))),
        },
        true => match Index::open(folder, clock.utc_us()).await? {
            Opened::Found(index) => (Some(index), None),
            Opened::New(index) => (Some(index), Some("there was no index".to_owned())),
            Opened::Replaced(index, moved, reason) => {
                (Some(index), Some(format!("the index could not be used ({reason}) and is at {}", moved.display())))
            }
        },
    };
    let mut rows: BTreeMap<String, SegmentRow> = match &index {
        Some(index) => index.all().await?.into_iter().map(|row| (row.name.clone(), row)).collect(),
        None => BTreeMap::new(),
    };
    let mend = index.as_ref().filter(|_| repair);
    if let Some(problem) = was_replaced {
        report.problems.push(format!("2: {problem}"));
        report.mended += usize::from(repair);
    }
    let mut seen: BTreeMap<TrackKey, Seen> = BTreeMap::new();
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
                    if let Some(index) = mend.filter(|_| rows.remove(&name).is_some()) {
                        index.remove(&name).await?;
                    }
                    report.mended += 1;
                }
                continue;
            }
        };
        report.files += 1;
        for sequence in Seen::add(&mut seen, &info) {
            report.problems.push(format!("3: {name}: frame {sequence} is in another file as well"));
        }
        report.frames += info.runs.iter().map(|run| run.next - run.first).sum::<u64>();
        let row = SegmentRow::new(name.clone(), &info);
        match rows.remove(&name) {
            Some(own) if own == row && data.len() as u64 == row.bytes => continue,
            Some(own) if own.bytes > row.bytes => {
                report.problems.push(format!("1: {name}: the index says {} bytes, {} are whole", own.bytes, row.bytes))
            }
            Some(own) if own == row => {
                let behind = data.len() as u64 - row.bytes;
                report.problems.push(format!("2: {name}: {behind} bytes stand behind its last whole part"));
            }
            Some(_) => report.problems.push(format!("2: {name}: the index says something else than the file")),
            None => report.problems.push(format!("2: {name}: it is not in the index")),
        }
        if let Some(index) = mend {
            let stored_us = stored_us(&folder.join(&name));
            set_tail_aside(&mut disk, &name, &data, row.bytes, clock.utc_us()).map_err(|error| unusable(&error))?;
            index.put(&row, stored_us).await?;
            report.mended += 1;
        }
    }
    // A file that is about to be moved has its row already.
    let waiting = open_files(&mut disk).map_err(|error| unusable(&error))?;
    for name in rows.into_keys().filter(|name| !waiting.iter().any(|(_, row)| kept_name(row) == *name)) {
        report.problems.push(format!("1: {name}: the file is gone, its row is not"));
        if let Some(index) = mend {
            index.remove(&name).await?;
            report.mended += 1;
        }
    }
    for name in disk.list(OPEN).map_err(|error| unusable(&error))? {
        if let Ok(info) = scan(&disk.read(&name).map_err(|error| unusable(&error))?, |_, _, _| {}) {
            Seen::add(&mut seen, &info);
        }
    }
    let now_us = clock.utc_us();
    check_log(&mut disk, persisted, &seen, is_live, repair, now_us, &mut report).map_err(|error| unusable(&error))?;
    if let Some(index) = mend {
        mend_open(&mut disk, index, &mut report).await?;
        index.complete().await?;
    }
    if let Some(index) = index {
        index.close().await;
    }
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

/// What stands behind the last whole part goes into a file of its own: nobody knows what it is.
fn set_tail_aside(disk: &mut Folder, name: &str, data: &[u8], whole: u64, now_us: i64) -> std::io::Result<()> {
    let tail = usize::try_from(whole).ok().and_then(|whole| data.get(whole..)).unwrap_or_default();
    if tail.is_empty() {
        return Ok(());
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    let mut file = disk.create(&format!("{SET_ASIDE}/{now_us}-{last}.tail"))?;
    disk.append(&mut file, tail)?;
    disk.sync(&mut file)?;
    disk.sync_folder(SET_ASIDE)?;
    disk.truncate(name, whole)
}

/// Frames of a track that are in files.
struct Seen {
    frames: Ranges,
    camera: String,
    source: String,
    end_us: i64,
}

impl Seen {
    /// Adds a file; gives frames that are in another one.
    fn add(seen: &mut BTreeMap<TrackKey, Self>, info: &SegmentInfo) -> Vec<u64> {
        let head = &info.head;
        let own = seen.entry(head.key.clone()).or_insert_with(|| Self {
            frames: Ranges::default(),
            camera: head.camera.clone(),
            source: head.source.clone(),
            end_us: 0,
        });
        let mut twice = Vec::new();
        for run in &info.runs {
            twice.extend((run.first..run.next).find(|sequence| own.frames.contains(*sequence)));
            own.frames.insert(run.first, run.next);
        }
        own.end_us = own.end_us.max(info.end_us());
        twice
    }
}

/// Compares the files with the log of what is persisted.
fn check_log(
    disk: &mut Folder,
    persisted: log::Opened,
    seen: &BTreeMap<TrackKey, Seen>,
    is_live: bool,
    repair: bool,
    now_us: i64,
    report: &mut Report,
) -> std::io::Result<()> {
    let before = report.problems.len();
    let mut is_aside = false;
    let mut contents = match persisted {
        log::Opened::Read(contents) => contents,
        log::Opened::Missing if seen.is_empty() => return Ok(()),
        log::Opened::Missing => {
            report.problems.push(format!("5: {} is missing", log::NAME));
            Contents::default()
        }
        log::Opened::Damaged(contents) => {
            report.problems.push(format!("5: {} is damaged, and cannot be read to its end", log::NAME));
            is_aside = true;
            contents
        }
        log::Opened::Foreign => {
            report.problems.push(format!("5: {} is something else", log::NAME));
            is_aside = true;
            Contents::default()
        }
        log::Opened::Newer(version) => {
            report
                .problems
                .push(format!("5: a later version wrote {} (layout {version}); it is left alone", log::NAME));
            return Ok(());
        }
    };
    // A log that cannot be read says nothing about frames.
    let is_whole = report.problems.len() == before;
    for (key, own) in seen.iter().filter(|_| !is_live) {
        let known = match contents.tracks.entry(key.clone()) {
            // Forgotten, as it should be.
            Entry::Vacant(_) if is_whole && own.end_us < now_us.saturating_sub(OLD_US) => continue,
            Entry::Vacant(vacant) => vacant.insert(Known {
                camera: own.camera.clone(),
                source: own.source.clone(),
                seen_us: own.end_us,
                ..Known::default()
            }),
            Entry::Occupied(known) => known.into_mut(),
        };
        for (first, end) in own.frames.iter() {
            for (first, next) in known.persisted.missing(first, end) {
                known.persisted.insert(first, next);
                if is_whole {
                    let what = format!("{}/{} track {}", own.camera, own.source, key.track);
                    report.problems.push(format!(
                        "6: {what}: frames {first} to {} are recorded, and not in {}",
                        next - 1,
                        log::NAME
                    ));
                }
            }
        }
    }
    let mut gone = Vec::new();
    for (key, known) in contents.tracks.iter().filter(|_| !contents.ledger.is_full()) {
        let gaps = contents.ledger.of_track(key);
        // What was before that went with its reasons.
        let removed = gaps.iter().filter(|gap| gap.reason == GapReason::REMOVED).map(|gap| gap.next).max().unwrap_or(0);
        let mut explained = seen.get(key).map(|own| own.frames.clone()).unwrap_or_default();
        explained.insert(0, removed);
        gaps.iter().for_each(|gap| explained.insert(gap.first, gap.next));
        for (first, end) in known.persisted.iter() {
            gone.extend(explained.missing(first, end).into_iter().map(|(first, next)| Gap {
                key: key.clone(),
                camera: known.camera.clone(),
                source: known.source.clone(),
                first,
                next,
                reason: GapReason::FILE_LOST,
                from_us: known.seen_us,
                to_us: known.seen_us,
            }));
        }
    }
    for gap in gone {
        let what = format!("{}/{} track {}", gap.camera, gap.source, gap.key.track);
        let (first, last) = (gap.first, gap.next - 1);
        report.problems.push(format!("5: {what}: frames {first} to {last} are persisted, and in no file"));
        contents.ledger.put(&gap);
    }
    let found = report.problems.len() - before;
    if repair && found > 0 {
        if is_aside {
            log::set_aside(disk, &format!("{SET_ASIDE}/{now_us}-{}", log::NAME))?;
        }
        Log::begin(disk, &contents)?;
        report.mended += found;
    }
    Ok(())
}

/// Files that a crash left open: whole parts are kept as a start of the server would keep them.
async fn mend_open(disk: &mut Folder, index: &Index, report: &mut Report) -> Result<()> {
    let broken = |error: std::io::Error| Error::Recordings { path: OPEN.into(), reason: error.to_string() };
    for (name, row) in open_files(disk).map_err(broken)? {
        let stored_us = stored_us(&disk.path(&name));
        disk.truncate(&name, row.bytes).map_err(broken)?;
        let kept = kept_name(&row);
        report.files += 1;
        report.frames += row.runs.iter().map(|run| run.next - run.first).sum::<u64>();
        index.put(&SegmentRow { name: kept.clone(), ..row }, stored_us).await?;
        disk.rename(&name, &kept).map_err(broken)?;
    }
    Ok(())
}

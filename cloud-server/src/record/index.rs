//! The index of recorded files: which camera, source and time each holds. A row is written when its file is safe and removed
//! before its file goes, so that no row leads to nothing. All that is in it can be read from the files again: a damaged index,
//! or one of a later version, is moved aside and made anew.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use crate::error::{Error, Result};
use crate::ingest::{Run, SegmentInfo, TrackKey};

/// The name of the file in the folder of recordings.
pub const NAME: &str = "index.sqlite";
/// SQLite's application_id, once every file is entered: an index that is being made anew is not to be relied on.
const COMPLETE: i64 = 1_667_329_329;
/// The layout: SQLite's user_version.
const VERSION: i64 = 3;

const SCHEMA: &str = "
CREATE TABLE segments (
    name     TEXT PRIMARY KEY NOT NULL, -- in the object store
    camera   TEXT NOT NULL,
    source   TEXT NOT NULL,
    agent    TEXT NOT NULL,
    boot     BLOB NOT NULL,
    track    INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    codec    TEXT NOT NULL,
    start_us INTEGER NOT NULL,          -- UTC, microseconds since 1970
    end_us   INTEGER NOT NULL,
    kept_us  INTEGER NOT NULL,          -- UTC that its age counts from: its end, or when it was stored if that is later
    bytes    INTEGER NOT NULL,
    runs     TEXT NOT NULL              -- JSON: [[first, next, start_us, end_us]]
) STRICT;
CREATE INDEX segments_by_time ON segments (camera, source, end_us);
CREATE INDEX segments_by_age ON segments (kept_us);
";

/// A query for whole rows.
macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT name, camera, source, agent, boot, track, epoch, codec, bytes, runs FROM segments ", $rest)
    };
}

/// The index.
#[derive(Clone, Debug)]
pub struct Index {
    pool: SqlitePool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentRow {
    /// Its name in the object store.
    pub name: String,
    /// The camera.
    pub camera: String,
    /// The source.
    pub source: String,
    /// What its numbers count in.
    pub key: TrackKey,
    /// The codec's name.
    pub codec: String,
    /// Bytes that count.
    pub bytes: u64,
    /// What it holds.
    pub runs: Vec<Run>,
}

impl SegmentRow {
    /// The row of a file.
    #[must_use]
    pub fn new(name: String, info: &SegmentInfo) -> Self {
        Self {
            name,
            camera: info.head.camera.clone(),
            source: info.head.source.clone(),
            key: info.head.key.clone(),
            codec: info.parameters.codec().name().to_owned(),
            bytes: info.bytes,
            runs: info.runs.clone(),
        }
    }

    /// UTC of the beginning.
    #[must_use]
    pub fn start_us(&self) -> i64 {
        self.runs.iter().map(|run| run.start_us).min().unwrap_or_default()
    }

    /// UTC of the end.
    #[must_use]
    pub fn end_us(&self) -> i64 {
        self.runs.iter().map(|run| run.end_us).max().unwrap_or_default()
    }
}

/// What came of opening it.
#[derive(Debug)]
pub enum Opened {
    /// It was there.
    Found(Index),
    /// It is new, or was never filled: the files are to be entered, and [`Index::complete`] says when they are.
    New(Index),
    /// The old one could not be used and is where the path says; this one is new.
    Replaced(Index, PathBuf, String),
}

impl Index {
    /// Opens the index of a folder.
    pub async fn open(folder: &Path, now_us: i64) -> Result<Opened> {
        let path = folder.join(NAME);
        let existed = path.exists();
        match Self::connect(&path).await {
            Ok(index) if existed && index.is_complete().await? => Ok(Opened::Found(index)),
            Ok(index) => Ok(Opened::New(index)),
            Err(reason) => {
                let aside = folder.join("set-aside");
                let unusable =
                    |error: std::io::Error| Error::Recordings { path: path.clone(), reason: error.to_string() };
                std::fs::create_dir_all(&aside).map_err(unusable)?;
                let moved = aside.join(format!("{now_us}-{NAME}"));
                std::fs::rename(&path, &moved).map_err(unusable)?;
                for suffix in ["-wal", "-shm"] {
                    let own = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
                    // They are there after a crash only.
                    let _ = std::fs::rename(own(&path), own(&moved));
                }
                let index = Self::connect(&path).await.map_err(|reason| Error::Recordings { path, reason })?;
                Ok(Opened::Replaced(index, moved, reason))
            }
        }
    }

    /// Opens the index for whoever only looks: nothing is made and nothing is moved. None where there is none.
    pub async fn look(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(NAME);
        if !path.exists() {
            return Ok(None);
        }
        let options = SqliteConnectOptions::new().filename(&path).read_only(true).busy_timeout(Duration::from_secs(5));
        let opened = async {
            let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
            let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&pool).await?.try_get(0)?;
            Ok::<_, sqlx::Error>((pool, version))
        };
        let reason = match opened.await {
            Ok((pool, VERSION)) => return Ok(Some(Self { pool })),
            Ok((_, version)) => format!("it has layout {version}, known is {VERSION}"),
            Err(error) => error.to_string(),
        };
        Err(Error::Recordings { path, reason })
    }

    async fn connect(path: &Path) -> Result<Self, String> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let pool =
            SqlitePoolOptions::new().max_connections(4).connect_with(options).await.map_err(|e| e.to_string())?;
        let prepared = async {
            let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&pool).await?.try_get(0)?;
            let tables: i64 = sqlx::query("SELECT count(*) FROM sqlite_master").fetch_one(&pool).await?.try_get(0)?;
            if version == 0 && tables == 0 {
                let mut transaction = pool.begin().await?;
                sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
                sqlx::query("PRAGMA user_version = 3").execute(&mut *transaction).await?;
                transaction.commit().await?;
                return Ok(VERSION);
            }
            // Reading finds most kinds of damage.
            sqlx::query("SELECT count(*), max(end_us) FROM segments").fetch_one(&pool).await?;
            Ok::<i64, sqlx::Error>(version)
        };
        let verdict = match prepared.await {
            Ok(VERSION) => return Ok(Self { pool }),
            Ok(version) => format!("it has layout {version}, known is {VERSION}"),
            Err(error) => error.to_string(),
        };
        pool.close().await;
        Err(verdict)
    }

    /// Whether every file was entered.
    pub async fn is_complete(&self) -> Result<bool> {
        let row = sqlx::query("PRAGMA application_id").fetch_one(&self.pool).await?;
        Ok(row.try_get::<i64, _>(0)? == COMPLETE)
    }

    /// Every file is entered.
    pub async fn complete(&self) -> Result<()> {
        sqlx::query("PRAGMA application_id = 1667329329").execute(&self.pool).await?;
        Ok(())
    }

    /// Enters a file that was stored at a time; one of the same name is replaced. Its age counts from then when its frames are older: a camera without
    /// a clock dates them years back.
    pub async fn put(&self, row: &SegmentRow, stored_us: i64) -> Result<()> {
        let runs: Vec<_> = row.runs.iter().map(|run| (run.first, run.next, run.start_us, run.end_us)).collect();
        sqlx::query(
            "INSERT OR REPLACE INTO segments (name, camera, source, agent, boot, track, epoch, codec, start_us, end_us, kept_us, bytes, runs) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&row.name)
        .bind(&row.camera)
        .bind(&row.source)
        .bind(&row.key.agent)
        .bind(&row.key.boot[..])
        .bind(row.key.track)
        .bind(signed(row.key.epoch))
        .bind(&row.codec)
        .bind(row.start_us())
        .bind(row.end_us())
        .bind(row.end_us().max(stored_us))
        .bind(signed(row.bytes))
        .bind(serde_json::to_string(&runs).unwrap_or_default())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Files of a source that touch a time, oldest first.
    pub async fn find(&self, camera: &str, source: &str, from_us: i64, to_us: i64) -> Result<Vec<SegmentRow>> {
        let rows = sqlx::query(select!(
            "WHERE camera = ? AND source = ? AND end_us > ? AND start_us < ? ORDER BY start_us, name"
        ))
        .bind(camera)
        .bind(source)
        .bind(from_us)
        .bind(to_us)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// All files, by name.
    pub async fn all(&self) -> Result<Vec<SegmentRow>> {
        let rows = sqlx::query(select!("ORDER BY name")).fetch_all(&self.pool).await?;
        rows.iter().map(read).collect()
    }

    /// The names of the files in a folder, without those in folders below it.
    pub async fn names_in(&self, folder: &str) -> Result<HashSet<String>> {
        let rows = sqlx::query(
            "SELECT name FROM segments WHERE name > ?1 || '/' AND name < ?1 || '0' AND instr(substr(name, length(?1) + 2), '/') = 0",
        )
        .bind(folder)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Files that ended and were stored before a time, oldest first, at most so many; the oldest `passed` of them are left out.
    pub async fn older_than(&self, utc_us: i64, passed: u32, most: u32) -> Result<Vec<SegmentRow>> {
        let rows = sqlx::query(select!("WHERE kept_us < ? ORDER BY kept_us, name LIMIT ? OFFSET ?"))
            .bind(utc_us)
            .bind(most)
            .bind(passed)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The oldest files of a camera, without the first `passed` of them.
    pub async fn oldest_of(&self, camera: &str, passed: u32, most: u32) -> Result<Vec<SegmentRow>> {
        let rows = sqlx::query(select!("WHERE camera = ? ORDER BY kept_us, name LIMIT ? OFFSET ?"))
            .bind(camera)
            .bind(most)
            .bind(passed)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Cameras, with the bytes of their files.
    pub async fn cameras(&self) -> Result<Vec<(String, u64)>> {
        let rows = sqlx::query("SELECT camera, sum(bytes) FROM segments GROUP BY camera").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)))).collect()
    }

    /// Removes a row; gives the UTC that its file's age counted from, if there was one.
    pub async fn remove(&self, name: &str) -> Result<Option<i64>> {
        let row = sqlx::query("DELETE FROM segments WHERE name = ? RETURNING kept_us")
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// The file of a source's pictures, or of its sound, that ends last at or before a time.
    pub async fn last_before(
        &self,
        camera: &str,
        source: &str,
        video: bool,
        utc_us: i64,
    ) -> Result<Option<SegmentRow>> {
        let row = sqlx::query(select!(
            "WHERE camera = ? AND source = ? AND end_us <= ? AND (codec IN ('H.264', 'H.265')) = ? ORDER BY end_us DESC LIMIT 1"
        ))
        .bind(camera)
        .bind(source)
        .bind(utc_us)
        .bind(video)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// The one that begins first at or after a time.
    pub async fn first_after(
        &self,
        camera: &str,
        source: &str,
        video: bool,
        utc_us: i64,
    ) -> Result<Option<SegmentRow>> {
        let row = sqlx::query(select!(
            "WHERE camera = ? AND source = ? AND end_us > ?3 AND start_us >= ?3 AND (codec IN ('H.264', 'H.265')) = ?4 \
             ORDER BY end_us LIMIT 1"
        ))
        .bind(camera)
        .bind(source)
        .bind(utc_us)
        .bind(video)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// Bytes of all files, how many they are, and the beginning of the oldest, UTC in microseconds since 1970.
    pub async fn totals(&self) -> Result<(u64, u64, Option<i64>)> {
        let row = sqlx::query("SELECT coalesce(sum(bytes), 0), count(*), min(start_us) FROM segments")
            .fetch_one(&self.pool)
            .await?;
        Ok((unsigned(row.try_get(0)?), unsigned(row.try_get(1)?), row.try_get(2)?))
    }

    /// Closes it; the write-ahead log is folded in.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<SegmentRow> {
    let boot: Vec<u8> = row.try_get(4)?;
    let runs: String = row.try_get(9)?;
    // Written by this file; what an editor made of it is found by the check.
    let runs: Vec<(u64, u64, i64, i64)> = serde_json::from_str(&runs).unwrap_or_default();
    Ok(SegmentRow {
        name: row.try_get(0)?,
        camera: row.try_get(1)?,
        source: row.try_get(2)?,
        key: TrackKey {
            agent: row.try_get(3)?,
            boot: boot.try_into().unwrap_or_default(),
            track: row.try_get(5)?,
            epoch: unsigned(row.try_get(6)?),
        },
        codec: row.try_get(7)?,
        bytes: unsigned(row.try_get(8)?),
        runs: runs.into_iter().map(|(first, next, start_us, end_us)| Run { first, next, start_us, end_us }).collect(),
    })
}

/// Numbers of the wire stay below 2^62.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;

    fn row(name: &str, end_us: i64) -> SegmentRow {
        SegmentRow {
            name: name.to_owned(),
            camera: "cam".to_owned(),
            source: "main".to_owned(),
            key: TrackKey { agent: "a".to_owned(), boot: [1; 16], track: 0, epoch: 1 },
            codec: "H.264".to_owned(),
            bytes: 7,
            runs: vec![Run { first: 0, next: 9, start_us: end_us - 1, end_us }],
        }
    }

    #[tokio::test]
    async fn what_is_dated_years_back_is_as_old_as_its_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let Ok(Opened::New(index)) = Index::open(folder.path(), 1).await else { panic!("a new one") };
        index.put(&row("of-1970", 3), 100 * DAY).await.expect("enters");
        index.put(&row("sent-again", 60 * DAY), 100 * DAY).await.expect("enters");
        index.put(&row("old", 60 * DAY), 60 * DAY).await.expect("enters");
        let names = |rows: Vec<SegmentRow>| rows.into_iter().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(index.older_than(99 * DAY, 0, 9).await.expect("reads")), ["old"]);
        assert_eq!(index.older_than(101 * DAY, 0, 9).await.expect("reads").len(), 3);
        assert_eq!(names(index.oldest_of("cam", 0, 1).await.expect("reads")), ["old"]);
        index.close().await;
    }

    #[tokio::test]
    async fn who_looks_makes_nothing_and_moves_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert!(Index::look(folder.path()).await.expect("looks").is_none());
        assert!(!folder.path().join(NAME).exists());
        std::fs::write(folder.path().join(NAME), b"no database at all, and longer than nothing").expect("writes");
        assert!(Index::look(folder.path()).await.is_err());
        assert!(folder.path().join(NAME).exists() && !folder.path().join("set-aside").exists());
        std::fs::remove_file(folder.path().join(NAME)).expect("there");
        let Ok(Opened::New(index)) = Index::open(folder.path(), 1).await else { panic!("a new one") };
        index.put(&row("one", 9), 9).await.expect("enters");
        // Beside a server, and after it.
        for _ in 0..2 {
            let looking = Index::look(folder.path()).await.expect("looks").expect("there");
            assert_eq!(looking.all().await.expect("reads").len(), 1);
            assert!(looking.remove("one").await.is_err());
            looking.close().await;
            index.close().await;
        }
    }
}

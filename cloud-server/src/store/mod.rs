//! The database behind functions: SQLite in the data folder, write-ahead log, schema embedded in the program.
//! The command line writes into the same file while a server runs, so nothing read here is remembered.

mod agents;
mod cameras;
mod data;
mod tokens;
mod tunnels;
mod viewers;

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub use agents::AgentRow;
pub use cameras::CameraRow;
pub use data::DataRow;
pub use tokens::TokenRow;
pub use tunnels::{SourcePath, TunnelRow, TunnelState};
pub use viewers::ViewerRow;

use crate::error::{Error, Result};

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// The file in the data folder.
const NAME: &str = "camagent.sqlite";
/// Connections of one process: reading needs few, writing is one at a time anyway.
const CONNECTIONS: u32 = 4;

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens (and creates) the database in `data_dir`, and the folder itself.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        let unusable = |reason: String| Error::DataDir { path: data_dir.to_owned(), reason };
        std::fs::create_dir_all(data_dir).map_err(|error| unusable(error.to_string()))?;
        let path = data_dir.join(NAME);
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(|error| damaged(&path, &error).unwrap_or_else(|| unusable(error.to_string())))?;
        match prepare(&pool, &path).await {
            Ok(()) => Ok(Self { pool }),
            Err(error) => {
                pool.close().await;
                Err(error)
            }
        }
    }

    /// Closes all connections; the write-ahead log is folded into the database.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Makes every write of this process fail from now on, as a full disk does. For tests of that very case.
    #[doc(hidden)]
    pub async fn simulate_full_disk(&self) -> Result<()> {
        // All connections at once, so that none is left out.
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut connection = self.pool.acquire().await?;
            sqlx::query("PRAGMA query_only = 1").execute(&mut *connection).await?;
            held.push(connection);
        }
        Ok(())
    }

    /// Nobody else writes until the value is dropped, as beside somebody who writes for long. For tests of that very case.
    #[doc(hidden)]
    pub async fn hold_writes(&self) -> Result<impl Sized + use<>> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Brings the schema up to date, in a database that is whole.
async fn prepare(pool: &SqlitePool, path: &Path) -> Result<()> {
    let checked = sqlx::query_scalar::<_, String>("PRAGMA quick_check(1)").fetch_one(pool).await;
    match checked {
        Ok(verdict) if verdict == "ok" => {}
        Ok(verdict) => return Err(is_damaged(path, &verdict)),
        Err(error) => return Err(damaged(path, &error).unwrap_or(Error::Store(error))),
    }
    migrator().run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => Error::Database {
            path: path.to_owned(),
            reason: "a later version of camagent-cloud wrote it; start that version, or put back the copy that was made before the update"
                .to_owned(),
        },
        MigrateError::VersionMismatch(version) => Error::Database {
            path: path.to_owned(),
            reason: format!(
                "its part {version} was made by something else than a release of camagent-cloud; put back a copy that one made"
            ),
        },
        MigrateError::Execute(error) => damaged(path, &error).unwrap_or(Error::Store(error)),
        error => Error::Schema(error),
    })
}

/// An error that says that the file is damaged, or is no database.
fn damaged(path: &Path, error: &sqlx::Error) -> Option<Error> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    // SQLITE_CORRUPT and SQLITE_NOTADB; the higher octets tell where it was found.
    matches!(code & 0xff, 11 | 26).then(|| is_damaged(path, &error.to_string()))
}

fn is_damaged(path: &Path, verdict: &str) -> Error {
    let reason = format!(
        "it is damaged, or no database ({}); put back a copy of it, or move it away with its -wal and -shm files and add agents, tokens \
         and viewers again",
        verdict.trim()
    );
    Error::Database { path: path.to_owned(), reason }
}

fn migrator() -> Migrator {
    let migration = |version, name: &'static str, sql: &'static str| {
        let sql = sqlx::SqlSafeStr::into_sql_str(sql);
        Migration::new(version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    };
    let migrations = vec![
        migration(1, "agents and tokens", include_str!("../../migrations/0001_agents_and_tokens.sql")),
        migration(2, "tunnels and viewers", include_str!("../../migrations/0002_tunnels_and_viewers.sql")),
        migration(3, "data use", include_str!("../../migrations/0003_data_use.sql")),
    ];
    Migrator { migrations: Cow::Owned(migrations), ..Migrator::DEFAULT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_process_sees_what_the_first_wrote() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let server = Store::open(folder.path()).await.expect("opens");
        let command_line = Store::open(folder.path()).await.expect("opens beside");
        command_line.add_agent("cam-1", &[7; 32], 1).await.expect("adds");
        assert!(server.agent_has_token("cam-1", &[7; 32]).await.expect("reads"));
        command_line.remove_agent("cam-1").await.expect("removes");
        assert!(!server.agent_has_token("cam-1", &[7; 32]).await.expect("reads"));
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_is_named() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let error = Store::open(&file.path().join("data")).await.expect_err("a file is no folder");
        assert!(error.to_string().contains("storage.data_dir"), "{error}");
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_of_the_write_and_reading_goes_on() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::open(folder.path()).await.expect("opens");
        store.add_agent("cam-1", &[7; 32], 1).await.expect("adds");
        store.simulate_full_disk().await.expect("limits");
        assert!(store.note_agent_seen("cam-1", 2).await.is_err());
        assert!(store.agent_has_token("cam-1", &[7; 32]).await.expect("reads"));
    }
}

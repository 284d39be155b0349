//! The crate's one error: what can keep the server from starting or a command line call from working.
//! Sorted by who can act. Trouble of one agent or one viewer is no error here but an [`crate::event::Event`].

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the server does not start or a command fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration names something that cannot be; the text names file, key, value and what is allowed.
    #[error("{0}")]
    Config(String),
    /// The caller asked for something that does not fit what is there (an agent id that exists, a token that does not).
    #[error("{0}")]
    Refused(String),
    /// A listener's address cannot be had.
    #[error("the {listener} listener cannot use {address}: {reason}; change {key}")]
    Listen {
        /// Which listener: "HTTP", "TLS" or "RTSP".
        listener: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// The key of the configuration (and the option) that moves it.
        key: &'static str,
        /// What the system says, in words.
        reason: String,
    },
    /// The data folder cannot be used.
    #[error("the data folder {} cannot be used: {reason}; change storage.data_dir or --data-dir", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The database is damaged, is none, or a later version wrote it.
    #[error("the database {} cannot be used: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A folder of recordings, or something in it, cannot be used.
    #[error("recordings in {}: {reason}", path.display())]
    Recordings {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS key or certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// The database refuses.
    #[error("database: {0}")]
    Store(#[from] sqlx::Error),
    /// The database's schema cannot be brought up to date.
    #[error("database schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// Anything else from the system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

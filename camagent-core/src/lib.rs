//! The camagent edge agent as a Rust library: it dials out to a server of yours and carries a camera's frames there.
//!
//! ```no_run
//! use camagent_core::{Agent, Codec, Config, Frame, Framing, Host, TrackDescription};
//!
//! let config = Config::from_file("/etc/camera_agent/config.json".as_ref())?;
//! let agent = Agent::start(config, Host::default())?;
//! agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB))?;
//! # let picture: &[u8] = &[];
//! agent.push_frame(0, Frame { pts_us: 0, dts_us: 0, data: picture, ..Frame::default() })?;
//! agent.stop(std::time::Duration::from_secs(5))?;
//! # Ok::<(), camagent_core::Error>(())
//! ```
//!
//! An [`Agent`] owns one thread, `camagent`, and everything that it needs; two agents in one process know nothing of each other.
//! Pushing never waits for the network: a frame is copied into the journal, an arena that is set aside once, and the thread is woken.
//!
//! The map, lowest row first: `error` and `clock`; `config`, what the host is told (`event`) and asked (`command`), `stats`;
//! the `journal`; the way in (`source`) and the way out (`net`); the `driver`, where they meet `camagent-proto`; and [`Agent`], the handle.

mod agent;
mod burst;
mod clock;
mod command;
mod config;
mod connect;
#[cfg(feature = "doctor")]
mod doctor;
mod driver;
mod error;
mod event;
mod journal;
mod logger;
mod net;
mod resolve;
#[cfg(feature = "simulation")]
pub mod simulation;
mod source;
mod stats;
mod storage;
mod tunnel;

pub use agent::{Agent, Host, StopReport};
pub use camagent_media::{Codec, Framing};
pub use camagent_proto::{
    message::{Policy, Retention, ServiceMode},
    stats::Statistics,
};
pub use clock::rfc3339;
pub use command::{Command, CommandToken};
pub use config::{
    BACKFILL, CameraConfig, Config, DEFAULT_LOG_FILE, DataPlan, LogFile, Proxy, PullPace, RtspTransport, Secret,
    ServerUrl, ServiceConfig, SourceConfig, Storage, StorageMode, TUNNELS, Trust, Window,
};
#[cfg(feature = "doctor")]
pub use doctor::{Check, Examination, Verdict, checks_to_json, examine};
pub use error::Error;
pub use event::{Event, Warning};
#[cfg(feature = "fuzz")]
pub use journal::fuzz_journal_segment;
pub use source::{Frame, Pushed, TrackDescription};

/// Software and version, as registered with the server.
pub const SOFTWARE: &str = concat!("camagent/", env!("CARGO_PKG_VERSION"));

//! `camagent-cloud`: the server that camagent edge agents dial, as a library.
//!
//! The modules in layer order, lowest first; a module uses modules above it in this list only:
//!
//! * [`error`], [`memory`], [`descriptors`] why the server does not start; what its allocator keeps; how many files it may open
//! * [`clock`], [`config`], [`event`], [`shutdown`] time, the TOML file, what happened, the graceful stop
//! * [`store`], [`metrics`] SQLite: agents, API tokens, who owns which camera; and the counters of it all
//! * [`agents`], [`auth`], [`live`], [`ingest`] who is connected, who may, the shared frame logs viewers read from, what is recorded
//! * [`record`], [`playback`] what was recorded, and what players get of it
//! * [`rtsp`] viewers go out
//! * [`gateway`], [`tunnel`] agents come in; visitors of their cameras' own services come in too
//! * [`api`] HTTP
//! * [`server`] builds and wires everything: [`Server::start`] is the door for tests and `main`

pub mod agents;
pub mod api;
pub mod auth;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod error;
pub mod event;
pub mod gateway;
pub mod ingest;
pub mod live;
pub mod memory;
pub mod metrics;
pub mod playback;
pub mod record;
pub mod rtsp;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod tunnel;

pub use config::Config;
pub use error::{Error, Result};
pub use server::{Addresses, Server};

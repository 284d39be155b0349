//! The camagent.v1 protocol between an edge agent and its server, both roles, as values.
//!
//! Bytes and time go in with `handle_*`, bytes, events and the next deadline come out with `poll_*`. There is no socket,
//! clock, thread or file in this crate, and there cannot be: it is `no_std`. Two ends meet in memory under a virtual clock
//! (`pair`), so an outage is a test that takes microseconds.
//!
//! The calling rule of [`session::Agent`] and [`session::Server`]:
//!
//! 1. change it: a `handle_*` call or a command such as `request_key_frame`;
//! 2. drain `poll_event` until it returns `None`;
//! 3. drain `poll_transmit` as long as the transport is writable: nothing queues behind it;
//! 4. wait for input, for a command, or until `poll_timeout`, then call `handle_timeout`; repeat.
//!
//! The bytes are specified in `sdk-docs/protocol/`; that page, the samples in `tests/data/wire/` and this crate change together.
//!
//! The map, lowest row first: [`time`], [`varint`], [`version`], [`stats`], [`error`], then the binary frames ([`mod@frame`]), who
//! may send ([`scheduler`]) and how much ([`governor`]), the JSON control messages ([`message`]), tunnels ([`mux`]), the way of media
//! ([`transfer`]), what octets were for ([`usage`]), and the life of a session ([`session`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod error;
pub mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod governor;
pub mod message;
pub mod mux;
#[cfg(feature = "pair")]
pub mod pair;
pub mod scheduler;
pub mod session;
pub mod stats;
pub mod time;
pub mod transfer;
pub mod usage;
pub mod varint;
pub mod version;

pub use error::{CloseCode, Error};
pub use time::{Duration, Instant};

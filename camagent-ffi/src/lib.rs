//! libcamagent: the C ABI of the edge agent. Translation only; everything it does is in `camagent-core`.
//!
//! The rules of the border:
//!
//! * Every entry goes through [`guard`]: a panic becomes [`result::CAMAGENT_E_FAULT`], an error its number and a text for `camagent_last_error`.
//! * A handle is a slot and a generation in one table ([`handle`]), never an address that is followed: NULL, stopped, foreign and inherited
//!   handles are an error.
//! * Values are fixed-width integers, no enum, no `bool`; structures begin with `struct_size` and may only grow at their end.
//! * Nothing is handed out that the caller has to free.
//!
//! `include/camagent.h` is generated from these sources: their comments are its documentation.

// The types bear the names that C programs see.
#![allow(non_camel_case_types)]

pub mod agent;
pub mod event;
pub mod frame;
mod guard;
mod handle;
pub mod host;
pub mod result;
pub mod stats;
pub mod track;
pub mod version;

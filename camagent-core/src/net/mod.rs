//! The way to the server: names and addresses, TCP, TLS, the WebSocket handshake (RFC 6455), and how long to wait between attempts.
//! What does not belong here: what is said over it (`driver`, `camagent_proto`).

mod backoff;
mod counted;
mod dial;
mod tls;
mod websocket;

pub(crate) use backoff::{Backoff, Ending};
pub(crate) use counted::Traffic;
pub(crate) use tls::{ServerTime, Tls};
pub(crate) use websocket::{Connection, Incoming, connect};
#[cfg(feature = "doctor")]
pub(crate) use {
    tls::build_time,
    websocket::{Socket, upgrade},
};

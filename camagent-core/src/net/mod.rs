//! The way to the server: names and addresses, TCP, a proxy, TLS, the WebSocket handshake (RFC 6455), and which server is tried
//! when.
//! What does not belong here: what is said over it (`driver`, `camagent_proto`).

mod advice;
mod backoff;
mod base64;
mod counted;
mod dial;
mod dialler;
mod frames;
mod network;
mod proxy;
mod retry_after;
mod servers;
mod tls;
mod websocket;

pub(crate) use backoff::Ending;
pub(crate) use counted::Traffic;
pub(crate) use dialler::{Dial, Dialler};
pub(crate) use network::{Notices, is_own, way_to};
pub(crate) use servers::Servers;
pub(crate) use tls::{ServerTime, Tls};
pub(crate) use websocket::{Connection, Incoming};
#[cfg(feature = "doctor")]
pub(crate) use {
    advice::tls_advice,
    proxy::pass,
    tls::build_time,
    websocket::{Socket, WebSocket, upgrade},
};

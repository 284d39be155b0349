//! Binds listeners, with errors that say which listener it was and which key moves it.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use crate::error::{Error, Result};

pub(super) fn bind(listener: &'static str, address: SocketAddr, key: &'static str) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::AddrInUse => "another program uses the port".to_owned(),
            ErrorKind::AddrNotAvailable => "this machine does not have the address".to_owned(),
            ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
            _ => error.to_string(),
        };
        Error::Listen { listener, address, key, reason }
    })
}

pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|source| Error::Io { what: "the address of a listener".to_owned(), source })
}

pub(super) fn into_tokio(listener: TcpListener) -> Result<tokio::net::TcpListener> {
    let convert = || {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    convert().map_err(|source| Error::Io { what: "the RTSP listener".to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_listener_and_key() {
        let first = bind("HTTP", SocketAddr::from(([127, 0, 0, 1], 0)), "listen.http").expect("a free port");
        let address = address(&first).expect("bound");
        let error = bind("RTSP", address, "listen.rtsp").expect_err("taken").to_string();
        for part in ["RTSP", &address.to_string(), "another program", "listen.rtsp"] {
            assert!(error.contains(part), "{error}");
        }
    }
}

//! From a name to a TCP connection with the server or a proxy.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::{connect::connect, error::Error, resolve::Resolver};

/// Resolves and connects; the error names every address and what it said.
pub(super) async fn dial(host: &str, port: u16, addresses: &Resolver) -> Result<(TcpStream, SocketAddr), Error> {
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let resolved = addresses.resolve(host, port).await;
    let resolved = resolved.map_err(|error| Error::Unreachable(error.to_string()))?;
    let connected = connect(resolved).await;
    let (socket, address) = connected.map_err(|why| Error::Unreachable(format!("cannot connect to {name}: {why}")))?;
    // Records are written whole, so nothing is gained by waiting for more.
    socket.set_nodelay(true).map_err(Error::io("cannot set TCP_NODELAY"))?;
    Ok((socket, address))
}

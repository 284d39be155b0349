//! From a name to a TCP connection: addresses of both families, each next one a moment after the last (RFC 8305 in small).

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::timeout};

use crate::{error::Error, resolve::Resolver};

/// How long one address has before the next is tried beside it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Resolves and connects; the error names every address and what it said.
pub(super) async fn dial(host: &str, port: u16, addresses: &Resolver) -> Result<(TcpStream, SocketAddr), Error> {
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let resolved = addresses.resolve(host, port).await;
    let resolved = resolved.map_err(|error| Error::Unreachable(error.to_string()))?;
    let mut addresses = interleave(resolved).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = addresses.next() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        } else if attempts.is_empty() {
            break;
        }
        // The next address is tried when the last one has failed, or takes too long.
        let patience = if addresses.len() > 0 { STAGGER } else { Duration::MAX };
        match timeout(patience, attempts.next()).await {
            Ok(Some((address, Ok(socket)))) => {
                // Records are written whole, so nothing is gained by waiting for more.
                socket.set_nodelay(true).map_err(Error::io("cannot set TCP_NODELAY"))?;
                return Ok((socket, address));
            }
            Ok(Some((address, Err(error)))) => failures.push(format!("{address}: {error}")),
            Ok(None) | Err(_) => {}
        }
    }
    Err(Error::Unreachable(format!("cannot connect to {name}: {}", failures.join(", "))))
}

/// The two families in turn, beginning with the resolver's first.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_ipv6);
    one.reverse();
    other.reverse();
    let mut turns = Vec::new();
    while !one.is_empty() || !other.is_empty() {
        turns.extend(one.pop());
        turns.extend(other.pop());
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(parse).to_vec();
        let turns = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(parse).to_vec();
        assert_eq!(interleave(all), turns);
    }
}

//! From several addresses of one host to a TCP connection: those of both families in turn, each next one a moment after the last (RFC 8305 in
//! small), so that one that answers nothing does not hide one that does.
//!
//! What does not belong here: where the addresses come from (`resolve`).

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// What the kernel does below the governor: it only has to find losses (CUBIC, RFC 9438). A system's BBR measures the path as well, and
/// lets the connection fall to four packets for 200 ms every ten seconds to do so, which is heard in live audio.
const CONGESTION_CONTROL: &[u8] = b"cubic";

/// How long one address has before the next is tried beside it (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// The first connection that comes to be, and to which address; otherwise what each address said.
pub(crate) async fn connect(addresses: Vec<SocketAddr>) -> Result<(TcpStream, SocketAddr), String> {
    let is_one = addresses.len() == 1;
    let mut addresses = interleave(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = addresses.next() {
            attempts.push(async move { (address, attempt(address).await) });
        } else if attempts.is_empty() {
            break;
        }
        // The next address is tried when the last one has failed, or takes too long.
        let patience = if addresses.len() > 0 { STAGGER } else { Duration::MAX };
        match timeout(patience, attempts.next()).await {
            Ok(Some((address, Ok(socket)))) => return Ok((socket, address)),
            Ok(Some((_, Err(error)))) if is_one => failures.push(error.to_string()),
            Ok(Some((address, Err(error)))) => failures.push(format!("{address}: {error}")),
            Ok(None) | Err(_) => {}
        }
    }
    Err(failures.join(", "))
}

async fn attempt(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Chosen before the connection is there: once a system's BBR has begun, its timer paces whatever comes after it. A kernel without it
    // goes on with what it has.
    let _ = SockRef::from(&socket).set_tcp_congestion(CONGESTION_CONTROL);
    socket.connect(address).await
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

    #[test]
    fn an_address_that_refuses_hides_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let good = listener.local_addr().unwrap();
            let refuses = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
            let (socket, address) = connect(vec![refuses, good]).await.unwrap();
            assert_eq!(address, good);
            let chosen = SockRef::from(&socket).tcp_congestion().unwrap();
            assert!(chosen.starts_with(CONGESTION_CONTROL), "{}", String::from_utf8_lossy(&chosen));
            let wrong = connect(vec![refuses, refuses]).await.unwrap_err();
            assert_eq!(wrong.matches(&refuses.to_string()).count(), 2, "each is named: {wrong}");
            let wrong = connect(vec![refuses]).await.unwrap_err();
            assert!(!wrong.contains("127.0.0.2"), "who asked knows the only one: {wrong}");
        });
    }
}

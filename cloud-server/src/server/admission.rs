//! Bounds the TLS handshakes under way: strangers who connect and say nothing hold few descriptors, and never keep agents out.
//!
//! What comes before a session belongs to nobody yet; who is too many is dropped without a word and comes again by its own back-off.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum_server::accept::Accept;
use tokio::net::TcpStream;

/// Handshakes under way, from everywhere.
const MOST: usize = 256;
/// Handshakes under way from one address: a site with a hundred agents behind one NAT comes back within seconds.
const MOST_OF_ADDRESS: usize = 64;

/// Lets connections into `inner` while there is room.
#[derive(Clone, Debug)]
pub(super) struct Admission<A> {
    inner: A,
    pending: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl<A> Admission<A> {
    pub(super) fn new(inner: A) -> Self {
        Self { inner, pending: Arc::default() }
    }

    fn take(&self, address: IpAddr) -> Option<Place> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_address) = (pending.values().sum::<usize>(), pending.get(&address).copied().unwrap_or(0));
        if all >= MOST || of_address >= MOST_OF_ADDRESS {
            return None;
        }
        pending.insert(address, of_address + 1);
        Some(Place { address, pending: Arc::clone(&self.pending) })
    }
}

/// One handshake under way; given back on drop.
struct Place {
    address: IpAddr,
    pending: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match pending.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(pending.remove(&self.address)),
        }
    }
}

impl<A, S> Accept<TcpStream, S> for Admission<A>
where
    A: Accept<TcpStream, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        let place = socket.peer_addr().ok().and_then(|address| self.take(address.ip()));
        let Some(place) = place else {
            tracing::warn!(peer = ?socket.peer_addr().ok(), "too many TLS handshakes at once: dropped");
            return Box::pin(async { Err(io::Error::other("too many TLS handshakes at once")) });
        };
        let handshake = self.inner.accept(socket, service);
        Box::pin(async move {
            let done = handshake.await;
            drop(place);
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_places_come_back() {
        let admission = Admission::new(());
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let first: Vec<Place> = (0..MOST_OF_ADDRESS).map(|_| admission.take(address(1)).expect("room")).collect();
        assert!(admission.take(address(1)).is_none(), "one more of that address");
        let others: Vec<Place> = (2..=4)
            .flat_map(|last| (0..MOST_OF_ADDRESS).map(move |_| last))
            .map(|last| admission.take(address(last)).expect("room"))
            .collect();
        assert!(admission.take(address(5)).is_none(), "one more of all");
        drop(first);
        assert!(admission.take(address(5)).is_some() && admission.take(address(1)).is_some());
        drop(others);
        assert!(admission.pending.lock().expect("whole").is_empty());
    }
}

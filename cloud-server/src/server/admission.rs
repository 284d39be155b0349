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

use crate::config::Limits;
use crate::metrics::Metrics;

/// Lets connections into `inner` while there is room.
#[derive(Clone, Debug)]
pub(super) struct Admission<A> {
    inner: A,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    pending: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl<A> Admission<A> {
    pub(super) fn new(inner: A, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { inner, limits: Arc::new(limits), metrics, pending: Arc::default() }
    }

    /// A place, or the limit that leaves none.
    fn take(&self, address: IpAddr) -> Result<Place, &'static str> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, of_address) = (pending.values().sum::<usize>(), pending.get(&address).copied().unwrap_or(0));
        if all >= self.limits.handshakes {
            return Err("handshakes");
        }
        if of_address >= self.limits.handshakes_per_address && !self.limits.trusts(address) {
            return Err("handshakes of an address");
        }
        pending.insert(address, of_address + 1);
        Ok(Place { address, pending: Arc::clone(&self.pending) })
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
        let address = match socket.peer_addr() {
            Ok(address) => address,
            // It has gone already.
            Err(error) => return Box::pin(async { Err(error) }),
        };
        let place = match self.take(address.ip()) {
            Ok(place) => place,
            Err(limit) => {
                self.metrics.handshake_refused();
                self.metrics.breach(limit);
                tracing::warn!(peer = %address, limit, "too many TLS handshakes at once: dropped");
                return Box::pin(async { Err(io::Error::other("too many TLS handshakes at once")) });
            }
        };
        let (handshake, metrics) = (self.inner.accept(socket, service), Arc::clone(&self.metrics));
        Box::pin(async move {
            let done = handshake.await;
            drop(place);
            if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
                metrics.breach("handshake timeout");
            }
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places_and_places_come_back() {
        let trusted = vec!["192.0.2.9/32".parse().expect("a network")];
        let limits =
            Limits { handshakes: 16, handshakes_per_address: 4, handshakes_trusted: trusted, ..Limits::default() };
        let admission = Admission::new((), limits, Metrics::new());
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let first: Vec<Place> = (0..4).map(|_| admission.take(address(1)).expect("room")).collect();
        assert_eq!(admission.take(address(1)).err(), Some("handshakes of an address"));
        let balancer: Vec<Place> = (0..12).map(|_| admission.take(address(9)).expect("room")).collect();
        assert_eq!(admission.take(address(5)).err(), Some("handshakes"));
        assert_eq!(admission.take(address(9)).err(), Some("handshakes"), "of all, for the trusted too");
        drop(first);
        assert!(admission.take(address(5)).is_ok() && admission.take(address(1)).is_ok());
        drop(balancer);
        assert!(admission.pending.lock().expect("whole").is_empty());
    }
}

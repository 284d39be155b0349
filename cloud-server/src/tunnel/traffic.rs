//! The counters of one tunnel, and the seats of one camera's visitors.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Metrics;

/// What one tunnel carried since the server started.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    visitors: AtomicUsize,
    /// To visitors, to the camera.
    octets: Mutex<(u64, u64)>,
    /// The sum of all tunnels.
    metrics: Option<Arc<Metrics>>,
}

impl Traffic {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { metrics: Some(metrics), ..Self::default() })
    }

    pub(super) fn count(&self, to_visitors: u64, to_camera: u64) {
        let mut octets = self.octets.lock().unwrap_or_else(PoisonError::into_inner);
        octets.0 += to_visitors;
        octets.1 += to_camera;
        if let Some(metrics) = &self.metrics {
            metrics.tunnelled(to_visitors, to_camera);
        }
    }

    pub(super) fn octets(&self) -> (u64, u64) {
        *self.octets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn visitors(&self) -> usize {
        self.visitors.load(Ordering::Relaxed)
    }
}

/// Visitors of one camera, over all its services.
pub(super) type Seats = Arc<AtomicUsize>;

/// One visitor's place; given back on drop.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    traffic: Arc<Traffic>,
}

impl Seat {
    /// None when all are taken.
    pub(super) fn take(seats: &Seats, most: usize, traffic: &Arc<Traffic>) -> Option<Self> {
        let taken = seats.fetch_add(1, Ordering::Relaxed);
        traffic.visitors.fetch_add(1, Ordering::Relaxed);
        // Given back by the drop when it is one too many.
        let seat = Self { seats: Arc::clone(seats), traffic: Arc::clone(traffic) };
        (taken < most).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.fetch_sub(1, Ordering::Relaxed);
        self.traffic.visitors.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_given_back() {
        let (seats, traffic) = (Seats::default(), Arc::<Traffic>::default());
        let first = Seat::take(&seats, 2, &traffic).expect("free");
        let second = Seat::take(&seats, 2, &traffic).expect("free");
        assert!(Seat::take(&seats, 2, &traffic).is_none());
        assert_eq!(traffic.visitors(), 2);
        drop(first);
        assert!(Seat::take(&seats, 2, &traffic).is_some());
        drop(second);
        assert_eq!((traffic.visitors(), seats.load(Ordering::Relaxed)), (0, 0));
    }
}

//! What a link tells about itself: packets and octets a way, what was dropped and why, how full the queue was and how long
//! packets waited in it. Taking part in no decision.

use std::fmt;
use std::time::Duration;

/// Both ways.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// From the camera.
    pub up: WayCounters,
    /// To the camera.
    pub down: WayCounters,
    /// For how long the link has been there.
    pub elapsed: Duration,
}

/// One way.
#[derive(Clone, Debug, Default)]
pub struct WayCounters {
    /// Packets that came in.
    pub packets_in: u64,
    /// Their octets, IP headers included.
    pub octets_in: u64,
    /// Packets that came out.
    pub packets: u64,
    /// Their octets, IP headers included.
    pub octets: u64,
    /// What did not come out, and why.
    pub dropped: Dropped,
    /// Packets that came out a second time.
    pub duplicated: u64,
    /// Packets that others may have overtaken.
    pub reordered: u64,
    /// Reset segments that the link forged and sent this way; they are in neither of the numbers above.
    pub resets: u64,
    /// Octets in the queue now.
    pub queued: usize,
    /// The most octets that were ever in it.
    pub queued_most: usize,
    /// How long packets waited until their first octet was sent.
    pub waited: Delays,
}

/// Packets that were dropped, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The queue had no room (drop-tail).
    pub queue: u64,
    /// Lost on the way, by chance.
    pub loss: u64,
    /// Swallowed by a black hole.
    pub black_hole: u64,
    /// Of a connection that was reset.
    pub reset: u64,
    /// From or to an address that the camera does not have any more.
    pub address: u64,
    /// No IPv4, or more in flight than the emulator holds.
    pub other: u64,
}

impl Dropped {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.queue + self.loss + self.black_hole + self.reset + self.address + self.other
    }
}

/// Sixteen steps an octave: a percentile is at most 6.25 % too high.
const STEPS: usize = 16;
/// Octaves of microseconds: up to 2^36 µs, 19 hours.
const OCTAVES: usize = 33;

/// How long things took: a histogram of fixed size.
#[derive(Clone)]
pub struct Delays {
    counts: Vec<u64>,
    count: u64,
    most: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * OCTAVES], count: 0, most: Duration::ZERO }
    }
}

impl Delays {
    pub(crate) fn note(&mut self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.counts[index(micros).min(STEPS * OCTAVES - 1)] += 1;
        self.count += 1;
        self.most = self.most.max(delay);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// What `percent` of them did not exceed, at most 6.25 % too high; zero when there were none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper(index)).min(self.most);
            }
        }
        self.most
    }
}

impl fmt::Debug for Delays {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "p50 {:.1?} p95 {:.1?} most {:.1?}", self.percentile(50.0), self.percentile(95.0), self.most)
    }
}

/// Where a number of microseconds is counted: below 32 exactly, then sixteen steps an octave.
fn index(micros: u64) -> usize {
    let octave = (63 - (micros | 1).leading_zeros() as usize).saturating_sub(4);
    if octave == 0 {
        return micros as usize;
    }
    octave * STEPS + (micros >> octave) as usize
}

/// The highest number that is counted there.
fn upper(index: usize) -> u64 {
    if index < 2 * STEPS {
        return index as u64;
    }
    let octave = index / STEPS - 1;
    let step = (index - octave * STEPS) as u64;
    ((step + 1) << octave) - 1
}

impl fmt::Display for Counters {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        for (name, way) in [("up", &self.up), ("down", &self.down)] {
            let Dropped { queue, loss, black_hole, reset, address, other } = way.dropped;
            writeln!(
                out,
                "{name:<5} {:>9} packets {:>12} octets {:>9.3} Mbit/s   queue now {} most {} octets, waited p50 {:.1} p95 {:.1} most {:.1} ms",
                way.packets,
                way.octets,
                way.octets as f64 * 8e-6 / seconds,
                way.queued,
                way.queued_most,
                way.waited.percentile(50.0).as_secs_f64() * 1e3,
                way.waited.percentile(95.0).as_secs_f64() * 1e3,
                way.waited.most().as_secs_f64() * 1e3,
            )?;
            writeln!(
                out,
                "      dropped: queue {queue}, loss {loss}, black hole {black_hole}, reset {reset}, address {address}, other {other}; \
                 duplicated {}, reordered {}, resets forged {}",
                way.duplicated, way.reordered, way.resets
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_counted_where_it_belongs() {
        for micros in (0..5_000).chain([u64::from(u32::MAX), 1 << 35]) {
            let index = index(micros);
            assert!(upper(index) >= micros, "{micros} above its step");
            assert!(index == 0 || upper(index - 1) < micros, "{micros} in the step before");
            assert!(upper(index) - micros <= micros / 16, "{micros}: the step is narrow");
        }
    }

    #[test]
    fn percentiles_are_near() {
        let mut delays = Delays::default();
        for millis in 1..=1_000 {
            delays.note(Duration::from_millis(millis));
        }
        for (percent, exact) in [(50.0, 500.0), (95.0, 950.0), (99.0, 990.0)] {
            let told = delays.percentile(percent).as_secs_f64() * 1e3;
            assert!((exact..=exact * 1.0625).contains(&told), "p{percent}: {told} ms");
        }
        assert_eq!(delays.percentile(100.0), Duration::from_secs(1));
        assert_eq!(Delays::default().percentile(50.0), Duration::ZERO);
    }
}

//! One way of a link as a value: a drop-tail queue in front of a rate, then a distance with jitter, loss, reordering and
//! duplicates. Packets and time go in; packets and the next deadline come out. Addresses and connections are not its matter.
//!
//! Everything happens at its own virtual time, however late the value is asked: a driver that wakes late delays packets,
//! but the rate stays what it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::chance::{Chance, Loss, Losses};
use super::counters::WayCounters;

/// More octets than this are not in flight after the queue: what is above is dropped and counted.
const IN_FLIGHT: usize = 64 << 20;
/// Jitter wanders from one random value to the next in this time, so that packets in close order keep it.
const JITTER_STEP: Duration = Duration::from_millis(20);

/// What one way of a link is like.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Bits a second, of IP packets. `None` is without a limit (and without a queue); 0 stands still and keeps the queue.
    pub rate: Option<u64>,
    /// How long a packet travels, after the queue: half a round trip.
    pub delay: Duration,
    /// Up to so much is added to the delay; packets keep their order.
    pub jitter: Duration,
    /// What is lost after the queue. It has used the rate then.
    pub loss: Loss,
    /// The part of packets that are held back by `reorder_by`, so that others overtake them.
    pub reorder: f64,
    /// By how much.
    pub reorder_by: Duration,
    /// The part of packets that arrive twice.
    pub duplicate: f64,
    /// Octets that wait for the rate: the modem's queue. One packet always finds room.
    pub queue: usize,
}

impl Default for Path {
    /// Without limit, delay or loss.
    fn default() -> Self {
        Self {
            rate: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: Loss::Never,
            reorder: 0.0,
            reorder_by: Duration::from_millis(10),
            duplicate: 0.0,
            queue: 1_000_000,
        }
    }
}

/// The head of the queue, leaving.
#[derive(Clone, Copy, Debug)]
struct Sending {
    /// When `bits` was right.
    since: Duration,
    bits: u64,
    /// When its first bit left.
    begun: Duration,
}

/// The value.
#[derive(Debug)]
pub(crate) struct Pipe {
    path: Path,
    losses: Losses,
    jitters: Jitter,
    reorders: Chance,
    duplicates: Chance,
    /// When each came, and what.
    queue: VecDeque<(Duration, Vec<u8>)>,
    sending: Option<Sending>,
    /// By time of arrival, then by age.
    flight: BTreeMap<(Duration, u64), Vec<u8>>,
    in_flight: usize,
    next_number: u64,
    /// No packet that keeps its order arrives before this.
    last_arrival: Duration,
    pub(crate) counters: WayCounters,
}

impl Pipe {
    pub(crate) fn new(path: Path, seed: u64) -> Self {
        Self {
            path,
            losses: Losses::new(Chance::new(seed, 1)),
            jitters: Jitter::new(Chance::new(seed, 2)),
            reorders: Chance::new(seed, 3),
            duplicates: Chance::new(seed, 4),
            queue: VecDeque::new(),
            sending: None,
            flight: BTreeMap::new(),
            in_flight: 0,
            next_number: 0,
            last_arrival: Duration::ZERO,
            counters: WayCounters::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From `now` on the path is another; what is in the queue feels it, what is in flight does not. The caller has
    /// advanced to `now`.
    pub(crate) fn set_path(&mut self, path: Path, now: Duration) {
        if let (Some(sending), Some(rate)) = (&mut self.sending, self.path.rate) {
            let sent = now.saturating_sub(sending.since).as_nanos() * u128::from(rate) / 1_000_000_000;
            sending.bits = sending.bits.saturating_sub(u64::try_from(sent).unwrap_or(u64::MAX));
            sending.since = now;
        }
        self.path = path;
        if self.path.rate.is_none() {
            self.sending = None;
            while let Some((came, packet)) = self.queue.pop_front() {
                self.counters.queued -= packet.len();
                self.counters.waited.note(now.saturating_sub(came));
                self.depart(packet, now);
            }
        }
    }

    /// A packet comes in. The caller has advanced to `now`.
    pub(crate) fn push(&mut self, packet: Vec<u8>, now: Duration) {
        if self.path.rate.is_none() {
            self.counters.waited.note(Duration::ZERO);
            return self.depart(packet, now);
        }
        if !self.queue.is_empty() && self.counters.queued + packet.len() > self.path.queue {
            self.counters.dropped.queue += 1;
            return;
        }
        self.counters.queued += packet.len();
        self.counters.queued_most = self.counters.queued_most.max(self.counters.queued);
        self.queue.push_back((now, packet));
        self.begin(now);
    }

    /// When something happens next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let arrival = self.flight.first_key_value().map(|((at, _), _)| *at);
        match (self.sent_at(), arrival) {
            (Some(sent), Some(arrival)) => Some(sent.min(arrival)),
            (sent, arrival) => sent.or(arrival),
        }
    }

    /// The next packet that arrives until `now`, and when. To be called until there is none.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<(Duration, Vec<u8>)> {
        loop {
            let arrival = self.flight.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= now);
            match self.sent_at().filter(|sent| *sent <= now) {
                Some(sent) if arrival.is_none_or(|arrival| sent <= arrival) => self.finish(sent),
                _ => {
                    let ((at, _), packet) = arrival.and_then(|_| self.flight.pop_first())?;
                    self.in_flight -= packet.len();
                    return Some((at, packet));
                }
            }
        }
    }

    /// When the head of the queue has left; never at a rate of 0.
    fn sent_at(&self) -> Option<Duration> {
        let (sending, rate) = (self.sending?, self.path.rate.filter(|rate| *rate > 0)?);
        let nanos = (u128::from(sending.bits) * 1_000_000_000).div_ceil(u128::from(rate));
        Some(sending.since.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
    }

    /// Begins to send the head, unless one is being sent.
    fn begin(&mut self, now: Duration) {
        if let (None, Some((_, packet))) = (self.sending, self.queue.front()) {
            self.sending = Some(Sending { since: now, bits: packet.len() as u64 * 8, begun: now });
        }
    }

    fn finish(&mut self, sent: Duration) {
        let Some((came, packet)) = self.queue.pop_front() else { return };
        let begun = self.sending.take().map_or(sent, |sending| sending.begun);
        self.counters.queued -= packet.len();
        self.counters.waited.note(begun.saturating_sub(came));
        self.begin(sent);
        self.depart(packet, sent);
    }

    /// The packet has left the queue at `now`.
    fn depart(&mut self, packet: Vec<u8>, now: Duration) {
        let jitter = self.jitters.at(now, self.path.jitter);
        // All are drawn for each packet, so that one setting does not shift what another one hits.
        let (late, twice) = (self.reorders.happens(self.path.reorder), self.duplicates.happens(self.path.duplicate));
        if self.losses.next(self.path.loss) {
            self.counters.dropped.loss += 1;
            return;
        }
        let mut arrival = now + self.path.delay + jitter;
        if late {
            self.counters.reordered += 1;
            arrival += self.path.reorder_by;
        } else {
            arrival = arrival.max(self.last_arrival);
            self.last_arrival = arrival;
        }
        if twice {
            self.counters.duplicated += 1;
            self.fly(packet.clone(), arrival);
        }
        self.fly(packet, arrival);
    }

    fn fly(&mut self, packet: Vec<u8>, arrival: Duration) {
        if self.in_flight + packet.len() > IN_FLIGHT {
            self.counters.dropped.other += 1;
            return;
        }
        self.in_flight += packet.len();
        self.flight.insert((arrival, self.next_number), packet);
        self.next_number += 1;
    }
}

/// Wanders between random values.
#[derive(Debug)]
struct Jitter {
    chance: Chance,
    step: u128,
    from: f64,
    to: f64,
}

impl Jitter {
    fn new(mut chance: Chance) -> Self {
        let (from, to) = (chance.fraction(), chance.fraction());
        Self { chance, step: 0, from, to }
    }

    fn at(&mut self, now: Duration, most: Duration) -> Duration {
        let step = now.as_nanos() / JITTER_STEP.as_nanos();
        if step != self.step {
            self.from = if step == self.step + 1 { self.to } else { self.chance.fraction() };
            self.to = self.chance.fraction();
            self.step = step;
        }
        let along = (now.as_nanos() % JITTER_STEP.as_nanos()) as f64 / JITTER_STEP.as_nanos() as f64;
        most.mul_f64((self.from + (self.to - self.from) * along).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Everything that arrives until `now`, as (time, first octet).
    fn arrivals(pipe: &mut Pipe, now: Duration) -> Vec<(Duration, u8)> {
        std::iter::from_fn(|| pipe.pop(now)).map(|(at, packet)| (at, packet[0])).collect()
    }

    fn pipe(path: Path) -> Pipe {
        Pipe::new(path, 1)
    }

    #[test]
    fn a_rate_spaces_packets_and_a_delay_shifts_them() {
        // 1000 octets at 1 Mbit/s: 8 ms each.
        let mut pipe = pipe(Path { rate: Some(1_000_000), delay: 30 * MS, ..Path::default() });
        (0..3).for_each(|name| pipe.push(vec![name; 1_000], 5 * MS));
        assert_eq!(pipe.deadline(), Some(13 * MS), "the first has left the queue");
        // Asked late, it tells the same.
        assert_eq!(arrivals(&mut pipe, 100 * MS), [(43 * MS, 0), (51 * MS, 1), (59 * MS, 2)]);
        assert_eq!(pipe.deadline(), None);
        assert_eq!((pipe.counters.queued, pipe.counters.queued_most), (0, 3_000));
        assert_eq!(pipe.counters.waited.most(), 16 * MS, "behind two others");
    }

    #[test]
    fn a_full_queue_drops_what_comes_last() {
        let mut pipe = pipe(Path { rate: Some(8_000), queue: 2_500, ..Path::default() });
        (0..4).for_each(|name| pipe.push(vec![name; 1_000], Duration::ZERO));
        assert_eq!(pipe.counters.dropped.queue, 2);
        pipe.push(vec![9; 400], Duration::ZERO);
        assert_eq!(pipe.counters.queued, 2_400, "a smaller one still fits");
        assert_eq!(arrivals(&mut pipe, 10_000 * MS).iter().map(|(_, name)| *name).collect::<Vec<_>>(), [0, 1, 9]);
        pipe.push(vec![7; 5_000], 10_000 * MS);
        assert_eq!(pipe.counters.dropped.queue, 2, "one packet always finds room");
    }

    #[test]
    fn a_new_rate_counts_from_the_bit_that_is_being_sent() {
        let mut pipe = pipe(Path { rate: Some(1_000_000), ..Path::default() });
        pipe.push(vec![0; 1_000], Duration::ZERO);
        assert!(pipe.pop(4 * MS).is_none());
        let slower = Path { rate: Some(500_000), ..pipe.path().clone() };
        pipe.set_path(slower, 4 * MS);
        assert_eq!(pipe.deadline(), Some(12 * MS), "half of it at half the rate");
        let still = Path { rate: Some(0), ..pipe.path().clone() };
        pipe.set_path(still, 8 * MS);
        assert_eq!(pipe.deadline(), None, "it stands");
        let free = Path { rate: None, ..pipe.path().clone() };
        pipe.set_path(free, 20 * MS);
        assert_eq!(arrivals(&mut pipe, 20 * MS), [(20 * MS, 0)]);
    }

    #[test]
    fn jitter_keeps_the_order_and_its_bounds() {
        let mut pipe = pipe(Path { delay: 10 * MS, jitter: 50 * MS, ..Path::default() });
        let mut delays = Vec::new();
        for name in 0..200 {
            let sent = MS * 3 * u32::from(name);
            pipe.push(vec![name; 10], sent);
        }
        let arrived = arrivals(&mut pipe, 10_000 * MS);
        assert!(arrived.windows(2).all(|pair| pair[0].1 < pair[1].1), "in order");
        for (at, name) in arrived {
            delays.push(at - MS * 3 * u32::from(name));
        }
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*least >= 10 * MS && *most <= 60 * MS, "{least:?} to {most:?}");
        assert!(*most - *least > 25 * MS, "it does wander: {least:?} to {most:?}");
    }

    #[test]
    fn some_are_overtaken_and_some_come_twice() {
        let path = Path { delay: 5 * MS, reorder: 0.1, reorder_by: 4 * MS, duplicate: 0.1, ..Path::default() };
        let mut pipe = pipe(path);
        (0..200).for_each(|name| pipe.push(vec![name; 10], MS * u32::from(name)));
        let arrived = arrivals(&mut pipe, 1_000 * MS);
        let overtaken = arrived.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
        let (late, twice) = (pipe.counters.reordered, pipe.counters.duplicated);
        assert!((10..35).contains(&late) && (10..35).contains(&twice), "{late} late, {twice} twice");
        assert!(overtaken as u64 > late / 2, "{overtaken} of {late}");
        assert_eq!(arrived.len() as u64, 200 + twice);
    }

    #[test]
    fn losses_use_the_rate_and_do_not_depend_on_other_settings() {
        let survivors = |path: Path| {
            let mut pipe = pipe(path);
            (0..100).for_each(|name| pipe.push(vec![name; 1_000], Duration::ZERO));
            arrivals(&mut pipe, 100_000 * MS)
        };
        let path = Path { rate: Some(1_000_000), loss: Loss::Single(0.2), ..Path::default() };
        let plain = survivors(path.clone());
        assert!((10..30).contains(&(100 - plain.len())), "{} of 100", plain.len());
        assert!(plain.iter().all(|(at, name)| *at == 8 * MS * (u32::from(*name) + 1)), "at their time");
        let names = |arrived: &[(Duration, u8)]| arrived.iter().map(|(_, name)| *name).collect::<Vec<_>>();
        let shaken = survivors(Path { jitter: 3 * MS, rate: None, ..path });
        assert_eq!(names(&plain), names(&shaken));
    }
}

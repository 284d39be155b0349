//! How much may be on its way: enough to keep the slowest link busy, and no more, because what queues in front of that link delays everything
//! behind it, control and live audio first.
//!
//! The governor holds the octets that are handed over and not acknowledged to `rate * (shortest round trip + target)`, where `rate` is
//! what the path was seen to deliver. The link stays busy because a queue of `target` stands in front of it; when the link becomes
//! faster the queue drains faster, which is seen as a higher rate; when it becomes slower the queue is longer by no more than what was allowed
//! before. Nobody has to tell the rate. This is delay-based congestion control of the kind of TCP Vegas, above whatever the kernel does.
//!
//! On a long path a lost packet holds everything up for a round trip: there `loss` lets less stand in the queue, and `pace` spreads what may be on its
//! way over a round trip.
//!
//! A middlebox that ends TCP acknowledges what it has not delivered: then `hidden` bounds what the server has not told to have arrived.
//!
//! A sender that fills queues until they overflow makes octets wait however few of ours are on their way: then `rival` keeps a share for them. What
//! comes at a rate of its own, such as live audio, need not wait for the allowance at all.
//!
//! The past has time: of its own octets so few are on their way that a live picture finds a queue of some milliseconds ([`Governor::past_room`]).
//!
//! A value: octets and time in, an allowance out. Who counts the octets and looks at the clock is the driver.

mod hidden;
mod loss;
mod pace;
mod rival;

use alloc::collections::VecDeque;

use self::{
    hidden::{Hidden, Told},
    loss::{Heard, Losses},
    pace::Pace,
    rival::{Rival, Sight},
};
use crate::time::{Duration, Instant};

/// Before anything is known, so much may be on its way, or ten segments (RFC 6928) when these are more.
const INITIAL_ALLOWANCE: u64 = 32 << 10;
/// Of the queue that may stand, the past has this part.
const PAST_PART: u32 = 6;
/// A short queue that always stands looks like a part of the path: so often the past lets it drain, for two round trips.
const DRAIN_EVERY: Duration = Duration::from_secs(10);
/// Never fewer segments: a receiver that sees only one waits for another before it acknowledges (RFC 1122 section 4.2.3.2), which looks like a queue.
const MIN_SEGMENTS: u64 = 2;
/// Never fewer packets where they are smaller than that: the receiver acknowledges what is more than a segment.
const MIN_PACKETS: u64 = 3;
/// A rate is measured over at least so long.
const SAMPLE: Duration = Duration::from_millis(40);
/// And over so many packets, as far as they come soon.
const SAMPLE_PACKETS: u32 = 4;
/// With nothing on the way for so long the sender paused; less is only a look that came late.
const PAUSE: Duration = Duration::from_millis(4);
/// The best rate of so long counts.
const RATE_MEMORY: Duration = Duration::from_millis(600);
/// The shortest round trip of so long counts: routes change.
const ROUND_TRIP_MEMORY: Duration = Duration::from_secs(30);
/// A wait of so many targets is no longer explained by what the governor allows.
const UNEXPLAINED: u32 = 3;
/// After the shortest round trip was forgotten for a longer one, whether it still holds is tried so long after, and again after twice the time.
const TRY_AFTER: Duration = Duration::from_secs(10);
/// At most so rarely.
const TRY_AT_LEAST: Duration = Duration::from_secs(120);
/// Octets on their way of which none was acknowledged for so long: the path stood still.
const STALL: Duration = Duration::from_secs(1);
/// While a governor holds back, it wants to be asked again after so long.
const LOOK_AFTER: Duration = Duration::from_millis(3);
/// A path is long from this round trip on.
const LONG: Duration = Duration::from_millis(100);
/// On a long path the start grows by half in a round trip, or by so many targets.
const START_TARGETS: u32 = 3;
/// A packet should leave the link within so long: what comes behind it waits, and what is in it arrives at its end.
const PACKET: Duration = Duration::from_millis(30);
/// On a long path within so long: a queue that holds only a few packets overflows at one too many, and that costs a round trip and more.
const LONG_PACKET: Duration = Duration::from_millis(12);
/// There packets are an equal part of what they can be, as long as nothing is known of the rate.
const FIRST_PACKETS: u64 = 2;
/// On a long path a delay is a queue when it lasts for so long, or for an eighth of a round trip: a receiver may hold an acknowledgement back for a
/// while (RFC 1122 section 4.2.3.2), and a link that is taken for full too early stays so for many round trips.
const QUEUE_LASTS: Duration = Duration::from_millis(50);
/// The kernel's pace, in per cent of what is handed over.
const KERNEL_PACE: u64 = 110;
/// Who has larger segments sends to itself.
const LARGE_SEGMENT: u64 = 9_000;
/// It carries no less than that: its headers take their share.
const LEAST_PACKET: u64 = 480;
/// What leaves the kernel within so long does not pile up there.
const UNSENT: Duration = Duration::from_millis(8);
/// What may be on its way beyond the allowance when it must not wait: a second of compressed audio.
const URGENT: u64 = 16 << 10;
/// Marks on the way at once; more octets between two of them when there are more.
const MAX_MARKS: usize = 64;

/// Octets on their way, up to a place in the order of sending.
#[derive(Debug)]
struct Mark {
    until: u64,
    sent_at: Instant,
    /// What was acknowledged when they were sent, and since when.
    acknowledged: u64,
    since: Instant,
}

/// The shortest round trip was forgotten for a longer one. What made it longer may be a queue, of somebody else and later one's own, and then
/// only less on its way shows it.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// The one that was forgotten.
    before: Duration,
    try_at: Instant,
    pause: Duration,
    /// As little is on its way as if the forgotten one held.
    trying_until: Option<Instant>,
}

/// Decides how much may be on its way.
#[derive(Debug)]
pub struct Governor {
    target: Duration,
    segment: u64,
    sent: u64,
    acknowledged: u64,
    acknowledged_at: Instant,
    marks: VecDeque<Mark>,
    shortest: Option<(Duration, Instant)>,
    /// The shortest of the present half of the memory, which replaces an old one.
    next_shortest: Option<(Duration, Instant)>,
    doubt: Option<Doubt>,
    latest: Duration,
    sample_from: Option<(Instant, u64)>,
    /// Whether the allowance was used up at any time during the sample.
    held_back: bool,
    /// Rates by the time of their measurement, falling.
    rates: VecDeque<(Instant, u64)>,
    /// No queue was seen yet: the allowance doubles.
    starting: bool,
    /// The least delay of the present part of the time in which a queue shows, and of the part before.
    delays: [Option<Duration>; 2],
    delays_since: Instant,
    rival: Rival,
    hidden: Hidden,
    losses: Losses,
    sacked: u64,
    pace: Pace,
    is_clogged: bool,
    /// Octets that were handed over beyond the allowance, and not made up for by acknowledgements since.
    beyond: u64,
    /// When the past began to let the queue drain, and until when it does.
    draining: Option<(Instant, Instant)>,
    /// When it last had drained: what is live fills the path whatever the past leaves.
    drained_at: Option<Instant>,
}

impl Governor {
    /// A governor for a new connection that lets a queue of `target` stand: 25 to 150 ms, longer for more throughput on links whose rate
    /// jumps, shorter for less delay. `segment` is what one packet carries at most: the kernel's TCP_MAXSEG.
    pub fn new(target: Duration, segment: u64) -> Self {
        let target = target.clamp(Duration::from_millis(5), Duration::from_millis(500));
        Self {
            segment: segment.clamp(500, 1 << 16),
            target,
            hidden: Hidden::new(target),
            sent: 0,
            acknowledged: 0,
            acknowledged_at: Instant::ZERO,
            marks: VecDeque::new(),
            shortest: None,
            next_shortest: None,
            doubt: None,
            latest: Duration::ZERO,
            sample_from: None,
            held_back: false,
            rates: VecDeque::new(),
            starting: true,
            delays: [None; 2],
            delays_since: Instant::ZERO,
            rival: Rival::default(),
            losses: Losses::default(),
            sacked: 0,
            pace: Pace::default(),
            is_clogged: false,
            beyond: 0,
            draining: None,
            drained_at: None,
        }
    }

    /// The kernel measured this round trip while the connection was made.
    pub fn connected(&mut self, now: Instant, round_trip: Duration) {
        if self.shortest.is_none() && round_trip >= LONG {
            self.shortest = Some((round_trip, now));
        }
    }

    /// `octets` were handed over.
    pub fn sent(&mut self, now: Instant, octets: u64) {
        if octets == 0 {
            return;
        }
        if self.in_flight() == 0 {
            if now.saturating_since(self.acknowledged_at) > PAUSE {
                // A sample would count the pause.
                self.sample_from = Some((now, self.acknowledged));
            }
            self.acknowledged_at = now;
        }
        if self.in_flight() >= self.allowance() {
            self.beyond += octets;
        }
        self.sent += octets;
        self.pace.sent(octets);
        let spacing = self.in_flight() / MAX_MARKS as u64;
        if self.marks.len() < MAX_MARKS && self.marks.back().is_none_or(|mark| self.sent - mark.until >= spacing) {
            let (acknowledged, since) = (self.acknowledged, self.acknowledged_at);
            self.marks.push_back(Mark { until: self.sent, sent_at: now, acknowledged, since });
        }
    }

    /// So many octets of records, as the server counts them, were handed over in all.
    pub fn handed_over(&mut self, now: Instant, total: u64) {
        self.hidden.sent(now, total);
    }

    /// The server has told how many of them it read, and when the last by its own clock, in milliseconds; to be called behind
    /// [`Governor::outstanding`].
    pub fn arrived(&mut self, now: Instant, octets: u64, at_ms: u64) {
        self.hidden.arrived(now, Told { octets, at_ms }, self.in_flight());
    }

    /// About so many octets of what is not acknowledged have arrived, behind a packet that is missing (RFC 2018); to be called in front of
    /// [`Governor::outstanding`].
    pub fn sacked(&mut self, octets: u64) {
        self.sacked = octets;
    }

    /// So much of all that was handed over is not acknowledged.
    pub fn outstanding(&mut self, now: Instant, octets: u64) {
        let octets = octets.saturating_sub(self.sacked);
        let acknowledged = self.sent.saturating_sub(octets).max(self.acknowledged);
        if acknowledged > self.acknowledged {
            if now.saturating_since(self.acknowledged_at) > STALL.max(self.base() * 4).max(self.latest * 2) {
                self.forget_rates();
            }
            self.beyond = self.beyond.saturating_sub(acknowledged - self.acknowledged);
            self.acknowledged = acknowledged;
            self.acknowledged_at = now;
        }
        if self.draining.is_some_and(|(_, until)| now < until) && self.in_flight() <= self.enough_to_drain() {
            self.drained_at = Some(now);
        }
        let mut newest = None;
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.until <= acknowledged) {
            self.round_trip(now, now.saturating_since(mark.sent_at));
            newest = Some(mark);
        }
        match newest {
            // What came back during a whole round trip; a shorter time says more about the packets than about the path.
            Some(ref mark) if now.saturating_since(mark.since) >= self.sample_time() => {
                self.measured(now, now.saturating_since(mark.since), acknowledged - mark.acknowledged);
                self.sample_from = Some((now, acknowledged));
            }
            _ => self.sample(now),
        }
        if self.is_paced() {
            let (octets, soon) = (self.in_a_round_trip(), self.enough_for(UNSENT));
            self.pace.pass(now, octets, self.base(), soon.max(self.packet()));
        } else {
            self.pace = Pace::default();
        }
        if newest.is_some() {
            self.doubt(now);
            let sight = Sight {
                now,
                waited: self.own_delay(),
                round_trip: self.latest,
                acknowledged,
                allowance: self.own_allowance(),
                in_flight: self.in_flight(),
                rate: self.own_rate().unwrap_or(0),
            };
            self.rival.look(sight, UNEXPLAINED * self.target);
        }
    }

    /// Whether somebody else's queue stands in front of the link. Then the kernel's congestion window is the measure of what is fair, and what
    /// it holds back must not pile up in front of live audio: see [`Governor::unsent`].
    pub fn has_rival(&self) -> bool {
        self.rival.floor() > 0
    }

    /// Whether it should be told what has not left the kernel: beside a rival, and on a long path, where a lost packet shuts the kernel's window.
    pub fn wants_unsent(&self) -> bool {
        self.has_rival() || self.is_long()
    }

    /// So much of what was handed over has not left the kernel yet.
    pub fn unsent(&mut self, octets: u64) {
        // What piles up there leaves in packets as large as they can be: a short queue has no room for them.
        let most =
            if self.is_paced() { self.enough_for(UNSENT).max(self.packet()) } else { MIN_SEGMENTS * self.segment };
        self.is_clogged = octets > most;
    }

    /// Whether what the kernel knows of single packets is wanted, for [`Governor::sacked`] and [`Governor::retransmitted`].
    pub fn wants_receipts(&self) -> bool {
        self.is_long()
    }

    /// The kernel retransmitted so many packets since the connection began (TCP_INFO's tcpi_total_retrans, tcp(7)).
    pub fn retransmitted(&mut self, now: Instant, packets: u64) {
        let is_full = self.is_clogged || self.in_flight() >= self.own_allowance() / 4 * 3;
        let (round_trip, delay) = (self.base(), self.lasting_delay());
        let is_queued = delay > self.visible();
        let overrun = self.losses.heard(Heard { now, packets, round_trip, delay, is_queued, is_full }, self.target);
        self.starting &= !overrun;
    }

    /// How fast the kernel should send at most, in octets a second, where that matters: when a missing packet has come its window opens for many at
    /// once, which a short queue has no room for. A little faster than what is handed over, which does not wait for it.
    pub fn pace(&self) -> Option<u64> {
        let micros = u64::try_from(self.base().as_micros()).unwrap_or(u64::MAX);
        self.is_paced().then(|| self.in_a_round_trip().saturating_mul(10_000 * KERNEL_PACE) / micros.max(1))
    }

    /// How many octets may be handed over now.
    pub fn room(&mut self) -> u64 {
        let room = self.allowance().saturating_sub(self.in_flight());
        self.held_back |= room == 0;
        let room = if self.is_paced() { room.min(self.pace.room()) } else { room };
        room.min(self.hidden.room())
    }

    /// How many octets of the past may be handed over now, which leaves the queue short for what is live. On a path of which little is
    /// known, a long one, and beside somebody else's queue, it is as much as of everything.
    pub fn past_room(&mut self, now: Instant) -> u64 {
        let room = self.room();
        if self.starting || self.rates.is_empty() || self.is_long() || self.has_rival() || self.doubt.is_some() {
            return room;
        }
        let is_draining = self.draining.is_some_and(|(_, until)| now < until);
        let most = match is_draining {
            true => self.enough_to_drain(),
            false => self.enough_for(self.base() + self.past_standing()).max(self.least()),
        };
        let own = most.saturating_sub(self.in_flight());
        if own == 0 {
            // What comes back then is all that the path delivers.
            self.held_back = true;
            if self.draining.is_none_or(|(began, _)| now.saturating_since(began) > DRAIN_EVERY) {
                self.draining = Some((now, now + 2 * self.latest));
            }
        }
        own.min(room)
    }

    /// How many octets may be handed over now of what comes at a rate of its own and must not wait, such as live audio: it does not wait
    /// for a queue that is not its own. Bounded all the same, for a path that is slower than even that.
    pub fn urgent_room(&self) -> u64 {
        if self.is_clogged && self.is_paced() {
            // In the kernel it would wait as long, and nothing could be left out any more.
            return 0;
        }
        URGENT.saturating_sub(self.beyond.max(self.hidden.beyond()))
    }

    /// What one packet should carry: all that it can, or an equal part of that where the link takes long for a packet.
    pub fn packet(&self) -> u64 {
        let is_long = self.is_long();
        if self.segment > LARGE_SEGMENT || (self.starting && !is_long) || (is_long && self.losses.are_chance()) {
            return self.segment;
        }
        let longest = if is_long { LONG_PACKET } else { PACKET };
        let within = |rate: u64| u64::try_from(u128::from(rate) * longest.as_micros() / 1_000_000).unwrap_or(u64::MAX);
        let unknown = self.segment / if is_long { FIRST_PACKETS } else { 1 };
        let most = self.rate().map_or(unknown, within).max(LEAST_PACKET);
        self.segment / self.segment.div_ceil(most).min(self.segment / LEAST_PACKET).max(1)
    }

    /// When a governor that gave no room wants to be asked again.
    pub fn look_after(&self) -> Duration {
        LOOK_AFTER
    }

    /// What the path delivers, in octets a second; `None` before the first measurement.
    pub fn rate(&self) -> Option<u64> {
        let own = self.own_rate()?;
        Some(self.hidden.queue().map_or(own, |(rate, _)| rate.min(own)))
    }

    /// How long the newest octets waited beyond the shortest round trip.
    pub fn queueing_delay(&self) -> Duration {
        let own = self.own_delay();
        self.hidden.queue().map_or(own, |(_, queue)| queue.max(own))
    }

    /// The rate that acknowledgements show.
    fn own_rate(&self) -> Option<u64> {
        self.rates.front().map(|(_, rate)| *rate)
    }

    /// The delay that they show.
    fn own_delay(&self) -> Duration {
        self.latest.saturating_sub(self.base())
    }

    /// What may be on its way.
    pub fn allowance(&self) -> u64 {
        if let Some(Doubt { before, trying_until: Some(_), .. }) = self.doubt {
            return self.enough_for(before + self.target).max(self.least());
        }
        match self.is_clogged && self.wants_unsent() {
            true => 0,
            false => self.own_allowance().max(self.rival.floor()),
        }
    }

    /// What may be on its way when nobody else uses the link.
    fn own_allowance(&self) -> u64 {
        let base = self.base();
        let initial = match self.is_long() {
            true => 10 * self.segment,
            false => INITIAL_ALLOWANCE.max(10 * self.segment),
        };
        if self.rates.is_empty() {
            return initial;
        }
        let standing = match self.starting {
            // What comes too much in the round trip before the queue is seen is about half of the growth.
            true if self.is_long() => (base / 2).max(START_TARGETS * self.target).min(base),
            true => base.max(self.target),
            false => self.standing(),
        };
        let least = if self.starting { initial } else { self.least() };
        if self.is_long() && self.losses.overran() {
            // What was too much has to leave the queue, and what is missing needs room in it.
            return (self.enough_for(base) / 8 * 7).max(self.least());
        }
        self.enough_for(base + standing).max(least)
    }

    /// So much may be on its way in any case.
    fn least(&self) -> u64 {
        match self.packet() {
            packet if packet < self.segment => MIN_PACKETS * packet,
            _ => MIN_SEGMENTS * self.segment,
        }
    }

    /// What is to stand in front of the link.
    fn standing(&self) -> Duration {
        match self.is_long() {
            true => self.losses.standing(self.target, self.packet_time(), self.base()),
            false => self.target,
        }
    }

    /// What is to stand there when only the past is sent.
    fn past_standing(&self) -> Duration {
        (self.target / PAST_PART).max(2 * self.packet_time()).min(self.target)
    }

    /// With no more than this on its way the queue is gone in a round trip.
    fn enough_to_drain(&self) -> u64 {
        (self.enough_for(self.base()) / 8 * 7).max(self.least())
    }

    /// How long the link takes for a packet, and a little more.
    fn packet_time(&self) -> Duration {
        let packet = if self.is_long() { self.packet() } else { self.segment };
        Duration::from_micros(packet * 1_000_000 / self.own_rate().unwrap_or(0).max(1) + 1_000)
    }

    /// On a long path a recovery holds everything up for long, live audio too, and a small error in the rate is many packets too much.
    fn is_long(&self) -> bool {
        self.base() >= LONG
    }

    /// What may leave in a round trip: what may be on its way, and a little more, or the pace itself would look like a slower link.
    fn in_a_round_trip(&self) -> u64 {
        self.own_allowance() + 2 * self.packet()
    }

    /// Beside somebody else's queue the round trip is not the path's.
    fn is_paced(&self) -> bool {
        self.is_long() && !self.has_rival() && self.doubt.is_none()
    }

    /// What the path delivers in that time.
    fn enough_for(&self, time: Duration) -> u64 {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let octets = u128::from(self.own_rate().unwrap_or(0)) * u128::from(micros) / 1_000_000;
        u64::try_from(octets).unwrap_or(u64::MAX)
    }

    /// Tries now and then whether a round trip that was forgotten holds again.
    fn doubt(&mut self, now: Instant) {
        let (base, latest) = (self.base(), self.latest);
        let Some(doubt) = &mut self.doubt else { return };
        if base <= doubt.before + doubt.before / 4 + self.target {
            self.doubt = None;
        } else if doubt.trying_until.is_some_and(|until| until <= now) {
            doubt.pause = (doubt.pause * 2).min(TRY_AT_LEAST);
            (doubt.trying_until, doubt.try_at) = (None, now + doubt.pause);
        } else if doubt.trying_until.is_none() && doubt.try_at <= now {
            doubt.trying_until = Some(now + latest * 2);
        }
    }

    /// A path that stood still is found out anew: the stall says nothing about its rate.
    fn forget_rates(&mut self) {
        self.rates.clear();
        self.marks.clear();
        self.sample_from = None;
        self.starting = true;
    }

    fn in_flight(&self) -> u64 {
        self.sent - self.acknowledged
    }

    fn base(&self) -> Duration {
        self.shortest.map_or(Duration::ZERO, |(shortest, _)| shortest)
    }

    fn round_trip(&mut self, now: Instant, measured: Duration) {
        self.latest = measured;
        if self.sacked > 0 {
            // Octets that were sent later may have arrived earlier: the shortest may be too short.
            return;
        }
        let is_old = |at: Instant| now.saturating_since(at) > ROUND_TRIP_MEMORY;
        if self.shortest.is_none_or(|(shortest, _)| measured <= shortest) {
            self.shortest = Some((measured, now));
            self.next_shortest = None;
        } else {
            if self.next_shortest.is_none_or(|(next, at)| measured <= next || is_old(at)) {
                self.next_shortest = Some((measured, now));
            }
            if self.shortest.is_some_and(|(_, at)| is_old(at)) {
                // What stands in the queue by our own will is no part of the path.
                let was_drained = self.drained_at.is_some_and(|at| !is_old(at));
                let standing = if was_drained { Duration::ZERO } else { self.standing().min(self.target) };
                let before = self.base();
                self.shortest = self.next_shortest.take().map(|(next, at)| (next.saturating_sub(standing), at));
                if self.base() > before + before / 4 + self.target {
                    let before = self.doubt.map_or(before, |doubt| doubt.before);
                    let doubt = Doubt { before, try_at: now + TRY_AFTER, pause: TRY_AFTER, trying_until: None };
                    self.doubt = Some(doubt);
                }
            }
        }
        let part = QUEUE_LASTS.max(self.base() / 8).max(2 * self.packet_time());
        if now.saturating_since(self.delays_since) >= part {
            (self.delays, self.delays_since) = ([None, self.delays[0]], now);
        }
        let delay = self.own_delay();
        self.delays[0] = Some(self.delays[0].map_or(delay, |least| least.min(delay)));
        // What waits in the kernel waits for no link.
        let is_held = self.is_clogged && self.is_long();
        self.starting &= is_held || self.lasting_delay() <= self.visible();
    }

    /// The delay that all octets had for a while, on a long path; on a short one the latest.
    fn lasting_delay(&self) -> Duration {
        match self.delays {
            _ if !self.is_long() => self.own_delay(),
            [Some(one), Some(other)] => one.min(other),
            _ => Duration::ZERO,
        }
    }

    /// A longer delay is a queue.
    fn visible(&self) -> Duration {
        // On a long path packets leave in pairs, at a pace: one behind the other is no queue.
        let pair = if self.is_long() { 2 * self.packet_time() } else { Duration::ZERO };
        (self.target / 2 + pair).min(self.target)
    }

    fn sample(&mut self, now: Instant) {
        let Some((from, acknowledged)) = self.sample_from else {
            self.sample_from = Some((now, self.acknowledged));
            return;
        };
        let elapsed = now.saturating_since(from);
        let delivered = self.acknowledged - acknowledged;
        let least = self.sample_time();
        if elapsed < least || delivered == 0 {
            return;
        }
        self.sample_from = Some((now, self.acknowledged));
        self.measured(now, elapsed, delivered);
    }

    /// A rate is measured over at least so long: one packet more or less says little, and on a long path a small error of the rate is a long queue.
    fn sample_time(&self) -> Duration {
        let packets = if self.rates.is_empty() { Duration::ZERO } else { SAMPLE_PACKETS * self.packet_time() };
        match self.is_long() {
            true => self.base(),
            false => packets.clamp(SAMPLE, RATE_MEMORY / 2),
        }
    }

    fn measured(&mut self, now: Instant, elapsed: Duration, delivered: u64) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = u64::try_from(u128::from(delivered) * 1_000_000 / u128::from(micros)).unwrap_or(u64::MAX);
        // While a packet is missing it is only about known what has arrived behind it, and then it comes all at once.
        let rate = match self.own_rate() {
            Some(known) if self.losses.recovers(now) && self.losses.are_chance() => rate.min(known + known / 4),
            Some(known) if self.losses.recovers(now) => rate.min(known),
            _ => rate,
        };
        // Who had nothing to send learns only that the path is at least that fast.
        let counts = core::mem::take(&mut self.held_back) || self.own_rate().is_none_or(|known| rate > known);
        if !counts {
            return;
        }
        let memory = RATE_MEMORY.max(self.base() * 2);
        while self.rates.pop_back_if(|(_, other)| *other <= rate).is_some() {}
        self.rates.push_back((now, rate));
        while self.rates.len() > 1 && now.saturating_since(self.rates[0].0) > memory {
            self.rates.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, vec::Vec};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A path in steps of a millisecond: one bottleneck with a queue, and a delay.
    struct Path {
        now: Instant,
        rate: u64,
        one_way: Duration,
        queue_limit: u64,
        queue: u64,
        carry: u64,
        /// Octets that have passed the bottleneck, and when their acknowledgement is back.
        acks: VecDeque<(Instant, u64)>,
        delivered: u64,
        outstanding: u64,
        waited: Vec<Duration>,
    }

    impl Path {
        fn new(rate: u64, one_way: Duration) -> Self {
            Self {
                now: Instant::from_micros(1),
                rate,
                one_way,
                queue_limit: u64::MAX,
                queue: 0,
                carry: 0,
                acks: VecDeque::new(),
                delivered: 0,
                outstanding: 0,
                waited: Vec::new(),
            }
        }

        /// A sender with endless octets in records of `record`.
        fn run(&mut self, governor: &mut Governor, duration: Duration, record: u64) {
            self.run_with(governor, duration, record, |governor, _| governor.room() > 0);
        }

        fn run_with(
            &mut self,
            governor: &mut Governor,
            duration: Duration,
            record: u64,
            may_send: impl Fn(&mut Governor, Instant) -> bool,
        ) {
            let until = self.now + duration;
            while self.now < until {
                self.now = self.now + MS;
                self.carry += self.rate / 1_000;
                let passed = self.carry.min(self.queue);
                self.carry = if self.queue > passed { self.carry - passed } else { 0 };
                self.queue -= passed;
                if passed > 0 {
                    self.acks.push_back((self.now + self.one_way + self.one_way, passed));
                }
                let now = self.now;
                while let Some((_, octets)) = self.acks.pop_front_if(|(at, _)| *at <= now) {
                    self.outstanding -= octets;
                    self.delivered += octets;
                }
                // The driver looks every few milliseconds.
                if (self.now.as_micros() / 1_000).is_multiple_of(3) {
                    governor.outstanding(self.now, self.outstanding);
                    while may_send(governor, self.now) && self.queue + record <= self.queue_limit {
                        governor.sent(self.now, record);
                        self.outstanding += record;
                        self.queue += record;
                    }
                }
                self.waited.push(Duration::from_micros(self.queue * 1_000_000 / self.rate));
            }
        }

        fn longest_wait(&mut self) -> Duration {
            let longest = self.waited.iter().copied().max().unwrap_or_default();
            self.waited.clear();
            longest
        }
    }

    #[test]
    fn the_queue_is_short_and_the_link_busy_at_every_rate_and_distance() {
        for rate in [31_250, 250_000, 1_250_000, 12_500_000] {
            for one_way in [0, 5, 30, 100, 300] {
                let mut path = Path::new(rate, MS * one_way);
                let mut governor = Governor::new(40 * MS, 1_200);
                let record = (rate / 100).clamp(1_200, 16_376);
                path.run(&mut governor, Duration::from_secs(30), record);
                path.longest_wait();
                let before = path.delivered;
                path.run(&mut governor, Duration::from_secs(10), record);
                let used = (path.delivered - before) as f64 / (rate * 10) as f64;
                // Three records, and the queue that is wanted.
                let bound = 60 * MS + Duration::from_micros(3 * record * 1_000_000 / rate);
                let wait = path.longest_wait();
                assert!(used > 0.93 && wait < bound, "{rate} B/s, {one_way} ms: {used:.3} used, waits {wait:?}");
            }
        }
    }

    #[test]
    fn the_past_keeps_the_link_busy_and_leaves_the_queue_to_what_is_live() {
        for rate in [125_000, 750_000, 2_500_000] {
            for one_way in [2, 10, 30] {
                let mut path = Path::new(rate, MS * one_way);
                let mut governor = Governor::new(40 * MS, 1_200);
                // As the driver does: less than a packet is not worth it.
                let past = |governor: &mut Governor, now| governor.past_room(now) >= 1_024;
                path.run_with(&mut governor, Duration::from_secs(5), 1_200, past);
                path.longest_wait();
                let before = path.delivered;
                // Longer than the shortest round trip is remembered, twice.
                path.run_with(&mut governor, Duration::from_secs(90), 1_200, past);
                let used = (path.delivered - before) as f64 / (rate * 90) as f64;
                // Half of the queue that live frames may make, and three packets.
                let bound = 20 * MS + Duration::from_micros(3 * 1_200 * 1_000_000 / rate);
                let wait = path.longest_wait();
                assert!(used > 0.95 && wait < bound, "{rate} B/s, {one_way} ms: {used:.3} used, waits {wait:?}");
                path.rate = rate / 3;
                path.run_with(&mut governor, Duration::from_secs(3), 1_200, past);
                path.longest_wait();
                path.run_with(&mut governor, Duration::from_secs(5), 1_200, past);
                let wait = path.longest_wait();
                assert!(wait < 3 * bound, "{rate} B/s, {one_way} ms: slower, waits {wait:?}");
            }
        }
    }

    #[test]
    fn a_past_that_gets_no_turn_drains_nothing() {
        for one_way in [2, 10, 30] {
            let mut path = Path::new(250_000, MS * one_way);
            let mut governor = Governor::new(40 * MS, 1_200);
            // What is live takes all the room that there is, and the past is asked for each time.
            let live = |governor: &mut Governor, now| {
                governor.past_room(now);
                governor.room() >= 1_024
            };
            path.run_with(&mut governor, Duration::from_secs(5), 1_200, live);
            path.longest_wait();
            path.run_with(&mut governor, Duration::from_secs(180), 1_200, live);
            let wait = path.longest_wait();
            assert!(wait < 80 * MS, "{one_way} ms: waits {wait:?}");
        }
    }

    #[test]
    fn a_rate_that_changes_is_followed_without_being_told() {
        let mut path = Path::new(250_000, 10 * MS);
        let mut governor = Governor::new(40 * MS, 1_200);
        path.run(&mut governor, Duration::from_secs(10), 2_500);
        path.longest_wait();
        path.rate = 87_500;
        path.run(&mut governor, Duration::from_secs(2), 1_200);
        let step = path.longest_wait();
        assert!(step < 250 * MS, "after the step down at most {step:?}");
        path.run(&mut governor, Duration::from_secs(8), 1_200);
        let steady = path.longest_wait();
        assert!(steady < 100 * MS, "{steady:?}");
        path.rate = 250_000;
        path.run(&mut governor, Duration::from_secs(2), 2_500);
        let before = path.delivered;
        path.run(&mut governor, Duration::from_secs(5), 2_500);
        let used = (path.delivered - before) as f64 / (250_000.0 * 5.0);
        assert!(used > 0.93, "{used:.3} of the faster link is used");
    }

    #[test]
    fn a_path_that_stood_still_is_soon_used_again() {
        for one_way in [5, 100] {
            let mut path = Path::new(250_000, MS * one_way);
            let mut governor = Governor::new(40 * MS, 1_200);
            path.run(&mut governor, Duration::from_secs(5), 2_500);
            path.rate = 1;
            path.run(&mut governor, Duration::from_secs(10), 2_500);
            path.rate = 250_000;
            path.run(&mut governor, Duration::from_secs(2), 2_500);
            path.longest_wait();
            let before = path.delivered;
            path.run(&mut governor, Duration::from_secs(3), 2_500);
            let used = (path.delivered - before) as f64 / (250_000.0 * 3.0);
            let wait = path.longest_wait();
            assert!(used > 0.93 && wait < 150 * MS, "{one_way} ms: {used:.3} used, waits {wait:?}");
        }
    }

    /// A queue that two share: octets of the other device are always so many in it, or none.
    struct Shared {
        now: Instant,
        rate: u64,
        one_way: Duration,
        /// Whose octets stand in the queue, oldest first.
        queue: VecDeque<(bool, u64)>,
        carry: u64,
        acks: VecDeque<(Instant, u64)>,
        outstanding: u64,
        delivered: u64,
        rival: u64,
        rivals_in_queue: u64,
        /// Pieces of sound that found no room when they came.
        held_up: u64,
        waits: BTreeMap<u64, Duration>,
    }

    impl Shared {
        fn new(rate: u64, one_way: Duration) -> Self {
            Self {
                now: Instant::from_micros(1),
                rate,
                one_way,
                queue: VecDeque::new(),
                carry: 0,
                acks: VecDeque::new(),
                outstanding: 0,
                delivered: 0,
                rival: 0,
                rivals_in_queue: 0,
                held_up: 0,
                waits: BTreeMap::new(),
            }
        }

        fn put(&mut self, governor: &mut Governor, octets: u64) {
            governor.sent(self.now, octets);
            self.outstanding += octets;
            self.queue.push_back((true, octets));
        }

        fn run(&mut self, governor: &mut Governor, duration: Duration) {
            let until = self.now + duration;
            while self.now < until {
                self.now = self.now + MS;
                self.carry += self.rate / 1_000;
                while let Some((own, octets)) = self.queue.front_mut() {
                    let passed = self.carry.min(*octets);
                    (*octets, self.carry) = (*octets - passed, self.carry - passed);
                    match own {
                        true => self.acks.push_back((self.now + self.one_way + self.one_way, passed)),
                        false => self.rivals_in_queue -= passed,
                    }
                    if *octets > 0 {
                        break;
                    }
                    self.queue.pop_front();
                }
                if self.queue.is_empty() {
                    self.carry = 0;
                }
                while self.rivals_in_queue < self.rival {
                    self.rivals_in_queue += 1_448;
                    self.queue.push_back((false, 1_448));
                }
                let now = self.now;
                while let Some((_, octets)) = self.acks.pop_front_if(|(at, _)| *at <= now) {
                    self.outstanding -= octets;
                    self.delivered += octets;
                }
                governor.outstanding(self.now, self.outstanding);
                let ms = self.now.as_micros() / 1_000;
                if ms.is_multiple_of(20) {
                    match governor.urgent_room() {
                        0 => self.held_up += 1,
                        _ => self.put(governor, 250),
                    }
                }
                while ms.is_multiple_of(3) && governor.room() > 0 {
                    self.put(governor, 2_500);
                }
                let queued: u64 = self.queue.iter().map(|(_, octets)| octets).sum();
                self.waits.insert(ms, Duration::from_micros(queued * 1_000_000 / self.rate));
            }
        }

        fn share(&mut self, governor: &mut Governor, duration: Duration) -> f64 {
            let before = self.delivered;
            self.waits.clear();
            self.run(governor, duration);
            (self.delivered - before) as f64 / (self.rate as f64 * duration.as_secs_f64())
        }
    }

    #[test]
    fn another_devices_upload_takes_neither_sound_nor_all_pictures() {
        for (rate, rival_ms) in [(250_000, 1_000), (250_000, 300), (1_250_000, 500)] {
            let mut link = Shared::new(rate, 10 * MS);
            let mut governor = Governor::new(40 * MS, 1_448);
            link.run(&mut governor, Duration::from_secs(5));
            link.rival = rate * rival_ms / 1_000;
            link.run(&mut governor, Duration::from_secs(15));
            let share = link.share(&mut governor, Duration::from_secs(30));
            assert!((0.1..0.5).contains(&share), "{rate} B/s, {rival_ms} ms: {share:.3} of the link");
            assert_eq!(link.held_up, 0, "{rate} B/s, {rival_ms} ms: sound");
            link.rival = 0;
            link.run(&mut governor, Duration::from_secs(25));
            let share = link.share(&mut governor, Duration::from_secs(10));
            let wait = link.waits.values().max().copied().unwrap_or_default();
            assert!(
                share > 0.93 && wait < 150 * MS,
                "{rate} B/s, {rival_ms} ms: alone again {share:.3}, waits {wait:?}"
            );
        }
    }

    #[test]
    fn a_rate_that_falls_and_falls_is_no_rival() {
        let mut path = Path::new(1_250_000, 20 * MS);
        let mut governor = Governor::new(40 * MS, 1_448);
        path.run(&mut governor, Duration::from_secs(5), 2_500);
        while path.rate > 40_000 {
            path.rate = path.rate * 2 / 3;
            path.run(&mut governor, Duration::from_millis(500), 1_200);
        }
        path.run(&mut governor, Duration::from_secs(6), 1_200);
        path.longest_wait();
        path.run(&mut governor, Duration::from_secs(15), 1_200);
        let wait = path.longest_wait();
        assert!(wait < 200 * MS, "{wait:?}");
    }

    #[test]
    fn packets_are_smaller_where_a_whole_one_takes_long_and_sound_would_wait_for_it() {
        for (rate, one_way, packet) in [(31_250, 5, 724), (16_000, 5, 482), (250_000, 5, 1_448), (31_250, 300, 482)] {
            let mut path = Path::new(rate, MS * one_way);
            let mut governor = Governor::new(40 * MS, 1_448);
            governor.connected(path.now, 2 * MS * one_way);
            path.run(&mut governor, Duration::from_secs(20), 700);
            assert_eq!(governor.packet(), packet, "{rate} B/s, {one_way} ms: {:?}", governor.rate());
        }
    }

    #[test]
    fn a_path_that_takes_everything_at_once_is_not_held_back() {
        let mut governor = Governor::new(40 * MS, 65_483);
        let mut now = Instant::from_micros(1);
        for turn in 0..10_000 {
            assert!(
                turn < 1_000 || governor.room() > 1 << 20,
                "turn {turn}: {} of {:?}",
                governor.room(),
                governor.rate()
            );
            governor.sent(now, 65_418);
            now = now + MS / 10;
            governor.outstanding(now, if turn % 3 == 0 { 65_418 } else { 0 });
        }
    }

    #[test]
    fn who_sends_little_is_never_held_back() {
        let mut governor = Governor::new(40 * MS, 1_200);
        let mut now = Instant::from_micros(1);
        for _ in 0..1_000 {
            assert!(governor.room() >= 1_000);
            governor.sent(now, 1_000);
            now = now + 50 * MS;
            governor.outstanding(now, 0);
            now = now + 50 * MS;
        }
    }
}

//! What an encoder should produce, so that its frames are carried instead of left out.
//!
//! A track whose oldest frame never waits for less than a moment brings more than its share of the uplink, and so does one of which something was
//! left out as too late: behind that hardly anything waits until the next key frame. Its encoder is then asked for somewhat less than what was
//! delivered of it, so that what waits drains. As soon as nothing waits, it is asked for a tenth more each second, up to what it produced by itself.
//! This is additive feedback of the kind of RFC 8298 section 4.1.2, from the queue in the agent: the queue in front of the uplink is the governor's.
//!
//! A value: measurements in, at most one change a second out.

use crate::time::{Duration, Instant};

/// Measurements are drawn together over this time, and nothing is told more often.
const WINDOW: Duration = Duration::from_secs(1);
/// A track whose frames always wait for longer brings too much.
const SHORT: Duration = Duration::from_millis(250);
/// A track whose frames wait for no longer at some time of the window is carried.
const CARRIED: Duration = Duration::from_millis(40);
/// Of what is delivered, per cent that the encoder is asked for: the rest drains what waits.
const DRAINING: u64 = 85;
/// No less is asked of an encoder in one step, in per cent of what was asked before.
const STEP_DOWN: u64 = 60;
/// More that is asked for each second, in per cent.
const STEP_UP: u64 = 110;
/// No picture worth seeing needs less, in octets a second.
const LEAST: u64 = 4_000;
/// Changes by less, in per cent, are not told.
const WORTH_TELLING: u64 = 10;

/// The advice for one track.
#[derive(Clone, Debug, Default)]
pub(super) struct Advice {
    /// In octets a second; `None` while the uplink is not short.
    wanted: Option<u64>,
    told: Option<u64>,
    /// What the encoder produced when nobody asked it for less.
    natural: u64,
    since: Option<Instant>,
    sent: u64,
    least_waited: Option<Duration>,
    /// Something was left out as too late.
    left_out: bool,
    /// Windows in a row in which the track was carried.
    calm: u32,
}

impl Advice {
    /// So many octets of the track were handed to the transport.
    pub(super) fn sent(&mut self, octets: u64) {
        self.sent += octets;
    }

    /// Frames of the track were left out as too late.
    pub(super) fn left_out(&mut self) {
        self.left_out = true;
    }

    /// A new session: what was measured counts no more, what was asked for does.
    pub(super) fn restart(&mut self) {
        (self.since, self.sent, self.least_waited, self.left_out) = (None, 0, None, false);
    }

    /// A look at the track: how long its oldest frame has waited, and what its encoder produces, in octets a second. A change is told in bits a
    /// second, 0 when the encoder may produce what it likes.
    pub(super) fn look(&mut self, now: Instant, waited: Duration, produced: u64) -> Option<u64> {
        self.least_waited = Some(self.least_waited.map_or(waited, |least| least.min(waited)));
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_since(since);
        if elapsed < WINDOW {
            return None;
        }
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
        let delivered = u64::try_from(u128::from(self.sent) * 1_000_000 / u128::from(micros)).unwrap_or(u64::MAX);
        let waited = self.least_waited.unwrap_or_default();
        (self.since, self.sent, self.least_waited) = (Some(now), 0, None);
        self.judge(waited, delivered, produced);
        self.tell()
    }

    fn judge(&mut self, waited: Duration, delivered: u64, produced: u64) {
        let is_short = waited > SHORT || core::mem::take(&mut self.left_out);
        self.calm = if waited <= CARRIED && !is_short { self.calm.saturating_add(1) } else { 0 };
        if is_short {
            // Where something is left out little is delivered for a while: that says less than what always waits.
            let step = if waited > SHORT || self.wanted.is_none() { STEP_DOWN } else { DRAINING };
            if self.wanted.is_none() {
                self.natural = produced.max(delivered);
            }
            let present = self.wanted.unwrap_or(self.natural);
            let wanted = (delivered * DRAINING / 100).max(present * step / 100).max(LEAST);
            self.wanted = Some(wanted.min(present.max(LEAST)));
        } else if self.calm > 1
            && let Some(wanted) = self.wanted
        {
            let more = wanted * STEP_UP / 100;
            self.wanted = (more < self.natural).then_some(more);
        }
    }

    fn tell(&mut self) -> Option<u64> {
        let is_change = match (self.told, self.wanted) {
            (Some(told), Some(wanted)) => told.abs_diff(wanted) * 100 > told * WORTH_TELLING,
            (told, wanted) => told != wanted,
        };
        if !is_change {
            return None;
        }
        self.told = self.wanted;
        Some(self.wanted.map_or(0, |octets| octets.saturating_mul(8)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::VecDeque, vec::Vec};

    use super::*;

    const STEP: Duration = Duration::from_millis(40);

    /// A link, and an encoder that does what it is asked for after half a second.
    struct Loop {
        advice: Advice,
        now: Instant,
        natural: u64,
        produces: u64,
        asked: VecDeque<(Instant, u64)>,
        queue: VecDeque<(Instant, u64)>,
        told: Vec<(Instant, u64)>,
        dropped: u64,
    }

    impl Loop {
        fn new(natural: u64) -> Self {
            Self {
                advice: Advice::default(),
                now: Instant::from_micros(1),
                natural,
                produces: natural,
                asked: VecDeque::new(),
                queue: VecDeque::new(),
                told: Vec::new(),
                dropped: 0,
            }
        }

        fn run(&mut self, duration: Duration, link: u64) -> (f64, Duration) {
            let until = self.now + duration;
            let (mut carried, mut longest) = (0, Duration::ZERO);
            while self.now < until {
                self.now = self.now + STEP;
                let now = self.now;
                while let Some((_, asked)) = self.asked.pop_front_if(|(at, _)| *at <= now) {
                    self.produces = if asked == 0 { self.natural } else { self.natural.min(asked / 8) };
                }
                self.queue.push_back((now, self.produces / 25));
                let mut room = link / 25;
                while let Some((_, octets)) = self.queue.front_mut()
                    && room > 0
                {
                    let sent = room.min(*octets);
                    self.advice.sent(sent);
                    (*octets, room, carried) = (*octets - sent, room - sent, carried + sent);
                    self.queue.pop_front_if(|(_, octets)| *octets == 0);
                }
                // The latency budget.
                while self.queue.pop_front_if(|(at, _)| now.saturating_since(*at) > Duration::from_secs(3)).is_some() {
                    self.dropped += 1;
                }
                let waited = self.queue.front().map_or(Duration::ZERO, |(at, _)| now.saturating_since(*at));
                longest = longest.max(waited);
                if let Some(bits) = self.advice.look(now, waited, self.produces) {
                    self.told.push((now, bits));
                    self.asked.push_back((now + Duration::from_millis(500), bits));
                }
            }
            (carried as f64 / (link as f64 * duration.as_secs_f64()), longest)
        }
    }

    #[test]
    fn what_is_left_out_is_too_much_though_little_waits_behind_it() {
        let (mut advice, mut now) = (Advice::default(), Instant::from_micros(1));
        let mut told = Vec::new();
        for step in 0..250_u32 {
            now = now + STEP;
            advice.sent(1_000);
            if step % 30 == 29 {
                advice.left_out();
            }
            told.extend(advice.look(now, Duration::ZERO, 50_000));
        }
        assert!(told.first().is_some_and(|bits| *bits < 400_000), "{told:?}");
        (0..1_000).for_each(|_| {
            now = now + STEP;
            advice.sent(2_000);
            told.extend(advice.look(now, Duration::ZERO, 50_000));
        });
        assert_eq!(told.last(), Some(&0), "all of it is carried again");
    }

    #[test]
    fn an_encoder_that_listens_fits_the_link_and_gets_all_back() {
        let mut run = Loop::new(500_000);
        run.run(Duration::from_secs(10), 1_000_000);
        assert_eq!(run.told, [], "a link that is wide enough asks for nothing");
        run.run(Duration::from_secs(20), 100_000);
        let dropped = run.dropped;
        let (used, longest) = run.run(Duration::from_secs(20), 100_000);
        assert!(used > 0.8 && longest < Duration::from_secs(2), "{used:.2} used, {longest:?}, {:?}", run.told);
        assert_eq!(run.dropped, dropped, "nothing is left out any more");
        run.run(Duration::from_secs(30), 1_000_000);
        assert_eq!(run.told.last().map(|(_, bits)| *bits), Some(0), "{:?}", run.told);
        assert_eq!(run.produces, 500_000);
        for pair in run.told.windows(2) {
            let (before, after) = (pair[0].1, pair[1].1);
            assert!(pair[1].0.saturating_since(pair[0].0) >= WINDOW, "{pair:?}");
            assert!(after == 0 || before == 0 || before.abs_diff(after) * 10 > before, "{pair:?}");
        }
    }

    #[test]
    fn large_key_frames_alone_are_no_reason() {
        let mut advice = Advice::default();
        let mut now = Instant::from_micros(1);
        for frame in 0..1_000_u64 {
            now = now + STEP;
            // A key frame each two seconds holds the others up for a moment.
            let waited = Duration::from_millis(if frame % 50 < 10 { 400 } else { 0 });
            advice.sent(4_000);
            assert_eq!(advice.look(now, waited, 100_000), None);
        }
    }

    #[test]
    fn an_encoder_that_does_not_listen_is_not_asked_for_less_and_less() {
        let mut run = Loop::new(500_000);
        for _ in 0..20 {
            run.run(Duration::from_secs(1), 100_000);
            run.asked.clear();
        }
        let last = run.told.last().map_or(0, |(_, bits)| *bits);
        assert!((500_000..=700_000).contains(&last) && run.told.len() < 8, "{:?}", run.told);
    }
}

//! Flows: the tracks of one source, which share a turn, and how many octets a second they bring.
//!
//! When the uplink is short, the smaller flow goes first: of those that have something waiting, all that bring at most twice the octets of the
//! smallest take turns, the others wait. So a camera's `sub` is whole before `main` gets what is left, whatever the two are called, and sources of
//! about one size share. Before anything is measured, `main` counts as large.

use alloc::{string::String, vec::Vec};

use crate::{
    frame::TrackInfo,
    scheduler::Turns,
    time::{Duration, Instant},
};

/// Arrivals are counted over this time.
const WINDOW: Duration = Duration::from_secs(2);
/// What a `main` brings as long as nothing is known of it, in octets a second.
const MAIN: u64 = 500_000;
/// What another source brings as long as nothing is known of it.
const OTHER: u64 = 60_000;
/// Flows within this factor of the smallest take turns with it.
const ALIKE: u64 = 2;

/// What arrives, in octets a second.
#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    rate: Option<u64>,
    since: Option<Instant>,
    last: Instant,
    octets: u64,
}

impl Meter {
    /// A frame came. Frames of the past, which are looked at again, do not count.
    fn arrived(&mut self, at: Instant, octets: u64) {
        if self.since.is_some() && at < self.last {
            return;
        }
        self.last = at;
        let since = *self.since.get_or_insert(at);
        let elapsed = at.saturating_since(since);
        if elapsed >= WINDOW {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
            self.rate = u64::try_from(u128::from(self.octets) * 1_000_000 / u128::from(micros)).ok();
            (self.since, self.octets) = (Some(at), 0);
        }
        self.octets += octets;
    }
}

#[derive(Debug)]
struct Flow {
    number: u32,
    camera: String,
    source: String,
    /// What it brings as long as nothing is measured.
    guess: u64,
    /// By track.
    meters: Vec<(u32, Meter)>,
}

/// All flows of an agent.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: Vec<Flow>,
    turns: Turns,
    last: u32,
    /// Those that take turns now; kept to be filled again.
    alike: Vec<u32>,
}

impl Flows {
    /// The flow of a track: that of its source.
    pub(super) fn of(&mut self, info: &TrackInfo) -> u32 {
        let known = self.flows.iter().find(|flow| flow.camera == info.camera && flow.source == info.source);
        if let Some(flow) = known {
            return flow.number;
        }
        self.last += 1;
        let guess = if info.source == "main" { MAIN } else { OTHER };
        let (camera, source) = (info.camera.clone(), info.source.clone());
        self.flows.push(Flow { number: self.last, camera, source, guess, meters: Vec::new() });
        self.last
    }

    /// Forgets tracks that have left a flow, and flows that no track has any more.
    pub(super) fn keep(&mut self, is_member: impl Fn(u32, u32) -> bool, is_used: impl Fn(u32) -> bool) {
        self.flows.retain_mut(|flow| {
            flow.meters.retain(|(track, _)| is_member(flow.number, *track));
            is_used(flow.number)
        });
    }

    /// A frame of a track of a flow is looked at for the first time.
    pub(super) fn arrived(&mut self, flow: u32, track: u32, at: Instant, octets: u64) {
        let Some(flow) = self.flows.iter_mut().find(|other| other.number == flow) else { return };
        let known = flow.meters.iter().position(|(other, _)| *other == track);
        let index = known.unwrap_or_else(|| {
            flow.meters.push((track, Meter::default()));
            flow.meters.len() - 1
        });
        flow.meters[index].1.arrived(at, octets);
    }

    /// What a flow brings, in octets a second.
    pub(super) fn rate(&self, flow: u32) -> u64 {
        let Some(flow) = self.flows.iter().find(|other| other.number == flow) else { return 0 };
        // A source whose tracks were not all seen yet counts as what it is expected to be.
        let known = flow.meters.iter().map(|(_, meter)| meter.rate).sum::<Option<u64>>();
        known.filter(|rate| *rate > 0).unwrap_or(flow.guess)
    }

    /// What a track brings, in octets a second; 0 before that is known.
    pub(super) fn rate_of_track(&self, flow: u32, track: u32) -> u64 {
        let flow = self.flows.iter().find(|other| other.number == flow);
        let meter = flow.and_then(|flow| flow.meters.iter().find(|(other, _)| *other == track));
        meter.and_then(|(_, meter)| meter.rate).unwrap_or(0)
    }

    /// Which of the flows that have something waiting goes next.
    pub(super) fn next(&mut self, waiting: impl Iterator<Item = u32> + Clone) -> Option<u32> {
        let smallest = waiting.clone().map(|flow| self.rate(flow)).min()?;
        let mut alike = core::mem::take(&mut self.alike);
        alike.clear();
        alike.extend(waiting.filter(|flow| self.rate(*flow) <= smallest.saturating_mul(ALIKE)));
        alike.sort_unstable();
        alike.dedup();
        let next = self.turns.next(&alike);
        self.alike = alike;
        next
    }

    /// A flow has sent so many octets.
    pub(super) fn sent(&mut self, flow: u32, octets: usize) {
        self.turns.sent(flow, octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(source: &str) -> TrackInfo {
        TrackInfo {
            track: 0,
            epoch: 1,
            next: 0,
            camera: "gate".into(),
            source: source.into(),
            codec: 1,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: bytes::Bytes::new(),
        }
    }

    #[test]
    fn the_smaller_flow_goes_first_by_what_is_measured_and_not_by_name() {
        let mut flows = Flows::default();
        let (main, sub) = (flows.of(&info("main")), flows.of(&info("sub")));
        assert_eq!(flows.next([main, sub].into_iter()), Some(sub), "before anything is known `main` is large");
        assert_eq!(flows.next([main].into_iter()), Some(main));
        for frame in 0..100_u64 {
            let at = Instant::from_micros(1 + frame * 40_000);
            flows.arrived(main, 0, at, 1_000);
            flows.arrived(sub, 1, at, 20_000);
            flows.arrived(sub, 2, at + WINDOW, 80);
        }
        assert!(flows.rate(main).abs_diff(25_000) < 1_000 && flows.rate(sub).abs_diff(502_000) < 20_000);
        assert_eq!(flows.next([main, sub].into_iter()), Some(main));
        flows.arrived(main, 0, Instant::from_micros(1), 1 << 30);
        assert!(flows.rate(main) < 30_000, "a repeat of the past does not count");
    }

    #[test]
    fn flows_alike_take_turns() {
        let mut flows = Flows::default();
        let (a, b) = (flows.of(&info("a")), flows.of(&info("b")));
        assert_eq!((flows.of(&info("a")), flows.of(&info("b"))), (a, b));
        let mut sent = [0, 0];
        for _ in 0..100 {
            let flow = flows.next([b, a].into_iter()).unwrap();
            flows.sent(flow, 2_000);
            sent[usize::from(flow == b)] += 1;
        }
        assert_eq!(sent, [50, 50]);
        flows.keep(|_, _| true, |flow| flow == b);
        assert_ne!(flows.of(&info("a")), a);
    }
}

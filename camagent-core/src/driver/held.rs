//! Of which source how many seconds are held that the server does not have, and how long an outage may be: what is told in
//! the statistics.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use camagent_proto::{Instant, stats::Held};

use super::Driver;
use crate::{clock, journal::flash::held::Held as OnCard, source::Fill};

/// Rates are measured over so long at least.
const MEASURE: Duration = Duration::from_secs(5);
/// Octets that the names may take in a message.
const MAX_NAMES: usize = 700;
/// Octets of JSON around a name, with both numbers.
const AROUND_A_NAME: usize = 50;

/// What sources produce.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    measured_at: Option<Instant>,
    /// By `camera/source`: octets then, and octets a second since the time before.
    sources: HashMap<String, (u64, u64)>,
}

#[derive(Default)]
struct Source {
    octets: u64,
    is_kept: bool,
    span: Option<(u64, u64)>,
}

impl Gauge {
    /// What is held now, where `room` octets are for what is kept.
    fn look(&mut self, now: Instant, fills: &[Fill], on_card: &OnCard, room: u64) -> BTreeMap<String, Held> {
        let mut sources: BTreeMap<&str, Source> = BTreeMap::new();
        for fill in fills {
            let source = sources.entry(&fill.name).or_default();
            source.octets += fill.octets;
            source.is_kept |= fill.is_kept;
            source.span = union(source.span, fill.span);
        }
        for (name, span) in &on_card.own {
            let source = sources.entry(name).or_default();
            source.span = union(source.span, Some(*span));
        }
        for name in on_card.before.keys() {
            sources.entry(name).or_default();
        }
        self.measure(now, &sources);
        let rate = |name: &str| self.sources.get(name).map_or(0, |(_, rate)| *rate);
        let kept: u64 = sources.iter().filter(|(_, source)| source.is_kept).map(|(name, _)| rate(name)).sum();
        let mut held: Vec<(&str, Held)> = sources
            .iter()
            .map(|(name, source)| {
                let own = source.span.map_or(0, |(from, to)| to.saturating_sub(from));
                let micros = own + on_card.before.get(*name).copied().unwrap_or(0);
                let is_known = source.is_kept && rate(name) > 0;
                let fits_seconds = if is_known { room / kept } else { 0 };
                (*name, Held { seconds: micros / 1_000_000, fits_seconds })
            })
            .filter(|(_, held)| *held != Held::default())
            .collect();
        // When not all have room, those that hold the most.
        held.sort_by_key(|(_, held)| std::cmp::Reverse(held.seconds));
        let mut names_left = MAX_NAMES;
        held.retain(|(name, _)| {
            let left = names_left.checked_sub(name.len() + AROUND_A_NAME);
            names_left = left.unwrap_or(names_left);
            left.is_some()
        });
        held.into_iter().map(|(name, held)| (name.to_owned(), held)).collect()
    }

    fn measure(&mut self, now: Instant, sources: &BTreeMap<&str, Source>) {
        let since = self.measured_at.map(|at| now.saturating_since(at));
        if since.is_some_and(|since| since < MEASURE) {
            return;
        }
        let micros = since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let measured = sources.iter().map(|(name, source)| {
            let before = self.sources.get(*name).map_or(source.octets, |(octets, _)| *octets);
            // A track that was made anew counts from 0.
            let more = u128::from(source.octets.saturating_sub(before)) * 1_000_000;
            let rate = more.checked_div(u128::from(micros)).unwrap_or(0);
            ((*name).to_owned(), (source.octets, u64::try_from(rate).unwrap_or(u64::MAX)))
        });
        self.sources = measured.collect();
        self.measured_at = Some(now);
    }
}

fn union(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

impl Driver {
    /// What the statistics tell.
    pub(super) fn held(&mut self) -> BTreeMap<String, Held> {
        let fills = self.shared.intake.fills();
        let on_card = self.shared.shelf.as_ref().map(|shelf| shelf.held()).unwrap_or_default();
        let (_, memory) = self.shared.intake.fill();
        let room = self.config.storage.as_ref().map_or(memory as u64, |storage| storage.max_bytes);
        self.gauge.look(clock::now(), &fills, &on_card, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(name: &str, octets: u64, is_kept: bool, span: Option<(u64, u64)>) -> Fill {
        Fill { name: name.into(), octets, is_kept, span }
    }

    #[test]
    fn seconds_and_room_of_each_source_are_told() {
        let mut gauge = Gauge::default();
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let fills = |factor: u64| {
            [
                fill("gate/main", 500_000 * factor, false, None),
                fill("gate/sub", 30_000 * factor, true, Some((5_000_000, 9_900_000))),
                fill("gate/sub", 2_000 * factor, true, Some((4_000_000, 9_000_000))),
            ]
        };
        let none = OnCard::default();
        let first = gauge.look(at(10), &fills(0), &none, 2 << 20);
        assert_eq!(first["gate/sub"], Held { seconds: 5, fits_seconds: 0 }, "no rate is known yet");
        let later = gauge.look(at(20), &fills(10), &none, 2 << 20);
        assert_eq!(later.keys().collect::<Vec<_>>(), ["gate/sub"]);
        assert_eq!(later["gate/sub"], Held { seconds: 5, fits_seconds: 65 }, "a minute of 256 kbit/s in 2 MiB");
        assert_eq!(gauge.look(at(22), &fills(10), &none, 2 << 20), later, "too early for another rate");
    }

    #[test]
    fn a_card_counts_and_names_are_bounded() {
        let mut gauge = Gauge::default();
        let on_card = OnCard {
            own: [("gate/main".to_owned(), (1_000_000, 30_000_000))].into(),
            before: [("gate/main".to_owned(), 600_000_000), ("yard/main".to_owned(), 7_000_000)].into(),
        };
        let fills = [fill("gate/main", 0, true, Some((29_000_000, 31_000_000)))];
        let held = gauge.look(Instant::ZERO, &fills, &on_card, 1);
        assert_eq!((held["gate/main"].seconds, held["yard/main"].seconds), (630, 7));
        let many: Vec<_> = (1..100_u64)
            .map(|number| fill(&format!("camera{number}/main"), 0, true, Some((0, number * 1_000_000))))
            .collect();
        let held = gauge.look(Instant::ZERO, &many, &OnCard::default(), 1);
        assert!((5..20).contains(&held.len()) && held.contains_key("camera99/main"), "{held:?}");
        assert!(serde_json::to_string(&held).unwrap().len() <= MAX_NAMES + 2);
    }
}

//! How much time of which source a folder holds that the server does not have.

use std::collections::BTreeMap;

use super::store::{Flash, LaneKey};

/// Times of arrival in microseconds, by `camera/source`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Of this run: the first and the last.
    pub(crate) own: BTreeMap<String, (u64, u64)>,
    /// Of the runs before, whose clocks were others: how long they are together.
    pub(crate) before: BTreeMap<String, u64>,
}

impl Flash {
    /// What waits in the folder.
    pub(crate) fn held(&self) -> Held {
        let mut spans: BTreeMap<LaneKey, (u64, u64)> = BTreeMap::new();
        let sealed = self.segments.iter().map(|segment| (segment.boot, &segment.runs));
        let open = self.open.iter().map(|open| (self.config.boot, &open.summary.runs));
        for (boot, run) in sealed.chain(open).flat_map(|(boot, runs)| runs.iter().map(move |run| (boot, run))) {
            let key = LaneKey { boot, track: run.track, epoch: run.epoch };
            if self.lane(&key).is_some_and(|lane| run.end > lane.freed) {
                let (from, to) = run.arrived_us;
                let span = spans.entry(key).or_insert((from, to));
                *span = (span.0.min(from), span.1.max(to));
            }
        }
        let mut held = Held::default();
        // The tracks of a source are beside each other, its runs and epochs behind each other.
        let mut of_run: BTreeMap<(String, LaneKey), u64> = BTreeMap::new();
        for (key, (from, to)) in spans {
            let Some(lane) = self.lane(&key) else { continue };
            let name = format!("{}/{}", lane.info.camera, lane.info.source);
            if key.boot == self.config.boot {
                let span = held.own.entry(name).or_insert((from, to));
                *span = (span.0.min(from), span.1.max(to));
            } else {
                let longest = of_run.entry((name, LaneKey { track: 0, ..key })).or_default();
                *longest = to.saturating_sub(from).max(*longest);
            }
        }
        for ((name, _), length) in of_run {
            *held.before.entry(name).or_default() += length;
        }
        held
    }
}

//! What the turns of a work gave, as rows and as a table.

use std::time::Duration;

use serde_json::{Value, json};

use super::traffic::Flow;
use super::works::Work;
use super::{Person, Turn};
use crate::page::Measured;

/// All turns of one contender.
pub(crate) struct Turns {
    pub(super) person: &'static Person,
    pub(super) turns: Vec<Turn>,
}

/// All turns of a work.
#[derive(Default)]
pub(crate) struct Results(Vec<Turns>);

impl Results {
    pub(crate) fn add(&mut self, person: &'static Person, turn: Turn) {
        match self.0.iter_mut().find(|turns| turns.person.who == person.who) {
            Some(turns) => turns.turns.push(turn),
            None => self.0.push(Turns { person, turns: vec![turn] }),
        }
    }

    pub(crate) fn has(&self, who: &str) -> bool {
        self.0.iter().any(|turns| turns.person.who == who)
    }

    /// Those of a contender that [`Self::has`] told.
    pub(crate) fn of(&self, who: &str) -> &Turns {
        self.0.iter().find(|turns| turns.person.who == who).expect("who takes part has turns")
    }
}

impl Turn {
    /// In a line, for who waits.
    pub(crate) fn summary(&self) -> String {
        let delays = |name: &str, delays: &[f64]| {
            let sorted = sorted(delays.iter().copied());
            let at = |part| short(percentile(&sorted, part));
            format!("{name} {} / {} / {} ms", at(0.50), at(0.95), at(0.99))
        };
        let mut parts = Vec::new();
        if !self.control.is_empty() {
            parts.push(delays("control", &self.control));
        }
        if !self.audio.is_empty() {
            parts.push(delays("audio", &self.audio));
        }
        let kbits: Vec<_> =
            Flow::ALL.iter().map(|flow| format!("{} {:.0}", flow.name(), self.flows[*flow as usize] / 1e3)).collect();
        parts.push(format!("goodput {:.3}, link used {:.3} ({} kbit/s)", self.goodput, self.used, kbits.join(", ")));
        parts.join("; ")
    }
}

impl Turns {
    /// The delay that so large a part of all control messages did not pass, in milliseconds.
    pub(crate) fn control(&self, part: f64) -> f64 {
        percentile(&sorted(self.turns.iter().flat_map(|turn| turn.control.iter().copied())), part)
    }

    /// The same of audio.
    pub(crate) fn audio(&self, part: f64) -> f64 {
        percentile(&sorted(self.turns.iter().flat_map(|turn| turn.audio.iter().copied())), part)
    }

    /// The median of the rounds.
    pub(crate) fn goodput(&self) -> f64 {
        percentile(&sorted(self.turns.iter().map(|turn| turn.goodput)), 0.5)
    }

    fn used(&self) -> f64 {
        percentile(&sorted(self.turns.iter().map(|turn| turn.used)), 0.5)
    }

    fn flow(&self, flow: Flow) -> f64 {
        percentile(&sorted(self.turns.iter().map(|turn| turn.flows[flow as usize])), 0.5)
    }

    /// A row for each kind of message, or for what arrived when there was none.
    pub(super) fn rows(&self, work: &str) -> Vec<Value> {
        let kinds = [
            self.row(work, "control_delay_ms", |turn| &turn.control),
            self.row(work, "audio_delay_ms", |turn| &turn.audio),
        ];
        let rows: Vec<_> = kinds.into_iter().flatten().collect();
        if !rows.is_empty() {
            return rows;
        }
        vec![json!({
            "bench": "uplink", "work": work, "who": self.person.who, "peer": self.person.is_peer, "metric": "goodput",
            "goodput_ratio": rounded(self.goodput()), "link_used": rounded(self.used()), "rounds": self.turns.len(),
        })]
    }

    /// A row for a kind of message.
    fn row(&self, work: &str, metric: &str, of: fn(&Turn) -> &[f64]) -> Option<Value> {
        let all = sorted(self.turns.iter().flat_map(|turn| of(turn).iter().copied()));
        if all.is_empty() {
            return None;
        }
        let rounds = sorted(self.turns.iter().map(|turn| percentile(&sorted(of(turn).iter().copied()), 0.95)));
        let at = |part| rounded(percentile(&all, part));
        Some(json!({
            "bench": "uplink", "work": work, "who": self.person.who, "peer": self.person.is_peer, "metric": metric,
            "p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "max": at(1.0),
            "p95_least": rounded(rounds[0]), "p95_most": rounded(rounds[rounds.len() - 1]),
            "messages": all.len(), "missing": all.iter().filter(|delay| delay.is_infinite()).count(),
            "goodput_ratio": rounded(self.goodput()), "link_used": rounded(self.used()), "rounds": self.turns.len(),
        }))
    }
}

/// The section of a work.
pub(crate) fn measured(
    work: &'static Work,
    length: Duration,
    introductions: &[String],
    busy: &str,
    results: Results,
) -> Measured {
    let (mut rows, mut shown) = (Vec::new(), Vec::new());
    for turns in &results.0 {
        rows.extend(turns.rows(work.name));
        let has = |of: fn(&Turn) -> &Vec<f64>| turns.turns.iter().any(|turn| !of(turn).is_empty());
        let delays = |at: &dyn Fn(f64) -> f64, there| match there {
            true => [0.50, 0.95, 0.99].map(|part| short(at(part))).join(" / "),
            false => "–".into(),
        };
        let missing = turns.turns.iter().flat_map(|turn| turn.control.iter().chain(&turn.audio));
        shown.push(json!({
            "who": turns.person.who,
            "control": delays(&|part| turns.control(part), has(|turn| &turn.control)),
            "audio": delays(&|part| turns.audio(part), has(|turn| &turn.audio)),
            "goodput": format!("{:.1}", turns.goodput() * 100.0),
            "used": format!("{:.1}", turns.used() * 100.0),
            "video": format!("{:.0}", turns.flow(Flow::Video) / 1e3),
            "bulk": format!("{:.0}", turns.flow(Flow::Bulk) / 1e3),
            "missing": missing.filter(|delay| delay.is_infinite()).count(),
        }));
    }
    let rounds = results.0.iter().map(|turns| turns.turns.len()).max().unwrap_or_default();
    let verdict = if results.has("camagent") { (work.verdict)(&results) } else { Vec::new() };
    let verdict: Vec<_> =
        verdict.iter().map(|(bar, met)| format!("* {bar}: {}", if *met { "met" } else { "missed" })).collect();
    let text = format!(
        "{} {rounds} rounds, in each of which everybody runs at once on a link of its own, {} s after {} s that do not count; delays \
         are one way, from the moment when a message was due to its arrival, over all rounds (lost: not within 15 s after the \
         end); goodput is the median of the rounds: octets of the flows that arrived, as a \
         part of what the link can carry, headers included. The machine's load average was {busy} when it began. {}.\n\n{}",
        work.text,
        length.as_secs_f64(),
        work.warm_up.as_secs_f64(),
        introductions.join("; "),
        verdict.join("\n"),
    );
    let columns = vec![
        ("who", ""),
        ("control", "control p50 / p95 / p99, ms"),
        ("audio", "audio p50 / p95 / p99, ms"),
        ("goodput", "goodput, %"),
        ("used", "link used, %"),
        ("video", "video, kbit/s"),
        ("bulk", "bulk, kbit/s"),
        ("missing", "messages that did not arrive"),
    ];
    Measured { name: work.section, title: work.title, text, columns, rows, shown: Some(shown) }
}

pub(super) fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

pub(super) fn percentile(sorted: &[f64], part: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    sorted[((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len()) - 1]
}

/// Three digits that count, for people.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value.is_infinite() => "lost".into(),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!([0.50, 0.95, 0.99, 1.0].map(|part| percentile(&values, part)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
        assert_eq!(percentile(&sorted([f64::INFINITY, 1.0].into_iter()), 0.95), f64::INFINITY);
    }
}

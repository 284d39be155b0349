//! What keeping frames costs the camera, and what it brings after an outage: the call that pushes them while everything
//! behind it stands still, opening a large folder, what is written to a card, and live pictures while the past is sent.

mod backfill;
mod bridged;
mod group;
mod open;
mod picture;
mod push;
mod wear;

use crate::page::Measured;
use crate::stage::be_first;

/// How much is measured.
#[derive(Clone, Debug)]
pub(crate) struct Amount {
    /// Rounds; as many as are kept without.
    pub(crate) rounds: Option<usize>,
    /// Only this work.
    pub(crate) work: Option<String>,
    /// Size of the folder that is opened; as large as is kept without.
    pub(crate) gigabytes: Option<usize>,
}

type Run = fn(&Amount) -> Result<(Measured, bool), String>;

/// Alone: what else runs would be measured too.
const ALONE: &[(&str, Run)] = &[("push", push::run), ("group", group::run)];
/// Alone as well, in a folder that is filled beside the others.
const OPEN: &str = "open";
/// All at once: they wait nearly all the time.
const TOGETHER: &[(&str, Run)] = &[("wear", wear::run), ("backfill", backfill::run), ("bridged", bridged::run)];

/// Sections with whether enough was measured to be kept, and the works that failed.
type Results = (Vec<(Measured, bool)>, Vec<String>);

/// Measures every work that is asked for; each is a section of its own, and one that fails costs no other.
pub(crate) fn run(amount: &Amount) -> Result<Results, String> {
    be_first();
    let is_wanted = |name: &str| amount.work.as_deref().is_none_or(|wanted| wanted == name);
    let [alone, together] = [ALONE, TOGETHER].map(|works| works.iter().filter(|(name, _)| is_wanted(name)));
    let mut all: Vec<_> = alone.map(|(name, run)| run(amount).map_err(|error| format!("{name}: {error}"))).collect();
    let (rest, folder) = std::thread::scope(|scope| {
        let threads: Vec<_> = together.map(|(name, run)| (name, scope.spawn(|| run(amount)))).collect();
        let folder = is_wanted(OPEN).then(|| scope.spawn(|| open::fill(amount)));
        let named = |name: &str, error: String| format!("{name}: {error}");
        let rest = threads.into_iter().map(|(name, thread)| ended(thread).map_err(|error| named(name, error)));
        (rest.collect::<Vec<_>>(), folder.map(|thread| ended(thread).map_err(|error| named(OPEN, error))))
    });
    all.extend(rest);
    all.extend(folder.map(|filled| open::run(&filled?, amount).map_err(|error| format!("{OPEN}: {error}"))));
    if all.is_empty() {
        let names: Vec<_> = ALONE.iter().chain(TOGETHER).map(|(name, _)| *name).chain([OPEN]).collect();
        return Err(format!("--work is one of {}", names.join(", ")));
    }
    let (mut sections, mut failures) = (Vec::new(), Vec::new());
    for result in all {
        match result {
            Ok(section) => sections.push(section),
            Err(failure) => failures.push(failure),
        }
    }
    Ok((sections, failures))
}

/// What a thread has found.
fn ended<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread.join().unwrap_or_else(|_| Err("it panicked, the lines above say why".to_owned()))
}

/// What `part` of sorted values did not exceed.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The middle of some values.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

/// Three digits are enough for anybody.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A bar in words, and whether it is met.
fn at_most(what: &str, value: f64, bar: f64) -> String {
    bar_text(what, value, &format!("<= {bar}"), value <= bar)
}

/// The same for what should be large.
fn at_least(what: &str, value: f64, bar: f64) -> String {
    bar_text(what, value, &format!(">= {bar}"), value >= bar)
}

fn bar_text(what: &str, value: f64, bar: &str, is_met: bool) -> String {
    format!("* {what}: {} (bar: {bar}), {}", rounded(value), if is_met { "met" } else { "missed" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_bars() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.99), percentile(&values, 0.0)), (2.0, 4.0, 1.0));
        assert_eq!(median([9.0, 1.0, 5.0]), 5.0);
        assert!(percentile(&[], 0.5).is_nan());
        assert_eq!(at_most("delay", 2.0, 1.5), "* delay: 2 (bar: <= 1.5), missed");
        assert_eq!(at_least("share", 0.9349, 0.9), "* share: 0.935 (bar: >= 0.9), met");
    }
}

//! Many runs, one seed after the other, and what came of them in sum.

use crate::{
    checker::{self, Breach, Kind},
    log::Log,
    plan::Plan,
    planted::Bug,
    shrink, world,
};

/// Lines of a log that are shown before the place where a promise broke.
const LINES: usize = 40;

/// What came of many runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub runs: u64,
    /// Frames that are gone without a cause.
    pub lost: u64,
    /// Frames that are there twice.
    pub duplicated: u64,
    /// Other breaches.
    pub unexplained: u64,
    /// Frames that were pushed.
    pub pushed: u64,
    /// Frames that have a cause not to be stored.
    pub explained: u64,
    /// Frames that were safe on the card when their run ended without a word, and are stored.
    pub promised: u64,
    /// Runs of agents that ended so.
    pub ended: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Seeds of the runs with breaches, the first ones.
    pub failed: Vec<u64>,
}

impl Sum {
    /// Whether every promise held in every run.
    pub fn is_good(&self) -> bool {
        (self.lost, self.duplicated, self.unexplained) == (0, 0, 0)
    }

    /// The last line of every campaign.
    pub fn line(&self) -> String {
        let Self { runs, lost, duplicated, unexplained, .. } = self;
        format!("runs {runs} lost {lost} duplicated {duplicated} unexplained {unexplained}")
    }

    /// Adds one run.
    pub fn add(&mut self, seed: u64, bug: Option<Bug>) {
        self.add_plan(&Plan::new(seed), bug);
    }

    /// Adds one run of a plan.
    pub fn add_plan(&mut self, plan: &Plan, bug: Option<Bug>) {
        let seed = plan.seed;
        let verdict = checker::check(&world::run(plan, bug));
        self.runs += 1;
        self.promised += verdict.promised;
        self.ended += verdict.ended;
        self.lost += verdict.count(Kind::Lost);
        self.duplicated += verdict.count(Kind::Duplicated);
        self.unexplained += verdict.count(Kind::Unexplained);
        self.pushed += verdict.pushed;
        self.explained += verdict.explained;
        self.faults += plan.faults.len() as u64;
        if !verdict.is_good() && self.failed.len() < 100 {
            self.failed.push(seed);
        }
    }
}

/// The first run of so many, from a seed on, that breaks a promise.
pub fn first_breach(from: u64, runs: u64, bug: Option<Bug>) -> Option<u64> {
    (from..from.wrapping_add(runs)).find(|seed| !checker::check(&world::run(&Plan::new(*seed), bug)).is_good())
}

/// What a run that failed has to say for itself: its breaches, the smaller run that fails too, and the log around the place.
pub fn explain(seed: u64, bug: Option<Bug>) -> String {
    let plan = Plan::new(seed);
    let verdict = checker::check(&world::run(&plan, bug));
    let Some(first) = verdict.breaches.first() else { return format!("seed {seed}: every promise held\n") };
    let mut text = format!("seed {seed}: {} breaches\n", verdict.breaches.len());
    for breach in verdict.breaches.iter().take(5) {
        text.push_str(&format!("  {:?}: {}\n", breach.kind, breach.what));
    }
    let small = shrink::shrink(&plan, bug, first);
    let log = world::run(&small, bug);
    let breaches = checker::check(&log).breaches;
    if let Some(breach) = breaches.iter().find(|breach| breach.rule() == first.rule()) {
        text.push_str(&shown(&small, &log, breach));
    }
    text
}

/// All that happened in a run, and the promises that broke.
pub fn told(seed: u64, bug: Option<Bug>) -> String {
    let plan = Plan::new(seed);
    let log = world::run(&plan, bug);
    let mut text = format!("{plan:#?}\n{}", log.around(log.events.len(), log.events.len()));
    for breach in checker::check(&log).breaches {
        text.push_str(&format!("line {}: {:?}: {}\n", breach.at + 1, breach.kind, breach.what));
    }
    text
}

fn shown(plan: &Plan, log: &Log, breach: &Breach) -> String {
    let (tracks, faults) = (plan.tracks.len(), &plan.faults);
    let mut text = format!(
        "made smaller: {tracks} tracks, {:.3} s, {} octets of memory, {} octets/s, {} ms\n",
        plan.length_us as f64 / 1e6,
        plan.ram,
        plan.rate,
        plan.latency_us / 1_000
    );
    for (at, fault) in faults {
        text.push_str(&format!("  at {:.6} s {fault:?}\n", *at as f64 / 1e6));
    }
    text.push_str(&format!("  {:?}: {}\n", breach.kind, breach.what));
    text.push_str(&log.around(breach.at, LINES));
    let end = log.events.len();
    if breach.at + LINES < end {
        text.push_str(&format!("  … and the end of it:\n{}", log.around(end, LINES)));
    }
    text
}

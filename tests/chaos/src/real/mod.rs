//! The same promises with real processes: `cargo xtask chaos --real`. The C example pushes, `camagent-cloud` records, a proxy is the link between
//! them; each is killed, cut off and frozen at random, and then the recording is compared with what was pushed.
//!
//! What a power cut does to a disk does not belong here: the simulation has that. Nor do numbers that repeat: a seed decides what is done, the machine
//! when it happens.

pub mod judge;
pub mod life;
pub mod outage;
pub mod probe;
pub mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use judge::Verdict;
use outage::Plan;
use tokio::task::JoinSet;
use world::Stage;

/// Outages of a round; then everything is compared.
const OUTAGES: usize = 16;

/// What a campaign is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// No outage begins after this time.
    pub lasts: Duration,
    /// The seed of the first round.
    pub seed: u64,
    /// Rounds at the same time.
    pub worlds: usize,
    /// The folders of rounds with breaches stay.
    pub keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { lasts: Duration::from_secs(60), seed: 1, worlds: 4, keep: false }
    }
}

/// Round after round, until the time is over. `progress` is told after each what came of all so far.
pub async fn campaign(options: Options, mut progress: impl FnMut(&Verdict, Duration)) -> Verdict {
    let begun = Instant::now();
    let is_over = move || begun.elapsed() >= options.lasts;
    let stage = Arc::new(Stage::build());
    let mut sum = Verdict::default();
    let (mut rounds, mut next) = (JoinSet::new(), options.seed);
    loop {
        while rounds.len() < options.worlds && !is_over() {
            let (stage, plan) = (Arc::clone(&stage), Plan::new(next, OUTAGES));
            next = next.wrapping_add(1);
            rounds.spawn(round(stage, plan, options.keep, is_over));
        }
        match rounds.join_next().await {
            Some(Ok(verdict)) => sum.add(verdict),
            Some(Err(error)) => sum.unexplained(format!("a round broke off: {error}")),
            None => return sum,
        }
        progress(&sum, begun.elapsed());
    }
}

/// One round in a folder of its own.
pub async fn round(stage: Arc<Stage>, plan: Plan, keep: bool, is_over: impl Fn() -> bool + Send) -> Verdict {
    let folder = tempfile::Builder::new().prefix("camagent-chaos-").tempdir().expect("a temporary folder");
    let mut verdict = world::round(&stage, &plan, folder.path(), is_over).await;
    if keep && !verdict.is_good() {
        verdict.told.push(format!("  everything of it is in {}", folder.keep().display()));
    }
    verdict
}

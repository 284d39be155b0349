//! The task beside the ingest: it puts complete files in their place, lets go of what is old, and after the start sees to files that a kill left
//! without a row. One file that cannot be moved or entered keeps no other one: it is tried again later, behind what else waits.
//!
//! What does not belong here: how a file is kept or entered (`archive`), which ones go (`retention`), and how the folder is looked through (`sweep`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::archive::Archive;
use super::retention::Round;
use super::sweep::Sweep;
use crate::error::Error;
use crate::event::{Event, Events};
use crate::ingest::{Ingest, Leaves, SegmentInfo};

/// What could not be moved or entered is tried again after this time.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How often old files are looked for.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// After so many failures one after the other the rest waits for the next time.
const MOST_FAILURES: u32 = 8;

/// Works until the ingest ends.
pub(super) async fn run(
    archive: Arc<Archive>,
    ingest: Arc<Ingest>,
    leaves: mpsc::Receiver<Leaves>,
    events: Arc<Events>,
) {
    let keeper = Keeper { archive, ingest, events };
    keeper.work(leaves).await;
    keeper.keep_left().await;
}

struct Keeper {
    archive: Arc<Archive>,
    ingest: Arc<Ingest>,
    events: Arc<Events>,
}

impl Keeper {
    async fn work(&self, mut leaves: mpsc::Receiver<Leaves>) {
        let every = |period: Duration| {
            let mut interval = tokio::time::interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let (mut retry, mut retention) = (every(RETRY_EVERY), every(RETENTION_EVERY));
        let (mut round, mut has_more, mut sweep) = (Round::default(), false, Some(Sweep::new()));
        loop {
            tokio::select! {
                leave = leaves.recv() => match leave {
                    Some(Leaves::Segment(name, info)) => {
                        self.keep(name, &info).await;
                    }
                    None => break,
                },
                _ = retry.tick() => self.keep_left().await,
                // One that goes on is not begun anew.
                _ = retention.tick(), if !has_more => has_more = self.let_go(&mut round).await,
                () = std::future::ready(()), if has_more => has_more = self.let_go(&mut round).await,
                () = std::future::ready(()), if sweep.is_some() => {
                    let is_over = match sweep.as_mut() {
                        Some(sweep) => sweep.step(&self.archive).await,
                        None => true,
                    };
                    if is_over {
                        sweep = None;
                        // What was entered may be too old, or too much.
                        has_more = true;
                    }
                }
            }
        }
    }

    /// True when the file is in its place.
    async fn keep(&self, name: String, info: &SegmentInfo) -> bool {
        match self.archive.keep(&name, info).await {
            Ok(()) => true,
            Err(error) => {
                self.ingest.leave_behind(name);
                if self.archive.note_trouble(Some(error.to_string())) {
                    self.tell("the index of recordings", &error);
                }
                false
            }
        }
    }

    /// Tries again what was left behind, each once.
    async fn keep_left(&self) {
        let mut failures = 0;
        for _ in 0..self.ingest.left_behind() {
            let Some((name, info)) = self.ingest.take_left() else { break };
            failures = if self.keep(name, &info).await { 0 } else { failures + 1 };
            if failures >= MOST_FAILURES {
                return;
            }
        }
        if self.ingest.left_behind() == 0 {
            self.archive.note_trouble(None);
        }
    }

    /// Whether there is more to do at once. When there is not, the round is over and is told.
    async fn let_go(&self, round: &mut Round) -> bool {
        let trouble = match self.archive.let_go(round).await {
            Ok(true) => return true,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        let Round { gone, stuck, trouble: of_file, .. } = std::mem::take(round);
        if gone > 0 {
            tracing::info!(files = gone, "old recordings are gone");
        }
        if let Some(error) = &of_file {
            self.tell(&format!("old recordings: {stuck} that cannot be removed"), error);
        }
        if let Some(error) = &trouble {
            self.tell("old recordings", error);
        }
        false
    }

    fn tell(&self, what: &str, error: &Error) {
        self.events.emit(Event::DiskTrouble { what: what.to_owned(), reason: error.to_string() });
    }
}

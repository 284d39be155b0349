//! What goes wrong in a round, as a seed says. The seed decides what is done and how long it lasts; what the machine makes of it is never the same twice.

use std::fmt;
use std::time::Duration;

use crate::chance::Chance;

/// One outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The connection ends in the middle of a record, and none comes through for a while.
    Cut,
    /// The connection is reset, and none comes through for a while.
    Reset,
    /// Everything is swallowed, new connections included, and nobody is told.
    Dark,
    /// Nothing moves; then everything goes on.
    Held,
    /// SIGKILL of the server, which is started again.
    ServerKilled,
    /// SIGTERM of the server, which is started again.
    ServerStopped,
    /// SIGSTOP of the server, then SIGCONT.
    ServerFrozen,
    /// SIGKILL of the agent, which is started again.
    AgentKilled,
    /// SIGTERM of the agent, which is started again.
    AgentStopped,
    /// SIGKILL of both.
    BothKilled,
    /// No connection for longer than memory holds.
    Away,
    /// The same, and the agent is killed before it is over.
    AwayAndKilled,
}

/// How often each comes, beside the others.
const KINDS: [(Kind, u64); 12] = [
    (Kind::Cut, 4),
    (Kind::Reset, 4),
    (Kind::Dark, 3),
    (Kind::Held, 2),
    (Kind::ServerKilled, 5),
    (Kind::ServerStopped, 2),
    (Kind::ServerFrozen, 2),
    (Kind::AgentKilled, 5),
    (Kind::AgentStopped, 2),
    (Kind::BothKilled, 2),
    (Kind::Away, 1),
    (Kind::AwayAndKilled, 1),
];

/// An outage, how long all was well before it, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// What.
    pub kind: Kind,
    /// All is let through for so long before.
    pub calm: Duration,
    /// It lasts so long.
    pub lasts: Duration,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {:.1} s", self.kind, self.lasts.as_secs_f64())
    }
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whose round.
    pub seed: u64,
    /// The agent's `storage.mode` is `write_ahead`, otherwise `spill`.
    pub write_ahead: bool,
    /// The server's `segment_seconds`.
    pub segment_seconds: u64,
    /// The outages in order.
    pub outages: Vec<Outage>,
}

impl Plan {
    /// So many outages, as the seed says.
    pub fn new(seed: u64, outages: usize) -> Self {
        let mut chance = Chance::new(seed);
        Self {
            seed,
            write_ahead: chance.one_in(2),
            segment_seconds: chance.between(2, 6),
            outages: (0..outages).map(|_| outage(&mut chance)).collect(),
        }
    }
}

fn outage(chance: &mut Chance) -> Outage {
    let mut draw = chance.below(KINDS.iter().map(|(_, weight)| weight).sum());
    let drawn = KINDS.iter().find(|(_, weight)| {
        let is_it = draw < *weight;
        draw = draw.saturating_sub(*weight);
        is_it
    });
    let kind = drawn.map_or(Kind::Cut, |(kind, _)| *kind);
    // Often before what the last one broke is well again.
    let calm = Duration::from_millis(chance.about(40, 3_000));
    let lasts = match kind {
        Kind::Away | Kind::AwayAndKilled => chance.between(10_000, 15_000),
        Kind::Dark => chance.about(200, 6_000),
        _ => chance.about(20, 2_500),
    };
    Outage { kind, calm, lasts: Duration::from_millis(lasts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_plan_and_all_kinds_come() {
        assert_eq!(Plan::new(7, 20), Plan::new(7, 20));
        assert_ne!(Plan::new(7, 20), Plan::new(8, 20));
        let drawn = Plan::new(1, 500).outages;
        for (kind, _) in KINDS {
            assert!(drawn.iter().any(|outage| outage.kind == kind), "{kind:?}");
        }
    }
}

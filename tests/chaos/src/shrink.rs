//! A run that failed, made smaller: faults, tracks and time are left out as long as it fails in the same kind.

use crate::{
    checker::{self, Breach},
    plan::Plan,
    planted::Bug,
    world,
};

/// No run is made shorter.
const SHORTEST: u64 = 500_000;

/// The smallest plan that was found to break the same promise.
pub fn shrink(plan: &Plan, bug: Option<Bug>, breach: &Breach) -> Plan {
    let rule = breach.rule();
    let fails = |plan: &Plan| {
        let breaches = checker::check(&world::run(plan, bug)).breaches;
        breaches.iter().any(|breach| breach.rule() == rule)
    };
    let mut best = plan.clone();
    loop {
        let mut candidates = Vec::new();
        for length_us in [best.length_us / 2, best.length_us * 3 / 4] {
            if length_us < SHORTEST {
                continue;
            }
            let faults = best.faults.iter().copied().filter(|(at, _)| *at < length_us).collect();
            candidates.push(Plan { length_us, faults, ..best.clone() });
        }
        for at in 0..best.faults.len() {
            let mut smaller = best.clone();
            smaller.faults.remove(at);
            candidates.push(smaller);
        }
        for at in (1..best.tracks.len()).rev() {
            let mut smaller = best.clone();
            smaller.tracks.remove(at);
            candidates.push(smaller);
        }
        match candidates.into_iter().find(|plan| fails(plan)) {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

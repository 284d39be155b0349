//! The short form of `cargo xtask chaos --real`: a handful of outages of each kind of storage.

use std::sync::Arc;

use camagent_chaos::real::{
    outage::{Kind, Outage, Plan},
    round,
    world::Stage,
};
use std::time::Duration;

/// Outages that hurt in ways of their own, each soon after the other.
fn plan(write_ahead: bool) -> Plan {
    let outage =
        |kind, calm, lasts| Outage { kind, calm: Duration::from_millis(calm), lasts: Duration::from_millis(lasts) };
    let outages = vec![
        outage(Kind::ServerKilled, 1_500, 300),
        outage(Kind::Cut, 700, 400),
        outage(Kind::AwayAndKilled, 500, 4_000),
        outage(Kind::BothKilled, 1_300, 100),
        outage(Kind::Dark, 900, 600),
    ];
    Plan { seed: 0, write_ahead, segment_seconds: 2, outages }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_outages_cost_no_frame() {
    let stage = Arc::new(Stage::build());
    let rounds =
        [true, false].map(|write_ahead| tokio::spawn(round(Arc::clone(&stage), plan(write_ahead), false, || false)));
    for round in rounds {
        let verdict = round.await.expect("it comes to its end");
        assert!(verdict.is_good(), "{}\n{}", verdict.line(), verdict.told.join("\n"));
        assert_eq!(verdict.line(), "runs 5 lost 0 duplicated 0 unexplained 0");
        assert!(verdict.pushed > 500, "{verdict:?}");
    }
}

//! Half a minute without a link, seen by who looks later: every frame that was pushed is counted and compared. The promise test
//! `healed_outages_leave_no_hole` does the same in shorter times.

use std::time::Duration;

use camagent_testkit::bridged::{Lengths, Outcome, bridged};
use serde_json::json;

use super::Amount;
use crate::page::Measured;

const LENGTHS: Lengths = Lengths {
    delay_s: 60,
    outage: Duration::from_secs(30),
    before: Duration::from_secs(10),
    after: Duration::from_secs(10),
};

pub(super) fn run(_: &Amount) -> Result<(Measured, bool), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    // It panics when a frame is missing: that is no figure.
    let outcome = runtime.block_on(bridged(LENGTHS)).ok_or("ffmpeg is missing")?;
    crate::note(&format!("bridged: {outcome:?}"));
    Ok((measured(&outcome), true))
}

fn measured(outcome: &Outcome) -> Measured {
    let row = |who: &str, [pictures, sounds]: [usize; 2]| json!({"bench": "journal-bridged", "who": who, "pictures": pictures, "sounds": sounds});
    let rows = vec![
        row("the clip", outcome.clipped),
        row(&format!("`?delay={}`", LENGTHS.delay_s), outcome.watched),
        row("pushed in all", outcome.pushed),
    ];
    let text = format!(
        "A camera (H.264 and AAC) with a card pushes at its pace while its link is down for {} s. ffmpeg watches `rtsp://…/cam/main?delay={}` all the \
         time, and takes a clip (`GET /recordings/clip`) once the gap is healed. Both have to get a run of what was pushed that goes over \
         the outage, each frame once, in order, with its octets, and with times that are a frame apart: this fails when one is missing. \
         In the outage {} pictures were pushed. The camera pushed some before and behind what was copied.",
        LENGTHS.outage.as_secs(),
        LENGTHS.delay_s,
        outcome.missed,
    );
    let columns = vec![("who", ""), ("pictures", "pictures"), ("sounds", "units of sound")];
    Measured { name: "journal-bridged", title: "An outage that nobody sees", text, columns, rows, shown: None }
}

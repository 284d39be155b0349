//! An outage that the journal bridges is seen by nobody who looks later: who watches some seconds behind, and who takes a clip of that time, gets every
//! frame that the camera pushed, with its octets, in order, at an even pace. ffmpeg is the judge. `cargo xtask bench journal --work bridged` does the
//! same with a minute of delay and an outage of half a minute.

use std::time::Duration;

use camagent_testkit::bridged::{Lengths, bridged};

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_behind_it_and_who_takes_a_clip_see_no_outage() {
    let lengths = Lengths {
        // Far more than healing takes on a busy machine.
        delay_s: 20,
        outage: Duration::from_millis(4_500),
        before: Duration::from_secs(2),
        after: Duration::from_secs(2),
    };
    let Some(outcome) = bridged(lengths).await else { return };
    assert!(outcome.missed > 80 && outcome.watched[0] > outcome.missed, "{outcome:?}");
}

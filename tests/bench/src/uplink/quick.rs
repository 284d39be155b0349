//! A look that is short enough for every run of the tests: camagent and separate connections at once, on equal full uplinks,
//! compared with each other and not with a clock.

use std::time::Duration;

use super::report::Results;
use super::works::ALL;
use super::{CAMAGENT, SEPARATE};
use crate::programs::Ground;

const WARM_UP: Duration = Duration::from_secs(5);
const LENGTH: Duration = Duration::from_secs(6);
/// Control messages and audio wait so many times shorter than on connections of their own; much less than they do.
const TIMES: f64 = 4.0;
/// Of the link's bits.
const GOODPUT: f64 = 0.85;

/// What was seen, and an error when that is not what camagent is for.
pub(crate) fn run() -> Result<String, String> {
    let certificates = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
    let ground = Ground::make(certificates.path())?;
    let work = &ALL[0];
    let mut results = Results::default();
    let turns = std::thread::scope(|scope| {
        let begin = |person| {
            let ground = &ground;
            scope.spawn(move || super::alone_after(work, person, ground, WARM_UP, LENGTH))
        };
        [&CAMAGENT, &SEPARATE].map(begin).map(|thread| thread.join().expect("a turn does not panic"))
    });
    let mut said = Vec::new();
    for turn in turns {
        for (person, turn) in turn? {
            said.push(format!("{}: {}", person.who, turn.summary()));
            results.add(person, turn);
        }
    }
    let (own, other) = (results.of("camagent"), results.of("separate"));
    let said = said.join("\n");
    for (what, own, other) in [
        ("control messages", own.control(0.95), other.control(0.95)),
        ("live audio", own.audio(0.95), other.audio(0.95)),
    ] {
        if own * TIMES > other {
            return Err(format!("{what} wait {own:.0} ms, and {other:.0} ms on connections of their own\n{said}"));
        }
    }
    if own.goodput() < GOODPUT {
        return Err(format!("the goodput is {:.3} of the link\n{said}", own.goodput()));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use camagent_testkit::emulator::{Setup, Uplink};

    #[test]
    #[allow(clippy::print_stderr, reason = "a measurement shows its number")]
    fn control_and_audio_do_not_wait_behind_what_fills_the_uplink() {
        // Tells, once, when this machine cannot emulate a link.
        if Uplink::of(Setup::default()).is_none() {
            return;
        }
        match super::run() {
            Ok(said) => eprintln!("{said}"),
            Err(why) => panic!("{why}"),
        }
    }
}

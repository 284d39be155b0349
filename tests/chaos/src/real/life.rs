//! One run of the agent's process as the harness saw it: what it pushed, by the ledger that the C example writes, and how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A frame of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Its time: what the machine's steady clock showed when it was due.
    pub pts_us: i64,
    /// Where its octets are in the file that is played.
    pub at: usize,
    /// How many.
    pub octets: usize,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// On the steady clock, when it was over.
    pub at_us: i64,
    /// In UTC, when it was told: it pushed nothing from then on.
    pub utc_us: i64,
    /// By SIGKILL; otherwise as it should.
    pub was_killed: bool,
    /// Frames that were on the card then: track and number.
    pub on_card: BTreeSet<(u32, u64)>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its ledger.
    pub ledger: PathBuf,
    /// Its beginning on the steady clock.
    pub began_us: i64,
    /// The same in UTC.
    pub began_utc_us: i64,
    /// Its end; none while it runs.
    pub end: Option<End>,
}

impl Life {
    /// What it pushed and the agent kept, by track, in order: a frame's place is its number.
    pub fn pushed(&self) -> BTreeMap<u32, Vec<Pushed>> {
        let text = std::fs::read_to_string(&self.ledger).unwrap_or_default();
        read(&text)
    }

    /// Whether a time of a frame belongs to it.
    pub fn has(&self, pts_us: i64) -> bool {
        pts_us >= self.began_us && self.end.as_ref().is_none_or(|end| pts_us <= end.at_us)
    }
}

fn read(ledger: &str) -> BTreeMap<u32, Vec<Pushed>> {
    let mut tracks: BTreeMap<u32, Vec<Pushed>> = BTreeMap::new();
    // A line without its end was cut by a kill: the frame had not been pushed.
    for line in ledger.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split(' ');
        let kind = words.next();
        let numbers: Vec<i64> = words.filter_map(|word| word.parse().ok()).collect();
        match (kind, numbers.as_slice()) {
            (Some("frame"), &[track, pts_us, at, octets]) => {
                let frame = Pushed { pts_us, at: at as usize, octets: octets as usize };
                tracks.entry(track as u32).or_default().push(frame);
            }
            // The last one was not kept.
            (Some("left"), &[track, _]) => {
                tracks.entry(track as u32).or_default().pop();
            }
            _ => {}
        }
    }
    tracks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_what_was_kept() {
        let tracks = read("frame 0 5 0 10\nleft 0 5\nframe 0 45 10 7\nframe 1 40 0 160\nframe 0 85 17 9");
        assert_eq!(tracks[&0], [Pushed { pts_us: 45, at: 10, octets: 7 }]);
        assert_eq!(tracks[&1], [Pushed { pts_us: 40, at: 0, octets: 160 }]);
    }
}

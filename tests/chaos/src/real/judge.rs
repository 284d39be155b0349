//! Compares what was recorded with what was pushed, octet by octet. Knows the promises and nothing of how they are kept.
//!
//! * Every frame is recorded once, with the octets that were pushed, under the number that it had.
//! * Of a run that was killed those frames may be missing that were neither on the card nor at the server; they are its last ones, and few
//!   ([`Allowance`]). Of a run that was stopped none may be missing.
//! * No other frame is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use camagent_testkit::core::Codec;
use camagent_testkit::journal::Boot;
use camagent_testkit::nal;
use camagent_testkit::recordings::{self, Recorded};

use super::life::{Life, Pushed};

/// Breaches that are told in words.
const TOLD: usize = 40;

/// What a kill may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// What was pushed in so many microseconds.
    Time(i64),
    /// So many octets.
    Octets(usize),
}

/// The files that are played: pictures as track 0, sound as track 1.
pub struct Played {
    /// H.264 in Annex B.
    pub pictures: Vec<u8>,
    /// A-law.
    pub sounds: Vec<u8>,
}

/// What came of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Outages that there were.
    pub outages: u64,
    /// Frames that were pushed.
    pub pushed: u64,
    /// Frames that a kill cost, as it may.
    pub explained: u64,
    /// The oldest of those was so old then, in microseconds.
    pub oldest_us: i64,
    /// Frames that should be there.
    pub lost: u64,
    /// Frames that are there more than once.
    pub duplicated: u64,
    /// Everything else that is not as it should be.
    pub unexplained: u64,
    /// The first of these in words.
    pub told: Vec<String>,
}

impl Verdict {
    /// Adds what came of another round.
    pub fn add(&mut self, other: Self) {
        self.outages += other.outages;
        self.pushed += other.pushed;
        self.explained += other.explained;
        self.oldest_us = self.oldest_us.max(other.oldest_us);
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.unexplained += other.unexplained;
        self.told.extend(other.told);
    }

    /// Whether every promise held.
    pub fn is_good(&self) -> bool {
        (self.lost, self.duplicated, self.unexplained) == (0, 0, 0)
    }

    /// The last line of every campaign.
    pub fn line(&self) -> String {
        let Self { outages, lost, duplicated, unexplained, .. } = self;
        format!("runs {outages} lost {lost} duplicated {duplicated} unexplained {unexplained}")
    }

    /// Takes note of something that nothing explains.
    pub fn unexplained(&mut self, what: String) {
        self.unexplained += 1;
        self.tell(what);
    }

    fn tell(&mut self, what: String) {
        if self.told.len() < TOLD {
            self.told.push(what);
        }
    }
}

/// What is recorded, read file by file: those that are complete once.
#[derive(Default)]
pub struct Shelf {
    complete: BTreeMap<PathBuf, Vec<Recorded>>,
    open: Vec<(PathBuf, Vec<Recorded>)>,
    /// What could not be read.
    pub faults: Vec<String>,
}

impl Shelf {
    /// Looks at the folder as it is now. While a server runs a file that is moved in between may be seen twice.
    pub fn look(&mut self, folder: &Path) {
        self.open.clear();
        for file in recordings::files(folder) {
            if self.complete.contains_key(&file) {
                continue;
            }
            let is_open = file.starts_with(folder.join("open"));
            match recordings::read(&file) {
                Ok(frames) if is_open => self.open.push((file, frames)),
                Ok(frames) => {
                    self.complete.insert(file, frames);
                }
                // It was moved meanwhile.
                Err(_) if !file.exists() => {}
                Err(fault) => self.faults.push(format!("{}: {fault}", file.display())),
            }
        }
    }

    /// All frames.
    pub fn frames(&self) -> impl Iterator<Item = (&PathBuf, &Recorded)> {
        let open = self.open.iter().map(|(file, frames)| (file, frames));
        self.complete.iter().chain(open).flat_map(|(file, frames)| frames.iter().map(move |frame| (file, frame)))
    }

    /// Which run of the agent each boot is, by the times of its frames.
    pub fn boots(&self, lives: &[Life]) -> BTreeMap<Boot, usize> {
        let told = self.frames().filter_map(|(_, frame)| Some((frame.boot, frame.pts_us?)));
        told.filter_map(|(boot, pts_us)| Some((boot, lives.iter().position(|life| life.has(pts_us))?))).collect()
    }

    /// How many frames are not there that a run which has ended left on the card; and the runs of which something is there.
    pub fn awaited(&self, lives: &[Life]) -> (usize, BTreeSet<usize>) {
        let boots = self.boots(lives);
        let there: BTreeSet<_> = self
            .frames()
            .filter_map(|(_, frame)| Some((*boots.get(&frame.boot)?, frame.track, frame.sequence)))
            .collect();
        let left = lives.iter().enumerate().filter_map(|(number, life)| Some((number, life.end.as_ref()?)));
        let left =
            left.flat_map(|(number, end)| end.on_card.iter().map(move |(track, sequence)| (number, *track, *sequence)));
        let awaited = left.filter(|key| !there.contains(key)).count();
        (awaited, there.into_iter().map(|(life, ..)| life).collect())
    }
}

/// Judges a round: all its runs have ended, and the server has.
pub fn judge(lives: &[Life], shelf: &Shelf, played: &Played, allowance: Allowance) -> Verdict {
    let mut verdict = Verdict::default();
    shelf.faults.iter().for_each(|fault| verdict.unexplained(fault.clone()));
    let boots = shelf.boots(lives);
    let pushed: Vec<_> = lives.iter().map(Life::pushed).collect();
    let mut there: BTreeMap<(usize, u32, u64), u32> = BTreeMap::new();
    for (file, frame) in shelf.frames() {
        let Recorded { boot, track, epoch, sequence, .. } = frame;
        let place = || format!("track {track} epoch {epoch} frame {sequence} in {}", file.display());
        let Some(&life) = boots.get(boot) else {
            verdict.unexplained(format!("{}: of no run of the agent", place()));
            continue;
        };
        let own = pushed[life].get(track).and_then(|frames| frames.get(usize::try_from(*sequence).ok()?));
        let Some(own) = own else {
            verdict.unexplained(format!("{}: run {life} pushed no such frame", place()));
            continue;
        };
        if *epoch != 1 {
            verdict.unexplained(format!("{}: run {life} had one epoch only", place()));
        }
        if frame.pts_us.is_some_and(|pts_us| pts_us != own.pts_us) {
            verdict.unexplained(format!("{}: its time is {:?}, not {}", place(), frame.pts_us, own.pts_us));
        }
        if let Err(what) = is_same(*track, own, frame, played) {
            verdict.unexplained(format!("{}: {what}", place()));
        }
        let count = there.entry((life, *track, *sequence)).or_default();
        *count += 1;
        if *count > 1 {
            verdict.duplicated += 1;
            verdict.tell(format!("{}: run {life}: it is there {count} times", place()));
        }
    }
    for (number, (life, tracks)) in lives.iter().zip(&pushed).enumerate() {
        judge_missing((number, life), tracks, &there, allowance, &mut verdict);
    }
    verdict
}

fn judge_missing(
    (number, life): (usize, &Life),
    tracks: &BTreeMap<u32, Vec<Pushed>>,
    there: &BTreeMap<(usize, u32, u64), u32>,
    allowance: Allowance,
    verdict: &mut Verdict,
) {
    let Some(end) = &life.end else { return };
    let mut octets = 0;
    let lose = |what: String, verdict: &mut Verdict| {
        verdict.lost += 1;
        verdict.tell(format!("run {number}: {what} is not recorded"));
    };
    for (track, frames) in tracks {
        verdict.pushed += frames.len() as u64;
        let newest = there.range((number, *track, 0)..=(number, *track, u64::MAX)).next_back().map(|(key, _)| key.2);
        for (sequence, frame) in (0..).zip(frames) {
            if there.contains_key(&(number, *track, sequence)) {
                continue;
            }
            let age_us = end.at_us - frame.pts_us;
            let name = format!("track {track} frame {sequence}, {:.3} s before its end,", age_us as f64 / 1e6);
            octets += frame.octets;
            let is_allowed = match allowance {
                Allowance::Time(us) => age_us <= us,
                Allowance::Octets(most) => octets <= most,
            };
            if !end.was_killed {
                lose(format!("{name} of a run that was stopped"), verdict);
            } else if end.on_card.contains(&(*track, sequence)) {
                lose(format!("{name} which was on the card"), verdict);
            } else if newest.is_some_and(|newest| newest > sequence) {
                lose(format!("{name} with later ones that are"), verdict);
            } else if !is_allowed {
                lose(format!("{name} older than a kill may cost ({allowance:?}, {octets} octets)"), verdict);
            } else {
                verdict.explained += 1;
                verdict.oldest_us = verdict.oldest_us.max(age_us);
            }
        }
    }
}

fn is_same(track: u32, pushed: &Pushed, recorded: &Recorded, played: &Played) -> Result<(), String> {
    let file = if track == 0 { &played.pictures } else { &played.sounds };
    let octets = file.get(pushed.at..pushed.at + pushed.octets).ok_or("the ledger is wrong")?;
    let is_same = if track == 0 {
        // Delimiters are not recorded.
        let wanted = nal::units(octets).into_iter().filter(|unit| nal::kind(Codec::H264, unit) != 9);
        wanted.eq(recordings::units(&recorded.octets)?)
    } else {
        recorded.octets == octets
    };
    if is_same { Ok(()) } else { Err("other octets than were pushed".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::super::life::End;
    use super::*;

    const PICTURE: &[u8] = &[0, 0, 0, 1, 9, 0x10, 0, 0, 0, 1, 0x65, 0x88, 7];
    const SAMPLE: &[u8] = &[0, 0, 0, 3, 0x65, 0x88, 7];

    /// Three pictures, 40 ms apart, and an end right behind them.
    fn life(folder: &Path, was_killed: bool, on_card: &[u64]) -> Life {
        let ledger = folder.join("ledger");
        let lines: String = (0..3).map(|at| format!("frame 0 {} 0 {}\n", at * 40_000, PICTURE.len())).collect();
        std::fs::write(&ledger, lines).unwrap();
        let on_card: BTreeSet<_> = on_card.iter().map(|sequence| (0, *sequence)).collect();
        let end = End { at_us: 100_000, utc_us: 0, was_killed, on_card };
        Life { ledger, began_us: 0, began_utc_us: 0, end: Some(end) }
    }

    fn verdict(life: Life, recorded: &[(u64, &[u8])]) -> (u64, u64, u64, u64) {
        let frame = |(sequence, octets): &(u64, &[u8])| Recorded {
            boot: [1; 16],
            track: 0,
            epoch: 1,
            sequence: *sequence,
            pts_us: Some(i64::try_from(*sequence).unwrap() * 40_000),
            octets: octets.to_vec(),
        };
        let shelf = Shelf { open: vec![(PathBuf::new(), recorded.iter().map(frame).collect())], ..Shelf::default() };
        let played = Played { pictures: PICTURE.to_vec(), sounds: Vec::new() };
        let found = judge(&[life], &shelf, &played, Allowance::Time(70_000));
        (found.lost, found.duplicated, found.unexplained, found.explained)
    }

    #[test]
    fn each_promise_is_missed_when_it_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let life = |was_killed, on_card: &[u64]| life(folder.path(), was_killed, on_card);
        let all: [(u64, &[u8]); 3] = [(0, SAMPLE), (1, SAMPLE), (2, SAMPLE)];
        assert_eq!(verdict(life(false, &[]), &all), (0, 0, 0, 0));
        assert_eq!(verdict(life(false, &[]), &all[..2]), (1, 0, 0, 0), "a run that was stopped costs nothing");
        assert_eq!(verdict(life(true, &[]), &all[..2]), (0, 0, 0, 1), "20 ms old");
        assert_eq!(verdict(life(true, &[2]), &all[..2]), (1, 0, 0, 0), "it was on the card");
        assert_eq!(verdict(life(true, &[]), &all[..1]), (0, 0, 0, 2));
        assert_eq!(verdict(life(true, &[]), &[all[0], all[2]]), (1, 0, 0, 0), "a hole is no end");
        assert_eq!(verdict(life(true, &[]), &[all[0], all[0]]), (0, 1, 0, 2));
        assert_eq!(verdict(life(true, &[]), &[]), (1, 0, 0, 2), "100 ms old");
        let other: (u64, &[u8]) = (2, &[0, 0, 0, 1, 7]);
        assert_eq!(verdict(life(false, &[]), &[all[0], all[1], other]), (0, 0, 1, 0), "other octets");
        assert_eq!(verdict(life(false, &[]), &[all[0], all[1], all[2], (3, SAMPLE)]), (0, 0, 1, 0), "never pushed");
    }
}

//! A backlog in memory, and a store of recordings that remembers how far each epoch came.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use bytes::Bytes;

use crate::{
    frame::{EndReason, FrameHead, SkipReason, TrackInfo},
    message::BootId,
    transfer::{Backlog, Entry, EpochKey, Look, Past, Waiting},
};

/// What a test backlog has of one epoch.
#[derive(Debug)]
struct Held {
    waiting: Waiting,
    frames: BTreeMap<u64, (FrameHead, Bytes)>,
    passed: u64,
    is_declined: bool,
}

/// Frames of any runs, in the order in which their epochs were added.
#[derive(Debug, Default)]
pub struct TestBacklog {
    epochs: Vec<Held>,
    generation: u64,
    looks: u64,
    /// Every other look finds nothing in memory yet.
    pub is_slow: bool,
    /// With every so many copies it is read anew from the beginning, as a card that failed and was opened again. 0: never.
    pub restarts_every: u64,
    copies: u64,
    /// What comes while it is looked at, and with which look.
    late: Option<(u64, Held)>,
}

impl TestBacklog {
    /// Adds an epoch that holds the frames `numbers`, and of which `end` is the number behind the last one.
    pub fn add(&mut self, boot: BootId, info: TrackInfo, numbers: impl Iterator<Item = u64>, end: u64, length: usize) {
        self.epochs.push(Held::new(boot, info, numbers, end, length));
        self.generation += 1;
    }

    /// The same between two questions of the sender's: with so many looks more.
    pub fn add_while_looked_at(
        &mut self,
        looks: u64,
        boot: BootId,
        info: TrackInfo,
        numbers: impl Iterator<Item = u64>,
        end: u64,
        length: usize,
    ) {
        self.late = Some((self.looks + looks, Held::new(boot, info, numbers, end, length)));
    }

    /// Adds frames to an epoch that goes on.
    pub fn grow(&mut self, boot: BootId, info: TrackInfo, numbers: impl Iterator<Item = u64>, end: u64, length: usize) {
        let mut more = Held::new(boot, info, numbers, end, length);
        more.waiting.ended = None;
        match self.epochs.iter_mut().find(|held| held.waiting.key() == more.waiting.key()) {
            Some(held) => {
                held.waiting.end = end;
                held.frames.append(&mut more.frames);
            }
            None => self.epochs.push(more),
        }
        self.generation += 1;
    }

    /// Frames that it holds.
    pub fn len(&self) -> usize {
        self.epochs.iter().map(|held| held.frames.len()).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is(&self, (at, number): (usize, u64), key: &EpochKey, sequence: u64) -> bool {
        self.epochs[at].waiting.key() == *key && number == sequence
    }

    fn next(&self) -> Option<(usize, u64)> {
        self.epochs
            .iter()
            .enumerate()
            .filter(|(_, held)| !held.is_declined)
            .find_map(|(at, held)| held.frames.range(held.passed..).next().map(|(number, _)| (at, *number)))
    }
}

impl Held {
    fn new(boot: BootId, info: TrackInfo, numbers: impl Iterator<Item = u64>, end: u64, length: usize) -> Self {
        let waiting = Waiting { boot, end, clock: (0, 0), ended: Some(EndReason::PowerCut), info };
        let octets = |number: u64| super::payload(waiting.info.track, waiting.info.epoch, number, length);
        let frames = numbers.map(|number| (number, (FrameHead::default(), octets(number)))).collect();
        Self { frames, waiting, passed: 0, is_declined: false }
    }
}

impl Backlog for TestBacklog {
    fn generation(&mut self) -> u64 {
        self.generation
    }

    fn waiting(&mut self) -> Vec<Waiting> {
        self.epochs.iter().map(|held| held.waiting.clone()).collect()
    }

    fn look(&mut self) -> Look {
        self.looks += 1;
        let looks = self.looks;
        if let Some((_, held)) = self.late.take_if(|(with, _)| *with <= looks) {
            self.epochs.push(held);
            self.generation += 1;
        }
        if self.is_slow && self.looks.is_multiple_of(2) {
            return Look::Later;
        }
        let Some((at, sequence)) = self.next() else { return Look::Nothing };
        let held = &self.epochs[at];
        let (head, octets) = &held.frames[&sequence];
        Look::Frame(held.waiting.key(), Entry { sequence, head: *head, length: octets.len() as u64 })
    }

    fn copy(&mut self, key: &EpochKey, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        self.copies += 1;
        if self.restarts_every > 0 && self.copies.is_multiple_of(self.restarts_every) {
            self.epochs.iter_mut().for_each(|held| held.passed = 0);
        }
        let Some((at, _)) = self.next().filter(|next| self.is(*next, key, sequence)) else { return false };
        let octets = &self.epochs[at].frames[&sequence].1;
        let from = offset as usize;
        into.copy_from_slice(&octets[from..from + into.len()]);
        true
    }

    fn pass(&mut self, key: &EpochKey, sequence: u64) {
        if let Some((at, _)) = self.next().filter(|next| self.is(*next, key, sequence)) {
            self.epochs[at].passed = sequence + 1;
        }
    }

    fn decline(&mut self, key: &EpochKey) {
        self.epochs.iter_mut().filter(|held| held.waiting.key() == *key).for_each(|held| held.is_declined = true);
    }

    fn hole(&mut self, key: &EpochKey, number: u64) -> Option<(SkipReason, u64)> {
        let held = self.epochs.iter().find(|held| held.waiting.key() == *key);
        let next = held.and_then(|held| held.frames.range(number..).next().map(|(number, _)| *number));
        Some((SkipReason::OverBudget, next.map_or(u64::MAX, |next| next - 1)))
    }

    fn stored(&mut self, key: &EpochKey, next: u64) {
        for held in self.epochs.iter_mut().filter(|held| held.waiting.key() == *key) {
            held.frames.retain(|number, _| *number >= next);
        }
    }

    fn rewind(&mut self, _lost: Option<&[(u32, u64)]>) {
        self.epochs.iter_mut().for_each(|held| (held.passed, held.is_declined) = (0, false));
        self.generation += 1;
    }
}

/// What a server has stored of the past.
#[derive(Debug, Default)]
pub struct TestStore {
    /// The number behind the last one of each epoch.
    pub next: BTreeMap<EpochKey, u64>,
    /// Epochs that were said to be over.
    pub ended: BTreeSet<EpochKey>,
    /// Frames of the past in the order of their coming; panics at one that it has.
    pub frames: Vec<(EpochKey, u64)>,
    /// Numbers that will never come.
    pub holes: Vec<(EpochKey, u64, u64)>,
}

impl TestStore {
    /// Takes something of the past; the epoch, and how far it is stored.
    pub(super) fn take(&mut self, past: &Past) -> (EpochKey, u64) {
        let key = match past {
            Past::Opened(journal) => {
                EpochKey { boot: BootId(journal.boot), track: journal.info.track, epoch: journal.info.epoch }
            }
            Past::Frame(key, frame) => {
                let next = self.next.entry(*key).or_default();
                assert!(frame.sequence >= *next, "{} came twice", frame.sequence);
                *next = frame.sequence + 1;
                let octets = super::payload(key.track, key.epoch, frame.sequence, frame.payload.len());
                assert_eq!(frame.payload, octets, "octets of another frame");
                self.frames.push((*key, frame.sequence));
                *key
            }
            Past::Skip(key, skip) => {
                self.next.insert(*key, skip.last + 1);
                self.holes.push((*key, skip.first, skip.last));
                *key
            }
            Past::Ended { key, .. } => {
                self.ended.insert(*key);
                *key
            }
        };
        (key, self.next.get(&key).copied().unwrap_or(0))
    }
}

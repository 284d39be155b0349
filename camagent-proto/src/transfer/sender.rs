//! The agent's half: reads the journal in order of arrival and fills records.
//!
//! A track's epochs follow each other: all frames of one are sent before the next is announced. Frames that the journal no longer has become a SKIP.

use alloc::{collections::VecDeque, format, vec::Vec};

use super::{Entry, Journal};
use crate::{
    error::Error,
    frame::{Body, Frame, FrameAbort, FrameMore, FrameStart, Mack, RecordWriter, Skip, SkipReason, TrackInfo},
    message::{Limits, ResumePoint},
    varint,
};

/// What a sender has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferCounts {
    /// Frames sent to their end, repeats included.
    pub frames_sent: u64,
    /// Frames that were told to the server as lost.
    pub frames_skipped: u64,
}

#[derive(Debug)]
struct Partial {
    entry: Entry,
    offset: u64,
}

#[derive(Debug)]
struct Epoch {
    info: TrackInfo,
    announced: bool,
    /// The next number to send.
    next: u64,
    /// All below are received.
    received: u64,
    /// All below that were lost are counted: a repeat of the same SKIP after a reconnect counts once.
    counted: u64,
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Track {
    number: u32,
    /// Oldest first; the last one is the current one.
    epochs: VecDeque<Epoch>,
}

/// Fills records from the journal, and takes the server's acknowledgements.
#[derive(Debug, Default)]
pub struct Sender {
    tracks: Vec<Track>,
    limits: Limits,
    counts: TransferCounts,
    head: Vec<u8>,
}

impl Sender {
    /// A sender without tracks.
    pub fn new() -> Self {
        Self::default()
    }

    /// A track begins, or begins a new epoch. The current epoch again changes its description; an older one is passed over.
    pub fn announce(&mut self, info: TrackInfo) {
        let number = info.track;
        let at = match self.tracks.iter().position(|track| track.number == number) {
            Some(at) => at,
            None => {
                self.tracks.push(Track { number, epochs: VecDeque::new() });
                self.tracks.len() - 1
            }
        };
        let epochs = &mut self.tracks[at].epochs;
        match epochs.back_mut() {
            Some(current) if info.epoch < current.info.epoch => {}
            Some(current) if info.epoch == current.info.epoch => {
                current.info = info;
                current.announced = false;
            }
            _ => {
                let next = info.next;
                epochs.push_back(Epoch { info, announced: false, next, received: next, counted: next, partial: None });
            }
        }
    }

    /// A session begins: everything that was not received is sent again, from where the server stands.
    pub fn rewind(&mut self, points: &[ResumePoint], limits: &Limits, journal: &mut dyn Journal) {
        self.limits = *limits;
        for track in &mut self.tracks {
            let point = points.iter().find(|point| point.track == track.number);
            for epoch in &mut track.epochs {
                epoch.announced = false;
                epoch.partial = None;
                let end = journal.end(track.number, epoch.info.epoch);
                let known = match point {
                    // A newer epoch was begun only after all of this one had been sent, on a transport that keeps the order.
                    Some(point) if point.epoch > epoch.info.epoch => end,
                    Some(point) if point.epoch == epoch.info.epoch => point.next.min(end),
                    _ => epoch.received,
                };
                epoch.received = epoch.received.max(known);
                epoch.next = epoch.received;
                journal.received(track.number, epoch.info.epoch, epoch.received);
            }
            retire(track, journal);
        }
    }

    /// Takes an acknowledgement and frees the journal.
    pub fn acknowledged(&mut self, mack: &Mack, journal: &mut dyn Journal) -> Result<(), Error> {
        let wrong = |place, expected, got| Err(Error::Violation { place, expected, got });
        let Some(track) = self.tracks.iter_mut().find(|track| track.number == mack.track) else {
            return wrong("MACK track", "a track that was announced", format!("{}", mack.track));
        };
        let Some(epoch) = track.epochs.iter_mut().find(|epoch| epoch.info.epoch == mack.epoch) else {
            // An acknowledgement may cross with the end of its epoch.
            return Ok(());
        };
        if mack.received > epoch.next {
            return wrong("MACK received", "at most the next number to send", format!("{}", mack.received));
        }
        if mack.received > epoch.received {
            epoch.received = mack.received;
            journal.received(mack.track, mack.epoch, mack.received);
        }
        // An epoch was begun only after all of the ones before it had been sent, on a transport that keeps the order: who has
        // heard of it has received those, and will not name them any more.
        for older in track.epochs.iter_mut().take_while(|older| older.info.epoch < mack.epoch) {
            older.received = older.next;
            journal.received(mack.track, older.info.epoch, older.next);
        }
        retire(track, journal);
        Ok(())
    }

    /// Writes as much as fits into `record`, oldest arrival first.
    pub fn fill(&mut self, record: &mut RecordWriter, journal: &mut dyn Journal) {
        while record.room() > 64 && self.step(record, journal) {}
    }

    /// Counters since the sender was made.
    pub fn counts(&self) -> TransferCounts {
        self.counts
    }

    /// Whether every frame of the journal was sent and acknowledged.
    pub fn is_settled(&self, journal: &mut dyn Journal) -> bool {
        self.tracks
            .iter()
            .all(|track| track.epochs.iter().all(|epoch| epoch.received >= journal.end(track.number, epoch.info.epoch)))
    }

    /// Writes one frame or a part of one; `false` when there is nothing to write or no room.
    fn step(&mut self, record: &mut RecordWriter, journal: &mut dyn Journal) -> bool {
        let mut chosen: Option<(usize, usize, Entry)> = None;
        for (at, track) in self.tracks.iter_mut().enumerate() {
            let number = track.number;
            if number >= self.limits.tracks {
                continue;
            }
            // The epoch that is being sent: the first that has something left, else the newest.
            let Some(index) = (0..track.epochs.len()).find(|&index| {
                let epoch = &track.epochs[index];
                index + 1 == track.epochs.len() || epoch.next < journal.end(number, epoch.info.epoch)
            }) else {
                continue;
            };
            let epoch = &mut track.epochs[index];
            if !epoch.announced {
                epoch.info.next = epoch.next;
                epoch.announced = record.push(&Frame::Track(epoch.info.clone()));
                return epoch.announced;
            }
            if let Some(partial) = &epoch.partial {
                chosen = Some((at, index, partial.entry));
                break;
            }
            let found = journal.find(number, epoch.info.epoch, epoch.next);
            let first_kept = match found {
                Some(entry) => entry.sequence,
                None => journal.end(number, epoch.info.epoch),
            };
            if first_kept > epoch.next {
                return skip(number, epoch, first_kept, SkipReason::OverBudget, record, &mut self.counts);
            }
            let Some(entry) = found else { continue };
            if entry.length > self.limits.frame_bytes {
                return skip(number, epoch, entry.sequence + 1, SkipReason::TooLarge, record, &mut self.counts);
            }
            if chosen.is_none_or(|(_, _, other)| entry.head.arrival_us < other.head.arrival_us) {
                chosen = Some((at, index, entry));
            }
        }
        let Some((at, index, entry)) = chosen else { return false };
        self.send(at, index, entry, record, journal)
    }

    fn send(
        &mut self,
        at: usize,
        index: usize,
        entry: Entry,
        record: &mut RecordWriter,
        journal: &mut dyn Journal,
    ) -> bool {
        let number = self.tracks[at].number;
        let epoch = &mut self.tracks[at].epochs[index];
        let offset = epoch.partial.as_ref().map_or(0, |partial| partial.offset);
        let left = usize::try_from(entry.length - offset).unwrap_or(usize::MAX);
        self.head.clear();
        let kind = if offset == 0 {
            let start = FrameStart {
                track: number,
                sequence: entry.sequence,
                head: entry.head,
                total: entry.length,
                payload: Default::default(),
            };
            start.write(&mut self.head);
            FrameStart::NUMBER
        } else {
            varint::put(u64::from(number), &mut self.head);
            FrameMore::NUMBER
        };
        let mut gone = false;
        let id = epoch.info.epoch;
        let written = record.push_payload(kind, &self.head, left, |into| {
            gone = !journal.copy(number, id, entry.sequence, offset, into);
            !gone
        });
        match written {
            Some(octets) if offset + octets as u64 == entry.length => {
                epoch.partial = None;
                epoch.next = entry.sequence + 1;
                self.counts.frames_sent += 1;
                true
            }
            Some(octets) => {
                epoch.partial = Some(Partial { entry, offset: offset + octets as u64 });
                true
            }
            None if gone && offset > 0 => {
                // Evicted in the middle of its sending; the SKIP follows by itself.
                let written = record.push(&Frame::FrameAbort(FrameAbort { track: number, sequence: entry.sequence }));
                if written {
                    epoch.partial = None;
                }
                written
            }
            // No room, or evicted before its first octet: then the next look at the journal finds the hole. Not at once: a journal that
            // finds what it cannot copy must not keep us here.
            None => false,
        }
    }
}

/// Writes a SKIP over `epoch.next..end`.
fn skip(
    track: u32,
    epoch: &mut Epoch,
    end: u64,
    reason: SkipReason,
    record: &mut RecordWriter,
    counts: &mut TransferCounts,
) -> bool {
    let written = record.push(&Frame::Skip(Skip { track, first: epoch.next, last: end - 1, reason }));
    if written {
        counts.frames_skipped += end.saturating_sub(epoch.counted.max(epoch.next));
        epoch.counted = epoch.counted.max(end);
        epoch.next = end;
    }
    written
}

/// Forgets epochs that are over: a newer one exists and everything of them was received.
fn retire(track: &mut Track, journal: &mut dyn Journal) {
    while track.epochs.len() > 1 {
        let oldest = &track.epochs[0];
        if oldest.received < journal.end(track.number, oldest.info.epoch) {
            break;
        }
        track.epochs.pop_front();
    }
}

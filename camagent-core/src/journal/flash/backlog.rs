//! Reading what the folder holds, oldest first, a segment after the other from front to back: the card reads in a row, and no frame has to be
//! remembered one by one.

use std::{collections::BTreeMap, io};

use camagent_proto::{frame::FrameStart, message::BootId};

use super::{
    disk::{Disk, answers, unreadable},
    segment::{HEAD, Parsed, Record, Records, Run},
    store::{Flash, LaneKey, Segment, name, thin_name},
};

/// Read at once.
const READ: usize = 64 << 10;
/// Read for one look: whoever looks has other things to do too.
const MOST_READ: usize = 256 << 10;

/// A frame that was read back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// Which epoch it belongs to.
    pub(crate) key: LaneKey,
    /// The frame with its octets.
    pub(crate) frame: FrameStart,
}

/// Where a reader stands.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    segment: u64,
    /// Whether that one is thinned: what is read of the whole one says nothing of places in it.
    is_thin: bool,
    records: Option<Records>,
    /// For each epoch the next number that is wanted: what was read is not read again, also when two segments have it.
    next: BTreeMap<LaneKey, u64>,
}

/// A segment to read in.
struct Place {
    number: u64,
    is_thin: bool,
    boot: BootId,
    /// Where it ends.
    end: u64,
    /// It still grows.
    is_open: bool,
}

/// What a look at the folder gave.
#[derive(Debug, PartialEq)]
pub(crate) enum Look {
    /// The oldest frame that was not read.
    Frame(Stored),
    /// Much was read and nothing found: the next look goes on there.
    Later,
    /// There is no other one that is safely on the card.
    End,
}

impl Cursor {
    /// At the oldest frame.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Nothing below `next` of this epoch is wanted.
    pub(crate) fn pass(&mut self, key: LaneKey, next: u64) {
        let known = self.next.entry(key).or_default();
        *known = next.max(*known);
    }

    /// The number that is wanted next of an epoch.
    pub(crate) fn next_of(&self, key: &LaneKey) -> u64 {
        self.next.get(key).copied().unwrap_or(0)
    }

    /// Reads on to the next frame that the server does not have, of numbers below what `below` says. A segment that cannot be read is left, as
    /// long as the card itself is well.
    pub(crate) fn look(
        &mut self,
        flash: &mut Flash,
        disk: &mut dyn Disk,
        below: impl Fn(&LaneKey) -> u64,
    ) -> io::Result<Look> {
        let mut octets = 0;
        loop {
            let Some(Place { number, is_thin, boot, end, is_open }) = self.place(flash, &below) else {
                return Ok(Look::End);
            };
            let name = if is_thin { thin_name(number) } else { name(number) };
            if octets >= MOST_READ {
                return Ok(Look::Later);
            }
            if (number, is_thin) != (self.segment, self.is_thin) || self.records.is_none() {
                (self.segment, self.is_thin) = (number, is_thin);
                self.records = Some(Records::new(number, HEAD as u64));
            }
            let records = self.records.as_mut().expect("it was just set");
            if records.offset() >= end {
                if is_open {
                    return Ok(Look::End);
                }
                self.leave();
                continue;
            }
            let why = match records.next() {
                Parsed::Record(Record::Frame { epoch, frame }, _) => {
                    let key = LaneKey { boot, track: frame.track, epoch };
                    if frame.sequence < below(&key) && self.wants(flash, key, &frame) {
                        self.next.insert(key, frame.sequence + 1);
                        return Ok(Look::Frame(Stored { key, frame }));
                    }
                    continue;
                }
                Parsed::Record(..) => continue,
                Parsed::Short(_) => {
                    let at = records.wanted_at();
                    let mut chunk = vec![0; READ.min(usize::try_from(end.saturating_sub(at)).unwrap_or(READ))];
                    let read = if chunk.is_empty() { Ok(0) } else { disk.read(&name, at, &mut chunk) };
                    match read {
                        Ok(0) => "it is shorter than it was".into(),
                        Ok(read) => {
                            octets += read;
                            records.feed(&chunk[..read]);
                            continue;
                        }
                        // A card that is away may answer from memory: whether it is there shows in a write.
                        Err(error) if !answers(disk, &name) || flash.renew(disk).is_err() => return Err(error),
                        Err(error) => unreadable(&error),
                    }
                }
                Parsed::Bad(why) => why.into(),
            };
            if is_open && flash.open.as_ref().is_some_and(|open| open.number == number) {
                // What is written from now on can be read.
                flash.seal(disk)?;
            }
            for (key, next) in flash.damaged(number, &why, |key| self.next_of(key)) {
                self.pass(key, next);
            }
            self.leave();
        }
    }

    /// The segment to read in.
    fn place(&self, flash: &Flash, below: &impl Fn(&LaneKey) -> u64) -> Option<Place> {
        let wanted = |boot, run: &Run| {
            let key = LaneKey { boot, track: run.track, epoch: run.epoch };
            let first = flash.lane(&key).map_or(u64::MAX, |lane| lane.freed).max(self.next_of(&key)).max(run.first);
            first < run.end.min(below(&key))
        };
        let sealed = flash.segments.iter().filter(|segment| segment.number >= self.segment);
        for segment in sealed {
            if segment.runs.iter().any(|run| wanted(segment.boot, run)) {
                let Segment { number, is_thin, boot, data_end: end, .. } = *segment;
                return Some(Place { number, is_thin, boot, end, is_open: false });
            }
        }
        let boot = flash.config.boot;
        let open = flash.open.as_ref().filter(|open| open.number >= self.segment)?;
        let has_wanted = open.summary.runs.iter().any(|run| wanted(boot, run));
        let place = Place { number: open.number, is_thin: false, boot, end: open.synced, is_open: true };
        has_wanted.then_some(place)
    }

    fn leave(&mut self) {
        self.segment += 1;
        self.records = None;
    }

    fn wants(&self, flash: &Flash, key: LaneKey, frame: &FrameStart) -> bool {
        flash.lane(&key).is_some_and(|lane| {
            frame.sequence >= lane.freed.max(self.next_of(&key)) && !lane.has_given_up(frame.sequence, &frame.head)
        })
    }
}

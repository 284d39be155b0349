//! The server's half of backfill: lanes, on which an agent sends frames of the past, of this run and of former ones.
//!
//! A lane is opened by a JOURNAL, numbered by the agent, rising within a session. On it frames come in the order of their numbers, as on a track,
//! and are acknowledged under the lane's number. A lane is forgotten when its epoch has ended and all of it is stored, or when the session ends.

use alloc::{collections::BTreeMap, format};

use super::receiver::{Assembly, MediaFrame};
use crate::{
    error::Error,
    frame::{EndReason, EpochEnd, FrameStart, Journal, Mack, Skip},
    message::{BootId, Limits, check_name},
};

/// Lanes that may be open in a session.
pub const MAX_LANES: usize = 256;

/// Names an epoch of a track in any run of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochKey {
    /// The run.
    pub boot: BootId,
    /// The track.
    pub track: u32,
    /// The epoch.
    pub epoch: u64,
}

/// What arrived of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Past {
    /// The agent has something of this epoch; see [`crate::session::Server::known`].
    Opened(Journal),
    /// A frame, once and in the order of the numbers; its track is that of the key.
    Frame(EpochKey, MediaFrame),
    /// Frames that will never come; the track of the SKIP is that of the key.
    Skip(EpochKey, Skip),
    /// Numbers from `next` on never come.
    Ended {
        /// The epoch.
        key: EpochKey,
        /// The number behind its last frame.
        next: u64,
        /// Why.
        cause: EndReason,
    },
}

#[derive(Debug)]
struct Lane {
    key: EpochKey,
    next: u64,
    /// The number behind the last that came on this lane; [`Lanes::known`] raises `next` beyond it.
    came: u64,
    persisted: u64,
    end: u64,
    has_ended: bool,
    assembly: Option<Assembly>,
    unacknowledged: bool,
}

/// The open lanes of a session.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<u32, Lane>,
    last: u32,
}

impl Lanes {
    pub(super) fn held_octets(&self) -> u64 {
        let open = self.lanes.values().filter_map(|lane| lane.assembly.as_ref());
        open.map(|assembly| assembly.octets.capacity() as u64).sum()
    }

    pub(super) fn open(&mut self, journal: Journal) -> Result<Past, Error> {
        check_name(&journal.info.camera, "JOURNAL camera")?;
        check_name(&journal.info.source, "JOURNAL source")?;
        let key = EpochKey { boot: BootId(journal.boot), track: journal.info.track, epoch: journal.info.epoch };
        if let Some(lane) = self.lanes.get_mut(&journal.lane) {
            if lane.key != key || journal.end < lane.end {
                return violation("JOURNAL", "the lane's epoch, and more of it", format!("lane {}", journal.lane));
            }
            (lane.end, lane.has_ended) = (journal.end, false);
            return Ok(Past::Opened(journal));
        }
        if journal.lane <= self.last {
            return violation("JOURNAL lane", "a number above all before", format!("{}", journal.lane));
        }
        if self.lanes.len() == MAX_LANES {
            let allowed = MAX_LANES as u64;
            return Err(Error::Limit { limit: "open lanes", allowed, got: allowed + 1 });
        }
        self.last = journal.lane;
        let lane = Lane {
            key,
            next: journal.info.next,
            came: 0,
            persisted: 0,
            end: journal.end,
            has_ended: false,
            assembly: None,
            unacknowledged: true,
        };
        self.lanes.insert(journal.lane, lane);
        Ok(Past::Opened(journal))
    }

    pub(super) fn start(
        &mut self,
        start: FrameStart,
        limits: &Limits,
        duplicates: &mut u64,
    ) -> Result<Option<Past>, Error> {
        let number = start.track;
        let lane = self.lane(number, "FRAME track")?;
        if start.total > limits.frame_bytes {
            return Err(Error::Limit { limit: "FRAME total length", allowed: limits.frame_bytes, got: start.total });
        }
        if lane.assembly.is_some() {
            return violation("FRAME", "the end of the open frame first", format!("lane {number}"));
        }
        if start.sequence > lane.next {
            let got = format!("{} instead of {}", start.sequence, lane.next);
            return violation("FRAME sequence", "the next number, or a SKIP before it", got);
        }
        let duplicate = start.sequence < lane.next;
        lane.assembly = Some(Assembly::new(start, duplicate));
        self.finish(number, duplicates)
    }

    pub(super) fn more(&mut self, number: u32, payload: &[u8], duplicates: &mut u64) -> Result<Option<Past>, Error> {
        let lane = self.lane(number, "FRAME_MORE track")?;
        match &mut lane.assembly {
            Some(assembly) => assembly.add(payload)?,
            None => return violation("FRAME_MORE", "an open frame on this track", format!("lane {number}")),
        }
        self.finish(number, duplicates)
    }

    fn finish(&mut self, number: u32, duplicates: &mut u64) -> Result<Option<Past>, Error> {
        let lane = self.lane(number, "FRAME track")?;
        lane.unacknowledged = true;
        let Some(whole) = lane.assembly.take_if(|open| open.is_whole()) else { return Ok(None) };
        if whole.duplicate {
            *duplicates += 1;
            return Ok(None);
        }
        lane.next = whole.start.sequence + 1;
        lane.came = lane.next;
        Ok(Some(Past::Frame(lane.key, whole.into_frame(lane.key.track, lane.key.epoch))))
    }

    pub(super) fn abort(&mut self, number: u32, sequence: u64) -> Result<(), Error> {
        match self.lane(number, "FRAME_ABORT track")?.assembly.take() {
            Some(open) if open.start.sequence == sequence => Ok(()),
            _ => violation("FRAME_ABORT", "the open frame of this track", format!("{sequence}")),
        }
    }

    pub(super) fn skip(&mut self, skip: Skip) -> Result<Option<Past>, Error> {
        let lane = self.lane(skip.track, "SKIP track")?;
        if lane.assembly.is_some() || skip.first > lane.next {
            let got = format!("{} instead of {}", skip.first, lane.next);
            return violation("SKIP first", "the next number, and no open frame", got);
        }
        lane.unacknowledged = true;
        let first = skip.first.max(lane.next);
        if skip.last < first {
            return Ok(None);
        }
        lane.next = skip.last + 1;
        lane.came = lane.next;
        Ok(Some(Past::Skip(lane.key, Skip { track: lane.key.track, first, ..skip })))
    }

    pub(super) fn end(&mut self, end: &EpochEnd) -> Result<Past, Error> {
        let lane = self.lane(end.lane, "EPOCH_END lane")?;
        // A killed agent's card may end before the live frames that came of the same run.
        if lane.assembly.is_some() || end.next < lane.came {
            let got = format!("{} behind {} with {} open", end.next, lane.came, u8::from(lane.assembly.is_some()));
            return violation("EPOCH_END next", "not below the frames that came", got);
        }
        (lane.end, lane.has_ended, lane.unacknowledged) = (end.next, true, true);
        Ok(Past::Ended { key: lane.key, next: end.next, cause: end.cause })
    }

    /// What the server has of an epoch already: below `received` nothing need be sent.
    pub(super) fn known(&mut self, key: &EpochKey, received: u64, persisted: u64) -> bool {
        let mut is_news = false;
        for lane in self.lanes.values_mut().filter(|lane| lane.key == *key) {
            if lane.assembly.is_none() && received > lane.next {
                lane.next = received;
                is_news = true;
            }
            if persisted > lane.persisted {
                lane.persisted = persisted;
                is_news = true;
            }
            lane.unacknowledged |= is_news;
        }
        is_news
    }

    /// The acknowledgements that are due.
    pub(super) fn acknowledge(&mut self, mut push: impl FnMut(Mack) -> bool) {
        self.lanes.retain(|&number, lane| {
            if lane.unacknowledged {
                let mack =
                    Mack { track: number, epoch: lane.key.epoch, received: lane.next, persisted: lane.persisted };
                lane.unacknowledged = !push(mack);
            }
            lane.unacknowledged || !lane.has_ended || lane.persisted < lane.end
        });
    }

    fn lane(&mut self, number: u32, place: &'static str) -> Result<&mut Lane, Error> {
        match self.lanes.get_mut(&number) {
            Some(lane) => Ok(lane),
            None => violation(place, "an open lane", format!("{number}")),
        }
    }
}

fn violation<T>(place: &'static str, expected: &'static str, got: alloc::string::String) -> Result<T, Error> {
    Err(Error::Violation { place, expected, got })
}

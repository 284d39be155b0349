//! The journal's two tiers together: memory (`source`, `journal::ring`) and a folder on flash (`journal::flash`).
//!
//! The disk thread (`worker`) is the only one that waits for the card. It copies frames from memory when there is no connection or memory fills, and
//! reads the backlog ahead. The agent's thread and the disk thread meet at the [`Shelf`], behind a lock that is never held across the card.
//! Without a card memory is the backlog too (`memory`). Pushing knows nothing of all this. What does not belong here: the octets of files (`journal::flash`), lanes on the wire (`camagent_proto`).

mod memory;
mod worker;

pub(crate) use memory::Run;
pub(crate) use worker::Worker;

use memory::Memory;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use camagent_proto::{
    frame::{SkipReason, TrackInfo},
    message::BootId,
    transfer::{self, Backlog, Entry, EpochKey, Look, Waiting},
};

use crate::{
    journal::flash::{backlog::Stored, held::Held, segment::Clock, store::LaneKey},
    source::Intake,
};

/// With less than this read ahead the disk thread goes on.
const READ_AGAIN: usize = 128 << 10;

/// What the disk thread is to do.
#[derive(Debug, Default)]
struct Orders {
    /// The server has stored so much of these epochs.
    stored: BTreeMap<EpochKey, u64>,
    /// The same of epochs of this run, by the live reader: track and epoch.
    live_freed: BTreeMap<(u32, u64), u64>,
    clock: Option<Clock>,
    /// All that was stored is lost. These epochs of this run, each with its track, the live reader goes on with.
    lost: Option<BTreeSet<(u32, u64)>>,
    stops: bool,
}

#[derive(Debug, Default)]
struct State {
    orders: Orders,
    is_connected: bool,
    /// Counts sessions: what was read ahead for an older one is dropped.
    session: u64,
    /// This run, once the disk thread works.
    boot: Option<BootId>,
    /// Where the live reader began: below it, frames of this run are the backlog's.
    live_from: BTreeMap<(u32, u64), u64>,
    declined: BTreeSet<EpochKey>,
    /// What the backlog has, as the disk thread saw it last, and what of it is lost.
    waiting: Vec<Waiting>,
    lost: BTreeMap<EpochKey, Vec<(u64, u64, SkipReason)>>,
    /// What was told of these to be there is so only below this number now: the rest went with a write that failed, and is written again.
    short: BTreeMap<EpochKey, u64>,
    generation: u64,
    /// Frames that were read ahead, oldest first.
    ahead: VecDeque<Stored>,
    /// There is nothing behind them of all that `waiting` tells.
    is_at_end: bool,
    tellings: Vec<String>,
    held: Held,
    has_stopped: bool,
}

impl State {
    /// The backlog gets more of an epoch: what was read ahead of later ones of its track is read again, behind it. The agent goes by the order: of an
    /// epoch before that of the next frame nothing more comes.
    fn take_back(&mut self, track: u32, epoch: u64) {
        let is_behind = |key: &LaneKey| Some(key.boot) == self.boot && key.track == track && key.epoch > epoch;
        self.ahead.retain(|stored| !is_behind(&stored.key));
    }
}

/// Where the agent's thread and the disk thread meet.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shelf {
    /// Whether a session is there that takes live frames.
    pub(crate) fn set_connected(&self, is_connected: bool) {
        let mut state = self.lock();
        if state.is_connected != is_connected {
            state.is_connected = is_connected;
            self.changed.notify_all();
        }
    }

    /// The time of day became known.
    pub(crate) fn set_clock(&self, boot_us: u64, utc_us: u64) {
        self.lock().orders.clock = Some(Clock { boot_us, utc_us });
    }

    /// Asks the disk thread to write down what is left and to end.
    pub(crate) fn ask_to_stop(&self) {
        self.lock().orders.stops = true;
        self.changed.notify_all();
    }

    /// The same; whether it has within `longest`.
    pub(crate) fn stop(&self, longest: Duration) -> bool {
        self.ask_to_stop();
        let state = self.lock();
        let stopped = self.changed.wait_timeout_while(state, longest, |state| !state.has_stopped);
        stopped.unwrap_or_else(PoisonError::into_inner).0.has_stopped
    }

    /// What the operator should know of the card, since the last call.
    pub(crate) fn take_tellings(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().tellings)
    }

    /// What waits on the card, as of a few seconds ago.
    pub(crate) fn held(&self) -> Held {
        self.lock().held.clone()
    }

    fn live_from(&self, track: u32, epoch: u64, next: u64) {
        let mut state = self.lock();
        if state.live_from.insert((track, epoch), next) != Some(next) {
            // What lies below was passed as live when it was read.
            state.is_at_end = false;
            state.take_back(track, epoch);
            self.changed.notify_all();
        }
    }

    fn live_freed(&self, track: u32, epoch: u64, next: u64) {
        let mut state = self.lock();
        let known = state.orders.live_freed.entry((track, epoch)).or_default();
        *known = next.max(*known);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backlog for &Shelf {
    fn generation(&mut self) -> u64 {
        self.lock().generation
    }

    fn waiting(&mut self) -> Vec<Waiting> {
        self.lock().waiting.clone()
    }

    fn look(&mut self) -> Look {
        let state = self.lock();
        match state.ahead.front() {
            Some(stored) => {
                let frame = &stored.frame;
                let entry = Entry { sequence: frame.sequence, head: frame.head, length: frame.total };
                Look::Frame(key(stored), entry)
            }
            None if state.is_at_end => Look::Nothing,
            None => Look::Later,
        }
    }

    fn copy(&mut self, key: &EpochKey, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let state = self.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let stored = state.ahead.front().filter(|stored| is(stored, key, sequence));
        let octets = stored.and_then(|stored| stored.frame.payload.get(from..from.saturating_add(into.len())));
        octets.map(|octets| into.copy_from_slice(octets)).is_some()
    }

    fn pass(&mut self, key: &EpochKey, sequence: u64) {
        let mut state = self.lock();
        // The disk thread may have begun to read anew since it was looked at.
        if state.ahead.front().is_some_and(|stored| is(stored, key, sequence)) {
            state.ahead.pop_front();
        }
        let left: usize = state.ahead.iter().map(|stored| stored.frame.payload.len()).sum();
        if left < READ_AGAIN {
            self.changed.notify_all();
        }
    }

    fn decline(&mut self, key: &EpochKey) {
        let mut state = self.lock();
        state.declined.insert(*key);
        state.ahead.retain(|stored| self::key(stored) != *key);
        self.changed.notify_all();
    }

    fn hole(&mut self, key: &EpochKey, number: u64) -> Option<(SkipReason, u64)> {
        let state = self.lock();
        if state.short.get(key).is_some_and(|end| *end <= number) {
            return None;
        }
        let lost = state.lost.get(key).map(Vec::as_slice).unwrap_or_default();
        Some(match lost.iter().find(|(_, last, _)| *last >= number) {
            Some((first, last, reason)) if *first <= number => (*reason, *last),
            // What was never written was sent as live frames and stored before the card was needed.
            Some((first, ..)) => (SkipReason::Live, *first - 1),
            None => (SkipReason::Live, u64::MAX),
        })
    }

    fn stored(&mut self, key: &EpochKey, next: u64) {
        let mut state = self.lock();
        let known = state.orders.stored.entry(*key).or_default();
        *known = next.max(*known);
    }

    fn rewind(&mut self, lost: Option<&[(u32, u64)]>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(live) = lost {
            // What the server had stored until now says nothing any more.
            state.orders.lost = Some(live.iter().copied().collect());
            state.orders.stored.clear();
            state.orders.live_freed.clear();
            let others = state.live_from.iter_mut().filter(|(of, _)| !live.contains(of));
            others.for_each(|(_, from)| *from = u64::MAX);
        }
        state.session += 1;
        state.is_connected = true;
        state.declined.clear();
        state.ahead.clear();
        state.is_at_end = false;
        // What waits is told anew for this session.
        state.waiting.clear();
        state.generation += 1;
        self.changed.notify_all();
    }
}

fn key(stored: &Stored) -> EpochKey {
    EpochKey { boot: stored.key.boot, track: stored.key.track, epoch: stored.key.epoch }
}

fn is(stored: &Stored, key: &EpochKey, sequence: u64) -> bool {
    self::key(stored) == *key && stored.frame.sequence == sequence
}

/// Memory and flash as the session reads them.
pub(crate) struct Tiers<'a> {
    intake: &'a Intake,
    shelf: Option<&'a Shelf>,
    memory: Memory<'a>,
}

impl<'a> Tiers<'a> {
    pub(crate) fn new(intake: &'a Intake, shelf: Option<&'a Shelf>, run: &'a Run) -> Self {
        Self { intake, shelf, memory: Memory { intake, run } }
    }
}

impl transfer::Journal for Tiers<'_> {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        (&mut &*self.intake).find(track, epoch, sequence)
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        (&mut &*self.intake).newest_key(track, epoch)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        (&mut &*self.intake).end(track, epoch)
    }

    fn missing(&mut self, track: u32, epoch: u64, number: u64) -> (SkipReason, u64) {
        (&mut &*self.intake).missing(track, epoch, number)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        (&mut &*self.intake).copy(track, epoch, sequence, offset, into)
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        (&mut &*self.intake).received(track, epoch, next);
        if let Some(shelf) = self.shelf {
            shelf.live_freed(track, epoch, next);
        }
    }

    fn live_from(&mut self, track: u32, epoch: u64, next: u64) -> u64 {
        let Some(shelf) = self.shelf else { return next };
        let from = self.intake.live_from(track, epoch, next);
        shelf.live_from(track, epoch, from);
        from
    }

    fn leave(&mut self, info: &TrackInfo, from: u64, to: u64, is_over: bool) -> bool {
        // What is on a card is left to it by `live_from`; what a card could not take goes in its order.
        self.shelf.is_none() && self.intake.past(|journal| journal.leave(info, from, to, is_over))
    }

    fn backlog(&mut self) -> Option<&mut dyn Backlog> {
        Some(match &mut self.shelf {
            Some(shelf) => shelf,
            None => &mut self.memory,
        })
    }
}

#[cfg(test)]
mod tests;

//! Frames in the order of their arrival, and of each track in the order of their numbers; their octets lie in the `arena`.
//!
//! When there is no room for another frame, this goes, in this order: what is safely on flash; of the oldest groups of pictures that are over all but
//! their key frames ([`SkipReason::Thinned`]); the oldest groups whole ([`SkipReason::OverBudget`]). The group that a track is in is never thinned.

use std::collections::{TryReserveError, VecDeque};

use camagent_proto::{
    frame::{FrameHead, SkipReason},
    transfer::{self, Entry},
};

use super::{
    Kept, MAX_TRACKS,
    arena::{Arena, Place, Spot, pieces},
};

mod absent;
mod pass;
mod past;

use absent::Absent;
use past::Pasts;

/// A slot, by its place in the list of all.
type Link = Option<Index>;

/// Never 0, so that a link takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Index(std::num::NonZeroU32);

impl Index {
    fn new(at: usize) -> Self {
        let number = u32::try_from(at + 1).ok().and_then(std::num::NonZeroU32::new);
        Self(number.expect("there are fewer slots than pieces of memory"))
    }

    fn at(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Numbers from .. to.
type Range = (u64, u64);

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Counts all frames ever held; of a free slot the largest number.
    number: u64,
    track: u32,
    epoch: u64,
    sequence: u64,
    head: FrameHead,
    place: Place,
    /// The frames that came before and behind it, of all tracks …
    before: Link,
    behind: Link,
    /// … and of its own.
    older: Link,
    newer: Link,
    /// Frames before this one that went to keep their key frame.
    thinned: Range,
}

/// The frames of one track: they are linked oldest to newest.
#[derive(Clone, Debug, Default)]
struct Chain {
    first: Link,
    last: Link,
    /// Where the reader found its last frame: it goes on from there.
    cursor: Link,
    /// What it copied last of a frame: the frame's number and the spot.
    copied: Option<(u64, Spot)>,
    /// The first frame of which is not known that all between it and the key frame behind it went.
    whole: Link,
    epoch: u64,
    end: u64,
    /// The newest key frame, and its number among all frames; it may be gone already.
    newest_key: Option<(Index, u64)>,
    /// The epochs before, oldest first: for a reader that has not come to the present one yet, and for whoever asks what became of them.
    former: VecDeque<Former>,
    /// Frames that later ones refer to were evicted: decoding starts again at the next key frame.
    needs_key: bool,
    is_video: bool,
    /// Epoch and number behind the last frame that is safely on flash: what goes from here is not lost.
    safe: (u64, u64),
    /// The number of the present epoch below which the server needs nothing any more.
    freed: u64,
    /// Frames that were refused and have no number yet: why, and how many.
    refusing: Option<(SkipReason, u64)>,
}

/// What is known of an epoch that its track has left.
#[derive(Clone, Copy, Debug)]
struct Former {
    epoch: u64,
    end: u64,
    freed: u64,
    /// Its last frames, if they went to keep their key frame.
    thinned: Range,
}

impl Former {
    fn is_done(&self) -> bool {
        self.freed >= self.end
    }
}

/// Epochs that are remembered of a track; when they are more, one is forgotten of which the server needs nothing.
const MAX_FORMER: usize = 64;
/// Where there is none such, so many at the longest: an outage of weeks in which a camera begins anew each half an hour.
const MOST_FORMER: usize = 1_024;

/// Frames of several tracks in one arena.
pub(crate) struct Journal {
    arena: Arena,
    /// Octets of the frames.
    octets: usize,
    slots: Vec<Slot>,
    slot_limit: usize,
    /// Slots that were used and are not any more.
    free: Vec<Index>,
    oldest: Link,
    newest: Link,
    /// The number of the next frame.
    next_number: u64,
    /// Where [`Journal::find_out`] found its last frame, and what was copied of it last.
    copied_out: Link,
    spot_out: Option<Spot>,
    chains: Box<[Chain]>,
    /// Why numbers have no frame where no frame behind them tells of it.
    absent: VecDeque<Absent>,
    /// What the live reader left behind it.
    pasts: Pasts,
}

impl Journal {
    /// Takes the memory: `capacity` octets, and about a tenth of that for what is known of the frames.
    pub(crate) fn new(capacity: usize) -> Result<Self, TryReserveError> {
        let slot_limit = (capacity / 1_024).max(256);
        let (mut slots, mut free) = (Vec::new(), Vec::new());
        slots.try_reserve_exact(slot_limit)?;
        free.try_reserve_exact(slot_limit)?;
        let mut absent = VecDeque::new();
        absent.try_reserve_exact(absent::MAX_ABSENT)?;
        Ok(Self {
            arena: Arena::new(capacity)?,
            octets: 0,
            slots,
            slot_limit,
            free,
            oldest: None,
            newest: None,
            next_number: 0,
            copied_out: None,
            spot_out: None,
            chains: vec![Chain::default(); MAX_TRACKS as usize].into_boxed_slice(),
            absent,
            pasts: Pasts::default(),
        })
    }

    /// Octets that it may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.arena.capacity()
    }

    /// Octets of the frames that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.octets
    }

    /// Whether the next frame of a track can be decoded only if it is a key frame, because what it refers to was evicted.
    pub(crate) fn needs_key(&self, track: u32) -> bool {
        self.chains.get(track as usize).is_some_and(|chain| chain.needs_key)
    }

    /// Frames that it holds.
    pub(crate) fn frames(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The number of the epoch that a track would begin now.
    pub(crate) fn next_epoch(&self, track: u32) -> u64 {
        self.chains.get(track as usize).map_or(0, |chain| chain.epoch) + 1
    }

    /// Whether a track may begin a new epoch: not when one would be forgotten for it of which the server does not have everything.
    pub(crate) fn takes_epoch(&self, track: u32) -> bool {
        let chain = self.chains.get(track as usize);
        chain.is_none_or(|chain| chain.former.len() < MOST_FORMER || chain.former.iter().any(Former::is_done))
    }

    /// Whether an epoch of a track is remembered.
    pub(crate) fn knows(&self, track: u32, epoch: u64) -> bool {
        self.chains
            .get(track as usize)
            .is_some_and(|chain| chain.epoch == epoch || chain.former.iter().any(|former| former.epoch == epoch))
    }

    /// A track begins a new epoch; its frames count from 0 again.
    pub(crate) fn begin_epoch(&mut self, track: u32, epoch: u64, is_video: bool) {
        self.settle(track);
        if let Some(chain) = self.chains.get_mut(track as usize) {
            if chain.end > 0 {
                if chain.former.len() >= MAX_FORMER {
                    let done = chain.former.iter().position(Former::is_done);
                    done.map(|done| chain.former.remove(done));
                }
                let (end, freed) = (chain.end, chain.freed);
                chain.former.push_back(Former { epoch: chain.epoch, end, freed, thinned: (0, 0) });
            }
            chain.needs_key = false;
            (chain.epoch, chain.end, chain.freed, chain.is_video) = (epoch, 0, 0, is_video);
        }
    }

    /// Takes a frame in. `data` is not longer than the arena.
    pub(crate) fn push(&mut self, track: u32, head: FrameHead, data: &[u8]) -> Kept {
        debug_assert!(data.len() <= self.capacity() && !data.is_empty());
        if !head.key && self.costs_its_own_group(track, data.len()) {
            return Kept::CutAtTail;
        }
        let mut evicted = 0;
        while !self.has_room(data.len()) {
            let Some(oldest) = self.oldest else { break };
            if self.is_safe(self.slot(oldest)) {
                self.remove(oldest);
                continue;
            }
            let of_oldest = self.slot(oldest).track;
            evicted += match self.thin() {
                None => self.evict_group(of_oldest),
                Some(thinned) => thinned,
            };
        }
        self.append(track, head, data);
        Kept::Yes { evicted }
    }

    fn slot(&self, index: Index) -> &Slot {
        &self.slots[index.at()]
    }

    /// The frames from one on, in the order of their arrival.
    fn from(&self, first: Link) -> impl Iterator<Item = (Index, &Slot)> {
        let mut at = first;
        std::iter::from_fn(move || {
            let index = at?;
            let slot = self.slot(index);
            at = slot.behind;
            Some((index, slot))
        })
    }

    /// The same, of its track.
    fn of_track(&self, first: Link) -> impl Iterator<Item = (Index, &Slot)> {
        let mut at = first;
        std::iter::from_fn(move || {
            let index = at?;
            let slot = self.slot(index);
            at = slot.newer;
            Some((index, slot))
        })
    }

    fn has_room(&self, length: usize) -> bool {
        self.arena.free() >= pieces(length) && self.frames() < self.slot_limit
    }

    fn is_safe(&self, slot: &Slot) -> bool {
        (slot.epoch, slot.sequence) < self.chains[slot.track as usize].safe
    }

    /// Whether room for a picture of this length is to be had only from the group that it belongs to. Asked before anything goes: what goes for a
    /// picture that has no room after all would be lost for nothing.
    fn costs_its_own_group(&self, track: u32, length: usize) -> bool {
        let (mut room, mut slots) = (self.arena.free(), self.slot_limit - self.frames());
        let wanted = pieces(length);
        let newest_key = |track: u32| self.chains[track as usize].newest_key.map_or(0, |(_, number)| number);
        let begins = newest_key(track);
        let mut is_reached = false;
        for (_, slot) in self.from(self.oldest) {
            if room >= wanted && slots > 0 {
                return false;
            }
            // What is safe on flash goes without a loss.
            is_reached |= slot.track == track && slot.number >= begins && !self.is_safe(slot);
            let is_thin = || self.is_video(slot.track) && !slot.head.key && slot.number < newest_key(slot.track);
            if !is_reached || slot.track != track && is_thin() {
                (room, slots) = (room + slot.place.pieces(), slots + 1);
            }
        }
        room < wanted || slots == 0
    }

    fn append(&mut self, track: u32, head: FrameHead, data: &[u8]) {
        self.settle(track);
        let place = self.arena.put(data);
        let number = self.next_number;
        self.next_number += 1;
        let chain = &mut self.chains[track as usize];
        let (epoch, sequence) = (chain.epoch, chain.end);
        let slot = Slot {
            number,
            track,
            epoch,
            sequence,
            head,
            place,
            before: self.newest,
            behind: None,
            older: chain.last,
            newer: None,
            thinned: (0, 0),
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index.at()] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                Index::new(self.slots.len() - 1)
            }
        };
        chain.end += 1;
        chain.needs_key &= !head.key;
        if head.key {
            chain.newest_key = Some((index, number));
        }
        chain.first.get_or_insert(index);
        chain.whole.get_or_insert(index);
        self.oldest.get_or_insert(index);
        if let Some(before) = self.newest.replace(index) {
            self.slots[before.at()].behind = Some(index);
        }
        if let Some(older) = chain.last.replace(index) {
            self.slots[older.at()].newer = Some(index);
        }
        self.octets += data.len();
    }

    fn is_video(&self, track: u32) -> bool {
        self.chains.get(track as usize).is_some_and(|chain| chain.is_video)
    }

    /// Of the oldest group that is over and has more than its key frame all else goes: how many were lost by that. `None` when there is no such group.
    fn thin(&mut self) -> Option<u64> {
        loop {
            let is_over = |chain: &&Chain| {
                let begins = chain.whole.map(|whole| self.slot(whole).number);
                let ends = chain.newest_key.map(|(_, number)| number);
                chain.is_video && begins.is_some_and(|begins| ends.is_some_and(|ends| begins < ends))
            };
            let oldest = self.chains.iter().filter(is_over).filter_map(|chain| chain.whole);
            let first = oldest.min_by_key(|whole| self.slot(*whole).number)?;
            let (Slot { track, epoch, .. }, safe) = {
                let slot = self.slot(first);
                (*slot, self.chains[slot.track as usize].safe)
            };
            // Behind what the live reader left nothing refers to it.
            let edge = self.pasts.edge(track, epoch, self.slot(first).sequence).unwrap_or(u64::MAX);
            let ends = |slot: &Slot| slot.head.key || slot.epoch != epoch || slot.sequence >= edge;
            let next = self.of_track(Some(first)).skip(1).find(|(_, slot)| ends(slot)).map(|(index, _)| index);
            let mut at = if self.slot(first).head.key { self.slot(first).newer } else { Some(first) };
            let (mut removed, mut lost) = (false, (0, 0));
            while let Some(index) = at
                && at != next
            {
                let Slot { sequence, newer, .. } = *self.slot(index);
                if (epoch, sequence) >= safe {
                    lost = (if lost.1 == 0 { sequence } else { lost.0 }, sequence + 1);
                }
                removed = true;
                self.remove(index);
                at = newer;
            }
            let is_at_edge = edge < u64::MAX && next.is_none_or(|next| self.slot(next).sequence >= edge);
            let chain = &mut self.chains[track as usize];
            chain.whole = next;
            if lost.1 > 0 && is_at_edge {
                self.note_absent(track, epoch, lost, SkipReason::Thinned);
            } else if lost.1 > 0 {
                match next.map(|next| &mut self.slots[next.at()]).filter(|slot| slot.epoch == epoch) {
                    Some(slot) => slot.thinned = lost,
                    None => {
                        let former = chain.former.iter_mut().find(|former| former.epoch == epoch);
                        former.into_iter().for_each(|former| former.thinned = lost);
                    }
                }
            }
            if removed {
                return Some(lost.1 - lost.0);
            }
        }
    }

    /// Drops a track's oldest frame and, of video, all that cannot be decoded without it.
    fn evict_group(&mut self, track: u32) -> u64 {
        let is_video = self.is_video(track);
        let mut evicted = 0;
        let mut is_first = true;
        let edge = self.chains[track as usize].first.and_then(|first| {
            let slot = self.slot(first);
            self.pasts.edge(track, slot.epoch, slot.sequence).map(|edge| (slot.epoch, edge))
        });
        while let Some(first) = self.chains[track as usize].first {
            let slot = self.slot(first);
            let is_behind = edge.is_some_and(|(epoch, edge)| (slot.epoch, slot.sequence) >= (epoch, edge));
            if !is_first && (slot.head.key || !is_video || is_behind) {
                return evicted;
            }
            is_first = false;
            evicted += u64::from(!self.is_safe(slot));
            self.remove(first);
        }
        // What comes next refers to nothing that the live reader left behind it.
        self.chains[track as usize].needs_key |= is_video && edge.is_none();
        evicted
    }

    /// A frame goes, wherever it is.
    fn remove(&mut self, index: Index) {
        let Slot { track, place, before, behind, older, newer, .. } = *self.slot(index);
        self.slots[index.at()].number = u64::MAX;
        self.arena.release(&place);
        self.octets -= place.length();
        match before {
            Some(before) => self.slots[before.at()].behind = behind,
            None => self.oldest = behind,
        }
        match behind {
            Some(behind) => self.slots[behind.at()].before = before,
            None => self.newest = before,
        }
        let chain = &mut self.chains[track as usize];
        match older {
            Some(older) => self.slots[older.at()].newer = newer,
            None => chain.first = newer,
        }
        match newer {
            Some(newer) => self.slots[newer.at()].older = older,
            None => chain.last = older,
        }
        if chain.cursor == Some(index) {
            chain.cursor = newer.or(older);
        }
        if chain.whole == Some(index) {
            chain.whole = newer;
        }
        if self.copied_out == Some(index) {
            (self.copied_out, self.spot_out) = (behind.or(before), None);
        }
        self.free.push(index);
    }

    /// The oldest frame not before (epoch, sequence), if it is of this epoch.
    fn locate(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Index> {
        let chain = self.chains.get(track as usize)?;
        let is_before = |index: Index| (self.slot(index).epoch, self.slot(index).sequence) < (epoch, sequence);
        let mut at = chain.cursor.or(chain.first)?;
        while let Some(older) = self.slot(at).older.filter(|older| !is_before(*older)) {
            at = older;
        }
        while is_before(at)
            && let Some(newer) = self.slot(at).newer
        {
            at = newer;
        }
        self.chains[track as usize].cursor = Some(at);
        let slot = self.slot(at);
        (slot.epoch == epoch && slot.sequence >= sequence).then_some(at)
    }

    /// Frames `first..next` of an epoch go. Those of an epoch before this one stay: the server may not have them.
    fn let_go(&mut self, track: u32, epoch: u64, first: u64, next: u64) {
        let Some(chain) = self.chains.get(track as usize) else { return };
        // What is not at the front is near the live reader, which loses nothing by the look.
        let cursor = chain.cursor;
        let mut at = if first == 0 { chain.first } else { self.locate(track, epoch, first) };
        self.chains[track as usize].cursor = cursor;
        while let Some(index) = at
            && let Slot { newer, epoch: of, sequence, .. } = *self.slot(index)
            && (of, sequence) < (epoch, next)
        {
            at = newer;
            if of == epoch {
                self.remove(index);
            }
        }
    }

    fn former(&self, track: u32, epoch: u64) -> Option<&Former> {
        self.chains.get(track as usize)?.former.iter().find(|former| former.epoch == epoch)
    }

    /// The frames of an epoch behind the last that is held, if they went to keep their key frame.
    fn thinned_at_end(&self, track: u32, epoch: u64) -> Range {
        self.former(track, epoch).map_or((0, 0), |former| former.thinned)
    }
}

/// Numbers from .. to that have no frame, and why.
pub(crate) type Hole = (u64, u64, SkipReason);

/// A frame as it is copied to flash.
#[derive(Clone, Debug)]
pub(crate) struct Copied {
    /// Counts all frames ever held: the copy goes on behind it.
    pub(crate) number: u64,
    pub(crate) track: u32,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) head: FrameHead,
    /// Its octets.
    pub(crate) length: usize,
    /// The server needs nothing of the epoch below this number.
    pub(crate) freed: u64,
    /// Numbers before this one that have another reason than that there was no room.
    pub(crate) holes: Vec<Hole>,
}

/// What the flash tier needs.
impl Journal {
    /// Octets that are taken, those of frames that are not full pieces included.
    pub(crate) fn used(&self) -> usize {
        self.arena.used()
    }

    /// Finds the oldest frame with a number not below `number` whose track and epoch are wanted.
    pub(crate) fn find_out(&mut self, number: u64, wanted: impl Fn(u32, u64) -> bool) -> Option<Copied> {
        let found = self.seek_out(number, |track, epoch, _| wanted(track, epoch))?;
        let slot = self.slot(found);
        Some(Copied {
            number: slot.number,
            track: slot.track,
            epoch: slot.epoch,
            sequence: slot.sequence,
            head: slot.head,
            length: slot.place.length(),
            freed: self.freed(slot.track, slot.epoch),
            holes: self.holes(slot.track, slot.epoch, slot.sequence, slot.thinned),
        })
    }

    /// The same by track, epoch and sequence; [`Journal::copy_out`] copies what was found.
    fn seek_out(&mut self, number: u64, wanted: impl Fn(u32, u64, u64) -> bool) -> Option<Index> {
        let mut at = self.copied_out.or(self.oldest)?;
        while let Some(before) = self.slot(at).before.filter(|before| self.slot(*before).number >= number) {
            at = before;
        }
        let is_wanted = |slot: &Slot| slot.number >= number && wanted(slot.track, slot.epoch, slot.sequence);
        let (found, _) = self.from(Some(at)).find(|(_, slot)| is_wanted(slot))?;
        if self.copied_out.replace(found) != Some(found) {
            self.spot_out = None;
        }
        Some(found)
    }

    /// Copies octets of the frame that was found last, from `offset` on into all of `into`; `false` when it has gone since.
    pub(crate) fn copy_out(&mut self, number: u64, offset: usize, into: &mut [u8]) -> bool {
        let Some(slot) = self.copied_out.map(|index| self.slot(index)).filter(|slot| slot.number == number) else {
            return false;
        };
        if offset.saturating_add(into.len()) > slot.place.length() {
            return false;
        }
        self.spot_out = Some(self.arena.copy(&slot.place, self.spot_out, offset, into));
        true
    }

    /// The number of an epoch below which the server needs nothing any more.
    pub(crate) fn freed(&self, track: u32, epoch: u64) -> u64 {
        match self.chains.get(track as usize) {
            Some(chain) if chain.epoch == epoch => chain.freed,
            _ => self.former(track, epoch).map_or(0, |former| former.freed),
        }
    }

    /// All frames of a track before this one are safely on flash.
    pub(crate) fn set_safe(&mut self, track: u32, epoch: u64, next: u64) {
        if let Some(chain) = self.chains.get_mut(track as usize) {
            chain.safe = chain.safe.max((epoch, next));
        }
    }

    /// Where the live reader goes on that comes to `next`: at the newest key frame before which all is safely on flash.
    pub(crate) fn live_from(&mut self, track: u32, epoch: u64, next: u64) -> u64 {
        let end = transfer::Journal::end(self, track, epoch);
        let Some(chain) = self.chains.get(track as usize) else { return next };
        let safe = match chain.safe {
            (of, safe) if of == epoch => safe,
            // The track has left it: it is past, and whoever has its lane hears where it ends.
            (of, _) if of > epoch => return end.max(next),
            _ => return next,
        };
        if safe <= next {
            return next;
        }
        let (mut oldest, mut newest_key) = (None, None);
        for (_, slot) in self.of_track(chain.first) {
            if slot.epoch == epoch && (next..=safe).contains(&slot.sequence) {
                oldest.get_or_insert(slot.sequence);
                newest_key = if slot.head.key && slot.sequence > next { Some(slot.sequence) } else { newest_key };
            }
        }
        match (chain.is_video, newest_key, oldest) {
            (true, Some(key), _) => key,
            // Everything is there still: in order is better than with a hole that no key frame ends.
            (true, None, Some(oldest)) => oldest,
            _ => safe,
        }
    }
}

impl transfer::Journal for Journal {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        let slot = self.locate(track, epoch, sequence).map(|index| self.slot(index))?;
        Some(Entry { sequence: slot.sequence, head: slot.head, length: slot.place.length() as u64 })
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        let (index, number) = self.chains.get(track as usize)?.newest_key?;
        let slot = self.slot(index);
        (slot.number == number && slot.epoch == epoch).then_some(slot.sequence)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        match self.chains.get(track as usize) {
            Some(chain) if chain.epoch == epoch => chain.end,
            _ => self.former(track, epoch).map_or(0, |former| former.end),
        }
    }

    fn missing(&mut self, track: u32, epoch: u64, number: u64) -> (SkipReason, u64) {
        let found = self.locate(track, epoch, number).map(|index| self.slot(index));
        let (thinned, last) = match found {
            Some(slot) => (slot.thinned, slot.sequence.saturating_sub(1)),
            None => (self.thinned_at_end(track, epoch), u64::MAX),
        };
        let absent = self.absent_from(track, epoch, number);
        let last = match absent {
            Some(absent) if absent.first <= number => return (absent.reason, absent.end - 1),
            Some(absent) => last.min(absent.first - 1),
            None => last,
        };
        match thinned {
            (first, end) if (first..end).contains(&number) => (SkipReason::Thinned, last.min(end - 1)),
            (first, end) if number < first && first < end => (SkipReason::OverBudget, last.min(first - 1)),
            _ => (SkipReason::OverBudget, last),
        }
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let Some(slot) = self.locate(track, epoch, sequence).map(|index| self.slot(index)) else { return false };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if slot.sequence != sequence || offset.saturating_add(into.len()) > slot.place.length() {
            return false;
        }
        let known = self.chains[track as usize].copied.filter(|(number, _)| *number == slot.number);
        let spot = self.arena.copy(&slot.place, known.map(|(_, spot)| spot), offset, into);
        self.chains[track as usize].copied = Some((slot.number, spot));
        true
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        if self.spare_past(track, epoch, next) {
            return;
        }
        self.forget_absent(track, epoch, next);
        let Some(chain) = self.chains.get_mut(track as usize) else { return };
        match chain.former.iter_mut().find(|former| former.epoch == epoch) {
            Some(former) => former.freed = former.freed.max(next),
            None if chain.epoch == epoch => chain.freed = chain.freed.max(next),
            None => {}
        }
        self.let_go(track, epoch, 0, next);
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::transfer::Journal as _;

    use super::*;

    use crate::journal::arena::PIECE;

    fn key(key: bool) -> FrameHead {
        FrameHead { key, ..FrameHead::default() }
    }

    fn journal(capacity: usize) -> Journal {
        let mut journal = Journal::new(capacity).unwrap();
        journal.begin_epoch(0, 1, true);
        journal.begin_epoch(1, 1, false);
        journal
    }

    fn read(journal: &mut Journal, track: u32, sequence: u64) -> Option<Vec<u8>> {
        let entry = journal.find(track, 1, sequence).filter(|entry| entry.sequence == sequence)?;
        let mut octets = vec![0; entry.length as usize];
        journal.copy(track, 1, sequence, 0, &mut octets).then_some(octets)
    }

    #[test]
    fn frames_come_back_even_across_the_end_of_the_arena() {
        let mut journal = journal(100 * PIECE);
        for round in 0..50_u64 {
            let data = vec![round as u8; 31 * PIECE + round as usize];
            assert!(matches!(journal.push(0, key(true), &data), Kept::Yes { .. }));
            assert_eq!(read(&mut journal, 0, round).unwrap(), data);
            assert!(journal.bytes() <= 100 * PIECE);
        }
    }

    #[test]
    fn the_oldest_groups_are_thinned_before_any_goes_whole() {
        let mut journal = journal(100 * PIECE);
        for sequence in 0..10 {
            journal.push(0, key(sequence % 5 == 0), &[sequence; 10 * PIECE]);
        }
        let numbers = |journal: &mut Journal, from| {
            let mut found = Vec::new();
            let mut next = from;
            while let Some(entry) = journal.find(0, 1, next) {
                (next, _) = (entry.sequence + 1, found.push(entry.sequence));
            }
            found
        };
        assert_eq!(journal.push(0, key(true), &[10; 10 * PIECE]), Kept::Yes { evicted: 4 });
        assert_eq!(numbers(&mut journal, 0), [0, 5, 6, 7, 8, 9, 10]);
        assert_eq!((journal.frames(), journal.bytes()), (7, 70 * PIECE));
        assert_eq!(journal.missing(0, 1, 1), (SkipReason::Thinned, 4));
        assert_eq!(journal.missing(0, 1, 3), (SkipReason::Thinned, 4));
        for sequence in 11..14 {
            journal.push(0, key(false), &[sequence; 10 * PIECE]);
        }
        assert_eq!(journal.push(0, key(false), &[14; 10 * PIECE]), Kept::Yes { evicted: 4 });
        assert_eq!(numbers(&mut journal, 0), [0, 5, 10, 11, 12, 13, 14]);
        // The group that goes on stays whole, so now the oldest go.
        for sequence in 15..18 {
            journal.push(0, key(false), &[sequence; 10 * PIECE]);
        }
        assert_eq!(journal.push(0, key(false), &[18; 10 * PIECE]), Kept::Yes { evicted: 1 });
        assert_eq!(numbers(&mut journal, 0), [5, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
        assert_eq!(
            (journal.missing(0, 1, 0), journal.missing(0, 1, 6)),
            ((SkipReason::OverBudget, 0), (SkipReason::Thinned, 9))
        );
        assert_eq!(journal.push(0, key(false), &[19; 10 * PIECE]), Kept::Yes { evicted: 1 });
        assert_eq!(
            journal.missing(0, 1, 2),
            (SkipReason::OverBudget, 5),
            "what is known of the next hole is told on its own"
        );
        assert_eq!(journal.missing(0, 1, 6), (SkipReason::Thinned, 9));
        assert_eq!(read(&mut journal, 0, 19).unwrap(), [19; 10 * PIECE]);
    }

    #[test]
    fn thinned_frames_at_the_end_of_an_epoch_are_told_as_such() {
        let mut journal = journal(100 * PIECE);
        for sequence in 0..9 {
            journal.push(0, key(sequence == 0), &[sequence; 10 * PIECE]);
        }
        journal.received(0, 1, 2);
        journal.begin_epoch(0, 2, true);
        assert_eq!(journal.push(0, key(true), &[1; 20 * PIECE]), Kept::Yes { evicted: 0 });
        assert_eq!(journal.push(0, key(false), &[1; 20 * PIECE]), Kept::Yes { evicted: 7 });
        assert_eq!((journal.find(0, 1, 2), journal.thinned_at_end(0, 1)), (None, (2, 9)));
        assert_eq!(journal.missing(0, 1, 2), (SkipReason::Thinned, 8));
    }

    #[test]
    fn what_is_safe_on_flash_goes_first_and_is_not_lost() {
        let mut journal = journal(100 * PIECE);
        for sequence in 0..10 {
            journal.push(0, key(sequence % 5 == 0), &[sequence; 10 * PIECE]);
        }
        journal.set_safe(0, 1, 7);
        for sequence in 10..17 {
            assert_eq!(journal.push(0, key(sequence == 10), &[0; 10 * PIECE]), Kept::Yes { evicted: 0 });
        }
        assert_eq!(journal.push(0, key(false), &[0; 10 * PIECE]), Kept::Yes { evicted: 3 });
        assert_eq!((journal.find(0, 1, 0).unwrap().sequence, journal.missing(0, 1, 7)), (10, (SkipReason::Thinned, 9)));
    }

    #[test]
    fn frames_are_copied_out_in_the_order_of_their_arrival() {
        let mut journal = journal(100 * PIECE);
        let (mut number, mut octets, mut copied) = (0, [0; 4 * PIECE], Vec::new());
        for round in 0..60_u8 {
            journal.push(0, key(round % 5 == 0), &[round; 4 * PIECE]);
            journal.push(1, key(true), &[round; PIECE]);
            if round % 2 == 0 {
                while let Some(found) = journal.find_out(number, |track, _| track == 0) {
                    let (front, back) = octets.split_at_mut(PIECE + 7);
                    assert!(
                        journal.copy_out(found.number, 0, front) && journal.copy_out(found.number, PIECE + 7, back)
                    );
                    assert_eq!((octets, found.length), ([found.sequence as u8; 4 * PIECE], 4 * PIECE));
                    (number, _) = (found.number + 1, copied.push(found.sequence));
                }
            }
        }
        assert!(copied.iter().copied().eq(0..59), "{copied:?}");
        let again = journal.find_out(100, |_, _| true).unwrap();
        assert!(again.number >= 100 && again.number < 110, "it can go back: {again:?}");
        assert!(!journal.copy_out(again.number, again.length, &mut [0]), "behind its end");
        for _ in 0..60 {
            journal.push(0, key(true), &[9; 4 * PIECE]);
        }
        assert!(!journal.copy_out(again.number, 0, &mut [0]), "it has gone");
    }

    #[test]
    fn a_group_larger_than_the_arena_is_cut_at_its_tail() {
        let mut journal = journal(100 * PIECE);
        journal.push(0, key(true), &[0; 60 * PIECE]);
        journal.push(0, key(false), &[1; 30 * PIECE]);
        assert_eq!(journal.push(0, key(false), &[2; 30 * PIECE]), Kept::CutAtTail);
        assert_eq!(journal.frames(), 2, "what can be decoded stays");
        assert_eq!(journal.push(0, key(true), &[3; 30 * PIECE]), Kept::Yes { evicted: 2 });
        assert_eq!(journal.find(0, 1, 0).unwrap().sequence, 2);
    }

    #[test]
    fn nothing_goes_for_a_picture_that_has_no_room_after_all() {
        let mut journal = journal(100 * PIECE);
        journal.push(1, key(true), &[7; 10 * PIECE]);
        journal.push(0, key(true), &[0; 60 * PIECE]);
        journal.push(0, key(false), &[1; 30 * PIECE]);
        assert_eq!(journal.push(0, key(false), &[2; 20 * PIECE]), Kept::CutAtTail);
        assert_eq!(journal.find(1, 1, 0).map(|entry| entry.sequence), Some(0), "the sound would be gone for nothing");
        assert_eq!(journal.push(0, key(false), &[2; 10 * PIECE]), Kept::Yes { evicted: 1 }, "with it there is room");
        assert_eq!(journal.find(0, 1, 2).map(|entry| entry.length), Some(10 * PIECE as u64));
        // An older group would go for it, and then its own.
        let mut journal = self::journal(100 * PIECE);
        journal.push(0, key(true), &[0; 10 * PIECE]);
        journal.push(0, key(true), &[1; 60 * PIECE]);
        journal.push(0, key(false), &[2; 30 * PIECE]);
        assert_eq!(journal.push(0, key(false), &[3; 20 * PIECE]), Kept::CutAtTail);
        assert_eq!(journal.frames(), 3);
        assert_eq!(journal.push(0, key(false), &[3; 10 * PIECE]), Kept::Yes { evicted: 1 });
    }

    #[test]
    fn audio_and_video_share_the_arena() {
        let mut journal = journal(100 * PIECE);
        for sequence in 0..20_u8 {
            journal.push(0, key(sequence % 4 == 0), &[sequence; 9 * PIECE]);
            journal.push(1, key(true), &[sequence; PIECE]);
        }
        let first_audio = journal.find(1, 1, 0).unwrap().sequence;
        let first_video = journal.find(0, 1, 0).unwrap();
        assert!(first_video.head.key && first_audio.abs_diff(first_video.sequence) <= 4);
        assert_eq!(read(&mut journal, 1, 19).unwrap(), [19; PIECE]);
    }

    #[test]
    fn the_newest_key_frame_is_known_as_long_as_it_is_there() {
        let mut journal = journal(100 * PIECE);
        assert_eq!(journal.newest_key(0, 1), None);
        for sequence in 0..8 {
            journal.push(0, key(sequence % 3 == 0), &[sequence; 10 * PIECE]);
        }
        assert_eq!(
            (journal.newest_key(0, 1), journal.newest_key(0, 2), journal.newest_key(9_999, 1)),
            (Some(6), None, None)
        );
        journal.received(0, 1, 7);
        assert_eq!(journal.newest_key(0, 1), None);
        journal.begin_epoch(0, 2, true);
        journal.push(0, key(true), &[0; 10 * PIECE]);
        assert_eq!((journal.newest_key(0, 1), journal.newest_key(0, 2)), (None, Some(0)));
    }

    #[test]
    fn received_frames_make_room() {
        let mut journal = journal(100 * PIECE);
        for sequence in 0..10 {
            journal.push(0, key(sequence == 0), &[sequence; 10 * PIECE]);
        }
        journal.received(0, 1, 7);
        assert_eq!((journal.frames(), journal.bytes(), journal.find(0, 1, 0).unwrap().sequence), (3, 30 * PIECE, 7));
        assert_eq!(journal.push(0, key(false), &[9; 10 * PIECE]), Kept::Yes { evicted: 0 });
        journal.received(0, 1, 100);
        assert_eq!((journal.frames(), journal.used()), (0, 0));
    }

    #[test]
    fn epochs_are_kept_apart() {
        let mut journal = journal(100 * PIECE);
        journal.push(0, key(true), &[1; PIECE]);
        journal.begin_epoch(0, 2, true);
        journal.push(0, key(true), &[2; PIECE]);
        assert_eq!((journal.end(0, 1), journal.end(0, 2)), (1, 1));
        assert_eq!(journal.find(0, 1, 0).unwrap().sequence, 0);
        assert_eq!(journal.find(0, 1, 1), None);
        assert_eq!(journal.find(0, 2, 0).unwrap().sequence, 0);
        journal.received(0, 2, 1);
        assert_eq!((journal.frames(), journal.find(0, 2, 0)), (1, None));
        assert_eq!(journal.find(0, 1, 0).unwrap().sequence, 0, "nothing was said of the earlier one");
        journal.push(0, key(false), &[3; PIECE]);
        journal.received(0, 1, 1);
        assert_eq!((journal.frames(), journal.find(0, 2, 0).unwrap().sequence), (1, 1));
    }

    #[test]
    fn what_a_track_has_left_is_the_cards_once_it_is_safe_there() {
        let mut journal = journal(100 * PIECE);
        journal.begin_epoch(0, 1, true);
        for sequence in 0..4 {
            journal.push(0, key(sequence == 0), &[1]);
        }
        journal.begin_epoch(0, 2, true);
        for sequence in 0..3 {
            journal.push(0, key(sequence == 0), &[2]);
        }
        journal.set_safe(0, 1, 4);
        assert_eq!(journal.live_from(0, 1, 2), 2, "in order is better than with a hole that no key frame ends");
        journal.set_safe(0, 2, 1);
        assert_eq!(journal.live_from(0, 1, 2), 4, "its lane tells where it ends");
        assert_eq!(journal.live_from(0, 2, 0), 0);
    }

    #[test]
    fn all_former_epochs_keep_their_ends() {
        let mut journal = journal(100 * PIECE);
        for epoch in 2..=4 {
            journal.push(0, key(true), &[epoch as u8; PIECE]);
            journal.begin_epoch(0, epoch, true);
        }
        assert_eq!([1, 2, 3, 4].map(|epoch| journal.end(0, epoch)), [1, 1, 1, 0]);
        journal.received(0, 2, 1);
        assert_eq!(
            [1, 2, 3].map(|epoch| journal.end(0, epoch)),
            [1, 1, 1],
            "an end of 0 would be one that never began"
        );
        assert_eq!([1, 2, 3].map(|epoch| journal.freed(0, epoch)), [0, 1, 0]);
        for epoch in 5..=100 {
            journal.push(0, key(true), &[epoch as u8; PIECE]);
            journal.begin_epoch(0, epoch, true);
        }
        assert_eq!((journal.end(0, 2), journal.end(0, 99)), (0, 1), "one that is done is forgotten first");
    }

    #[test]
    fn no_epoch_is_forgotten_that_the_server_needs() {
        let mut journal = journal(10_000 * PIECE);
        for epoch in 2..=MOST_FORMER as u64 + 1 {
            assert!(journal.takes_epoch(0));
            journal.push(0, key(true), &[1; PIECE]);
            journal.begin_epoch(0, epoch, true);
        }
        assert_eq!((journal.end(0, 1), journal.knows(0, 1), journal.takes_epoch(0)), (1, true, false));
        journal.received(0, 7, 1);
        assert!(journal.takes_epoch(0) && journal.takes_epoch(1));
        journal.push(0, key(true), &[1; PIECE]);
        journal.begin_epoch(0, 5_000, true);
        assert_eq!((journal.knows(0, 7), journal.end(0, 1), journal.chains[0].former.len()), (false, 1, MOST_FORMER));
    }

    #[test]
    fn a_track_whose_group_was_evicted_for_another_needs_a_key() {
        let mut journal = journal(100 * PIECE);
        journal.push(0, key(true), &[0; 50 * PIECE]);
        journal.push(0, key(false), &[1; 49 * PIECE]);
        assert_eq!(journal.push(1, key(true), &[2; 2 * PIECE]), Kept::Yes { evicted: 2 });
        assert!(journal.needs_key(0) && !journal.needs_key(1));
        journal.push(0, key(true), &[3; PIECE]);
        assert!(!journal.needs_key(0));
    }

    #[test]
    fn many_small_frames_are_bounded_by_slots() {
        let mut journal = journal(64 << 10);
        for _ in 0..10_000 {
            journal.push(1, key(true), &[0; 8]);
        }
        assert_eq!(journal.frames(), 256);
        assert_eq!(journal.slots.len(), 256, "each is used again");
    }
}

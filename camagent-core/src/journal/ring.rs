//! The ring of octets and the ring of frames that lie in it.

use std::collections::{TryReserveError, VecDeque};

use camagent_proto::{
    frame::FrameHead,
    transfer::{self, Entry},
};

use super::{Kept, MAX_TRACKS};

mod pass;

#[derive(Clone, Copy, Debug)]
struct Slot {
    track: u32,
    epoch: u64,
    sequence: u64,
    head: FrameHead,
    start: usize,
    length: usize,
    /// Whether the frame may still be read; the octets of others wait until the ring's tail has come to them.
    is_alive: bool,
    /// The next frame of the same track, as a number that counts all frames ever held.
    next: Option<u64>,
}

/// The frames of one track that are alive: they are linked oldest to newest.
#[derive(Clone, Debug, Default)]
struct Chain {
    first: Option<u64>,
    last: Option<u64>,
    /// Where the reader found its last frame: it goes on from there.
    cursor: Option<u64>,
    epoch: u64,
    end: u64,
    /// The newest key frame; it may be gone already.
    newest_key: Option<u64>,
    /// The epochs before, oldest first: for a reader that has not come to the present one yet, and for whoever asks what became of them.
    former: VecDeque<Former>,
    /// Frames that later ones refer to were evicted: decoding starts again at the next key frame.
    needs_key: bool,
    is_video: bool,
    /// Epoch and number behind the last frame that is safely on flash: what goes from here is not lost.
    safe: (u64, u64),
    /// The number of the present epoch below which the server needs nothing any more.
    freed: u64,
}

/// What is known of an epoch that its track has left.
#[derive(Clone, Copy, Debug)]
struct Former {
    epoch: u64,
    end: u64,
    freed: u64,
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
    arena: Box<[u8]>,
    /// Where the next octet goes.
    head: usize,
    /// Octets between tail and head, those of dead frames included.
    used: usize,
    /// Octets of living frames.
    alive: usize,
    slots: VecDeque<Slot>,
    slot_limit: usize,
    /// The number of `slots[0]`.
    base: u64,
    chains: Box<[Chain]>,
}

impl Journal {
    /// Takes the memory: `capacity` octets, and about a tenth of that for what is known of the frames.
    pub(crate) fn new(capacity: usize) -> Result<Self, TryReserveError> {
        let slot_limit = (capacity / 1_024).max(256);
        let mut arena = Vec::new();
        arena.try_reserve_exact(capacity)?;
        arena.resize(capacity, 0);
        let mut slots = VecDeque::new();
        slots.try_reserve_exact(slot_limit)?;
        Ok(Self {
            arena: arena.into_boxed_slice(),
            head: 0,
            used: 0,
            alive: 0,
            slots,
            slot_limit,
            base: 0,
            chains: vec![Chain::default(); MAX_TRACKS as usize].into_boxed_slice(),
        })
    }

    /// Octets that it may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.arena.len()
    }

    /// Octets of the frames that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.alive
    }

    /// Whether the next frame of a track can be decoded only if it is a key frame, because what it refers to was evicted.
    pub(crate) fn needs_key(&self, track: u32) -> bool {
        self.chains.get(track as usize).is_some_and(|chain| chain.needs_key)
    }

    /// Frames that it holds.
    pub(crate) fn frames(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_alive).count()
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
        if let Some(chain) = self.chains.get_mut(track as usize) {
            if chain.end > 0 {
                if chain.former.len() >= MAX_FORMER {
                    let done = chain.former.iter().position(Former::is_done);
                    done.map(|done| chain.former.remove(done));
                }
                chain.former.push_back(Former { epoch: chain.epoch, end: chain.end, freed: chain.freed });
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
        while self.used + data.len() > self.capacity() || self.slots.len() == self.slot_limit {
            let Some(oldest) = self.slots.front().copied() else { break };
            if (oldest.epoch, oldest.sequence) < self.chains[oldest.track as usize].safe {
                self.kill_first(oldest.track);
                continue;
            }
            evicted += self.evict_group(oldest.track);
        }
        self.append(track, head, data);
        Kept::Yes { evicted }
    }

    /// Whether room for a picture of this length is to be had only from the group that it belongs to. Asked before anything goes: what goes for a
    /// picture that has no room after all would be lost for nothing.
    fn costs_its_own_group(&self, track: u32, length: usize) -> bool {
        let has_room = self.used + length <= self.capacity() && self.slots.len() < self.slot_limit;
        if has_room || !self.is_video(track) {
            return false;
        }
        let chain = &self.chains[track as usize];
        let (mut at, mut first) = (chain.first, None);
        while let Some((number, slot)) = at.and_then(|number| Some((number, self.slot(number)?))) {
            // What is safe on flash goes without a loss, and all before the newest key frame is another group.
            let is_safe = (slot.epoch, slot.sequence) < chain.safe;
            first = match first {
                None if is_safe => None,
                None => Some((number, slot.start)),
                Some(_) if slot.head.key => Some((number, slot.start)),
                known => known,
            };
            at = slot.next;
        }
        let Some((number, start)) = first else { return false };
        let tail = (self.head + self.capacity() - self.used % self.capacity()) % self.capacity();
        let before = (start + self.capacity() - tail) % self.capacity();
        self.used - before + length > self.capacity() || (self.slots.len() == self.slot_limit && number == self.base)
    }

    fn append(&mut self, track: u32, head: FrameHead, data: &[u8]) {
        let start = self.head;
        let first = data.len().min(self.capacity() - start);
        self.arena[start..start + first].copy_from_slice(&data[..first]);
        self.arena[..data.len() - first].copy_from_slice(&data[first..]);
        self.head = (start + data.len()) % self.capacity();
        self.used += data.len();
        self.alive += data.len();
        let number = self.base + self.slots.len() as u64;
        let chain = &mut self.chains[track as usize];
        let (epoch, sequence) = (chain.epoch, chain.end);
        chain.end += 1;
        chain.needs_key &= !head.key;
        if head.key {
            chain.newest_key = Some(number);
        }
        let before = chain.last.replace(number);
        chain.first.get_or_insert(number);
        self.slots.push_back(Slot {
            track,
            epoch,
            sequence,
            head,
            start,
            length: data.len(),
            is_alive: true,
            next: None,
        });
        if let Some(before) = before.and_then(|before| self.slot_mut(before)) {
            before.next = Some(number);
        }
    }

    fn is_video(&self, track: u32) -> bool {
        self.chains.get(track as usize).is_some_and(|chain| chain.is_video)
    }

    /// The first key frame of a track behind its oldest frame.
    fn next_key(&self, track: u32) -> Option<u64> {
        let mut at = self.slot(self.chains[track as usize].first?)?.next;
        while let Some(number) = at {
            let slot = self.slot(number)?;
            if slot.head.key {
                return Some(number);
            }
            at = slot.next;
        }
        None
    }

    /// Drops a track's oldest frame and, of video, all that cannot be decoded without it.
    fn evict_group(&mut self, track: u32) -> u64 {
        let until = if self.is_video(track) { self.next_key(track) } else { None };
        let mut evicted = 0;
        while let Some(first) = self.chains[track as usize].first
            && Some(first) != until
        {
            let safe = self.chains[track as usize].safe;
            evicted += u64::from(self.slot(first).is_some_and(|slot| (slot.epoch, slot.sequence) >= safe));
            self.kill_first(track);
            if !self.is_video(track) {
                break;
            }
        }
        self.chains[track as usize].needs_key |= self.is_video(track) && until.is_none();
        evicted
    }

    fn kill_first(&mut self, track: u32) {
        let Some(first) = self.chains[track as usize].first else { return };
        let Some(slot) = self.slot_mut(first) else { return };
        slot.is_alive = false;
        let (length, next) = (slot.length, slot.next);
        self.alive -= length;
        self.unlink(track, None, next);
        self.drop_dead();
    }

    /// Takes the frame between `before` and `next` out of its track's chain.
    fn unlink(&mut self, track: u32, before: Option<u64>, next: Option<u64>) {
        let chain = &mut self.chains[track as usize];
        if before.is_none() {
            chain.first = next;
        }
        if next.is_none() {
            chain.last = before;
        }
        if let Some(slot) = before.and_then(|before| self.slot_mut(before)) {
            slot.next = next;
        }
    }

    /// Frees what lies dead at the ring's tail.
    fn drop_dead(&mut self) {
        while let Some(front) = self.slots.front().filter(|front| !front.is_alive) {
            self.used -= front.length;
            self.base += 1;
            self.slots.pop_front();
        }
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        let at = number.checked_sub(self.base)?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    fn slot_mut(&mut self, number: u64) -> Option<&mut Slot> {
        let at = number.checked_sub(self.base)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// The oldest living frame not before (epoch, sequence) that is of this epoch.
    fn locate(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<u64> {
        let chain = self.chains.get(track as usize)?;
        let before = |number: u64| {
            self.slot(number).is_some_and(|slot| slot.is_alive && (slot.epoch, slot.sequence) <= (epoch, sequence))
        };
        let mut at = chain.cursor.filter(|&cursor| before(cursor)).or(chain.first);
        while let Some(number) = at {
            let slot = self.slot(number)?;
            if slot.is_alive && (slot.epoch, slot.sequence) >= (epoch, sequence) {
                let found = slot.epoch == epoch;
                self.chains[track as usize].cursor = Some(number);
                return found.then_some(number);
            }
            at = slot.next;
        }
        None
    }
}

/// A frame as it is copied to flash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// Counts all frames ever held: the copy goes on behind it.
    pub(crate) number: u64,
    pub(crate) track: u32,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) head: FrameHead,
    /// The server needs nothing of the epoch below this number.
    pub(crate) freed: u64,
}

/// What the flash tier needs.
impl Journal {
    /// Octets that are taken, those of frames that are gone but not given back included.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Copies the oldest frame with a number not below `number` whose track and epoch are wanted.
    pub(crate) fn copy_out(
        &self,
        number: u64,
        wanted: impl Fn(u32, u64) -> bool,
        into: &mut Vec<u8>,
    ) -> Option<Copied> {
        let skipped = usize::try_from(number.saturating_sub(self.base)).ok()?;
        let is_wanted = |slot: &Slot| slot.is_alive && wanted(slot.track, slot.epoch);
        let (at, slot) = self.slots.iter().enumerate().skip(skipped).find(|(_, slot)| is_wanted(slot))?;
        into.clear();
        let first = slot.length.min(self.arena.len() - slot.start);
        into.extend_from_slice(&self.arena[slot.start..slot.start + first]);
        into.extend_from_slice(&self.arena[..slot.length - first]);
        Some(Copied {
            number: self.base + at as u64,
            track: slot.track,
            epoch: slot.epoch,
            sequence: slot.sequence,
            head: slot.head,
            freed: self.freed(slot.track, slot.epoch),
        })
    }

    /// The number of an epoch below which the server needs nothing any more.
    pub(crate) fn freed(&self, track: u32, epoch: u64) -> u64 {
        match self.chains.get(track as usize) {
            Some(chain) if chain.epoch == epoch => chain.freed,
            Some(chain) => chain.former.iter().find(|former| former.epoch == epoch).map_or(0, |former| former.freed),
            None => 0,
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
            (of, _) if of > epoch => end,
            _ => return next,
        };
        if safe <= next {
            return next;
        }
        let (mut oldest, mut newest_key) = (None, None);
        let mut at = chain.first;
        while let Some(slot) = at.and_then(|number| self.slot(number)) {
            if slot.epoch == epoch && (next..=safe).contains(&slot.sequence) {
                oldest.get_or_insert(slot.sequence);
                newest_key = if slot.head.key && slot.sequence > next { Some(slot.sequence) } else { newest_key };
            }
            at = slot.next;
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
        let number = self.locate(track, epoch, sequence)?;
        let slot = self.slot(number)?;
        Some(Entry { sequence: slot.sequence, head: slot.head, length: slot.length as u64 })
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        let slot = self.slot(self.chains.get(track as usize)?.newest_key?)?;
        (slot.is_alive && slot.epoch == epoch).then_some(slot.sequence)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        match self.chains.get(track as usize) {
            Some(chain) if chain.epoch == epoch => chain.end,
            Some(chain) => chain.former.iter().find(|former| former.epoch == epoch).map_or(0, |former| former.end),
            None => 0,
        }
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        let Some(slot) = self.locate(track, epoch, sequence).and_then(|number| self.slot(number)) else { return false };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if slot.sequence != sequence || offset.saturating_add(into.len()) > slot.length {
            return false;
        }
        let start = (slot.start + offset) % self.arena.len();
        let first = into.len().min(self.arena.len() - start);
        into[..first].copy_from_slice(&self.arena[start..start + first]);
        let rest = into.len() - first;
        into[first..].copy_from_slice(&self.arena[..rest]);
        true
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        let Some(chain) = self.chains.get_mut(track as usize) else { return };
        match chain.former.iter_mut().find(|former| former.epoch == epoch) {
            Some(former) => former.freed = former.freed.max(next),
            None if chain.epoch == epoch => chain.freed = chain.freed.max(next),
            None => {}
        }
        let (mut before, mut at) = (None, chain.first);
        while let Some(number) = at
            && let Some(slot) = self.slot_mut(number)
            && (slot.epoch, slot.sequence) < (epoch, next)
        {
            at = slot.next;
            // Those of an epoch before this one stay: the server may not have them.
            if slot.epoch < epoch {
                before = Some(number);
            } else {
                slot.is_alive = false;
                self.alive -= slot.length;
                self.unlink(track, before, at);
            }
        }
        self.drop_dead();
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::transfer::Journal as _;

    use super::*;

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
        let mut journal = journal(1_000);
        for round in 0..50_u64 {
            let data = vec![round as u8; 300 + round as usize];
            assert!(matches!(journal.push(0, key(true), &data), Kept::Yes { .. }));
            assert_eq!(read(&mut journal, 0, round).unwrap(), data);
            assert!(journal.bytes() <= 1_000);
        }
    }

    #[test]
    fn the_oldest_group_of_pictures_goes_first_and_whole() {
        let mut journal = journal(1_000);
        for sequence in 0..10 {
            journal.push(0, key(sequence % 5 == 0), &[sequence; 100]);
        }
        assert_eq!(journal.push(0, key(true), &[10; 100]), Kept::Yes { evicted: 5 });
        assert_eq!(journal.find(0, 1, 0).unwrap().sequence, 5, "the next one is a key frame");
        assert_eq!((journal.frames(), journal.bytes()), (6, 600));
    }

    #[test]
    fn a_group_larger_than_the_arena_is_cut_at_its_tail() {
        let mut journal = journal(1_000);
        journal.push(0, key(true), &[0; 600]);
        journal.push(0, key(false), &[1; 300]);
        assert_eq!(journal.push(0, key(false), &[2; 300]), Kept::CutAtTail);
        assert_eq!(journal.frames(), 2, "what can be decoded stays");
        assert_eq!(journal.push(0, key(true), &[3; 300]), Kept::Yes { evicted: 2 });
        assert_eq!(journal.find(0, 1, 0).unwrap().sequence, 2);
    }

    #[test]
    fn nothing_goes_for_a_picture_that_has_no_room_after_all() {
        let mut journal = journal(1_000);
        journal.push(1, key(true), &[7; 100]);
        journal.push(0, key(true), &[0; 600]);
        journal.push(0, key(false), &[1; 300]);
        assert_eq!(journal.push(0, key(false), &[2; 200]), Kept::CutAtTail);
        assert_eq!(journal.find(1, 1, 0).map(|entry| entry.sequence), Some(0), "the sound would be gone for nothing");
        assert_eq!(journal.push(0, key(false), &[2; 100]), Kept::Yes { evicted: 1 }, "with it there is room");
        assert_eq!(journal.find(0, 1, 2).map(|entry| entry.length), Some(100));
        // An older group would go for it, and then its own.
        let mut journal = self::journal(1_000);
        journal.push(0, key(true), &[0; 100]);
        journal.push(0, key(true), &[1; 600]);
        journal.push(0, key(false), &[2; 300]);
        assert_eq!(journal.push(0, key(false), &[3; 200]), Kept::CutAtTail);
        assert_eq!(journal.frames(), 3);
        assert_eq!(journal.push(0, key(false), &[3; 100]), Kept::Yes { evicted: 1 });
    }

    #[test]
    fn audio_and_video_share_the_arena() {
        let mut journal = journal(1_000);
        for sequence in 0..20_u8 {
            journal.push(0, key(sequence % 4 == 0), &[sequence; 90]);
            journal.push(1, key(true), &[sequence; 10]);
        }
        let first_audio = journal.find(1, 1, 0).unwrap().sequence;
        let first_video = journal.find(0, 1, 0).unwrap();
        assert!(first_video.head.key && first_audio.abs_diff(first_video.sequence) <= 4);
        assert_eq!(read(&mut journal, 1, 19).unwrap(), [19; 10]);
    }

    #[test]
    fn the_newest_key_frame_is_known_as_long_as_it_is_there() {
        let mut journal = journal(1_000);
        assert_eq!(journal.newest_key(0, 1), None);
        for sequence in 0..8 {
            journal.push(0, key(sequence % 3 == 0), &[sequence; 100]);
        }
        assert_eq!(
            (journal.newest_key(0, 1), journal.newest_key(0, 2), journal.newest_key(9_999, 1)),
            (Some(6), None, None)
        );
        journal.received(0, 1, 7);
        assert_eq!(journal.newest_key(0, 1), None);
        journal.begin_epoch(0, 2, true);
        journal.push(0, key(true), &[0; 100]);
        assert_eq!((journal.newest_key(0, 1), journal.newest_key(0, 2)), (None, Some(0)));
    }

    #[test]
    fn received_frames_make_room() {
        let mut journal = journal(1_000);
        for sequence in 0..10 {
            journal.push(0, key(sequence == 0), &[sequence; 100]);
        }
        journal.received(0, 1, 7);
        assert_eq!((journal.frames(), journal.bytes(), journal.find(0, 1, 0).unwrap().sequence), (3, 300, 7));
        assert_eq!(journal.push(0, key(false), &[9; 100]), Kept::Yes { evicted: 0 });
        journal.received(0, 1, 100);
        assert_eq!((journal.frames(), journal.used), (0, 0));
    }

    #[test]
    fn epochs_are_kept_apart() {
        let mut journal = journal(1_000);
        journal.push(0, key(true), &[1; 10]);
        journal.begin_epoch(0, 2, true);
        journal.push(0, key(true), &[2; 10]);
        assert_eq!((journal.end(0, 1), journal.end(0, 2)), (1, 1));
        assert_eq!(journal.find(0, 1, 0).unwrap().sequence, 0);
        assert_eq!(journal.find(0, 1, 1), None);
        assert_eq!(journal.find(0, 2, 0).unwrap().sequence, 0);
        journal.received(0, 2, 1);
        assert_eq!((journal.frames(), journal.find(0, 2, 0)), (1, None));
        assert_eq!(journal.find(0, 1, 0).unwrap().sequence, 0, "nothing was said of the earlier one");
        journal.push(0, key(false), &[3; 10]);
        journal.received(0, 1, 1);
        assert_eq!((journal.frames(), journal.find(0, 2, 0).unwrap().sequence), (1, 1));
    }

    #[test]
    fn all_former_epochs_keep_their_ends() {
        let mut journal = journal(1_000);
        for epoch in 2..=4 {
            journal.push(0, key(true), &[epoch as u8; 10]);
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
            journal.push(0, key(true), &[epoch as u8; 10]);
            journal.begin_epoch(0, epoch, true);
        }
        assert_eq!((journal.end(0, 2), journal.end(0, 99)), (0, 1), "one that is done is forgotten first");
    }

    #[test]
    fn no_epoch_is_forgotten_that_the_server_needs() {
        let mut journal = journal(100_000);
        for epoch in 2..=MOST_FORMER as u64 + 1 {
            assert!(journal.takes_epoch(0));
            journal.push(0, key(true), &[1; 10]);
            journal.begin_epoch(0, epoch, true);
        }
        assert_eq!((journal.end(0, 1), journal.knows(0, 1), journal.takes_epoch(0)), (1, true, false));
        journal.received(0, 7, 1);
        assert!(journal.takes_epoch(0) && journal.takes_epoch(1));
        journal.push(0, key(true), &[1; 10]);
        journal.begin_epoch(0, 5_000, true);
        assert_eq!((journal.knows(0, 7), journal.end(0, 1), journal.chains[0].former.len()), (false, 1, MOST_FORMER));
    }

    #[test]
    fn a_track_whose_group_was_evicted_for_another_needs_a_key() {
        let mut journal = journal(1_000);
        journal.push(0, key(true), &[0; 500]);
        journal.push(0, key(false), &[1; 490]);
        assert_eq!(journal.push(1, key(true), &[2; 20]), Kept::Yes { evicted: 2 });
        assert!(journal.needs_key(0) && !journal.needs_key(1));
        journal.push(0, key(true), &[3; 10]);
        assert!(!journal.needs_key(0));
    }

    #[test]
    fn many_small_frames_are_bounded_by_slots() {
        let mut journal = journal(64 << 10);
        for _ in 0..10_000 {
            journal.push(1, key(true), &[0; 8]);
        }
        assert_eq!(journal.frames(), 256);
        assert_eq!(journal.slots.capacity(), 256, "nothing is allocated later");
    }
}

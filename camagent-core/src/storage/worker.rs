//! The disk thread's work, as a value: looks at memory and at the shelf, and does with the card what is due.
//!
//! A card that fails is left alone for [`AGAIN`] and then opened anew; what could not be made safe stays in memory as long as that has room, and what
//! goes from there meanwhile is told as lost.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::Arc,
    time::Duration,
};

use camagent_proto::{
    Instant,
    frame::{EndReason, FrameStart, TrackInfo},
    transfer::{EpochKey, Waiting},
};
use tokio::sync::Notify;

use super::Shelf;
use crate::{
    config::StorageMode,
    journal::flash::{
        backlog::{Cursor, Look},
        disk::Disk,
        segment::{self, Clock},
        store::{Flash, FlashConfig, LaneKey},
    },
    source::{Intake, SpentEpoch},
};

/// A card that failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(10);
/// Memory is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What was written is made safe after so many octets, or when it is time.
const SYNC_OCTETS: u64 = 1 << 20;
/// Octets that are read ahead, and one frame.
const AHEAD: usize = 256 << 10;
/// After a card was full, its share is raised so often, by a sixteenth of what is configured.
const RAISE_EVERY: Duration = Duration::from_secs(600);
/// A card that has less than this of ours when it is full is full of something else.
const LEAST: u64 = 512 << 10;
/// Frames that are copied before the rest of the work gets a turn.
const BURST: usize = 256;
/// With so many epochs it is looked which of them are over.
const FORGET_AT: usize = 512;
/// What the card holds is summed up so often.
const SUM_UP_EVERY: Duration = Duration::from_secs(5);

/// The disk thread's own things.
pub(crate) struct Worker {
    disk: Box<dyn Disk>,
    config: FlashConfig,
    mode: StorageMode,
    /// What was written is made safe at the latest after this time.
    sync_after: Duration,
    flash: Option<Flash>,
    /// What the last journal knew, while the card is away.
    before: Option<Flash>,
    open_at: Instant,
    /// Nothing is written before then.
    write_at: Instant,
    /// What may be taken of the card now: less than configured after it was full.
    max_bytes: u64,
    raise_at: Instant,
    failed_at: Option<Instant>,
    fault: Option<String>,
    /// The next frame of memory to look at.
    number: u64,
    /// By track and epoch: the number behind the last one that was written.
    written: BTreeMap<(u32, u64), u64>,
    /// The same, of what is safe.
    safe: BTreeMap<(u32, u64), u64>,
    safe_number: u64,
    unsynced_since: Option<Instant>,
    unsynced: u64,
    session: u64,
    cursor: Cursor,
    /// What it has stored of lanes of former runs, and the folder does not know yet.
    stored_past: BTreeMap<LaneKey, u64>,
    /// What the server has stored of lanes of this run.
    stored: BTreeMap<(u32, u64), u64>,
    live_freed: BTreeMap<(u32, u64), u64>,
    /// Where the live reader began when the backlog was read up to there.
    read_below: BTreeMap<(u32, u64), u64>,
    frame: Vec<u8>,
    clock: Option<Clock>,
    /// The number behind the last one that the agent was told to be on the card, of epochs of this run.
    told: BTreeMap<(u32, u64), u64>,
    /// What the shelf shows may have changed.
    is_news: bool,
    /// Frames that the cap cost, those that were told, and when.
    evicted: (u64, Option<Instant>),
    summed_up_at: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(disk: Box<dyn Disk>, config: FlashConfig, mode: StorageMode, sync_after: Duration) -> Self {
        Self {
            disk,
            max_bytes: config.max_bytes,
            raise_at: Instant::ZERO,
            config,
            mode,
            sync_after,
            flash: None,
            before: None,
            open_at: Instant::ZERO,
            write_at: Instant::ZERO,
            failed_at: None,
            fault: None,
            number: 0,
            written: BTreeMap::new(),
            safe: BTreeMap::new(),
            safe_number: 0,
            unsynced_since: None,
            unsynced: 0,
            session: 0,
            cursor: Cursor::new(),
            stored_past: BTreeMap::new(),
            stored: BTreeMap::new(),
            live_freed: BTreeMap::new(),
            read_below: BTreeMap::new(),
            frame: Vec::new(),
            clock: None,
            told: BTreeMap::new(),
            is_news: false,
            evicted: (0, None),
            summed_up_at: None,
        }
    }

    /// Works until it is told to stop. `wake` wakes the agent's thread.
    pub(crate) fn run(mut self, intake: &Intake, shelf: &Shelf, wake: &Arc<Notify>, now: impl Fn() -> Instant) {
        loop {
            let (is_done, pause) = self.turn(now(), intake, shelf, || wake.notify_one());
            if is_done {
                break;
            }
            let state = shelf.lock();
            if !state.tellings.is_empty() {
                wake.notify_one();
            }
            if !pause.is_zero() && !state.orders.stops {
                drop(shelf.changed.wait_timeout(state, pause));
            }
        }
        shelf.lock().has_stopped = true;
        shelf.changed.notify_all();
    }

    /// Does what is due. Whether it is to end, and how long there is nothing to do.
    pub(crate) fn turn(&mut self, now: Instant, intake: &Intake, shelf: &Shelf, wake: impl Fn()) -> (bool, Duration) {
        let (orders, is_connected, session, stops) = {
            let mut state = shelf.lock();
            let stops = state.orders.stops;
            state.boot = Some(self.config.boot);
            let orders = std::mem::take(&mut state.orders);
            state.orders.stops = stops;
            (orders, state.is_connected, state.session, stops)
        };
        self.clock = orders.clock.or(self.clock);
        if let Some(live) = orders.lost {
            self.stored.clear();
            self.stored_past.clear();
            self.live_freed.clear();
            self.flash.iter_mut().chain(&mut self.before).for_each(Flash::rewind);
            // Epochs that went live from their first frame to their last are the backlog's now.
            let mut state = shelf.lock();
            let own = self.flash.iter().chain(&self.before).flat_map(|flash| flash.lanes_of(self.config.boot));
            for (lane, _) in own.filter(|(lane, _)| !live.contains(&(lane.track, lane.epoch))) {
                state.live_from.insert((lane.track, lane.epoch), u64::MAX);
            }
        }
        if self.flash.is_none() && self.open_at <= now {
            self.open(now, shelf);
        }
        for (key, next) in orders.stored {
            if key.boot == self.config.boot {
                let known = self.stored.entry((key.track, key.epoch)).or_default();
                *known = next.max(*known);
            } else {
                let lane = LaneKey { boot: key.boot, track: key.track, epoch: key.epoch };
                let known = self.stored_past.entry(lane).or_default();
                *known = next.max(*known);
            }
        }
        // While the card is away this waits: nobody says it again in this session.
        while let Some((&lane, &next)) = self.stored_past.first_key_value().filter(|_| self.flash.is_some()) {
            self.stored_past.pop_first();
            self.with_flash(now, shelf, |flash, disk| flash.free(disk, &lane, next));
        }
        for (of, next) in orders.live_freed {
            let known = self.live_freed.entry(of).or_default();
            *known = next.max(*known);
        }
        if let (Some(flash), Some(clock)) = (&mut self.flash, orders.clock) {
            flash.note_clock(clock);
        }
        if session != self.session {
            (self.session, self.cursor) = (session, Cursor::new());
            self.is_news = true;
            self.read_below.clear();
        }
        if self.fault.is_some() && self.flash.is_some() && self.write_at <= now {
            // Whether it can be written again shows in a new segment, which the next frames use.
            if self.with_flash(now, shelf, Flash::begin) {
                self.mend(shelf);
            }
        }
        self.raise_cap(now);
        self.free_own(now, shelf);
        let more = self.spill(now, intake, shelf, is_connected && !stops);
        let thins = !stops && self.thin(now, shelf);
        self.tell_evicted(now, shelf);
        self.sum_up(now, shelf);
        self.sync_if_due(now, intake, shelf, stops && !more);
        self.publish(intake, shelf, is_connected, &wake);
        let read = is_connected && self.read_ahead(now, intake, shelf, &wake);
        if stops && !more {
            self.end(now, intake, shelf);
            return (true, Duration::ZERO);
        }
        (false, if more || read || thins { Duration::ZERO } else { LOOK_EVERY })
    }

    fn open(&mut self, now: Instant, shelf: &Shelf) {
        let config = FlashConfig { max_bytes: self.max_bytes, ..self.config.clone() };
        match Flash::open(&mut *self.disk, config, self.before.as_ref()) {
            Ok((mut flash, findings)) => {
                self.tell(shelf, findings.iter().map(ToString::to_string));
                if let Some(clock) = self.clock {
                    flash.note_clock(clock);
                }
                if self.write_at <= now {
                    self.mend(shelf);
                }
                self.flash = Some(flash);
                self.is_news = true;
                self.cursor = Cursor::new();
                self.read_below.clear();
                let mut state = shelf.lock();
                state.ahead.clear();
                state.is_at_end = false;
            }
            Err(error) => {
                self.open_at = now + AGAIN;
                self.fail(shelf, &format!("the journal's folder cannot be used: {error}"));
            }
        }
    }

    /// Says what is wrong, once.
    fn fail(&mut self, shelf: &Shelf, what: &str) {
        if self.fault.as_deref() != Some(what) {
            self.tell(shelf, [what.to_owned()]);
            self.fault = Some(what.to_owned());
        }
    }

    fn tell_evicted(&mut self, now: Instant, shelf: &Shelf) {
        let Some(flash) = &self.flash else { return };
        let (told, at) = self.evicted;
        let evicted = flash.counts().frames_evicted;
        if evicted < told {
            // It was opened anew.
            self.evicted.0 = 0;
        } else if evicted > told && at.is_none_or(|at| now.saturating_since(at) >= AGAIN) {
            self.evicted = (evicted, Some(now));
            let lost = evicted - told;
            self.tell(shelf, [format!("the journal's folder is full: {lost} older frames had to go")]);
        }
    }

    fn sum_up(&mut self, now: Instant, shelf: &Shelf) {
        if self.summed_up_at.is_none_or(|at| now.saturating_since(at) >= SUM_UP_EVERY) {
            self.summed_up_at = Some(now);
            shelf.lock().held = self.flash.as_ref().map(Flash::held).unwrap_or_default();
        }
    }

    /// What was wrong is over.
    fn mend(&mut self, shelf: &Shelf) {
        if self.fault.take().is_some() {
            self.tell(shelf, ["the journal's folder is usable again".to_owned()]);
        }
    }

    fn tell(&self, shelf: &Shelf, what: impl IntoIterator<Item = String>) {
        let mut state = shelf.lock();
        for what in what {
            // Who does not listen gets the first ones.
            if state.tellings.len() < 64 {
                state.tellings.push(what);
            }
        }
    }

    /// Does something with the card; after a failure nothing is known of what was not safe.
    fn with_flash(
        &mut self,
        now: Instant,
        shelf: &Shelf,
        action: impl FnOnce(&mut Flash, &mut dyn Disk) -> io::Result<()>,
    ) -> bool {
        let Some(flash) = &mut self.flash else { return false };
        self.is_news = true;
        let Err(error) = action(flash, &mut *self.disk) else { return true };
        let what = match error.kind() {
            ErrorKind::StorageFull => format!("the journal's card is full: {error}"),
            ErrorKind::ReadOnlyFilesystem => format!("the journal's card can only be read: {error}"),
            _ => format!("the journal's card failed: {error}"),
        };
        let held = flash.bytes();
        self.fail(shelf, &what);
        self.before = self.flash.take();
        // What it has can mostly still be read.
        (self.open_at, self.write_at) = (now, now + AGAIN);
        let before = self.failed_at.replace(now);
        if before.is_some_and(|before| now.saturating_since(before) < AGAIN) && error.kind() != ErrorKind::StorageFull {
            // Not this one.
            self.open_at = now + AGAIN;
        }
        if error.kind() == ErrorKind::StorageFull && held > LEAST {
            // The card is smaller than the cap, or others fill it: the oldest of ours go.
            self.max_bytes = self.max_bytes.min(held / 10 * 9);
            self.raise_at = now + RAISE_EVERY;
            self.write_at = now;
        }
        self.number = self.safe_number;
        self.written.clone_from(&self.safe);
        (self.unsynced, self.unsynced_since) = (0, None);
        false
    }

    /// Others may have given room back.
    fn raise_cap(&mut self, now: Instant) {
        if self.max_bytes < self.config.max_bytes && self.raise_at <= now {
            self.max_bytes = (self.max_bytes + self.config.max_bytes / 16).min(self.config.max_bytes);
            self.raise_at = now + RAISE_EVERY;
            if let Some(flash) = &mut self.flash {
                flash.set_max_bytes(self.max_bytes);
            }
        }
    }

    /// Epochs that neither memory nor the card has anything of are forgotten.
    fn forget(&mut self, intake: &Intake, shelf: &Shelf) {
        let Some(flash) = &self.flash else { return };
        let mut state = shelf.lock();
        let maps = [&self.written, &self.safe, &self.stored, &self.live_freed, &state.live_from];
        if maps.iter().all(|map| map.len() < FORGET_AT) {
            return;
        }
        let boot = self.config.boot;
        let is_known = |&(track, epoch): &(u32, u64)| {
            flash.lane(&LaneKey { boot, track, epoch }).is_some() || intake.knows(track, epoch)
        };
        let maps = [&mut self.written, &mut self.safe, &mut self.stored, &mut self.live_freed, &mut self.told];
        for map in maps.into_iter().chain([&mut self.read_below, &mut state.live_from]) {
            map.retain(|of, _| is_known(of));
        }
    }

    /// Frames of this run are let go when the live reader has brought them, and the lane those before.
    fn free_own(&mut self, now: Instant, shelf: &Shelf) {
        let starts = shelf.lock().live_from.clone();
        let boot = self.config.boot;
        let mut freed = Vec::new();
        if let Some(flash) = &self.flash {
            for (lane, held) in flash.lanes_of(boot) {
                let of = (lane.track, lane.epoch);
                let start = starts.get(&of).copied().unwrap_or(0);
                let stored = self.stored.get(&of).copied().unwrap_or(0);
                let live = self.live_freed.get(&of).copied().unwrap_or(0);
                let below = stored.max(held.freed);
                let next = if below >= start || held.oldest >= start { below.max(live) } else { below };
                if next > held.freed {
                    freed.push((*lane, next));
                }
            }
        }
        for (lane, next) in freed {
            self.with_flash(now, shelf, |flash, disk| flash.free(disk, &lane, next));
        }
    }

    /// Copies frames to the card when that is due; whether there are more.
    fn spill(&mut self, now: Instant, intake: &Intake, shelf: &Shelf, is_connected: bool) -> bool {
        let (used, capacity) = intake.fill();
        let short = self.short(intake);
        let is_due = self.mode == StorageMode::WriteAhead || !is_connected || used > capacity / 2 || !short.is_empty();
        if !is_due || self.flash.is_none() || self.write_at > now {
            return false;
        }
        for _ in 0..BURST {
            let mut octets = std::mem::take(&mut self.frame);
            let found = intake.copy_out(self.number, &mut octets);
            self.frame = octets;
            let Some((info, copied)) = found else {
                self.give_up(now, intake, &short);
                return false;
            };
            let of = (copied.track, copied.epoch);
            let written = self.written.get(&of).copied().unwrap_or(0);
            let is_old = copied.sequence < written.max(copied.freed);
            let frame = FrameStart {
                track: copied.track,
                sequence: copied.sequence,
                head: copied.head,
                total: self.frame.len() as u64,
                payload: Default::default(),
            };
            let octets = std::mem::take(&mut self.frame);
            let done = is_old
                || self.with_flash(now, shelf, |flash, disk| {
                    flash.note_hole(&info, written, copied.freed, &copied.holes, copied.sequence);
                    flash.append(disk, &info, &frame, &octets)
                });
            self.frame = octets;
            self.frame.shrink_to(256 << 10);
            if !done {
                return false;
            }
            self.number = copied.number + 1;
            if !is_old {
                self.written.insert(of, copied.sequence + 1);
                self.unsynced += frame.total;
                self.unsynced_since.get_or_insert(now);
            }
            if self.unsynced >= SYNC_OCTETS {
                return true;
            }
        }
        true
    }

    /// Makes room on the card before it is needed; whether there is more to do.
    fn thin(&mut self, now: Instant, shelf: &Shelf) -> bool {
        let is_due = self.write_at <= now && self.flash.as_ref().is_some_and(Flash::wants_thinning);
        is_due && self.with_flash(now, shelf, |flash, disk| flash.thin(disk).map(drop))
    }

    /// Epochs of this run of which the agent was told more than is there, and up to where it is: a write failed. What is neither on the card nor
    /// with the server comes again from memory.
    fn short(&self, intake: &Intake) -> BTreeMap<(u32, u64), u64> {
        let Some(flash) = &self.flash else { return BTreeMap::new() };
        let boot = self.config.boot;
        let end = |&(track, epoch): &(u32, u64)| {
            let lane = flash.lane(&LaneKey { boot, track, epoch });
            lane.map_or(0, |lane| lane.end.max(lane.freed))
        };
        let fewer = self.told.iter().map(|(of, told)| (*of, *told, end(of))).filter(|(_, told, end)| end < told);
        let fewer = fewer.map(|(of, told, end)| (of, told, end.max(intake.freed(of.0, of.1))));
        fewer.filter(|(_, told, end)| end < told).map(|(of, _, end)| (of, end)).collect()
    }

    /// All that memory has is written: what the agent was told of and memory has no more never comes, and this is why.
    fn give_up(&mut self, now: Instant, intake: &Intake, short: &BTreeMap<(u32, u64), u64>) {
        let Some(flash) = self.flash.as_mut().filter(|_| !short.is_empty()) else { return };
        let written = &self.written;
        let is_short = |info: &TrackInfo| {
            let of = (info.track, info.epoch);
            short.contains_key(&of).then(|| written.get(&of).copied().unwrap_or(0))
        };
        for SpentEpoch { info, written, end, freed, holes } in intake.spent_epochs(true, is_short) {
            if written < end {
                flash.note_hole(&info, written, freed, &holes, end);
                self.written.insert((info.track, info.epoch), end);
                self.unsynced_since.get_or_insert(now);
                self.is_news = true;
            }
        }
    }

    fn sync_if_due(&mut self, now: Instant, intake: &Intake, shelf: &Shelf, at_once: bool) {
        let waited = self.unsynced_since.map(|since| now.saturating_since(since));
        // What is safe makes room in memory for what comes; what is not has to stay there.
        let most = SYNC_OCTETS.min(intake.fill().1 as u64 / 4);
        let is_due = at_once || self.unsynced >= most || waited.is_some_and(|waited| waited >= self.sync_after);
        let Some(flash) = self.flash.as_ref().filter(|_| is_due && self.write_at <= now) else { return };
        // What was taken note of without an octet, because it was known already, is safe as it is.
        let is_dirty = flash.is_dirty();
        if !is_dirty && self.written == self.safe || is_dirty && !self.with_flash(now, shelf, Flash::sync) {
            return;
        }
        self.mend(shelf);
        (self.unsynced, self.unsynced_since) = (0, None);
        self.safe.clone_from(&self.written);
        self.safe_number = self.number;
        for (&(track, epoch), &next) in &self.safe {
            intake.set_safe(track, epoch, next);
        }
        self.end_epochs(intake, false);
        self.forget(intake, shelf);
    }

    /// Epochs that were left are over when memory has nothing of them that is not written; at a planned stop all are. Also those of which nothing could be
    /// written: the live reader leaves to the card what is before a frame that is safe on it.
    fn end_epochs(&mut self, intake: &Intake, is_stop: bool) {
        let Some(flash) = &mut self.flash else { return };
        let (boot, written) = (self.config.boot, &self.written);
        let goes_on = |info: &TrackInfo| {
            let key = LaneKey { boot, track: info.track, epoch: info.epoch };
            let written = written.get(&(info.track, info.epoch)).copied();
            match flash.lane(&key) {
                // What a write brought there that failed is found when the card is opened anew: of that nothing was taken note of here.
                Some(lane) => lane.ended.is_none().then(|| written.unwrap_or(0)),
                // What was written of it is stored and forgotten, if there was something.
                None => Some(written.unwrap_or(0)),
            }
        };
        for SpentEpoch { info, written, end, freed, holes } in intake.spent_epochs(is_stop, goes_on) {
            let (of, end) = ((info.track, info.epoch), end.max(written));
            flash.note_end(&info, written, freed, &holes, end);
            if flash.lane(&LaneKey { boot, track: info.track, epoch: info.epoch }).is_some() {
                // Told once: when all of it is stored nothing of it is missing.
                self.written.insert(of, end);
                self.safe.insert(of, end);
            }
        }
    }

    /// Tells the agent's thread what there is for the server.
    fn publish(&mut self, intake: &Intake, shelf: &Shelf, is_connected: bool, wake: &impl Fn()) {
        if !is_connected || !self.is_news {
            return;
        }
        let short = self.short(intake);
        let Some(flash) = &mut self.flash else { return };
        // What is short may cease to be so by what the server stores.
        self.is_news = !short.is_empty();
        let damages = flash.take_damages();
        let own = self.config.boot;
        let short =
            short.into_iter().map(|((track, epoch), end)| (EpochKey { boot: own, track, epoch }, end)).collect();
        let mut state = shelf.lock();
        state.tellings.extend(damages);
        let is_longer = state.short != short;
        state.short = short;
        let mut waiting = Vec::new();
        let mut lost = BTreeMap::new();
        for (boot, clock) in flash.boots() {
            for (lane, held) in flash.lanes_of(*boot) {
                let start = match lane.boot == own {
                    true => state.live_from.get(&(lane.track, lane.epoch)).copied().unwrap_or(0),
                    false => u64::MAX,
                };
                let (next, end) = (held.oldest.max(held.freed), held.end.min(start));
                if next >= end {
                    continue;
                }
                let ended = held.ended.filter(|_| end == held.end).map(|ended| match ended {
                    segment::EndReason::Stopped => EndReason::Stopped,
                    segment::EndReason::PowerCut => EndReason::PowerCut,
                });
                let mut info = held.info.clone();
                info.next = next;
                let clock = clock.map_or((0, 0), |clock| (clock.boot_us, clock.utc_us));
                let key = EpochKey { boot: lane.boot, track: lane.track, epoch: lane.epoch };
                if lane.boot == own {
                    let told = self.told.entry((lane.track, lane.epoch)).or_default();
                    *told = end.max(*told);
                }
                lost.insert(key, held.lost.clone());
                waiting.push(Waiting { boot: lane.boot, info, end, clock, ended });
            }
        }
        state.lost = lost;
        // What was freed meanwhile is no news. Both are in the same order.
        let mut known = state.waiting.iter();
        let is_same = waiting.iter().all(|new| {
            let is_known = |old: &Waiting| (old.key(), old.end, old.ended) == (new.key(), new.end, new.ended);
            known.by_ref().any(is_known)
        });
        if !is_same {
            state.waiting = waiting;
            state.generation += 1;
            // What is told anew was not looked for yet.
            state.is_at_end = false;
        }
        drop(state);
        if !is_same || is_longer {
            wake();
        }
    }

    /// Reads the backlog ahead; whether there is more to do at once.
    fn read_ahead(&mut self, now: Instant, intake: &Intake, shelf: &Shelf, wake: &impl Fn()) -> bool {
        let own = self.config.boot;
        let (octets, declined, starts) = {
            let state = shelf.lock();
            if state.session != self.session {
                return true;
            }
            let octets: usize = state.ahead.iter().map(|stored| stored.frame.payload.len()).sum();
            (octets, state.declined.clone(), state.live_from.clone())
        };
        if self.read_below != starts {
            // The live reader goes on somewhere else: what is below is the backlog's now. Who has it says so. Later epochs were taken back: of what
            // the agent has had of them it knows.
            let moved: Vec<_> = self.moved(&starts).collect();
            let is_behind = |lane: &LaneKey| moved.iter().any(|of| of.0 == lane.track && of.1 < lane.epoch);
            let is_taken_back = |lane: &LaneKey| lane.boot == own && is_behind(lane);
            let mut cursor = Cursor::new();
            if let Some(flash) = &self.flash {
                flash
                    .lanes()
                    .filter(|(lane, _)| !is_taken_back(lane))
                    .for_each(|(lane, _)| cursor.pass(*lane, self.cursor.next_of(lane).min(self.read_below_of(lane))));
            }
            (self.cursor, self.read_below) = (cursor, starts);
            self.is_news = true;
            return true;
        }
        for key in declined {
            self.cursor.pass(LaneKey { boot: key.boot, track: key.track, epoch: key.epoch }, u64::MAX);
        }
        let (mut octets, mut is_at_end, mut goes_on) = (octets, false, false);
        let mut read = Vec::new();
        let read_below = &self.read_below;
        let below = |lane: &LaneKey| match lane.boot == own {
            true => read_below.get(&(lane.track, lane.epoch)).copied().unwrap_or(0),
            false => u64::MAX,
        };
        while octets < AHEAD {
            let Some(flash) = &mut self.flash else { break };
            match self.cursor.look(flash, &mut *self.disk, below) {
                Ok(Look::End) => {
                    is_at_end = true;
                    break;
                }
                Ok(Look::Frame(stored)) => {
                    octets += stored.frame.payload.len();
                    read.push(stored);
                }
                Ok(Look::Later) => {
                    goes_on = true;
                    break;
                }
                Err(error) => {
                    self.with_flash(now, shelf, |_, _| Err(error));
                    break;
                }
            }
        }
        if self.flash.as_ref().is_some_and(Flash::has_damages) {
            // Why numbers are missing is known before what comes behind them.
            self.is_news = true;
            self.publish(intake, shelf, true, wake);
        }
        let mut state = shelf.lock();
        if state.session != self.session {
            return true;
        }
        // The agent goes by this: what it is told to be there and does not find, it takes for brought already. What is written and not safe yet is
        // told to be there, and read when it is safe.
        let is_current = state.live_from == self.read_below;
        is_at_end &= is_current && !self.is_any_unsafe();
        let is_news = !read.is_empty() || state.is_at_end != is_at_end;
        state.is_at_end = is_at_end;
        state.ahead.extend(read);
        let moved: Vec<_> = self.moved(&state.live_from).collect();
        moved.into_iter().for_each(|(track, epoch)| state.take_back(track, epoch));
        drop(state);
        if is_news {
            wake();
        }
        goes_on || !is_current
    }

    /// Epochs, each with its track, of which the live reader began somewhere else when the backlog was read.
    fn moved(&self, starts: &BTreeMap<(u32, u64), u64>) -> impl Iterator<Item = (u32, u64)> {
        starts.iter().filter(|(of, next)| self.read_below.get(of) != Some(next)).map(|(of, _)| *of)
    }

    /// Whether something was written for the backlog that cannot be read yet.
    fn is_any_unsafe(&self) -> bool {
        self.written.iter().any(|(of, written)| {
            let below = self.read_below.get(of).copied().unwrap_or(0);
            self.safe.get(of).copied().unwrap_or(0) < below.min(*written)
        })
    }

    fn read_below_of(&self, lane: &LaneKey) -> u64 {
        match lane.boot == self.config.boot {
            true => self.read_below.get(&(lane.track, lane.epoch)).copied().unwrap_or(0),
            false => u64::MAX,
        }
    }

    /// The agent stops: every epoch ends as planned, and the segment is sealed.
    fn end(&mut self, now: Instant, intake: &Intake, shelf: &Shelf) {
        self.end_epochs(intake, true);
        self.with_flash(now, shelf, |flash, disk| flash.sync(disk).and_then(|()| flash.seal(disk)));
    }
}

#[cfg(test)]
impl Worker {
    /// Epochs that it remembers at most of one kind.
    pub(super) fn known_epochs(&self) -> usize {
        let maps = [&self.written, &self.safe, &self.stored, &self.live_freed, &self.read_below, &self.told];
        maps.map(BTreeMap::len).into_iter().max().unwrap_or(0)
    }
}

/// For `cargo xtask chaos`.
#[cfg(feature = "simulation")]
impl Worker {
    /// Whether nothing waits on the card, as far as it can be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.flash.as_ref().is_some_and(|flash| flash.lanes().all(|(_, lane)| lane.freed >= lane.end))
    }
}

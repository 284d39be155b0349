//! The checker: reads the log of a run and nothing else, and says what of the promises did not hold.
//!
//! It knows the rules and none of the code that keeps them. For every frame that was pushed it wants the same octets stored exactly once, or
//! exactly one cause why they are not, and it does not take the ends' word for a cause: a SKIP for want of room is believed only if the
//! frames that were pushed since really are more than the journal's memory, one for lateness only if the frame had waited for so long. That only key
//! frames were kept of a group is believed if the group was over, and all key frames before it are, with everything since, more than fits.

use std::collections::{BTreeMap, VecDeque};

use crate::log::{Digest, Event, FrameId, Lane, Log, Policy, Reason};

/// A promise that did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A frame is gone without a cause.
    Lost,
    /// A frame is there twice, or was shown twice.
    Duplicated,
    /// Anything else that no rule allows.
    Unexplained,
}

/// One breach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// What kind.
    pub kind: Kind,
    /// In words.
    pub what: String,
    /// The place in the log where it shows.
    pub at: usize,
}

impl Breach {
    /// What broke, whatever frame it broke for.
    pub fn rule(&self) -> String {
        self.what.chars().filter(|letter| !letter.is_ascii_digit()).collect()
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// All breaches, in the order of the log.
    pub breaches: Vec<Breach>,
    /// Frames that were pushed.
    pub pushed: u64,
    /// Frames that are not stored and have a cause.
    pub explained: u64,
    /// Frames that were only on the card when their run ended, safely, and are stored.
    pub promised: u64,
    /// Runs of the agent that ended without a word.
    pub ended: u64,
}

impl Verdict {
    /// How many breaches are of a kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.breaches.iter().filter(|breach| breach.kind == kind).count() as u64
    }

    /// Whether every promise held.
    pub fn is_good(&self) -> bool {
        self.breaches.is_empty()
    }
}

#[derive(Clone, Debug)]
struct Frame {
    at: usize,
    pushed_us: u64,
    digest: Digest,
    octets: u64,
    key: bool,
    disposable: bool,
    /// Everything in memory from this frame's group on was more than fits, at a time when the group was not let go of.
    may_be_evicted: bool,
    /// The agent did not take it; and why not was that it, or one that it refers to, is larger than memory.
    is_refused: bool,
    is_too_large: bool,
    /// Everything that its run had pushed before.
    load_before: Load,
    /// Octets that all runs had pushed before, and those of key frames among them.
    octets_before: u64,
    keys_before: u64,
    /// What its group has to share memory with at the least when it is thinned: this, and all that the run pushed so far.
    beside: Load,
    /// It was safe on the card when its run ended.
    is_promised: bool,
    taken: bool,
    /// It came live, and not as part of the past.
    taken_live: bool,
    /// The server said that it is stored.
    acknowledged: bool,
    /// It said so, and could not mean that it never comes.
    is_owed: bool,
    /// It was stored, and went with the server's store: it comes again if the agent still has it.
    is_excused: bool,
    /// When it was told as never coming.
    skipped: Option<(Reason, usize)>,
    stored: u32,
}

impl Frame {
    /// Whether it was told as never coming, with a cause.
    fn is_told(&self) -> bool {
        self.skipped.is_some_and(|(reason, _)| reason != Reason::Live)
    }
}

/// What takes room in memory: octets, as memory gives them out, and frames. What is subtracted may be more than what is there so far.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    octets: i64,
    frames: i64,
}

impl Load {
    fn add(&mut self, octets: u64) {
        (self.octets, self.frames) = (self.octets + octets as i64, self.frames + 1);
    }

    fn plus(self, other: Self) -> Self {
        Self { octets: self.octets + other.octets, frames: self.frames + other.frames }
    }

    fn minus(self, other: Self) -> Self {
        Self { octets: self.octets - other.octets, frames: self.frames - other.frames }
    }
}

#[derive(Clone, Debug, Default)]
struct LaneState {
    frames: Vec<Frame>,
    freed: u64,
    /// Below this number memory keeps what was left to the backlog; and below which number what went live was freed meanwhile.
    left: Option<(u64, u64)>,
    /// All below were acknowledged as stored.
    persisted: u64,
}

#[derive(Clone, Debug)]
struct Boot {
    policy: Policy,
    /// Frames in the order of their pushing, the oldest that can still be in memory first.
    ram: VecDeque<FrameId>,
    ram_octets: u64,
    /// Everything that it pushed, and the key frames among that.
    pushed: Load,
    keys: Load,
    /// By track: the group that it is in, and the `beside` of its frames.
    groups: BTreeMap<u32, (Load, Load)>,
    session_us: Option<u64>,
    /// Since when it has no session; `None` while there is one.
    alone_us: Option<u64>,
    /// When it ran no more, and whether that was planned.
    ended: Option<(u64, bool)>,
}

/// What is written is safe on the card after this time: a look at memory, a second until the sync, and some grace.
const SAFE_WITHIN_US: u64 = 2_000_000;
/// A card that failed is used again after this time.
const CARD_AGAIN_US: u64 = 12_000_000;

/// A card that was full is used as it was configured after this time at the soonest, as the reference of `storage.max_bytes` says …
const CARD_WHOLE_US: u64 = 600_000_000;
/// … and until then for so many octets at the least: nine tenths of what the journal had there, or of this much.
const CARD_LEAST: u64 = (512 << 10) / 10 * 9;

/// Numbers of tracks are below, numbers of lanes are not.
const FIRST_LANE: u32 = 65_536;
/// The server's word for a frame that it could not read.
const UNREADABLE: u64 = 1 << 32;

/// Reads a log.
pub fn check(log: &Log) -> Verdict {
    let mut checker = Checker::default();
    for (at, (now_us, event)) in log.events.iter().enumerate() {
        checker.take(at, *now_us, event);
    }
    checker.finish(log.events.len())
}

#[derive(Default)]
struct Checker {
    lanes: BTreeMap<Lane, LaneState>,
    boots: BTreeMap<u32, Boot>,
    /// What viewers got last of a track, and by which process.
    shown: BTreeMap<(u32, u32, u32), (u64, u64)>,
    /// What was acknowledged last on a connection.
    said: BTreeMap<(u32, u32, Lane), (u64, u64)>,
    /// Where a track began on a connection.
    begun: BTreeMap<(u32, u32, Lane), u64>,
    verdict: Verdict,
    is_settled: bool,
    card_is_bad: bool,
    /// When the card last began or ceased to be bad.
    card_bad_us: Option<u64>,
    /// Whether nothing fits onto it, and when that last began or ceased.
    card_is_full: bool,
    card_full_us: Option<u64>,
    /// Octets that were pushed, by all runs, and those of key frames among them.
    octets: u64,
    keys: u64,
}

impl Boot {
    /// Takes note of a frame: what stands beside its group in memory, less what was pushed before, whatever of that is still there.
    fn note(&mut self, track: u32, key: bool, octets: u64) -> Load {
        let octets = octets.next_multiple_of(self.policy.ram_piece);
        if key || !self.groups.contains_key(&track) {
            // Key frames stay, and groups of other tracks that go on.
            let others = self.groups.iter().filter(|(other, _)| **other != track).map(|(_, (group, _))| *group);
            let beside = others.fold(self.keys, Load::plus).minus(self.pushed);
            self.groups.insert(track, (Load::default(), beside));
        }
        let (group, beside) = self.groups.entry(track).or_default();
        group.add(octets);
        self.pushed.add(octets);
        if key {
            self.keys.add(octets);
        }
        *beside
    }

    /// Whether memory had to let go of a frame to keep key frames.
    fn is_short_for(&self, frame: &Frame) -> bool {
        let load = self.pushed.plus(frame.beside);
        load.octets > self.policy.ram_octets as i64 || load.frames > self.policy.ram_frames as i64
    }

    /// Whether the card had a frame safely at a time, by the written policy.
    fn is_promised(&self, frame: &Frame, at_us: u64, card_bad: (bool, Option<u64>), is_planned: bool) -> bool {
        let is_used = self.policy.records && self.policy.card_octets.is_some();
        let was_well = !card_bad.0 && card_bad.1.is_none_or(|bad| bad + CARD_AGAIN_US <= frame.pushed_us);
        let since = match (self.policy.writes_ahead, self.alone_us) {
            (true, _) => frame.pushed_us,
            (false, Some(alone)) => frame.pushed_us.max(alone),
            (false, None) => u64::MAX,
        };
        is_used && was_well && (is_planned || at_us >= since.saturating_add(SAFE_WITHIN_US))
    }
}

impl Checker {
    fn breach(&mut self, kind: Kind, at: usize, what: String) {
        self.verdict.breaches.push(Breach { kind, what, at });
    }

    fn unexplained(&mut self, at: usize, what: String) {
        self.breach(Kind::Unexplained, at, what);
    }

    fn frame(&mut self, id: FrameId) -> Option<&mut Frame> {
        self.lanes.get_mut(&id.lane)?.frames.get_mut(usize::try_from(id.sequence).ok()?)
    }

    fn take(&mut self, at: usize, now_us: u64, event: &Event) {
        match *event {
            Event::AgentStarted { boot, policy } => {
                let state = Boot {
                    policy,
                    ram: VecDeque::new(),
                    ram_octets: 0,
                    pushed: Load::default(),
                    keys: Load::default(),
                    groups: BTreeMap::new(),
                    session_us: None,
                    alone_us: Some(now_us),
                    ended: None,
                };
                if self.boots.insert(boot, state).is_some() {
                    self.unexplained(at, format!("boot {boot} began twice"));
                }
            }
            Event::AgentPowerCut { boot } | Event::AgentKilled { boot } => self.ended(boot, now_us, false),
            Event::AgentStopped { boot } => self.ended(boot, now_us, true),
            Event::SessionOver { boot } => {
                if let Some(boot) = self.boots.get_mut(&boot) {
                    boot.alone_us.get_or_insert(now_us);
                }
            }
            Event::CardWell(is_well) => {
                (self.card_is_bad, self.card_bad_us) = (!is_well, Some(now_us));
                if is_well && std::mem::take(&mut self.card_is_full) {
                    self.card_full_us = Some(now_us);
                }
            }
            Event::CardFull => (self.card_is_full, self.card_full_us) = (true, Some(now_us)),
            Event::EpochEnded { lane, next, by_power } => self.epoch_ended(at, lane, next, by_power),
            Event::Announced { connection, lane, next } => {
                let said = self.said.entry((connection, lane.track, lane)).or_default();
                said.0 = said.0.max(next);
                self.begun.insert((connection, lane.track, lane), next);
            }
            Event::Gap { lane, first, next, reason } if reason == UNREADABLE => self.unreadable(at, lane, first, next),
            Event::Session { boot } => {
                if let Some(boot) = self.boots.get_mut(&boot) {
                    (boot.session_us, boot.alone_us) = (Some(now_us), None);
                }
            }
            Event::Pushed { frame, digest, octets, key, disposable } => {
                let new = self.new_frame(at, now_us, octets);
                self.pushed(at, frame, Frame { digest, key, disposable, ..new });
            }
            Event::Refused { frame, octets, is_early } => {
                let new = self.new_frame(at, now_us, octets);
                self.refused(at, frame, Frame { is_refused: true, ..new }, is_early);
            }
            Event::Freed { lane, next, is_live } => self.freed(at, lane, next, is_live),
            Event::Left { lane, to, is_back } => self.left(lane, to, is_back),
            Event::Acknowledged { connection, number, lane, received, persisted } => {
                self.acknowledged(at, (connection, number, lane), received, persisted);
            }
            Event::Live { process, frame, digest, is_backfill } => self.live(at, process, frame, digest, is_backfill),
            Event::Taken { frame, is_backfill } => match self.frame(frame) {
                Some(known) => (known.taken, known.taken_live) = (true, known.taken_live || !is_backfill),
                None => self.unexplained(at, format!("the server takes {frame}, which nobody pushed")),
            },
            Event::Skipped { lane, first, last, reason } => self.skipped(at, now_us, lane, first, last, reason),
            Event::Stored { frame, digest } => self.stored(at, frame, digest),
            // What it had taken and not stored is gone with it.
            Event::ServerKilled { .. } | Event::ServerPowerCut { .. } => {
                let frames = self.lanes.values_mut().flat_map(|lane| &mut lane.frames);
                frames.for_each(|frame| frame.taken_live = false);
            }
            Event::StoreLost => self.store_lost(),
            Event::Settled => self.is_settled = true,
            Event::NotSettled => {}
            Event::Connected { .. }
            | Event::Broken { .. }
            | Event::ServerStarted { .. }
            | Event::Gap { .. }
            | Event::Fault(_) => {}
        }
    }

    /// What was acknowledged as stored, or let go of for that, may be gone for good, and nothing of it has to come again. All else is owed as before.
    fn store_lost(&mut self) {
        for lane in self.lanes.values_mut() {
            for (sequence, frame) in (0..).zip(&mut lane.frames) {
                frame.is_excused |= frame.acknowledged || sequence < lane.freed;
                (frame.acknowledged, frame.is_owed, frame.taken, frame.taken_live) = (false, false, false, false);
            }
        }
    }

    /// The server can only fail to read pictures that refer to a lost one.
    fn unreadable(&mut self, at: usize, lane: Lane, first: u64, next: u64) {
        for sequence in first..next {
            let frames = self.lanes.get_mut(&lane).map(|state| state.frames.as_mut_slice()).unwrap_or_default();
            let to = usize::try_from(sequence).unwrap_or(usize::MAX).saturating_add(1).min(frames.len());
            let group = frames[..to].iter().rposition(|frame| frame.key).unwrap_or(0);
            match frames[group..to].split_last_mut() {
                Some((last, before)) if before.iter().any(|frame| frame.is_told() || frame.is_excused) => {
                    last.skipped = Some((Reason::Other(UNREADABLE), at))
                }
                _ => self.unexplained(at, format!("the server cannot read {lane} frame {sequence}")),
            }
        }
    }

    /// What was not safe on the card then is gone.
    fn ended(&mut self, number: u32, now_us: u64, is_planned: bool) {
        let Some(boot) = self.boots.get_mut(&number) else { return };
        boot.ended = Some((now_us, is_planned));
        self.verdict.ended += u64::from(!is_planned);
        let card_bad = (self.card_is_bad, self.card_bad_us);
        let first = Lane { boot: number, track: 0, epoch: 0 };
        let last = Lane { boot: number, track: u32::MAX, epoch: u64::MAX };
        for (_, lane) in self.lanes.range_mut(first..=last) {
            for frame in &mut lane.frames {
                frame.is_promised = !frame.is_refused && boot.is_promised(frame, now_us, card_bad, is_planned);
            }
        }
    }

    /// An epoch that ended as planned has all its numbers; the power ends only what it took.
    fn epoch_ended(&mut self, at: usize, lane: Lane, next: u64, by_power: bool) {
        let count = self.lanes.get(&lane).map_or(0, |state| state.frames.len() as u64);
        let has_ended = self.boots.get(&lane.boot).and_then(|boot| boot.ended);
        if next > count {
            self.unexplained(at, format!("{lane} ended before {next}, and {count} were pushed"));
        } else if !by_power && next < count {
            self.unexplained(at, format!("{lane} ended as planned before {next}, and {count} were pushed"));
        } else if by_power && has_ended.is_none() {
            self.unexplained(at, format!("{lane} was ended by the power, and its agent runs"));
        }
    }

    fn new_frame(&self, at: usize, now_us: u64, octets: u64) -> Frame {
        Frame {
            at,
            pushed_us: now_us,
            digest: Digest(0),
            octets,
            key: false,
            disposable: false,
            is_refused: false,
            is_too_large: false,
            load_before: Load::default(),
            octets_before: self.octets,
            keys_before: self.keys,
            beside: Load::default(),
            is_promised: false,
            may_be_evicted: false,
            taken: false,
            taken_live: false,
            acknowledged: false,
            is_owed: false,
            is_excused: false,
            skipped: None,
            stored: 0,
        }
    }

    /// A frame is refused when it comes out of order, when it has no room beside what its group has brought so far, or because of one that was refused
    /// or let go of before.
    fn refused(&mut self, at: usize, id: FrameId, frame: Frame, is_early: bool) {
        let Some(boot) = self.boots.get(&id.lane.boot) else {
            return self.unexplained(at, format!("{id} was refused by an agent that does not run"));
        };
        let lane = self.lanes.entry(id.lane).or_default();
        if lane.frames.len() as u64 != id.sequence {
            let expected = lane.frames.len();
            return self.unexplained(at, format!("{id} was refused, and {expected} is the next number"));
        }
        let group = lane.frames.iter().rposition(|frame| frame.key).unwrap_or(0);
        let of_group = lane.frames.get(group..).unwrap_or_default();
        let follows = of_group.iter().any(|frame| frame.is_refused || frame.may_be_evicted);
        let is_too_large = frame.octets > boot.policy.ram_octets || of_group.iter().any(|frame| frame.is_too_large);
        let mut load = boot.pushed;
        load.add(frame.octets.next_multiple_of(boot.policy.ram_piece));
        let since = load.minus(of_group.first().map_or(Load::default(), |first| first.load_before));
        let (octets, frames) = (boot.policy.ram_octets as i64, boot.policy.ram_frames as i64);
        let has_room = since.octets <= octets && since.frames <= frames;
        lane.frames.push(Frame { load_before: boot.pushed, is_too_large, ..frame });
        if !is_early && !follows && has_room {
            self.unexplained(at, format!("{id} was refused, and memory had room for it"));
        }
    }

    /// Numbers have no hole, and the memory of the agent is as large as it says.
    fn pushed(&mut self, at: usize, id: FrameId, frame: Frame) {
        self.verdict.pushed += 1;
        let lane = self.lanes.entry(id.lane).or_default();
        if lane.frames.len() as u64 != id.sequence {
            let expected = lane.frames.len();
            return self.unexplained(at, format!("{id} was pushed, and {expected} is the next number"));
        }
        let (key, octets, now_us) = (frame.key, frame.octets, frame.pushed_us);
        let card_bad = (self.card_is_bad, self.card_bad_us);
        self.octets += octets;
        self.keys += if key { octets } else { 0 };
        let Some(boot) = self.boots.get_mut(&id.lane.boot) else {
            return self.unexplained(at, format!("{id} was pushed to an agent that does not run"));
        };
        let octets = octets.next_multiple_of(boot.policy.ram_piece);
        let load_before = boot.pushed;
        lane.frames.push(Frame { beside: boot.note(id.lane.track, key, octets), load_before, ..frame });
        boot.ram.push_back(id);
        boot.ram_octets += octets;
        while (boot.ram_octets > boot.policy.ram_octets || boot.ram.len() as u64 > boot.policy.ram_frames)
            && let Some(oldest) = boot.ram.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(&oldest.lane) else { continue };
            let from = usize::try_from(oldest.sequence).unwrap_or(usize::MAX);
            boot.ram_octets -= lane.frames[from].octets.next_multiple_of(boot.policy.ram_piece);
            if oldest.sequence < lane.freed {
                continue;
            }
            // With a picture go those that refer to it: up to the next key frame.
            for (index, frame) in lane.frames.iter_mut().enumerate().skip(from) {
                if index > from && frame.key {
                    break;
                }
                frame.may_be_evicted |= !boot.is_promised(frame, now_us, card_bad, false);
            }
        }
    }

    /// The journal lets go only of what the server has, or was told of.
    fn freed(&mut self, at: usize, lane: Lane, next: u64, is_live: bool) {
        let Some(state) = self.lanes.get_mut(&lane) else {
            if next > 0 {
                self.unexplained(at, format!("{lane} below {next} is let go of, and nothing was pushed there"));
            }
            return;
        };
        if self.boots.get(&lane.boot).is_some_and(|boot| boot.policy.records) {
            let stored = state.persisted;
            match &mut state.left {
                // What is stored of the live frames says nothing of what lies before them.
                Some((to, behind)) if is_live => *behind = if next >= *to { next.max(*behind) } else { *behind },
                _ => state.freed = state.freed.max(next),
            }
            if let Some((_, behind)) = state.left.take_if(|(to, _)| state.freed >= *to) {
                state.freed = state.freed.max(behind);
            }
            if next > stored {
                self.unexplained(at, format!("{lane} below {next} is let go of, and the server stored {stored}"));
            }
            return;
        }
        let from = usize::try_from(state.freed).unwrap_or(usize::MAX);
        let to = usize::try_from(next).unwrap_or(usize::MAX).min(state.frames.len());
        let early = state.frames.get(from..to).unwrap_or_default().iter();
        let early = early.clone().position(|frame| !frame.taken && frame.skipped.is_none());
        state.freed = state.freed.max(next);
        if let Some(offset) = early {
            let sequence = (from + offset) as u64;
            self.unexplained(at, format!("{lane} frame {sequence} is let go of, and the server does not have it"));
        }
    }

    /// What was left below a number stays until the backlog's acknowledgements free it.
    fn left(&mut self, lane: Lane, to: u64, is_back: bool) {
        let state = self.lanes.entry(lane).or_default();
        match &mut state.left {
            Some((known, behind)) if is_back => {
                *behind = if to < *known { 0 } else { *behind };
                *known = to.min(*known);
            }
            Some((known, _)) => *known = to,
            None if !is_back => state.left = Some((to, 0)),
            None => {}
        }
    }

    /// Acknowledgements grow, and name only what came.
    fn acknowledged(&mut self, at: usize, place: (u32, u32, Lane), received: u64, persisted: u64) {
        let lane = place.2;
        let before = self.said.insert(place, (received, persisted)).unwrap_or((0, 0));
        // Of an epoch that its track has left, only what is stored is told, as both numbers.
        if received < before.0.min(persisted) || persisted < before.1 {
            let (was, is) = (format!("{before:?}"), format!("({received}, {persisted})"));
            self.unexplained(at, format!("acknowledgement of {lane} goes back from {was} to {is}"));
        }
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        state.persisted = state.persisted.max(persisted);
        // Of a track it means what came live: what is below its beginning and did not come from there is the lanes' to say.
        let begun = if place.1 < FIRST_LANE { self.begun.get(&place).copied().unwrap_or(0) } else { 0 };
        let told = usize::try_from(persisted).unwrap_or(usize::MAX).min(state.frames.len());
        let since = usize::try_from(before.1).unwrap_or(usize::MAX).min(told);
        let named = (before.1..).zip(&mut state.frames[since..told]);
        for (sequence, frame) in named.filter(|(_, frame)| frame.taken || !frame.is_excused) {
            frame.acknowledged |= sequence >= begun || frame.taken_live;
            // What was told before is acknowledged as that; what is told afterwards is too late.
            frame.is_owed |= sequence >= begun && !frame.is_told();
        }
        let from = usize::try_from(before.0.max(begun)).unwrap_or(usize::MAX);
        let to = usize::try_from(received.max(persisted)).unwrap_or(usize::MAX);
        let known = state.frames.get(from.min(state.frames.len())..to.min(state.frames.len())).unwrap_or_default();
        let missing = known.iter().position(|frame| !frame.taken && frame.skipped.is_none() && !frame.is_excused);
        if to > state.frames.len() {
            self.unexplained(at, format!("{lane} is acknowledged up to {to}, beyond what was pushed"));
        } else if let Some(offset) = missing {
            let sequence = from + offset;
            self.unexplained(at, format!("{lane} frame {sequence} is acknowledged, and never came"));
        }
    }

    /// Viewers see each frame once, in order, and nothing of the past.
    fn live(&mut self, at: usize, process: u32, id: FrameId, digest: Digest, is_backfill: bool) {
        let place = (id.lane.epoch, id.sequence);
        let before = self.shown.insert((process, id.lane.boot, id.lane.track), place);
        match self.frame(id) {
            None => return self.unexplained(at, format!("viewers got {id}, which nobody pushed")),
            Some(frame) if frame.digest != digest => {
                return self.unexplained(at, format!("viewers got other octets as {id}"));
            }
            Some(_) => {}
        }
        if is_backfill {
            self.unexplained(at, format!("viewers got {id} as backfill"));
        }
        match before {
            Some(before) if before == place => self.breach(Kind::Duplicated, at, format!("viewers got {id} twice")),
            Some((epoch, sequence)) if before > Some(place) => {
                let what = format!("viewers got {id} behind epoch {epoch} frame {sequence}");
                self.breach(Kind::Duplicated, at, what);
            }
            _ => {}
        }
    }

    /// A cause is believed only when the log bears it out.
    fn skipped(&mut self, at: usize, now_us: u64, lane: Lane, first: u64, last: u64, reason: Reason) {
        let Some(boot) = self.boots.get(&lane.boot) else { return };
        let (octets, card_bad_us) = (self.octets, self.card_bad_us);
        // A card that was full is taken for a smaller one.
        let was_lowered = self.card_full_us.is_some_and(|full| self.card_is_full || full + CARD_WHOLE_US > now_us);
        let card_octets = boot.policy.card_octets.map(|card| if was_lowered { card.min(CARD_LEAST) } else { card });
        let was_card_full = |frame: &Frame| {
            // What is not thinned because it is mostly key frames is less than twice as much as these.
            let beside = if reason == Reason::Thinned { 2 * frame.keys_before } else { 0 };
            let is_over = card_octets.is_some_and(|card| beside + octets - frame.octets_before >= card / 2);
            is_over || boot.policy.card_octets.is_some() && card_bad_us.is_some_and(|bad| bad >= frame.pushed_us)
        };
        let (policy, session_us) = (boot.policy, boot.session_us.unwrap_or(now_us));
        // The group that a track is in stays whole.
        let is_left = boot.ended.is_some()
            || self.lanes.iter().any(|(other, state)| {
                (other.boot, other.track) == (lane.boot, lane.track)
                    && other.epoch > lane.epoch
                    && !state.frames.is_empty()
            });
        let Some(state) = self.lanes.get_mut(&lane) else {
            return self.unexplained(at, format!("frames {first} to {last} of {lane} never come, and none was pushed"));
        };
        let newest_key = state.frames.iter().rposition(|frame| frame.key).unwrap_or(0);
        let count = state.frames.len() as u64;
        if last >= count {
            return self.unexplained(at, format!("{lane} frame {last} never comes, and only {count} were pushed"));
        }
        let waited = |frame: &Frame| now_us.saturating_sub(frame.pushed_us.max(session_us));
        let (from, to) = (first as usize, last as usize);
        // Pictures behind one that was left out late go with it.
        let follows_late = from > 0
            && !state.frames[from].key
            && state.frames[from - 1].skipped.is_some_and(|(reason, _)| reason == Reason::Late);
        let begins_late = policy.budget_us.is_some_and(|budget| waited(&state.frames[from]) > budget);
        let mut wrong = None;
        // With one that had to go those go that refer to it, also those that came when it had to.
        let group = state.frames[..=from].iter().rposition(|frame| frame.key).unwrap_or(0);
        let mut has_gone = state.frames[group..from].iter().any(|frame| frame.may_be_evicted);
        // The same of the card's files, whose last group may go on in the next one.
        let has_card = policy.card_octets.is_some();
        let mut follows = from > 0 && state.frames[from - 1].skipped.is_some_and(|(before, _)| before == reason);
        for (index, frame) in state.frames.iter_mut().enumerate().take(to + 1).skip(from) {
            has_gone = frame.may_be_evicted || has_gone && !frame.key;
            let is_true = match reason {
                Reason::OverBudget => {
                    frame.is_refused || has_gone || was_card_full(frame) || follows && !frame.key && has_card
                }
                Reason::Thinned => {
                    let is_over = is_left || index < newest_key;
                    let is_short = boot.is_short_for(frame) || was_card_full(frame) || follows && has_card;
                    !frame.key && is_over && is_short
                }
                // What the live reader told as lost had its cause then.
                Reason::Live => frame.taken || frame.skipped.is_some() || frame.is_excused,
                Reason::TooLarge => frame.is_too_large || frame.octets > policy.frame_octets,
                Reason::Late => begins_late || follows_late,
                Reason::Disposable => {
                    frame.disposable && policy.budget_us.is_some_and(|budget| waited(frame) > budget / 2)
                }
                // No file has it, of a run that ended before it was safe.
                Reason::Corrupt => boot.ended.is_some() && !frame.is_promised,
                Reason::Refused => frame.is_refused,
                Reason::PowerCut | Reason::Other(_) => false,
            };
            follows = is_true;
            // What a server took and did not store is as good as never taken.
            let is_had = if policy.records { frame.acknowledged || frame.is_excused } else { frame.taken };
            if !is_true && !is_had && wrong.is_none() {
                wrong = Some(index);
            }
            // What had come live, and the server lost before it was stored, may have to go afterwards.
            if !frame.is_told() {
                frame.skipped = Some((reason, at));
            }
        }
        if let Some(index) = wrong {
            self.unexplained(at, format!("{lane} frame {index} was left out as {reason:?}, which is not so"));
        }
    }

    fn stored(&mut self, at: usize, id: FrameId, digest: Digest) {
        match self.frame(id) {
            None => self.unexplained(at, format!("{id} is stored, and nobody pushed it")),
            Some(frame) => {
                frame.stored += 1;
                let (is_same, count) = (frame.digest == digest, frame.stored);
                if !is_same {
                    self.unexplained(at, format!("{id} is stored with other octets"));
                }
                if count == 2 {
                    self.breach(Kind::Duplicated, at, format!("{id} is stored twice"));
                }
            }
        }
    }

    fn finish(mut self, end: usize) -> Verdict {
        if !self.is_settled {
            self.unexplained(end.saturating_sub(1), "the ends do not come to rest".into());
        }
        let mut lost = Vec::new();
        for (lane, state) in &self.lanes {
            let boot = self.boots.get(&lane.boot);
            let taken = state.frames.iter().rposition(|frame| !frame.is_refused).map_or(0, |last| last + 1);
            let is_newer =
                |other: &Lane| (other.boot, other.track) == (lane.boot, lane.track) && other.epoch > lane.epoch;
            let goes_on = boot.is_some_and(|boot| boot.ended.is_none()) && !self.lanes.keys().any(is_newer);
            for (sequence, frame) in state.frames.iter().enumerate() {
                if frame.stored > 0 {
                    self.verdict.promised += u64::from(frame.is_promised);
                    continue;
                }
                let sequence = sequence as u64;
                // A server that does not record keeps what it took.
                let was_in_memory = boot.is_some_and(|boot| {
                    boot.ended.is_some() && !frame.is_promised && (boot.policy.records || !frame.taken)
                });
                // What was refused is told with what is taken behind it, or when its epoch is over.
                let waits = frame.is_refused && sequence >= taken as u64 && goes_on;
                let has_cause = frame.is_told() || was_in_memory || waits || frame.is_excused;
                if frame.is_owed || frame.acknowledged && !frame.is_told() {
                    lost.push((frame.at, format!("{lane} frame {sequence} was acknowledged as stored, and is not")));
                } else if has_cause {
                    self.verdict.explained += 1;
                } else {
                    lost.push((frame.at, format!("{lane} frame {sequence} is not stored, and has no cause")));
                }
            }
        }
        for (at, what) in lost {
            self.breach(Kind::Lost, at, what);
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane { boot: 1, track: 0, epoch: 1 };

    /// A recorded run in which one frame came live and is not stored in the end.
    fn lost(events: &[Event]) -> Vec<Kind> {
        let policy = Policy {
            ram_octets: 100,
            ram_piece: 1,
            ram_frames: 10,
            budget_us: None,
            frame_octets: 1_000,
            records: true,
            card_octets: None,
            writes_ahead: false,
        };
        let push = |sequence| Event::Pushed {
            frame: FrameId { lane: LANE, sequence },
            digest: Digest(sequence),
            octets: 60,
            key: true,
            disposable: false,
        };
        let frame = FrameId { lane: LANE, sequence: 0 };
        let begin = [
            Event::AgentStarted { boot: 1, policy },
            Event::Session { boot: 1 },
            push(0),
            Event::Announced { connection: 1, lane: LANE, next: 0 },
            Event::Taken { frame, is_backfill: false },
        ];
        let mut log = Log::default();
        begin.iter().chain(events).chain([&Event::Settled]).for_each(|event| log.note(0, *event));
        check(&log).breaches.iter().map(|breach| breach.kind).collect()
    }

    #[test]
    fn a_cause_is_believed_before_the_server_says_that_it_has_the_frame_and_not_afterwards() {
        let skip = |reason| Event::Skipped { lane: LANE, first: 0, last: 0, reason };
        let said = Event::Acknowledged { connection: 1, number: 0, lane: LANE, received: 1, persisted: 1 };
        let second = Event::Pushed {
            frame: FrameId { lane: LANE, sequence: 1 },
            digest: Digest(1),
            octets: 60,
            key: true,
            disposable: false,
        };
        let stored = Event::Stored { frame: FrameId { lane: LANE, sequence: 1 }, digest: Digest(1) };
        assert_eq!(lost(&[second, skip(Reason::Live), skip(Reason::OverBudget), said, stored]), []);
        assert_eq!(lost(&[second, skip(Reason::Live), said, skip(Reason::OverBudget), stored]), [Kind::Lost]);
        assert_eq!(lost(&[second, said, skip(Reason::OverBudget), stored]), [Kind::Lost]);
        let early = lost(&[skip(Reason::OverBudget), said]);
        assert_eq!(early, [Kind::Unexplained], "the server had it, and lost it; memory had room");
    }
}

//! What a run is made of, all of it decided by a seed: a camera, a link, an agent, and what goes wrong when.
//!
//! A plan is data, so that a run that failed can be made smaller: faults and tracks are left out as long as it still fails (`shrink`).

use crate::chance::Chance;

const SECOND: u64 = 1_000_000;
/// None of the seeds that `tests/promises.rs` keeps loses its store by this one.
const LOSES_STORE: u64 = 0x12e_105e;

/// One track of the camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackPlan {
    /// Pictures, or sound.
    pub is_video: bool,
    /// Time between two frames.
    pub every_us: u64,
    /// Frames from one key frame to the next.
    pub group: u64,
    /// Octets of a usual frame.
    pub octets: u64,
    /// A key frame has so many times as many.
    pub key_factor: u64,
    /// Every second picture is one that no other refers to.
    pub has_disposable: bool,
}

/// The agent's card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardPlan {
    /// Octets that frames may take on it.
    pub octets: u64,
    /// Every frame goes there at once, and not only while there is no connection.
    pub writes_ahead: bool,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks, and both ends see it soon. Of what is on its way so many parts of 256 arrive: up, down.
    Cut(u64, u64),
    /// It breaks, and only the agent sees it: the server keeps a connection that is none.
    HalfCut(u64, u64),
    /// Nothing comes through any more, and nobody is told.
    BlackHole,
    /// No new connection comes up for so long, and the present one breaks.
    Away(u64),
    /// The agent loses its power for so long.
    AgentPower(u64),
    /// It loses it with so many more calls that write to its card, in the middle of the last one.
    AgentPowerIn(u64, u64),
    /// The agent's process is killed, and comes back after so long.
    AgentKill(u64),
    /// The agent is stopped as planned, and comes back after so long.
    AgentStop(u64),
    /// The agent's card is pulled for so long.
    CardAway(u64),
    /// The agent's card can only be read for so long.
    CardReadOnly(u64),
    /// Nothing more fits onto the agent's card for so long.
    CardFull(u64),
    /// Every track begins a new epoch, as after the command `restart`.
    Restart,
    /// The server's process is killed, and comes back after so long.
    ServerKill(u64),
    /// The server loses its power for so long.
    ServerPower(u64),
    /// It loses it with so many more calls that write to its disk, in the middle of the last one.
    ServerPowerIn(u64, u64),
    /// Nothing more fits onto the server's disk for so long.
    ServerFull(u64),
    /// The server's disk is lost with all that it stored, and it comes back after so long with an empty one.
    StoreLost(u64),
    /// It is killed right behind the frame that it takes as the so-many-th from now, before it can say so.
    ServerKillBetween(u64, u64),
    /// The camera's clock is set by so much.
    CameraClock(i64),
    /// The server's clock is set by so much.
    ServerClock(i64),
    /// The link is slower by so many times, until the end.
    Slow(u64),
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it comes from: decides what happens inside, too.
    pub seed: u64,
    /// The camera.
    pub tracks: Vec<TrackPlan>,
    /// For so long frames are pushed.
    pub length_us: u64,
    /// What the camera's clock shows at first: many begin in 1970.
    pub camera_clock_us: i64,
    /// Octets of the agent's memory.
    pub ram: usize,
    /// Its card, if it has one.
    pub card: Option<CardPlan>,
    /// Whether the server records, and the agent keeps what is not stored.
    pub records: bool,
    /// Its latency budget.
    pub budget_us: Option<u64>,
    /// Octets a second of the link, up.
    pub rate: u64,
    /// Its delay, each way.
    pub latency_us: u64,
    /// Octets that may be on their way.
    pub window: usize,
    /// What goes wrong, in the order of time.
    pub faults: Vec<(u64, Fault)>,
}

impl Plan {
    /// The run of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let chance = &mut chance;
        let length_us = chance.about(4, 64) * SECOND;
        // Some hundreds of frames, however long the run is.
        let every_us = (length_us / chance.between(40, 200)).max(20_000);
        let octets = chance.about(100, 2_000);
        let mut tracks = vec![TrackPlan {
            is_video: true,
            every_us,
            group: chance.about(2, 40),
            octets,
            key_factor: chance.between(1, 10),
            has_disposable: chance.one_in(3),
        }];
        if chance.one_in(2) {
            tracks.push(TrackPlan {
                is_video: true,
                every_us: every_us * 2,
                group: chance.about(2, 20),
                octets: octets / 4 + 1,
                key_factor: 4,
                has_disposable: false,
            });
        }
        if chance.one_in(2) {
            tracks.push(TrackPlan {
                is_video: false,
                every_us: every_us.max(length_us / 150),
                group: 1,
                octets: 160,
                key_factor: 1,
                has_disposable: false,
            });
        }
        let total = tracks.iter().map(|track| {
            let frames = length_us / track.every_us;
            frames * track.octets + frames / track.group * track.octets * (track.key_factor - 1)
        });
        let total = total.sum::<u64>().max(20_000);
        let bytes_a_second = (total * SECOND / length_us).max(1);
        // From a memory that cannot hold a second to one that holds all of it.
        let ram = chance.about(total / 16 + 4_000, total * 2 + 8_000);
        let rate = bytes_a_second * chance.between(12, 200) / 10 + 2_000;
        let records = !chance.one_in(4);
        // What the server does not record needs no card.
        let card = (records && !chance.one_in(4)).then(|| CardPlan {
            octets: if chance.one_in(3) { chance.between(total / 4, total) + 40_000 } else { total * 4 + 400_000 },
            writes_ahead: chance.one_in(2),
        });
        let faults = (0..chance.about(1, 16)).map(|_| (chance.below(length_us), Fault::new(chance, length_us)));
        let mut faults: Vec<_> = faults.collect();
        // With numbers of its own, so that a seed from before this is the run that it was.
        let mut rare = Chance::new(seed ^ LOSES_STORE);
        if records && rare.one_in(12) {
            faults.push((rare.below(length_us), Fault::StoreLost(rare.about(50_000, length_us / 4))));
        }
        faults.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            tracks,
            length_us,
            camera_clock_us: if chance.one_in(2) { 0 } else { 1_700_000_000 * SECOND as i64 },
            ram: usize::try_from(ram).expect("some megabytes"),
            card,
            records,
            budget_us: (!records && chance.one_in(3)).then(|| chance.about(200, 4_000) * 1_000),
            rate,
            latency_us: chance.about(1_000, 400_000),
            window: usize::try_from(chance.about(4 << 10, 256 << 10)).expect("small"),
            faults,
        }
    }
}

/// One long outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// There is no link for so long.
    pub lasts_us: u64,
    /// The agent loses its power so often meanwhile.
    pub cuts: u64,
    /// From picture to picture.
    pub every_us: u64,
}

impl Outage {
    /// A day with 200 power cuts, and two pictures a second.
    pub const DAY: Self = Self { lasts_us: 86_400 * SECOND, cuts: 200, every_us: SECOND / 2 };
}

impl Plan {
    /// A long time without a link, in which the agent loses its power, every second time in the middle of a write; then the link is back. The camera is
    /// a small one: key frames of about 9 kB, the others of 1 kB, and a sound for each picture.
    pub fn outage(seed: u64, Outage { lasts_us, cuts, every_us }: Outage) -> Self {
        let mut chance = Chance::new(seed ^ 0xda1);
        let chance = &mut chance;
        let begins = 10 * SECOND;
        let cut = |number, chance: &mut Chance| {
            let off = chance.about(SECOND / 10, 30 * SECOND);
            let fault = match number % 2 {
                0 => Fault::AgentPower(off),
                _ => Fault::AgentPowerIn(chance.below(24), off),
            };
            // Some soon after each other: what is left of a start that was cut off is found by the next one.
            let at = if chance.one_in(8) { number * (lasts_us / cuts) } else { chance.below(lasts_us) };
            (begins + SECOND + at, fault)
        };
        let mut faults = vec![(begins, Fault::Away(lasts_us + 60 * SECOND))];
        faults.extend((0..cuts).map(|number| cut(number, chance)));
        faults.sort_by_key(|(at, _)| *at);
        let picture =
            TrackPlan { is_video: true, every_us, group: 25, octets: 1_000, key_factor: 9, has_disposable: false };
        let sound = TrackPlan { is_video: false, group: 1, octets: 160, key_factor: 1, ..picture.clone() };
        Self {
            seed,
            tracks: vec![picture, sound],
            length_us: begins + lasts_us + 120 * SECOND,
            camera_clock_us: 0,
            ram: 256 << 10,
            card: Some(CardPlan { octets: 1 << 30, writes_ahead: chance.one_in(2) }),
            records: true,
            budget_us: None,
            rate: 4_000_000,
            latency_us: 30_000,
            window: 256 << 10,
            faults,
        }
    }
}

impl Fault {
    fn new(chance: &mut Chance, length_us: u64) -> Self {
        let (up, down) = (chance.below(257), chance.below(257));
        let away = chance.about(50_000, length_us / 2);
        let calls = chance.about(1, 64);
        match chance.below(28) {
            0..=4 => Self::Cut(up, down),
            5..=6 => Self::HalfCut(up, down),
            7 => Self::BlackHole,
            8..=10 => Self::Away(away),
            11 => Self::AgentPower(away / 4),
            12 => Self::AgentPowerIn(calls, away / 4),
            13 => Self::Restart,
            14 => Self::ServerKill(away / 2),
            15 => Self::ServerPower(away / 2),
            16 => Self::ServerKillBetween(chance.between(1, 20), away / 4),
            17 => Self::ServerPowerIn(calls, away / 4),
            20 => Self::AgentKill(away / 4),
            21 => Self::AgentStop(away / 4),
            22 => Self::CardAway(away),
            23 => Self::CardReadOnly(away),
            24 => Self::CardFull(away),
            25 => Self::ServerFull(away),
            26 => Self::ServerPowerIn(calls, away / 8),
            27 => Self::AgentPowerIn(calls, away / 8),
            18 => match chance.one_in(2) {
                true => Self::CameraClock(1_763_000_000 * SECOND as i64),
                false => Self::CameraClock(chance.between(1, 100) as i64 * SECOND as i64 - 50 * SECOND as i64),
            },
            _ => match chance.one_in(2) {
                true => Self::ServerClock(chance.between(1, 7_200) as i64 * SECOND as i64 - 3_600 * SECOND as i64),
                false => Self::Slow(chance.between(2, 10)),
            },
        }
    }
}

impl Fault {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut(..) => "the connection is cut",
            Self::HalfCut(..) => "the connection is cut, and the server does not see it",
            Self::BlackHole => "the link swallows everything",
            Self::Away(_) => "the link goes away for a while",
            Self::AgentPower(_) => "the agent's power goes",
            Self::AgentPowerIn(..) => "the agent's power will go while it writes to its card",
            Self::AgentKill(_) => "the agent is killed",
            Self::AgentStop(_) => "the agent is stopped",
            Self::CardAway(_) => "the card is pulled",
            Self::CardReadOnly(_) => "the card can only be read",
            Self::CardFull(_) => "the card is full",
            Self::ServerPower(_) => "the server's power goes",
            Self::ServerPowerIn(..) => "the server's power will go while it writes",
            Self::ServerFull(_) => "the server's disk is full",
            Self::StoreLost(_) => "the server's disk is lost with all that it stored",
            Self::Restart => "every track begins a new epoch",
            Self::ServerKill(_) => "the server is killed",
            Self::ServerKillBetween(..) => "the server will be killed between a frame and its acknowledgement",
            Self::CameraClock(_) => "the camera's clock is set",
            Self::ServerClock(_) => "the server's clock is set",
            Self::Slow(_) => "the link becomes slow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_servers_that_record_lose_their_store() {
        let plans: Vec<_> = (0..1_000).map(Plan::new).collect();
        let loses = |plan: &&Plan| plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::StoreLost(_)));
        let count = plans.iter().filter(loses).count();
        assert!((30..150).contains(&count), "{count} of 1000");
        assert!(plans.iter().filter(loses).all(|plan| plan.records));
    }
}

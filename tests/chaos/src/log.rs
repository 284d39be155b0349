//! The log of a run: what happened, as data that the checker reads. The ends write it and never read it.

use std::fmt;

/// The numbering that a frame's sequence counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Which run of the agent, counted from 1.
    pub boot: u32,
    /// The track.
    pub track: u32,
    /// The epoch.
    pub epoch: u64,
}

/// A frame's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId {
    /// What its number counts in.
    pub lane: Lane,
    /// Its number.
    pub sequence: u64,
}

/// A sum over a frame's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u64);

/// Why frames will never come, as the ends said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The agent's journal was full.
    OverBudget,
    /// The frame is larger than the server takes.
    TooLarge,
    /// It was sent live, or told as lost there, and the card never had it.
    Live,
    /// It waited for longer than the latency budget.
    Late,
    /// Nothing refers to it, and it waited for longer than half of the budget.
    Disposable,
    /// The agent's journal was full, and the key frame of its group was kept instead of it.
    Thinned,
    /// The agent did not take it: it was out of order, or refers to one that was.
    Refused,
    /// The agent's card did not give it back.
    Corrupt,
    /// The agent's power went before the frame was safe.
    PowerCut,
    /// Any other reason, as its number on the wire.
    Other(u64),
}

/// What an agent of one boot keeps to: the facts that its promises are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Octets of frames that fit into memory.
    pub ram_octets: u64,
    /// Memory is given out in pieces of so many octets.
    pub ram_piece: u64,
    /// Frames that fit into memory.
    pub ram_frames: u64,
    /// The longest that a frame may wait while there is a session, in microseconds.
    pub budget_us: Option<u64>,
    /// Octets of the largest frame that the server takes.
    pub frame_octets: u64,
    /// Whether only what the server has stored is let go of.
    pub records: bool,
    /// Octets of frames that fit onto the card, if there is one.
    pub card_octets: Option<u64>,
    /// Whether every frame is written to the card at once; otherwise while there is no session.
    pub writes_ahead: bool,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An agent began to run.
    AgentStarted {
        /// Its run.
        boot: u32,
        /// What it keeps to.
        policy: Policy,
    },
    /// The agent lost its power: what was only in memory is gone.
    AgentPowerCut {
        /// The run that ended.
        boot: u32,
    },
    /// The agent's process was killed: its card stays as programs see it.
    AgentKilled {
        /// The run that ended.
        boot: u32,
    },
    /// The agent was stopped as planned.
    AgentStopped {
        /// The run that ended.
        boot: u32,
    },
    /// The agent's connection is gone, and it knows.
    SessionOver {
        /// Its run.
        boot: u32,
    },
    /// The card begins to misbehave, or is well again.
    CardWell(bool),
    /// Nothing more fits onto the card, until it is well again.
    CardFull,
    /// The encoder pushed a frame, and the agent took it.
    Pushed {
        /// The name it got.
        frame: FrameId,
        /// Its octets' sum.
        digest: Digest,
        /// How many.
        octets: u64,
        /// Decoding can start here.
        key: bool,
        /// No other frame refers to it.
        disposable: bool,
    },
    /// The encoder pushed a frame that the agent did not take, and has to tell as lost.
    Refused {
        /// The name it got.
        frame: FrameId,
        /// How many octets it has.
        octets: u64,
        /// Its time is before that of the last one that was taken, by less than a step of the camera's clock.
        is_early: bool,
    },
    /// The agent's journal was told that it may let go of a lane's frames below `next`.
    Freed {
        /// The lane.
        lane: Lane,
        /// The first number that has to stay.
        next: u64,
        /// It is told by what the live reader brought: what that left to the backlog stays.
        is_live: bool,
    },
    /// The agent's live reader goes on at `to`; what it left lies in memory for the backlog. An earlier one that lies beyond is taken back.
    Left {
        /// The lane.
        lane: Lane,
        /// Where it goes on.
        to: u64,
        /// It has come back to there, or was there, and leaves nothing more.
        is_back: bool,
    },
    /// The agent was welcomed.
    Session {
        /// Its run.
        boot: u32,
    },
    /// A connection came up.
    Connected {
        /// Its number.
        connection: u32,
    },
    /// A connection broke, or was given up by an end.
    Broken {
        /// Its number.
        connection: u32,
        /// Why, or who noticed.
        why: &'static str,
    },
    /// The agent announced a track: what comes of it on this connection begins there.
    Announced {
        /// On which connection.
        connection: u32,
        /// The lane.
        lane: Lane,
        /// The first number.
        next: u64,
    },
    /// An acknowledgement left the server.
    Acknowledged {
        /// On which connection.
        connection: u32,
        /// The number that it goes by there: of a track, or of a lane of the past.
        number: u32,
        /// The lane.
        lane: Lane,
        /// All below have arrived.
        received: u64,
        /// All below are stored.
        persisted: u64,
    },
    /// A server began to run.
    ServerStarted {
        /// Which process, counted from 1.
        process: u32,
    },
    /// All that the server had stored is gone.
    StoreLost,
    /// The server's process was killed; its files stay as programs see them.
    ServerKilled {
        /// Which process.
        process: u32,
    },
    /// The server lost its power.
    ServerPowerCut {
        /// Which process ended.
        process: u32,
    },
    /// A frame was given to the viewers.
    Live {
        /// By which process.
        process: u32,
        /// The frame.
        frame: FrameId,
        /// Its octets' sum.
        digest: Digest,
        /// Whether it came as backfill.
        is_backfill: bool,
    },
    /// The server took a frame from the agent's newest connection, to store it.
    Taken {
        /// The frame.
        frame: FrameId,
        /// Whether it came as backfill.
        is_backfill: bool,
    },
    /// The agent said that frames will never come, and the server took note.
    Skipped {
        /// Their lane.
        lane: Lane,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// Why.
        reason: Reason,
    },
    /// The agent said how an epoch ended, and the server took note.
    EpochEnded {
        /// The epoch.
        lane: Lane,
        /// The number behind its last frame.
        next: u64,
        /// Whether the power ended it.
        by_power: bool,
    },
    /// The server found that it cannot have frames.
    Gap {
        /// Their lane.
        lane: Lane,
        /// The first.
        first: u64,
        /// The number behind the last.
        next: u64,
        /// The reason's number.
        reason: u64,
    },
    /// Something outside: a clock, a card, a link.
    Fault(&'static str),
    /// Both ends have nothing left to do.
    Settled,
    /// They still had after all the time that they were given.
    NotSettled,
    /// A frame stands in the server's files at the end.
    Stored {
        /// The frame.
        frame: FrameId,
        /// Its octets' sum.
        digest: Digest,
    },
}

/// Lines behind the place that is shown.
const LINES_AFTER: usize = 25;

/// Everything that happened, with the time of the outside world in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Oldest first.
    pub events: Vec<(u64, Event)>,
}

impl Log {
    /// Writes something down.
    pub fn note(&mut self, now_us: u64, event: Event) {
        self.events.push((now_us, event));
    }

    /// The lines around an event, for people.
    pub fn around(&self, at: usize, before: usize) -> String {
        let from = at.saturating_sub(before);
        let lines = self.events.iter().enumerate().skip(from).take(before + LINES_AFTER);
        lines
            .map(|(index, (time, event))| {
                let mark = if index == at { '>' } else { ' ' };
                format!("{mark} {:>12.6} s  {event}\n", *time as f64 / 1e6)
            })
            .collect()
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot {} track {} epoch {}", self.boot, self.track, self.epoch)
    }
}

impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frame {}", self.lane, self.sequence)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentStarted { boot, policy } => {
                let budget = policy.budget_us.map_or("none".into(), |us| format!("{} ms", us / 1_000));
                write!(f, "agent starts as boot {boot}: {} octets of memory, budget {budget}", policy.ram_octets)
            }
            Self::AgentPowerCut { boot } => write!(f, "agent of boot {boot} loses its power"),
            Self::AgentKilled { boot } => write!(f, "agent of boot {boot} is killed"),
            Self::AgentStopped { boot } => write!(f, "agent of boot {boot} is stopped"),
            Self::SessionOver { boot } => write!(f, "agent of boot {boot} has no connection any more"),
            Self::CardFull => f.write_str("nothing more fits onto the card"),
            Self::CardWell(true) => write!(f, "the card is well"),
            Self::CardWell(false) => write!(f, "the card is not well"),
            Self::EpochEnded { lane, next, by_power } => {
                let why = if *by_power { "the power went" } else { "as planned" };
                write!(f, "server hears that {lane} ended before {next}: {why}")
            }
            Self::Gap { lane, first, next, reason } => {
                write!(f, "server notes that {lane} lacks {first} to {}: reason {reason:#x}", next - 1)
            }
            Self::Pushed { frame, octets, key, disposable, .. } => {
                let kind = match (key, disposable) {
                    (true, _) => " (key)",
                    (_, true) => " (disposable)",
                    _ => "",
                };
                write!(f, "pushed {frame}: {octets} octets{kind}")
            }
            Self::Refused { frame, octets, is_early } => {
                write!(f, "{frame} was refused: {octets} octets{}", if *is_early { ", out of order" } else { "" })
            }
            Self::Freed { lane, next, is_live } => {
                let whose = if *is_live { " of what went live" } else { "" };
                write!(f, "journal may let go of {lane} below {next}{whose}")
            }
            Self::Left { lane, to, .. } => write!(f, "memory keeps {lane} below {to} for the backlog"),
            Self::Session { boot } => write!(f, "agent of boot {boot} is welcomed"),
            Self::Connected { connection } => write!(f, "connection {connection} is up"),
            Self::Broken { connection, why } => write!(f, "connection {connection} is over: {why}"),
            Self::Announced { connection, lane, next } => {
                write!(f, "server hears on {connection} that {lane} goes on at {next}")
            }
            Self::Acknowledged { connection, number, lane, received, persisted } => {
                write!(f, "server says on {connection} of {number}: {lane} received {received} persisted {persisted}")
            }
            Self::ServerStarted { process } => write!(f, "server starts as process {process}"),
            Self::StoreLost => write!(f, "all that the server has stored is lost"),
            Self::ServerKilled { process } => write!(f, "server process {process} is killed"),
            Self::ServerPowerCut { process } => write!(f, "server of process {process} loses its power"),
            Self::Live { frame, is_backfill, .. } => {
                write!(f, "viewers get {frame}{}", if *is_backfill { " (backfill)" } else { "" })
            }
            Self::Taken { frame, .. } => write!(f, "server takes {frame}"),
            Self::Skipped { lane, first, last, reason } => {
                write!(f, "server hears that {lane} frames {first} to {last} never come: {reason:?}")
            }
            Self::Fault(what) => write!(f, "-- {what}"),
            Self::Settled => write!(f, "both ends are done"),
            Self::NotSettled => write!(f, "the ends do not come to rest"),
            Self::Stored { frame, .. } => write!(f, "stored: {frame}"),
        }
    }
}

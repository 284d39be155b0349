//! Bugs that are planted on purpose, each breaks one rule: a checker that does not find them finds nothing.
//!
//! They are switches in what stands between the ends here, never in the ends themselves: no build that ships has them.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The journal lets go of a frame when it was sent, not when it arrived.
    FreeOnSent,
    /// The server forgets where an agent's tracks stand, and shows again what came before.
    ForgetResumePoint,
    /// The agent's journal loses a frame now and then and calls it want of room.
    SkipWithoutReason,
    /// The server acknowledges a frame more than came.
    AckBeforeReceived,
    /// An older connection of an agent still delivers when a newer one has taken over.
    NoFencing,
    /// The store takes a frame again that it has already.
    DoubleAppend,
    /// What the agent said of frames that never come is not passed on.
    ForgetSkip,
    /// The server acknowledges frames as stored when it has them in memory.
    AckBeforeSync,
    /// The journal lets go of what was received, and the server has not stored yet.
    FreeOnReceived,
    /// The server's disk does not do what a sync asks for.
    SyncDoesNothing,
    /// The agent's card does not do what a sync asks for.
    CardSyncDoesNothing,
    /// Viewers are shown frames of the past.
    BackfillToLive,
    /// The server swaps two octets of a frame now and then.
    OtherOctets,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::FreeOnSent,
        Self::ForgetResumePoint,
        Self::SkipWithoutReason,
        Self::AckBeforeReceived,
        Self::NoFencing,
        Self::DoubleAppend,
        Self::ForgetSkip,
        Self::AckBeforeSync,
        Self::FreeOnReceived,
        Self::SyncDoesNothing,
        Self::CardSyncDoesNothing,
        Self::BackfillToLive,
        Self::OtherOctets,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FreeOnSent => "free-on-sent",
            Self::ForgetResumePoint => "forget-resume-point",
            Self::SkipWithoutReason => "skip-without-reason",
            Self::AckBeforeReceived => "ack-before-received",
            Self::NoFencing => "no-fencing",
            Self::DoubleAppend => "double-append-after-crash",
            Self::ForgetSkip => "forget-skip",
            Self::AckBeforeSync => "ack-before-sync",
            Self::FreeOnReceived => "free-on-received",
            Self::SyncDoesNothing => "sync-does-nothing",
            Self::CardSyncDoesNothing => "card-sync-does-nothing",
            Self::BackfillToLive => "backfill-to-live",
            Self::OtherOctets => "other-octets",
        }
    }

    /// The bug of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

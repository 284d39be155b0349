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
            Self::OtherOctets => "other-octets",
        }
    }

    /// The bug of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

//! What can go wrong between the two ends, sorted by who can act, and the WebSocket close codes that say so on the wire.

use alloc::string::String;
use core::fmt;

macro_rules! close_codes {
    ($($(#[doc = $doc:literal])+ $number:literal $variant:ident $name:literal,)+) => {
        /// Why a session is closed: a WebSocket close code (RFC 6455 section 7.4.2, private range). The numbers are fixed for ever;
        /// 4007, 4013 and 4016-4099 are reserved.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CloseCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl CloseCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [CloseCode] = &[$(CloseCode::$variant,)+];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self { $(CloseCode::$variant => $number,)+ }
            }

            /// The code behind a number, `None` for one that this version does not know.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(CloseCode::$variant),)+ _ => None }
            }

            /// The name in `error` messages, logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(CloseCode::$variant => $name,)+ }
            }
        }
    };
}

close_codes! {
    /// The session ended as planned: the agent was stopped or restarted.
    1000 Normal "normal",
    /// The peer broke the protocol. The agent reports it and tries again with back-off.
    4000 ProtocolError "protocol_error",
    /// Wrong or missing token. The agent tries again rarely.
    4001 AuthFailed "auth_failed",
    /// The token has expired.
    4002 AuthExpired "auth_expired",
    /// Known, but not allowed: suspended, or a camera id that belongs to another agent.
    4003 Forbidden "forbidden",
    /// The agent was removed from the server.
    4004 AgentRemoved "agent_removed",
    /// No common protocol version.
    4005 VersionUnsupported "version_unsupported",
    /// The agent did not register in time.
    4006 RegisterTimeout "register_timeout",
    /// Nothing was heard for too long.
    4008 LivenessTimeout "liveness_timeout",
    /// A newer connection of the same agent took over.
    4009 Replaced "replaced",
    /// The server is going away; come back as `goaway` said.
    4010 Draining "draining",
    /// The server has too much to do now, or wants again what it could not store.
    4011 Overloaded "overloaded",
    /// A limit was exceeded; the text names it.
    4012 LimitExceeded "limit_exceeded",
    /// Credit was exceeded.
    4014 FlowControl "flow_control",
    /// What the agent wants to resume is unknown.
    4015 ResumeRefused "resume_refused",
}

/// Whether the streams of tunnels may go on after a close with this code: not when it was meant as an end, or when the two ends no longer
/// agree. 1006 is a connection that broke.
pub const fn keeps_streams(code: u16) -> bool {
    !matches!(code, 1000 | 4000..=4006 | 4010 | 4012..=4015)
}

/// Why a session cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The peer sent what the protocol does not allow.
    Violation {
        /// Which part was being read, for example `"FRAME total length"`.
        place: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The peer went over a limit.
    Limit {
        /// Which limit.
        limit: &'static str,
        /// Its value.
        allowed: u64,
        /// What the peer sent.
        got: u64,
    },
    /// The peer sent more than it had credit for.
    Credit {
        /// Which credit.
        credit: &'static str,
        /// How far it went, in octets or streams since the beginning.
        allowed: u64,
        /// What the peer used.
        got: u64,
    },
    /// The two ends share no version.
    Incompatible {
        /// What this end speaks.
        supported: String,
        /// What the peer offered.
        offered: String,
    },
    /// The peer was silent for too long.
    Silent {
        /// What was waited for.
        awaited: &'static str,
        /// For how many milliseconds.
        waited_ms: u64,
    },
    /// This end refuses the session, for example because of a wrong token.
    Refused {
        /// The code that goes to the peer.
        code: CloseCode,
        /// The text that goes to the peer.
        detail: String,
        /// The peer may come back after so many milliseconds; 0: as the code says.
        retry_after_ms: u64,
    },
    /// The peer closed the session.
    ClosedByPeer {
        /// The number of the close code, or 1006 (RFC 6455) when the connection ended without one.
        code: u16,
        /// The peer's words.
        detail: String,
    },
}

impl Error {
    /// The close code that tells the peer.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Error::Violation { .. } => CloseCode::ProtocolError,
            Error::Limit { .. } => CloseCode::LimitExceeded,
            Error::Credit { .. } => CloseCode::FlowControl,
            Error::Incompatible { .. } => CloseCode::VersionUnsupported,
            Error::Silent { awaited: "register", .. } => CloseCode::RegisterTimeout,
            Error::Silent { .. } => CloseCode::LivenessTimeout,
            Error::Refused { code, .. } => *code,
            Error::ClosedByPeer { code, .. } => CloseCode::from_number(*code).unwrap_or(CloseCode::Normal),
        }
    }

    /// Whether the streams of tunnels may go on after it, see [`keeps_streams`].
    pub(crate) fn keeps_streams(&self) -> bool {
        match self {
            Error::ClosedByPeer { code, .. } => keeps_streams(*code),
            error => keeps_streams(error.close_code().number()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Violation { place, expected, got } => write!(f, "{place}: expected {expected}, got {got}"),
            Error::Limit { limit, allowed, got } => write!(f, "{limit}: at most {allowed} allowed, got {got}"),
            Error::Credit { credit, allowed, got } => write!(f, "{credit}: credit goes to {allowed}, got {got}"),
            Error::Incompatible { supported, offered } => {
                write!(f, "protocol versions: this end speaks {supported}, the peer offers {offered}")
            }
            Error::Silent { awaited, waited_ms } => write!(f, "no {awaited} within {waited_ms} ms"),
            Error::Refused { code, detail, .. } => write!(f, "{}: {detail}", code.name()),
            Error::ClosedByPeer { code, detail } => match CloseCode::from_number(*code) {
                Some(known) if detail.is_empty() => write!(f, "closed by the peer: {}", known.name()),
                Some(known) => write!(f, "closed by the peer: {}: {detail}", known.name()),
                None if detail.is_empty() => write!(f, "the connection ended (code {code})"),
                None => write!(f, "closed by the peer with code {code}: {detail}"),
            },
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn numbers_and_codes_match() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number()), Some(*code));
        }
        assert_eq!(CloseCode::from_number(4013), None);
    }

    #[test]
    fn a_violation_says_what_where_and_instead_of_what() {
        let error = Error::Violation { place: "MACK track", expected: "a track that was announced", got: "7".into() };
        assert_eq!(error.to_string(), "MACK track: expected a track that was announced, got 7");
        assert_eq!(error.close_code().number(), 4000);
    }
}

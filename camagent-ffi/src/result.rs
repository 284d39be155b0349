//! Results of calls: the numbers, fixed for ever, what they mean, and which error becomes which.
//!
//! -2, -9 to -11 and -14 are reserved; -17 is the last one given.

use std::ffi::CStr;

use camagent_core::Error;

/// What a call returns: 0 when it is done, more when it is done with a remark, less when it failed.
pub type camagent_result = i32;

/// Done.
pub const CAMAGENT_OK: i32 = 0;
/// Done, and nothing was kept: nobody wants this source now.
pub const CAMAGENT_NOT_WANTED: i32 = 1;
/// Done, and nothing was kept: decoding cannot start here, the agent waits for a key frame of this track.
pub const CAMAGENT_WAIT_KEY: i32 = 2;
/// Done, the frame is kept; its time went back by more than a second, which is taken as a step of the camera's clock.
pub const CAMAGENT_CLOCK_STEPPED: i32 = 3;
/// Done: no event came within the time.
pub const CAMAGENT_NO_EVENT: i32 = 4;
/// An argument is wrong: a NULL pointer, an unknown value, a number out of its range.
pub const CAMAGENT_E_INVAL: i32 = -1;
/// Not allowed now: a stop from a callback, or a frame after the stop began.
pub const CAMAGENT_E_STATE: i32 = -3;
/// The frame is larger than the journal or the protocol can hold.
pub const CAMAGENT_E_TOO_LARGE: i32 = -4;
/// No such track or command.
pub const CAMAGENT_E_NOENT: i32 = -5;
/// The configuration is wrong; camagent_last_error() names the key, its value and what is allowed.
pub const CAMAGENT_E_CONFIG: i32 = -6;
/// The operating system refused, for example a file that cannot be read.
pub const CAMAGENT_E_IO: i32 = -7;
/// Certificates are not usable.
pub const CAMAGENT_E_TLS: i32 = -8;
/// A structure comes from a newer header than this library knows, and uses what is new in it.
pub const CAMAGENT_E_VERSION: i32 = -12;
/// The agent belongs to the process that this one was forked from.
pub const CAMAGENT_E_FORKED: i32 = -13;
/// A bug in the agent: its thread has ended, the process is not harmed. Stop the agent and start it again.
pub const CAMAGENT_E_FAULT: i32 = -15;
/// Not a handle of a running agent: NULL, stopped already, or never one.
pub const CAMAGENT_E_HANDLE: i32 = -16;
/// The frame's time is before that of the last frame of its track; it was not kept.
pub const CAMAGENT_E_ORDER: i32 = -17;

const MEANINGS: &[(camagent_result, &CStr)] = &[
    (CAMAGENT_OK, c"done"),
    (CAMAGENT_NOT_WANTED, c"nobody wants this source now"),
    (CAMAGENT_WAIT_KEY, c"waiting for a key frame"),
    (CAMAGENT_CLOCK_STEPPED, c"the camera's clock stepped"),
    (CAMAGENT_NO_EVENT, c"no event"),
    (CAMAGENT_E_INVAL, c"an argument is wrong"),
    (CAMAGENT_E_STATE, c"not allowed now"),
    (CAMAGENT_E_TOO_LARGE, c"the frame is too large"),
    (CAMAGENT_E_NOENT, c"no such track or command"),
    (CAMAGENT_E_CONFIG, c"the configuration is wrong"),
    (CAMAGENT_E_IO, c"the operating system refused"),
    (CAMAGENT_E_TLS, c"certificates are not usable"),
    (CAMAGENT_E_VERSION, c"the header is newer than the library"),
    (CAMAGENT_E_FORKED, c"the agent belongs to the parent process"),
    (CAMAGENT_E_FAULT, c"a bug in the agent"),
    (CAMAGENT_E_HANDLE, c"not a handle of a running agent"),
    (CAMAGENT_E_ORDER, c"the frame is out of order"),
];

/// What a number means; never NULL.
pub(crate) fn meaning(result: camagent_result) -> &'static CStr {
    let known = MEANINGS.iter().find(|(number, _)| *number == result);
    known.map_or(c"not a result of camagent", |(_, meaning)| meaning)
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) result: camagent_result,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(result: camagent_result, text: impl Into<String>) -> Self {
        Self { result, text: text.into() }
    }

    pub(crate) fn null(argument: &str) -> Self {
        Self::new(CAMAGENT_E_INVAL, format!("{argument} is NULL"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let result = match &error {
            Error::Config { .. } | Error::ConfigText(_) => CAMAGENT_E_CONFIG,
            Error::Usage(_) => CAMAGENT_E_INVAL,
            Error::NoTrack(_) | Error::NoCommand => CAMAGENT_E_NOENT,
            Error::OutOfOrder { .. } => CAMAGENT_E_ORDER,
            Error::FrameTooLarge { .. } => CAMAGENT_E_TOO_LARGE,
            Error::Stopped | Error::OwnThread | Error::Busy => CAMAGENT_E_STATE,
            Error::Io { .. } => CAMAGENT_E_IO,
            Error::Tls(_) => CAMAGENT_E_TLS,
            _ => CAMAGENT_E_FAULT,
        };
        Self::new(result, error.to_string())
    }
}

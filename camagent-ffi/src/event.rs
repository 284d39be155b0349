//! Events: their numbers, their structure, and the texts that live as long as the next call.

use std::ffi::{CString, c_char};

use camagent_core::{Event, Warning};

use crate::guard::{Sized32, c_string};

/// A session is established: `text` is its name in the server's logs, `detail` the server's address.
pub const CAMAGENT_EVENT_CONNECTED: u32 = 1;
/// The session, or an attempt to get one, has ended: `text` says why, `code` is the WebSocket close code or 0, `retry_ms` the pause before the
/// next attempt.
pub const CAMAGENT_EVENT_DISCONNECTED: u32 = 2;
/// The server asks for something: `text` is the action, `detail` its arguments as JSON, `camera` the camera or NULL, `command` the number to
/// give to camagent_command_reply().
pub const CAMAGENT_EVENT_COMMAND: u32 = 3;
/// A viewer waits: please let the encoder begin a new GOP on `track`.
pub const CAMAGENT_EVENT_KEY_FRAME_WANTED: u32 = 4;
/// Whether frames of `track` are taken now: `wanted` is 1 or 0. The encoder of an unwanted track may rest.
pub const CAMAGENT_EVENT_TRACK_WANTED: u32 = 5;
/// Something that the operator should know and that stops nothing: `code` is one of CAMAGENT_WARNING_*, `text` says it in words.
pub const CAMAGENT_EVENT_WARNING: u32 = 6;
/// The uplink is short, or wide enough again: the encoder of `track` should produce `bitrate` bits a second from now on, 0 for what it was configured
/// for. Told at most once a second, and never for audio. An encoder that cannot follow loses pictures instead.
pub const CAMAGENT_EVENT_TARGET_BITRATE: u32 = 7;

/// The server's URL is ws://: nothing is encrypted.
pub const CAMAGENT_WARNING_PLAINTEXT: u32 = 1;
/// The configuration has an unknown key, or still an example's value.
pub const CAMAGENT_WARNING_CONFIGURATION: u32 = 2;
/// The journal is full, frames are lost.
pub const CAMAGENT_WARNING_JOURNAL_OVERFLOW: u32 = 3;
/// Another agent uses this agent's id.
pub const CAMAGENT_WARNING_DUPLICATE_IDENTITY: u32 = 4;
/// The server asked for a service that the configuration does not allow, or for too many at once.
pub const CAMAGENT_WARNING_TUNNEL_REFUSED: u32 = 5;
/// A camera that the agent fetches frames from does not answer, refuses the password, or stopped sending. Never told by this library: here the
/// host pushes the frames.
pub const CAMAGENT_WARNING_SOURCE: u32 = 6;
/// The data plan's month is used up by 80 % or 100 %, something stops because of it, or goes on with the next month.
pub const CAMAGENT_WARNING_DATA_PLAN: u32 = 7;
/// The folder of the journal on flash is not there, is full, can only be read, or has a file that is not understood; live goes on.
pub const CAMAGENT_WARNING_STORAGE: u32 = 8;

/// Something that happened. Which members count depends on `type`, see CAMAGENT_EVENT_*; texts are never NULL, `camera` may be.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camagent_event_t {
    /// Set it to sizeof(camagent_event_t) before camagent_poll_event(); tells how much was filled.
    pub struct_size: u32,
    /// One of CAMAGENT_EVENT_*. Pass over numbers that you do not know.
    pub r#type: u32,
    /// The command to answer.
    pub command: u64,
    /// The track.
    pub track: u32,
    /// 1 or 0.
    pub wanted: u32,
    /// A WebSocket close code, or one of CAMAGENT_WARNING_*.
    pub code: u32,
    /// Milliseconds until the next attempt.
    pub retry_ms: u32,
    /// See the event's type.
    pub text: *const c_char,
    /// See the event's type.
    pub detail: *const c_char,
    /// The camera of a command, or NULL.
    pub camera: *const c_char,
    /// Bits a second.
    pub bitrate: u32,
}

// SAFETY: repr(C), begins with a u32, and zeros (NULL, numbers) are a value.
unsafe impl Sized32 for camagent_event_t {
    const NAME: &'static str = "camagent_event_t";
    const LEAST: usize = std::mem::offset_of!(camagent_event_t, bitrate);
}

/// The texts that an event's pointers lead to.
#[derive(Default)]
pub(crate) struct EventTexts {
    text: CString,
    detail: CString,
    camera: Option<CString>,
}

/// The event as C sees it. Its pointers are valid as long as `texts` is not changed.
pub(crate) fn to_c(event: Event, texts: &mut EventTexts) -> camagent_event_t {
    *texts = EventTexts::default();
    let mut c = camagent_event_t {
        struct_size: size_of::<camagent_event_t>() as u32,
        r#type: 0,
        command: 0,
        track: 0,
        wanted: 0,
        code: 0,
        retry_ms: 0,
        text: std::ptr::null(),
        detail: std::ptr::null(),
        camera: std::ptr::null(),
        bitrate: 0,
    };
    match event {
        Event::Connected { session_id, address } => {
            c.r#type = CAMAGENT_EVENT_CONNECTED;
            texts.text = c_string(&session_id);
            texts.detail = c_string(&address);
        }
        Event::Disconnected { reason, code, retry_in } => {
            c.r#type = CAMAGENT_EVENT_DISCONNECTED;
            c.code = u32::from(code);
            c.retry_ms = u32::try_from(retry_in.as_millis()).unwrap_or(u32::MAX);
            texts.text = c_string(&reason);
        }
        Event::Command(command) => {
            c.r#type = CAMAGENT_EVENT_COMMAND;
            c.command = command.token.0;
            texts.text = c_string(&command.action);
            texts.detail = c_string(&command.args);
            texts.camera = command.camera.as_deref().map(c_string);
        }
        Event::KeyFrameWanted { track } => {
            c.r#type = CAMAGENT_EVENT_KEY_FRAME_WANTED;
            c.track = track;
        }
        Event::TargetBitrate { track, bits_per_second } => {
            c.r#type = CAMAGENT_EVENT_TARGET_BITRATE;
            (c.track, c.bitrate) = (track, bits_per_second);
        }
        Event::TrackWanted { track, wanted } => {
            c.r#type = CAMAGENT_EVENT_TRACK_WANTED;
            (c.track, c.wanted) = (track, u32::from(wanted));
        }
        Event::Warning { warning, message } => {
            c.r#type = CAMAGENT_EVENT_WARNING;
            c.code = warning_number(warning);
            texts.text = c_string(&message);
        }
        // A kind that this file does not know yet: type 0, which programs pass over.
        _ => {}
    }
    (c.text, c.detail) = (texts.text.as_ptr(), texts.detail.as_ptr());
    c.camera = texts.camera.as_ref().map_or(std::ptr::null(), |camera| camera.as_ptr());
    c
}

fn warning_number(warning: Warning) -> u32 {
    match warning {
        Warning::Plaintext => CAMAGENT_WARNING_PLAINTEXT,
        Warning::Configuration => CAMAGENT_WARNING_CONFIGURATION,
        Warning::JournalOverflow => CAMAGENT_WARNING_JOURNAL_OVERFLOW,
        Warning::DuplicateIdentity => CAMAGENT_WARNING_DUPLICATE_IDENTITY,
        Warning::TunnelRefused => CAMAGENT_WARNING_TUNNEL_REFUSED,
        Warning::Source => CAMAGENT_WARNING_SOURCE,
        Warning::DataPlan => CAMAGENT_WARNING_DATA_PLAN,
        Warning::Storage => CAMAGENT_WARNING_STORAGE,
        _ => 0,
    }
}

//! What the host gives at the start: how it hears events and log messages.

use std::{
    ffi::{c_char, c_void},
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use camagent_core::{Event, Host};

use crate::{
    event::{EventTexts, camagent_event_t, to_c},
    guard::{Sized32, c_string},
    handle::camagent_t,
};

/// Log level: something does not work.
pub const CAMAGENT_LOG_ERROR: i32 = 1;
/// Log level: something works in spite of trouble.
pub const CAMAGENT_LOG_WARN: i32 = 2;
/// Log level: what an operator wants to know.
pub const CAMAGENT_LOG_INFO: i32 = 3;
/// Log level: what a developer wants to know.
pub const CAMAGENT_LOG_DEBUG: i32 = 4;
/// Log level: everything.
pub const CAMAGENT_LOG_TRACE: i32 = 5;

/// The host answers commands: CAMAGENT_EVENT_COMMAND comes for those that the agent does not know itself, and wants camagent_command_reply().
/// Without this flag they are answered with an error at once.
pub const CAMAGENT_HOST_ANSWERS_COMMANDS: u32 = 1;

/// Hears an event, on the agent's thread, one at a time, with no lock held. The event and its texts are valid during the call. It must return
/// soon: meanwhile nothing is sent. It may call everything but camagent_stop(), which answers CAMAGENT_E_STATE there.
pub type camagent_event_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, agent: *mut camagent_t, event: *const camagent_event_t)>;

/// Hears a log message, mostly on the agent's thread. `level` is one of CAMAGENT_LOG_*, `message` is valid during the call. How much comes is
/// decided by agent.log_level of the configuration.
pub type camagent_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// What the host gives to its agent. Set everything to 0 first, then struct_size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camagent_host_t {
    /// Set it to sizeof(camagent_host_t).
    pub struct_size: u32,
    /// CAMAGENT_HOST_ANSWERS_COMMANDS or 0.
    pub flags: u32,
    /// Handed to both functions. It must stay valid until camagent_stop() has returned.
    pub user: *mut c_void,
    /// Hears events; NULL to fetch them by camagent_poll_event().
    pub on_event: camagent_event_fn,
    /// Hears log messages; NULL for none.
    pub on_log: camagent_log_fn,
}

// SAFETY: repr(C), begins with a u32, and zeros (NULL, numbers) are a value.
unsafe impl Sized32 for camagent_host_t {
    const NAME: &'static str = "camagent_host_t";
    const LEAST: usize = size_of::<camagent_host_t>();
}

/// The host's pointer on its way to other threads.
#[derive(Clone, Copy)]
struct User(*mut c_void);
// SAFETY: the header tells the host that its functions are called on the agent's thread.
unsafe impl Send for User {}
// SAFETY: as above; messages of several threads may come at once.
unsafe impl Sync for User {}

impl User {
    fn pointer(self) -> *mut c_void {
        self.0
    }
}

/// Opens when the handle can be used: an event may happen before camagent_start() has stored it.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }
}

/// The host as the agent's library sees it.
pub(crate) fn to_rust(host: Option<camagent_host_t>, handle: *mut camagent_t, gate: &Arc<Gate>) -> Host {
    let Some(host) = host else { return Host::default() };
    let user = User(host.user);
    let logger = host.on_log.map(|function| Arc::new(CLog { function, user }) as Arc<dyn log::Log>);
    let number = handle.addr();
    let on_event = host.on_event.map(|function| {
        let gate = Arc::clone(gate);
        let mut texts = EventTexts::default();
        let hear = move |event: Event| {
            gate.pass();
            let event = to_c(event, &mut texts);
            // SAFETY: the host vouches for its function and pointer until camagent_stop() has returned.
            unsafe { function(user.pointer(), std::ptr::without_provenance_mut(number), &raw const event) };
        };
        Box::new(hear) as Box<dyn FnMut(Event) + Send>
    });
    Host { logger, on_event, answers_commands: host.flags & CAMAGENT_HOST_ANSWERS_COMMANDS != 0 }
}

struct CLog {
    function: unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char),
    user: User,
}

impl log::Log for CLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let message = c_string(&record.args().to_string());
        let level = match record.level() {
            log::Level::Error => CAMAGENT_LOG_ERROR,
            log::Level::Warn => CAMAGENT_LOG_WARN,
            log::Level::Info => CAMAGENT_LOG_INFO,
            log::Level::Debug => CAMAGENT_LOG_DEBUG,
            log::Level::Trace => CAMAGENT_LOG_TRACE,
        };
        // SAFETY: the host vouches for its function and pointer until camagent_stop() has returned.
        unsafe { (self.function)(self.user.pointer(), level, message.as_ptr()) };
    }

    fn flush(&self) {}
}

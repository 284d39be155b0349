//! The life of an agent: start, events, answers, stop.

use std::{
    ffi::c_char,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use camagent_core::{Agent, CommandToken, Config};

use crate::{
    event::{EventTexts, camagent_event_t, to_c},
    guard::{Sized32, check, guard, optional_text, read, text, write},
    handle::{Reservation, Running, camagent_t, end, find},
    host::{Gate, camagent_host_t, to_rust},
    result::{CAMAGENT_E_INVAL, CAMAGENT_NO_EVENT, CAMAGENT_OK, Failure, camagent_result},
};

/// What a stop left behind.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camagent_left_t {
    /// Set it to sizeof(camagent_left_t); tells how much was filled.
    pub struct_size: u32,
    /// 1 when the agent's thread has ended; 0 when it hangs in a function of the host, which must then stay valid.
    pub has_ended: u32,
    /// Frames that the server had not acknowledged.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

// SAFETY: repr(C), begins with a u32, and zeros are a value.
unsafe impl Sized32 for camagent_left_t {
    const NAME: &'static str = "camagent_left_t";
    const LEAST: usize = size_of::<camagent_left_t>();
}

/// Starts an agent from a configuration in JSON (sdk-docs/reference/configuration.md). It takes its memory, reads certificates and starts one
/// thread; nothing is dialled before the call returns. Start it after fork() or daemon(), never before.
///
/// @param config_json  the configuration; copied
/// @param host         how events and log messages are heard; copied; NULL for neither
/// @param out_agent    gets the handle; untouched when the call fails
/// @return CAMAGENT_OK, CAMAGENT_E_CONFIG, CAMAGENT_E_TLS, CAMAGENT_E_IO, CAMAGENT_E_INVAL, CAMAGENT_E_VERSION, CAMAGENT_E_STATE (64 agents run),
///         CAMAGENT_E_FORKED
///
/// # Safety
/// The pointers are NULL or valid as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_start(
    config_json: *const c_char,
    host: *const camagent_host_t,
    out_agent: *mut *mut camagent_t,
) -> camagent_result {
    guard(|| {
        // SAFETY: the caller vouches for its pointers.
        let config = Config::from_json(unsafe { text(config_json, "config_json") }?)?;
        // SAFETY: as above.
        unsafe { start(config, host, out_agent) }
    })
}

/// Starts an agent from a configuration file; see camagent_start().
///
/// @param path       the file
/// @param host       how events and log messages are heard; copied; NULL for neither
/// @param out_agent  gets the handle; untouched when the call fails
/// @return as camagent_start(); CAMAGENT_E_IO when the file cannot be read
///
/// # Safety
/// The pointers are NULL or valid as described.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_start_file(
    path: *const c_char,
    host: *const camagent_host_t,
    out_agent: *mut *mut camagent_t,
) -> camagent_result {
    guard(|| {
        // SAFETY: the caller vouches for its pointers.
        let config = Config::from_file(Path::new(unsafe { text(path, "path") }?))?;
        // SAFETY: as above.
        unsafe { start(config, host, out_agent) }
    })
}

/// Fetches the oldest event that waits. For hosts that gave no `on_event`; one thread at a time. At most 256 events wait, then the oldest goes.
///
/// @param agent       the agent
/// @param event       is filled; its texts are valid until the next call for this agent, or until it is stopped. Set struct_size before
/// @param timeout_ms  how long to wait for one; 0 to look only
/// @return CAMAGENT_OK, CAMAGENT_NO_EVENT, CAMAGENT_E_HANDLE, CAMAGENT_E_INVAL, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
///
/// # Safety
/// `event` is NULL or as many writable bytes as its struct_size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_poll_event(
    agent: *mut camagent_t,
    event: *mut camagent_event_t,
    timeout_ms: u32,
) -> camagent_result {
    guard(|| {
        let running = find(agent)?;
        // Looked at first, so that a wrong size costs no event.
        // SAFETY: the caller vouches for `event`.
        unsafe { check(event, "event") }?;
        let Some(happened) = running.agent.poll_event(Duration::from_millis(u64::from(timeout_ms))) else {
            running.agent.check()?;
            return Ok(CAMAGENT_NO_EVENT);
        };
        let mut texts = running.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = to_c(happened, &mut texts);
        // SAFETY: the caller vouches for `event`.
        unsafe { write(event, &filled, "event") }?;
        Ok(CAMAGENT_OK)
    })
}

/// A file descriptor that is readable while events wait, for the host's own poll() loop. It belongs to the agent: do not read it or close it.
///
/// @param agent  the agent
/// @return the descriptor, which is never negative, or CAMAGENT_E_HANDLE, CAMAGENT_E_FORKED
#[unsafe(no_mangle)]
pub extern "C" fn camagent_event_fd(agent: *mut camagent_t) -> camagent_result {
    guard(|| Ok(find(agent)?.agent.event_fd()))
}

/// Tells that the machine is in another network, or has other addresses there: the agent looks at once whether its connection is alive, dials a
/// second one beside it, and cuts a pause between attempts short. Never waits. Not needed where the agent may open a netlink socket: then the
/// kernel tells of addresses and routes. Needed for what the kernel does not see, a modem that dialled in anew behind the same address for one.
///
/// @param agent  the agent
/// @return CAMAGENT_OK, CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT, CAMAGENT_E_FORKED
#[unsafe(no_mangle)]
pub extern "C" fn camagent_network_changed(agent: *mut camagent_t) -> camagent_result {
    guard(|| {
        find(agent)?.agent.network_changed()?;
        Ok(CAMAGENT_OK)
    })
}

/// Answers a command, once. Never waits. A command that nobody answers in time is answered with an error by the agent.
///
/// @param agent       the agent
/// @param command     `command` of the event
/// @param error_code  NULL when the command was done, else a word for machines such as "failed" or "unsupported"
/// @param text        what came of it: JSON (or NULL) when it was done, words for people when it was not; copied
/// @return CAMAGENT_OK, CAMAGENT_E_NOENT (unknown, answered, or too late), CAMAGENT_E_INVAL (no JSON), CAMAGENT_E_HANDLE, CAMAGENT_E_FAULT,
///         CAMAGENT_E_FORKED
///
/// # Safety
/// The texts are NULL or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_command_reply(
    agent: *mut camagent_t,
    command: u64,
    error_code: *const c_char,
    text: *const c_char,
) -> camagent_result {
    guard(|| {
        let running = find(agent)?;
        // SAFETY: the caller vouches for its texts.
        let (code, text) = unsafe { (optional_text(error_code, "error_code")?, optional_text(text, "text")?) };
        let text = text.unwrap_or_default();
        running.agent.answer(CommandToken(command), code.map_or(Ok(text), |code| Err((code, text))))?;
        Ok(CAMAGENT_OK)
    })
}

/// Ends an agent: takes no more frames, sends what the journal holds as long as the time allows (dialling again if need be), and ends the thread. The handle is dead
/// afterwards, whatever is returned, except for CAMAGENT_E_STATE: from a callback an agent cannot be stopped. After CAMAGENT_OK no function of the
/// host is called any more, unless `left` says that the thread hangs in one.
///
/// @param agent       the agent
/// @param timeout_ms  how long frames may still be sent; 0 to drop them. The call takes at most 2 s longer
/// @param left        gets what was left; NULL if you do not want to know. Set struct_size before
/// @return CAMAGENT_OK, CAMAGENT_E_HANDLE, CAMAGENT_E_STATE, CAMAGENT_E_INVAL, CAMAGENT_E_FORKED
///
/// # Safety
/// `left` is NULL or as many writable bytes as its struct_size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camagent_stop(
    agent: *mut camagent_t,
    timeout_ms: u32,
    left: *mut camagent_left_t,
) -> camagent_result {
    guard(|| {
        let running = find(agent)?;
        let report = running.agent.stop(Duration::from_millis(u64::from(timeout_ms)))?;
        end(agent);
        if !left.is_null() {
            let filled = camagent_left_t {
                struct_size: 0,
                has_ended: u32::from(report.has_ended),
                frames: report.frames_left,
                bytes: report.bytes_left,
            };
            // SAFETY: the caller vouches for `left`.
            unsafe { write(left, &filled, "left") }?;
        }
        Ok(CAMAGENT_OK)
    })
}

/// # Safety
/// The pointers are NULL or valid as camagent_start() describes.
unsafe fn start(
    config: Config,
    host: *const camagent_host_t,
    out_agent: *mut *mut camagent_t,
) -> Result<camagent_result, Failure> {
    if out_agent.is_null() {
        return Err(Failure::null("out_agent"));
    }
    // SAFETY: passed on from the caller.
    let host = unsafe { read(host) }?;
    if let Some(host) = &host
        && host.flags & !crate::host::CAMAGENT_HOST_ANSWERS_COMMANDS != 0
    {
        return Err(Failure::new(
            CAMAGENT_E_INVAL,
            format!("camagent_host_t.flags has unknown bits: {:#x}", host.flags),
        ));
    }
    let reservation = Reservation::new()?;
    let gate = Arc::new(Gate::default());
    let agent = Agent::start(config, to_rust(host, reservation.handle(), &gate))?;
    let handle = reservation.fill(Running { agent, texts: EventTexts::default().into() });
    // SAFETY: not NULL, and the caller vouches for it.
    unsafe { out_agent.write(handle) };
    gate.open();
    Ok(CAMAGENT_OK)
}

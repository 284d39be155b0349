//! SIGTERM and SIGINT as something to wait for: both are blocked and read from a descriptor, so no handler ever runs.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

/// Both signals, blocked.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks both signals in this thread and in those that it starts from now on.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: the set is emptied before it is read and lives through the calls; signalfd is given a new descriptor.
        let descriptor = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            let refused = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if refused != 0 {
                return Err(io::Error::from_raw_os_error(refused));
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) } })
    }

    /// The name of the signal that came, `None` when none came within `longest`.
    pub(crate) fn wait(&self, longest: Duration) -> io::Result<Option<&'static str>> {
        let mut poll = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = libc::c_int::try_from(longest.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one valid pollfd is given.
        match unsafe { libc::poll(&raw mut poll, 1, millis) } {
            0 => return Ok(None),
            1 => {}
            _ => return interrupted_is_nothing(io::Error::last_os_error()),
        }
        // SAFETY: a value of plain integers, for which zeros are valid, is filled with at most its own size.
        let (read, info) = unsafe {
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let size = size_of::<libc::signalfd_siginfo>();
            (libc::read(self.descriptor.as_raw_fd(), (&raw mut info).cast(), size), info)
        };
        if read < 0 {
            return interrupted_is_nothing(io::Error::last_os_error());
        }
        Ok(Some(if info.ssi_signo == libc::SIGINT as u32 { "SIGINT" } else { "SIGTERM" }))
    }
}

/// A stopped and continued process finds its wait interrupted: that is no signal of ours.
fn interrupted_is_nothing(error: io::Error) -> io::Result<Option<&'static str>> {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(None),
        _ => Err(error),
    }
}

//! SIGTERM, SIGINT and SIGHUP as something to wait for: they are blocked and read from a descriptor, so no handler ever runs.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

/// What somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SIGTERM or SIGINT: to stop. The signal's name.
    Stop(&'static str),
    /// SIGHUP: to open the log again.
    Reopen,
}

/// The signals, blocked.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks the signals in this thread and in those that it starts from now on.
    pub(crate) fn block() -> io::Result<Self> {
        // SAFETY: the set is emptied before it is read and lives through the calls; signalfd is given a new descriptor.
        let descriptor = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigaddset(&raw mut set, libc::SIGHUP);
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

    /// What a signal asks for, `None` when none came within `longest`.
    pub(crate) fn wait(&self, longest: Duration) -> io::Result<Option<Asked>> {
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
        Ok(Some(match libc::c_int::try_from(info.ssi_signo) {
            Ok(libc::SIGHUP) => Asked::Reopen,
            Ok(libc::SIGINT) => Asked::Stop("SIGINT"),
            _ => Asked::Stop("SIGTERM"),
        }))
    }
}

/// A stopped and continued process finds its wait interrupted: that is no signal of ours.
fn interrupted_is_nothing(error: io::Error) -> io::Result<Option<Asked>> {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(None),
        _ => Err(error),
    }
}

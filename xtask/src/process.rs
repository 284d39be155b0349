//! Programs that run beside xtask, and the signals that end it: nothing that was started outlives it.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static STOP: AtomicBool = AtomicBool::new(false);

/// From here on SIGINT and SIGTERM only set a flag: see [`asked_to_stop`].
pub(crate) fn catch_signals() {
    extern "C" fn note(_signal: libc::c_int) {
        STOP.store(true, Ordering::Relaxed);
    }
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether somebody pressed Ctrl-C or sent SIGTERM.
pub(crate) fn asked_to_stop() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// A program that runs until this is dropped: it is asked to end, then made to.
pub(crate) struct Running {
    name: String,
    child: Child,
}

impl Running {
    /// Starts a program in a process group of its own, so that a Ctrl-C of the terminal reaches xtask only, which then ends
    /// everything in order. Should xtask be killed, the kernel ends the program.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        command.process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: prctl is a plain system call, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// The name it was started under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// An error when the program has ended by itself.
    pub(crate) fn still_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended with {status}", self.name)),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// Asks the program to end and returns once it has.
    pub(crate) fn stop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        if let Ok(id) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: the child was not waited for yet, so the number is still its own.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} did not end within 5 s and is killed", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_ends_with_its_owner() {
        let mut running = Running::start("sleep", Command::new("sleep").arg("60")).unwrap();
        running.still_runs().unwrap();
        let start = Instant::now();
        running.stop();
        assert!(start.elapsed() < Duration::from_secs(4));
        assert!(running.still_runs().is_err());
    }
}

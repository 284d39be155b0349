//! A running `camagentd` that does not outlive its test.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait;

/// The program, running.
pub struct Daemon(Child);

impl Daemon {
    /// Starts `program`, which is `env!("CARGO_BIN_EXE_camagentd")` of the test.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(program).args(arguments).stderr(Stdio::piped()))
    }

    /// Starts a command that is prepared further.
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().expect("the daemon starts"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let process = libc::pid_t::try_from(self.0.id()).expect("a process number");
        // SAFETY: the process is a child that was not waited for, so the number is its.
        assert_eq!(unsafe { libc::kill(process, signal) }, 0);
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().expect("can be waited for").is_none()
    }

    /// Waits for the end, which comes within five seconds: how, and what it wrote on standard error when that is piped.
    pub async fn end(mut self) -> (ExitStatus, String) {
        let child = &mut self.0;
        let status =
            wait::found("the daemon's end", Duration::from_secs(5), || child.try_wait().expect("can be waited for"));
        let status = status.await;
        let mut log = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut log).expect("the log is text");
        }
        (status, log)
    }
}

/// The program is killed when its parent has ended without a word. The thread that starts it has to last as long as it is to run.
pub fn dies_with_its_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl() is async-signal-safe, and nothing else is done between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a good end there is nothing left to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! Programs that run beside the bench and end with it, and what they use: `/proc` of a process and its descendants.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Service;

/// A program that is killed with the value.
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a program and its descendants have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Time on a processor, user's and system's, in seconds.
    pub(crate) cpu_s: f64,
    /// The largest resident set that each of them ever had, added up, in octets.
    pub(crate) peak_memory: u64,
}

impl Program {
    /// Starts a program; what it says goes to `folder`/`name`.log.
    pub(crate) fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self, String> {
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let twin = file.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(file).stderr(twin).process_group(0);
        // SAFETY: prctl is a plain system call, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// What it and its descendants have used.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        let mut family = vec![self.child.id()];
        while let Some(id) = family.pop() {
            usage.cpu_s += cpu_s(id).unwrap_or_default();
            usage.peak_memory += peak_memory(id).unwrap_or_default();
            family.extend(children(id));
        }
        usage
    }

    /// What it said last.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!("{}: {}", self.name, lines[lines.len().saturating_sub(5)..].join(" / "))
    }

    /// An error with its last words when it has ended.
    pub(crate) fn still_runs(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("ended with {status}; {}", self.last_words())),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Ok(id) = libc::pid_t::try_from(self.child.id()) else { return };
        let signal = |signal| {
            // SAFETY: the child leads a group of its own and was not waited for, so the number is still the group's.
            unsafe { libc::kill(-id, signal) };
        };
        signal(libc::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        signal(libc::SIGKILL);
        // It was killed, and nobody is left to be told.
        let _ = self.child.wait();
    }
}

/// A port that is free at this moment.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| format!("no free port: {error}"))?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

/// A free port of loopback for each service.
pub(crate) fn free_doors(services: &[Service]) -> Result<Vec<SocketAddr>, String> {
    services.iter().map(|_| Ok(([127, 0, 0, 1], free_port()?).into())).collect()
}

/// utime and stime of proc(5), in seconds; children that were waited for are in cutime and cstime.
fn cpu_s(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in brackets may hold anything; the numbers begin with the state behind it.
    let numbers: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = numbers.get(11..15)?.iter().filter_map(|number| number.parse::<u64>().ok()).sum();
    // SAFETY: sysconf takes a number and has no other preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(ticks as f64 / per_second as f64)
}

fn peak_memory(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn children(id: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else { return Vec::new() };
    let texts = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_counted_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sh -c 'while :; do :; done' & wait"]);
        let mut program = Program::start("busy", &mut shell, folder.path()).unwrap();
        let begun = Instant::now();
        while program.usage().cpu_s < 0.05 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(program.usage().peak_memory > 100_000);
        program.still_runs().unwrap();
    }
}

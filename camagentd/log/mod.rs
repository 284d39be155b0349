//! Where log lines go: the file that is wanted, else standard error. One line is one write, so lines of threads do not mix.
//!
//! On standard error a line has time, level and text; where that is the journal of systemd, which knows the time, it has the priority instead
//! (sd-daemon(3)). What the file does not take goes to standard error too: nothing here ever stops the agent.

mod file;

use std::{
    ffi::OsStr,
    fmt,
    io::Write,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use camagent_core::{LogFile, rfc3339};
use log::{Level, LevelFilter, Log, Metadata, Record};

use file::Rotated;

/// Writes what is not more detailed than its level.
#[derive(Debug)]
pub(crate) struct Logger {
    most: LevelFilter,
    to_journal: bool,
    file: Option<Mutex<Target>>,
}

#[derive(Debug)]
struct Target {
    file: Rotated,
    /// It was said that the file takes nothing.
    is_complained: bool,
}

impl Logger {
    /// To the file if one is wanted; it is made with the first line.
    pub(crate) fn new(most: LevelFilter, wanted: &LogFile) -> Self {
        let file = Rotated::new(wanted).map(|file| Mutex::new(Target { file, is_complained: false }));
        Self { most, to_journal: stderr_is_the_journal(), file }
    }

    /// A line of the daemon itself.
    pub(crate) fn info(&self, text: fmt::Arguments<'_>) {
        self.log(&Record::builder().level(Level::Info).args(text).build());
    }

    /// The daemon ends, and not because somebody asked for it.
    pub(crate) fn error(&self, text: fmt::Arguments<'_>) {
        self.log(&Record::builder().level(Level::Error).args(text).build());
    }

    /// Somebody says that the file was moved away, or that the disk has room again. Whether there is a file.
    pub(crate) fn reopen(&self) -> bool {
        let Some(target) = &self.file else { return false };
        let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
        target.file.try_at_once();
        // The next line tells what is wrong.
        let _ = target.file.reopen();
        true
    }

    /// Opens the file again when it was moved away and nobody said so.
    pub(crate) fn look(&self) {
        let Some(target) = &self.file else { return };
        let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
        if target.file.was_moved() {
            let _ = target.file.reopen();
        }
    }

    fn to_stderr(&self, level: Level, text: &str) {
        let line = if self.to_journal {
            format!("<{}>{text}\n", priority(level))
        } else {
            format!("{} {level:<5} {text}\n", now())
        };
        // With standard error closed there is nobody to tell.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.most
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Line ends in what a server says must not look like lines of our own.
        let text = record.args().to_string().replace(['\n', '\r'], " ");
        let Some(target) = &self.file else { return self.to_stderr(record.level(), &text) };
        let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
        match target.file.write(format!("{} {:<5} {text}\n", now(), record.level()).as_bytes()) {
            Ok(()) => target.is_complained = false,
            Err(error) => {
                if !std::mem::replace(&mut target.is_complained, true) {
                    let path = target.file.path().display();
                    let told =
                        format!("cannot write the log {path}: {error}; its lines come here until it can be written");
                    self.to_stderr(Level::Warn, &told);
                }
                self.to_stderr(record.level(), &text);
            }
        }
    }

    fn flush(&self) {}
}

/// syslog(3) priorities.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Whether standard error is the stream that systemd names in `JOURNAL_STREAM`. The variable alone is no proof: children inherit it.
fn stderr_is_the_journal() -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    // SAFETY: fstat fills the structure, of plain integers, which is read only when it says that it did.
    let (filled, status) = unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        (libc::fstat(libc::STDERR_FILENO, &raw mut status) == 0, status)
    };
    filled && named == OsStr::new(&format!("{}:{}", status.st_dev, status.st_ino))
}

fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

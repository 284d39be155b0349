//! Everything that is logged in this process: by agents into the logger that their host gave, by the server and its
//! libraries through `tracing`.
//!
//! The process-wide logger of the `log` crate is another matter: libraries may say there what they like (tungstenite shows
//! whole requests and messages), so the product must leave it off, and [`process_wide_log_is_off`] looks whether it did.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Log lines. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Catches, at the most detailed level, what is traced in the process from now on. Once in a process.
    pub fn of_the_process() -> Self {
        let logs = Self::default();
        let writer = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        subscriber.init();
        logs
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// Whether nobody has installed a process-wide logger or turned it on. Takes its place, so that it can be asked once.
pub fn process_wide_log_is_off() -> bool {
    log::max_level() == log::LevelFilter::Off && log::set_boxed_logger(Box::new(Logs::default())).is_ok()
}

impl Write for Logs {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl log::Log for Logs {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}: {}\n", record.level(), record.target(), record.args());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(line.as_bytes());
    }

    fn flush(&self) {}
}

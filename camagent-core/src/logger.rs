//! Log messages of one agent, to the logger that its host gave: nothing goes through the process-wide one.

use std::{fmt, sync::Arc};

/// A logger and the most detailed level that it gets.
#[derive(Clone)]
pub(crate) struct Logger {
    sink: Option<Arc<dyn log::Log>>,
    most: log::LevelFilter,
}

impl Logger {
    pub(crate) fn new(sink: Option<Arc<dyn log::Log>>, most: log::LevelFilter) -> Self {
        Self { sink, most }
    }

    pub(crate) fn error(&self, message: fmt::Arguments<'_>) {
        self.write(log::Level::Error, message);
    }

    pub(crate) fn warn(&self, message: fmt::Arguments<'_>) {
        self.write(log::Level::Warn, message);
    }

    pub(crate) fn info(&self, message: fmt::Arguments<'_>) {
        self.write(log::Level::Info, message);
    }

    pub(crate) fn debug(&self, message: fmt::Arguments<'_>) {
        self.write(log::Level::Debug, message);
    }

    fn write(&self, level: log::Level, message: fmt::Arguments<'_>) {
        if let Some(sink) = self.sink.as_ref().filter(|_| level <= self.most) {
            sink.log(&log::Record::builder().level(level).target("camagent").args(message).build());
        }
    }
}

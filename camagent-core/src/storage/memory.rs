//! The backlog of an agent without a card: what the live reader left in memory, brought beside the live frames.
//!
//! Which frames these are is kept with them (`journal::ring`). What does not belong here: agents with a card, whose backlog lies there.

use std::sync::{Mutex, PoisonError};

use camagent_proto::{
    frame::{EndReason, SkipReason},
    message::BootId,
    transfer::{Backlog, EpochKey, Look, Waiting},
};

use crate::source::Intake;

/// This run of the agent.
#[derive(Debug)]
pub(crate) struct Run {
    boot: BootId,
    /// Its clock in microseconds when UTC was known, and UTC then in microseconds since 1970; zeros before.
    clock: Mutex<(u64, u64)>,
}

impl Run {
    pub(crate) fn new(boot: BootId) -> Self {
        Self { boot, clock: Mutex::default() }
    }

    /// The time of day became known.
    pub(crate) fn set_clock(&self, boot_us: u64, utc_us: u64) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = (boot_us, utc_us);
    }

    fn clock(&self) -> (u64, u64) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory as a backlog.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    pub(super) intake: &'a Intake,
    pub(super) run: &'a Run,
}

impl Backlog for Memory<'_> {
    fn generation(&mut self) -> u64 {
        self.intake.past(|journal| journal.past_generation())
    }

    fn waiting(&mut self) -> Vec<Waiting> {
        let (boot, clock) = (self.run.boot, self.run.clock());
        self.intake.past(|journal| {
            let waiting = journal.pasts().iter().map(|past| {
                let mut info = past.info.clone();
                info.next = past.first;
                Waiting { boot, info, end: past.end, clock, ended: past.is_over.then_some(EndReason::Stopped) }
            });
            waiting.collect()
        })
    }

    fn look(&mut self) -> Look {
        match self.intake.past(|journal| journal.look_past()) {
            Some((track, epoch, entry)) => Look::Frame(EpochKey { boot: self.run.boot, track, epoch }, entry),
            None => Look::Nothing,
        }
    }

    fn copy(&mut self, key: &EpochKey, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        self.intake.past(|journal| journal.copy_past(key.track, key.epoch, sequence, offset, into))
    }

    fn pass(&mut self, key: &EpochKey, sequence: u64) {
        self.intake.past(|journal| journal.pass_past(key.track, key.epoch, sequence));
    }

    fn decline(&mut self, key: &EpochKey) {
        // Memory is for what is wanted.
        self.intake.past(|journal| journal.drop_past(key.track, key.epoch));
    }

    fn hole(&mut self, key: &EpochKey, number: u64) -> Option<(SkipReason, u64)> {
        Some(self.intake.past(|journal| journal.missing_past(key.track, key.epoch, number)))
    }

    fn stored(&mut self, key: &EpochKey, next: u64) {
        self.intake.past(|journal| journal.stored_past(key.track, key.epoch, next));
    }

    fn rewind(&mut self, _lost: Option<&[(u32, u64)]>) {
        self.intake.past(|journal| journal.rewind_past());
    }
}

//! Doors into the agent for a simulation of whole agents (feature `simulation`): what takes frames and keeps them, without the thread and the
//! sockets around it. `cargo xtask chaos` runs it on a clock and a link of its own.
//!
//! For tests only, and no promise: nothing here is part of the library's interface. What does not belong here: anything that a driver decides.

use camagent_proto::{
    Instant,
    frame::TrackInfo,
    transfer::{Entry, Journal},
};

use crate::{Config, Error, Frame, Pushed, TrackDescription, source::Intake};

/// What the host's encoder threads and the agent's thread share: the way of frames into the journal, and the journal.
pub struct Intakes(Intake);

impl Intakes {
    /// An intake whose journal holds `buffer_size` octets, for the cameras of a configuration.
    pub fn new(buffer_size: usize, config: &Config) -> Result<Self, Error> {
        Ok(Self(Intake::new(buffer_size, &config.cameras)?))
    }

    /// As [`crate::Agent::set_track`].
    pub fn set_track(&self, number: u32, description: &TrackDescription) -> Result<(), Error> {
        self.0.set_track(number, description)
    }

    /// As [`crate::Agent::push_frame`] at a time of the caller's.
    pub fn push(&self, now: Instant, number: u32, frame: Frame<'_>) -> Result<Pushed, Error> {
        self.0.push(now, number, frame)
    }

    /// Epochs that have begun since the last call: the driver announces them.
    pub fn take_unannounced(&self) -> Vec<TrackInfo> {
        self.0.take_unannounced()
    }

    /// Tracks whose encoder is to be asked for a key frame.
    pub fn take_key_requests(&self) -> Vec<u32> {
        self.0.take_key_requests()
    }

    /// Every track begins a new epoch, as after the command `restart`.
    pub fn restart(&self) {
        self.0.restart();
    }
}

/// The journal as the sender reads it.
impl Journal for &Intakes {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        (&self.0).find(track, epoch, sequence)
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        (&self.0).newest_key(track, epoch)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        (&self.0).end(track, epoch)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        (&self.0).copy(track, epoch, sequence, offset, into)
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        (&self.0).received(track, epoch, next);
    }
}

//! Doors into the agent for a simulation of whole agents (feature `simulation`): what takes frames and keeps them, in memory and on flash, without
//! the threads and the sockets around it. `cargo xtask chaos` runs it on a clock, a card and a link of its own.
//!
//! For tests only, and no promise: nothing here is part of the library's interface. What does not belong here: anything that a driver decides.

use std::{io, path::Path, time::Duration};

use camagent_proto::{
    Instant,
    frame::{SkipReason, TrackInfo},
    message::BootId,
    transfer::{Backlog, Entry, Journal},
};

use crate::{
    Config, Error, Frame, Pushed, StorageMode, TrackDescription,
    config::SYNC_INTERVAL,
    journal::flash::{
        disk::{Disk, Folder},
        store::FlashConfig,
    },
    source::Intake,
    storage::{Run, Shelf, Tiers, Worker},
};

/// A card: the folder that the journal's flash tier writes to. What each call promises is what the agent's own folder does.
#[allow(missing_docs, reason = "they are those of the disk that the journal writes to, and documented there")]
pub trait Card: Send {
    fn open(&mut self) -> io::Result<()>;
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;
    fn create(&mut self, name: &str) -> io::Result<()>;
    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()>;
    fn sync(&mut self, name: &str) -> io::Result<()>;
    fn sync_folder(&mut self) -> io::Result<()>;
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
    fn set_aside(&mut self, name: &str) -> io::Result<()>;
}

struct Slot(Box<dyn Card>);

impl Disk for Slot {
    fn open(&mut self) -> io::Result<()> {
        self.0.open()
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.0.list()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.0.create(name)
    }

    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        self.0.append(name, octets)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.0.sync(name)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.0.sync_folder()
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.0.truncate(name, length)
    }

    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(name, offset, into)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        self.0.set_aside(name)
    }
}

impl<D: Disk> Card for D {
    fn open(&mut self) -> io::Result<()> {
        Disk::open(self)
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        Disk::list(self)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        Disk::create(self, name)
    }

    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        Disk::append(self, name, octets)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        Disk::sync(self, name)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        Disk::sync_folder(self)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        Disk::truncate(self, name, length)
    }

    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        Disk::read(self, name, offset, into)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        Disk::remove(self, name)
    }

    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        Disk::set_aside(self, name)
    }
}

/// The card that agents have: a folder of the operating system.
pub fn folder(path: &Path) -> Box<dyn Card> {
    Box::new(Folder::new(path))
}

/// A card, and how it is used.
pub struct Flash {
    /// The card.
    pub card: Box<dyn Card>,
    /// Octets that frames may take.
    pub max_bytes: u64,
    /// When it is written to.
    pub mode: StorageMode,
}

/// What the host's encoder threads, the agent's thread and the disk thread share, and what the disk thread does.
pub struct Storage {
    intake: Intake,
    flash: Option<(Shelf, Worker)>,
    run: Run,
}

impl Storage {
    /// Storage of a run whose memory holds `buffer_size` octets, for the cameras of a configuration.
    pub fn new(buffer_size: usize, config: &Config, boot: BootId, flash: Option<Flash>) -> Result<Self, Error> {
        let flash = flash.map(|flash| {
            let config = FlashConfig { agent_id: config.agent_id.clone(), boot, max_bytes: flash.max_bytes };
            (Shelf::default(), Worker::new(Box::new(Slot(flash.card)), config, flash.mode, SYNC_INTERVAL))
        });
        let intake = Intake::new(buffer_size, &config.cameras, flash.is_some())?;
        Ok(Self { intake, flash, run: Run::new(boot) })
    }

    /// As [`crate::Agent::set_track`].
    pub fn set_track(&self, number: u32, description: &TrackDescription) -> Result<(), Error> {
        self.intake.set_track(number, description)
    }

    /// As [`crate::Agent::push_frame`] at a time of the caller's.
    pub fn push(&self, now: Instant, number: u32, frame: Frame<'_>) -> Result<Pushed, Error> {
        self.intake.push(now, number, frame)
    }

    /// The number that the next frame of a track will get: one that was refused has one too, when that is a loss.
    pub fn next_number(&self, track: u32) -> u64 {
        self.intake.next_number(track)
    }

    /// The newest frame of an epoch.
    pub fn newest(&self, track: u32, epoch: u64) -> Option<Entry> {
        let sequence = (&self.intake).end(track, epoch).checked_sub(1)?;
        (&self.intake).find(track, epoch, sequence)
    }

    /// Epochs that have begun since the last call: the driver announces them.
    pub fn take_unannounced(&self) -> Vec<TrackInfo> {
        self.intake.take_unannounced()
    }

    /// Tracks whose encoder is to be asked for a key frame.
    pub fn take_key_requests(&self) -> Vec<u32> {
        self.intake.take_key_requests()
    }

    /// Every track begins a new epoch, as after the command `restart`.
    pub fn restart(&self) {
        self.intake.restart();
    }

    /// One turn of the disk thread: whether it has ended, and how long it would wait. `None` without a card.
    pub fn turn(&mut self, now: Instant) -> Option<(bool, Duration)> {
        let (shelf, worker) = self.flash.as_mut()?;
        Some(worker.turn(now, &self.intake, shelf, || {}))
    }

    /// Whether nothing waits on the card for the server.
    pub fn is_card_empty(&self) -> bool {
        self.flash.as_ref().is_none_or(|(_, worker)| worker.is_empty())
    }

    /// The connection is there, or gone.
    pub fn set_connected(&self, is_connected: bool) {
        if let Some((shelf, _)) = &self.flash {
            shelf.set_connected(is_connected);
        }
    }

    /// The time of day became known.
    pub fn set_clock(&self, boot_us: u64, utc_us: u64) {
        self.run.set_clock(boot_us, utc_us);
        if let Some((shelf, _)) = &self.flash {
            shelf.set_clock(boot_us, utc_us);
        }
    }

    /// Asks the disk thread to write down what is left and to end.
    pub fn stop(&self) {
        if let Some((shelf, _)) = &self.flash {
            shelf.stop(Duration::ZERO);
        }
    }

    /// Both tiers as the session reads them.
    pub fn reader(&self) -> Reader<'_> {
        Reader(Tiers::new(&self.intake, self.flash.as_ref().map(|(shelf, _)| shelf), &self.run))
    }
}

/// Both tiers as the session reads them.
pub struct Reader<'a>(Tiers<'a>);

impl Journal for Reader<'_> {
    fn find(&mut self, track: u32, epoch: u64, sequence: u64) -> Option<Entry> {
        self.0.find(track, epoch, sequence)
    }

    fn newest_key(&mut self, track: u32, epoch: u64) -> Option<u64> {
        self.0.newest_key(track, epoch)
    }

    fn end(&mut self, track: u32, epoch: u64) -> u64 {
        self.0.end(track, epoch)
    }

    fn missing(&mut self, track: u32, epoch: u64, number: u64) -> (SkipReason, u64) {
        self.0.missing(track, epoch, number)
    }

    fn copy(&mut self, track: u32, epoch: u64, sequence: u64, offset: u64, into: &mut [u8]) -> bool {
        self.0.copy(track, epoch, sequence, offset, into)
    }

    fn received(&mut self, track: u32, epoch: u64, next: u64) {
        self.0.received(track, epoch, next);
    }

    fn live_from(&mut self, track: u32, epoch: u64, next: u64) -> u64 {
        self.0.live_from(track, epoch, next)
    }

    fn leave(&mut self, info: &TrackInfo, from: u64, to: u64, is_over: bool) -> bool {
        self.0.leave(info, from, to, is_over)
    }

    fn backlog(&mut self) -> Option<&mut dyn Backlog> {
        self.0.backlog()
    }
}

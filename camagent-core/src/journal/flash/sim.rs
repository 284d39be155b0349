//! A card that does what real ones do, on purpose: it tears and reorders what was not synced, fills, goes read-only, is pulled and put back.
//!
//! Everything follows from a seed. It counts what reaches the flash in pages of 4 096 octets, which is what a file system writes at least.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::disk::{Disk, SET_ASIDE};

const PAGE: u64 = 4_096;
/// What a card writes at once: a power cut leaves whole sectors.
const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Vec<u8>,
    safe: Vec<u8>,
    /// Sectors of `now` that are not safe.
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Default)]
struct Card {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    /// The names as a power cut leaves them at least.
    safe_names: BTreeMap<String, usize>,
    /// Changes of names since then, `None` for a removed one; what changes together stays together.
    changes: Vec<Vec<(String, Option<usize>)>>,
    capacity: u64,
    is_read_only: bool,
    is_away: bool,
    pages_written: u64,
    syncs: u64,
    reads: u64,
    /// Files of which nothing from an octet on can be read.
    unreadable: BTreeMap<String, usize>,
    /// Fails after so many more calls that write.
    fails_in: Option<u64>,
    random: u64,
}

/// A handle on a simulated card; clones are the same card.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<Card>>);

impl SimDisk {
    /// A card of `capacity` octets.
    pub(crate) fn new(seed: u64, capacity: u64) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self(Arc::new(Mutex::new(Card { capacity, random, ..Card::default() })))
    }

    fn card(&self) -> MutexGuard<'_, Card> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes: of what was not synced, any sectors are there, of changed names any number of the first.
    pub(crate) fn cut_power(&self) {
        let mut card = self.card();
        let card = &mut *card;
        for inode in &mut card.inodes {
            let mut length = inode.safe.len();
            let mut kept = inode.safe.clone();
            for &sector in &inode.dirty {
                if random(&mut card.random).is_multiple_of(2) {
                    continue;
                }
                let from = sector * SECTOR;
                let to = (from + SECTOR).min(inode.now.len());
                if from >= to {
                    continue;
                }
                if kept.len() < to {
                    // The length is on the card, octets between are not: old rubbish stands there.
                    let garbage = (random(&mut card.random) % 3) as u8;
                    kept.resize(to, garbage.wrapping_mul(0x5a));
                }
                kept[from..to].copy_from_slice(&inode.now[from..to]);
                length = length.max(to);
            }
            kept.truncate(length);
            (inode.now, inode.safe) = (kept.clone(), kept);
            inode.dirty.clear();
        }
        let kept = random(&mut card.random) as usize % (card.changes.len() + 1);
        let mut names = card.safe_names.clone();
        for (name, inode) in card.changes.drain(..).take(kept).flatten() {
            match inode {
                Some(inode) => names.insert(name, inode),
                None => names.remove(&name),
            };
        }
        (card.names, card.safe_names) = (names.clone(), names);
        card.fails_in = None;
    }

    /// Whether the card can only be read.
    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        self.card().is_read_only = is_read_only;
    }

    /// The card is pulled, or put back.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.card().is_away = is_away;
    }

    /// Octets of a file from this one on cannot be read any more.
    pub(crate) fn fail_reads(&self, name: &str, from: usize) {
        self.card().unreadable.insert(name.into(), from);
    }

    /// What fits from now on.
    pub(crate) fn set_capacity(&self, capacity: u64) {
        self.card().capacity = capacity;
    }

    /// After so many more calls that write, one fails half done.
    pub(crate) fn fail_in(&self, calls: u64) {
        self.card().fails_in = Some(calls);
    }

    /// Octets that the flash took, in whole pages.
    pub(crate) fn octets_written(&self) -> u64 {
        self.card().pages_written * PAGE
    }

    /// How often something was synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.card().syncs
    }

    /// How often something was read.
    pub(crate) fn reads(&self) -> u64 {
        self.card().reads
    }

    /// Octets of all files.
    pub(crate) fn used(&self) -> u64 {
        self.card().used()
    }

    /// Names of the files, those set aside with their folder.
    pub(crate) fn names(&self) -> Vec<String> {
        self.card().names.keys().cloned().collect()
    }

    /// A file as a stranger leaves it.
    pub(crate) fn plant(&self, name: &str, octets: &[u8]) {
        let mut card = self.card();
        let inode = card.inodes.len();
        card.inodes.push(Inode { now: octets.into(), safe: octets.into(), dirty: BTreeSet::new() });
        card.names.insert(name.into(), inode);
        card.safe_names.insert(name.into(), inode);
    }

    /// What is in a file.
    pub(crate) fn octets(&self, name: &str) -> Vec<u8> {
        let card = self.card();
        card.names.get(name).map(|&inode| card.inodes[inode].now.clone()).unwrap_or_default()
    }
}

impl Card {
    fn used(&self) -> u64 {
        self.names.values().map(|&inode| self.inodes[inode].now.len() as u64).sum()
    }

    fn check(&self) -> io::Result<()> {
        if self.is_away { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn writes(&mut self) -> io::Result<()> {
        self.check()?;
        if self.is_read_only {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        match &mut self.fails_in {
            Some(0) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk for SimDisk {
    fn open(&mut self) -> io::Result<()> {
        self.card().check()
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let card = self.card();
        card.check()?;
        let files = card.names.iter().filter(|(name, _)| !name.contains('/'));
        Ok(files.map(|(name, &inode)| (name.clone(), card.inodes[inode].now.len() as u64)).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut card = self.card();
        card.writes()?;
        if card.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = card.inodes.len();
        card.inodes.push(Inode::default());
        card.names.insert(name.into(), inode);
        card.changes.push(vec![(name.into(), Some(inode))]);
        Ok(())
    }

    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        let mut card = self.card();
        let inode = card.inode(name)?;
        let failed = card.writes().err();
        let room = usize::try_from(card.capacity.saturating_sub(card.used())).unwrap_or(usize::MAX);
        let full = (octets.len() > room).then(|| io::Error::from_raw_os_error(libc::ENOSPC));
        // What fails has mostly done a part.
        let taken = match (&failed, &full) {
            (Some(error), _) if error.raw_os_error() != Some(libc::EIO) || card.is_away => 0,
            (Some(_), _) => octets.len() / 2,
            (None, _) => octets.len().min(room),
        };
        let file = &mut card.inodes[inode];
        let from = file.now.len();
        file.now.extend_from_slice(&octets[..taken]);
        if taken > 0 {
            file.dirty.extend(from / SECTOR..=(from + taken - 1) / SECTOR);
        }
        failed.or(full).map_or(Ok(()), Err)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut card = self.card();
        let inode = card.inode(name)?;
        card.writes()?;
        let file = &mut card.inodes[inode];
        let pages: BTreeSet<u64> = file.dirty.iter().map(|&sector| (sector * SECTOR) as u64 / PAGE).collect();
        file.safe = file.now.clone();
        file.dirty.clear();
        card.pages_written += pages.len() as u64;
        card.syncs += 1;
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let mut card = self.card();
        card.writes()?;
        card.safe_names = card.names.clone();
        card.changes.clear();
        card.pages_written += 1;
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut card = self.card();
        let inode = card.inode(name)?;
        card.writes()?;
        let file = &mut card.inodes[inode];
        file.now.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        file.safe = file.now.clone();
        file.dirty.clear();
        Ok(())
    }

    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut card = self.card();
        card.check()?;
        card.reads += 1;
        let octets = &card.inodes[card.inode(name)?].now;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(octets.len());
        let length = into.len().min(octets.len() - from);
        if card.unreadable.get(name).is_some_and(|bad| from + length > *bad) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        into[..length].copy_from_slice(&octets[from..from + length]);
        Ok(length)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut card = self.card();
        card.inode(name)?;
        card.writes()?;
        card.names.remove(name);
        card.changes.push(vec![(name.into(), None)]);
        Ok(())
    }

    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        let mut card = self.card();
        let inode = card.inode(name)?;
        card.writes()?;
        let free = (0..).map(|count| format!("{SET_ASIDE}/{name}.{count}"));
        let to = free.into_iter().find(|to| !card.names.contains_key(to)).unwrap_or_default();
        card.names.remove(name);
        card.names.insert(to.clone(), inode);
        card.changes.push(vec![(name.into(), None), (to, Some(inode))]);
        Ok(())
    }
}

/// xorshift64*.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_outlives_every_power_cut() {
        for seed in 0..100 {
            let card = SimDisk::new(seed, 1 << 20);
            let mut disk = card.clone();
            disk.create("a").unwrap();
            disk.append("a", &[7; 1_000]).unwrap();
            disk.sync("a").unwrap();
            disk.sync_folder().unwrap();
            disk.append("a", &[8; 5_000]).unwrap();
            disk.create("b").unwrap();
            card.cut_power();
            let octets = card.octets("a");
            assert_eq!(octets[..1_000], [7; 1_000]);
            assert!(octets.len() <= 6_000);
        }
    }

    #[test]
    fn it_fills_fails_and_goes_away() {
        let card = SimDisk::new(1, 1_500);
        let mut disk = card.clone();
        disk.create("a").unwrap();
        disk.append("a", &[1; 1_000]).unwrap();
        assert_eq!(disk.append("a", &[1; 1_000]).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(card.used(), 1_500, "a part of it was written");
        card.set_read_only(true);
        assert_eq!(disk.create("b").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        card.set_read_only(false);
        card.set_away(true);
        assert!(disk.list().is_err() && disk.open().is_err());
        card.set_away(false);
        card.fail_in(1);
        disk.sync("a").unwrap();
        assert!(disk.sync("a").is_err());
        assert_eq!(card.octets_written(), PAGE);
        assert_eq!(card.syncs(), 1);
    }
}

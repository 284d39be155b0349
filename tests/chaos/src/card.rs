//! A disk that does what real ones do at a power cut: of what was not synced any sectors are there, in any order; of changed names any.
//! It fills, goes read-only, is pulled and put back, and dies in the middle of a call. One for the agent's card and the server's disk.
//!
//! What was synced, and names whose folder was synced, are always there. A rename happens or does not.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::chance::Chance;

/// A power cut leaves whole sectors.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct File {
    octets: Vec<u8>,
    /// So many of the first are safe.
    safe: usize,
}

/// Names that changed together: what each stands for now.
type Change = Vec<(String, Option<usize>)>;

#[derive(Debug)]
struct State {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    safe_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    capacity: u64,
    used: u64,
    is_read_only: bool,
    is_away: bool,
    /// It dies with so many more calls that write.
    dies_in: Option<u64>,
    is_dead: bool,
    /// A bug that is planted: a sync does nothing.
    ignores_sync: bool,
    chance: Chance,
}

/// A disk; clones are the same one.
#[derive(Clone, Debug)]
pub struct Card(Arc<Mutex<State>>);

impl Card {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            changes: Vec::new(),
            capacity: u64::MAX,
            used: 0,
            is_read_only: false,
            is_away: false,
            dies_in: None,
            is_dead: false,
            ignores_sync: false,
            chance: Chance::new(seed),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What fits from now on.
    pub fn set_capacity(&self, capacity: u64) {
        self.state().capacity = capacity;
    }

    /// Octets of all files.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// It is pulled, or put back.
    pub fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    /// It can only be read, or written again.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.state().is_read_only = is_read_only;
    }

    /// The power will go with so many more calls that write.
    pub fn die_in(&self, calls: u64) {
        self.state().dies_in = Some(calls);
    }

    /// Whether it died: whoever uses it is dead, too.
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// Plants a bug: a sync does nothing.
    pub fn plant(&self, ignores_sync: bool) {
        self.state().ignores_sync = ignores_sync;
    }

    /// Nothing is left on it.
    pub fn wipe(&self) {
        let mut state = self.state();
        let State { files, names, safe_names, changes, .. } = &mut *state;
        files.clear();
        names.clear();
        safe_names.clear();
        changes.clear();
        state.count();
    }

    /// The process that used it is gone; what it wrote stays.
    pub fn revive(&self) {
        let mut state = self.state();
        (state.dies_in, state.is_dead) = (None, false);
    }

    /// The power goes.
    pub fn cut_power(&self) {
        let mut state = self.state();
        let State { files, names, safe_names, changes, chance, dies_in, is_dead, .. } = &mut *state;
        (*dies_in, *is_dead) = (None, false);
        for file in files.iter_mut().filter(|file| file.safe < file.octets.len()) {
            let length = match chance.below(4) {
                0 => file.safe,
                1 => file.octets.len(),
                _ => file.safe + chance.below((file.octets.len() - file.safe) as u64 + 1) as usize,
            };
            file.octets.truncate(length);
            let mut from = file.safe;
            // Half of the times everything up to there was written, the other half some sectors were not.
            let is_torn = chance.one_in(2);
            while is_torn && from < length {
                let to = ((from / SECTOR + 1) * SECTOR).min(length);
                if chance.one_in(3) {
                    let rubbish = if chance.one_in(2) { 0 } else { 0x5a };
                    file.octets[from..to].fill(rubbish);
                }
                from = to;
            }
            file.safe = length;
        }
        // Journals of file systems keep the order; the others keep anything.
        let kept = match chance.one_in(2) {
            true => chance.below(changes.len() as u64 + 1) as usize,
            false => usize::MAX,
        };
        let mut after = safe_names.clone();
        for (index, change) in changes.drain(..).enumerate() {
            let is_kept = if kept == usize::MAX { chance.one_in(2) } else { index < kept };
            if is_kept {
                set(&mut after, change);
            }
        }
        *names = after.clone();
        *safe_names = after;
        state.count();
    }

    fn list_all(&self) -> Vec<(String, u64)> {
        let state = self.state();
        state.names.iter().map(|(name, &file)| (name.clone(), state.files[file].octets.len() as u64)).collect()
    }

    fn create_file(&self, name: &str) -> io::Result<usize> {
        let mut state = self.state();
        state.writes()?;
        if state.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(File::default());
        state.change(vec![(name.into(), Some(file))]);
        Ok(file)
    }

    fn append_to(&self, file: usize, octets: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let died = state.writes().err();
        if let Some(error) = died {
            if state.is_dead && !state.is_away {
                // It dies in the middle.
                let part = octets.len() / 2;
                state.files[file].octets.extend_from_slice(&octets[..part]);
            }
            return Err(error);
        }
        let room = usize::try_from(state.capacity.saturating_sub(state.used)).unwrap_or(usize::MAX);
        let taken = octets.len().min(room);
        state.files[file].octets.extend_from_slice(&octets[..taken]);
        state.used += taken as u64;
        if taken < octets.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_file(&self, file: usize) -> io::Result<()> {
        let mut state = self.state();
        state.writes()?;
        if !state.ignores_sync {
            let file = &mut state.files[file];
            file.safe = file.octets.len();
        }
        Ok(())
    }

    fn sync_names(&self, folder: Option<&str>) -> io::Result<()> {
        let mut state = self.state();
        state.writes()?;
        let State { safe_names, changes, .. } = &mut *state;
        let within =
            |name: &str| folder.is_none_or(|folder| name.rsplit_once('/').map_or("", |(above, _)| above) == folder);
        // Only what changed is looked at: a folder may have thousands of names.
        for change in &mut *changes {
            set(safe_names, change.extract_if(.., |(name, _)| within(name)).collect());
        }
        changes.retain(|change| !change.is_empty());
        Ok(())
    }

    fn truncate_file(&self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.writes()?;
        let file = state.find(name)?;
        let file = &mut state.files[file];
        file.octets.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        file.safe = file.octets.len();
        state.count();
        Ok(())
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writes()?;
        state.find(name)?;
        state.change(vec![(name.into(), None)]);
        state.count();
        Ok(())
    }

    fn rename_file(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.writes()?;
        let file = state.find(from)?;
        state.change(vec![(from.into(), None), (to.into(), Some(file))]);
        state.count();
        Ok(())
    }
}

fn set(names: &mut BTreeMap<String, usize>, change: Change) {
    for (name, file) in change {
        match file {
            Some(file) => names.insert(name, file),
            None => names.remove(&name),
        };
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        match self.is_away || self.is_dead {
            true => Err(io::Error::other("it is not there")),
            false => Ok(()),
        }
    }

    fn writes(&mut self) -> io::Result<()> {
        self.check()?;
        if self.is_read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        match &mut self.dies_in {
            Some(0) => {
                self.is_dead = true;
                self.check()
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        set(&mut self.names, change.clone());
        self.changes.push(change);
    }

    fn count(&mut self) {
        self.used = self.names.values().map(|&file| self.files[file].octets.len() as u64).sum();
    }
}

/// As the agent's journal uses it.
impl camagent_core::simulation::Card for Card {
    fn open(&mut self) -> io::Result<()> {
        self.state().check()
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.state().check()?;
        Ok(self.list_all().into_iter().filter(|(name, _)| !name.contains('/')).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.create_file(name).map(|_| ())
    }

    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        let file = self.state().find(name)?;
        self.append_to(file, octets)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let file = self.state().find(name)?;
        self.sync_file(file)
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.sync_names(None)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.truncate_file(name, length)
    }

    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state();
        state.check()?;
        let octets = &state.files[state.find(name)?].octets;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(octets.len());
        let length = into.len().min(octets.len() - from);
        into[..length].copy_from_slice(&octets[from..from + length]);
        Ok(length)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.remove_file(name)
    }

    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        let to = (0..).map(|count| format!("set-aside/{name}.{count}")).find(|to| self.state().find(to).is_err());
        self.rename_file(name, &to.unwrap_or_default())
    }
}

/// As the server's recordings use it.
impl cloud_server::ingest::disk::Disk for Card {
    type File = usize;

    fn create(&mut self, name: &str) -> io::Result<usize> {
        self.create_file(name)
    }

    fn open(&mut self, name: &str) -> io::Result<usize> {
        let state = self.state();
        state.check()?;
        state.find(name)
    }

    fn append(&mut self, file: &mut usize, data: &[u8]) -> io::Result<()> {
        self.append_to(*file, data)
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        self.sync_file(*file)
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        self.sync_names(Some(folder))
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.truncate_file(name, length)
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state();
        state.check()?;
        Ok(state.files[state.find(name)?].octets.clone())
    }

    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        self.state().check()?;
        let within = |name: &String| folder.is_empty() || name.starts_with(&format!("{folder}/"));
        Ok(self.list_all().into_iter().map(|(name, _)| name).filter(within).collect())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.rename_file(from, to)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.remove_file(name)
    }
}

#[cfg(test)]
mod tests {
    use camagent_core::simulation::Card as _;

    use super::*;

    #[test]
    fn what_was_synced_is_there_whatever_happens() {
        for seed in 0..200 {
            let mut card = Card::new(seed);
            card.create("a").unwrap();
            card.append("a", &[7; 1_000]).unwrap();
            card.sync("a").unwrap();
            card.sync_folder().unwrap();
            card.append("a", &[8; 3_000]).unwrap();
            card.create("b").unwrap();
            card.die_in(seed % 4);
            while !card.is_dead() {
                let _ = card.append("b", &[9; 700]);
            }
            assert!(card.sync("b").is_err());
            card.cut_power();
            let mut octets = [0; 4_096];
            let length = card.read("a", 0, &mut octets).unwrap();
            assert!((1_000..=4_000).contains(&length) && octets[..1_000] == [7; 1_000]);
            card.append("a", &[1]).unwrap();
        }
    }
}

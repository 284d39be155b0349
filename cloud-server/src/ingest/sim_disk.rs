//! A folder in memory that can be full, can fail, and can lose its power: what was not synced is then lost, torn or kept, each
//! write by itself, as the seed has it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::Disk;

/// The folder. Clones are the same folder: one for the recorder, one for who watches it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    /// Names as programs see them, and as they are after a power cut.
    names: BTreeMap<String, u64>,
    safe_names: BTreeMap<String, u64>,
    next: u64,
    /// Bytes that still fit.
    room: Option<u64>,
    /// Operations until the power goes.
    operations_left: Option<u64>,
    /// Calls of [`Disk::sync`].
    syncs: u64,
    /// No more files can be open.
    is_out_of_descriptors: bool,
    /// Names that begin so cannot be read.
    forbidden: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    safe: Vec<u8>,
    /// Appended since the last sync, write by write.
    pending: Vec<Vec<u8>>,
}

impl Content {
    fn whole(&self) -> Vec<u8> {
        let mut whole = self.safe.clone();
        self.pending.iter().for_each(|write| whole.extend_from_slice(write));
        whole
    }
}

impl SimDisk {
    /// An empty folder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// So many more bytes fit; None for any number.
    pub fn set_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    /// After so many more operations the power goes: all that follow fail until [`SimDisk::cut_power`].
    pub fn fail_after(&self, operations: u64) {
        self.lock().operations_left = Some(operations);
    }

    /// From now on no new file can be made, as when a process has all files open that it may.
    pub fn set_out_of_descriptors(&self, is_out: bool) {
        self.lock().is_out_of_descriptors = is_out;
    }

    /// Files and folders whose names begin so cannot be read, as those of another user.
    pub fn forbid(&self, prefix: &str) {
        self.lock().forbidden.push(prefix.to_owned());
    }

    /// How often something was synced.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The power goes and comes back. Each write that was not synced is there, is not, or is there in part; where a later one is
    /// there and an earlier is not, there are zeros, as a file system leaves them that wrote blocks in another order.
    pub fn cut_power(&self, seed: u64) {
        let mut chance = Chance(seed | 1);
        let mut state = self.lock();
        state.operations_left = None;
        let State { names, safe_names, files, .. } = &mut *state;
        // A name that was not synced may have made it nevertheless.
        let mut kept = safe_names.clone();
        for (name, file) in names.iter() {
            if safe_names.get(name) != Some(file) && chance.next().is_multiple_of(2) {
                kept.insert(name.clone(), *file);
            }
        }
        for (name, _) in safe_names.iter() {
            if !names.contains_key(name) && chance.next().is_multiple_of(2) {
                kept.remove(name);
            }
        }
        for content in files.values_mut() {
            let mut tail: Vec<u8> = Vec::new();
            let mut end = 0;
            for write in std::mem::take(&mut content.pending) {
                let start = tail.len();
                tail.resize(start + write.len(), 0);
                let there = match chance.next() % 3 {
                    0 => 0,
                    1 => usize::try_from(chance.next()).unwrap_or(0) % (write.len() + 1),
                    _ => write.len(),
                };
                tail[start..start + there].copy_from_slice(&write[..there]);
                if there > 0 {
                    end = start + there;
                }
            }
            tail.truncate(end);
            content.safe.extend_from_slice(&tail);
        }
        *names = kept.clone();
        *safe_names = kept;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("no power")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&mut self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl Disk for SimDisk {
    type File = u64;

    fn create(&mut self, name: &str) -> io::Result<u64> {
        let mut state = self.lock();
        state.step()?;
        if state.is_out_of_descriptors {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        if state.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        state.next += 1;
        let number = state.next;
        state.files.insert(number, Content::default());
        state.names.insert(name.to_owned(), number);
        Ok(number)
    }

    fn open(&mut self, name: &str) -> io::Result<u64> {
        let mut state = self.lock();
        state.step()?;
        state.find(name)
    }

    fn append(&mut self, file: &mut u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let fits = state.room.map_or(data.len(), |room| usize::try_from(room).unwrap_or(usize::MAX).min(data.len()));
        if let Some(room) = &mut state.room {
            *room -= fits as u64;
        }
        let content = state.files.get_mut(file).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        content.pending.push(data[..fits].to_vec());
        if fits == data.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::StorageFull)) }
    }

    fn sync(&mut self, file: &mut u64) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.syncs += 1;
        if let Some(content) = state.files.get_mut(file) {
            content.safe = content.whole();
            content.pending.clear();
        }
        Ok(())
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let within = |name: &String| name.rsplit_once('/').map_or("", |(above, _)| above) == folder;
        let State { names, safe_names, .. } = &mut *state;
        safe_names.retain(|name, _| !within(name));
        safe_names.extend(names.iter().filter(|(name, _)| within(name)).map(|(name, file)| (name.clone(), *file)));
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let file = state.find(name)?;
        let mut freed = 0;
        if let Some(content) = state.files.get_mut(&file) {
            let mut whole = content.whole();
            let before = whole.len();
            whole.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            freed = (before - whole.len()) as u64;
            *content = Content { safe: whole, pending: Vec::new() };
        }
        if let Some(room) = &mut state.room {
            *room += freed;
        }
        Ok(())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        let file = state.find(name)?;
        if state.forbidden.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        Ok(state.files.get(&file).map(Content::whole).unwrap_or_default())
    }

    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let within = |name: &&String| folder.is_empty() || name.starts_with(&format!("{folder}/"));
        let state = self.lock();
        // A folder is walked: one below it that cannot be read ends that.
        if state.forbidden.iter().any(|prefix| prefix.ends_with('/') && within(&prefix)) {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        Ok(state.names.keys().filter(within).cloned().collect())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let file = state.find(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.find(name)?;
        state.names.remove(name);
        Ok(())
    }
}

/// xorshift64: the same seed gives the same power cut.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }
}

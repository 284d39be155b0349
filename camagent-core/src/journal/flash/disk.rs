//! What the flash tier needs of a folder, as a trait; and the folder of the operating system.
//!
//! A write is on the card only after [`Disk::sync`], a new or removed name only after [`Disk::sync_folder`]: until then a power cut may keep any
//! part of it. Everything may wait and everything may fail; only the disk thread calls it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// Files of one folder, by name.
pub(crate) trait Disk: Send {
    /// Makes the folder ready, for one user at a time; again after it was away.
    fn open(&mut self) -> io::Result<()>;
    /// Names and lengths of the files.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;
    /// Makes a new, empty file. One that is there is an error.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// A file will be about so long: what it takes is set aside for it, where the card can do that, so that its growing changes little of what the file system
    /// keeps for itself. It stays as long as it is.
    fn reserve(&mut self, _name: &str, _octets: u64) {}
    /// Nothing more is written to a file: what was set aside for it and is not needed is given back.
    fn release(&mut self, _name: &str) {}
    /// Writes behind the end of a file.
    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()>;
    /// Waits until what was written to a file is on the card.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Waits until new and removed names are on the card.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Cuts a file at its end.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Reads from `offset` on; less than `into` holds only at the file's end.
    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Moves a file out of the way, into the folder `set-aside`, under a name that is free there.
    fn set_aside(&mut self, name: &str) -> io::Result<()>;
}

/// Whether the folder is still there with a file that could not be read: then it is that file, and not the card, that fails.
pub(super) fn answers(disk: &mut dyn Disk, name: &str) -> bool {
    disk.list().is_ok_and(|files| files.iter().any(|(file, _)| file == name))
}

/// What is wrong with such a file.
pub(super) fn unreadable(error: &io::Error) -> String {
    format!("it cannot be read: {error}")
}

/// Where files go that are not understood.
pub(crate) const SET_ASIDE: &str = "set-aside";
/// Locked while an agent uses the folder.
const LOCK: &str = "lock";

/// A folder of the operating system. The agent does not create it: the mount point of a card that is not there would be filled instead.
pub(crate) struct Folder {
    path: PathBuf,
    lock: Option<File>,
    writing: Option<(String, File)>,
    reading: Option<(String, File)>,
}

impl Folder {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.into(), lock: None, writing: None, reading: None }
    }

    fn forget(&mut self, name: &str) {
        for file in [&mut self.writing, &mut self.reading] {
            file.take_if(|(open, _)| open == name);
        }
    }

    fn writing(&mut self, name: &str) -> io::Result<&mut File> {
        if self.writing.as_ref().is_none_or(|(open, _)| open != name) {
            let file = OpenOptions::new().append(true).open(self.path.join(name))?;
            self.writing = Some((name.into(), file));
        }
        Ok(&mut self.writing.as_mut().expect("it was just opened").1)
    }
}

impl Disk for Folder {
    fn open(&mut self) -> io::Result<()> {
        (self.writing, self.reading, self.lock) = (None, None, None);
        if !fs::metadata(&self.path)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder"));
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path.join(LOCK));
        let file = match file {
            // What nobody can write to needs no lock; what lies there can still be read.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
            file => file?,
        };
        // SAFETY: the descriptor is open, and the call takes no pointers.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            return Err(match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "another agent uses it"),
                _ => error,
            });
        }
        self.lock = Some(file);
        Ok(())
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = entry.metadata()?;
            if metadata.is_file() && name != LOCK {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        let file = OpenOptions::new().append(true).create_new(true).open(self.path.join(name))?;
        self.writing = Some((name.into(), file));
        Ok(())
    }

    fn reserve(&mut self, name: &str, octets: u64) {
        let (Ok(file), Ok(octets)) = (self.writing(name), libc::off_t::try_from(octets)) else { return };
        // Without it a file grows all the same: which file systems can do it is not asked.
        // SAFETY: the descriptor is open, and the call takes no pointers.
        let _ = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, octets) };
    }

    fn release(&mut self, name: &str) {
        let Ok(file) = self.writing(name) else { return };
        // Setting the length that it has gives back what lies behind it.
        let _ = file.metadata().and_then(|metadata| file.set_len(metadata.len()));
    }

    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        self.writing(name)?.write_all(octets)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.writing(name)?.sync_data()
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        match File::open(&self.path)?.sync_all() {
            // File systems of cards that cannot do this (FAT) write names with the files.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.forget(name);
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(length)?;
        file.sync_data()
    }

    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if self.reading.as_ref().is_none_or(|(open, _)| open != name) {
            self.reading = Some((name.into(), File::open(self.path.join(name))?));
        }
        let (_, file) = self.reading.as_mut().expect("it was just opened");
        file.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while filled < into.len() {
            match file.read(&mut into[filled..]) {
                Ok(0) => break,
                Ok(octets) => filled += octets,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        fs::remove_file(self.path.join(name))
    }

    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        let folder = self.path.join(SET_ASIDE);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let free = (0..u32::MAX).map(|count| match count {
            0 => folder.join(name),
            _ => folder.join(format!("{name}.{count}")),
        });
        for to in free {
            if !to.try_exists()? {
                return fs::rename(self.path.join(name), to);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_read_cut_and_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path());
        folder.open().unwrap();
        folder.create("a").unwrap();
        assert!(folder.create("a").is_err(), "nothing is overwritten");
        folder.append("a", b"hello ").unwrap();
        folder.append("a", b"world").unwrap();
        folder.sync("a").unwrap();
        folder.sync_folder().unwrap();
        let mut octets = [0; 8];
        assert_eq!(folder.read("a", 6, &mut octets).unwrap(), 5);
        assert_eq!(&octets[..5], b"world");
        folder.truncate("a", 5).unwrap();
        folder.append("a", b"!").unwrap();
        assert_eq!(folder.list().unwrap(), [("a".into(), 6)]);
        folder.set_aside("a").unwrap();
        folder.create("a").unwrap();
        folder.set_aside("a").unwrap();
        assert_eq!(folder.list().unwrap(), []);
        assert_eq!(fs::read(place.path().join("set-aside/a")).unwrap(), b"hello!");
        assert!(place.path().join("set-aside/a.1").exists());
    }

    #[test]
    fn what_is_set_aside_for_a_file_is_given_back() {
        use std::os::unix::fs::MetadataExt as _;
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path());
        folder.create("a").unwrap();
        folder.append("a", b"hello").unwrap();
        folder.reserve("a", 1 << 20);
        let file = || fs::metadata(place.path().join("a")).unwrap();
        assert_eq!(file().len(), 5, "it is as long as it was");
        let reserved = file().blocks();
        folder.append("a", b" world").unwrap();
        folder.release("a");
        assert_eq!(fs::read(place.path().join("a")).unwrap(), b"hello world");
        let left = file().blocks();
        assert!(left < 1 << 11 && left <= reserved, "{left} of {reserved} blocks are left");
    }

    #[test]
    fn a_folder_has_one_user_and_is_not_created() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(place.path());
        folder.open().unwrap();
        let error = Folder::new(place.path()).open().unwrap_err();
        assert!(error.to_string().contains("another agent"), "{error}");
        drop(folder);
        Folder::new(place.path()).open().unwrap();
        assert_eq!(Folder::new(&place.path().join("no")).open().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

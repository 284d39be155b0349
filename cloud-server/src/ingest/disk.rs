//! The few things that are done with files, as a trait, so that a power cut can be simulated. Names are relative to the
//! folder of the recordings, with `/` between their parts.
//!
//! What a caller may rely on: what was appended before a [`Disk::sync`] that succeeded survives; a name that was made, renamed
//! or removed survives when its folder was synced. Everything else may survive, in part and in any order, or not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// A folder.
pub trait Disk: Send + 'static {
    /// An open file.
    type File: Send;

    /// Makes a new file, and the folders it is in; an existing one is an error.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;
    /// Opens a file to append to it.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;
    /// Appends.
    fn append(&mut self, file: &mut Self::File, data: &[u8]) -> io::Result<()>;
    /// What was appended will be made safe in a moment: the disk may begin with it. So the files that are made safe together wait for one write of the
    /// file system's own records, and not each for its own.
    fn begin_sync(&mut self, _file: &mut Self::File) {}
    /// Makes what was appended safe (fdatasync).
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Makes the names in a folder safe; "" is the folder of the recordings.
    fn sync_folder(&mut self, folder: &str) -> io::Result<()>;
    /// Cuts a file, and makes that safe.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Reads a whole file.
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;
    /// The names of all files in a folder and below it; none when there is no such folder.
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>>;
    /// Renames; the folder of the new name is made.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A real folder.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder, which is made when it is missing.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        Ok(Self { root: root.to_owned() })
    }

    /// Where a name is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }

    fn make_parent(&self, name: &str) -> io::Result<()> {
        match name.rsplit_once('/') {
            Some((folder, _)) if !self.path(folder).is_dir() => {
                std::fs::create_dir_all(self.path(folder))?;
                // The new folders' own names.
                let mut made = folder;
                while let Some((above, _)) = made.rsplit_once('/') {
                    File::open(self.path(above))?.sync_all()?;
                    made = above;
                }
                File::open(&self.root)?.sync_all()
            }
            _ => Ok(()),
        }
    }

    fn walk(&self, folder: &str, names: &mut Vec<String>) -> io::Result<()> {
        let entries = match std::fs::read_dir(self.path(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            // What is not text was not made here.
            let Ok(own) = entry.file_name().into_string() else { continue };
            let name = if folder.is_empty() { own } else { format!("{folder}/{own}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.walk(&name, names)?;
            } else if kind.is_file() {
                names.push(name);
            }
        }
        Ok(())
    }
}

impl Disk for Folder {
    type File = File;

    fn create(&mut self, name: &str) -> io::Result<File> {
        self.make_parent(name)?;
        OpenOptions::new().append(true).create_new(true).open(self.path(name))
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        OpenOptions::new().append(true).open(self.path(name))
    }

    fn append(&mut self, file: &mut File, data: &[u8]) -> io::Result<()> {
        file.write_all(data)
    }

    fn begin_sync(&mut self, file: &mut File) {
        // What it cannot begin with is done by `sync`, which also tells what went wrong.
        // SAFETY: the descriptor is open, and the call takes no pointers.
        let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        File::open(self.path(folder))?.sync_all()
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path(name))
    }

    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.walk(folder, &mut names)?;
        names.sort();
        Ok(names)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.make_parent(to)?;
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }
}

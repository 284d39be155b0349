//! A log file that stays small and never stands in the way: it is rotated by size, opened again when somebody moved it away, and given up for
//! a while when the disk is full or read-only. What cannot be written is said to the caller, who has standard error.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use camagent_core::LogFile;

/// How long a file that could not be opened is left alone: each attempt costs a look at a disk that may be broken.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The file, and what is known of it.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    max_bytes: u64,
    old_files: u32,
    open: Option<Open>,
    /// Half a line stands at its end: the disk was full.
    is_torn: bool,
    /// When the next attempt to open it may be made.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Rotated {
    /// Nothing is opened yet; `None` when no file is wanted.
    pub(super) fn new(wanted: &LogFile) -> Option<Self> {
        let (max_bytes, old_files) = (wanted.max_bytes, wanted.old_files);
        let path = wanted.path.clone()?;
        Some(Self { path, max_bytes, old_files, open: None, is_torn: false, not_before: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line with its line end.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            self.reopen()?;
        }
        let is_full = |open: &Open| open.bytes > 0 && open.bytes + line.len() as u64 > self.max_bytes;
        if self.open.as_ref().is_some_and(is_full) {
            self.rotate()?;
        }
        let Some(open) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
        let before = open.bytes;
        let written = if self.is_torn { open.put(b"\n").and_then(|()| open.put(line)) } else { open.put(line) };
        self.is_torn = match &written {
            Ok(()) => false,
            Err(_) => self.is_torn || open.bytes > before,
        };
        if written.is_err() {
            // By the next attempt the disk may be another one.
            self.give_up_for_now();
        }
        written
    }

    /// Opens the file again, whatever became of the one that was written until now.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if self.not_before.is_some_and(|at| at > Instant::now()) {
            return Err(io::Error::other("it could not be written a moment ago"));
        }
        self.open = None;
        match Open::append_to(&self.path) {
            Ok(open) => {
                self.open = Some(open);
                self.not_before = None;
                Ok(())
            }
            Err(error) => {
                self.give_up_for_now();
                Err(error)
            }
        }
    }

    fn give_up_for_now(&mut self) {
        self.open = None;
        self.not_before = Some(Instant::now() + TRY_AGAIN);
    }

    /// Lets go of a pause after a failure: somebody has just changed something.
    pub(super) fn try_at_once(&mut self) {
        self.not_before = None;
    }

    /// Whether the path names another file than the one that is open, or none.
    pub(super) fn was_moved(&self) -> bool {
        let Some(open) = &self.open else { return false };
        let Ok(ours) = open.file.metadata() else { return true };
        !std::fs::metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }

    /// `log` becomes `log.1`, which becomes `log.2`, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let moved = match self.old_files {
            0 => Err(io::Error::other("no old file is kept")),
            youngest => {
                // A hole in the row is filled by the next younger one.
                for number in (1..youngest).rev() {
                    let _ = std::fs::rename(self.old(number), self.old(number + 1));
                }
                std::fs::rename(&self.path, self.old(1))
            }
        };
        match moved {
            Ok(()) => self.reopen(),
            // Where a file cannot be moved away it begins anew: its size is a promise.
            Err(_) => match &mut self.open {
                Some(open) => open.empty(),
                None => Ok(()),
            },
        }
    }

    fn old(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

impl Open {
    fn append_to(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        // Not to hang in a FIFO that nobody reads.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            // Rotation would move a device away.
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(Self { file, bytes: metadata.len() })
    }

    fn put(&mut self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            match self.file.write(octets) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.bytes += count as u64;
                    octets = &octets[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotated(path: PathBuf, old_files: u32) -> Rotated {
        Rotated::new(&LogFile { path: Some(path), max_bytes: 10, old_files }).unwrap()
    }

    #[test]
    fn files_move_on_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/log");
        let mut log = rotated(path.clone(), 2);
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six is too long for a file\n", "7\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        let read = |number: u32| std::fs::read_to_string(log.old(number)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "7\n");
        assert_eq!((read(1).as_str(), read(2).as_str()), ("six is too long for a file\n", "four\nfive\n"));
        assert!(!log.old(3).exists());
        // Another run goes on in the same file.
        let mut next = rotated(path.clone(), 2);
        next.write(b"8\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "7\n8\n");
    }

    #[test]
    fn without_old_files_it_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = rotated(path.clone(), 0);
        for line in ["one\n", "two\n", "three\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_next_line_begins_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = rotated(path.clone(), 1);
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        log.open = Some(Open { file: full, bytes: 0 });
        assert_eq!(log.write(b"lost\n").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        // What a disk leaves behind that becomes full within a line.
        std::fs::write(&path, "half").unwrap();
        log.is_torn = true;
        log.try_at_once();
        log.write(b"whole\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half\nwhole\n");
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), "/dev/null".into(), "/dev/null/log".into()] {
            let mut log = rotated(path.clone(), 1);
            assert!(log.write(b"x\n").is_err(), "{}", path.display());
            let told = log.write(b"x\n").unwrap_err().to_string();
            assert!(told.contains("a moment ago"), "{told}");
        }
        assert!(folder.path().is_dir());
    }

    #[test]
    fn a_file_that_was_moved_away_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = rotated(path.clone(), 1);
        assert!(!log.was_moved());
        log.write(b"1\n").unwrap();
        assert!(!log.was_moved());
        std::fs::rename(&path, folder.path().join("away")).unwrap();
        assert!(log.was_moved());
        log.reopen().unwrap();
        log.write(b"2\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "2\n");
    }
}

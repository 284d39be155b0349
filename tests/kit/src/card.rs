//! A card: an ext4 file system of its own in a file, on a loop device, that can be frozen in the middle of a write, filled,
//! and asked how much was written to it.
//!
//! It is mounted where only the calling thread and what it starts from then on see it, so it goes with the process, however
//! that ends. It needs root.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Freezes and tells so; thaws when whoever froze it says so or is gone.
const FREEZER: &str = "trap '' INT; fsfreeze -f \"$1\" && echo && read -r end; fsfreeze -u \"$1\"";
/// Octets of a sector, whatever the device's are (Documentation/block/stat.rst of the kernel).
const SECTOR: u64 = 512;

/// The card. Unmounted with the value.
#[derive(Debug)]
pub struct Card {
    place: tempfile::TempDir,
    device: String,
    freezer: Option<Child>,
}

impl Card {
    /// A card of so many octets; the error says what the machine lacks.
    pub fn make(octets: u64) -> Result<Self, String> {
        let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        // SAFETY: a plain system call about the calling thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
            let error = std::io::Error::last_os_error();
            return Err(format!("mounting a card needs root: {error}"));
        }
        run("mount", &["--make-rprivate", "/"])?;
        let place = tempfile::tempdir().map_err(told("a temporary folder"))?;
        let (image, folder) = (place.path().join("image"), place.path().join("card"));
        File::create(&image).and_then(|file| file.set_len(octets)).map_err(told("the card's image"))?;
        fs::create_dir(&folder).map_err(told("the mount point"))?;
        let (image, folder) = (image.to_string_lossy().into_owned(), folder.to_string_lossy().into_owned());
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", &image])?;
        run("mount", &["-o", "loop", &image, &folder])?;
        let mut card = Self { place, device: String::new(), freezer: None };
        let mounts = fs::read_to_string("/proc/thread-self/mounts").map_err(told("the mounts"))?;
        let of_card = |line: &str| {
            let (device, rest) = line.split_once(' ')?;
            rest.split(' ').next().filter(|at| *at == folder).and(device.strip_prefix("/dev/")).map(str::to_owned)
        };
        card.device = mounts.lines().find_map(of_card).ok_or("the card's device is not among the mounts")?;
        fs::create_dir(card.folder()).map_err(told("a folder on the card"))?;
        Ok(card)
    }

    /// Where it is mounted.
    fn mounted_at(&self) -> PathBuf {
        self.place.path().join("card")
    }

    /// An empty folder on it.
    pub fn folder(&self) -> PathBuf {
        self.mounted_at().join("frames")
    }

    /// From now on whoever writes to it waits.
    pub fn freeze(&mut self) -> Result<(), String> {
        let mut freezer = Command::new("sh")
            .args(["-c", FREEZER, "sh"])
            .arg(self.mounted_at())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let mut told = [0; 1];
        let is_frozen = freezer.stdout.as_mut().is_some_and(|out| out.read_exact(&mut told).is_ok());
        if !is_frozen {
            let _ = freezer.wait();
            return Err("fsfreeze does not freeze the card".into());
        }
        self.freezer = Some(freezer);
        Ok(())
    }

    /// Whoever waits goes on.
    pub fn thaw(&mut self) {
        if let Some(mut freezer) = self.freezer.take() {
            drop(freezer.stdin.take());
            // It has nothing else to do.
            let _ = freezer.wait();
        }
    }

    /// Takes all the room that is left for something else.
    pub fn fill(&self) -> Result<(), String> {
        let other = File::create(self.mounted_at().join("other")).map_err(|error| format!("the card: {error}"))?;
        for block in [1 << 20, 4 << 10, 1] {
            let octets = vec![0x5a; block];
            while (&other).write_all(&octets).is_ok() {}
        }
        other.sync_all().map_err(|error| format!("the card: {error}"))
    }

    /// Octets that its device was given so far, everything that the file system writes for itself included.
    pub fn octets_written(&self) -> Result<u64, String> {
        run("sync", &["-f", &self.mounted_at().to_string_lossy()])?;
        let path = format!("/sys/block/{}/stat", self.device);
        let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let sectors = stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<u64>().ok());
        sectors.map(|sectors| sectors * SECTOR).ok_or_else(|| format!("{path}: {stat}"))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.thaw();
        // A process that holds it open keeps what is left of it until its own end.
        let _ = run("umount", &["-l", &self.mounted_at().to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_card_counts_fills_freezes_and_thaws() {
        let mut card = match Card::make(16 << 20) {
            Ok(card) => card,
            Err(why) => {
                crate::program::is_missing("a card on a loop device", &why);
                return;
            }
        };
        let before = card.octets_written().unwrap();
        fs::write(card.folder().join("frame"), vec![7; 1 << 20]).unwrap();
        let written = card.octets_written().unwrap() - before;
        assert!((1 << 20..3 << 20).contains(&written), "{written}");
        card.freeze().unwrap();
        let path = card.folder().join("late");
        let (tell, told) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || tell.send(fs::write(path, b"late").is_ok()));
        assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "nobody writes to a frozen card");
        card.thaw();
        assert_eq!(told.recv(), Ok(true));
        writer.join().unwrap().unwrap();
        let probe = || fs::write(card.folder().join("probe"), b"?").is_ok();
        assert!(probe());
        card.fill().unwrap();
        fs::remove_file(card.folder().join("probe")).unwrap();
        card.fill().unwrap();
        assert!(!probe(), "no octet fits any more");
    }
}

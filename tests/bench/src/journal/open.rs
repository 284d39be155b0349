//! How long an agent that starts needs until it knows what a large folder of frames holds.
//!
//! The folder is filled by the agent's own journal, run by run, each stopped as planned but the last, which is left as a
//! power cut leaves it. The octets of pictures are zeros and take no room on the file system; everything that tells what
//! is there is written as on any card.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use camagent_core::simulation::{Card, Flash, Storage, folder};
use camagent_core::{Codec, Config, Frame, Framing, StorageMode, TrackDescription};
use camagent_proto::message::BootId;
use serde_json::json;

use super::{Amount, at_most, rounded};
use crate::page::Measured;

const GIGABYTES: usize = 32;
const ROUNDS: usize = 5;
/// Runs of the agent that left something.
const RUNS: u64 = 200;
/// The octets of a picture while the folder is filled; and of the last run, whose end is read frame by frame.
const PICTURE: usize = 1 << 20;
const SMALL_PICTURE: usize = 20_000;
/// What a sound has: G.711, 20 ms.
const SOUND: usize = 160;
const MEMORY: usize = 16 << 20;
/// A block of the file system: zeros are left out block by block.
const BLOCK: usize = 4 << 10;
/// What takes no room.
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// The bar.
const BAR_S: f64 = 2.0;

/// A folder that is full, and goes with the value.
pub(super) struct Filled {
    place: tempfile::TempDir,
    journal: Folder,
}

/// Fills a folder, behind everybody else who wants the processor.
pub(super) fn fill(amount: &Amount) -> Result<Filled, String> {
    let gigabytes = amount.gigabytes.unwrap_or(GIGABYTES);
    // SAFETY: a plain system call; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
    // Not /tmp as a rule: that may be memory.
    let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).map_err(told("a folder"))?;
    crate::note(&format!("open: filling {gigabytes} GB"));
    let begun = Instant::now();
    let journal = Folder { path: place.path().into(), cap: (gigabytes as u64) << 30, runs: RUNS };
    journal.fill().map_err(told("the folder cannot be filled"))?;
    crate::note(&format!("open: filled within {:.0} s", begun.elapsed().as_secs_f64()));
    Ok(Filled { place, journal })
}

/// Opens it again and again.
pub(super) fn run(filled: &Filled, amount: &Amount) -> Result<(Measured, bool), String> {
    let Filled { place, journal } = filled;
    let (gigabytes, rounds) = (amount.gigabytes.unwrap_or(GIGABYTES), amount.rounds.unwrap_or(ROUNDS));
    let busy = crate::load_average();
    let files = journal.files().map_err(told("the folder"))?;
    let octets: u64 = files.iter().map(|file| file.octets).sum();
    let taken: u64 = files.iter().map(|file| file.taken).sum();
    let last = files.last().ok_or("nothing is in the folder")?;
    let end = fs::read(&last.path).map_err(told("the last segment"))?;
    let mut times = BTreeMap::from([("cold", Vec::new()), ("warm", Vec::new())]);
    for round in 0..rounds {
        for (state, times) in &mut times {
            fs::write(&last.path, &end).and_then(|()| File::open(&last.path)?.sync_all()).map_err(told("a segment"))?;
            if *state == "cold" {
                // SAFETY: a plain system call.
                unsafe { libc::sync() };
                fs::write("/proc/sys/vm/drop_caches", "3").map_err(told("the kernel's caches (root)"))?;
            }
            let time = journal.open(u64::from(u32::MAX) + round as u64).map_err(|error| error.to_string())?;
            crate::note(&format!("open, round {} of {rounds}, {state}: {time:.3} s", round + 1));
            times.push(time);
        }
    }
    let (mut rows, mut most) = (Vec::new(), 0.0_f64);
    for (state, times) in &mut times {
        times.sort_by(f64::total_cmp);
        most = most.max(times[times.len() - 1]);
        rows.push(json!({
            "bench": "journal-open", "caches": state, "octets": octets, "segments": files.len(), "runs": RUNS,
            "least_s": rounded(times[0]), "p50_s": rounded(super::percentile(times, 0.5)),
            "max_s": rounded(times[times.len() - 1]), "rounds": times.len(),
        }));
    }
    let system = file_system(place.path());
    let text = format!(
        "Seconds until an agent that starts knows what its folder holds: {octets} octets in {} segments of {RUNS} runs, {} MB of which take \
         room ({system}; the octets of pictures are zeros and left out by the file system), written by the journal itself. The last \
         segment, {} octets in pictures of {SMALL_PICTURE} octets with sound between them, is as a power cut leaves it, and is read whole, cut and \
         sealed. Cold is with the kernel's caches dropped, folder entries included. The machine's load average was {busy} when it \
         began.\n\n{}",
        files.len(),
        taken >> 20,
        last.octets,
        at_most("seconds, the longest", most, BAR_S),
    );
    let columns = vec![
        ("caches", "caches"),
        ("segments", "segments"),
        ("least_s", "least, s"),
        ("p50_s", "p50, s"),
        ("max_s", "most, s"),
        ("rounds", "rounds"),
    ];
    let measured =
        Measured { name: "journal-open", title: "Opening a large journal", text, columns, rows, shown: None };
    Ok((measured, gigabytes >= GIGABYTES && rounds >= ROUNDS))
}

fn told(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// The file system that a path is on, by its name in the list of mounts.
fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    let entries = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.nth(1)?, words.next()?))
    });
    let longest = entries.filter(|(at, _)| path.starts_with(at)).max_by_key(|(at, _)| at.len());
    longest.map_or_else(|| "an unknown file system".into(), |(_, kind)| kind.to_owned())
}

struct Segment {
    path: PathBuf,
    octets: u64,
    taken: u64,
}

struct Folder {
    path: PathBuf,
    cap: u64,
    runs: u64,
}

impl Folder {
    fn storage(&self, run: u64, card: Box<dyn Card>) -> Result<Storage, camagent_core::Error> {
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&run.to_be_bytes());
        let file = json!({
            "agent": {"agent_id": "bench", "cloud_server_url": "ws://h", "cloud_server_token": "t"},
            "storage": {"path": self.path},
        });
        let flash = Flash { card, max_bytes: self.cap, mode: StorageMode::WriteAhead };
        Storage::new(MEMORY, &Config::from_json(&file.to_string())?, BootId(boot), Some(flash))
    }

    /// Opens it as an agent does that starts: the seconds that it takes.
    fn open(&self, run: u64) -> Result<f64, camagent_core::Error> {
        let mut storage = self.storage(run, folder(&self.path))?;
        let begun = Instant::now();
        storage.turn(camagent_proto::Instant::from_micros(1_000_000));
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Everything that it can hold, but a little.
    fn fill(&self) -> io::Result<()> {
        let margin = self.cap / 128;
        let of_run = (self.cap - margin) / self.runs;
        for run in 0..self.runs {
            let is_last = run + 1 == self.runs;
            let card = Sparse { inner: folder(&self.path), path: self.path.clone() };
            let mut storage = self.storage(run, Box::new(card)).map_err(io::Error::other)?;
            let mut writer = Writer { storage: &mut storage, now_us: 1_000_000 };
            writer.write(of_run, PICTURE)?;
            if is_last {
                // What is open then is read frame by frame.
                writer.write(margin.min(24 << 20), SMALL_PICTURE)?;
                continue;
            }
            storage.stop();
            while storage.turn(camagent_proto::Instant::from_micros(u64::MAX >> 20)).is_some_and(|(ended, _)| !ended) {}
        }
        Ok(())
    }

    /// Its segments, oldest first.
    fn files(&self) -> io::Result<Vec<Segment>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let (path, data) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if path.extension().is_some_and(|extension| extension == "camj") {
                files.push(Segment { path, octets: data.len(), taken: data.blocks() * 512 });
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }
}

struct Writer<'a> {
    storage: &'a mut Storage,
    now_us: u64,
}

impl Writer<'_> {
    /// Pushes about so many octets, and lets the disk thread take them.
    fn write(&mut self, octets: u64, picture: usize) -> io::Result<()> {
        let track = |number, track: &TrackDescription| self.storage.set_track(number, track);
        let video = TrackDescription::video("main", Codec::H264, Framing::AnnexB);
        let audio = TrackDescription::audio("main", Codec::Pcma, Framing::Raw, 8_000, 1);
        track(0, &video).and_then(|()| track(1, &audio)).map_err(io::Error::other)?;
        let mut data = vec![0; picture];
        data[..6].copy_from_slice(&[0, 0, 0, 1, 0x65, 0x88]);
        let (mut written, mut waiting) = (0, 0);
        while written < octets {
            self.now_us += 20_000;
            self.push(0, &data)?;
            self.push(1, &[0x55; SOUND])?;
            written += (picture + SOUND) as u64;
            waiting += picture + SOUND;
            if waiting > MEMORY / 4 || written >= octets {
                waiting = 0;
                self.drain();
            }
        }
        // What was written is synced after a second.
        self.now_us += 2_000_000;
        self.drain();
        Ok(())
    }

    fn push(&mut self, track: u32, data: &[u8]) -> io::Result<()> {
        let pts_us = self.now_us as i64;
        let frame = Frame { pts_us, dts_us: pts_us, key: true, data, ..Frame::default() };
        let now = camagent_proto::Instant::from_micros(self.now_us);
        self.storage.push(now, track, frame).map(drop).map_err(io::Error::other)
    }

    fn drain(&mut self) {
        let now = camagent_proto::Instant::from_micros(self.now_us);
        while self.storage.turn(now).is_some_and(|(_, pause)| pause == Duration::ZERO) {}
    }
}

/// A folder whose blocks of zeros are holes, and whose syncs are for later: it is filled for a measurement.
struct Sparse {
    inner: Box<dyn Card>,
    path: PathBuf,
}

impl Card for Sparse {
    fn open(&mut self) -> io::Result<()> {
        self.inner.open()
    }

    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        self.inner.list()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.inner.create(name)
    }

    fn append(&mut self, name: &str, octets: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        let mut at = file.metadata()?.len();
        file.set_len(at + octets.len() as u64)?;
        let mut left = octets;
        while !left.is_empty() {
            let length = left.len().min(BLOCK - at as usize % BLOCK);
            let (block, rest) = left.split_at(length);
            if *block != ZEROS[..length] {
                file.write_all_at(block, at)?;
            }
            (left, at) = (rest, at + length as u64);
        }
        Ok(())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.inner.truncate(name, length)
    }

    fn read(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read(name, offset, into)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn set_aside(&mut self, name: &str) -> io::Result<()> {
        self.inner.set_aside(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_many_runs_opens_and_takes_little_room() {
        let place = tempfile::tempdir().unwrap();
        let journal = Folder { path: place.path().into(), cap: 64 << 20, runs: 5 };
        journal.fill().unwrap();
        let files = journal.files().unwrap();
        let sum = |of: fn(&Segment) -> u64| files.iter().map(of).sum::<u64>();
        assert!(sum(|file| file.octets) > 40 << 20 && sum(|file| file.taken) < 16 << 20);
        assert!(files.len() > 5);
        assert!(journal.open(9_999).is_ok());
        assert_eq!(file_system("/proc/self".as_ref()), "proc");
    }
}

//! The append-only file of what is persisted: which frames of which track, where frames will never come, and why something is missing.
//!
//! It begins with 16 bytes that name it and its layout; then come records of a length, a CRC-32 and entries, one record for each
//! group of frames that became safe together. A torn record at the end is cut. When the file has grown, it is written anew
//! beside, and takes the old one's name when it is safe. All integers are big-endian.

use std::collections::{BTreeMap, HashMap};
use std::io;

use camagent_proto::frame::EndReason;

use super::TrackKey;
use super::disk::Disk;
use super::ledger::{Absence, Gap, GapReason, Ledger, Scope};
use super::ranges::Ranges;

/// The name of the file.
pub(crate) const NAME: &str = "persisted.log";
const NEW_NAME: &str = "persisted.new";
const MAGIC: &[u8; 15] = b"camagent-stored";
const VERSION: u8 = 1;
/// A record is never longer.
const MOST_RECORD: usize = 16 << 20;
/// The file is written anew when it is this much longer than after the last time.
const GROWTH: u64 = 8 << 20;

/// What is remembered of a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) camera: String,
    pub(crate) source: String,
    /// UTC when something of it was last stored, roughly: to the record in which its name stands.
    pub(crate) seen_us: i64,
    /// What a decoder of its newest file must know: parameter sets in Annex B, or an AudioSpecificConfig. After a restart frames go
    /// on in the middle of a group of pictures, without them.
    pub(crate) config: Vec<u8>,
    pub(crate) persisted: Ranges,
}

/// Everything in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) tracks: BTreeMap<TrackKey, Known>,
    pub(crate) ledger: Ledger,
    /// UTC when the file was last written; 0 when nobody knows.
    pub(crate) alive_us: i64,
}

impl Contents {
    /// Forgets what is older: an agent that comes back after so long with the same boot does not exist.
    pub(crate) fn forget_before(&mut self, utc_us: i64) {
        self.tracks.retain(|_, known| known.seen_us >= utc_us);
        self.ledger.forget(utc_us, |key| self.tracks.contains_key(key));
    }
}

/// One thing to write down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// `first..next` of a track are safe, or will never come.
    Persisted {
        key: TrackKey,
        first: u64,
        next: u64,
    },
    /// What is known of a track changed.
    Track(TrackKey),
    Gap(Gap),
    /// Numbers from `next` on never come.
    Ended {
        key: TrackKey,
        next: u64,
        cause: EndReason,
    },
    Absence(Absence),
    /// The recorder was at work at this time, UTC in microseconds since 1970.
    Alive(i64),
}

impl Entry {
    fn key(&self) -> Option<&TrackKey> {
        match self {
            Self::Persisted { key, .. } | Self::Track(key) | Self::Gap(Gap { key, .. }) | Self::Ended { key, .. } => {
                Some(key)
            }
            Self::Absence(_) | Self::Alive(_) => None,
        }
    }
}

/// The file.
pub(crate) struct Log<D: Disk> {
    file: Option<D::File>,
    ids: HashMap<TrackKey, u32>,
    bytes: u64,
    bytes_when_new: u64,
}

/// What was found at the beginning.
pub(crate) enum Opened {
    /// Nothing: the store is new, or lost this file.
    Missing,
    /// The file of this version, without an end that a crash tore.
    Read(Contents),
    /// The file of this version up to where it is damaged; what is behind cannot be read, and was more than a crash tears.
    Damaged(Contents),
    /// A later version's.
    Newer(u8),
    /// Something else.
    Foreign,
}

/// Reads the file, without its torn end.
pub(crate) fn read(disk: &mut impl Disk) -> io::Result<Opened> {
    let data = match disk.read(NAME) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::Missing),
        Err(error) => return Err(error),
    };
    let Some((magic, rest)) = data.split_first_chunk::<15>() else { return Ok(Opened::Missing) };
    let Some((&version, mut rest)) = rest.split_first() else { return Ok(Opened::Missing) };
    if magic != MAGIC {
        return Ok(if data.iter().all(|byte| *byte == 0) { Opened::Missing } else { Opened::Foreign });
    }
    match version {
        VERSION => {}
        0 => return Ok(Opened::Foreign),
        version => return Ok(Opened::Newer(version)),
    }
    let mut contents = Contents::default();
    let mut names: HashMap<u32, TrackKey> = HashMap::new();
    while let Some((record, behind)) = next_record(rest) {
        let mut fields = Fields(record);
        while let Some(kind) = fields.u8() {
            if read_entry(kind, &mut fields, &mut names, &mut contents).is_none() {
                break;
            }
        }
        rest = behind;
    }
    let Contents { tracks, ledger, .. } = &mut contents;
    ledger.name(|key| tracks.get(key).map(|known| (known.camera.as_str(), known.source.as_str())));
    Ok(if is_torn(rest) { Opened::Read(contents) } else { Opened::Damaged(contents) })
}

/// Whether what is behind the last good record can be one that a crash cut, or blocks that it left empty.
fn is_torn(rest: &[u8]) -> bool {
    let Some((length, body)) = rest.split_first_chunk::<4>() else { return true };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let is_last = (1..=MOST_RECORD).contains(&length) && body.len() <= length.saturating_add(4);
    is_last || rest.iter().all(|byte| *byte == 0)
}

/// Moves the file aside.
pub(crate) fn set_aside(disk: &mut impl Disk, to: &str) -> io::Result<()> {
    disk.rename(NAME, to)?;
    disk.sync_folder("")
}

fn next_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length =
        usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| (1..=MOST_RECORD).contains(length))?;
    let (record, behind) = rest.split_at_checked(length)?;
    (crc32fast::hash(record) == u32::from_be_bytes(*crc)).then_some((record, behind))
}

const TRACK: u8 = 1;
const PERSISTED: u8 = 2;
const GAP: u8 = 3;
const ENDED: u8 = 4;
/// Of no track: the number in front of their fields is 0.
const ALIVE: u8 = 5;
const ABSENCE: u8 = 6;

/// Scopes of absences.
const OF_SERVER: u8 = 0;
const OF_AGENT: u8 = 1;
const OF_SOURCE: u8 = 2;

fn read_entry(
    kind: u8,
    fields: &mut Fields<'_>,
    names: &mut HashMap<u32, TrackKey>,
    contents: &mut Contents,
) -> Option<()> {
    let id = fields.u32()?;
    match kind {
        TRACK => {
            let (boot, track, epoch) = (fields.take()?, fields.u32()?, fields.u64()?);
            let seen_us = fields.i64()?;
            let (agent, camera, source) = (fields.name()?, fields.name()?, fields.name()?);
            let config = fields.long()?;
            let key = TrackKey { agent, boot, track, epoch };
            let known = contents.tracks.entry(key.clone()).or_default();
            (known.camera, known.source, known.config) = (camera, source, config);
            known.seen_us = known.seen_us.max(seen_us);
            names.insert(id, key);
        }
        PERSISTED => {
            let (first, next) = (fields.u64()?, fields.u64()?);
            contents.tracks.get_mut(names.get(&id)?)?.persisted.insert(first, next);
        }
        GAP => {
            let key = names.get(&id)?.clone();
            let known = contents.tracks.get(&key)?;
            let (camera, source) = (known.camera.clone(), known.source.clone());
            let (first, next, reason) = (fields.u64()?, fields.u64()?, GapReason::from_number(fields.u64()?));
            let (from_us, to_us) = (fields.i64()?, fields.i64()?);
            if first < next {
                contents.ledger.put(&Gap { key, camera, source, first, next, reason, from_us, to_us });
            }
        }
        ENDED => {
            let key = names.get(&id)?;
            let known = contents.tracks.get(key)?;
            let (next, cause) = (fields.u64()?, EndReason::from_number(fields.u64()?));
            contents.ledger.end(key, &known.camera, &known.source, next, cause);
        }
        ALIVE => contents.alive_us = contents.alive_us.max(fields.i64()?),
        ABSENCE => {
            let (reason, from_us, to_us) = (GapReason::from_number(fields.u64()?), fields.i64()?, fields.i64()?);
            let scope = match fields.u8()? {
                OF_SERVER => Scope::Server,
                OF_AGENT => Scope::Agent(fields.name()?),
                OF_SOURCE => Scope::Source(fields.name()?, fields.name()?),
                _ => return None,
            };
            contents.ledger.put_absence(Absence { scope, reason, from_us, to_us });
        }
        _ => return None,
    }
    Some(())
}

impl<D: Disk> Log<D> {
    /// Writes the file anew with these contents, and goes on with it.
    pub(crate) fn begin(disk: &mut D, contents: &Contents) -> io::Result<Self> {
        let mut log = Self { file: None, ids: HashMap::new(), bytes: 0, bytes_when_new: 0 };
        log.rewrite(disk, contents)?;
        Ok(log)
    }

    fn rewrite(&mut self, disk: &mut D, contents: &Contents) -> io::Result<()> {
        self.file = None;
        self.ids.clear();
        match disk.remove(NEW_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = disk.create(NEW_NAME)?;
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        let mut record = Vec::new();
        let flush = |out: &mut Vec<u8>, record: &mut Vec<u8>| {
            if !record.is_empty() {
                put_record(out, record);
                record.clear();
            }
        };
        for (key, known) in &contents.tracks {
            self.put_track(&mut record, key, known);
            for (first, next) in known.persisted.iter() {
                put_persisted(&mut record, self.ids[key], first, next);
                if record.len() > MOST_RECORD / 2 {
                    flush(&mut out, &mut record);
                }
            }
            flush(&mut out, &mut record);
        }
        let ledger = &contents.ledger;
        let ends = ledger.ends().map(|(key, next, cause)| Entry::Ended { key: key.clone(), next, cause });
        let rest = ledger.gaps().map(Entry::Gap).chain(ends).chain(ledger.all_absences().map(Entry::Absence));
        for entry in rest.chain([Entry::Alive(contents.alive_us)]) {
            self.put_entry(&mut record, &entry);
            if record.len() > MOST_RECORD / 2 {
                flush(&mut out, &mut record);
            }
        }
        flush(&mut out, &mut record);
        disk.append(&mut file, &out)?;
        disk.sync(&mut file)?;
        disk.rename(NEW_NAME, NAME)?;
        disk.sync_folder("")?;
        (self.bytes, self.bytes_when_new) = (out.len() as u64, out.len() as u64);
        self.file = Some(file);
        Ok(())
    }

    /// Writes entries down and makes them safe, all or none. `contents` has them already: when the file cannot be trusted, after
    /// a failure, or has grown much, it is written anew from them.
    pub(super) fn append(&mut self, disk: &mut D, entries: &[Entry], contents: &Contents) -> io::Result<()> {
        if self.file.is_none() || self.bytes > self.bytes_when_new * 2 + GROWTH {
            return self.rewrite(disk, contents);
        }
        let mut record = Vec::new();
        for entry in entries {
            if let Some(key) = entry.key()
                && (!self.ids.contains_key(key) || matches!(entry, Entry::Track(_)))
            {
                let Some(known) = contents.tracks.get(key) else { continue };
                self.put_track(&mut record, key, known);
            }
            self.put_entry(&mut record, entry);
        }
        if record.is_empty() {
            return Ok(());
        }
        if record.len() > MOST_RECORD {
            return self.rewrite(disk, contents);
        }
        let mut out = Vec::new();
        put_record(&mut out, &record);
        // Taken out, so that a failure leaves none: nobody knows what is behind the last good record then.
        let Some(mut file) = self.file.take() else { return self.rewrite(disk, contents) };
        disk.append(&mut file, &out)?;
        disk.sync(&mut file)?;
        self.bytes += out.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Writes what is of no track, or of one that was named before.
    fn put_entry(&self, out: &mut Vec<u8>, entry: &Entry) {
        let id = match entry.key().map(|key| self.ids.get(key)) {
            Some(Some(id)) => *id,
            Some(None) => return,
            None => 0,
        };
        match entry {
            Entry::Persisted { first, next, .. } => put_persisted(out, id, *first, *next),
            Entry::Gap(gap) => put_gap(out, id, gap),
            Entry::Ended { next, cause, .. } => {
                put_kind(out, ENDED, id);
                put_numbers(out, &[*next, cause.number()]);
            }
            Entry::Absence(absence) => put_absence(out, absence),
            Entry::Alive(utc_us) => {
                put_kind(out, ALIVE, id);
                put_times(out, &[*utc_us]);
            }
            Entry::Track(_) => {}
        }
    }

    fn put_track(&mut self, out: &mut Vec<u8>, key: &TrackKey, known: &Known) {
        let new = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        let id = *self.ids.entry(key.clone()).or_insert(new);
        put_kind(out, TRACK, id);
        out.extend_from_slice(&key.boot);
        out.extend_from_slice(&key.track.to_be_bytes());
        out.extend_from_slice(&key.epoch.to_be_bytes());
        out.extend_from_slice(&known.seen_us.to_be_bytes());
        [&key.agent, &known.camera, &known.source].into_iter().for_each(|name| put_name(out, name));
        out.extend_from_slice(&u32::try_from(known.config.len()).unwrap_or_default().to_be_bytes());
        out.extend_from_slice(&known.config);
    }
}

fn put_record(out: &mut Vec<u8>, record: &[u8]) {
    out.extend_from_slice(&u32::try_from(record.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(record).to_be_bytes());
    out.extend_from_slice(record);
}

fn put_kind(out: &mut Vec<u8>, kind: u8, id: u32) {
    out.push(kind);
    out.extend_from_slice(&id.to_be_bytes());
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
}

fn put_times(out: &mut Vec<u8>, times: &[i64]) {
    times.iter().for_each(|time| out.extend_from_slice(&time.to_be_bytes()));
}

/// Names were checked when they came: they are shorter than 256 octets.
fn put_name(out: &mut Vec<u8>, name: &str) {
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
}

fn put_persisted(out: &mut Vec<u8>, id: u32, first: u64, next: u64) {
    put_kind(out, PERSISTED, id);
    put_numbers(out, &[first, next]);
}

fn put_gap(out: &mut Vec<u8>, id: u32, gap: &Gap) {
    put_kind(out, GAP, id);
    put_numbers(out, &[gap.first, gap.next, gap.reason.number()]);
    put_times(out, &[gap.from_us, gap.to_us]);
}

fn put_absence(out: &mut Vec<u8>, absence: &Absence) {
    put_kind(out, ABSENCE, 0);
    put_numbers(out, &[absence.reason.number()]);
    put_times(out, &[absence.from_us, absence.to_us]);
    match &absence.scope {
        Scope::Server => out.push(OF_SERVER),
        Scope::Agent(agent) => {
            out.push(OF_AGENT);
            put_name(out, agent);
        }
        Scope::Source(camera, source) => {
            out.push(OF_SOURCE);
            put_name(out, camera);
            put_name(out, source);
        }
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (found, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*found)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn long(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (found, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(found.to_vec())
    }

    fn name(&mut self) -> Option<String> {
        let length = usize::from(self.u8()?);
        let (name, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(name.to_vec()).ok()
    }
}

/// See [`super::fuzz_persisted_log`].
pub(super) fn fuzz(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let mut file = rest.to_vec();
    if how % 2 == 1 {
        file = MAGIC.to_vec();
        file.push(VERSION);
        rest.chunks(usize::from(*how).max(16)).for_each(|record| put_record(&mut file, record));
    }
    let mut disk = super::sim_disk::SimDisk::new();
    let written = disk.create(NAME).and_then(|mut own| disk.append(&mut own, &file));
    assert!(written.is_ok(), "a disk in memory has room");
    let Ok(Opened::Read(contents) | Opened::Damaged(contents)) = read(&mut disk) else { return };
    assert!(Log::begin(&mut disk, &contents).is_ok(), "a disk in memory has room");
    match read(&mut disk) {
        Ok(Opened::Read(again)) => assert_eq!(again, contents, "what was understood is there again"),
        _ => unreachable!("what was written now is whole"),
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::frame::SkipReason;

    use super::super::sim_disk::SimDisk;
    use super::*;

    fn key(track: u32) -> TrackKey {
        TrackKey { agent: "a".into(), boot: [3; 16], track, epoch: 1 }
    }

    fn contents(track: u32) -> Contents {
        let mut contents = Contents::default();
        let known =
            Known { camera: "cam".into(), source: "main".into(), seen_us: 5, config: vec![7; 9], ..Known::default() };
        contents.tracks.insert(key(track), known);
        contents
    }

    fn read_again(disk: &mut SimDisk) -> Contents {
        match read(disk).expect("reads") {
            Opened::Read(contents) => contents,
            _ => panic!("the file is right"),
        }
    }

    #[test]
    fn what_was_written_down_is_there_after_any_cut_of_what_is_behind() {
        let mut disk = SimDisk::new();
        let mut contents = contents(0);
        let mut log = Log::begin(&mut disk, &contents).expect("begins");
        let gap = Gap {
            key: key(0),
            camera: "cam".into(),
            source: "main".into(),
            first: 10,
            next: 12,
            reason: GapReason::skipped(SkipReason::TooLarge),
            from_us: -1,
            to_us: 9,
        };
        let entries = [Entry::Persisted { key: key(0), first: 0, next: 12 }, Entry::Gap(gap.clone())];
        contents.tracks.get_mut(&key(0)).expect("there").persisted.insert(0, 12);
        log.append(&mut disk, &entries, &contents).expect("appends");
        let whole = disk.read(NAME).expect("reads");
        let before = whole.len();
        log.append(&mut disk, &[Entry::Persisted { key: key(0), first: 12, next: 20 }], &contents).expect("appends");
        let all = disk.read(NAME).expect("reads");
        for cut in before..all.len() {
            disk.truncate(NAME, cut as u64).expect("cuts");
            let read = read_again(&mut disk);
            assert_eq!(read.tracks[&key(0)].persisted.gap_from(0), 12);
            assert!(read.ledger.gaps().eq([gap.clone()]));
            let mut file = disk.open(NAME).expect("opens");
            disk.append(&mut file, &all[cut..]).expect("mends");
        }
        assert_eq!(read_again(&mut disk).tracks[&key(0)].persisted.gap_from(0), 20);
        assert_eq!(gap.reason.name(), "too_large");
    }

    #[test]
    fn a_failure_is_followed_by_a_new_file() {
        let mut disk = SimDisk::new();
        let mut contents = contents(0);
        let mut log = Log::begin(&mut disk, &contents).expect("begins");
        disk.set_room(Some(4));
        let entry = [Entry::Persisted { key: key(0), first: 0, next: 7 }];
        contents.tracks.get_mut(&key(0)).expect("there").persisted.insert(0, 7);
        assert!(log.append(&mut disk, &entry, &contents).is_err());
        assert!(log.append(&mut disk, &entry, &contents).is_err(), "still full");
        disk.set_room(None);
        log.append(&mut disk, &entry, &contents).expect("appends");
        assert_eq!(read_again(&mut disk).tracks[&key(0)].persisted.gap_from(0), 7);
    }

    #[test]
    fn other_files_are_told_apart() {
        let mut disk = SimDisk::new();
        assert!(matches!(read(&mut disk), Ok(Opened::Missing)));
        let mut file = disk.create(NAME).expect("makes");
        disk.append(&mut file, b"camagent-stored\x02and so on").expect("writes");
        assert!(matches!(read(&mut disk), Ok(Opened::Newer(2))));
        set_aside(&mut disk, "set-aside/x").expect("moves");
        let mut file = disk.create(NAME).expect("makes");
        disk.append(&mut file, b"something else entirely").expect("writes");
        assert!(matches!(read(&mut disk), Ok(Opened::Foreign)));
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut all = contents(0);
        all.tracks.extend(contents(1).tracks.into_iter().map(|(key, known)| (key, Known { seen_us: 50, ..known })));
        all.forget_before(10);
        assert_eq!(all.tracks.keys().map(|key| key.track).collect::<Vec<_>>(), [1]);
    }
}

//! Opening a folder: what is there, what of it can be read, what is set aside.
//!
//! A sealed segment is known by the summary at its end, one place read for each. One that was open when the power went is read from its beginning,
//! cut behind its last whole record and sealed: there is one for each run that ended without a word, and only the last was not sealed before.

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use camagent_proto::frame::SkipReason;

use super::{
    disk::{Disk, answers, unreadable},
    segment::{self, End, EndReason, HEAD, Kind, Parsed, Record, Records, Run, Summary, TAIL},
    store::{Flash, FlashConfig, Lane, LaneKey, Segment},
};

/// Read at once at the end of a file: the summary of a usual segment fits.
const LAST: u64 = 4_096;
/// Read at once when a segment is read whole.
const READ: usize = 64 << 10;
/// Octets of a summary that is believed.
const MAX_SUMMARY: u64 = 16 << 20;

/// Something that was noticed while the folder was opened, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A file was moved into the folder `set-aside`.
    SetAside {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file is none of the agent's; it stays where it is.
    LeftAlone(String),
    /// What a power cut left behind the last whole record was cut.
    Cut {
        /// The segment.
        name: String,
        /// How much.
        octets: u64,
    },
    /// Octets of a segment are wrong; what stands before them is used.
    Corrupt {
        /// The segment.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::SetAside { name, why } => write!(f, "{name} was set aside: {why}"),
            Finding::LeftAlone(name) => write!(f, "{name} is none of the agent's files and stays where it is"),
            Finding::Cut { name, octets } => write!(f, "{octets} unfinished bytes were cut from the end of {name}"),
            Finding::Corrupt { name, why } => write!(f, "{name} is damaged: {why}; what stands before that is used"),
        }
    }
}

/// A file that has the name of a segment.
#[derive(Clone, Debug)]
struct File {
    number: u64,
    is_thin: bool,
    name: String,
    length: u64,
}

/// The number that a name has, and whether it is that of a thinned segment.
fn number(name: &str) -> Option<(u64, bool)> {
    let name = name.strip_suffix(".camj")?;
    let (digits, is_thin) = name.strip_suffix(".thin").map_or((name, false), |digits| (digits, true));
    let number = u64::from_str_radix(digits, 16).ok().filter(|number| (1..=u64::MAX >> 1).contains(number))?;
    // Exactly as it is written: `+` and capitals would be another file.
    (digits == format!("{number:016x}")).then_some((number, is_thin))
}

/// Of a segment and the copy that it was to be thinned by one counts: the segment as long as it is whole. The copy was complete before anything
/// happened to that.
fn without_copies(disk: &mut dyn Disk, files: Vec<File>, findings: &mut Vec<Finding>) -> io::Result<Vec<File>> {
    let mut left: Vec<File> = Vec::new();
    for copy in files {
        let Some(whole) = left.last().filter(|whole| whole.number == copy.number) else {
            left.push(copy);
            continue;
        };
        let is_sealed = |disk: &mut dyn Disk, file: &File| match examine(disk, file) {
            Err(error) if !answers(disk, &file.name) => Err(error),
            found => Ok(matches!(found, Ok(Found::Sealed(..)))),
        };
        // On a card that can only be read what is not wanted stays.
        if is_sealed(disk, whole)? || !is_sealed(disk, &copy)? {
            let _ = disk.remove(&copy.name);
            continue;
        }
        match whole.length {
            0 => drop(disk.remove(&whole.name)),
            _ => set_aside(disk, &whole.name, "it is damaged, and was thinned before".into(), findings),
        }
        left.pop();
        left.push(copy);
    }
    Ok(left)
}

/// What a file turned out to be.
enum Found {
    Sealed(Summary, u64),
    /// To be read whole; whether it was sealed once.
    Unsealed {
        was_sealed: bool,
    },
    Strange(String),
}

impl Flash {
    /// Opens the folder. What was freed before it was away for a while is told by `before`.
    pub(crate) fn open(
        disk: &mut dyn Disk,
        config: FlashConfig,
        before: Option<&Flash>,
    ) -> io::Result<(Self, Vec<Finding>)> {
        disk.open()?;
        let mut findings = Vec::new();
        let mut files = Vec::new();
        for (name, length) in disk.list()? {
            match number(&name) {
                Some((number, is_thin)) => files.push(File { number, is_thin, name, length }),
                None if name.ends_with(".camj") => {
                    set_aside(disk, &name, "its name is no number".into(), &mut findings);
                }
                None => findings.push(Finding::LeftAlone(name)),
            }
        }
        files.sort_unstable_by_key(|file| (file.number, file.is_thin));
        let files = without_copies(disk, files, &mut findings)?;
        let mut flash = Self::empty(config);
        let (mut damaged, mut unread) = (Vec::new(), 0);
        let count = files.len();
        for file in files {
            let File { number, name, .. } = file.clone();
            flash.next_number = number + 1;
            match flash.take(disk, file, &mut findings) {
                Ok(is_damaged) if is_damaged => damaged.push(number),
                Ok(_) => {}
                // One file or a few are bad sectors, most of them a card that is away: then what they hold is not lost. It stays, for the same reason.
                Err(error) if (count > 1 && (unread + 1) * 2 > count) || !answers(disk, &name) => return Err(error),
                Err(error) => {
                    unread += 1;
                    findings.push(Finding::Corrupt { name, why: unreadable(&error) });
                    damaged.push(number);
                }
            }
        }
        flash.settle();
        if let Some(before) = before {
            flash.next_number = flash.next_number.max(before.next_number);
            for (key, lane) in &mut flash.lanes {
                lane.newest_key = before.lane(key).and_then(|known| known.newest_key);
                lane.freed = match before.lane(key) {
                    Some(known) => known.freed,
                    None if before.has_forgotten(key) => lane.end,
                    None => 0,
                };
            }
            flash.take_losses(before, &damaged);
            if let Some((boot, clock)) = before.boots().iter().find(|(boot, _)| *boot == flash.config.boot) {
                flash.note_boot(*boot, *clock);
            }
        }
        Ok((flash, findings))
    }

    /// What was lost before: not all of it was written down when the card went away. Of what cannot be read now it is known what that was.
    fn take_losses(&mut self, before: &Flash, damaged: &[u64]) {
        for (key, lane) in &before.lanes {
            for &(first, last, reason) in &lane.lost {
                let known = self.lanes.get(key).map(|lane| lane.lost.as_slice()).unwrap_or_default();
                if known.iter().any(|lost| lost.0 <= first && last <= lost.1) {
                    continue;
                }
                // What was to go and is there did not go.
                for (first, end) in self.absent(key, first, last + 1) {
                    self.lose_of(*key, lane, first, end - 1, reason);
                }
            }
        }
        for segment in before.segments.iter().filter(|segment| damaged.contains(&segment.number)) {
            let left = self.segments.iter().find(|left| left.number == segment.number);
            let left = left.map(|left| left.runs.clone()).unwrap_or_default();
            for run in &segment.runs {
                let key = LaneKey { boot: segment.boot, track: run.track, epoch: run.epoch };
                let Some(lane) = before.lane(&key) else { continue };
                let is_same = |left: &&Run| (left.track, left.epoch, left.first) == (run.track, run.epoch, run.first);
                let first = left.iter().find(is_same).map_or(run.first, |left| left.end).max(lane.freed);
                if first < run.end {
                    self.lose_of(key, lane, first, run.end - 1, SkipReason::Corrupt);
                }
            }
        }
    }

    fn lose_of(&mut self, key: LaneKey, was: &Lane, first: u64, last: u64, reason: SkipReason) {
        let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(&was.info, first));
        lane.freed = was.freed;
        self.note_boot(key.boot, None);
        self.lose(key, first, last, reason);
    }

    /// Whether it is damaged.
    fn take(&mut self, disk: &mut dyn Disk, file: File, findings: &mut Vec<Finding>) -> io::Result<bool> {
        let File { number, is_thin, ref name, length } = file;
        if length == 0 {
            // The power went between a name and its first octet. On a card that can only be read it stays.
            let _ = disk.remove(name);
            return Ok(false);
        }
        let (summary, data_end, bytes, is_corrupt) = match examine(disk, &file)? {
            Found::Strange(why) => {
                set_aside(disk, name, why, findings);
                return Ok(false);
            }
            Found::Sealed(summary, data_end) => (summary, data_end, length, false),
            Found::Unsealed { was_sealed } => {
                let (mut summary, data_end, bad) = scan(disk, &file)?;
                if summary.boot.is_none() {
                    if let Some(Bad::Unreadable(error)) = bad {
                        return Err(error);
                    }
                    set_aside(disk, name, "it is half-written".into(), findings);
                    return Ok(true);
                }
                let mut bytes = length;
                let wrong = match bad {
                    Some(Bad::Unreadable(error)) => Some(unreadable(&error)),
                    Some(Bad::Octets(why)) if was_sealed => Some(why.into()),
                    _ => None,
                };
                let is_corrupt = wrong.is_some();
                match wrong {
                    Some(why) => findings.push(Finding::Corrupt { name: name.clone(), why }),
                    None => {
                        let cut = length - data_end;
                        // On a card that can only be read it stays as it is, and is read again next time.
                        if let Ok(sealed) = finish(disk, &file, data_end, &mut summary) {
                            bytes = sealed;
                            if cut > 0 {
                                findings.push(Finding::Cut { name: name.clone(), octets: cut });
                            }
                        }
                    }
                }
                (summary, data_end, bytes, is_corrupt)
            }
        };
        if summary.agent_id != self.config.agent_id {
            set_aside(disk, name, format!("it belongs to the agent {:?}", summary.agent_id), findings);
            return Ok(false);
        }
        let Some(boot) = summary.boot else { return Ok(false) };
        self.note_boot(boot, summary.clock);
        for run in &summary.runs {
            let Some(info) = summary.tracks.get(&(run.track, run.epoch)) else { continue };
            let key = LaneKey { boot, track: run.track, epoch: run.epoch };
            let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(info, run.first));
            (lane.oldest, lane.end) = (lane.oldest.min(run.first), lane.end.max(run.end));
            lane.was_freed = lane.was_freed.max(info.next);
        }
        for lost in &summary.lost {
            let key = LaneKey { boot: lost.boot, track: lost.track, epoch: lost.epoch };
            let of_segment = summary.tracks.get(&(lost.track, lost.epoch)).filter(|_| lost.boot == boot);
            if let Some(info) = of_segment.or(lost.info.as_ref()) {
                let lane = self.lanes.entry(key).or_insert_with(|| Lane::new(info, lost.first));
                lane.was_freed = lane.was_freed.max(info.next);
                // All else of an older run may be gone.
                if self.boots.iter().all(|(known, _)| *known != lost.boot) {
                    self.boots.insert(0, (lost.boot, None));
                }
            }
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.lose(lost.first, lost.last, lost.reason);
            }
        }
        // Of an epoch of which nothing could be written the folder has only what was lost.
        for &End { boot: of, track, epoch, next } in &summary.ends {
            if let Some(lane) = self.lanes.get_mut(&LaneKey { boot: of.unwrap_or(boot), track, epoch }) {
                lane.end = lane.end.max(next);
                lane.ended = Some(EndReason::Stopped);
            }
        }
        let segment = Segment::sealed(number, boot, summary, bytes, data_end);
        let gain = if is_thin { 0 } else { segment.gain };
        self.segments.push_back(Segment { is_corrupt, is_thin, gain, ..segment });
        Ok(is_corrupt)
    }

    /// Runs that ended without a word were ended by the power. Numbers of former runs that no file has, and of which none says why, were in a file that
    /// cannot be read any more, or is gone: also those in front of all that is there, from the one on that the server may lack.
    fn settle(&mut self) {
        let own = self.config.boot;
        let mut there: BTreeMap<LaneKey, Vec<(u64, u64)>> = BTreeMap::new();
        for segment in &self.segments {
            for run in &segment.runs {
                let key = LaneKey { boot: segment.boot, track: run.track, epoch: run.epoch };
                there.entry(key).or_default().push((run.first, run.end));
            }
        }
        for (key, lane) in self.lanes.iter_mut().filter(|(key, _)| key.boot != own) {
            lane.ended.get_or_insert(EndReason::PowerCut);
            let mut known = there.remove(key).unwrap_or_default();
            known.extend(lane.lost.iter().map(|&(first, last, _)| (first, last + 1)));
            known.sort_unstable();
            let (mut next, mut missing) = (lane.oldest.min(lane.was_freed), Vec::new());
            for (first, end) in known.into_iter().chain([(lane.end, lane.end)]) {
                if next < first {
                    missing.push((next, first - 1));
                }
                next = next.max(end);
            }
            missing.into_iter().for_each(|(first, last)| lane.lose(first, last, SkipReason::Corrupt));
        }
    }
}

fn set_aside(disk: &mut dyn Disk, name: &str, why: String, findings: &mut Vec<Finding>) {
    let why = match disk.set_aside(name) {
        Ok(()) => why,
        Err(error) => format!("{why} (it could not be moved: {error})"),
    };
    findings.push(Finding::SetAside { name: name.into(), why });
}

fn examine(disk: &mut dyn Disk, file: &File) -> io::Result<Found> {
    let File { number, ref name, length, .. } = *file;
    let from = length.saturating_sub(LAST);
    let mut last = vec![0; (length - from) as usize];
    let (offset, was_sealed) = match disk.read(name, from, &mut last) {
        Ok(read) => {
            last.truncate(read);
            let offset = segment::summary_offset(&last);
            (offset, offset.is_some())
        }
        // What stands before it may be read.
        Err(_) if answers(disk, name) => (None, true),
        Err(error) => return Err(error),
    };
    if let Some(offset) = offset
        && let Some(most) = length.checked_sub(offset).filter(|most| *most <= MAX_SUMMARY)
    {
        if offset < from {
            last = vec![0; most as usize];
            let read = match disk.read(name, offset, &mut last) {
                Err(_) if answers(disk, name) => 0,
                read => read?,
            };
            last.truncate(read);
        } else {
            last.drain(..(offset - from) as usize);
        }
        last.truncate(last.len().saturating_sub(TAIL));
        if let Parsed::Record(Record::Summary(summary), _) = segment::parse(number, offset, &Bytes::from(last)) {
            return Ok(Found::Sealed(summary, offset));
        }
    }
    let mut head = [0; HEAD];
    let read = disk.read(name, 0, &mut head)?;
    Ok(match segment::kind(&head[..read]) {
        Kind::Ours => Found::Unsealed { was_sealed },
        Kind::Newer(version) => {
            Found::Strange(format!("a newer agent wrote it (format {version}, this one reads {})", segment::VERSION))
        }
        Kind::Foreign if head[..read].iter().all(|octet| *octet == 0) => Found::Strange("it is half-written".into()),
        Kind::Foreign => Found::Strange("it is no segment of a journal".into()),
    })
}

/// What is wrong at a place of a segment.
enum Bad {
    Octets(&'static str),
    Unreadable(io::Error),
}

/// Reads a segment from its beginning: what it holds, where that ends, and what is wrong there if it is not the end of the file.
fn scan(disk: &mut dyn Disk, file: &File) -> io::Result<(Summary, u64, Option<Bad>)> {
    let File { number, ref name, length, .. } = *file;
    let mut records = Records::new(number, HEAD as u64);
    let mut summary = Summary::default();
    let mut chunk = vec![0; READ];
    loop {
        match records.next() {
            // What a seal was to say is said again.
            Parsed::Record(Record::Summary(_), taken) => return Ok((summary, records.offset() - taken as u64, None)),
            Parsed::Record(record @ Record::Start { .. }, _) if summary.boot.is_none() => summary.note(&record),
            Parsed::Record(record, taken) => {
                if summary.boot.is_none() {
                    return Ok((
                        summary,
                        records.offset() - taken as u64,
                        Some(Bad::Octets("it does not say whose it is")),
                    ));
                }
                summary.note(&record);
            }
            Parsed::Short(_) => {
                let read = match disk.read(name, records.wanted_at(), &mut chunk) {
                    Err(error) if answers(disk, name) => {
                        return Ok((summary, records.offset(), Some(Bad::Unreadable(error))));
                    }
                    read => read?,
                };
                if read == 0 {
                    let is_whole = records.offset() == length;
                    return Ok((summary, records.offset(), (!is_whole).then_some(Bad::Octets("a record is cut off"))));
                }
                records.feed(&chunk[..read]);
            }
            Parsed::Bad(why) => return Ok((summary, records.offset(), Some(Bad::Octets(why)))),
        }
    }
}

/// Cuts a segment behind its last whole record and seals it; its length then.
fn finish(disk: &mut dyn Disk, file: &File, data_end: u64, summary: &mut Summary) -> io::Result<u64> {
    let name = &file.name;
    let mut end = Vec::new();
    segment::put(file.number, data_end, &Record::Summary(summary.clone()), &mut end);
    end.extend_from_slice(&segment::tail(data_end));
    disk.truncate(name, data_end)?;
    disk.append(name, &end)?;
    disk.sync(name)?;
    Ok(data_end + end.len() as u64)
}

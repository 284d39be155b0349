//! The octets of a segment: a file of records that stands for itself. Nothing here reads or writes files.
//!
//! A file is a head of 12 octets (`CAMJRNL\n`, version u16, two octets of 0), then records:
//! `length u32, kind u8, body, CRC-32C u32`, little endian. The sum is over the segment's number, the record's place in the file, length, kind and
//! body, so that an octet of another file, or of another time of this place, never passes. The first record is START. A sealed segment ends with a
//! SUMMARY and 16 octets that say where it begins (u64, `CAMEND`, version u16): who opens the journal reads that alone. Bodies are written as on the wire
//! (`sdk-docs/protocol/`), so a frame comes back as it was sent. Unknown kinds are skipped, a newer version is somebody else's file.

use std::collections::BTreeMap;

use bytes::Bytes;
use camagent_proto::{
    frame::{Body as _, FrameHead, FrameStart, Reader, SkipReason, TrackInfo},
    message::BootId,
    varint,
};

use super::crc::Crc;

/// The version of the format.
pub(crate) const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"CAMJRNL\n";
/// Octets of a file before its first record.
pub(super) const HEAD: usize = 12;
const END_MAGIC: &[u8; 6] = b"CAMEND";
/// Octets behind the summary of a sealed segment.
pub(super) const TAIL: usize = 16;
/// Octets of a record besides its body.
pub(super) const AROUND: usize = 9;
/// Octets that a body may have: the largest frame, and what stands around it.
pub(super) const MAX_BODY: usize = super::super::MAX_FRAME + 4_096;
/// Lists of a summary are not longer.
const MAX_LIST: u64 = 65_536;

const START: u8 = 1;
const TRACK: u8 = 2;
const FRAME: u8 = 3;
const CLOCK: u8 = 4;
const LOST: u8 = 5;
const END: u8 = 6;
const SUMMARY: u8 = 7;
const END_OF: u8 = 8;

/// What a boot's clock showed when the time of day was known: arrival times become dates with it, however late it is learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// The boot-time clock in microseconds …
    pub(crate) boot_us: u64,
    /// … and UTC then, in microseconds since 1970.
    pub(crate) utc_us: u64,
}

/// Why nothing comes behind an epoch's last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The agent was stopped, or the epoch was left, as planned.
    Stopped,
    /// The run ended without a word: power, or a kill.
    PowerCut,
}

/// Frames that will never come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) boot: BootId,
    pub(crate) track: u32,
    pub(crate) epoch: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) reason: SkipReason,
    /// What the track was, where the segment does not say so: the files that do may be gone.
    pub(crate) info: Option<TrackInfo>,
}

/// An epoch that ended as planned: the numbers from `next` on never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// `None`: the run that the segment is of.
    pub(crate) boot: Option<BootId>,
    pub(crate) track: u32,
    pub(crate) epoch: u64,
    pub(crate) next: u64,
}

impl Lost {
    /// Which epoch: run, track and number.
    pub(super) fn lane(&self) -> (BootId, u32, u64) {
        (self.boot, self.track, self.epoch)
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// Whose segment this is.
    Start { boot: BootId, agent_id: String },
    /// What a track is, before its first frame in this segment.
    Track(TrackInfo),
    /// A frame of an epoch.
    Frame { epoch: u64, frame: FrameStart },
    /// The time of day became known.
    Clock(Clock),
    /// Frames that had to go.
    Lost(Lost),
    /// An epoch has ended.
    End(End),
    /// What the segment holds.
    Summary(Summary),
    /// A kind that this version does not know.
    Unknown,
}

/// Frames in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) track: u32,
    pub(crate) epoch: u64,
    pub(crate) first: u64,
    /// The number behind the last one.
    pub(crate) end: u64,
    /// How many there are; of a thinned segment fewer than numbers.
    pub(crate) frames: u64,
    /// The number of the first key frame.
    pub(crate) first_key: Option<u64>,
    /// Octets of the frames.
    pub(crate) octets: u64,
    /// Times of arrival of the first and the last one.
    pub(crate) arrived_us: (u64, u64),
}

impl Run {
    pub(super) fn contains(&self, sequence: u64) -> bool {
        (self.first..self.end).contains(&sequence)
    }
}

/// What of some numbers is not among others: from, to.
pub(super) fn without(of: (u64, u64), others: (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
    let before = (of.0, of.1.min(others.0));
    let behind = (of.0.max(others.1), of.1);
    [before, behind].into_iter().filter(|(from, to)| from < to)
}

/// What a segment holds, without the frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) boot: Option<BootId>,
    pub(crate) agent_id: String,
    pub(crate) tracks: BTreeMap<(u32, u64), TrackInfo>,
    pub(crate) runs: Vec<Run>,
    /// Octets of the frames that stay when it is thinned.
    pub(crate) kept_octets: u64,
    pub(crate) clock: Option<Clock>,
    pub(crate) lost: Vec<Lost>,
    pub(crate) ends: Vec<End>,
}

impl Summary {
    /// Takes note of a record that was written or read.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::Start { boot, agent_id } => (self.boot, self.agent_id) = (Some(*boot), agent_id.clone()),
            Record::Track(info) => {
                self.tracks.insert((info.track, info.epoch), info.clone());
            }
            Record::Frame { epoch, frame } => {
                self.note_frame(*epoch, frame.track, frame.sequence, &frame.head, frame.total)
            }
            Record::Clock(clock) => self.clock = Some(*clock),
            Record::Lost(lost) => self.note_lost(lost),
            Record::End(end) => {
                self.ends.retain(|known| (known.boot, known.track, known.epoch) != (end.boot, end.track, end.epoch));
                self.ends.push(*end);
            }
            Record::Summary(_) | Record::Unknown => {}
        }
    }

    /// What touches or overlaps is one loss: an outage that is longer than the card says of each segment that goes what went before it. What is said later
    /// for another reason is so: a thinned group may go whole.
    fn note_lost(&mut self, lost: &Lost) {
        let of = |lost: &Lost| (lost.lane(), lost.reason);
        let is_other = |known: &Lost| {
            known.lane() == lost.lane()
                && known.reason != lost.reason
                && known.first <= lost.last
                && lost.first <= known.last
        };
        for other in self.lost.extract_if(.., |known| is_other(known)).collect::<Vec<_>>() {
            let left = without((other.first, other.last + 1), (lost.first, lost.last + 1));
            self.lost.extend(left.map(|(first, end)| Lost { first, last: end - 1, ..other.clone() }));
        }
        let touches = |known: &&mut Lost| {
            of(known) == of(lost)
                && lost.first <= known.last.saturating_add(1)
                && known.first <= lost.last.saturating_add(1)
        };
        match self.lost.iter_mut().find(touches) {
            Some(known) => {
                (known.first, known.last) = (known.first.min(lost.first), known.last.max(lost.last));
                // The newer word knows better what the server has.
                known.info = lost.info.clone().or_else(|| known.info.take());
            }
            None => self.lost.push(lost.clone()),
        }
    }

    /// Whether a frame stays when the segment is thinned: key frames and sound do.
    pub(super) fn keeps(&self, epoch: u64, track: u32, head: &FrameHead) -> bool {
        head.key || self.tracks.get(&(track, epoch)).is_some_and(|info| info.sample_rate > 0)
    }

    pub(super) fn note_frame(&mut self, epoch: u64, track: u32, sequence: u64, head: &FrameHead, octets: u64) {
        self.kept_octets += if self.keeps(epoch, track, head) { octets } else { 0 };
        let same = |run: &&mut Run| (run.track, run.epoch, run.end) == (track, epoch, sequence);
        // The last run of each track is near the end of the list.
        match self.runs.iter_mut().rev().take(256).find(same) {
            Some(run) => {
                run.end += 1;
                run.frames += 1;
                run.first_key = run.first_key.or(head.key.then_some(sequence));
                run.octets += octets;
                run.arrived_us.1 = head.arrival_us;
            }
            None => self.runs.push(Run {
                track,
                epoch,
                first: sequence,
                end: sequence + 1,
                frames: 1,
                first_key: head.key.then_some(sequence),
                octets,
                arrived_us: (head.arrival_us, head.arrival_us),
            }),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_start(self.boot.unwrap_or(BootId([0; 16])), &self.agent_id, out);
        varint::put(self.tracks.len() as u64, out);
        for info in self.tracks.values() {
            let mut body = Vec::new();
            info.write(&mut body);
            varint::put(body.len() as u64, out);
            out.extend_from_slice(&body);
        }
        varint::put(self.runs.len() as u64, out);
        for run in &self.runs {
            let (from, to) = run.arrived_us;
            for value in [u64::from(run.track), run.epoch, run.first, run.end - run.first, run.octets, from, to] {
                varint::put(value, out);
            }
        }
        varint::put(u64::from(self.clock.is_some()), out);
        if let Some(clock) = self.clock {
            varint::put(clock.boot_us, out);
            varint::put(clock.utc_us, out);
        }
        varint::put(self.lost.len() as u64, out);
        self.lost.iter().for_each(|lost| put_lost(lost, out));
        let (of_others, own): (Vec<_>, Vec<_>) = self.ends.iter().partition(|end| end.boot.is_some());
        varint::put(own.len() as u64, out);
        own.into_iter().for_each(|end| put_end(end, out));
        varint::put(self.kept_octets, out);
        for run in &self.runs {
            varint::put(run.frames, out);
            varint::put(run.first_key.map_or(0, |key| key - run.first + 1), out);
        }
        varint::put(of_others.len() as u64, out);
        for end in of_others {
            out.extend_from_slice(&end.boot.unwrap_or(BootId([0; 16])).0);
            put_end(end, out);
        }
    }

    fn read(reader: &mut Reader) -> Result<Self, camagent_proto::Error> {
        let (boot, agent_id) = get_start(reader)?;
        let mut summary = Self { boot: Some(boot), agent_id, ..Self::default() };
        for _ in 0..list(reader)? {
            let body = reader.octets(MAX_BODY, "summary track")?;
            let info = TrackInfo::read(&mut Reader::new(body))?;
            summary.tracks.insert((info.track, info.epoch), info);
        }
        for _ in 0..list(reader)? {
            let track = reader.integer32("run track")?;
            let [epoch, first, count, octets, from, to] = integers(reader, "run")?;
            let end = first.saturating_add(count);
            let arrived_us = (from, to);
            // Older agents do not say where the first key frame is: then nothing is taken for a part of the group before.
            let first_key = Some(first);
            summary.runs.push(Run { track, epoch, first, end, frames: count, first_key, octets, arrived_us });
        }
        if reader.integer("summary clock")? == 1 {
            summary.clock = Some(get_clock(reader)?);
        }
        for _ in 0..list(reader)? {
            summary.lost.push(get_lost(reader)?);
        }
        for _ in 0..list(reader)? {
            summary.ends.push(get_end(None, reader)?);
        }
        // Older agents end here.
        if reader.remaining() > 0 {
            summary.kept_octets = reader.integer("kept octets")?;
            for run in &mut summary.runs {
                let count = run.end - run.first;
                run.frames = reader.integer("frames of a run")?.min(count);
                let key = reader.integer("first key frame of a run")?;
                run.first_key = (1..=count).contains(&key).then(|| run.first + key - 1);
            }
            for _ in 0..list(reader)? {
                let boot = get_boot(reader)?;
                summary.ends.push(get_end(Some(boot), reader)?);
            }
        }
        Ok(summary)
    }
}

fn list(reader: &mut Reader) -> Result<u64, camagent_proto::Error> {
    let length = reader.integer("summary list")?;
    // Each item has at least three octets.
    let allowed = MAX_LIST.min(reader.remaining() as u64 / 3);
    if length > allowed {
        return Err(camagent_proto::Error::Limit { limit: "summary list", allowed, got: length });
    }
    Ok(length)
}

fn integers<const N: usize>(reader: &mut Reader, place: &'static str) -> Result<[u64; N], camagent_proto::Error> {
    let mut values = [0; N];
    for value in &mut values {
        *value = reader.integer(place)?;
    }
    Ok(values)
}

fn put_start(boot: BootId, agent_id: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&boot.0);
    varint::put(agent_id.len() as u64, out);
    out.extend_from_slice(agent_id.as_bytes());
}

fn get_start(reader: &mut Reader) -> Result<(BootId, String), camagent_proto::Error> {
    let boot = get_boot(reader)?;
    Ok((boot, reader.text(64, "START agent id")?))
}

fn get_boot(reader: &mut Reader) -> Result<BootId, camagent_proto::Error> {
    let octets = reader.take(16, "boot id")?;
    Ok(BootId(std::array::from_fn(|at| octets[at])))
}

fn get_clock(reader: &mut Reader) -> Result<Clock, camagent_proto::Error> {
    let [boot_us, utc_us] = integers(reader, "CLOCK")?;
    Ok(Clock { boot_us, utc_us })
}

fn put_lost(lost: &Lost, out: &mut Vec<u8>) {
    out.extend_from_slice(&lost.boot.0);
    for value in [u64::from(lost.track), lost.epoch, lost.first, lost.last, lost.reason.number()] {
        varint::put(value, out);
    }
    varint::put(u64::from(lost.info.is_some()), out);
    if let Some(info) = &lost.info {
        info.write(out);
    }
}

fn get_lost(reader: &mut Reader) -> Result<Lost, camagent_proto::Error> {
    let boot = get_boot(reader)?;
    let track = reader.integer32("LOST track")?;
    let [epoch, first, last, reason] = integers(reader, "LOST")?;
    let last = last.max(first);
    let info = match reader.integer("LOST info")? {
        0 => None,
        _ => Some(TrackInfo::read(reader)?).filter(|info| (info.track, info.epoch) == (track, epoch)),
    };
    Ok(Lost { boot, track, epoch, first, last, reason: SkipReason::from_number(reason), info })
}

fn put_end(end: &End, out: &mut Vec<u8>) {
    [u64::from(end.track), end.epoch, end.next].into_iter().for_each(|value| varint::put(value, out));
}

fn get_end(boot: Option<BootId>, reader: &mut Reader) -> Result<End, camagent_proto::Error> {
    let track = reader.integer32("END track")?;
    let [epoch, next] = integers(reader, "END")?;
    Ok(End { boot, track, epoch, next })
}

/// The octets before the first record.
pub(super) fn head() -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..10].copy_from_slice(&VERSION.to_le_bytes());
    head
}

/// Whose file it is, by its first octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Newer(u16),
    Foreign,
}

pub(super) fn kind(head: &[u8]) -> Kind {
    let Some(head) = head.first_chunk::<HEAD>() else { return Kind::Foreign };
    match u16::from_le_bytes([head[8], head[9]]) {
        _ if head[..8] != *MAGIC => Kind::Foreign,
        VERSION => Kind::Ours,
        0 => Kind::Foreign,
        newer => Kind::Newer(newer),
    }
}

fn sum(number: u64, offset: u64, length: [u8; 4], kind: u8, body: &[&[u8]]) -> u32 {
    let start = Crc::new().add(&number.to_le_bytes()).add(&offset.to_le_bytes()).add(&length).add(&[kind]);
    body.iter().fold(start, |sum, part| sum.add(part)).sum()
}

/// Appends a record whose first octet will be the `offset`th of segment `number`.
pub(super) fn put(number: u64, offset: u64, record: &Record, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let kind = match record {
        Record::Start { boot, agent_id } => {
            put_start(*boot, agent_id, &mut body);
            START
        }
        Record::Track(info) => {
            info.write(&mut body);
            TRACK
        }
        Record::Frame { epoch, frame } => {
            varint::put(*epoch, &mut body);
            frame.write(&mut body);
            FRAME
        }
        Record::Clock(clock) => {
            varint::put(clock.boot_us, &mut body);
            varint::put(clock.utc_us, &mut body);
            CLOCK
        }
        Record::Lost(lost) => {
            put_lost(lost, &mut body);
            LOST
        }
        Record::End(end) => {
            end.boot.iter().for_each(|boot| body.extend_from_slice(&boot.0));
            put_end(end, &mut body);
            if end.boot.is_some() { END_OF } else { END }
        }
        Record::Summary(summary) => {
            summary.write(&mut body);
            SUMMARY
        }
        Record::Unknown => return,
    };
    put_parts(number, offset, kind, &[&body], out);
}

/// Appends a frame's record without copying its octets more than once.
pub(super) fn put_frame(number: u64, offset: u64, epoch: u64, start: &FrameStart, payload: &[u8], out: &mut Vec<u8>) {
    let mut before = Vec::with_capacity(48);
    varint::put(epoch, &mut before);
    start.write(&mut before);
    put_parts(number, offset, FRAME, &[&before, payload], out);
}

fn put_parts(number: u64, offset: u64, kind: u8, body: &[&[u8]], out: &mut Vec<u8>) {
    let length = body.iter().map(|part| part.len() as u32).sum::<u32>().to_le_bytes();
    out.extend_from_slice(&length);
    out.push(kind);
    body.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(&sum(number, offset, length, kind, body).to_le_bytes());
}

/// The last octets of a sealed segment, whose summary begins at `offset`.
pub(super) fn tail(offset: u64) -> [u8; TAIL] {
    let mut tail = [0; TAIL];
    tail[..8].copy_from_slice(&offset.to_le_bytes());
    tail[8..14].copy_from_slice(END_MAGIC);
    tail[14..].copy_from_slice(&VERSION.to_le_bytes());
    tail
}

/// Where the summary begins, by the last octets of a file.
pub(super) fn summary_offset(tail: &[u8]) -> Option<u64> {
    let tail = tail.last_chunk::<TAIL>()?;
    let (offset, magic) = tail.split_first_chunk::<8>()?;
    (magic[..6] == *END_MAGIC && magic[6..] == VERSION.to_le_bytes()).then(|| u64::from_le_bytes(*offset))
}

/// What stands at a place of a segment.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Parsed {
    /// A record, and how many octets it takes.
    Record(Record, usize),
    /// So many octets are needed to tell.
    Short(usize),
    /// No record, and why.
    Bad(&'static str),
}

/// Reads the record at the front of `octets`, which is the `offset`th octet of segment `number`.
pub(super) fn parse(number: u64, offset: u64, octets: &Bytes) -> Parsed {
    let Some((&length, rest)) = octets.split_first_chunk::<4>() else { return Parsed::Short(AROUND) };
    let Some(&kind) = rest.first() else { return Parsed::Short(AROUND) };
    let body_length = u32::from_le_bytes(length) as usize;
    if body_length > MAX_BODY {
        return Parsed::Bad("a record longer than any");
    }
    let whole = body_length + AROUND;
    if octets.len() < whole {
        return Parsed::Short(whole);
    }
    let body = octets.slice(5..5 + body_length);
    let written = octets[5 + body_length..whole].first_chunk::<4>().map_or(0, |sum| u32::from_le_bytes(*sum));
    if sum(number, offset, length, kind, &[&body]) != written {
        return Parsed::Bad("a wrong checksum");
    }
    let mut reader = Reader::new(body);
    let record = match kind {
        START => get_start(&mut reader).map(|(boot, agent_id)| Record::Start { boot, agent_id }),
        TRACK => TrackInfo::read(&mut reader).map(Record::Track),
        FRAME => reader
            .integer("frame epoch")
            .and_then(|epoch| FrameStart::read(&mut reader).map(|frame| Record::Frame { epoch, frame })),
        CLOCK => get_clock(&mut reader).map(Record::Clock),
        LOST => get_lost(&mut reader).map(Record::Lost),
        END => get_end(None, &mut reader).map(Record::End),
        END_OF => get_boot(&mut reader).and_then(|boot| get_end(Some(boot), &mut reader)).map(Record::End),
        SUMMARY => Summary::read(&mut reader).map(Record::Summary),
        _ => Ok(Record::Unknown),
    };
    match record {
        Ok(Record::Frame { frame, .. }) if frame.payload.len() as u64 != frame.total => {
            Parsed::Bad("a frame without its octets")
        }
        Ok(record) => Parsed::Record(record, whole),
        Err(_) => Parsed::Bad("a record that makes no sense"),
    }
}

/// Reads a segment's records one after another from octets that come in pieces.
#[derive(Clone, Debug)]
pub(super) struct Records {
    number: u64,
    /// The place of the next record.
    offset: u64,
    buffer: Bytes,
}

impl Records {
    /// From the record at `offset` on.
    pub(super) fn new(number: u64, offset: u64) -> Self {
        Self { number, offset, buffer: Bytes::new() }
    }

    /// The place of the next record.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The place of the next octet that is wanted.
    pub(super) fn wanted_at(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    /// More octets.
    pub(super) fn feed(&mut self, octets: &[u8]) {
        let mut both = Vec::with_capacity(self.buffer.len() + octets.len());
        both.extend_from_slice(&self.buffer);
        both.extend_from_slice(octets);
        self.buffer = both.into();
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Parsed {
        let parsed = parse(self.number, self.offset, &self.buffer);
        if let Parsed::Record(_, length) = &parsed {
            self.offset += *length as u64;
            self.buffer = self.buffer.slice(*length..);
        }
        parsed
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn info(track: u32, epoch: u64) -> TrackInfo {
        TrackInfo {
            track,
            epoch,
            next: 0,
            camera: "gate".into(),
            source: "main".into(),
            codec: 1,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: Bytes::new(),
        }
    }

    fn samples() -> Vec<Record> {
        let frame = FrameStart {
            track: 3,
            sequence: 9,
            head: FrameHead { pts_us: -5, arrival_us: 77, key: true, ..FrameHead::default() },
            total: 5,
            payload: Bytes::from_static(b"hello"),
        };
        let boot = BootId([7; 16]);
        let mut records = vec![
            Record::Start { boot, agent_id: "front-door".into() },
            Record::Track(info(3, 2)),
            Record::Frame { epoch: 2, frame },
            Record::Clock(Clock { boot_us: 5, utc_us: 1_700_000_000_000_000 }),
            Record::Lost(Lost {
                boot,
                track: 3,
                epoch: 2,
                first: 4,
                last: 8,
                reason: SkipReason::OverBudget,
                info: None,
            }),
            Record::Lost(Lost {
                boot: BootId([9; 16]),
                track: 3,
                epoch: 1,
                first: 0,
                last: 0,
                reason: SkipReason::Corrupt,
                info: Some(info(3, 1)),
            }),
            Record::End(End { boot: None, track: 3, epoch: 2, next: 10 }),
            Record::End(End { boot: Some(BootId([9; 16])), track: 3, epoch: 1, next: 1 }),
        ];
        let mut summary = Summary::default();
        records.iter().for_each(|record| summary.note(record));
        records.push(Record::Summary(summary));
        records
    }

    #[test]
    fn records_come_back_from_pieces_of_any_size() {
        for piece in [1, 7, 64, 4_096] {
            let mut octets = Vec::new();
            for record in samples() {
                put(5, octets.len() as u64, &record, &mut octets);
            }
            let mut records = Records::new(5, 0);
            let mut pieces = octets.chunks(piece);
            let mut read = Vec::new();
            loop {
                match records.next() {
                    Parsed::Record(record, _) => read.push(record),
                    Parsed::Short(_) => match pieces.next() {
                        Some(piece) => records.feed(piece),
                        None => break,
                    },
                    Parsed::Bad(why) => panic!("{why}"),
                }
            }
            assert_eq!(read, samples());
            assert_eq!(records.offset(), octets.len() as u64);
        }
    }

    #[test]
    fn summaries_of_older_agents_end_earlier() {
        let mut summary = Summary::default();
        samples().iter().for_each(|record| summary.note(record));
        summary.ends.retain(|end| end.boot.is_none());
        let mut octets = Vec::new();
        summary.write(&mut octets);
        // The octets of key frames, two numbers for the one run, and an empty list.
        octets.truncate(octets.len() - 4);
        let read = Summary::read(&mut Reader::new(octets.into())).unwrap();
        let of_older = |run: &Run| Run { first_key: Some(run.first), ..run.clone() };
        let runs: Vec<_> = summary.runs.iter().map(of_older).collect();
        assert_eq!(read, Summary { runs, kept_octets: 0, ..summary });
    }

    #[test]
    fn a_changed_bit_another_place_and_another_file_are_seen() {
        let mut octets = Vec::new();
        put(5, 100, &samples()[2], &mut octets);
        let good = Bytes::from(octets.clone());
        assert!(matches!(parse(5, 100, &good), Parsed::Record(..)));
        assert!(matches!(parse(5, 101, &good), Parsed::Bad(_)));
        assert!(matches!(parse(6, 100, &good), Parsed::Bad(_)));
        for bit in 0..octets.len() * 8 {
            octets[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(parse(5, 100, &Bytes::from(octets.clone())), Parsed::Record(..)), "bit {bit}");
            octets[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn heads_tell_whose_file_it_is() {
        let mut newer = head();
        newer[8] = 9;
        assert_eq!(
            (kind(&head()), kind(&newer), kind(b"RIFF....AVI "), kind(b"CAM")),
            (Kind::Ours, Kind::Newer(9), Kind::Foreign, Kind::Foreign)
        );
        assert_eq!(summary_offset(&tail(77)), Some(77));
        assert_eq!(summary_offset(&[0; 16]), None);
    }
}

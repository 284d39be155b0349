//! Thinning: when the folder comes to its cap, of old segments only key frames and sound stay, as of old groups in memory
//! ([`SkipReason::Thinned`]). So an outage that is longer than the card ends as a slide show before it ends as a hole.
//!
//! What stays is copied beside the segment, which then goes: as long as it is there it counts, and a copy that is not finished when the power goes is
//! removed at the next start. A segment of which more than half would stay is not worth that. The group that a track is in stays whole.
//!
//! What does not belong here: when there is too much (`room`).

use std::io;

use bytes::Bytes;
use camagent_proto::{frame::SkipReason, message::BootId};

use super::{
    disk::{Disk, answers},
    segment::{HEAD, Lost, Parsed, Record, Records, Run},
    store::{Flash, Lane, LaneKey, Open, Segment, WRITE, name, thin_name},
};

/// Read at once.
const READ: usize = 64 << 10;
/// Made safe at once: whoever waits for the card waits for no more.
const SYNC: u64 = 4 << 20;
/// Read in one step: whoever thins has other things to do too.
const STEP: usize = 256 << 10;

/// A segment that is being copied without what goes.
pub(super) struct Thinning {
    pub(super) number: u64,
    boot: BootId,
    /// Where the records that are copied end.
    end: u64,
    records: Records,
    /// What is copied of each run …
    runs: Vec<Run>,
    /// … and what is not.
    gone: Vec<Gone>,
    /// What goes and what stays has changed since it was begun.
    pub(super) is_stale: bool,
    pub(super) copy: Open,
}

/// Frames of a run that go, and that the server did not have.
#[derive(Clone, Copy, Debug, Default)]
struct Gone {
    /// Those that had not been given up before.
    count: u64,
    is_any: bool,
    is_last: bool,
}

impl Flash {
    /// One step of thinning; `false` when there is nothing to thin, or no room for a copy.
    pub(crate) fn thin(&mut self, disk: &mut dyn Disk) -> io::Result<bool> {
        if let Some(number) = self.thinning.as_ref().filter(|thinning| thinning.is_stale).map(|stale| stale.number) {
            self.stop_thinning(disk, number)?;
        }
        if self.thinning.is_none() && !self.begin_thinning(disk)? {
            return Ok(false);
        }
        if self.copy_on(disk)? {
            self.replace(disk)?;
        }
        Ok(true)
    }

    /// Whether there is something to thin, and room for the copy.
    pub(super) fn can_thin(&self) -> bool {
        self.to_thin().is_some()
    }

    /// The oldest segment that is worth it, and whose copy has room.
    fn to_thin(&self) -> Option<&Segment> {
        let left = self.config.max_bytes.saturating_sub(self.bytes());
        let has_room = |segment: &&Segment| segment.bytes - segment.gain <= left;
        self.segments.iter().filter(|segment| self.is_worth_thinning(segment)).find(has_room)
    }

    /// The copy of this segment is not wanted any more.
    pub(super) fn stop_thinning(&mut self, disk: &mut dyn Disk, number: u64) -> io::Result<()> {
        match self.thinning.take_if(|thinning| thinning.number == number) {
            Some(thinning) => disk.remove(&thin_name(thinning.number)),
            None => Ok(()),
        }
    }

    /// Begins a copy, or finds out that it cannot; `false` when there is nothing to thin.
    fn begin_thinning(&mut self, disk: &mut dyn Disk) -> io::Result<bool> {
        let Some(segment) = self.to_thin() else { return Ok(false) };
        let Segment { number, boot, data_end, bytes, gain, .. } = *segment;
        let empty = |run: &Run| Run { frames: 0, first_key: None, octets: 0, ..run.clone() };
        let runs: Vec<Run> = segment.runs.iter().map(empty).collect();
        match disk.create(&thin_name(number)) {
            // Something that is none of ours, or could not be removed: it is left alone, and this segment with it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.give_up_thinning(number, disk)?;
                return Ok(true);
            }
            done => done?,
        }
        disk.reserve(&thin_name(number), bytes - gain);
        self.thinning = Some(Thinning {
            number,
            boot,
            end: data_end,
            records: Records::new(number, HEAD as u64),
            gone: vec![Gone::default(); runs.len()],
            runs,
            is_stale: false,
            copy: Open::new(number, boot, &self.config.agent_id),
        });
        Ok(true)
    }

    fn is_worth_thinning(&self, segment: &Segment) -> bool {
        let goes_on = |run: &Run| {
            let lane = self.lane(&LaneKey { boot: segment.boot, track: run.track, epoch: run.epoch });
            let of_group = lane.filter(|lane| lane.ended.is_none()).and_then(|lane| lane.newest_key);
            of_group.is_some_and(|key| key < run.end)
        };
        !segment.is_corrupt && segment.gain >= segment.bytes / 2 && !segment.runs.iter().any(goes_on)
    }

    /// Copies a step further; whether that was the last one.
    fn copy_on(&mut self, disk: &mut dyn Disk) -> io::Result<bool> {
        let Some(thinning) = &mut self.thinning else { return Ok(false) };
        let (number, whole, thin) = (thinning.number, name(thinning.number), thin_name(thinning.number));
        let mut octets = 0;
        while octets < STEP && thinning.records.offset() < thinning.end {
            match thinning.records.next() {
                Parsed::Record(record, _) => {
                    let boot = thinning.boot;
                    thinning.take(record, |track, epoch| self.lanes.get(&LaneKey { boot, track, epoch }));
                }
                Parsed::Short(_) => {
                    let at = thinning.records.wanted_at();
                    let left = usize::try_from(thinning.end.saturating_sub(at)).unwrap_or(READ);
                    let mut chunk = vec![0; READ.min(left)];
                    match disk.read(&whole, at, &mut chunk) {
                        Ok(read) if read > 0 && left > 0 => {
                            octets += read;
                            thinning.records.feed(&chunk[..read]);
                        }
                        Err(error) if !answers(disk, &whole) => return Err(error),
                        _ => return self.give_up_thinning(number, disk),
                    }
                }
                Parsed::Bad(_) => return self.give_up_thinning(number, disk),
            }
            if thinning.copy.pending.len() >= WRITE {
                self.counts.octets_written += thinning.copy.write(disk, &thin)?;
                if thinning.copy.written - thinning.copy.synced >= SYNC {
                    disk.sync(&thin)?;
                    thinning.copy.synced = thinning.copy.written;
                }
            }
        }
        Ok(thinning.records.offset() >= thinning.end)
    }

    /// What is wrong with it shows when it is read for the server; until then it stays as it is.
    fn give_up_thinning(&mut self, number: u64, disk: &mut dyn Disk) -> io::Result<bool> {
        let of_number = self.segments.iter_mut().filter(|segment| segment.number == number);
        of_number.for_each(|segment| segment.gain = 0);
        self.stop_thinning(disk, number)?;
        Ok(false)
    }

    /// The copy takes the segment's place.
    fn replace(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        let Some(thinning) = &mut self.thinning else { return Ok(()) };
        let (number, boot) = (thinning.number, thinning.boot);
        if thinning.runs.iter().all(|run| run.frames == 0) {
            // Nothing stays: it needs no file.
            let at = self.segments.iter().position(|segment| segment.number == number);
            return at.map_or(Ok(()), |at| self.evict(disk, at, SkipReason::Thinned));
        }
        let went: Vec<(Run, Gone)> =
            thinning.runs.iter().cloned().zip(thinning.gone.iter().copied()).filter(|(_, gone)| gone.is_any).collect();
        let mut lost = Vec::new();
        for (Run { track, epoch, first, end: next, .. }, gone) in went {
            let key = LaneKey { boot, track, epoch };
            let end = if gone.is_last { self.end_of_group(number, key, next) } else { next };
            let Some(lane) = self.lanes.get(&key) else { continue };
            // What went whole before has that reason. Key frames among the rest are there, and are read.
            let is_whole = |lost: &&(u64, u64, SkipReason)| lost.2 == SkipReason::OverBudget && lost.0 <= first;
            let whole = lane.lost.iter().filter(is_whole).map(|lost| lost.1 + 1).max().unwrap_or(0);
            let (first, last, info) = (first.max(whole).max(lane.freed), end - 1, Some(lane.described()));
            if first < next {
                lost.push(Lost { boot, track, epoch, first, last, reason: SkipReason::Thinned, info });
                let count = gone.count + lane.not_lost_yet(next, end);
                self.counts.frames_evicted = self.counts.frames_evicted.saturating_add(count);
            }
        }
        let Some(thinning) = &mut self.thinning else { return Ok(()) };
        lost.iter().cloned().for_each(|lost| thinning.copy.put_note(Record::Lost(lost)));
        thinning.copy.summary.runs = std::mem::take(&mut thinning.runs);
        let data_end = thinning.copy.put_end();
        let thin = thin_name(number);
        self.counts.octets_written += thinning.copy.write(disk, &thin)?;
        disk.release(&thin);
        disk.sync(&thin)?;
        disk.sync_folder()?;
        disk.remove(&name(number))?;
        let Some(Thinning { copy, .. }) = self.thinning.take() else { return Ok(()) };
        for Lost { track, epoch, first, last, .. } in lost {
            if let Some(lane) = self.lanes.get_mut(&LaneKey { boot, track, epoch }) {
                lane.lose(first, last, SkipReason::Thinned);
            }
        }
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.number == number) {
            *segment = Segment {
                is_thin: true,
                gain: 0,
                ..Segment::sealed(number, boot, copy.summary, copy.written, data_end)
            };
        }
        Ok(())
    }
}

impl Thinning {
    /// Copies a record, or leaves a frame out. `lane` says what the folder has of an epoch.
    fn take<'a>(&mut self, record: Record, lane: impl Fn(u32, u64) -> Option<&'a Lane>) {
        let Record::Frame { epoch, mut frame } = record else {
            // It says whose it is already, and is summed up anew.
            if !matches!(record, Record::Start { .. } | Record::Summary(_)) {
                self.copy.put(&record);
            }
            return;
        };
        let of_run = |run: &Run| (run.track, run.epoch) == (frame.track, epoch) && run.contains(frame.sequence);
        let Some(at) = self.runs.iter().position(of_run) else { return };
        let Some(lane) = lane(frame.track, epoch).filter(|lane| frame.sequence >= lane.freed) else { return };
        let summary = &mut self.copy.summary;
        let is_kept = summary.keeps(epoch, frame.track, &frame.head);
        let gone = &mut self.gone[at];
        gone.is_last = !is_kept;
        if !is_kept {
            gone.is_any = true;
            gone.count += u64::from(!lane.has_given_up(frame.sequence, &frame.head));
            return;
        }
        let octets = std::mem::replace(&mut frame.payload, Bytes::new());
        let run = &mut self.runs[at];
        (run.frames, run.octets) = (run.frames + 1, run.octets + frame.total);
        run.first_key = run.first_key.or(frame.head.key.then_some(frame.sequence));
        summary.kept_octets += frame.total;
        self.copy.put_frame(epoch, &frame, &octets);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            backlog::{Cursor, Look},
            segment::tests::info,
            sim::{SimDisk, random},
            tests::{append, assert_explained, config, key, open, read, start},
        },
        *,
    };

    const CAP: u64 = 2 << 20;

    /// Appends frames up to `end`, made safe every 25.
    fn fill(flash: &mut Flash, card: &SimDisk, frames: std::ops::Range<u64>) {
        for sequence in frames {
            append(flash, &mut card.clone(), 1, 0, sequence).unwrap();
            if sequence % 25 == 24 {
                flash.sync(&mut card.clone()).unwrap();
                assert!(card.used() <= CAP, "{} of {CAP}", card.used());
            }
        }
    }

    fn numbers(flash: &mut Flash, card: &SimDisk) -> Vec<u64> {
        read(flash, card).iter().map(|frame| frame.2).collect()
    }

    #[test]
    fn the_oldest_segments_are_thinned_before_any_goes_whole() {
        for (end, goes_whole) in [(2_500, false), (5_000, false), (15_000, true)] {
            let card = SimDisk::new(1, u64::MAX);
            let (mut flash, _) = open(&card, 1, CAP);
            fill(&mut flash, &card, 0..end);
            let lost = flash.lane(&key(1, 0)).unwrap().lost.clone();
            let (gone, thinned) = match lost[..] {
                [(0, thinned, SkipReason::Thinned)] => (0, thinned + 1),
                [(0, gone, SkipReason::OverBudget), (next, thinned, SkipReason::Thinned)] if next == gone + 1 => {
                    (next, thinned + 1)
                }
                _ => panic!("{end}: {lost:?}"),
            };
            assert_eq!(gone > 0, goes_whole, "{end}: {lost:?}");
            let is_there = |number: &u64| *number >= thinned || *number >= gone && number.is_multiple_of(25);
            let left: Vec<u64> = (0..end).filter(is_there).collect();
            assert_eq!(numbers(&mut flash, &card), left, "{end}: {lost:?}");
            assert_eq!(flash.counts().frames_evicted, end - left.len() as u64, "each is counted once");

            // It is still known after a power cut, and until the server has heard of it.
            card.cut_power();
            let (mut flash, findings) = open(&card, 2, CAP);
            assert_eq!((findings.len(), &flash.lane(&key(1, 0)).unwrap().lost), (0, &lost), "{findings:?}");
            assert_eq!(numbers(&mut flash, &card), left);
            flash.free(&mut card.clone(), &key(1, 0), thinned).unwrap();
            assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, []);
            assert!(card.names().iter().all(|name| !name.contains("thin")), "what the server has goes");
        }
    }

    #[test]
    fn the_newest_frames_are_whole_as_long_as_older_ones_can_be_thinned() {
        let card = SimDisk::new(1, u64::MAX);
        let (mut flash, _) = open(&card, 1, CAP);
        fill(&mut flash, &card, 0..2_500);
        let [(0, thinned, _)] = flash.lane(&key(1, 0)).unwrap().lost[..] else { panic!() };
        assert!((1_000..1_700).contains(&thinned), "{thinned}: no more is thinned than has to be");
    }

    #[test]
    fn a_power_cut_at_any_write_costs_nothing_that_was_safe() {
        let mut with_copy = 0;
        for seed in 0..60 {
            let card = SimDisk::new(seed, u64::MAX);
            let mut disk = card.clone();
            let (mut flash, _) = open(&card, 1, 1 << 20);
            fill(&mut flash, &card, 0..750);
            let mut state = seed * 31 + 7;
            card.fail_in(random(&mut state) % 80);
            let mut safe = 750;
            for sequence in 750.. {
                let done = append(&mut flash, &mut disk, 1, 0, sequence)
                    .and_then(|()| if flash.wants_thinning() { flash.thin(&mut disk).map(drop) } else { Ok(()) });
                if done.is_err() {
                    break;
                }
                if sequence % 25 == 24 {
                    if flash.sync(&mut disk).is_err() {
                        break;
                    }
                    safe = sequence + 1;
                }
            }
            with_copy += u64::from(flash.thinning.is_some());
            card.cut_power();
            let (mut flash, _) = open(&card, 2, 1 << 20);
            assert_explained(&mut flash, &card, safe, &format!("seed {seed}"));
            let found = numbers(&mut flash, &card);
            assert!(found.is_sorted_by(|one, next| one < next), "seed {seed}: a frame came twice");
            let lost = flash.lane(&key(1, 0)).unwrap().lost.clone();
            let [(0, thinned, SkipReason::Thinned)] = lost[..] else { panic!("seed {seed}: {lost:?}") };
            let (keys, rest): (Vec<u64>, Vec<u64>) = found.iter().partition(|number| **number <= thinned);
            assert!(keys.iter().copied().eq((0..=thinned).step_by(25)), "seed {seed}: key frames stay");
            assert!(rest.iter().copied().zip(thinned + 1..).all(|(number, wanted)| number == wanted), "seed {seed}");
        }
        assert!(with_copy > 5, "{with_copy} of 60 cuts were while a segment was copied");
    }

    #[test]
    fn who_reads_in_a_segment_that_is_thinned_goes_on_behind_what_was_read() {
        let card = SimDisk::new(1, u64::MAX);
        let (mut flash, _) = open(&card, 1, CAP);
        fill(&mut flash, &card, 0..1_000);
        let mut cursor = Cursor::new();
        let mut found = Vec::new();
        let mut look = |flash: &mut Flash, most: usize| {
            while found.len() < most {
                match cursor.look(flash, &mut card.clone(), |_| u64::MAX).unwrap() {
                    Look::Frame(stored) => found.push(stored.frame.sequence),
                    Look::Later => {}
                    Look::End => break,
                }
            }
            found.clone()
        };
        assert_eq!(look(&mut flash, 60), (0..60).collect::<Vec<_>>());
        fill(&mut flash, &card, 1_000..2_000);
        let [(0, thinned, SkipReason::Thinned)] = flash.lane(&key(1, 0)).unwrap().lost[..] else { panic!() };
        let is_there = |number: &u64| *number < 60 || *number > thinned || number.is_multiple_of(25);
        assert_eq!(look(&mut flash, usize::MAX), (0..2_000).filter(is_there).collect::<Vec<_>>());
    }

    #[test]
    fn the_group_that_a_track_is_in_stays_whole_and_goes_without_a_file_when_it_is_over() {
        let card = SimDisk::new(1, u64::MAX);
        let mut disk = card.clone();
        let (mut flash, _) = open(&card, 1, CAP);
        let mut push = |flash: &mut Flash, sequence: u64, is_key: bool| {
            let mut frame = start(0, sequence, 4_000);
            frame.head.key = is_key;
            flash.append(&mut disk, &info(0, 1), &frame, &[7; 4_000]).unwrap();
        };
        // A group of 1.6 MB, in several segments: there is no room for it twice.
        (0..400).for_each(|sequence| push(&mut flash, sequence, sequence == 0));
        assert!(flash.segments.len() > 3);
        assert!(!flash.thin(&mut card.clone()).unwrap(), "nothing can be thinned");
        (400..600).for_each(|sequence| push(&mut flash, sequence, sequence == 400));
        let thin: Vec<u64> = flash.segments.iter().filter(|one| one.is_thin).map(|one| one.number).collect();
        assert_eq!(thin, [1], "the key frame is kept, and of segments without one nothing");
        let [(0, last, SkipReason::Thinned)] = flash.lane(&key(1, 0)).unwrap().lost[..] else { panic!() };
        assert!((100..400).contains(&last), "{last}");
        // Why, outlives a power cut, also where it stands in no segment of its own.
        flash.sync(&mut card.clone()).unwrap();
        card.cut_power();
        let (flash, _) = open(&card, 2, CAP);
        assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, [(0, last, SkipReason::Thinned)]);
    }

    #[test]
    fn what_is_left_can_be_decoded_where_groups_go_on_from_segment_to_segment() {
        for goes_whole in [false, true] {
            let card = SimDisk::new(1, u64::MAX);
            let mut disk = card.clone();
            let (mut flash, _) = open(&card, 1, CAP);
            for sequence in 0..900 {
                let mut frame = start(0, sequence, 4_000);
                frame.head.key = sequence % 100 == 0;
                flash.append(&mut disk, &info(0, 1), &frame, &[7; 4_000]).unwrap();
            }
            flash.sync(&mut disk).unwrap();
            let before = flash.counts().frames_evicted;
            assert!(before > 100 && (!goes_whole || flash.evict_oldest(&mut disk).unwrap()));
            let (mut cursor, mut found) = (Cursor::new(), Vec::new());
            while let Look::Frame(stored) = cursor.look(&mut flash, &mut disk, |_| u64::MAX).unwrap() {
                found.push(stored.frame.sequence);
            }
            for (at, number) in found.iter().enumerate() {
                let is_behind = || at > 0 && found[at - 1] == number - 1;
                assert!(number % 100 == 0 || is_behind(), "{number} refers to what is not there: {found:?}");
            }
            assert_eq!(flash.counts().frames_evicted, 900 - found.len() as u64, "each is counted once");
            // Nothing else is known after a power cut.
            let lost = flash.lane(&key(1, 0)).unwrap().lost.clone();
            assert!(
                lost[0].0 == 0 && lost[0].2 == if goes_whole { SkipReason::OverBudget } else { SkipReason::Thinned }
            );
            card.cut_power();
            let (again, _) = open(&card, 2, CAP);
            assert_eq!(again.lane(&key(1, 0)).unwrap().lost, lost);
        }
    }

    #[test]
    fn what_is_mostly_key_frames_is_not_copied() {
        let card = SimDisk::new(1, u64::MAX);
        let mut disk = card.clone();
        let (mut flash, _) = open(&card, 1, CAP);
        for sequence in 0..2_000 {
            let mut frame = start(0, sequence, 4_000);
            frame.head.key = true;
            flash.append(&mut disk, &info(0, 1), &frame, &[7; 4_000]).unwrap();
        }
        let counts = flash.counts();
        assert!(counts.octets_written < counts.frame_octets / 50 * 51, "{counts:?}");
        let [(0, last, SkipReason::OverBudget)] = flash.lane(&key(1, 0)).unwrap().lost[..] else { panic!() };
        assert_eq!(counts.frames_evicted, last + 1);
    }

    #[test]
    fn sound_stays_and_what_the_server_has_is_not_copied() {
        let card = SimDisk::new(1, u64::MAX);
        let mut disk = card.clone();
        let (mut flash, _) = open(&card, 1, CAP);
        for sequence in 0..2_400 {
            append(&mut flash, &mut disk, 1, 0, sequence).unwrap();
            if sequence % 12 == 0 {
                append(&mut flash, &mut disk, 1, 1, sequence / 12).unwrap();
            }
        }
        flash.sync(&mut disk).unwrap();
        let lost = |flash: &Flash, track| flash.lane(&key(1, track)).unwrap().lost.clone();
        let (pictures, sound) = (lost(&flash, 0), lost(&flash, 1));
        assert!(matches!(pictures[..], [(0, _, SkipReason::Thinned)]) && sound.is_empty(), "{pictures:?} {sound:?}");
        let found = read(&mut flash, &card);
        let of_sound: Vec<u64> = found.iter().filter(|frame| frame.1 == 1).map(|frame| frame.2).collect();
        assert_eq!(of_sound, (0..200).collect::<Vec<_>>());

        let card = SimDisk::new(1, u64::MAX);
        let (mut flash, _) = open(&card, 1, CAP);
        fill(&mut flash, &card, 0..600);
        flash.free(&mut card.clone(), &key(1, 0), 130).unwrap();
        fill(&mut flash, &card, 600..1_700);
        let first = flash.lane(&key(1, 0)).unwrap().lost[0];
        assert!(first.0 == 130 && first.2 == SkipReason::Thinned, "{first:?}");
        assert_eq!(numbers(&mut flash, &card)[..2], [150, 175]);
    }

    #[test]
    fn of_a_segment_and_its_copy_the_segment_counts_as_long_as_it_is_whole() {
        let card = SimDisk::new(1, u64::MAX);
        let (mut flash, _) = open(&card, 1, CAP);
        fill(&mut flash, &card, 0..1_000);
        let whole = card.octets(&name(1));
        fill(&mut flash, &card, 1_000..1_800);
        let thin = card.octets(&thin_name(1));
        assert!(!thin.is_empty() && card.octets(&name(1)).is_empty());
        for (left, counts, is_kept) in
            [(&whole[..], whole.len(), false), (&whole[..9_000], thin.len(), true), (&[], thin.len(), true)]
        {
            let card = SimDisk::new(2, u64::MAX);
            card.plant(&name(1), left);
            card.plant(&thin_name(1), &thin);
            let (mut flash, _) = open(&card, 2, CAP);
            assert_eq!((flash.bytes(), flash.segments[0].is_thin), (counts as u64, is_kept));
            assert_eq!(numbers(&mut flash, &card)[..2], if is_kept { [0, 25] } else { [0, 1] });
            assert!(left.is_empty() || card.used() >= counts as u64, "what is damaged is set aside, not deleted");
        }
    }

    #[test]
    fn a_copy_that_was_begun_before_the_server_lost_its_store_is_not_used() {
        let card = SimDisk::new(1, u64::MAX);
        let mut disk = card.clone();
        let (mut flash, _) = open(&card, 1, CAP);
        fill(&mut flash, &card, 0..600);
        flash.free(&mut disk, &key(1, 0), 130).unwrap();
        while !flash.wants_thinning() {
            let next = flash.lane(&key(1, 0)).unwrap().end;
            append(&mut flash, &mut disk, 1, 0, next).unwrap();
        }
        flash.begin_thinning(&mut disk).unwrap();
        flash.copy_on(&mut disk).unwrap();
        flash.rewind();
        while flash.wants_thinning() {
            flash.thin(&mut disk).unwrap();
        }
        flash.sync(&mut disk).unwrap();
        assert!(flash.segments[0].is_thin);
        assert_eq!(numbers(&mut flash, &card)[..4], [0, 25, 50, 75], "they are wanted again");
    }

    #[test]
    fn a_name_that_is_taken_keeps_nothing_from_being_written() {
        let card = SimDisk::new(1, u64::MAX);
        let (mut flash, _) = open(&card, 1, CAP);
        card.plant(&thin_name(1), b"somebody else's");
        fill(&mut flash, &card, 0..2_000);
        assert!(!flash.segments[0].is_thin && flash.segments[1].is_thin);
        assert_eq!(card.octets(&thin_name(1)), b"somebody else's");
    }

    #[test]
    fn a_segment_that_cannot_be_read_is_left_to_those_who_read_it() {
        let card = SimDisk::new(1, u64::MAX);
        let (mut flash, _) = open(&card, 1, CAP);
        fill(&mut flash, &card, 0..1_000);
        card.fail_reads(&name(1), 100_000);
        fill(&mut flash, &card, 1_000..1_700);
        assert!(flash.segments[0].number == 1 && !flash.segments[0].is_thin);
        assert!(flash.segments[1].is_thin && !card.names().contains(&thin_name(1)));
        let found = numbers(&mut flash, &card);
        assert_eq!(found[..3], [0, 1, 2]);
        let lost = flash.lane(&key(1, 0)).unwrap().lost.clone();
        let [(_, last, SkipReason::Corrupt), (next, _, SkipReason::Thinned)] = lost[..] else { panic!("{lost:?}") };
        assert_eq!(next, last + 1);
        // Its damage is the same for the next run.
        let config = config(1, CAP);
        let (again, _) = Flash::open(&mut card.clone(), config, Some(&flash)).unwrap();
        assert_eq!(again.lane(&key(1, 0)).unwrap().lost, lost);
    }
}

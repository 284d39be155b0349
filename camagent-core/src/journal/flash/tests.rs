//! The tier as a whole on a card that fails on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
};

use bytes::Bytes;
use camagent_proto::{
    frame::{FrameHead, FrameStart, SkipReason, TrackInfo},
    message::BootId,
};

use super::{
    backlog::{Cursor, Look},
    disk::Disk,
    open::Finding,
    segment::{Clock, EndReason, tests::info},
    sim::{SimDisk, random},
    store::{Flash, FlashConfig, LaneKey},
};

pub(super) fn config(boot: u64, max_bytes: u64) -> FlashConfig {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&boot.to_le_bytes());
    FlashConfig { agent_id: "gate".into(), boot: BootId(id), max_bytes }
}

pub(super) fn open(card: &SimDisk, boot: u64, max_bytes: u64) -> (Flash, Vec<Finding>) {
    Flash::open(&mut card.clone(), config(boot, max_bytes), None).unwrap()
}

/// Octets that tell which frame they belong to.
pub(super) fn octets(boot: u64, track: u32, sequence: u64, length: usize) -> Vec<u8> {
    let mut state = boot << 40 ^ u64::from(track) << 32 ^ sequence << 1 | 1;
    (0..length).map(|_| random(&mut state) as u8).collect()
}

pub(super) fn length(sequence: u64) -> usize {
    if sequence.is_multiple_of(25) { 9_000 } else { 700 + (sequence % 7) as usize * 100 }
}

pub(super) fn append(
    flash: &mut Flash,
    disk: &mut dyn Disk,
    boot: u64,
    track: u32,
    sequence: u64,
) -> std::io::Result<()> {
    let payload = octets(boot, track, sequence, length(sequence));
    let info = TrackInfo { sample_rate: track * 8_000, ..info(track, 1) };
    flash.append(disk, &info, &start(track, sequence, payload.len()), &payload)
}

pub(super) fn start(track: u32, sequence: u64, length: usize) -> FrameStart {
    let head = FrameHead {
        arrival_us: sequence * 40_000,
        pts_us: sequence as i64 * 40_000,
        dts_us: sequence as i64 * 40_000,
        key: sequence.is_multiple_of(25) || track > 0,
        ..FrameHead::default()
    };
    FrameStart { track, sequence, head, total: length as u64, payload: Bytes::new() }
}

/// All frames in the order of reading; octets are compared.
pub(super) fn read(flash: &mut Flash, card: &SimDisk) -> Vec<(u64, u32, u64)> {
    let (mut cursor, mut frames) = (Cursor::new(), Vec::new());
    loop {
        match cursor.look(flash, &mut card.clone(), |_| u64::MAX).unwrap() {
            Look::End => return frames,
            Look::Later => {}
            Look::Frame(stored) => {
                let boot = u64::from_le_bytes(*stored.key.boot.0.first_chunk().unwrap());
                let (track, sequence) = (stored.key.track, stored.frame.sequence);
                assert_eq!(stored.frame.payload, octets(boot, track, sequence, length(sequence)), "other octets");
                assert_eq!(stored.frame.head, start(track, sequence, 0).head);
                frames.push((boot, track, sequence));
            }
        }
    }
}

pub(super) fn key(boot: u64, track: u32) -> LaneKey {
    LaneKey { boot: config(boot, 0).boot, track, epoch: 1 }
}

#[test]
fn frames_come_back_over_segments_and_runs_in_their_order() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    for boot in 1..=3 {
        let (mut flash, findings) = open(&card, boot, 64 << 20);
        assert_eq!(findings, []);
        for sequence in 0..500 {
            append(&mut flash, &mut disk, boot, 0, sequence).unwrap();
            append(&mut flash, &mut disk, boot, 1, sequence).unwrap();
        }
        flash.note_clock(Clock { boot_us: 7, utc_us: 1_700_000_000_000_000 });
        (0..2).for_each(|track| flash.note_end(&info(track, 1), 500, 0, &[], 500));
        flash.seal(&mut disk).unwrap();
    }
    let (mut flash, findings) = open(&card, 4, 64 << 20);
    assert_eq!(findings, []);
    let wanted: Vec<_> = (1..=3).flat_map(|boot| (0..500).flat_map(move |at| [(boot, 0, at), (boot, 1, at)])).collect();
    assert_eq!(read(&mut flash, &card), wanted);
    let lane = flash.lane(&key(2, 1)).unwrap();
    assert_eq!((lane.oldest, lane.end, lane.ended), (0, 500, Some(EndReason::Stopped)));
    assert!(flash.boots().iter().all(|(_, clock)| clock.is_some_and(|clock| clock.boot_us == 7)));

    // What the server has goes, file by file, and nothing else does.
    let before = flash.bytes();
    flash.free(&mut disk, &key(1, 0), 500).unwrap();
    assert_eq!(flash.bytes(), before, "the other track is in the same files");
    flash.free(&mut disk, &key(1, 1), 400).unwrap();
    assert!(flash.bytes() < before);
    assert_eq!(read(&mut flash, &card).first(), Some(&(1, 1, 400)));
    for boot in 1..=3 {
        (0..2).for_each(|track| flash.free(&mut disk, &key(boot, track), 500).unwrap());
    }
    assert_eq!((flash.bytes(), flash.lanes().count(), flash.boots().len()), (0, 0, 0));
    assert_eq!(card.used(), 0);
}

/// The promise of the tier: whatever was synced is there after any power cut, once, with the right octets, over hundreds of runs in one folder.
#[test]
fn hundreds_of_power_cuts_take_nothing_that_was_safe() {
    for seed in 0..4 {
        let card = SimDisk::new(seed, u64::MAX);
        let mut disk = card.clone();
        let mut state = seed * 77 + 5;
        // For each run: how many frames were safe, and how many were ever written.
        let mut promised: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for boot in 1..=150 {
            let (mut flash, findings) = open(&card, boot, 1 << 30);
            for finding in findings {
                let harmless = match &finding {
                    Finding::Cut { .. } => true,
                    Finding::SetAside { why, .. } => why.contains("half-written"),
                    _ => false,
                };
                assert!(harmless, "seed {seed}, run {boot}: {finding}");
            }
            let frames = random(&mut state) % 120;
            card.fail_in(random(&mut state) % 60 + 1);
            let mut safe = 0;
            for sequence in 0..frames {
                let done = append(&mut flash, &mut disk, boot, 0, sequence);
                promised.insert(boot, (safe, sequence + 1));
                if done.is_err() {
                    break;
                }
                if random(&mut state).is_multiple_of(10) {
                    if flash.sync(&mut disk).is_err() {
                        break;
                    }
                    safe = sequence + 1;
                    promised.insert(boot, (safe, safe));
                }
            }
            card.cut_power();
        }
        let (mut flash, _) = open(&card, 999, 1 << 30);
        let found = read(&mut flash, &card);
        let once: BTreeSet<_> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "seed {seed}: a frame came twice");
        for (boot, (safe, written)) in promised {
            let of_boot: Vec<u64> = found.iter().filter(|frame| frame.0 == boot).map(|frame| frame.2).collect();
            assert!(of_boot.iter().copied().eq(0..of_boot.len() as u64), "seed {seed}, run {boot}: a hole");
            let count = of_boot.len() as u64;
            assert!((safe..=written).contains(&count), "seed {seed}, run {boot}: {count} frames, {safe} were safe");
            if count > 0 {
                assert_eq!(flash.lane(&key(boot, 0)).unwrap().ended, Some(EndReason::PowerCut));
            }
        }
    }
}

/// 2 Mbit/s of video at 25 pictures a second with a GOP of two seconds, and G.711 in 20 ms units, synced each second; in whole pages of the card.
#[test]
fn little_is_written_beside_the_frames() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 4 << 30);
    let (mut octets, mut pictures, mut units) = (0_u64, 0, 0);
    for _second in 0..100 {
        for picture in 0..25_u64 {
            let size = if pictures % 50 == 0 { 90_000 } else { 8_300 + (picture * 137 % 900) as usize };
            let payload = vec![picture as u8; size];
            flash.append(&mut disk, &info(0, 1), &start(0, pictures, size), &payload).unwrap();
            pictures += 1;
            octets += size as u64;
            for _ in 0..2 {
                flash.append(&mut disk, &info(1, 1), &start(1, units, 160), &[3; 160]).unwrap();
                units += 1;
                octets += 160;
            }
        }
        flash.sync(&mut disk).unwrap();
    }
    flash.seal(&mut disk).unwrap();
    let amplification = card.octets_written() as f64 / octets as f64;
    assert!(amplification <= 1.1, "{amplification}");
    assert_eq!(flash.counts().frame_octets, octets);
}

#[test]
fn opening_looks_at_one_place_of_each_segment() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    let mut sequence = 0;
    while card.names().len() < 200 {
        append(&mut flash, &mut disk, 1, 0, sequence).unwrap();
        sequence += 1;
    }
    flash.seal(&mut disk).unwrap();
    let before = card.reads();
    let (flash, _) = open(&card, 2, 64 << 20);
    assert_eq!(card.reads() - before, 200);
    assert_eq!(flash.lane(&key(1, 0)).unwrap().end, sequence);
}

#[test]
fn strange_files_are_named_and_set_aside_and_never_deleted() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    (0..200).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.seal(&mut disk).unwrap();
    let good = card.octets("0000000000000001.camj");

    let mut newer = good.clone();
    newer[8] = 2;
    let at = newer.len() - 2;
    newer[at] = 2;
    card.plant("0000000000000007.camj", &newer);
    card.plant("0000000000000008.camj", b"RIFF....AVI LIST");
    card.plant("0000000000000009.camj", &[0; 4_096]);
    card.plant("000000000000000a.camj", &good);
    card.plant("nonsense.camj", b"x");
    card.plant("000000000000000D.camj", &good);
    card.plant("+00000000000000e.thin.camj", &good);
    card.plant("holiday.jpg", b"JFIF");
    card.plant("000000000000000b.camj", b"");
    let other = FlashConfig { agent_id: "garden".into(), ..config(5, 64 << 20) };
    let (mut theirs, _) = Flash::open(&mut SimDisk::new(2, u64::MAX), other.clone(), None).unwrap();
    let elsewhere = SimDisk::new(3, u64::MAX);
    theirs.append(&mut elsewhere.clone(), &info(0, 1), &start(0, 0, 3), b"abc").unwrap();
    theirs.seal(&mut elsewhere.clone()).unwrap();
    card.plant("0000000000000001.camj.theirs", b"");
    card.plant("000000000000000c.camj", &elsewhere.octets("0000000000000001.camj"));

    let (mut flash, findings) = open(&card, 2, 64 << 20);
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    for (name, why) in [
        ("0000000000000007.camj", "newer agent wrote it (format 2"),
        ("0000000000000008.camj", "no segment"),
        ("0000000000000009.camj", "half-written"),
        ("000000000000000a.camj", "half-written"),
        ("nonsense.camj", "no number"),
        ("000000000000000D.camj", "no number"),
        ("+00000000000000e.thin.camj", "no number"),
        ("holiday.jpg", "stays where it is"),
        ("000000000000000c.camj", "half-written"),
    ] {
        assert!(told.iter().any(|told| told.contains(name) && told.contains(why)), "{name}: {why} in {told:#?}");
    }
    assert_eq!(read(&mut flash, &card).len(), 200, "what is good is used");
    assert_eq!(card.octets("set-aside/0000000000000007.camj.0"), newer);
    let (_, again) = open(&card, 3, 64 << 20);
    assert!(again.iter().all(|finding| matches!(finding, Finding::LeftAlone(_))), "told once: {again:?}");

    // A whole segment of another agent, under its own number.
    let card = SimDisk::new(1, u64::MAX);
    card.plant("0000000000000001.camj", &elsewhere.octets("0000000000000001.camj"));
    let (flash, findings) = open(&card, 2, 64 << 20);
    assert!(findings[0].to_string().contains("belongs to the agent \"garden\""), "{findings:?}");
    assert_eq!(flash.lanes().count(), 0);
}

#[test]
fn damage_in_the_middle_costs_what_is_behind_it_and_is_told() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 1 << 30);
    (0..200).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.seal(&mut disk).unwrap();
    let name = "0000000000000001.camj";
    let mut octets = card.octets(name);
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    card.plant(name, &octets);
    let (mut flash, findings) = open(&card, 2, 64 << 20);
    assert_eq!(findings, [], "the summary is whole");
    let found = read(&mut flash, &card);
    assert!((80..120).contains(&found.len()), "{}", found.len());
    assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, [(found.len() as u64, 199, SkipReason::Corrupt)]);
    assert_eq!(flash.take_damages().len(), 1);
    flash.free(&mut disk, &key(1, 0), 200).unwrap();
    assert_eq!(card.octets("set-aside/0000000000000001.camj.0"), octets, "kept for whoever wants to look at it");

    // The same with a summary that is damaged too: it is read from the front, and nothing is cut from it.
    let card = SimDisk::new(1, u64::MAX);
    let at = octets.len() - 30;
    octets[at] ^= 1;
    card.plant(name, &octets);
    let (mut flash, findings) = open(&card, 2, 64 << 20);
    assert!(matches!(&findings[..], [Finding::Corrupt { .. }]), "{findings:?}");
    assert_eq!(read(&mut flash, &card).len(), found.len());
    assert_eq!(card.octets(name), octets);
}

#[test]
fn a_card_that_is_full_or_can_only_be_read_still_gives_back_what_it_has() {
    let card = SimDisk::new(1, 1 << 20);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    let mut safe = 0;
    let error = (0..5_000).find_map(|sequence| {
        let done = append(&mut flash, &mut disk, 1, 0, sequence).and_then(|()| flash.sync(&mut disk));
        safe = if done.is_ok() { sequence + 1 } else { safe };
        done.err()
    });
    assert_eq!(error.unwrap().kind(), ErrorKind::StorageFull);
    card.set_read_only(true);
    let (mut flash, _) = open(&card, 2, 64 << 20);
    let found = read(&mut flash, &card).len() as u64;
    assert!(found >= safe && found <= safe + 1, "{found} of {safe}");
    assert_eq!(append(&mut flash, &mut disk, 2, 0, 0).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    card.set_read_only(false);
    card.set_away(true);
    assert!(Flash::open(&mut disk, config(3, 64 << 20), None).is_err());
    card.set_away(false);
    let (mut flash, _) = open(&card, 3, 64 << 20);
    assert!(read(&mut flash, &card).len() as u64 >= safe);
}

#[test]
fn every_number_that_was_not_appended_has_a_reason_and_an_epoch_its_true_end() {
    use SkipReason::{Live, OverBudget};
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    flash.note_hole(&info(0, 1), 0, 3, &[], 3);
    assert!(flash.lane(&key(1, 0)).is_none(), "what came live before the card was needed needs no word");
    append(&mut flash, &mut disk, 1, 0, 3).unwrap();
    // Up to 7 the live reader brought them, the others were evicted.
    flash.note_hole(&info(0, 1), 4, 7, &[], 9);
    append(&mut flash, &mut disk, 1, 0, 9).unwrap();
    flash.note_hole(&info(0, 1), 10, 5, &[], 10);
    flash.note_end(&info(0, 1), 10, 20, &[], 20);
    flash.note_end(&info(0, 1), 10, 11, &[], 11);
    flash.seal(&mut disk).unwrap();
    for boot in 1..=2 {
        let (flash, _) = open(&card, boot, 64 << 20);
        let lane = flash.lane(&key(1, 0)).unwrap();
        assert_eq!((lane.oldest, lane.end, lane.ended), (3, 20, Some(EndReason::Stopped)));
        assert_eq!(lane.lost, [(4, 6, Live), (7, 8, OverBudget), (10, 19, Live)]);
    }
}

/// A power cut may take a segment that was never synced and leave the next one.
#[test]
fn what_is_gone_in_front_of_what_is_left_is_told() {
    for (first, freed) in [(0, 0), (5, 5), (0, 12)] {
        let card = SimDisk::new(1, u64::MAX);
        let mut disk = card.clone();
        let (mut flash, _) = open(&card, 1, 64 << 20);
        (first..30).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
        flash.seal(&mut disk).unwrap();
        let gone = card.names();
        flash.free(&mut disk, &key(1, 0), freed).unwrap();
        (30..40).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
        flash.sync(&mut disk).unwrap();
        disk.remove(&gone[0]).unwrap();
        for boot in 2..=3 {
            let (mut flash, _) = open(&card, boot, 64 << 20);
            let lane = flash.lane(&key(1, 0)).unwrap();
            // What the server had, or got live before the card was needed, is not missing.
            let expected = (freed, 40, &[(freed, 29, SkipReason::Corrupt)][..]);
            assert_eq!((lane.oldest, lane.end, &lane.lost[..]), expected, "from {first}, stored {freed}");
            assert!(read(&mut flash, &card).iter().take(10).map(|frame| frame.2).eq(30..40));
            append(&mut flash, &mut disk, boot, 0, 0).unwrap();
            flash.sync(&mut disk).unwrap();
        }
    }
}

#[test]
fn why_frames_had_to_leave_a_full_card_is_on_it_before_anything_else() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    for from in [0, 30, 60] {
        (from..from + 30).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
        flash.seal(&mut disk).unwrap();
    }
    card.set_capacity(card.used());
    assert!(flash.evict_oldest(&mut disk).unwrap());
    // The process is killed: what was only in its memory is gone. With a picture go those that refer to it, up to the next key frame.
    let (mut flash, _) = open(&card, 2, 64 << 20);
    assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, [(0, 49, SkipReason::OverBudget)]);
    assert!(read(&mut flash, &card).iter().map(|frame| frame.2).eq(50..90));
}

#[test]
fn a_file_that_cannot_be_read_keeps_no_other_from_being_opened() {
    let mut whole = 0;
    for from in [0, 100_000, 200_000] {
        let card = SimDisk::new(1, u64::MAX);
        let mut disk = card.clone();
        let (mut before, _) = open(&card, 1, 64 << 20);
        (0..800).for_each(|sequence| append(&mut before, &mut disk, 1, 0, sequence).unwrap());
        before.seal(&mut disk).unwrap();
        let names = card.names();
        assert!(names.len() > 2);
        card.fail_reads(&names[1], from);
        let (mut flash, findings) = Flash::open(&mut disk, config(1, 64 << 20), Some(&before)).unwrap();
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].contains("cannot be read"), "{told:?}");
        let found = read(&mut flash, &card);
        let lane = flash.lane(&key(1, 0)).unwrap();
        let [(first, last, SkipReason::Corrupt)] = lane.lost[..] else { panic!("{from}: {:?}", lane.lost) };
        assert_eq!((found.len() as u64 + last + 1 - first, found.last()), (800, Some(&(1, 0, 799))), "{from}");
        assert!(from == 0 || last - first < whole, "what stands before the bad sector is used");
        whole = last - first;
        // After a restart too it keeps no other one away.
        let (mut flash, _) = open(&card, 2, 64 << 20);
        assert_eq!(read(&mut flash, &card), found);
    }
}

/// Every number of the epoch is there or was said to be lost.
pub(super) fn assert_explained(flash: &mut Flash, card: &SimDisk, end: u64, what: &str) {
    let left: BTreeSet<u64> = read(flash, card).iter().map(|frame| frame.2).collect();
    let lost = flash.lane(&key(1, 0)).unwrap().lost.clone();
    for number in 0..end {
        let is_lost = lost.iter().any(|(first, last, _)| (*first..=*last).contains(&number));
        assert!(left.contains(&number) || is_lost, "{what}: {number} is gone without a word: {lost:?}");
    }
}

#[test]
fn why_frames_had_to_go_is_on_the_card_before_they_go() {
    for seed in 0..40 {
        let card = SimDisk::new(seed, u64::MAX);
        let mut disk = card.clone();
        let (mut flash, _) = open(&card, 1, 2 << 20);
        let (mut sequence, mut safe) = (0, 0);
        while flash.counts().frames_evicted < 300 + seed * 20 {
            append(&mut flash, &mut disk, 1, 0, sequence).unwrap();
            sequence += 1;
            if sequence % 40 == 0 && flash.counts().frames_evicted < 300 {
                flash.sync(&mut disk).unwrap();
                safe = sequence;
            }
        }
        card.cut_power();
        let (mut flash, _) = open(&card, 2, 2 << 20);
        assert_explained(&mut flash, &card, safe, &format!("seed {seed}"));
    }
}

#[test]
fn what_had_to_go_of_an_older_run_is_known_to_the_runs_after() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 2 << 20);
    (0..10).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.seal(&mut disk).unwrap();
    // The second run needs all the room.
    let (mut flash, _) = open(&card, 2, 2 << 20);
    let mut sequence = 0;
    let all_went = [(0, 9, SkipReason::OverBudget)];
    while flash.lane(&key(1, 0)).unwrap().lost != all_went {
        append(&mut flash, &mut disk, 2, 0, sequence).unwrap();
        sequence += 1;
    }
    card.cut_power();
    for boot in 3..=4 {
        let (mut flash, _) = open(&card, boot, 2 << 20);
        let lane = flash.lane(&key(1, 0)).expect("it is not forgotten");
        assert_eq!((lane.oldest, lane.end, &lane.lost[..]), (0, 10, &all_went[..]));
        assert!(flash.boots().iter().any(|(known, _)| *known == key(1, 0).boot));
        flash.free(&mut disk, &key(1, 0), if boot == 4 { 10 } else { 0 }).unwrap();
    }
}

#[test]
fn what_had_to_go_is_known_where_no_frame_of_its_epoch_is_left() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 2 << 20);
    (0..10).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.seal(&mut disk).unwrap();
    // Why they are gone is said in a segment that has frames of another track only.
    append(&mut flash, &mut disk, 1, 1, 0).unwrap();
    assert!(flash.evict_oldest(&mut disk).unwrap());
    card.cut_power();
    for boot in 2..=3 {
        let (flash, _) = open(&card, boot, 2 << 20);
        let lane = flash.lane(&key(1, 0)).expect("it is not forgotten");
        assert_eq!((lane.oldest, lane.end, &lane.lost[..]), (0, 10, &[(0, 9, SkipReason::OverBudget)][..]));
    }
}

#[test]
fn how_an_epoch_ended_is_known_as_long_as_something_of_it_has_to_be_told() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    (0..50).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.seal(&mut disk).unwrap();
    append(&mut flash, &mut disk, 1, 1, 0).unwrap();
    flash.note_end(&info(0, 1), 50, 0, &[], 50);
    flash.seal(&mut disk).unwrap();
    // All frames of the segment that says it are stored.
    flash.free(&mut disk, &key(1, 1), 1).unwrap();
    for boot in 2..=5 {
        card.cut_power();
        let (mut flash, _) = open(&card, boot, 64 << 20);
        let lane = flash.lane(&key(1, 0)).expect("it is not forgotten");
        assert_eq!((lane.end, lane.ended), (50, Some(EndReason::Stopped)), "run {boot}");
        let had_to_go = [(0, 49, SkipReason::OverBudget)];
        assert_eq!(lane.lost, if boot > 2 { &had_to_go[..] } else { &[] }, "run {boot}");
        // The segments that say so go themselves.
        append(&mut flash, &mut disk, boot, 1, 0).unwrap();
        assert!(flash.evict_oldest(&mut disk).unwrap() && flash.evict_oldest(&mut disk).unwrap());
        flash.sync(&mut disk).unwrap();
    }
}

#[test]
fn what_had_to_go_and_came_again_is_there() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    // The pictures behind it go with the first segment: what is said of them comes to nothing, and neither do they.
    (0..30).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.lose(key(1, 0), 0, 49, SkipReason::OverBudget);
    (30..60).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.sync(&mut disk).unwrap();
    assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, [(0, 29, SkipReason::OverBudget)]);
    assert!(read(&mut flash, &card).iter().map(|frame| frame.2).eq(30..60));
}

#[test]
fn what_was_told_as_lost_is_told_again_to_a_server_that_lost_its_store() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    (0..10).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.note_hole(&info(0, 1), 10, 0, &[(10, 20, SkipReason::Refused)], 25);
    append(&mut flash, &mut disk, 1, 0, 25).unwrap();
    flash.seal(&mut disk).unwrap();
    flash.note_hole(&info(0, 1), 26, 0, &[], 50);
    append(&mut flash, &mut disk, 1, 0, 50).unwrap();
    let lost = flash.lane(&key(1, 0)).unwrap().lost.clone();
    assert_eq!(lost.len(), 3, "{lost:?}");
    flash.free(&mut disk, &key(1, 0), 50).unwrap();
    assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, []);
    flash.rewind();
    assert_eq!(
        flash.lane(&key(1, 0)).unwrap().lost,
        lost[2..],
        "of a segment that went with what was stored nothing is known"
    );
}

#[test]
fn a_full_card_makes_room_and_says_why() {
    let card = SimDisk::new(1, 1 << 20);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    let (mut sequence, mut safe, mut max_bytes) = (0, 0, 64 << 20);
    while sequence < 4_000 {
        let done = append(&mut flash, &mut disk, 1, 0, sequence);
        let done = done.and_then(|()| if sequence % 10 == 9 { flash.sync(&mut disk) } else { Ok(()) });
        match done {
            Ok(()) => sequence += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                max_bytes = max_bytes.min(flash.bytes() / 10 * 9);
                assert!(max_bytes > 512 << 10, "it goes on with what it has");
                flash = Flash::open(&mut disk, config(1, max_bytes), Some(&flash)).unwrap().0;
                sequence = safe;
            }
        }
        safe = if flash.is_dirty() { safe } else { sequence };
    }
    assert_explained(&mut flash, &card, safe, "full");
    let is_for_room = |reason| matches!(reason, SkipReason::OverBudget | SkipReason::Thinned);
    assert!(flash.lane(&key(1, 0)).unwrap().lost.iter().all(|lost| is_for_room(lost.2)));
}

#[test]
fn what_was_lost_is_known_after_the_card_was_away() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut before, _) = open(&card, 1, 64 << 20);
    (0..10).for_each(|sequence| append(&mut before, &mut disk, 1, 0, sequence).unwrap());
    before.sync(&mut disk).unwrap();
    before.note_hole(&info(0, 1), 10, 10, &[], 20);
    card.set_away(true);
    assert!(before.sync(&mut disk).is_err());
    card.set_away(false);
    for boot in 1..=2 {
        let config = config(boot, 64 << 20);
        let (mut flash, _) = Flash::open(&mut disk, config, Some(&before).filter(|_| boot == 1)).unwrap();
        assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, [(10, 19, SkipReason::OverBudget)], "run {boot}");
        flash.sync(&mut disk).unwrap();
    }
}

#[test]
fn what_was_stored_and_forgotten_is_not_offered_again_after_the_card_was_away() {
    let card = SimDisk::new(3, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 1 << 20);
    (0..50).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.seal(&mut disk).unwrap();
    // The next run lets go of all of it for the cap, and says so in the segment that it is in.
    let (mut flash, _) = open(&card, 2, 1 << 20);
    (0..25).for_each(|sequence| append(&mut flash, &mut disk, 2, 1, sequence).unwrap());
    assert!(flash.evict_oldest(&mut disk).unwrap());
    append(&mut flash, &mut disk, 2, 0, 0).unwrap();
    flash.note_end(&info(0, 1), 1, 0, &[], 1);
    flash.sync(&mut disk).unwrap();
    assert_eq!(flash.lane(&key(1, 0)).unwrap().end, 50);
    flash.free(&mut disk, &key(1, 0), 50).unwrap();
    flash.free(&mut disk, &key(2, 0), 1).unwrap();
    assert!(flash.lane(&key(1, 0)).is_none() && flash.lane(&key(2, 0)).is_none(), "nothing of it is left to say");
    let (again, _) = Flash::open(&mut disk, config(2, 1 << 20), Some(&flash)).unwrap();
    assert!(again.lanes().all(|(key, lane)| lane.freed == if key.track == 1 { 0 } else { lane.end }));
}

#[test]
fn damage_in_the_segment_that_is_open_ends_the_reading_of_no_other() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 64 << 20);
    (0..50).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.sync(&mut disk).unwrap();
    card.fail_reads(&card.names()[0], 0);
    let mut cursor = Cursor::new();
    // A card that is away answers some things from memory.
    card.set_read_only(true);
    assert!(cursor.look(&mut flash, &mut disk, |_| u64::MAX).is_err());
    card.set_read_only(false);
    assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, [], "nothing is given up for that");
    assert_eq!(cursor.look(&mut flash, &mut disk, |_| u64::MAX).unwrap(), Look::End);
    (50..60).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    flash.sync(&mut disk).unwrap();
    let Look::Frame(stored) = cursor.look(&mut flash, &mut disk, |_| u64::MAX).unwrap() else { panic!("none") };
    assert_eq!(stored.frame.sequence, 50);
    assert_eq!(flash.lane(&key(1, 0)).unwrap().lost, [(0, 49, SkipReason::Corrupt)]);
}

#[test]
fn a_look_reads_no_more_than_a_little_at_once() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 1 << 40);
    (0..2_000).for_each(|sequence| append(&mut flash, &mut disk, 1, 0, sequence).unwrap());
    append(&mut flash, &mut disk, 1, 1, 0).unwrap();
    flash.sync(&mut disk).unwrap();
    let (mut cursor, mut looks) = (Cursor::new(), 0);
    let below = |key: &LaneKey| if key.track == 1 { u64::MAX } else { 0 };
    loop {
        let before = card.reads();
        match cursor.look(&mut flash, &mut disk, below).unwrap() {
            Look::Later => looks += 1,
            Look::Frame(stored) => break assert_eq!(stored.key.track, 1),
            Look::End => panic!("there is one"),
        }
        assert!(card.reads() - before <= 5);
    }
    assert!(looks > 5);
}

#[test]
fn an_epoch_of_which_only_holes_are_known_has_ended_as_it_did() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 1 << 20);
    flash.note_end(&info(0, 1), 0, 0, &[(3, 5, SkipReason::TooLarge), (4, 9, SkipReason::Thinned)], 20);
    flash.sync(&mut disk).and_then(|()| flash.seal(&mut disk)).unwrap();
    let (flash, _) = open(&card, 2, 1 << 20);
    let lane = flash.lane(&key(1, 0)).unwrap();
    assert_eq!((lane.oldest, lane.end, lane.ended), (0, 20, Some(EndReason::Stopped)), "it was no power cut");
    use SkipReason::{OverBudget, Thinned, TooLarge};
    assert_eq!(lane.lost, [(0, 2, OverBudget), (3, 4, TooLarge), (5, 8, Thinned), (9, 19, OverBudget)]);
}

#[test]
fn what_is_known_of_losses_does_not_grow_with_an_outage() {
    let card = SimDisk::new(1, u64::MAX);
    let mut disk = card.clone();
    let (mut flash, _) = open(&card, 1, 1 << 20);
    for sequence in 0..10_000 {
        (0..2).for_each(|track| append(&mut flash, &mut disk, 1, track, sequence).unwrap());
    }
    flash.seal(&mut disk).unwrap();
    assert!(flash.counts().frames_evicted > 15_000);
    let most = |flash: &Flash| flash.segments.iter().map(|segment| segment.lost.len()).max();
    assert!(most(&flash) <= Some(2), "one range for each track: {:?}", most(&flash));
    let (again, _) = open(&card, 2, 1 << 20);
    assert!(most(&again) <= Some(2) && again.lanes().all(|(_, lane)| lane.lost.len() == 1));
}

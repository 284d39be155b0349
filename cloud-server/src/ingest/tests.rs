//! The recorder on a disk in memory: what is told to be persisted is there after every power cut, once, and identical.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camagent_media::annexb;
use camagent_media::{Codec, Framing};
use camagent_proto::frame::{FrameHead, SkipReason};

use super::disk::Disk;
use super::ranges::Ranges;
use super::segment::scan;
use super::sim_disk::SimDisk;
use super::*;

const UTC: i64 = 1_760_000_000_000_000;

fn flow(track: u32) -> Arc<Flow> {
    Arc::new(Flow {
        key: TrackKey { agent: "a".into(), boot: [9; 16], track, epoch: 1 },
        camera: "cam".into(),
        source: "main".into(),
        codec: if track == 0 { Codec::H264 } else { Codec::Pcma },
        framing: if track == 0 { Framing::AnnexB } else { Framing::Raw },
        sample_rate: if track == 0 { 0 } else { 8_000 },
        channels: u16::from(track != 0),
        config: Bytes::new(),
    })
}

/// A picture that says its number: SPS and PPS before each fiftieth.
fn picture(sequence: u64) -> Vec<Bytes> {
    let sps: &[u8] = &[
        0x67, 0x64, 0, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0xc0, 0x44, 0, 0, 3, 0, 4, 0, 0, 3, 0, 0xc8,
        0x3c, 0x60, 0xc6, 0x58,
    ];
    let pps: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x30, 0x02, 0xc0];
    let is_key = sequence.is_multiple_of(50);
    let mut slice = vec![if is_key { 0x65 } else { 0x41 }, 0x88];
    slice.extend(sequence.to_be_bytes().map(|byte| byte | 1));
    slice.extend(std::iter::repeat_n(0xa5, 200));
    let slice = Bytes::from(slice);
    if is_key { vec![Bytes::from_static(sps), Bytes::from_static(pps), slice] } else { vec![slice] }
}

fn frame(flow: &Arc<Flow>, sequence: u64) -> Input {
    let at_us = 7_000_000 + sequence as i64 * 40_000;
    let payload = match flow.codec {
        Codec::H264 => Bytes::from(annexb::join(&picture(sequence))),
        _ => Bytes::from(vec![sequence as u8; 320]),
    };
    let head =
        FrameHead { pts_us: at_us, dts_us: at_us, arrival_us: 0, key: false, disposable: false, discontinuity: false };
    Input::Frame { flow: Arc::clone(flow), sequence, head, utc_us: UTC + at_us, payload }
}

fn settings() -> Settings {
    Settings { segment: Duration::from_secs(4), new_epoch: [5; 16], remember: Duration::from_secs(86_400) }
}

fn open(disk: &SimDisk) -> Recorder<SimDisk> {
    Recorder::open(disk.clone(), settings(), UTC).expect("opens")
}

/// All frames in all files, with how often each is there; each is compared with what was pushed.
fn stored(disk: &SimDisk) -> BTreeMap<(u32, u64), u32> {
    let mut disk = disk.clone();
    let mut stored = BTreeMap::new();
    for name in disk.list("").expect("lists") {
        if !name.starts_with("open/") && !name.starts_with("recordings/") {
            continue;
        }
        let data = disk.read(&name).expect("reads");
        let mut key = None;
        let Ok(info) = scan(&data, |head, part, bytes| {
            let mut at = 0;
            for (index, sample) in part.samples.iter().enumerate() {
                let bytes = &bytes[at..at + sample.size as usize];
                at += sample.size as usize;
                key.get_or_insert_with(Vec::new).push((head.first + index as u64, bytes.to_vec()));
            }
        }) else {
            continue;
        };
        for (sequence, bytes) in key.unwrap_or_default() {
            let track = info.head.key.track;
            let expected = match track {
                0 => camagent_media::fmp4::length_prefixed(&picture(sequence)),
                _ => vec![sequence as u8; 320],
            };
            assert_eq!(bytes, expected, "frame {sequence} of track {track} is what was pushed");
            *stored.entry((track, sequence)).or_insert(0) += 1;
        }
    }
    stored
}

fn told(recorder: &mut Recorder<SimDisk>) -> Vec<Told> {
    std::iter::from_fn(|| recorder.poll_told()).collect()
}

fn progress(told: &[Told], track: u32) -> Option<u64> {
    let own = told.iter().filter_map(|told| match told {
        Told::Progress(progress) if progress.key.track == track => Some(progress.next),
        _ => None,
    });
    own.last()
}

#[test]
fn frames_are_persisted_in_groups_and_files_end_at_key_frames() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let flow = flow(0);
    recorder.handle(0, Input::Track { flow: Arc::clone(&flow), next: 0 });
    let before = disk.syncs();
    let mut all = Vec::new();
    for sequence in 0..250 {
        let now = sequence * 40_000;
        recorder.handle_timeout(now);
        recorder.handle(now, frame(&flow, sequence));
        // A frame that comes again is dropped.
        recorder.handle(now, frame(&flow, sequence.saturating_sub(3)));
        all.extend(told(&mut recorder));
    }
    assert!(disk.syncs() - before < 70, "one group each 400 ms: {}", disk.syncs() - before);
    recorder.finish(10_000_000);
    all.extend(told(&mut recorder));
    assert_eq!(progress(&all, 0), Some(250));
    let files: Vec<_> = all
        .iter()
        .filter_map(|told| match told {
            Told::Closed(_, info) => Some((info.runs[0].first, info.runs[0].next, info.end_us() - info.start_us())),
            _ => None,
        })
        .collect();
    assert_eq!(files, [(0, 100, 4_000_000), (100, 200, 4_000_000), (200, 250, 2_000_000)]);
    assert_eq!(stored(&disk).values().copied().collect::<Vec<_>>(), [1; 250]);
}

#[test]
fn what_is_persisted_survives_every_power_cut_once_and_identical() {
    for seed in 0..100_u64 {
        let disk = SimDisk::new();
        let flows = [flow(0), flow(1)];
        let mut promised = [0_u64; 2];
        let mut pushed = [0_u64; 2];
        for life in 0..4 {
            let mut recorder = open(&disk);
            for progress in recorder.progress("a", [9; 16]) {
                let track = progress.key.track as usize;
                assert!(progress.next >= promised[track], "seed {seed}: a promise was forgotten");
            }
            disk.fail_after(20 + (seed * 31 + life * 17) % 160);
            for flow in &flows {
                let track = flow.key.track as usize;
                // The agent goes on at what is persisted, as its journal has it.
                recorder.handle(0, Input::Track { flow: Arc::clone(flow), next: promised[track] });
                pushed[track] = promised[track];
            }
            for step in 0..220_u64 {
                let now = step * 40_000;
                recorder.handle_timeout(now);
                for flow in &flows {
                    if recorder.is_stalled() {
                        continue;
                    }
                    let track = flow.key.track as usize;
                    recorder.handle(now, frame(flow, pushed[track]));
                    pushed[track] += 1;
                }
                for told in told(&mut recorder) {
                    if let Told::Progress(progress) = told {
                        let track = progress.key.track as usize;
                        promised[track] = promised[track].max(progress.next);
                    }
                }
            }
            drop(recorder);
            disk.cut_power(seed * 7 + life);
        }
        let recorder = open(&disk);
        let stored = stored(&disk);
        for flow in &flows {
            let track = flow.key.track;
            for sequence in 0..promised[track as usize] {
                assert_eq!(stored.get(&(track, sequence)), Some(&1), "seed {seed}, track {track}, frame {sequence}");
            }
            let ranges: Ranges = recorder.ranges(&flow.key);
            let beyond: Vec<_> =
                stored.keys().filter(|(own, number)| *own == track && !ranges.contains(*number)).collect();
            assert!(beyond.is_empty(), "seed {seed}: {beyond:?} are in files and not in the log");
        }
        assert!(stored.values().all(|count| *count == 1), "seed {seed}: a frame is there twice");
        assert!(promised[0] > 0 || seed % 5 != 0, "something is persisted at all");
    }
}

#[test]
fn a_full_disk_withholds_and_loses_nothing_when_there_is_room_again() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let flow = flow(0);
    recorder.handle(0, Input::Track { flow: Arc::clone(&flow), next: 0 });
    disk.set_room(Some(9_000));
    let (mut next, mut all) = (0, Vec::new());
    for step in 0..400_u64 {
        let now = step * 40_000;
        recorder.handle_timeout(now);
        while !recorder.is_stalled() && next <= step {
            recorder.handle(now, frame(&flow, next));
            next += 1;
        }
        if step == 200 {
            assert!(recorder.is_stalled());
            let persisted = progress(&all, 0).expect("some fitted");
            assert!(persisted < 100);
            disk.set_room(None);
        }
        all.extend(told(&mut recorder));
    }
    recorder.finish(16_000_000);
    all.extend(told(&mut recorder));
    assert_eq!(progress(&all, 0), Some(400));
    assert_eq!(all.iter().filter(|told| matches!(told, Told::Stalled(_))).count(), 1, "told once");
    assert_eq!(all.iter().filter(|told| matches!(told, Told::Resumed)).count(), 1);
    assert_eq!(stored(&disk).values().copied().collect::<Vec<_>>(), [1; 400]);
}

#[test]
fn holes_have_reasons_and_late_frames_find_their_place() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let flow = flow(0);
    recorder.handle(0, Input::Track { flow: Arc::clone(&flow), next: 0 });
    for sequence in 0..60 {
        recorder.handle(0, frame(&flow, sequence));
    }
    let reason = GapReason::skipped(SkipReason::OverBudget);
    recorder.handle(0, Input::Skip { flow: Arc::clone(&flow), first: 60, last: 99, reason });
    // Live goes on far ahead, what is between follows.
    for sequence in (300..360).chain(100..300) {
        recorder.handle(0, frame(&flow, sequence));
    }
    assert!(recorder.commit(1));
    let all = told(&mut recorder);
    assert_eq!(progress(&all, 0), Some(360));
    let gaps: Vec<_> =
        all.iter().filter_map(|told| if let Told::Gap(gap, _) = told { Some(gap) } else { None }).collect();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].first, gaps[0].next, gaps[0].reason.name()), (60, 100, "over_budget"));
    let mut garbage = frame(&flow, 360);
    if let Input::Frame { payload, .. } = &mut garbage {
        *payload = Bytes::from_static(b"no start code");
    }
    recorder.handle(2, garbage);
    recorder.handle(2, frame(&flow, 361));
    recorder.finish(3);
    let all = told(&mut recorder);
    assert_eq!(progress(&all, 0), Some(362), "what cannot be read is not asked for again");
    assert!(all.iter().any(|told| matches!(told, Told::Gap(gap, _) if gap.reason == GapReason::UNREADABLE)));
    assert_eq!(stored(&disk).len(), 362 - 41);
}

#[test]
fn what_is_skipped_but_was_stored_is_no_gap() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let flow = flow(0);
    recorder.handle(0, Input::Track { flow: Arc::clone(&flow), next: 0 });
    for sequence in (0..20).chain(40..60) {
        recorder.handle(0, frame(&flow, sequence));
    }
    let reason = GapReason::skipped(SkipReason::Live);
    recorder.handle(0, Input::Skip { flow: Arc::clone(&flow), first: 10, last: 19, reason });
    let reason = GapReason::skipped(SkipReason::OverBudget);
    recorder.handle(0, Input::Skip { flow: Arc::clone(&flow), first: 15, last: 49, reason });
    recorder.handle(0, frame(&flow, 60));
    recorder.finish(1);
    let all = told(&mut recorder);
    assert_eq!(progress(&all, 0), Some(61));
    let gaps: Vec<_> =
        all.iter().filter_map(|told| if let Told::Gap(gap, _) = told { Some(gap) } else { None }).collect();
    assert_eq!(gaps.iter().map(|gap| (gap.first, gap.next)).collect::<Vec<_>>(), [(20, 40)]);
    assert_eq!(stored(&disk).len(), 41);
}

#[test]
fn what_is_not_ours_is_named_and_set_aside_and_a_later_version_is_left_alone() {
    let disk = SimDisk::new();
    drop(open(&disk));
    let mut writing = disk.clone();
    for (name, content) in
        [("open/holiday.mp4", &b"\0\0\0\x18ftypmp42and so on"[..]), ("open/letter.txt", b"dear reader")]
    {
        let mut file = writing.create(name).expect("makes");
        writing.append(&mut file, content).expect("writes");
    }
    writing.remove("persisted.log").expect("there");
    let mut file = writing.create("persisted.log").expect("makes");
    writing.append(&mut file, b"not a log of persisted frames").expect("writes");
    let mut recorder = open(&disk);
    let aside: Vec<_> = told(&mut recorder)
        .into_iter()
        .filter_map(|told| if let Told::SetAside { name, reason } = told { Some((name, reason)) } else { None })
        .collect();
    assert_eq!(aside.len(), 3, "{aside:?}");
    assert_eq!(writing.list("set-aside").expect("lists").len(), 3);
    assert_eq!(recorder.storage_epoch(), [5; 16]);
    drop(recorder);
    assert!(told(&mut open(&disk)).is_empty(), "told once");
    writing.remove("store").expect("there");
    let mut file = writing.create("store").expect("makes");
    writing.append(&mut file, b"camagent recordings 2\nffff\n").expect("writes");
    let error = Recorder::open(disk.clone(), settings(), UTC).err().expect("a later version's");
    assert!(error.to_string().contains("later version"), "{error}");
    assert_eq!(writing.read("store").expect("reads"), b"camagent recordings 2\nffff\n", "and untouched");
}

#[test]
fn a_lost_log_is_made_again_from_the_files() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let flow = flow(0);
    recorder.handle(0, Input::Track { flow: Arc::clone(&flow), next: 0 });
    for sequence in 0..130 {
        recorder.handle(0, frame(&flow, sequence));
    }
    recorder.finish(1);
    drop(recorder);
    let mut writing = disk.clone();
    writing.remove("persisted.log").expect("there");
    let recorder = open(&disk);
    assert_eq!(recorder.ranges(&flow.key).iter().collect::<Vec<_>>(), [(0, 130)]);
}

#[test]
fn a_new_disk_with_folders_of_others_is_used_and_a_file_that_cannot_be_read_is_set_aside() {
    let disk = SimDisk::new();
    disk.forbid("lost+found/");
    let mut recorder = open(&disk);
    let flow = flow(0);
    recorder.handle(0, Input::Track { flow: Arc::clone(&flow), next: 0 });
    (0..60).for_each(|sequence| recorder.handle(0, frame(&flow, sequence)));
    assert!(recorder.commit(1));
    drop(recorder);
    let mut writing = disk.clone();
    writing.create("open/of-root.mp4").expect("makes");
    disk.forbid("open/of-root.mp4");
    let mut recorder = open(&disk);
    assert_eq!(recorder.ranges(&flow.key).iter().collect::<Vec<_>>(), [(0, 60)]);
    let all = told(&mut recorder);
    let aside = all.iter().filter(|told| matches!(told, Told::SetAside { name, .. } if name.ends_with("of-root.mp4")));
    assert_eq!(aside.count(), 1, "{all:?}");
}

#[test]
fn without_descriptors_files_that_wait_end_so_that_others_can_begin() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let (first, second) = (flow(0), flow(1));
    recorder.handle(0, Input::Track { flow: Arc::clone(&first), next: 0 });
    (0..60).for_each(|sequence| recorder.handle(0, frame(&first, sequence)));
    assert!(recorder.commit(1));
    told(&mut recorder);
    disk.set_out_of_descriptors(true);
    recorder.handle(2, Input::Track { flow: Arc::clone(&second), next: 0 });
    (0..60).for_each(|sequence| recorder.handle(2, frame(&second, sequence)));
    assert!(!recorder.commit(3));
    let all = told(&mut recorder);
    assert!(all.iter().any(|told| matches!(told, Told::Stalled(_))));
    assert!(all.iter().any(|told| matches!(told, Told::Closed(..))), "what was complete gives its descriptor back");
    disk.set_out_of_descriptors(false);
    recorder.handle_timeout(3_000_000);
    assert!(!recorder.is_stalled());
    (60..120).for_each(|sequence| recorder.handle(4_000_000, frame(&first, sequence)));
    recorder.finish(5_000_000);
    let all = told(&mut recorder);
    assert_eq!((progress(&all, 0), progress(&all, 1)), (Some(120), Some(60)));
    assert_eq!(stored(&disk).values().copied().collect::<Vec<_>>(), [1; 180]);
}

#[test]
fn a_clock_that_runs_ahead_dates_nothing_later_than_now() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let flow = flow(0);
    recorder.set_utc(UTC + 8_000_000);
    recorder.handle(0, Input::Track { flow: Arc::clone(&flow), next: 0 });
    for sequence in 0..20 {
        let Input::Frame { flow, sequence, head, payload, .. } = frame(&flow, sequence) else { continue };
        let utc_us = UTC + 70 * 365 * 86_400_000_000;
        recorder.handle(0, Input::Frame { flow, sequence, head, utc_us, payload });
    }
    recorder.finish(1);
    let closed = told(&mut recorder).into_iter().find_map(|told| match told {
        Told::Closed(_, info) => Some(info),
        _ => None,
    });
    let ends_us = closed.expect("a file").end_us();
    assert!(ends_us <= UTC + 70_000_000, "{ends_us}");
}

/// A disk that is full from the start leaves a file without an octet.
#[test]
fn a_disk_that_was_full_at_the_first_start_is_used_when_there_is_room() {
    let disk = SimDisk::new();
    for room in [0, 5, 30] {
        disk.set_room(Some(room));
        assert!(Recorder::open(disk.clone(), settings(), UTC).is_err(), "{room}");
    }
    disk.set_room(Some(0));
    assert!(Recorder::open(disk.clone(), settings(), UTC).is_err());
    disk.set_room(None);
    assert_eq!(open(&disk).storage_epoch(), settings().new_epoch);
}

/// A store that is new has nothing of what its agent let go of: pictures may come whose key frame another store had.
#[test]
fn pictures_whose_key_frame_was_let_go_of_are_a_gap_once_their_epoch_is_over() {
    let disk = SimDisk::new();
    let mut recorder = open(&disk);
    let video = flow(0);
    let key = video.key.clone();
    recorder.handle(0, Input::Track { flow: Arc::clone(&video), next: 61 });
    (61..64).for_each(|sequence| recorder.handle(sequence, frame(&video, sequence)));
    recorder.handle_timeout(500_000);
    let refused =
        |told: &[Told]| told.iter().filter(|told| matches!(told, Told::Refused { is_readable: false, .. })).count();
    assert_eq!(refused(&told(&mut recorder)), 3);
    // A newer epoch says nothing of what a card has of this one.
    let newer = Flow { key: TrackKey { epoch: 2, ..key.clone() }, ..(*video).clone() };
    recorder.handle(550_000, Input::Track { flow: Arc::new(newer), next: 0 });
    assert!(!recorder.is_readable(&key, 61), "a key frame may follow, or what is before it may come");
    let (flow, cause) = (Arc::clone(&video), camagent_proto::frame::EndReason::PowerCut);
    recorder.handle(600_000, Input::Ended { flow, next: 64, cause });
    assert!(recorder.is_readable(&key, 61) && !recorder.is_readable(&key, 63));
    // They are asked for, and come once more.
    (61..64).for_each(|sequence| recorder.handle(700_000, frame(&video, sequence)));
    recorder.handle_timeout(1_200_000);
    let heard = told(&mut recorder);
    assert_eq!((refused(&heard), progress(&heard, 0)), (0, Some(64)));
    let gaps: Vec<_> = recorder.ledger().gaps().map(|gap| (gap.first, gap.next, gap.reason)).collect();
    assert_eq!(gaps, [(61, 64, GapReason::UNREADABLE)]);
}

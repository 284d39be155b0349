//! A link that carries less than what cameras bring: who goes first, what is left out, and that all that arrives can be decoded.

use std::collections::BTreeMap;

use camagent_proto::{
    Duration, Instant,
    frame::{Frame, FrameHead, MAX_RECORD, RecordReader, RecordWriter, SkipReason, TrackInfo},
    message::{Camera, Command, CommandError, Limits, Retention, Source, SourceState},
    pair::{Pair, TestJournal},
    scheduler::Class,
    session::{AgentConfig, AgentEvent, ServerEvent, Transmit},
    transfer::{Delivery, Sender},
};
use serde_json::json;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

const MAIN: u32 = 0;
const SUB: u32 = 1;
const SOUND: u32 = 2;

/// One message at a time, each for `each`: with records of 16 KiB and 200 ms that are 650 kbit/s.
fn link(each: Duration) -> Pair {
    let mut pair = Pair::new();
    pair.connect();
    pair.drive_until(SECOND, |pair| pair.agent.is_established());
    pair.window = 1;
    pair.latency = each;
    pair
}

/// A camera that brings a picture each 40 ms and sound each 20 ms.
struct Encoder {
    /// Octets of a picture, by track.
    pictures: Vec<(u32, usize)>,
    group: u64,
    /// Each second picture is one that no other refers to.
    disposable: bool,
    /// Tracks that begin a new group with their next picture, if the encoder listens.
    asked: Vec<u32>,
    listens: bool,
    since_key: BTreeMap<u32, u64>,
}

impl Encoder {
    fn new(pictures: &[(u32, usize)]) -> Self {
        let pictures = pictures.to_vec();
        Self { pictures, group: 50, disposable: false, asked: Vec::new(), listens: false, since_key: BTreeMap::new() }
    }

    fn run(&mut self, pair: &mut Pair, duration: Duration) {
        let until = pair.now() + duration;
        let mut tick = 0_u64;
        while pair.now() < until {
            push(pair, SOUND, FrameHead { key: true, ..FrameHead::default() }, 160);
            if tick.is_multiple_of(2) {
                for (track, length) in self.pictures.clone() {
                    let since = self.since_key.entry(track).or_insert(self.group);
                    let asked = self.asked.iter().position(|asked| *asked == track).filter(|_| self.listens);
                    let key = *since >= self.group || asked.is_some();
                    asked.map(|at| self.asked.remove(at));
                    *since = if key { 1 } else { *since + 1 };
                    let disposable = self.disposable && !key && since.is_multiple_of(2);
                    let head = FrameHead { key, disposable, ..FrameHead::default() };
                    push(pair, track, head, if key { length * 4 } else { length });
                }
            }
            pair.drive(20 * MS);
            let asked = |event: &AgentEvent| match event {
                AgentEvent::KeyFrameNeeded(track) => Some(*track),
                _ => None,
            };
            self.asked.extend(pair.agent_events.iter().filter_map(asked));
            pair.agent_events.retain(|event| asked(event).is_none());
            tick += 1;
        }
    }
}

fn push(pair: &mut Pair, track: u32, head: FrameHead, length: usize) {
    let head = FrameHead { arrival_us: pair.now().as_micros(), ..head };
    pair.journal.push(track, 1, head, vec![track as u8; length].into());
}

fn frames(pair: &Pair, track: u32) -> usize {
    let is_one = |delivery: &&Delivery| matches!(delivery, Delivery::Frame(frame) if frame.track == track);
    pair.delivered.iter().filter(is_one).count()
}

fn skipped(pair: &Pair, track: u32) -> Vec<(u64, u64, SkipReason)> {
    let skips = pair.delivered.iter().filter_map(|delivery| match delivery {
        Delivery::Skip { skip, .. } if skip.track == track => Some((skip.first, skip.last, skip.reason)),
        _ => None,
    });
    skips.collect()
}

/// Every number of every track came once, as a frame or in a SKIP; and what came can be decoded.
fn check(pair: &Pair) {
    assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None));
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut broken: BTreeMap<u32, bool> = BTreeMap::new();
    for delivery in &pair.delivered {
        match delivery {
            Delivery::Frame(frame) => {
                let next = next.entry(frame.track).or_default();
                assert_eq!(frame.sequence, *next, "track {}", frame.track);
                *next += 1;
                let broken = broken.entry(frame.track).or_default();
                *broken &= !frame.head.key;
                assert!(!*broken, "track {}: frame {} refers to what was left out", frame.track, frame.sequence);
            }
            Delivery::Skip { skip, .. } => {
                assert_eq!(next.insert(skip.track, skip.last + 1).unwrap_or_default(), skip.first);
                *broken.entry(skip.track).or_default() |= skip.track != SOUND && skip.reason != SkipReason::Disposable;
            }
            Delivery::Track(_) | Delivery::Past(_) => {}
        }
    }
}

#[test]
fn a_large_picture_holds_up_no_sound() {
    let mut pair = link(50 * MS);
    pair.track_of("main", MAIN, 1, 0, None);
    pair.track_of("main", SOUND, 1, 8_000, None);
    push(&mut pair, MAIN, FrameHead { key: true, ..FrameHead::default() }, 1 << 20);
    pair.drive(200 * MS);
    push(&mut pair, SOUND, FrameHead::default(), 160);
    pair.drive(110 * MS);
    assert_eq!((frames(&pair, SOUND), frames(&pair, MAIN)), (1, 0), "between the pieces of the picture");
    pair.drive(10 * SECOND);
    assert_eq!(frames(&pair, MAIN), 1);
    check(&pair);
}

#[test]
fn when_the_link_is_short_the_sub_stream_and_the_sound_are_whole() {
    // 328 kbyte/s for 500 kbyte/s of main, 50 of sub and 8 of sound.
    let mut pair = link(50 * MS);
    pair.track_of("main", MAIN, 1, 0, Some(3 * SECOND));
    pair.track_of("sub", SUB, 1, 0, Some(3 * SECOND));
    pair.track_of("main", SOUND, 1, 8_000, Some(3 * SECOND));
    let mut camera = Encoder::new(&[(MAIN, 20_000), (SUB, 2_000)]);
    camera.run(&mut pair, 30 * SECOND);
    check(&pair);
    assert_eq!((skipped(&pair, SUB), skipped(&pair, SOUND)), (vec![], vec![]));
    assert!(frames(&pair, SUB) >= 745 && frames(&pair, SOUND) >= 1_490);
    assert!(frames(&pair, MAIN) > 250, "main has what is left: {}", frames(&pair, MAIN));
    let reasons: Vec<_> = skipped(&pair, MAIN).into_iter().map(|(_, _, reason)| reason).collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == SkipReason::Late), "{reasons:?}");
}

#[test]
fn sound_that_a_pause_of_the_path_held_up_is_live_again_soon() {
    let mut pair = link(50 * MS);
    // Main always waits for as long as it may.
    pair.track_of("main", MAIN, 1, 0, Some(3 * SECOND));
    pair.track_of("main", SOUND, 1, 8_000, Some(3 * SECOND));
    let mut camera = Encoder::new(&[(MAIN, 20_000)]);
    camera.run(&mut pair, 5 * SECOND);
    pair.latency = 2 * SECOND;
    camera.run(&mut pair, 2 * SECOND);
    pair.latency = 50 * MS;
    camera.run(&mut pair, 5 * SECOND);
    check(&pair);
    let sound = frames(&pair, SOUND);
    assert!(skipped(&pair, SOUND).is_empty() && sound >= 590, "{sound} of 600 pieces of sound");
    assert!(frames(&pair, MAIN) > 100, "main has what is left: {}", frames(&pair, MAIN));
}

#[test]
fn an_encoder_that_is_asked_is_live_again_at_once() {
    let run = |listens: bool| {
        let mut pair = link(50 * MS);
        pair.track_of("main", MAIN, 1, 0, Some(SECOND));
        // One group is longer than the budget: without a new key frame the rest of it is lost.
        let mut camera = Encoder { group: 250, listens, ..Encoder::new(&[(MAIN, 20_000)]) };
        camera.run(&mut pair, 30 * SECOND);
        check(&pair);
        frames(&pair, MAIN)
    };
    let (asked, not_asked) = (run(true), run(false));
    assert!(asked > 2 * not_asked && asked > 350, "{asked} pictures, and {not_asked} without asking");
}

#[test]
fn an_encoder_is_told_what_the_link_carries() {
    let mut pair = link(50 * MS);
    pair.track_of("main", MAIN, 1, 0, Some(3 * SECOND));
    let mut camera = Encoder::new(&[(MAIN, 20_000)]);
    let (mut told, mut followed) = (Vec::new(), 0);
    for _ in 0..120 {
        camera.run(&mut pair, SECOND / 2);
        pair.agent_events.retain(|event| match event {
            AgentEvent::TargetBitrate { track, bits_per_second } => {
                told.push((*track, *bits_per_second));
                false
            }
            _ => true,
        });
        if let Some((_, bits)) = told.get(followed..).and_then(<[_]>::last) {
            // 25 pictures a second; key frames are four times as large.
            camera.pictures = vec![(MAIN, if *bits == 0 { 20_000 } else { *bits as usize / 8 / 27 })];
            followed = told.len();
        }
    }
    check(&pair);
    let (first, last) = (told[0], told[told.len() - 1]);
    assert!(first.0 == MAIN && (1_500_000..3_000_000).contains(&last.1), "a link of 2.6 Mbit/s: {told:?}");
    let late = skipped(&pair, MAIN).len();
    camera.run(&mut pair, 20 * SECOND);
    assert_eq!(skipped(&pair, MAIN).len(), late, "and nothing is late any more");
}

#[test]
fn disposable_pictures_go_before_others() {
    let mut pair = link(50 * MS);
    pair.track_of("main", MAIN, 1, 0, Some(2 * SECOND));
    // 13 kbyte each 40 ms are just what the link carries; half of them may go.
    let mut camera = Encoder { disposable: true, ..Encoder::new(&[(MAIN, 15_000)]) };
    camera.run(&mut pair, 30 * SECOND);
    check(&pair);
    let reasons = skipped(&pair, MAIN);
    assert!(!reasons.is_empty(), "the link is short");
    assert!(reasons.iter().all(|(.., reason)| *reason == SkipReason::Disposable), "{reasons:?}");
}

#[test]
fn what_the_server_records_is_late_rather_than_left_out() {
    let sources = vec![Source { name: "main".into(), ..Source::default() }];
    let cameras = vec![Camera { id: "camera".into(), sources, ..Camera::default() }];
    let mut pair = Pair::with(AgentConfig { cameras, ..Pair::config() });
    let (camera, source) = ("camera".into(), "main".into());
    pair.sources = vec![SourceState { camera, source, wanted: true, retention: Retention::Record }];
    pair.connect();
    pair.drive_until(SECOND, |pair| pair.agent.is_established());
    (pair.window, pair.latency) = (1, 50 * MS);
    pair.track_of("main", MAIN, 1, 0, Some(SECOND));
    Encoder::new(&[(MAIN, 20_000)]).run(&mut pair, 20 * SECOND);
    pair.latency = MS;
    pair.drive(60 * SECOND);
    check(&pair);
    assert_eq!((frames(&pair, MAIN), skipped(&pair, MAIN)), (500, vec![]));
}

#[test]
fn what_waited_for_a_connection_is_not_late() {
    let mut pair = link(MS);
    pair.track_of("main", MAIN, 1, 0, Some(SECOND));
    pair.track_of("main", SOUND, 1, 8_000, Some(SECOND));
    pair.cut();
    Encoder::new(&[(MAIN, 5_000)]).run(&mut pair, 20 * SECOND);
    pair.connect();
    pair.drive(5 * SECOND);
    check(&pair);
    assert_eq!((frames(&pair, MAIN), frames(&pair, SOUND)), (500, 1_000));
}

#[test]
fn what_was_left_out_on_a_dead_link_is_sent_after_all_and_not_counted() {
    let mut pair = link(50 * MS);
    pair.track_of("main", MAIN, 1, 0, Some(SECOND));
    let mut camera = Encoder { group: 25, ..Encoder::new(&[(MAIN, 10_000)]) };
    camera.run(&mut pair, SECOND);
    // One message is under way for the rest of the test.
    pair.latency = 100 * SECOND;
    camera.run(&mut pair, 4 * SECOND);
    pair.window = 50;
    camera.run(&mut pair, SECOND);
    assert!(pair.agent.transfer_counts().frames_late > 50);
    pair.cut();
    (pair.latency, pair.window) = (MS, 8);
    pair.connect();
    pair.drive(5 * SECOND);
    check(&pair);
    assert_eq!((frames(&pair, MAIN), skipped(&pair, MAIN)), (150, vec![]));
    let counts = pair.agent.transfer_counts();
    assert_eq!((counts.frames_late, counts.frames_skipped), (0, 0));
}

/// Left out together with what was too late it was one that others might refer to; as the only one that is left out it is not.
#[test]
fn behind_a_frame_that_nothing_refers_to_frames_go_on_in_the_next_session() {
    let (mut sender, mut journal) = (Sender::new(), TestJournal::default());
    let info = TrackInfo {
        track: MAIN,
        epoch: 1,
        next: 0,
        camera: "camera".into(),
        source: "main".into(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config: Default::default(),
    };
    sender.announce(info, Some(SECOND));
    let fill = |sender: &mut Sender, journal: &mut TestJournal, at: Duration| {
        let mut record = RecordWriter::new(MAX_RECORD);
        sender.fill(Class::Video, Instant::ZERO + at, &mut record, journal);
        let mut reader = RecordReader::new(record.finish()).unwrap();
        let (mut sent, mut lost) = (Vec::new(), Vec::new());
        while let Some(frame) = reader.next_frame().unwrap() {
            match frame {
                Frame::Frame(start) => sent.push(start.sequence),
                Frame::Skip(skip) => lost.push((skip.first, skip.last, skip.reason)),
                _ => {}
            }
        }
        (sent, lost)
    };
    sender.rewind(Instant::ZERO, &[], &Limits::default(), &mut journal, false);
    journal.push(MAIN, 1, FrameHead { key: true, ..FrameHead::default() }, vec![1; 100].into());
    assert_eq!(fill(&mut sender, &mut journal, MS), (vec![0], vec![]));
    journal.push(MAIN, 1, FrameHead { disposable: true, ..FrameHead::default() }, vec![1; 100].into());
    journal.push(MAIN, 1, FrameHead::default(), vec![1; 100].into());
    assert_eq!(fill(&mut sender, &mut journal, 10 * SECOND), (vec![], vec![(1, 2, SkipReason::Late)]));
    // The server heard nothing of it.
    sender.rewind(Instant::ZERO + 20 * SECOND, &[], &Limits::default(), &mut journal, false);
    let again = fill(&mut sender, &mut journal, 20 * SECOND + 600 * MS);
    assert_eq!(again, (vec![0, 2], vec![(1, 1, SkipReason::Disposable)]));
}

#[test]
fn late_frames_and_cuts_together_leave_nothing_unexplained() {
    for seed in 1..40_u64 {
        let mut pair = link(MS * (20 + 7 * (seed % 13) as u32));
        pair.track_of("main", MAIN, 1, 0, Some(SECOND));
        pair.track_of("sub", SUB, 1, 0, Some(2 * SECOND));
        pair.track_of("main", SOUND, 1, 8_000, Some(SECOND));
        let disposable = seed % 2 == 0;
        let (group, listens) = (10 + seed * 7 % 60, seed % 3 == 0);
        let mut camera = Encoder { group, disposable, listens, ..Encoder::new(&[(MAIN, 18_000), (SUB, 1_500)]) };
        for cut in 0..6 {
            camera.run(&mut pair, MS * (300 + ((seed * 37 + cut * 911) % 2_500) as u32));
            pair.cut();
            camera.run(&mut pair, MS * ((seed * 53 + cut * 311) % 400) as u32);
            pair.connect();
        }
        pair.drive(60 * SECOND);
        check(&pair);
        assert!(pair.agent.is_settled(&mut pair.journal) && pair.journal.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_flood_of_commands_leaves_room_for_media() {
    let mut pair = link(50 * MS);
    pair.track_of("main", MAIN, 1, 0, None);
    pair.track_of("main", SOUND, 1, 8_000, None);
    let mut camera = Encoder::new(&[(MAIN, 12_000)]);
    let mut answered = 0;
    for number in 0..100 {
        let id = Some(format!("c{number}"));
        pair.server.as_mut().unwrap().command(Command { id, action: "log".into(), ..Default::default() });
        pair.drive(MS);
        let tokens: Vec<_> = pair
            .agent_events
            .iter()
            .filter_map(|event| match event {
                AgentEvent::Command(token, _) => Some(*token),
                _ => None,
            })
            .collect();
        for token in tokens {
            let log: Result<_, CommandError> = Ok(json!("x".repeat(3_000)));
            answered += usize::from(pair.agent.answer(token, log).is_ok());
        }
        pair.agent_events.clear();
        camera.run(&mut pair, 40 * MS);
    }
    assert!(answered > 90, "{answered}");
    check(&pair);
    let sound = frames(&pair, SOUND);
    assert!(sound > 180, "{sound} of 200 pieces of sound beside the answers");
    pair.drive(10 * SECOND);
    let results = pair.server_events.iter().filter(|event| matches!(event, ServerEvent::CommandResult(_))).count();
    assert_eq!(results, answered);
}

#[test]
fn only_what_is_urgent_goes_when_the_path_is_busy() {
    let mut pair = link(MS);
    pair.track_of("main", MAIN, 1, 0, None);
    pair.track_of("main", SOUND, 1, 8_000, None);
    pair.drive(SECOND);
    push(&mut pair, MAIN, FrameHead { key: true, ..FrameHead::default() }, 50_000);
    let now = pair.now();
    assert_eq!(pair.agent.poll_urgent(now, &mut pair.journal, 2_000, true), None);
    push(&mut pair, SOUND, FrameHead::default(), 160);
    assert_eq!(pair.agent.poll_urgent(now, &mut pair.journal, 2_000, false), None, "sound may find a record soon");
    let Some(Transmit::Binary(record)) = pair.agent.poll_urgent(now, &mut pair.journal, 2_000, true) else { panic!() };
    assert!(record.len() < 200);
    pair.agent.push_event(now, None, "motion", json!(null)).unwrap();
    assert!(matches!(pair.agent.poll_urgent(now, &mut pair.journal, 2_000, false), Some(Transmit::Text(_))));
    assert_eq!(pair.agent.poll_urgent(now, &mut pair.journal, 2_000, true), None);
}

//! Frames of the past, of this run of an agent and of former ones, on lanes: each comes once, none without a word stays away, and live frames go first.

use camagent_proto::{
    Duration,
    frame::TrackInfo,
    message::{BootId, Camera, Retention, Source, SourceState},
    pair::Pair,
    session::AgentConfig,
    transfer::{Delivery, EpochKey},
};

const MINUTE: Duration = Duration::from_secs(60);

fn config() -> AgentConfig {
    AgentConfig {
        boot_id: BootId([200; 16]),
        cameras: vec![Camera {
            id: "camera".into(),
            sources: vec![Source { name: "main".into(), ..Source::default() }],
            ..Camera::default()
        }],
        ..Pair::config()
    }
}

fn recording() -> Pair {
    let mut pair = Pair::with(config());
    let (camera, source) = ("camera".into(), "main".into());
    pair.sources = vec![SourceState { camera, source, wanted: true, retention: Retention::Record }];
    pair
}

fn info(track: u32, epoch: u64, next: u64) -> TrackInfo {
    TrackInfo {
        track,
        epoch,
        next,
        camera: "camera".into(),
        source: "main".into(),
        codec: 1,
        framing: 1,
        sample_rate: 0,
        channels: 0,
        config: Default::default(),
    }
}

fn key(boot: u8, track: u32, epoch: u64) -> EpochKey {
    EpochKey { boot: BootId([boot; 16]), track, epoch }
}

#[test]
fn hundreds_of_runs_arrive_in_order_and_are_let_go() {
    let mut pair = recording();
    for boot in 0..150_u8 {
        for track in 0..2 {
            for epoch in 1..=2 {
                let numbers = 10..20;
                pair.journal.backlog.add(BootId([boot; 16]), info(track, epoch, 10), numbers, 20, 3_000);
            }
        }
    }
    pair.connect();
    pair.drive(10 * MINUTE);
    assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None));
    assert_eq!(pair.store.frames.len(), 150 * 2 * 2 * 10);
    let boots: Vec<_> = pair.store.frames.iter().map(|(key, _)| key.boot).collect();
    assert!(boots.is_sorted(), "oldest first");
    assert_eq!((pair.store.ended.len(), pair.store.holes.len()), (600, 0));
    assert!(pair.journal.backlog.is_empty(), "what is stored is let go");
}

#[test]
fn cuts_lose_and_double_nothing_and_holes_are_told() {
    for seed in 1..40_u64 {
        let mut pair = recording();
        pair.journal.backlog.is_slow = seed % 2 == 0;
        pair.window = 1 + seed as usize % 4;
        // Of the second run 5 to 8 had to go, and of the third the end.
        pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..40, 40, 20_000);
        pair.journal.backlog.add(BootId([2; 16]), info(0, 1, 0), (0..5).chain(9..40), 40, 700);
        pair.journal.backlog.add(BootId([3; 16]), info(0, 4, 30), 30..60, 70, 5_000);
        for cut in 0..12 {
            pair.connect();
            pair.drive(Duration::from_millis(100 + seed * 7 % 50 + cut * 11));
            pair.cut();
        }
        pair.connect();
        pair.drive(5 * MINUTE);
        assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None), "seed {seed}");
        let numbers = |boot, epoch| -> Vec<u64> {
            pair.store.frames.iter().filter(|frame| frame.0 == key(boot, 0, epoch)).map(|frame| frame.1).collect()
        };
        assert_eq!(numbers(1, 1), (0..40).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(numbers(2, 1), (0..5).chain(9..40).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(numbers(3, 4), (30..60).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(pair.store.holes, [(key(2, 0, 1), 5, 8), (key(3, 0, 4), 60, 69)], "seed {seed}");
        assert_eq!(pair.store.ended.len(), 3, "seed {seed}");
        assert_eq!(pair.agent.transfer_counts().frames_skipped, 14, "seed {seed}: a repeat counts once");
    }
}

#[test]
fn a_backlog_that_is_read_anew_in_the_middle_of_a_frame_sends_no_octet_of_another() {
    for every in 2..12 {
        let mut pair = recording();
        pair.journal.backlog.restarts_every = every;
        pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..40, 40, 20_000);
        pair.connect();
        pair.drive(5 * MINUTE);
        assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None), "every {every}");
        let numbers: Vec<u64> = pair.store.frames.iter().map(|frame| frame.1).collect();
        // A frame of 20 000 octets takes two copies.
        let expected = if every > 2 { 40 } else { numbers.len() as u64 };
        assert_eq!(numbers, (0..expected).collect::<Vec<_>>(), "every {every}");
    }
}

#[test]
fn what_the_server_has_is_not_sent_again() {
    let mut pair = recording();
    pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..40, 40, 5_000);
    pair.store.next.insert(key(1, 0, 1), 35);
    pair.connect();
    pair.drive(MINUTE);
    let numbers: Vec<u64> = pair.store.frames.iter().map(|frame| frame.1).collect();
    assert_eq!(numbers, (35..40).collect::<Vec<_>>());
    assert_eq!(pair.agent.transfer_counts().frames_backfilled, 5);
    assert!(pair.journal.backlog.is_empty());
}

/// A run that was killed: its card ends before the live frames that the server got and stored of it.
#[test]
fn a_card_may_end_before_what_came_live() {
    let mut pair = recording();
    pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..40, 40, 5_000);
    pair.store.next.insert(key(1, 0, 1), 55);
    pair.connect();
    pair.drive(MINUTE);
    assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None));
    assert!(pair.store.frames.is_empty() && pair.journal.backlog.is_empty());
    assert!(pair.store.ended.contains(&key(1, 0, 1)));
}

#[test]
fn a_server_that_records_nothing_gets_nothing_of_the_past() {
    let mut pair = recording();
    pair.sources.clear();
    pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..40, 40, 5_000);
    pair.connect();
    pair.drive(MINUTE);
    assert!(pair.store.frames.is_empty());
    assert_eq!(pair.journal.backlog.len(), 40, "it is kept for one that does");
    let (camera, source) = ("camera".into(), "main".into());
    let state = SourceState { camera, source, wanted: true, retention: Retention::Record };
    pair.server.as_mut().unwrap().set_wanted(state);
    pair.drive(MINUTE);
    assert_eq!(pair.store.frames.len(), 40, "or that begins to");
}

#[test]
fn live_frames_go_before_those_of_the_past() {
    let mut pair = recording();
    pair.window = 1;
    pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..500, 500, 16_000);
    pair.track(0, 1);
    pair.connect();
    for number in 0..50 {
        assert_eq!(pair.push(0, 1, 2_000), number);
        pair.drive(Duration::from_millis(40));
        let live = pair.delivered.iter().filter(|delivery| matches!(delivery, Delivery::Frame(_))).count() as u64;
        assert!(number < 3 || live >= number, "{live} of {number} live frames came");
    }
    assert!(!pair.store.frames.is_empty() && pair.store.frames.len() < 500, "the past takes what is left");
    pair.drive(5 * MINUTE);
    assert_eq!((pair.store.frames.len(), pair.sequences(0, 1).len()), (500, 50));
}

/// With retention `record` what was received is kept until it is stored: a server that is restarted in between gets it again.
#[test]
fn only_what_is_stored_frees_the_journal() {
    let mut pair = recording();
    pair.track(0, 1);
    pair.connect();
    for _ in 0..10 {
        pair.push(0, 1, 1_000);
    }
    pair.drive(MINUTE / 6);
    assert_eq!(pair.journal.len(), 10, "received, not stored");
    let now = pair.now();
    pair.server.as_mut().unwrap().persisted(now, 0, 1, 6);
    pair.drive(Duration::from_secs(1));
    assert_eq!(pair.journal.len(), 4);
    pair.cut();
    pair.server_remembers = false;
    pair.delivered.clear();
    pair.connect();
    pair.drive(MINUTE / 6);
    assert_eq!(pair.sequences(0, 1), [6, 7, 8, 9]);
    assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None));
}

#[test]
fn the_past_keeps_to_its_cap() {
    let mut pair = recording();
    pair.agent.set_backfill_rate(Some(20_000));
    pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..40, 40, 10_000);
    pair.connect();
    pair.drive(Duration::from_secs(10));
    let octets = pair.store.frames.len() * 10_000;
    assert!((150_000..260_000).contains(&octets), "{octets} in ten seconds");
    pair.agent.set_backfill_rate(Some(0));
    pair.drive(Duration::from_secs(2));
    let stopped_at = pair.store.frames.len();
    pair.drive(Duration::from_secs(10));
    assert_eq!(pair.store.frames.len(), stopped_at, "a cap of nothing lets nothing pass");
    pair.agent.set_backfill_rate(Some(20_000));
    pair.drive(Duration::from_secs(15));
    assert_eq!(pair.store.frames.len(), 40);
}

#[test]
fn the_past_waits_while_it_is_paused_and_goes_on_in_the_middle_of_a_frame() {
    let mut pair = recording();
    pair.agent.set_backfill_rate(Some(20_000));
    pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..10, 10, 100_000);
    pair.connect();
    pair.drive(Duration::from_secs(8));
    let before = pair.store.frames.len();
    assert!((1..3).contains(&before), "{before} frames");
    pair.agent.set_backfill_paused(true);
    pair.drive(Duration::from_secs(60));
    assert_eq!(pair.store.frames.len(), before);
    pair.agent.set_backfill_rate(None);
    pair.agent.set_backfill_paused(false);
    pair.drive(Duration::from_secs(10));
    assert_eq!(pair.store.frames.len(), 10);
    assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None));
}

/// The disk thread tells of an epoch and brings its frames at any time. Declined for being unknown, they would count as brought already.
#[test]
fn frames_that_come_between_two_questions_are_not_taken_for_brought() {
    for looks in 1..40 {
        let mut pair = recording();
        pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..20, 20, 2_000);
        pair.journal.backlog.add_while_looked_at(looks, BootId([2; 16]), info(0, 1, 0), 0..20, 20, 2_000);
        pair.connect();
        pair.drive(MINUTE);
        assert_eq!((pair.store.frames.len(), pair.store.holes.len()), (40, 0), "with look {looks}");
    }
}

#[test]
fn an_epoch_that_goes_on_keeps_its_lane() {
    let mut pair = recording();
    pair.connect();
    for jump in 0..300_u64 {
        let (from, to) = (jump * 20, jump * 20 + 10);
        pair.journal.backlog.grow(BootId([200; 16]), info(0, 1, 0), from..to, to, 500);
        pair.drive(Duration::from_secs(2));
        assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None), "jump {jump}");
    }
    assert_eq!(pair.store.frames.len(), 3_000);
}

#[test]
fn an_agent_is_not_done_before_the_past_is_stored() {
    let mut pair = recording();
    pair.journal.backlog.add(BootId([1; 16]), info(0, 1, 0), 0..200, 200, 20_000);
    assert!(!pair.agent.is_settled(&mut pair.journal), "nobody was told of it");
    pair.connect();
    pair.drive_until(MINUTE, |pair| !pair.store.frames.is_empty());
    assert!(!pair.agent.is_settled(&mut pair.journal), "some of it is sent");
    pair.drive_until(MINUTE, |pair| pair.journal.backlog.is_empty());
    pair.drive(Duration::from_secs(1));
    assert!(pair.agent.is_settled(&mut pair.journal));
    // What is not to be sent now nobody waits for.
    pair.journal.backlog.add(BootId([2; 16]), info(0, 1, 0), 0..10, 10, 20_000);
    assert!(!pair.agent.is_settled(&mut pair.journal));
    pair.agent.set_backfill_paused(true);
    assert!(pair.agent.is_settled(&mut pair.journal));
}

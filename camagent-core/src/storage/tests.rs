//! Outages, restarts and power cuts of an agent with a card that fails on purpose, against a server that records: nothing that was safe is lost, nothing
//! is stored twice, every missing number has a reason. The agent's session, the intake and the disk thread's work are the real ones; only link, clock
//! and card are simulated.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use camagent_media::{Codec, Framing};
use camagent_proto::{
    Instant,
    frame::{EndReason, SkipReason},
    message::{BootId, Camera, Retention, Source, SourceState},
    mux::NoStreams,
    session::{Accept, Agent, AgentConfig, Server, ServerConfig, ServerEvent, Transmit},
    transfer::{Backlog as _, Delivery, EpochKey, Journal as _, Look, Past},
};

use super::{Shelf, Tiers, Worker};
use crate::{
    config::{Config, SYNC_INTERVAL, StorageMode},
    journal::flash::{
        sim::{SimDisk, random},
        store::FlashConfig,
    },
    source::{Frame, Intake, TrackDescription},
};

const KEY: &[u8] = &[0, 0, 0, 1, 0x65];
const DELTA: &[u8] = &[0, 0, 0, 1, 0x41];

/// One run of an agent.
struct Run {
    boot: BootId,
    session: Agent,
    intake: Intake,
    shelf: Shelf,
    names: super::Run,
    worker: Worker,
    pushed: u64,
    woken: Cell<bool>,
}

/// What the server has stored: it survives everything.
#[derive(Default)]
struct Store {
    stored: BTreeMap<EpochKey, BTreeSet<u64>>,
    holes: BTreeMap<EpochKey, Vec<(u64, u64, SkipReason)>>,
    doubled: u64,
    live: Vec<(BootId, u64, bool)>,
}

impl Store {
    fn put(&mut self, key: EpochKey, sequence: u64, octets: &[u8]) {
        assert_eq!(octets, payload(key.boot, sequence), "octets of another frame");
        if !self.stored.entry(key).or_default().insert(sequence) {
            self.doubled += 1;
        }
    }

    /// How far an epoch is stored without a hole from `from` on.
    fn next(&self, key: &EpochKey, from: u64) -> u64 {
        let stored = self.stored.get(key);
        let holes = self.holes.get(key).map(Vec::as_slice).unwrap_or_default();
        let mut next = from;
        loop {
            let hole = holes.iter().find(|(first, last, _)| (*first..=*last).contains(&next));
            match (stored.is_some_and(|stored| stored.contains(&next)), hole) {
                (true, _) => next += 1,
                (false, Some((_, last, _))) => next = last + 1,
                (false, None) => return next,
            }
        }
    }
}

struct World {
    card: SimDisk,
    store: Store,
    now: Instant,
    server: Option<Server>,
    /// Where the live track of the present session began: its epoch, and the number.
    live_start: (u64, u64),
    run: Option<Run>,
    boots: u8,
    mode: StorageMode,
    sync_after: Duration,
    cap: u64,
    /// Names the server's store.
    storage_epoch: &'static str,
}

fn payload(boot: BootId, sequence: u64) -> Vec<u8> {
    let is_key = sequence.is_multiple_of(25);
    let mut octets = if is_key { KEY.to_vec() } else { DELTA.to_vec() };
    let length = if is_key { 6_000 } else { 900 + (sequence % 5) as usize * 50 };
    octets.extend(
        (0..length)
            .map(|at| (sequence.wrapping_mul(31).wrapping_add(at as u64 + u64::from(boot.0[0])) % 251) as u8 | 1),
    );
    octets
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            card: SimDisk::new(seed, u64::MAX),
            store: Store::default(),
            now: Instant::from_micros(1_000_000),
            server: None,
            live_start: (1, 0),
            run: None,
            boots: 0,
            mode: StorageMode::Spill,
            sync_after: SYNC_INTERVAL,
            cap: 64 << 20,
            storage_epoch: "s",
        }
    }

    fn start(&mut self) {
        self.boots += 1;
        let boot = BootId([self.boots; 16]);
        let config = Config::from_json(
            r#"{"agent":{"agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t"},"storage":{"path":"/x"}}"#,
        )
        .unwrap();
        let intake = Intake::new(256 << 10, &config.cameras, true).unwrap();
        intake.set_track(0, &TrackDescription::video("main", Codec::H264, Framing::AnnexB)).unwrap();
        let mut session = Agent::new(AgentConfig {
            agent_id: "a".into(),
            token: None,
            boot_id: boot,
            software: "test".into(),
            cameras: vec![Camera {
                id: "a".into(),
                sources: vec![Source { name: "main".into(), ..Source::default() }],
                ..Camera::default()
            }],
            capabilities: Vec::new(),
            heartbeat_interval: Duration::from_secs(30),
            tunnels: Default::default(),
            keep_streams: Duration::ZERO,
        });
        intake.take_unannounced().into_iter().for_each(|info| session.announce_track(info, None));
        let config = FlashConfig { agent_id: "a".into(), boot, max_bytes: self.cap };
        let worker = Worker::new(Box::new(self.card.clone()), config, self.mode, self.sync_after);
        let (shelf, woken) = (Shelf::default(), Cell::new(false));
        let names = super::Run::new(boot);
        self.run = Some(Run { boot, session, intake, shelf, names, worker, pushed: 0, woken });
    }

    /// The power goes.
    fn cut_power(&mut self) {
        self.cut_link();
        self.run = None;
        self.card.cut_power();
    }

    fn cut_link(&mut self) {
        self.server = None;
        if let Some(run) = &mut self.run {
            run.session.disconnected(self.now);
            run.shelf.set_connected(false);
        }
    }

    fn connect(&mut self) {
        self.cut_link();
        let run = self.run.as_mut().unwrap();
        self.server = Some(Server::new(ServerConfig::default(), self.now, 0));
        run.session.connected(self.now, self.now + Duration::from_secs(30));
    }

    /// 40 ms go by: a frame, the disk thread's work now and then, and so many messages of the agent.
    fn tick(&mut self, messages: usize) {
        self.now = self.now + Duration::from_millis(40);
        let run = self.run.as_mut().unwrap();
        let data = payload(run.boot, run.pushed);
        let time = i64::try_from(run.pushed).unwrap() * 40_000;
        let frame = Frame { pts_us: time, dts_us: time, data: &data, ..Frame::default() };
        run.intake.push(self.now, 0, frame).unwrap();
        run.pushed += 1;
        self.work();
        self.exchange(messages);
    }

    fn work(&mut self) {
        let run = self.run.as_mut().unwrap();
        for _ in 0..50 {
            let (_, pause) = run.worker.turn(self.now, &run.intake, &run.shelf, || run.woken.set(true));
            if !pause.is_zero() {
                break;
            }
        }
    }

    /// Whether all messages were there.
    fn exchange(&mut self, messages: usize) -> bool {
        let Some(server) = &mut self.server else { return false };
        let run = self.run.as_mut().unwrap();
        for _ in 0..messages {
            if run.session.poll_timeout().is_some_and(|at| at <= self.now) {
                run.session.handle_timeout(self.now);
            }
            let mut journal = Tiers::new(&run.intake, Some(&run.shelf), &run.names);
            let Some(transmit) = run.session.poll_transmit(self.now, &mut journal, &mut NoStreams, usize::MAX) else {
                return false;
            };
            match transmit {
                Transmit::Text(text) => server.handle_text(self.now, &text),
                Transmit::Binary(record) => server.handle_binary(self.now, record),
                Transmit::Close(code, why) => panic!("the agent closes: {code:?} {why}"),
            }
            while let Some(event) = server.poll_event() {
                match event {
                    ServerEvent::Register(_) => {
                        let sources = vec![SourceState {
                            camera: "a".into(),
                            source: "main".into(),
                            wanted: true,
                            retention: Retention::Record,
                        }];
                        let storage_epoch = self.storage_epoch.into();
                        server.accept(self.now, Accept { sources, storage_epoch, ..Accept::default() });
                    }
                    ServerEvent::Media(delivery) => {
                        hear(&mut self.store, &mut self.live_start, run.boot, delivery, server, self.now)
                    }
                    ServerEvent::Failed(error) => panic!("the server closes: {error}"),
                    _ => {}
                }
            }
            while let Some(back) = server.poll_transmit(self.now + Duration::from_millis(200), &mut NoStreams) {
                match back {
                    Transmit::Text(text) => run.session.handle_text(self.now, &text, &mut journal),
                    Transmit::Binary(record) => run.session.handle_binary(self.now, record, &mut journal),
                    Transmit::Close(code, why) => panic!("the server closes: {code:?} {why}"),
                }
            }
            while let Some(event) = run.session.poll_event() {
                if let camagent_proto::session::AgentEvent::Failed(error) = event {
                    panic!("the agent: {error}");
                }
            }
        }
        true
    }

    /// Everything reaches the server.
    fn settle(&mut self) {
        self.connect();
        self.rest();
    }

    fn rest(&mut self) {
        let mut idle = 0;
        while idle < 20 {
            self.now = self.now + Duration::from_millis(300);
            self.work();
            idle = if self.exchange(64) { 0 } else { idle + 1 };
        }
    }
}

fn hear(
    store: &mut Store,
    live_start: &mut (u64, u64),
    boot: BootId,
    delivery: Delivery,
    server: &mut Server,
    now: Instant,
) {
    let live = EpochKey { boot, track: 0, epoch: live_start.0 };
    match delivery {
        Delivery::Track(info) => *live_start = (info.epoch, info.next),
        Delivery::Frame(frame) => {
            store.live.push((boot, frame.sequence, frame.head.key));
            store.put(live, frame.sequence, &frame.payload);
            let next = store.next(&live, live_start.1);
            server.persisted(now, 0, live.epoch, next);
        }
        Delivery::Skip { skip, .. } => {
            store.holes.entry(live).or_default().push((skip.first, skip.last, skip.reason));
            let next = store.next(&live, live_start.1);
            server.persisted(now, 0, live.epoch, next);
        }
        Delivery::Past(past) => {
            let (key, from) = match past {
                Past::Opened(journal) => {
                    let info = &journal.info;
                    (EpochKey { boot: BootId(journal.boot), track: info.track, epoch: info.epoch }, info.next)
                }
                Past::Frame(key, frame) => {
                    let has = store.stored.get(&key).is_some_and(|stored| stored.contains(&frame.sequence));
                    // Ingest knows each number that it has: what it has comes again only when it could not be told.
                    if !has {
                        store.put(key, frame.sequence, &frame.payload);
                    }
                    (key, frame.sequence)
                }
                Past::Skip(key, skip) => {
                    if skip.reason != SkipReason::Live {
                        store.holes.entry(key).or_default().push((skip.first, skip.last, skip.reason));
                    }
                    (key, skip.last + 1)
                }
                Past::Ended { key, next, .. } => (key, next),
            };
            let next = store.next(&key, from);
            server.known(now, &key, next, next);
        }
    }
}

fn key(boot: u8) -> EpochKey {
    EpochKey { boot: BootId([boot; 16]), track: 0, epoch: 1 }
}

#[test]
fn an_outage_longer_than_memory_arrives_whole_and_live_goes_first() {
    let mut world = World::new(1);
    world.start();
    world.connect();
    (0..100).for_each(|_| world.tick(8));
    world.cut_link();
    // A minute: memory holds some seven seconds of it.
    (0..1_500).for_each(|_| world.tick(8));
    let before = world.store.live.len();
    world.connect();
    (0..10).for_each(|_| world.tick(8));
    let (_, first, is_key) = world.store.live[before];
    assert!(is_key && first > 1_500, "live goes on at a new key frame: {first}");
    (0..200).for_each(|_| world.tick(8));
    world.settle();
    let stored = &world.store.stored[&key(1)];
    assert_eq!(stored.len(), 1_810);
    assert_eq!((world.store.doubled, world.store.holes.len()), (0, 0));
    assert!(world.card.used() < 600 << 10, "what is stored was let go: {}", world.card.used());
}

#[test]
fn power_cuts_and_outages_lose_nothing_that_was_safe_and_store_nothing_twice() {
    for seed in 0..12_u64 {
        let mut world = World::new(seed);
        world.mode = if seed % 3 == 0 { StorageMode::WriteAhead } else { StorageMode::Spill };
        let mut state = seed * 91 + 7;
        let mut pushed = BTreeMap::new();
        for _ in 0..20 {
            world.start();
            for _ in 0..random(&mut state) % 3 + 1 {
                (0..random(&mut state) % 120).for_each(|_| world.tick(0));
                world.connect();
                let messages = 1 + random(&mut state) as usize % 3;
                (0..random(&mut state) % 80).for_each(|_| world.tick(messages));
                world.cut_link();
            }
            // At least this is safe when the power goes: the disk thread syncs each second while there is no link.
            (0..random(&mut state) % 100 + 30).for_each(|_| world.tick(0));
            pushed.insert(world.boots, world.run.as_ref().unwrap().pushed);
            world.cut_power();
        }
        world.start();
        world.settle();
        assert_eq!(world.store.doubled, 0, "seed {seed}");
        for (boot, pushed) in pushed {
            let stored = world.store.stored.get(&key(boot)).cloned().unwrap_or_default();
            let holes = world.store.holes.get(&key(boot)).cloned().unwrap_or_default();
            assert_eq!(holes, [], "seed {seed}, run {boot}");
            let count = stored.len() as u64;
            assert!(stored.iter().copied().eq(0..count), "seed {seed}, run {boot}: a hole in {stored:?}");
            // 25 frames of a second that was not synced, and one look of the disk thread.
            assert!(count + 25 + 8 >= pushed, "seed {seed}, run {boot}: {count} of {pushed}");
        }
    }
}

#[test]
fn a_card_that_is_pulled_full_or_read_only_holds_up_no_live_frame() {
    let mut world = World::new(5);
    world.start();
    world.connect();
    (0..50).for_each(|_| world.tick(8));
    for fault in 0..3 {
        world.cut_link();
        (0..100).for_each(|_| world.tick(0));
        match fault {
            0 => world.card.set_away(true),
            1 => world.card.set_read_only(true),
            _ => world.card.set_capacity(world.card.used()),
        }
        (0..100).for_each(|_| world.tick(0));
        world.connect();
        let before = world.store.live.len();
        (0..50).for_each(|_| world.tick(8));
        assert!(world.store.live.len() >= before + 50, "fault {fault}: live goes on");
        let told = world.run.as_ref().unwrap().shelf.take_tellings().join("\n");
        let word = ["failed", "can only be read", "full"][fault];
        assert!(told.contains(word), "fault {fault}: {told:?}");
        world.card.set_away(false);
        world.card.set_read_only(false);
        world.card.set_capacity(u64::MAX);
        (0..400).for_each(|_| world.tick(8));
        let told = world.run.as_ref().unwrap().shelf.take_tellings().join("\n");
        assert!(fault == 2 || told.contains("usable again"), "fault {fault}: {told:?}");
    }
    let pushed = world.run.as_ref().unwrap().pushed;
    world.settle();
    assert_eq!(world.store.doubled, 0);
    // What had no room in memory while the card was away is told, and nothing else is missing.
    let stored = &world.store.stored[&key(1)];
    let holes = world.store.holes.get(&key(1)).cloned().unwrap_or_default();
    for number in 0..pushed {
        let is_hole = holes.iter().any(|(first, last, _)| (*first..=*last).contains(&number));
        assert!(stored.contains(&number) || is_hole, "{number} is missing without a word: {holes:?}");
    }
}

#[test]
fn a_stop_writes_down_what_memory_has() {
    let mut world = World::new(9);
    world.start();
    (0..60).for_each(|_| world.tick(0));
    world.run.as_ref().unwrap().shelf.lock().orders.stops = true;
    let run = world.run.as_mut().unwrap();
    while !run.worker.turn(world.now, &run.intake, &run.shelf, || {}).0 {}
    world.cut_power();
    world.start();
    world.settle();
    assert_eq!(world.store.stored[&key(1)].len(), 60);
}

#[test]
fn memory_full_of_what_is_safe_does_not_wear_the_card() {
    let mut world = World::new(11);
    world.mode = StorageMode::WriteAhead;
    world.start();
    // 28 kB a second: memory is full after nine.
    (0..500).for_each(|_| world.tick(0));
    let (before, segments) = (world.card.syncs(), world.card.names().len());
    (0..1_500).for_each(|_| world.tick(0));
    let (syncs, segments) = (world.card.syncs() - before, (world.card.names().len() - segments) as u64);
    assert!(syncs <= 60 + 4 * segments, "{syncs} in a minute, for {segments} segments");
}

#[test]
fn a_longer_interval_spares_the_card_and_costs_what_it_says() {
    let mut world = World::new(12);
    (world.mode, world.sync_after) = (StorageMode::WriteAhead, Duration::from_secs(2));
    world.start();
    (0..500).for_each(|_| world.tick(0));
    let (before, segments) = (world.card.syncs(), world.card.names().len());
    (0..1_500).for_each(|_| world.tick(0));
    let (syncs, segments) = (world.card.syncs() - before, (world.card.names().len() - segments) as u64);
    assert!(syncs <= 30 + 4 * segments, "{syncs} in a minute, for {segments} segments");
    world.cut_power();
    world.start();
    world.settle();
    let stored = world.store.stored[&key(1)].len();
    // Two seconds, and one look of the disk thread.
    assert!((2_000 - 50 - 8..=2_000).contains(&stored), "{stored} of 2000");
}

#[test]
fn over_the_cap_pictures_between_key_frames_go_before_whole_groups_and_each_has_its_reason() {
    for (frames, goes_whole) in [(3_000, false), (16_000, true)] {
        let mut world = World::new(3);
        world.cap = 2 << 20;
        world.start();
        (0..frames).for_each(|_| world.tick(0));
        world.settle();
        let stored = &world.store.stored[&key(1)];
        let holes = &world.store.holes[&key(1)];
        let of = |reason| holes.iter().filter(move |hole| hole.2 == reason).flat_map(|(first, last, _)| *first..=*last);
        let thinned: BTreeSet<u64> = of(SkipReason::Thinned).collect();
        let gone: BTreeSet<u64> = of(SkipReason::OverBudget).collect();
        assert!(gone.iter().copied().eq(0..gone.len() as u64), "the oldest go whole: {gone:?}");
        assert_eq!(gone.is_empty(), !goes_whole);
        let last = *thinned.last().expect("some were thinned");
        let first = gone.len() as u64;
        assert!(thinned.iter().copied().eq((first..=last).filter(|number| !number.is_multiple_of(25))), "{thinned:?}");
        assert!(stored.iter().copied().eq((first..frames).filter(|number| !thinned.contains(number))));
        let missing = (thinned.len() + gone.len()) as u64;
        assert_eq!(world.run.as_ref().unwrap().session.transfer_counts().frames_skipped, missing);
        let told = world.run.as_ref().unwrap().shelf.take_tellings().join("\n");
        assert!(told.contains("older frames had to go"), "{told}");
    }
}

/// Between the telling of what is new and the reading of it lies a turn of the disk thread, in which the agent may ask.
#[test]
fn what_is_told_and_not_read_yet_is_not_said_to_be_brought() {
    let mut world = World::new(4);
    world.mode = StorageMode::WriteAhead;
    world.start();
    (0..60).for_each(|_| world.tick(0));
    let run = world.run.as_mut().unwrap();
    (&run.shelf).rewind(None);
    run.shelf.live_from(0, 1, 0);
    world.work();
    let run = world.run.as_mut().unwrap();
    assert_eq!((&run.shelf).look(), Look::Nothing, "all of it is live");
    // Memory lets frames go, and the live reader jumps.
    run.shelf.live_from(0, 1, 30);
    assert_eq!((&run.shelf).look(), Look::Later);
    let told = Cell::new(0);
    for _ in 0..3 {
        let Run { worker, intake, shelf, .. } = world.run.as_mut().unwrap();
        let (shelf, told) = (&*shelf, &told);
        worker.turn(world.now, intake, shelf, || {
            let mut backlog = shelf;
            let end = backlog.waiting().iter().map(|waiting| waiting.end).max();
            if end == Some(30) {
                told.set(told.get() + 1);
                assert_ne!(backlog.look(), Look::Nothing, "the server would hear that it has them");
            }
        });
    }
    assert!(told.get() > 0);
    let run = world.run.as_mut().unwrap();
    let Look::Frame(of, entry) = (&run.shelf).look() else { panic!("nothing was read") };
    assert_eq!((of, entry.sequence), (key(1), 0));
}

/// The agent takes an epoch for brought when it sees a frame of a later one.
#[test]
fn what_the_backlog_gets_more_of_comes_before_later_epochs() {
    let mut world = World::new(4);
    world.mode = StorageMode::WriteAhead;
    world.start();
    (0..75).for_each(|_| world.tick(0));
    world.run.as_mut().unwrap().intake.restart();
    (0..75).for_each(|_| world.tick(0));
    let run = world.run.as_mut().unwrap();
    (&run.shelf).rewind(None);
    run.shelf.live_from(0, 1, 30);
    run.shelf.live_from(0, 2, 10);
    world.work();
    let run = world.run.as_mut().unwrap();
    (0..30).for_each(|sequence| (&run.shelf).pass(&key(1), sequence));
    let later = EpochKey { epoch: 2, ..key(1) };
    let Look::Frame(of, _) = (&run.shelf).look() else { panic!("nothing was read") };
    assert_eq!(of, later);
    // Memory lets frames of the first epoch go, and the live reader jumps.
    run.shelf.live_from(0, 1, 40);
    assert_eq!((&run.shelf).look(), Look::Later);
    world.work();
    let run = world.run.as_mut().unwrap();
    for (expected, numbers) in [(key(1), 30..40), (later, 0..10)] {
        for number in numbers {
            let Look::Frame(of, entry) = (&run.shelf).look() else { panic!("{number} of {expected:?} is missing") };
            assert_eq!((of, entry.sequence), (expected, number));
            (&run.shelf).pass(&of, number);
        }
    }
}

/// What reached the card with a write that failed is found there when it is opened anew; the disk thread has not come that far by its own account.
#[test]
fn an_epoch_whose_rest_memory_lost_while_the_card_was_full_ends_with_a_reason() {
    let mut world = World::new(4);
    world.card.set_capacity(20_000);
    world.start();
    (0..400).for_each(|_| world.tick(0));
    world.run.as_mut().unwrap().intake.restart();
    (0..2_000).for_each(|_| world.tick(0));
    world.card.set_capacity(u64::MAX);
    (0..600).for_each(|_| world.tick(0));
    let run = world.run.as_mut().unwrap();
    (&run.shelf).rewind(None);
    run.shelf.live_from(0, 1, 400);
    world.work();
    let mut shelf = &world.run.as_ref().unwrap().shelf;
    let waiting = shelf.waiting();
    let first = waiting.iter().find(|waiting| waiting.key() == key(1)).expect("some of it is on the card");
    assert_eq!((first.end, first.ended), (400, Some(EndReason::Stopped)));
    let Look::Frame(of, entry) = shelf.look() else { panic!("nothing was read") };
    assert_eq!((of, entry.sequence), (key(1), 0));
    let mut count = 0;
    while let Look::Frame(of, entry) = shelf.look()
        && of == key(1)
    {
        assert_eq!(entry.sequence, count);
        shelf.pass(&of, entry.sequence);
        count += 1;
    }
    assert!(count > 5, "{count}");
    // Not one of them is taken for one that the live reader brought.
    while count < 400 {
        let (reason, last) = shelf.hole(&key(1), count).expect("it never comes");
        assert_ne!(reason, SkipReason::Live, "{count} to {last}");
        count = last + 1;
    }
}

/// What is written and not safe yet is told to be there. Goes the write wrong it is not, and comes again from memory.
#[test]
fn what_went_with_a_write_that_failed_comes_again_and_is_not_said_to_be_brought() {
    // A card that is opened anew is read from its beginning.
    let pass = |world: &World| {
        let (mut shelf, mut next) = (&world.run.as_ref().unwrap().shelf, None);
        while let Look::Frame(of, entry) = shelf.look() {
            assert!(of == key(1) && next.is_none_or(|next| next == entry.sequence));
            shelf.pass(&of, entry.sequence);
            next = Some(entry.sequence + 1);
        }
        next.unwrap_or(0)
    };
    for mode in [StorageMode::WriteAhead, StorageMode::Spill] {
        let mut world = World::new(4);
        world.mode = mode;
        world.start();
        // Everything is written, and the last of it not synced.
        (0..45).for_each(|_| world.tick(0));
        world.work();
        let run = world.run.as_mut().unwrap();
        (&run.shelf).rewind(None);
        run.shelf.live_from(0, 1, 45);
        world.work();
        let told = (&world.run.as_ref().unwrap().shelf).waiting();
        assert_eq!(told.iter().map(|waiting| waiting.end).collect::<Vec<_>>(), [45], "{mode:?}");
        let safe = pass(&world);
        assert!((20..45).contains(&safe), "{mode:?}: {safe} are safe");
        world.card.set_capacity(world.card.used());
        (0..4).for_each(|_| {
            world.now = world.now + Duration::from_millis(500);
            world.work();
        });
        let left = pass(&world);
        assert!(left < 45, "{mode:?}: {left} are left");
        assert_eq!((&world.run.as_ref().unwrap().shelf).hole(&key(1), left), None, "{mode:?}: memory has it");
        world.card.set_capacity(u64::MAX);
        for _ in 0..3 {
            world.now = world.now + Duration::from_secs(11);
            world.work();
        }
        assert_eq!(pass(&world), 45, "{mode:?}");
        assert_eq!((&world.run.as_ref().unwrap().shelf).hole(&key(1), 45), Some((SkipReason::Live, u64::MAX)));
    }
}

/// A server that lost its recordings says so by another `storage_epoch`.
#[test]
fn a_server_that_lost_its_recordings_gets_again_what_is_still_there() {
    for (card_fails, epochs) in [(false, 1), (true, 1), (false, 2)] {
        let mut world = World::new(7);
        world.mode = StorageMode::WriteAhead;
        world.start();
        world.connect();
        (0..560).for_each(|_| world.tick(8));
        assert!(world.store.next(&key(1), 0) > 500, "most of it is stored");
        if epochs == 2 {
            // Of an epoch that its track has left, and that is stored, only the card has something.
            world.rest();
            let run = world.run.as_mut().unwrap();
            run.intake.restart();
            run.intake.take_unannounced().into_iter().for_each(|info| run.session.announce_track(info, None));
            run.pushed = 0;
            (0..10).for_each(|_| world.tick(8));
            world.rest();
        }
        world.cut_link();
        world.card.set_away(card_fails);
        (0..50).for_each(|_| world.tick(0));
        (world.store, world.storage_epoch) = (Store::default(), "t");
        world.connect();
        (0..10).for_each(|_| world.tick(8));
        world.card.set_away(false);
        world.now = world.now + Duration::from_secs(20);
        (0..100).for_each(|_| world.tick(8));
        world.settle();
        let pushed = if epochs == 2 { 560 } else { 720 };
        let stored = &world.store.stored[&key(1)];
        let first = *stored.first().unwrap();
        assert!(first < 500, "the card had some hundred that the server had stored: {first}, {card_fails}, {epochs}");
        let missing: Vec<_> = (first..pushed).filter(|number| !stored.contains(number)).collect();
        // What was stored and was not safe on the card when that was pulled is nowhere.
        let is_gone = |number: &u64| card_fails && (530..560).contains(number);
        assert!(missing.iter().all(is_gone), "{card_fails}, {epochs}: {missing:?}");
        assert!(world.store.holes.is_empty(), "{:?}", world.store.holes);
    }
}

/// In the mode `write_ahead` all that is pushed is written, and what the live reader brings is not read back for that.
#[test]
fn what_is_live_is_not_read_from_the_card() {
    let mut world = World::new(4);
    world.mode = StorageMode::WriteAhead;
    world.start();
    world.connect();
    (0..300).for_each(|_| world.tick(8));
    assert!(world.card.syncs() > 5);
    assert_eq!(world.card.reads(), 0);
}

/// A sector that has gone bad costs the frames behind it in its segment, and neither the others nor those to come.
#[test]
fn a_file_that_cannot_be_read_costs_itself() {
    for (from, least) in [(0, 0), (150_000, 100)] {
        let mut world = World::new(6);
        world.start();
        (0..1_000).for_each(|_| world.tick(0));
        let name = world.card.names()[0].clone();
        world.card.fail_reads(&name, from);
        world.connect();
        let before = world.store.live.len();
        (0..500).for_each(|_| world.tick(8));
        assert!(world.store.live.len() >= before + 450);
        world.settle();
        let told = world.run.as_ref().unwrap().shelf.take_tellings().join("\n");
        assert!(told.contains("cannot be read") && !told.contains("failed"), "{told:?}");
        let (stored, holes) = (&world.store.stored[&key(1)], &world.store.holes[&key(1)]);
        let lost = 1_500 - stored.len() as u64;
        assert!(stored.len() > 1_100 && stored.range(..300).count() >= least, "{from}: {} are there", stored.len());
        let told: u64 = holes.iter().map(|(first, last, _)| last - first + 1).sum();
        assert_eq!((told, holes.iter().all(|hole| hole.2 == SkipReason::Corrupt)), (lost, true), "{holes:?}");
        let live = world.store.live.len();
        (0..100).for_each(|_| world.tick(0));
        world.settle();
        assert_eq!(world.store.stored[&key(1)].len() as u64, 1_600 - lost, "it is still written to: {live}");
    }
}

#[test]
fn a_card_that_was_full_is_used_as_configured_when_there_is_room_again() {
    let mut world = World::new(8);
    world.cap = 4 << 20;
    world.card.set_capacity(1 << 20);
    world.start();
    (0..3_000).for_each(|_| world.tick(0));
    assert!(world.card.used() <= 1 << 20);
    world.card.set_capacity(u64::MAX);
    for _ in 0..20 {
        world.now = world.now + Duration::from_secs(600);
        world.tick(0);
    }
    (0..4_000).for_each(|_| world.tick(0));
    let used = world.card.used();
    assert!((3 << 20..=4 << 20).contains(&used), "{used}");
    world.settle();
    let (stored, holes) = (&world.store.stored[&key(1)], &world.store.holes[&key(1)]);
    let lost: u64 = holes.iter().map(|(first, last, _)| last - first + 1).sum();
    assert_eq!(stored.len() as u64 + lost, 7_020, "{holes:?}");
}

#[test]
fn epochs_that_are_over_are_forgotten() {
    let mut world = World::new(2);
    world.mode = StorageMode::WriteAhead;
    world.start();
    for epoch in 1..=1_500 {
        let run = world.run.as_mut().unwrap();
        run.intake.push(world.now, 0, Frame { data: KEY, ..Frame::default() }).unwrap();
        run.shelf.live_from(0, epoch, 0);
        world.now = world.now + Duration::from_secs(2);
        world.work();
        let run = world.run.as_mut().unwrap();
        (&run.intake).received(0, epoch, 1);
        run.shelf.live_freed(0, epoch, 1);
        run.intake.restart();
        run.intake.take_unannounced();
    }
    let run = world.run.as_ref().unwrap();
    let lengths = [run.worker.known_epochs(), run.shelf.lock().live_from.len()];
    assert!(lengths.iter().all(|length| *length < 700), "{lengths:?}");
}

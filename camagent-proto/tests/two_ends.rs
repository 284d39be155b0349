//! Two ends under a virtual clock: what holds for every session, whatever the link does.

use camagent_proto::mux::NoStreams;
use camagent_proto::{
    CloseCode, Duration, Error,
    frame::{MAX_RECORD, SkipReason},
    message::{BootId, Camera, Command, CommandError, CommandStatus, Message, Retention, SourceState},
    pair::Pair,
    session::{Agent, AgentConfig, AgentEvent, ServerEvent, Transmit},
    transfer::Delivery,
};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A small generator with a seed (xorshift64*): the tests need no more.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn established() -> Pair {
    let mut pair = Pair::new();
    pair.connect();
    pair.drive_until(SECOND, |pair| pair.agent.is_established());
    pair
}

#[test]
fn frames_arrive_once_in_order_and_free_the_journal() {
    let mut pair = established();
    pair.track(0, 1);
    pair.track(1, 1);
    for number in 0..50 {
        pair.push(0, 1, 20_000 + number);
        pair.push(1, 1, 160);
    }
    pair.drive(10 * SECOND);
    assert_eq!(pair.sequences(0, 1), (0..50).collect::<Vec<_>>());
    assert_eq!(pair.sequences(1, 1), (0..50).collect::<Vec<_>>());
    assert!(pair.journal.is_empty(), "received frames are freed");
    assert!(pair.agent.is_settled(&mut pair.journal));
}

#[test]
fn a_cut_anywhere_loses_and_doubles_nothing() {
    for seed in 1..60 {
        let mut random = Random(seed * 0x9e37_79b9);
        let mut pair = established();
        pair.track(0, 1);
        pair.track(1, 1);
        let mut pushed = 0;
        for _ in 0..30 {
            for _ in 0..random.below(8) {
                pair.push(0, 1, 1 + random.below(60_000) as usize);
                pair.push(1, 1, 1 + random.below(300) as usize);
                pushed += 1;
            }
            pair.drive(Duration::from_millis(random.below(90)));
            if random.below(3) == 0 {
                pair.cut();
                pair.drive(Duration::from_millis(random.below(3_000)));
                pair.connect();
            }
        }
        pair.drive(MINUTE);
        let all: Vec<u64> = (0..pushed).collect();
        assert_eq!(pair.sequences(0, 1), all, "seed {seed}");
        assert_eq!(pair.sequences(1, 1), all, "seed {seed}");
        assert_eq!(pair.agent_failure(), None, "seed {seed}");
        assert!(pair.journal.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_server_that_forgot_everything_goes_on_where_the_agent_stands() {
    let mut pair = established();
    pair.server_remembers = false;
    pair.track(0, 1);
    for _ in 0..5 {
        pair.push(0, 1, 100);
    }
    pair.drive(SECOND);
    pair.connect();
    for _ in 0..5 {
        pair.push(0, 1, 100);
    }
    pair.drive(SECOND);
    assert_eq!(pair.sequences(0, 1), (0..10).collect::<Vec<_>>());
    assert_eq!(pair.agent_failure(), None);
}

#[test]
fn an_epoch_that_begins_while_the_link_is_down_takes_nothing_from_the_one_before() {
    let mut pair = established();
    pair.track(0, 1);
    for _ in 0..5 {
        pair.push(0, 1, 100);
    }
    pair.drive(SECOND);
    pair.cut();
    for _ in 0..5 {
        pair.push(0, 1, 100);
    }
    pair.track(0, 2);
    for _ in 0..3 {
        pair.push(0, 2, 100);
    }
    pair.connect();
    pair.drive(SECOND);
    assert_eq!(pair.sequences(0, 1), (0..10).collect::<Vec<_>>());
    assert_eq!(pair.sequences(0, 2), (0..3).collect::<Vec<_>>());
}

#[test]
fn what_the_journal_had_to_drop_is_a_skip_with_a_reason() {
    let mut pair = established();
    pair.track(0, 1);
    pair.push(0, 1, 10);
    pair.drive(SECOND);
    pair.cut();
    for _ in 0..20 {
        pair.push(0, 1, 10);
    }
    pair.journal.evict(0, 1, 8);
    pair.connect();
    pair.drive(SECOND);
    let skips: Vec<_> = pair
        .delivered
        .iter()
        .filter_map(|delivery| match delivery {
            Delivery::Skip { skip, .. } => Some((skip.first, skip.last, skip.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(skips, [(1, 7, SkipReason::OverBudget)]);
    assert_eq!(pair.sequences(0, 1), std::iter::once(0).chain(8..21).collect::<Vec<_>>());
    assert_eq!(pair.agent.transfer_counts().frames_skipped, 7);
}

#[test]
fn frames_that_a_dead_link_swallowed_are_counted_as_lost() {
    let mut pair = established();
    pair.track(0, 1);
    pair.push(0, 1, 10);
    pair.drive(SECOND);
    pair.latency = MINUTE;
    for _ in 0..5 {
        pair.push(0, 1, 10);
    }
    pair.drive(SECOND);
    assert_eq!(pair.agent.transfer_counts().frames_sent, 6, "handed to a link that delivers nothing");
    pair.cut();
    pair.latency = Duration::from_millis(20);
    pair.journal.evict(0, 1, 6);
    for _ in 0..2 {
        pair.connect();
        pair.drive(SECOND);
        assert_eq!(pair.agent.transfer_counts().frames_skipped, 5, "and a repeat of the SKIP counts once");
    }
}

#[test]
fn a_frame_that_takes_long_is_acknowledged_as_it_comes() {
    let mut pair = established();
    pair.window = 1;
    pair.latency = Duration::from_secs(1);
    pair.track(0, 1);
    pair.push(0, 1, 40 * MAX_RECORD);
    pair.drive(5 * MINUTE);
    assert_eq!(pair.agent_failure(), None, "a server that receives is not silent");
    assert_eq!(pair.sequences(0, 1), [0]);
}

#[test]
fn a_frame_evicted_while_it_is_sent_is_taken_back() {
    let mut pair = established();
    pair.window = 1;
    pair.track(0, 1);
    pair.push(0, 1, 4 * MAX_RECORD);
    pair.push(0, 1, 10);
    pair.drive(Duration::from_millis(25));
    pair.journal.evict(0, 1, 1);
    pair.drive(SECOND);
    assert_eq!(pair.sequences(0, 1), [1]);
    assert_eq!(pair.agent_failure(), None);
}

#[test]
fn an_epoch_that_follows_at_once_leaves_nothing_unsettled() {
    let mut pair = established();
    pair.track(0, 1);
    pair.push(0, 1, 5_000);
    pair.push(0, 1, 5_000);
    // Sent in one breath: the server acknowledges the new epoch only.
    pair.track(0, 2);
    pair.push(0, 2, 5_000);
    pair.drive(10 * SECOND);
    assert_eq!((pair.sequences(0, 1), pair.sequences(0, 2)), (vec![0, 1], vec![0]));
    assert!(pair.journal.is_empty(), "received frames are freed");
    assert!(pair.agent.is_settled(&mut pair.journal), "nothing is waited for any more");
}

#[test]
fn epochs_follow_each_other_even_across_a_cut() {
    let mut pair = established();
    pair.track(0, 1);
    pair.push(0, 1, 10);
    pair.drive(SECOND);
    pair.cut();
    pair.push(0, 1, 10);
    pair.track(0, 2);
    pair.push(0, 2, 10);
    pair.connect();
    pair.drive(SECOND);
    assert_eq!(pair.sequences(0, 1), [0, 1]);
    assert_eq!(pair.sequences(0, 2), [0]);
    let epochs: Vec<u64> = pair
        .delivered
        .iter()
        .filter_map(|delivery| match delivery {
            Delivery::Track(info) => Some(info.epoch),
            _ => None,
        })
        .collect();
    assert_eq!(epochs, [1, 1, 2], "the old epoch is announced again, then the new one");
}

#[test]
fn a_frame_larger_than_the_server_takes_is_skipped() {
    let mut pair = established();
    pair.track(0, 1);
    pair.push(0, 1, (4 << 20) + 1);
    pair.push(0, 1, 10);
    pair.drive(SECOND);
    assert_eq!(pair.sequences(0, 1), [1]);
    assert!(
        pair.delivered
            .iter()
            .any(|delivery| matches!(delivery, Delivery::Skip { skip, .. } if skip.reason == SkipReason::TooLarge))
    );
}

#[test]
fn a_heartbeat_is_due_when_one_would_leave() {
    let mut pair = Pair::new();
    pair.connect();
    pair.drive(SECOND);
    let at = pair.agent.poll_timeout().expect("a heartbeat is due");
    assert!(!pair.agent.is_heartbeat_due(pair.now()) && pair.agent.is_heartbeat_due(at));
    pair.agent.handle_timeout(at);
    // What would be said of the numbers now would wait, and what is said later take its place.
    assert!(!pair.agent.is_heartbeat_due(at + 3_600 * SECOND), "one waits for its answer");
}

#[test]
fn heartbeats_measure_the_round_trip_and_keep_an_idle_session_alive() {
    let mut pair = established();
    pair.drive(60 * MINUTE);
    assert!(pair.agent.is_established());
    assert_eq!(pair.agent.round_trip(), 2 * pair.latency);
    let beats = pair.server_events.iter().filter(|event| matches!(event, ServerEvent::Heartbeat { .. })).count();
    assert_eq!(beats, 120, "one at once, then one each 30 s");
    let offsets: Vec<i64> = pair
        .server_events
        .iter()
        .filter_map(|event| match event {
            ServerEvent::Heartbeat { clock_offset_us, .. } => *clock_offset_us,
            _ => None,
        })
        .collect();
    let one_way = i64::try_from(pair.latency.as_micros()).expect("small");
    // Before the first round trip all of the way counts; both clocks are the same here.
    assert_eq!(offsets, [one_way, 0], "the others are bare: there was nothing new to tell");
}

#[test]
fn a_slow_round_trip_of_the_connection_before_moves_no_clock() {
    let mut pair = Pair::new();
    let fast = pair.latency;
    pair.latency = 2 * SECOND;
    pair.connect();
    pair.drive(MINUTE);
    pair.cut();
    pair.server_events.clear();
    pair.latency = fast;
    pair.connect();
    pair.drive(MINUTE);
    let offset = |event: &ServerEvent| match event {
        ServerEvent::Heartbeat { clock_offset_us, .. } => *clock_offset_us,
        _ => None,
    };
    let offsets: Vec<i64> = pair.server_events.iter().filter_map(offset).collect();
    // Both clocks are the same here, and delay only ever makes the offset larger.
    assert!(!offsets.is_empty() && offsets.iter().all(|offset| *offset >= 0), "{offsets:?}");
}

#[test]
fn a_dead_link_is_noticed_at_both_ends() {
    let mut pair = established();
    pair.latency = 60 * MINUTE;
    pair.drive(5 * MINUTE);
    assert!(matches!(pair.agent_failure(), Some(Error::Silent { .. })));
    let failed = |event: &ServerEvent| matches!(event, ServerEvent::Failed(Error::Silent { awaited: "heartbeat", .. }));
    assert!(pair.server_events.iter().any(failed));
}

#[test]
fn an_agent_probes_when_it_is_told_to_and_keeps_a_shorter_silence() {
    let mut pair = established();
    pair.drive(5 * SECOND);
    assert_eq!(pair.agent.asked_at(), None, "everything is answered");
    let beats = |pair: &Pair| pair.agent.poll_timeout().expect("a heartbeat is due").saturating_since(pair.now());
    assert!(beats(&pair) > 20 * SECOND, "{:?}", beats(&pair));
    pair.agent.set_heartbeat_interval(12 * SECOND);
    assert!(beats(&pair) <= 7 * SECOND, "the silence so far counts: {:?}", beats(&pair));
    pair.agent.set_heartbeat_interval(3_600 * SECOND);
    pair.drive(30 * SECOND);
    assert!(beats(&pair) <= 30 * SECOND, "the server's wish holds: {:?}", beats(&pair));
    let now = pair.now();
    pair.agent.probe(now);
    assert_eq!(pair.agent.poll_timeout(), Some(now));
    pair.agent.handle_timeout(now);
    assert_eq!(pair.agent.asked_at(), Some(now));
    pair.drive(SECOND);
    assert_eq!(pair.agent.asked_at(), None);
}

#[test]
fn an_agent_that_does_not_register_is_sent_away_after_five_seconds() {
    let mut pair = Pair::new();
    pair.latency = MINUTE;
    pair.connect();
    pair.drive(Duration::from_millis(5_001));
    assert!(matches!(
        pair.server_events.first(),
        Some(ServerEvent::Failed(Error::Silent { awaited: "register", waited_ms: 5_000 }))
    ));
}

#[test]
fn a_refused_agent_is_told_why() {
    let mut pair = Pair::new();
    pair.accepts = false;
    pair.connect();
    pair.drive(Duration::from_millis(30));
    pair.refuse(CloseCode::AuthFailed, "unknown token");
    pair.drive(SECOND);
    let error = pair.agent_failure().expect("the connection is over");
    assert_eq!(error.close_code(), CloseCode::AuthFailed);
    assert!(error.to_string().contains("unknown token"), "{error}");
}

#[test]
fn a_command_is_answered_once_and_its_repeat_is_not_run() {
    let mut pair = established();
    let command = Command { id: Some("c1".into()), action: "ptz".into(), args: json!({"x": 1}), ..Default::default() };
    pair.server.as_mut().unwrap().command(command.clone());
    pair.drive(SECOND);
    let token = pair
        .agent_events
        .iter()
        .find_map(|event| match event {
            AgentEvent::Command(token, command) if command.action == "ptz" => Some(*token),
            _ => None,
        })
        .expect("the command has come");
    pair.agent.answer(token, Ok(json!({"moved": true}))).unwrap();
    pair.cut();
    pair.connect();
    pair.drive(SECOND);
    pair.server.as_mut().unwrap().command(command);
    pair.drive(SECOND);
    let commands = pair.agent_events.iter().filter(|event| matches!(event, AgentEvent::Command(..))).count();
    assert_eq!(commands, 1);
    let result = pair
        .server_events
        .iter()
        .find_map(|event| match event {
            ServerEvent::CommandResult(result) => Some(result),
            _ => None,
        })
        .expect("the repeat is answered from memory");
    assert_eq!((result.status, &result.result), (CommandStatus::Ok, &json!({"moved": true})));
    assert!(pair.agent.answer(token, Ok(json!(null))).is_err(), "answered twice");
}

#[test]
fn an_answer_too_large_for_a_message_becomes_an_error() {
    let mut pair = established();
    pair.server.as_mut().unwrap().command(Command { id: Some("c".into()), action: "log".into(), ..Default::default() });
    pair.drive(SECOND);
    let Some(AgentEvent::Command(token, _)) = pair.agent_events.last().cloned() else { panic!() };
    pair.agent.answer(token, Ok(json!("x".repeat(5_000)))).unwrap();
    pair.drive(SECOND);
    let Some(ServerEvent::CommandResult(result)) = pair.server_events.last() else { panic!() };
    assert_eq!(result.error.as_ref().map(|error| error.code.as_str()), Some("result_too_large"));
    let unknown = CommandError { code: "x".into(), ..Default::default() };
    assert!(pair.agent.answer(token, Err(unknown)).is_err());
}

#[test]
fn events_are_told_until_they_are_kept() {
    let mut pair = established();
    let now = pair.now();
    pair.agent.push_event(now, Some("camera".into()), "motion", json!({"zone": 2})).unwrap();
    let error = pair.agent.push_event(now, None, "log", json!("\"".repeat(2_100))).unwrap_err();
    assert!(matches!(error, Error::Limit { limit: "event octets", .. }), "quotes take two octets in JSON: {error}");
    assert!(pair.agent.push_event(now, Some("../x".into()), "log", json!(null)).is_err());
    pair.drive(SECOND);
    pair.cut();
    pair.connect();
    pair.drive(SECOND);
    let events: Vec<u64> = pair
        .server_events
        .iter()
        .filter_map(|event| match event {
            ServerEvent::Event(event) => Some(event.sequence),
            _ => None,
        })
        .collect();
    assert_eq!(events, [1, 1], "not kept, so told again");
    pair.server.as_mut().unwrap().keep_event(1);
    pair.drive(SECOND);
    assert!(pair.agent.is_settled(&mut pair.journal));
}

#[test]
fn wanted_sources_and_key_frames_reach_the_agent() {
    let mut pair = established();
    let state =
        SourceState { camera: "camera".into(), source: "main".into(), wanted: true, retention: Retention::Live };
    pair.server.as_mut().unwrap().set_wanted(state.clone());
    pair.drive(SECOND);
    assert!(pair.agent_events.contains(&AgentEvent::SourceWanted(state)));
}

#[test]
fn more_cameras_than_a_message_holds_all_arrive() {
    let camera = |number: usize| {
        let mut camera = Camera { id: format!("camera-{number}"), ..Default::default() };
        camera.description.insert("model".into(), json!("dahua-2449s-il with a rather long description of itself"));
        camera
    };
    let mut pair = Pair::with(AgentConfig {
        agent_id: "box".into(),
        token: None,
        boot_id: BootId([1; 16]),
        software: String::new(),
        cameras: (0..1_000).map(camera).collect(),
        capabilities: Vec::new(),
        heartbeat_interval: 30 * SECOND,
        tunnels: Default::default(),
        keep_streams: Duration::ZERO,
    });
    pair.accepts = false;
    pair.connect();
    pair.drive(SECOND);
    let mut ids = Vec::new();
    for event in &pair.server_events {
        match event {
            ServerEvent::Register(register) => ids.extend(register.cameras.iter().map(|camera| camera.id.clone())),
            ServerEvent::Cameras(cameras) => ids.extend(cameras.iter().map(|camera| camera.id.clone())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids, (0..1_000).map(|number| format!("camera-{number}")).collect::<Vec<_>>());
}

#[test]
fn a_newer_server_may_say_more() {
    let mut pair = established();
    let mut journal = std::mem::take(&mut pair.journal);
    let now = pair.now();
    pair.agent.handle_text(now, r#"{"type":"firmware","data":{"url":"x"}}"#, &mut journal);
    pair.agent.handle_text(
        now,
        r#"{"type":"key_frame","data":{"camera":"c","source":"s","deep":{"er":[1]}}}"#,
        &mut journal,
    );
    pair.agent.handle_binary(pair.now(), [0x30, 1, 0].to_vec().into(), &mut journal);
    assert!(pair.agent.is_established());
    pair.drive(SECOND);
    assert_eq!(pair.agent_failure(), None);
}

#[test]
fn messages_of_the_wrong_role_or_time_close_with_a_reason() {
    let mut agent = Agent::new(AgentConfig {
        agent_id: "a".into(),
        token: None,
        boot_id: BootId([0; 16]),
        software: String::new(),
        cameras: Vec::new(),
        capabilities: Vec::new(),
        heartbeat_interval: 30 * SECOND,
        tunnels: Default::default(),
        keep_streams: Duration::ZERO,
    });
    let mut journal = camagent_proto::pair::TestJournal::default();
    let now = camagent_proto::Instant::ZERO;
    agent.connected(now, now + 30 * SECOND);
    agent.handle_text(now, r#"{"type":"command","data":{"action":"restart"}}"#, &mut journal);
    let sent: Vec<_> =
        std::iter::from_fn(|| agent.poll_transmit(now, &mut journal, &mut NoStreams, usize::MAX)).collect();
    let Some(Transmit::Close(CloseCode::ProtocolError, reason)) = sent.last() else { panic!("{sent:?}") };
    assert!(reason.contains("expected registered, got command"), "{reason}");
    let Transmit::Text(error) = &sent[sent.len() - 2] else { panic!("{sent:?}") };
    assert!(matches!(Message::read(error), Ok(Some(Message::Error(error))) if error.code == 4000));
}

#[test]
fn the_register_timeout_holds() {
    let mut pair = Pair::new();
    pair.accepts = false;
    pair.connect();
    pair.drive(31 * SECOND);
    assert!(matches!(pair.agent_failure(), Some(Error::Silent { awaited: "registered", .. })));
}

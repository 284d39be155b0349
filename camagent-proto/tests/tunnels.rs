//! Tunnels between two ends under a virtual clock: what visitors and services send arrives, whatever the others do.

mod seeded;

use std::collections::BTreeSet;

use camagent_proto::{
    Duration,
    frame::{OpenOutcome, StreamError},
    message::{BootId, TunnelLimits},
    mux::NotOpened,
    pair::Pair,
    session::AgentConfig,
};
use seeded::Random;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

const AGENT: TunnelLimits =
    TunnelLimits { streams: 32, stream_bytes: 8 << 10, bytes: 512 << 10, opens_per_second: 1_000, resume_bytes: 0 };
const SERVER: TunnelLimits =
    TunnelLimits { streams: 0, stream_bytes: 64 << 10, bytes: 4 << 20, opens_per_second: 0, resume_bytes: 0 };

/// A session in which every service of every camera is there.
fn established() -> Pair {
    established_with(|_| {})
}

/// The same, with something changed before.
fn established_with(change: impl FnOnce(&mut Pair)) -> Pair {
    let mut pair = Pair::with(AgentConfig {
        agent_id: "agent".into(),
        token: None,
        boot_id: BootId([7; 16]),
        software: "pair".into(),
        cameras: Vec::new(),
        capabilities: Vec::new(),
        heartbeat_interval: Duration::from_secs(30),
        tunnels: AGENT,
        keep_streams: Duration::ZERO,
    });
    pair.server_config.limits.tunnels = SERVER;
    pair.services.answer = Some(OpenOutcome::Connected);
    change(&mut pair);
    pair.connect();
    pair.drive_until(SECOND, |pair| pair.agent.is_established());
    // The first heartbeats measure the round trip.
    pair.drive(SECOND);
    pair
}

/// All streams end by themselves, at both ends, and both ends like each other still.
fn settle(pair: &mut Pair, at: &str) {
    for _ in 0..3_000 {
        pair.drive(100 * MS);
        let server = pair.server.as_mut().unwrap_or_else(|| panic!("{at}: {:?}", pair.agent_events));
        if server.tunnels().open_streams() + pair.agent.tunnels().open_streams() == 0 {
            break;
        }
    }
    assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None), "{at}");
    let server = pair.server.as_mut().expect("was just there");
    assert_eq!((server.tunnels().open_streams(), pair.agent.tunnels().open_streams()), (0, 0), "{at}");
    assert!(pair.visitors.are_closed() && pair.services.are_closed(), "{at}");
}

fn octets(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed + 1);
    (0..length).map(|_| random.below(256) as u8).collect()
}

#[test]
fn octets_arrive_whole_and_in_order_both_ways() {
    for seed in 1..9 {
        let mut random = Random::new(seed);
        let mut pair = established();
        pair.latency = Duration::from_millis(random.below(150));
        pair.window = 1 + random.below(20) as usize;
        let mut expected = Vec::new();
        while expected.len() < 40 {
            let largest = [1, 100, 20_000, 20_000, 400_000][random.below(5) as usize];
            let [up, down] = [0, 1].map(|way| octets(seed * 100 + way, random.below(largest) as usize));
            let service = format!("service-{}", expected.len());
            pair.services.services.insert(service.clone(), (down.clone(), true));
            match pair.visit("gate", &service, up.clone(), true) {
                Ok(stream) => expected.push((stream, service, up, down)),
                Err(NotOpened::TooMany) => pair.drive(50 * MS),
                Err(other) => panic!("{other:?}"),
            }
            pair.drive(Duration::from_millis(random.below(30)));
        }
        settle(&mut pair, &format!("seed {seed}"));
        for (stream, service, up, down) in expected {
            let (visitor, at_camera) = (&pair.visitors.sides[&stream], &pair.services.sides[&stream]);
            assert_eq!(at_camera.names, Some(["gate", &service, "a visitor"].map(String::from)));
            assert!(visitor.incoming == down && at_camera.incoming == up, "seed {seed}, stream {stream}");
            assert!(visitor.saw_end && at_camera.saw_end, "seed {seed}, stream {stream}");
            assert_eq!((visitor.broken, at_camera.broken), (None, None));
        }
    }
}

#[test]
fn each_direction_ends_on_its_own() {
    for visitor_first in [true, false] {
        let mut pair = established();
        let (first, later) = (octets(1, 100_000), octets(2, 300_000));
        pair.services.services.insert("http".into(), (first.clone(), !visitor_first));
        let stream = pair.visit("gate", "http", first.clone(), visitor_first).unwrap();
        pair.drive(5 * SECOND);
        let Pair { visitors, services, .. } = &mut pair;
        let (ended, goes_on) = if visitor_first { (services, visitors) } else { (visitors, services) };
        assert!(ended.side(stream).saw_end && !goes_on.side(stream).saw_end);
        // The end that was told goes on to send.
        ended.side(stream).outgoing.extend_from_slice(&later);
        ended.side(stream).ends = true;
        settle(&mut pair, "half-closed");
        let Pair { visitors, services, .. } = &mut pair;
        let told = if visitor_first { visitors.side(stream) } else { services.side(stream) };
        assert!(told.incoming == [first, later].concat() && told.saw_end);
    }
}

#[test]
fn a_stream_may_be_given_up_at_each_moment_by_each_end() {
    for step in 0..50 {
        for (by_visitor, by_service) in [(true, false), (false, true), (true, true)] {
            let mut pair = established();
            pair.latency = 20 * MS;
            pair.window = 2;
            pair.services.services.insert("http".into(), (octets(1, 150_000), step % 2 == 0));
            let stream = pair.visit("gate", "http", octets(2, 50_000), step % 3 == 0).unwrap();
            let other = pair.visit("gate", "http", octets(3, 50_000), true).unwrap();
            pair.drive(13 * step * MS);
            if by_visitor {
                pair.server.as_mut().unwrap().tunnels().abandon(stream, StreamError::Cancelled);
            }
            if by_service {
                pair.agent.tunnels().abandon(stream, StreamError::Broken);
            }
            let at = format!("at {} ms, by visitor {by_visitor}, by service {by_service}", 13 * step);
            pair.drive(SECOND);
            // A service that was not reached yet cannot be given up, and goes on.
            pair.visitors.side(stream).ends = true;
            pair.services.side(stream).ends = true;
            pair.services.side(other).ends = true;
            settle(&mut pair, &at);
            assert!(pair.visitors.side(other).incoming == octets(1, 150_000), "{at}");
            assert!(pair.services.side(other).incoming == octets(3, 50_000), "{at}");
        }
    }
}

#[test]
fn whatever_many_streams_do_the_session_goes_on() {
    for seed in 1..20 {
        let mut random = Random::new(seed * 77);
        let mut pair = established();
        pair.latency = Duration::from_millis(random.below(60));
        pair.window = 1 + random.below(4) as usize;
        pair.window_back = 1 + random.below(4) as usize;
        pair.services.answer = None;
        pair.services.are_stuck = random.below(3) == 0;
        for (name, length, ends) in [("small", 100, true), ("large", 120_000, true), ("open", 30_000, false)] {
            pair.services.services.insert(name.into(), (octets(seed, length), ends));
        }
        let mut streams = Vec::new();
        let pick = |random: &mut Random, streams: &[u64]| streams[random.below(streams.len() as u64) as usize];
        for _ in 0..150 {
            let up = octets(seed, random.below(60_000) as usize);
            let name = ["small", "large", "open", "none"][random.below(4) as usize];
            streams.extend(pair.visit("gate", name, up, random.below(2) == 0));
            if streams.is_empty() {
                continue;
            }
            assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None), "seed {seed}");
            let stream = pick(&mut random, &streams);
            match random.below(9) {
                0 => pair.server.as_mut().unwrap().tunnels().abandon(stream, StreamError::Cancelled),
                1 => pair.agent.tunnels().abandon(stream, StreamError::Stalled),
                2 => pair.agent.tunnels().answer(stream, OpenOutcome::Busy, "no"),
                3 => pair.visitors.side(stream).breaks = true,
                4 if pair.services.sides.contains_key(&stream) => pair.services.side(stream).breaks = true,
                5 => pair.visitors.side(stream).is_stuck = random.below(2) == 0,
                _ => pair.agent.tunnels().answer(stream, OpenOutcome::Connected, ""),
            }
            pair.drive(Duration::from_millis(random.below(40)));
        }
        pair.drive(SECOND);
        for stream in streams {
            pair.agent.tunnels().answer(stream, OpenOutcome::Connected, "");
        }
        let Pair { visitors, services, .. } = &mut pair;
        for side in visitors.sides.values_mut().chain(services.sides.values_mut()) {
            (side.ends, side.is_stuck) = (true, false);
        }
        settle(&mut pair, &format!("seed {seed}"));
    }
}

#[test]
fn a_refusal_ends_a_stream_though_octets_are_under_way() {
    for outcome in [OpenOutcome::NotAllowed, OpenOutcome::Unreachable, OpenOutcome::Busy, OpenOutcome::Other(9)] {
        let mut pair = established();
        pair.services.answer = Some(outcome);
        // The link up is stuck: the refusal is late, and the visitor goes on to send, and ends.
        pair.track(0, 1);
        (0..100).for_each(|_| _ = pair.push(0, 1, 30_000));
        pair.window = 1;
        let stream = pair.visit("gate", "telnet", octets(1, 3_000), false).unwrap();
        for _ in 0..5 {
            pair.drive(7 * MS);
            pair.visitors.side(stream).outgoing.extend_from_slice(&[7; 100]);
        }
        pair.visitors.side(stream).ends = true;
        settle(&mut pair, outcome.name());
        assert_eq!(pair.visitors.side(stream).outcome, Some(outcome));
        assert!(pair.services.side(stream).incoming.is_empty());
    }
}

#[test]
fn who_takes_nothing_stops_nobody_else() {
    let mut pair = established();
    pair.services.services.insert("large".into(), (octets(1, 700_000), true));
    pair.services.are_stuck = true;
    let stuck: Vec<u64> = (0..20).map(|_| pair.visit("gate", "large", octets(2, 1_000_000), true).unwrap()).collect();
    for stream in &stuck {
        pair.visitors.side(*stream).is_stuck = true;
    }
    pair.drive(10 * SECOND);
    pair.services.are_stuck = false;
    for _ in 0..6 {
        let streams = [0; 4].map(|_| pair.visit("gate", "large", octets(2, 200_000), true).unwrap());
        pair.drive_until(MINUTE, |pair| streams.iter().all(|stream| pair.visitors.sides[stream].is_closed));
        for stream in &streams {
            assert!(pair.visitors.side(*stream).incoming == octets(1, 700_000));
            assert!(pair.services.side(*stream).incoming == octets(2, 200_000));
        }
        pair.visitors.sides.retain(|stream, _| !streams.contains(stream));
        pair.services.sides.retain(|stream, _| !streams.contains(stream));
    }
    let held = pair.agent.tunnels().waiting_octets();
    assert_eq!(held, 20 * AGENT.stream_bytes, "a stuck stream holds its first window");
    // They go on as soon as they take again.
    let Pair { visitors, services, .. } = &mut pair;
    visitors.sides.values_mut().chain(services.sides.values_mut()).for_each(|side| side.is_stuck = false);
    settle(&mut pair, "unstuck");
    assert!(pair.services.side(stuck[0]).incoming == octets(2, 1_000_000));
}

#[test]
fn answers_that_nobody_takes_never_use_up_what_others_need() {
    let mut pair = established();
    pair.services.services.insert("page".into(), (octets(1, 60_000), true));
    // The agent has done its part of these streams, and lets others in; what it sent waits for visitors who take nothing.
    let mut open = 0;
    for _ in 0..200 {
        if let Ok(stream) = pair.visit("gate", "page", Vec::new(), true) {
            pair.visitors.side(stream).is_stuck = true;
            open += 1;
        }
        pair.drive(50 * MS);
    }
    assert_eq!(open, AGENT.streams, "as many as the agent takes, and each has its window");
    assert_eq!(pair.agent.tunnels().open_streams(), 0);
    let first = *pair.visitors.sides.keys().next().unwrap();
    pair.visitors.side(first).is_stuck = false;
    pair.drive(SECOND);
    let stream = pair.visit("gate", "page", Vec::new(), true).expect("one has gone");
    pair.drive_until(SECOND, |pair| pair.visitors.sides[&stream].is_closed);
    assert!(pair.visitors.side(stream).incoming == octets(1, 60_000));
}

#[test]
fn streams_that_stay_do_not_keep_others_from_coming_and_going() {
    let mut pair = established();
    pair.latency = MS;
    for _ in 0..AGENT.streams - 2 {
        pair.visit("gate", "stays", Vec::new(), false).unwrap();
    }
    pair.services.services.insert("page".into(), (octets(1, 1_000), true));
    for number in 0..2_000 {
        // The credit for one more stream comes when one has gone.
        pair.drive(2 * pair.latency);
        let stream =
            pair.visit("gate", "page", vec![7; 300], true).unwrap_or_else(|error| panic!("{number}: {error:?}"));
        pair.drive_until(SECOND, |pair| pair.visitors.sides[&stream].is_closed);
        assert!(pair.visitors.side(stream).incoming == octets(1, 1_000), "visit {number}");
        pair.visitors.sides.remove(&stream);
        pair.services.sides.remove(&stream);
    }
    assert_eq!(pair.agent.tunnels().open_streams() as u64, AGENT.streams - 2);
}

#[test]
fn a_window_grows_with_the_round_trip_and_falls_back_after_a_pause() {
    let mut held = Vec::new();
    for pauses in [false, true] {
        let mut pair = established();
        (pair.latency, pair.window) = (100 * MS, 200);
        pair.drive(MINUTE);
        pair.services.services.insert("film".into(), (vec![7; 6_000_000], false));
        let stream = pair.visit("gate", "film", Vec::new(), false).unwrap();
        let begin = pair.now();
        pair.drive_until(MINUTE, |pair| pair.visitors.sides[&stream].incoming.len() == 6_000_000);
        let took = pair.now().saturating_since(begin);
        assert!(took < 5 * SECOND, "the first window alone would take 18 s, this took {took:?}");
        // Now and then something; a pause before each.
        for _ in 0..40 {
            pair.services.side(stream).outgoing.extend_from_slice(&[7; 100_000]);
            pair.drive(if pauses { 11 * SECOND } else { 250 * MS });
        }
        pair.visitors.side(stream).is_stuck = true;
        pair.services.side(stream).outgoing.extend_from_slice(&[7; 3_000_000]);
        pair.drive(5 * SECOND);
        held.push(pair.server.as_mut().unwrap().tunnels().waiting_octets());
    }
    assert!(held[0] > 500_000 && held[1] <= 3 * SERVER.stream_bytes, "{held:?}");
}

#[test]
fn turns_are_fair_and_young_streams_go_first() {
    let mut pair = established();
    pair.window = 2;
    pair.services.services.insert("film".into(), (vec![7; 3_000_000], false));
    let films: Vec<u64> = (0..20).map(|_| pair.visit("gate", "film", Vec::new(), false).unwrap()).collect();
    pair.drive(2 * SECOND);
    let before: Vec<usize> = films.iter().map(|film| pair.services.side(*film).sent).collect();
    // Somebody who says a word in each record must not give the rest of each record to the same film.
    pair.services.services.insert("chat".into(), (b"hello".to_vec(), false));
    let chat = pair.visit("gate", "chat", Vec::new(), false).unwrap();
    for _ in 0..300 {
        pair.drive(20 * MS);
        pair.services.side(chat).outgoing.extend_from_slice(b"and so on");
    }
    let gains = films.iter().zip(&before).map(|(film, before)| pair.services.sides[film].sent - before);
    let gains: Vec<usize> = gains.collect();
    let (least, most) = (gains.iter().min().unwrap(), gains.iter().max().unwrap());
    assert!(*least > 100_000 && most - least <= most / 4, "{gains:?}");

    // A page of 12 000 octets that comes later is not behind the films.
    pair.services.services.insert("page".into(), (octets(1, 12_000), true));
    let page = pair.visit("gate", "page", Vec::new(), true).unwrap();
    pair.drive_until(SECOND, |pair| pair.services.sides.contains_key(&page));
    let reads = pair.services.reads.len();
    pair.drive_until(SECOND, |pair| pair.visitors.sides[&page].is_closed);
    let until = pair.services.reads.iter().rposition(|(stream, _)| *stream == page).unwrap();
    assert!(until.saturating_sub(reads) < 4, "{:?}", &pair.services.reads[reads..=until]);
}

#[test]
fn media_and_tunnels_share_a_link_that_is_full() {
    let mut pair = established();
    pair.window = 2;
    pair.track(0, 1);
    pair.services.services.insert("film".into(), (vec![7; 5_000_000], false));
    let film = pair.visit("gate", "film", Vec::new(), false).unwrap();
    // 2 records in 20 ms pass: 8 s of media, and a film beside it.
    (0..400).for_each(|_| _ = pair.push(0, 1, 32_000));
    pair.drive(4 * SECOND);
    let (media, tunnel) = (pair.sequences(0, 1).len() * 32_000, pair.visitors.side(film).incoming.len());
    assert!(media > 3 * tunnel && tunnel > media / 8, "{media} octets of media, {tunnel} of the tunnel");
    pair.drive(20 * SECOND);
    assert_eq!(pair.sequences(0, 1), (0..400).collect::<Vec<_>>());

    // Films fill the link; the camera's pictures come in time all the same.
    let films: BTreeSet<u64> = (0..10).map(|_| pair.visit("gate", "film", Vec::new(), false).unwrap()).collect();
    pair.drive(SECOND);
    for number in 400..450 {
        // A track and 400 frames came before.
        pair.push(0, 1, 10_000);
        let before = pair.now();
        pair.drive_until(SECOND, |pair| pair.delivered.len() > number + 1);
        let took = pair.now().saturating_since(before);
        assert!(took <= 100 * MS, "{took:?}");
        pair.drive(20 * MS);
    }
    assert!(films.iter().all(|film| pair.visitors.sides[film].incoming.len() > 100_000));
}

#[test]
fn a_cut_ends_all_and_the_next_session_begins_anew() {
    let mut pair = established();
    pair.services.services.insert("film".into(), (vec![7; 5_000_000], false));
    for _ in 0..10 {
        pair.visit("gate", "film", octets(1, 100_000), false).unwrap();
    }
    pair.drive(SECOND);
    pair.cut();
    assert_eq!((pair.agent.tunnels().open_streams(), pair.agent.tunnels().waiting_octets()), (0, 0));
    assert_eq!(pair.visit("gate", "film", Vec::new(), false), Err(NotOpened::Unsupported));
    pair.connect();
    pair.drive(SECOND);
    pair.services.services.insert("page".into(), (octets(2, 9_000), true));
    assert_eq!(pair.visit("gate", "page", Vec::new(), true), Ok(1), "numbers begin anew");
    settle(&mut pair, "after the cut");
    assert!(pair.visitors.side(1).incoming == octets(2, 9_000));
}

#[test]
fn a_side_without_tunnels_is_not_asked_for_them() {
    let mut pair = Pair::new();
    pair.connect();
    pair.drive(SECOND);
    assert_eq!(pair.visit("gate", "rtsp", Vec::new(), true), Err(NotOpened::Unsupported));
    let mut pair = established();
    let long = "a".repeat(65);
    assert_eq!(pair.visit(&long, "rtsp", Vec::new(), true), Err(NotOpened::Unsupported));
    assert_eq!(pair.visit("gate", &long, Vec::new(), true), Err(NotOpened::Unsupported));
}

#[test]
fn a_stream_that_is_silent_gives_back_what_it_was_promised() {
    let mut pair = established();
    // All but one grow to as much as fits beside the others, then they are silent.
    let (streams, first) = (8, SERVER.stream_bytes);
    for number in 0..streams {
        pair.services.services.insert(format!("service-{number}"), (octets(number, 3_000_000), false));
        pair.visit("gate", &format!("service-{number}"), Vec::new(), false).unwrap();
        pair.drive(20 * SECOND);
    }
    let promised = |pair: &mut Pair| pair.server.as_mut().expect("connected").tunnels().promised_octets();
    pair.drive(MINUTE);
    assert_eq!(promised(&mut pair), streams * first, "each has no more than at the beginning");
    assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None));

    // It sends again at once, grows as before, and loses nothing of it.
    for round in 1..3 {
        let more = octets(99, 3_000_000);
        let before = pair.visitors.side(1).incoming.len();
        pair.services.side(1).outgoing.extend_from_slice(&more);
        let mut largest = 0;
        for _ in 0..2_000 {
            pair.drive(10 * MS);
            largest = largest.max(promised(&mut pair));
        }
        assert!(pair.visitors.side(1).incoming[before..] == more, "round {round}");
        assert!(largest > (streams - 1) * first + 500_000, "round {round}: no more than {largest}");
        pair.drive(MINUTE);
        assert_eq!(promised(&mut pair), streams * first, "round {round}");
    }
    // One that was reset settles its credit with what it gave back.
    pair.agent.tunnels().abandon(1, StreamError::Broken);
    pair.drive(SECOND);
    for stream in pair.visitors.sides.values_mut().chain(pair.services.sides.values_mut()) {
        stream.ends = true;
    }
    settle(&mut pair, "given back");
}

#[test]
fn a_window_grows_as_far_as_the_operator_says() {
    for (largest, expected) in [(0, SERVER.stream_bytes), (200 << 10, 200 << 10), (1 << 20, 1 << 20)] {
        let mut pair = established_with(|pair| pair.server_config.bounds.tunnels.window = largest);
        pair.services.services.insert("http".into(), (octets(1, 6_000_000), true));
        pair.visit("gate", "http", Vec::new(), true).unwrap();
        let mut most = 0;
        for _ in 0..2_000 {
            pair.drive(10 * MS);
            most = most.max(pair.server.as_mut().expect("connected").tunnels().promised_octets());
        }
        assert_eq!(most, expected, "{largest}");
        settle(&mut pair, "as far as that");
    }
}

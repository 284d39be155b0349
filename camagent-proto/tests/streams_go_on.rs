//! Streams of tunnels outlive their connection: whatever cuts it, and wherever, no octet is lost or doubled.

mod seeded;

use camagent_proto::{
    Duration,
    frame::{OpenOutcome, StreamError},
    message::{BootId, TUNNEL_RESUME, TunnelLimits},
    mux::{MIN_RESUME_BYTES, NotOpened},
    pair::Pair,
    session::{AgentConfig, AgentEvent},
};
use seeded::Random;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const KEEP: Duration = Duration::from_secs(60);

const AGENT: TunnelLimits = TunnelLimits {
    streams: 32,
    stream_bytes: 8 << 10,
    bytes: 512 << 10,
    opens_per_second: 1_000,
    resume_bytes: MIN_RESUME_BYTES,
};
const SERVER: TunnelLimits = TunnelLimits {
    streams: 0,
    stream_bytes: 64 << 10,
    bytes: 4 << 20,
    opens_per_second: 0,
    resume_bytes: MIN_RESUME_BYTES,
};

fn config(tunnels: TunnelLimits) -> AgentConfig {
    AgentConfig {
        agent_id: "agent".into(),
        token: None,
        boot_id: BootId([7; 16]),
        software: "pair".into(),
        cameras: Vec::new(),
        capabilities: Vec::new(),
        heartbeat_interval: Duration::from_secs(30),
        tunnels,
        keep_streams: KEEP,
    }
}

fn established() -> Pair {
    let mut pair = Pair::with(config(AGENT));
    pair.server_config.limits.tunnels = SERVER;
    pair.services.answer = Some(OpenOutcome::Connected);
    pair.connect();
    pair.drive_until(SECOND, |pair| pair.agent.is_established());
    pair
}

fn octets(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed + 1);
    (0..length).map(|_| random.below(256) as u8).collect()
}

/// Cuts the connection somewhere, and comes back some time later; now and then that one breaks too.
fn cut(pair: &mut Pair, random: &mut Random) -> u32 {
    let mut cuts = 0;
    loop {
        pair.cut_behind(random.below(9) as usize, random.below(9) as usize);
        cuts += 1;
        pair.drive(Duration::from_millis(random.below(2_000)));
        pair.connect();
        // In the middle of registering, just behind it, or a while later.
        pair.drive(Duration::from_millis([random.below(3), random.below(100), 300][random.below(3) as usize]));
        if random.below(4) > 0 {
            return cuts;
        }
    }
}

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
    assert!(!pair.agent_events.contains(&AgentEvent::StreamsLost), "{at}");
}

#[test]
fn no_octet_is_lost_or_doubled_wherever_the_connection_is_cut() {
    let mut cuts = 0;
    for seed in 1..41 {
        let mut random = Random::new(seed);
        let mut pair = established();
        pair.latency = Duration::from_millis(random.below(100));
        pair.window = 1 + random.below(20) as usize;
        pair.window_back = 1 + random.below(20) as usize;
        let mut expected = Vec::new();
        while expected.len() < 30 {
            let largest = [1, 100, 20_000, 20_000, 300_000][random.below(5) as usize];
            let [up, down] = [0, 1].map(|way| octets(seed * 100 + way, random.below(largest) as usize));
            let service = format!("service-{}", expected.len());
            pair.services.services.insert(service.clone(), (down.clone(), true));
            match pair.visit("gate", &service, up.clone(), true) {
                Ok(stream) => expected.push((stream, service, up, down)),
                Err(_) => pair.drive(50 * MS),
            }
            pair.drive(Duration::from_millis(random.below(30)));
            if random.below(2) == 0 {
                cuts += cut(&mut pair, &mut random);
            }
        }
        for _ in 0..40 {
            pair.drive(Duration::from_millis(random.below(300)));
            cuts += cut(&mut pair, &mut random);
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
    assert!(cuts > 2_000, "{cuts} cuts");
}

#[test]
fn refusals_and_ends_are_told_once_wherever_the_connection_is_cut() {
    for seed in 1..200 {
        let mut random = Random::new(seed);
        let mut pair = established();
        pair.latency = Duration::from_millis(random.below(60));
        pair.services.services.insert("http".into(), (octets(1, 60_000), seed % 2 == 0));
        let whole = pair.visit("gate", "http", octets(3, 50_000), true).unwrap();
        let given_up = pair.visit("gate", "http", octets(2, 50_000), seed % 3 == 0).unwrap();
        pair.drive(Duration::from_millis(130 + random.below(300)));
        pair.services.answer = Some(OpenOutcome::Busy);
        let refused = pair.visit("gate", "http", octets(2, 50_000), seed % 3 == 0).unwrap();
        cut(&mut pair, &mut random);
        if random.below(2) == 0 {
            pair.agent.tunnels().abandon(given_up, StreamError::Broken);
        }
        if random.below(2) == 0 {
            pair.server.as_mut().unwrap().tunnels().abandon(given_up, StreamError::Cancelled);
        }
        for _ in 0..5 {
            pair.drive(Duration::from_millis(random.below(100)));
            cut(&mut pair, &mut random);
        }
        for stream in [whole, given_up] {
            pair.visitors.side(stream).ends = true;
            pair.services.side(stream).ends = true;
        }
        settle(&mut pair, &format!("seed {seed}"));
        assert!(pair.visitors.side(whole).incoming == octets(1, 60_000), "seed {seed}");
        assert!(pair.services.side(whole).incoming == octets(3, 50_000), "seed {seed}");
        assert_eq!(pair.visitors.side(refused).outcome, Some(OpenOutcome::Busy), "seed {seed}");
    }
}

#[test]
fn a_server_that_forgot_and_a_time_that_is_up_break_the_streams() {
    for (remembers, away) in [(false, SECOND), (true, KEEP + MS)] {
        let mut pair = established();
        pair.services.services.insert("http".into(), (octets(1, 1_000_000), true));
        pair.visit("gate", "http", b"GET /".to_vec(), false).unwrap();
        pair.drive(300 * MS);
        pair.server_remembers = remembers;
        pair.cut();
        assert_eq!((pair.services.sides.len(), pair.agent.tunnels().open_streams()), (1, 1));
        pair.drive(away);
        pair.connect();
        pair.drive(SECOND);
        assert!(pair.agent_events.contains(&AgentEvent::StreamsLost));
        assert_eq!((pair.services.sides.len(), pair.visitors.sides.len()), (0, 0));
        assert_eq!((pair.agent_failure(), pair.server_failure()), (None, None));
        // The next ones begin anew, and survive.
        let stream = pair.visit("gate", "http", b"GET /".to_vec(), true).unwrap();
        assert_eq!(stream, 1);
        pair.drive(100 * MS);
        pair.server_remembers = true;
        pair.cut();
        pair.connect();
        pair.drive(100 * SECOND);
        assert!(pair.visitors.side(stream).incoming == octets(1, 1_000_000));
    }
}

#[test]
fn an_end_on_purpose_ends_the_streams() {
    let mut pair = established();
    pair.visit("gate", "http", b"GET /".to_vec(), false).unwrap();
    pair.drive(300 * MS);
    pair.agent.close("the agent is stopped");
    pair.drive(300 * MS);
    assert_eq!((pair.services.sides.len(), pair.visitors.sides.len()), (0, 0));
    assert_eq!(pair.agent.tunnels().open_streams(), 0);
}

#[test]
fn who_does_not_resume_is_as_before() {
    for (agent, server) in [(0, MIN_RESUME_BYTES), (MIN_RESUME_BYTES, 0)] {
        let mut pair = Pair::with(config(TunnelLimits { resume_bytes: agent, ..AGENT }));
        pair.server_config.limits.tunnels = TunnelLimits { resume_bytes: server, ..SERVER };
        pair.services.answer = Some(OpenOutcome::Connected);
        pair.connect();
        pair.drive(SECOND);
        let features = pair.agent_events.iter().find_map(|event| match event {
            AgentEvent::Registered(registered) => Some(registered.features.clone()),
            _ => None,
        });
        assert!(!features.expect("is registered").contains(&TUNNEL_RESUME.to_owned()));
        pair.visit("gate", "http", b"GET /".to_vec(), false).unwrap();
        pair.drive(300 * MS);
        pair.cut();
        assert_eq!((pair.services.sides.len(), pair.visitors.sides.len()), (0, 0));
    }
}

#[test]
fn what_is_kept_stays_within_its_budget_and_an_idle_stream_keeps_little() {
    let mut pair = established();
    pair.latency = 100 * MS;
    pair.services.services.insert("http".into(), (octets(1, 5_000_000), false));
    let stream = pair.visit("gate", "http", b"GET /".to_vec(), false).unwrap();
    // The pair looks at every step that the agent keeps no more than it said.
    let mut most = 0;
    for _ in 0..3_000 {
        pair.drive(50 * MS);
        most = most.max(pair.agent.tunnels().kept_octets());
    }
    assert!(pair.visitors.side(stream).incoming == octets(1, 5_000_000));
    assert!(most > MIN_RESUME_BYTES / 2, "{most}");
    let rest = pair.agent.tunnels().kept_octets();
    assert!(rest <= MIN_RESUME_BYTES / 2, "{rest} octets are kept for nothing");
}

#[test]
fn visitors_who_come_while_the_link_is_away_are_told_so() {
    let mut pair = established();
    pair.cut();
    assert_eq!(pair.visit("gate", "http", Vec::new(), false), Err(NotOpened::Unsupported));
}

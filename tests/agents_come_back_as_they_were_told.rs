//! Why a connection ended decides when the agent comes back: soon after trouble, rarely after a refusal, when the server said so after `Retry-After`
//! and goaway, and only to servers that its own configuration names.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use camagent_proto::CloseCode;
use camagent_testkit::core::{Agent, Config, Event, Host};
use camagent_testkit::wait::{self, SOON, within};
use camagent_testkit::{CloudServer, Link, RawServer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "wire/pages.rs"]
#[allow(dead_code, reason = "the wire's own test reads more of the pages")]
mod pages;

/// The longest first pause after trouble, see `sdk-docs/protocol/closing.md`.
const FIRST: Duration = Duration::from_secs(1);
/// The shortest pause of who was refused or replaced.
const LONG: Duration = Duration::from_secs(30);

fn start(json: &Value) -> Agent {
    Agent::start(Config::from_json(&json.to_string()).expect("a good file"), Host::default()).expect("it starts")
}

/// The first end of a session or an attempt: code, words, pause.
async fn ended(agent: Agent) -> (u16, String, Duration) {
    let told = tokio::task::spawn_blocking(move || {
        while let Some(event) = agent.poll_event(SOON) {
            if let Event::Disconnected { code, reason, retry_in } = event {
                return Some((code, reason, retry_in));
            }
        }
        None
    });
    told.await.expect("no panic").expect("an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_close_code() {
    let rows = pages::table("closing.md", "table: close codes");
    let mut codes: Vec<(u16, Duration, Duration)> = rows
        .iter()
        .map(|row| {
            let (least, most) = match row[3].as_str() {
                "ordinary" | "as it planned" => (Duration::ZERO, FIRST),
                // Neither goaway nor a time was said before.
                other if other.ends_with("else ordinary") => (Duration::ZERO, FIRST),
                "refused" | "replaced" => (LONG, LONG * 2),
                other => panic!("closing.md: what is {other:?}?"),
            };
            (row[0].parse().expect("a number"), least, most)
        })
        .collect();
    assert_eq!(codes.len(), CloseCode::ALL.len());
    codes.push((4077, Duration::ZERO, FIRST));
    for (code, least, most) in codes {
        let server = RawServer::start().await;
        let agent = start(&server.agent_json("cam", &json!({})));
        server.session().await.close(code).await;
        let (told, reason, retry_in) = ended(agent).await;
        assert_eq!(told, code, "{reason}");
        assert!((least..=most).contains(&retry_in), "{code}: {retry_in:?}, {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_error_that_says_when() {
    for (code, retry_after_ms, least, most) in
        [(4011, 40_000, 40, 51), (4010, 40_000, 40, 51), (4011, 999_999_999, 3_600, 4_501), (4001, 400_000, 30, 60)]
    {
        let server = RawServer::start().await;
        let agent = start(&server.agent_json("cam", &json!({})));
        let mut session = server.session().await;
        let error = json!({"code": code, "name": "", "detail": "a test says so", "retry_after_ms": retry_after_ms});
        assert!(session.say("error", error).await);
        assert_eq!(session.closed().await, code);
        let (_, reason, retry_in) = ended(agent).await;
        let pause = retry_in.as_secs_f64();
        assert!((f64::from(least)..=f64::from(most)).contains(&pause), "{code}: {pause} s, {reason}");
    }
}

/// A server that answers each request with the same words, and counts them.
async fn busy(answer: &'static str) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, asked) = (listener.local_addr().expect("bound"), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(octet) = socket.read_u8().await else { break };
                request.push(octet);
            }
            count.fetch_add(1, Ordering::Relaxed);
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
            // An agent that has gone hears nothing.
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

/// A session that owes an answer has a second one dialled beside it. What that dial is told holds, also when the session is given up meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_dial_comes_back_as_it_was_told() {
    for (answer, least, most) in [("503 Busy\r\nRetry-After: 100", 60.0, 126.0), ("401 Unauthorized", 5.0, 60.0)] {
        let server = RawServer::start().await;
        let link = Link::to(server.address()).await;
        let mut json = server.agent_json("cam", &json!({}));
        json["agent"]["cloud_server_url"] = json!(format!("ws://{}/agent", link.address()));
        let agent = start(&json);
        // It answers no heartbeat.
        let _session = server.session().await;
        let (address, asked) = busy(answer).await;
        link.lead_to(address);
        let (code, reason, retry_in) = ended(agent).await;
        assert_eq!((code, asked.load(Ordering::Relaxed)), (4008, 1), "{reason}");
        // Some seconds of it are over.
        let pause = retry_in.as_secs_f64();
        assert!((least..=most).contains(&pause), "{answer}: {pause} s, {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_http_answers() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let (then, later) = (httpdate(now), httpdate(now + Duration::from_secs(200)));
    for (answer, least, most) in [
        ("503 Busy\r\nRetry-After: 100".to_owned(), 100, 126),
        ("429 Too Many\r\nRetry-After: 100".to_owned(), 100, 126),
        // The server's clock counts, wherever the camera's is.
        (format!("503 Busy\r\nDate: {then}\r\nRetry-After: {later}"), 200, 251),
        ("503 Busy\r\nRetry-After: 999999999".to_owned(), 3_600, 4_501),
        ("503 Busy\r\nRetry-After: soon".to_owned(), 0, 1),
        ("500 Broken".to_owned(), 0, 1),
        ("302 Found\r\nLocation: http://elsewhere/".to_owned(), 0, 1),
        ("401 Unauthorized".to_owned(), 30, 60),
        ("404 Not Found".to_owned(), 30, 60),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}/agent", listener.local_addr().expect("bound"));
        let agent = start(&json!({"agent": {"agent_id": "cam", "cloud_server_url": url, "cloud_server_token": "t"}}));
        let (mut socket, _) = within("the agent", SOON, listener.accept()).await.expect("it comes");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(within("its request", SOON, socket.read_u8()).await.expect("it asks"));
        }
        let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.expect("it listens");
        let (_, reason, retry_in) = ended(agent).await;
        let pause = retry_in.as_secs_f64();
        assert!((f64::from(least)..=f64::from(most)).contains(&pause), "{answer}: {pause} s, {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_goaway_only_where_the_configuration_leads() {
    let (first, second) = (RawServer::start().await, RawServer::start().await);
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a free port");
    stranger.set_nonblocking(true).expect("a socket");
    let url = |address| format!("ws://{address}/agent");
    let mut json = first.agent_json("cam", &json!({}));
    json["agent"]["cloud_server_url"] = json!([url(first.address()), url(second.address())]);
    let _agent = start(&json);
    let mut session = first.session().await;
    let servers = [url(stranger.local_addr().expect("bound")), url(second.address())];
    assert!(session.say("goaway", json!({"reason": "away", "after_ms": 0, "spread_ms": 0, "servers": servers})).await);
    assert_eq!(session.closed().await, 1000);
    let moved = second.session().await;
    assert_eq!(moved.register["boot_id"], session.register["boot_id"]);
    assert!(stranger.accept().is_err(), "its token is not for strangers");
}

/// Many agents of a server that stops come back over the whole time that it gave them, each when it said, and none of them before.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_spreads_the_return_of_its_agents() {
    const AGENTS: usize = 24;
    const WITHIN: Duration = Duration::from_secs(6);
    let mut server = CloudServer::with(|config| config.goaway.come_back_within = WITHIN).await;
    let mut watched = Vec::new();
    for number in 0..AGENTS {
        let token = server.add_agent(&format!("cam-{number}")).await;
        let agent = Agent::start(server.agent(&format!("cam-{number}"), &token), Host::default()).expect("it starts");
        watched.push(std::thread::spawn(move || return_of(&agent)));
    }
    wait::until("all agents", SOON, || server.event_count("agent_online") == AGENTS as u64).await;
    server.stop().await;
    server.start_again().await;
    let mut quarters = [0; 4];
    for thread in watched {
        let back = tokio::task::spawn_blocking(move || thread.join().expect("no panic"));
        let (retry_in, stayed_away) = back.await.expect("no panic").expect("it comes back");
        assert!(retry_in <= WITHIN, "{retry_in:?}");
        assert!(stayed_away + Duration::from_millis(100) >= retry_in, "{stayed_away:?} instead of {retry_in:?}");
        let quarter = (retry_in.as_secs_f64() / WITHIN.as_secs_f64() * 4.0) as usize;
        quarters[quarter.min(3)] += 1;
    }
    // Two empty quarters come by chance once in two million runs.
    assert!(quarters.iter().filter(|agents| **agents > 0).count() >= 3, "{quarters:?}");
    assert_eq!(server.event_count("agent_online"), AGENTS as u64);
}

/// What an agent says at its first end of a session, and how long it then has no session.
fn return_of(agent: &Agent) -> Option<(Duration, Duration)> {
    let mut left = None;
    while let Some(event) = agent.poll_event(2 * SOON) {
        match (event, left) {
            (Event::Disconnected { retry_in, .. }, None) => left = Some((retry_in, Instant::now())),
            (Event::Connected { .. }, Some((retry_in, at))) => return Some((retry_in, at.elapsed())),
            _ => {}
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goaway_with_more_servers_than_a_configuration_may_have_is_refused() {
    let server = RawServer::start().await;
    let _agent = start(&server.agent_json("cam", &json!({})));
    let mut session = server.session().await;
    let servers = vec!["wss://b.example/agent"; 9];
    assert!(session.say("goaway", json!({"reason": "away", "after_ms": 60_000, "servers": servers})).await);
    assert_eq!(session.closed().await, 4012);
}

/// IMF-fixdate (RFC 9110 section 5.6.7) of a few days of September 2001.
fn httpdate(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() - 999_993_600;
    assert!(seconds < 86_400, "9 September 2001");
    format!("Sun, 09 Sep 2001 {:02}:{:02}:{:02} GMT", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

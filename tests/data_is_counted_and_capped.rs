//! An operator sees what each camera sends and what for, month by month, and pays for no more than the plan says: octets are counted by cause,
//! nothing twice, all together what the socket sent; what the plan names stops in its order; an idle camera costs less than 30 MB a month.

use camagent_core::{Agent, Config, Event, Host, Pushed, Warning};
use camagent_testkit::camera::Setup;
use camagent_testkit::events::Recorder;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Link, Script};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the service of the camera answers.
const ANSWER: usize = 200_000;

/// A service that answers each request with the same.
async fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let Ok(octet) = socket.read_u8().await else { return };
                    asked.push(octet);
                }
                let _ = socket.write_all(&vec![b'x'; ANSWER]).await;
            });
        }
    });
    port
}

/// A request with something in it.
fn request() -> Vec<u8> {
    format!("GET / HTTP/1.0\r\nCookie: {}\r\n\r\n", "c".repeat(5_000)).into_bytes()
}

/// A visit: what came back.
async fn visit(server: &CloudServer) -> Vec<u8> {
    let mut visitor = TcpStream::connect(server.tunnel("gate", "http").await).await.expect("the port is open");
    visitor.write_all(&request()).await.expect("taken");
    let mut heard = Vec::new();
    let _ = wait::within("the answer", SOON, visitor.read_to_end(&mut heard)).await;
    heard
}

/// What the server's last statistics of the agent say was sent, and what the month's sums say.
async fn sent(server: &CloudServer, before: u64) -> (u64, u64, Value) {
    let api = server.api(&format!("ops-{before}-{}", rand())).await;
    let told = server.server().agents().status("gate").and_then(|status| status.statistics);
    let (status, month) = api.get("/api/v1/agents/gate/data").await;
    assert_eq!(status, 200, "{month}");
    let number = |name: &str| month[name].as_u64().expect("a number");
    (before + told.map_or(0, |told| told.bytes_sent), number("total") - number("received"), month)
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

/// Waits until both are the same, and `enough` says that the month is.
async fn settled(server: &CloudServer, before: u64, enough: impl Fn(&Value) -> bool) -> (u64, Value) {
    let begun = std::time::Instant::now();
    loop {
        let (told, kept, month) = sent(server, before).await;
        if told == kept && enough(&month) {
            return (told, month);
        }
        assert!(begun.elapsed() < SOON * 2, "{told} were sent, {kept} are in {month}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_octet_has_a_cause_and_counts_once() {
    let server = CloudServer::start().await;
    let token = server.add_agent("gate").await;
    let link = Link::to(server.addresses().tls).await;
    let mut config = server.agent_json("gate", &token, link.address());
    config["camera"] = json!({"services": {"http": service().await}});
    let config = Config::from_json(&config.to_string()).expect("a configuration");
    let camera = Setup::new(config.clone(), Script::h264_aac()).pace(2.0).start();
    wait::until("a session", SOON, || camera.agent().is_connected()).await;
    assert_eq!(visit(&server).await.len(), ANSWER);

    let live = |month: &Value| month["cameras"][0]["live"]["main"].as_u64().unwrap_or(0);
    let tunnel = |month: &Value| month["cameras"][0]["tunnels"]["http"].as_u64().unwrap_or(0);
    let is_enough = |month: &Value| live(month) > 100_000 && tunnel(month) >= ANSWER as u64;
    let (_, month) = settled(&server, 0, is_enough).await;
    assert!(tunnel(&month) < ANSWER as u64 * 11 / 10, "{month}");
    assert_eq!((&month["agent"], &month["cameras"][0]["camera"]), (&json!("gate"), &json!("gate")));
    let came = month["cameras"][0]["tunnels_received"]["http"].as_u64().unwrap_or(0);
    let asked = request().len() as u64;
    assert!((asked..asked * 11 / 10).contains(&came), "{month}");
    let control = month["control"].as_u64().expect("a number");
    assert!(control > 200 && control < 60_000 && month["overhead"].as_u64() > Some(1_000), "{month}");

    // A reconnect of the same run: it tells the same sums again.
    link.reset();
    wait::until("another session", SOON, || camera.events().sessions() == 2).await;
    let before = live(&month);
    settled(&server, 0, |month| live(month) > before + 50_000).await;

    // Another run counts from nothing, and adds.
    drop(camera);
    let (first, month) = settled(&server, 0, |_| true).await;
    let before = live(&month);
    let camera = Setup::new(config, Script::h264_aac()).pace(2.0).start();
    wait::until("the next run", SOON, || camera.agent().is_connected()).await;
    settled(&server, first, |month| live(month) > before + 50_000).await;

    let api = server.api("months").await;
    let month = api.get("/agents/gate/data").await.1["month"].as_str().expect("a month").to_owned();
    assert_eq!(api.get("/agents/gate/data?month=1999-01").await.1["total"], 0);
    assert_eq!(api.get("/agents/gate/data?month=1999-01").await.1["months"], json!([month]));
    assert_eq!(api.get("/agents/gate/data?month=1999").await.0, 400);
    assert_eq!(api.get("/agents/nobody/data").await.0, 404);
}

fn plan_warnings(events: &Recorder) -> Vec<String> {
    let warning = |event: Event| match event {
        Event::Warning { warning: Warning::DataPlan, message } => Some(message),
        _ => None,
    };
    events.all().into_iter().filter_map(warning).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_plan_names_stops_in_its_order_and_a_restart_changes_nothing() {
    const MONTH: u64 = 1_000_000;
    let server = CloudServer::start().await;
    let token = server.add_agent("gate").await;
    let mut config = server.agent_json("gate", &token, server.addresses().tls);
    config["camera"] = json!({"services": {"http": service().await}});
    config["data_plan"] = json!({"monthly_bytes": MONTH, "stops_first": ["tunnels", "main"]});
    let config = Config::from_json(&config.to_string()).expect("a configuration");
    let camera = Setup::new(config.clone(), Script::h264_aac()).pace(2.0).start();
    wait::until("a session", SOON, || camera.agent().is_connected()).await;
    assert_eq!(visit(&server).await.len(), ANSWER, "tunnels are open at first");

    wait::until("80 %", SOON, || !plan_warnings(camera.events()).is_empty()).await;
    assert!(plan_warnings(camera.events())[0].ends_with("stopped: tunnels"), "{:?}", plan_warnings(camera.events()));
    assert_ne!(visit(&server).await.len(), ANSWER, "a tunnel is refused");
    wait::until("100 %", SOON, || plan_warnings(camera.events()).len() == 2).await;
    assert!(plan_warnings(camera.events())[1].ends_with("stopped: tunnels, main"));
    let not_wanted = || camera.left_out().iter().filter(|left| left.outcome == Pushed::NotWanted).count();
    wait::until("no more frames are taken", SOON, || not_wanted() > 20).await;
    let used = || {
        let numbers = camera.agent().statistics();
        numbers.bytes_sent + numbers.bytes_received
    };
    assert!((MONTH..MONTH * 12 / 10).contains(&used()), "{}", used());
    assert!(camera.agent().is_connected(), "control never stops");
    wait::until("the server knows", SOON, || server.event_count("agent_event") == 2).await;
    // What is in the database by now; the agent tells more with each heartbeat.
    settled(&server, 0, |month| month["total"].as_u64() >= Some(MONTH)).await;
    drop(camera);

    // The next run knows nothing of the month; the server does.
    let camera = Setup::new(config, Script::h264_aac()).pace(2.0).start();
    wait::until("the plan", SOON, || !plan_warnings(camera.events()).is_empty()).await;
    assert!(plan_warnings(camera.events())[0].ends_with("stopped: tunnels, main"));
    let numbers = camera.agent().statistics();
    assert!(numbers.bytes_sent < MONTH / 4, "{}", numbers.bytes_sent);
}

/// Headers of a packet: IPv4, TCP, and its time stamps (RFC 7323).
const HEADERS: u64 = 20 + 20 + 12;
/// Packets of a heartbeat: it, its answer, and the acknowledgement of that. The one of the heartbeat goes with the answer.
const PACKETS: u64 = 3;
/// Packets of a connection from SYN to its first heartbeat, and of its end: counted generously.
const PACKETS_OF_A_CONNECTION: u64 = 40;
/// Numbers in statistics are longer after a month than after a minute.
const LONGER_NUMBERS: u64 = 60;

struct Idle {
    /// Octets both ways from the dial to the answer of the first heartbeat.
    connection: u64,
    /// Octets both ways of a heartbeat and its answer.
    heartbeat: u64,
}

/// Measures an agent with nothing to do, over TLS on loopback: octets at its socket.
async fn idle(statistics_interval: u64) -> Idle {
    const HEARTBEATS: u64 = 5;
    let server = CloudServer::start().await;
    let token = server.add_agent("camera-0001").await;
    let link = Link::to(server.addresses().tls).await;
    let mut config = server.agent_json("camera-0001", &token, link.address());
    config["network"]["statistics_interval"] = json!(statistics_interval);
    let config = Config::from_json(&config.to_string()).expect("a configuration");
    let agent = Agent::start(config, Host::default()).expect("starts");
    let numbers = || {
        let numbers = agent.statistics();
        (numbers.bytes_sent, numbers.bytes_received)
    };
    wait::until("the first answer", SOON, || agent.statistics().round_trip_us > 0).await;
    // Whole turns, from the answer of one heartbeat to the answer of another.
    let after_an_answer = async || {
        let (_, before) = numbers();
        wait::until("an answer", SOON, || numbers().1 > before).await;
        let (sent, received) = numbers();
        sent + received
    };
    let connection = {
        let (sent, received) = numbers();
        sent + received
    };
    let begin = after_an_answer().await;
    let mut end = begin;
    for _ in 0..HEARTBEATS {
        end = after_an_answer().await;
    }
    let carried = link.carried_upwards();
    assert!(carried <= numbers().0 && carried + 2_000 > numbers().0, "the link counts the same: {carried}");
    Idle { connection, heartbeat: (end - begin) / HEARTBEATS }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the figure is what the test is about")]
async fn an_idle_camera_costs_less_than_30_mb_a_month() {
    const HEARTBEATS: u64 = 30 * 24 * 3_600 / 30;
    const STATISTICS: u64 = 30 * 24 * 3_600 / 600;
    const CONNECTIONS: u64 = 30;
    let (bare, full) = (idle(3_600).await, idle(1).await);
    assert!(bare.heartbeat < full.heartbeat, "{} {}", bare.heartbeat, full.heartbeat);
    let packets = HEARTBEATS * PACKETS + CONNECTIONS * PACKETS_OF_A_CONNECTION;
    let octets = (HEARTBEATS - STATISTICS) * bare.heartbeat
        + STATISTICS * (full.heartbeat + LONGER_NUMBERS)
        + CONNECTIONS * bare.connection
        + packets * HEADERS;
    println!(
        "idle: {:.1} MB a month of 30 days. A heartbeat and its answer have {} octets at the socket, with statistics {}, a \
         connection {}; {HEARTBEATS} heartbeats, {STATISTICS} with statistics, {CONNECTIONS} connections, {packets} packets \
         with {HEADERS} octets of headers",
        octets as f64 / 1e6,
        bare.heartbeat,
        full.heartbeat,
        bare.connection,
    );
    assert!(octets <= 30_000_000, "{octets}");
}

//! `camagentd doctor` names the step that is broken and what to do about it: each fault is made for real, and the first step that fails is the
//! one that has it. A healthy site has no complaint, a running agent keeps its session, and no secret is in what is printed.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use camagent_testkit::raw_agent::{RawAgent, SUBPROTOCOL};
use camagent_testkit::raw_server::RawServer;
use camagent_testkit::rtsp_camera::{Behaviour, MAIN, RtspCamera, SUB, THIRD};
use camagent_testkit::{CloudServer, Daemon, wait};
use serde_json::{Value, json};

const DAEMON: &str = env!("CARGO_BIN_EXE_camagentd");

/// What a doctor printed as JSON, and how it ended.
struct Diagnosis {
    code: Option<i32>,
    whole: Value,
}

impl Diagnosis {
    /// The steps with this verdict: id and subject.
    fn with(&self, verdict: &str) -> Vec<(&str, &str)> {
        let has = |check: &&Value| check["verdict"] == verdict;
        self.checks().iter().filter(has).map(|check| (text(&check["id"]), text(&check["subject"]))).collect()
    }

    fn checks(&self) -> &[Value] {
        self.whole["checks"].as_array().expect("a list")
    }

    /// What was measured and advised in the one step of this name.
    fn step(&self, id: &str, subject: &str) -> (&str, &str, &str) {
        let check = self.checks().iter().find(|check| check["id"] == id && check["subject"] == subject);
        let check = check.unwrap_or_else(|| panic!("no step {id} {subject} in {:#}", self.whole));
        (text(&check["verdict"]), text(&check["measured"]), text(&check["advice"]))
    }

    /// Exactly this step fails, in these words, with this advice; what needs it is not looked at.
    fn fails_only(&self, id: &str, subject: &str, measured: &str, advice: &str) {
        assert_eq!((self.code, text(&self.whole["verdict"])), (Some(1), "fail"), "{:#}", self.whole);
        assert_eq!(self.with("fail"), [(id, subject)], "{:#}", self.whole);
        let (_, found, told) = self.step(id, subject);
        assert!(found.contains(measured), "{measured:?} is not in {found:?}");
        assert!(told.contains(advice), "{advice:?} is not in {told:?}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// A server, an agent that it knows, a folder.
struct Site {
    server: CloudServer,
    token: String,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let server = CloudServer::start().await;
        let token = server.add_agent("gate").await;
        Self { server, token, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A configuration that works, with some values changed.
    fn config(&self, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut config = self.server.agent_json("gate", &self.token, self.server.addresses().tls);
        change(&mut config);
        let file = self.folder.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("the folder can be written");
        file
    }

    /// Runs the doctor for a configuration with some values changed.
    async fn ask(&self, arguments: &[&str], change: impl FnOnce(&mut Value)) -> Diagnosis {
        let file = self.config(change);
        let mut command = Command::new(DAEMON);
        command.args(["doctor", "--json", "--config"]).arg(file).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().expect("the doctor starts"));
        let output = output.await.expect("it does not panic");
        let printed = String::from_utf8(output.stdout).expect("text");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{printed}");
        assert!(!printed.contains(&self.token), "the token is shown: {printed}");
        assert!(!printed.contains("a-camera's password"), "the password is shown: {printed}");
        let whole = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"));
        Diagnosis { code: output.status.code(), whole }
    }

    fn url(&self, scheme: &str, address: SocketAddr) -> Value {
        json!(format!("{scheme}://{address}/agent"))
    }
}

/// A port of loopback where nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback has free ports")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_site_has_no_complaint_and_the_running_agent_keeps_its_session() {
    let site = Site::new().await;
    let file = site.config(|_| {});
    let daemon = Daemon::start(DAEMON, &["--config", file.to_str().expect("text")]);
    let online = || site.server.server().agents().status("gate").is_some_and(|status| status.online);
    wait::until("the running agent", wait::SOON, online).await;

    let diagnosis = site.ask(&[], |_| {}).await;
    assert_eq!((diagnosis.code, text(&diagnosis.whole["verdict"])), (Some(0), "ok"), "{:#}", diagnosis.whole);
    assert_eq!((diagnosis.with("fail"), diagnosis.with("warn")), (vec![], vec![]), "{:#}", diagnosis.whole);
    assert_eq!(diagnosis.with("skip"), [("register", "")]);
    for (id, part) in [
        ("configuration", "agent gate for wss://127.0.0.1:"),
        ("clock", "Z"),
        ("dns", "127.0.0.1 needs no lookup"),
        ("tcp", "connected to 127.0.0.1:"),
        ("tls", "TLS 1.3, TLS13_AES_"),
        ("tls", "the key is the pinned one"),
        ("websocket", "/agent/gate: upgraded to camagent.v1, token accepted"),
        ("server_clock", "of the server's"),
        ("round_trip", "in 5 pings"),
        ("register", "--register"),
    ] {
        let (_, measured, advice) = diagnosis.step(id, "");
        assert!(measured.contains(part), "{part:?} is not in {measured:?}");
        assert_eq!(advice, "");
    }
    let status = site.server.server().agents().status("gate").expect("it is known");
    assert!(status.online && status.generation == 1, "the doctor took its place: {status:?}");
    assert_eq!(site.server.event_count("agent_refused"), 0);

    // For people: a line for each step, and the same verdict.
    let output = Command::new(DAEMON).args(["doctor", "--config"]).arg(&file).output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains("\nok    tls            TLS 1.3") && printed.contains("\n--    register"), "{printed}");
    assert!(printed.contains("0 failed, 0 with a warning, 1 not looked at"), "{printed}");

    // Asked to register, it takes the place of the running agent, which comes back later.
    let diagnosis = site.ask(&["--register"], |_| {}).await;
    assert_eq!(diagnosis.code, Some(0), "{:#}", diagnosis.whole);
    assert!(diagnosis.step("register", "").1.contains("camera(s) gate accepted"), "{:#}", diagnosis.whole);
    assert_eq!(site.server.server().agents().status("gate").map(|status| status.generation), Some(2));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.end().await.0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_on_the_way_to_the_server_has_its_step_and_its_advice() {
    let site = Site::new().await;
    let address = site.server.addresses();
    let agent = |key: &'static str, value: Value| move |config: &mut Value| config["agent"][key] = value;

    let wrong_token = site.ask(&[], agent("cloud_server_token", json!("guessed-by-somebody"))).await;
    wrong_token.fails_only("websocket", "", "HTTP 401", "camagent-cloud agent add gate");
    assert!(!wrong_token.whole.to_string().contains("guessed"), "{:#}", wrong_token.whole);
    assert_eq!(wrong_token.step("tls", "").0, "ok");
    assert_eq!(wrong_token.step("round_trip", "").0, "skip");
    let unknown_agent = site.ask(&[], agent("agent_id", json!("nobody"))).await;
    unknown_agent.fails_only("websocket", "", "HTTP 401", "camagent-cloud agent add nobody");

    let pin = json!("sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let wrong_pin = site.ask(&[], agent("server_pin", pin)).await;
    wrong_pin.fails_only("tls", "", site.server.pin(), "compare with what `camagent-cloud` prints");
    let no_pin = site.ask(&[], |config| drop(config["agent"].as_object_mut().expect("an object").remove("server_pin")));
    no_pin.await.fails_only("tls", "", "UnknownIssuer", "agent.server_pin");

    let closed = closed_port();
    let closed_port = site.ask(&[], agent("cloud_server_url", site.url("wss", closed))).await;
    closed_port.fails_only(
        "tcp",
        "",
        &format!("{closed}: refused"),
        &format!("nothing listens on port {}", closed.port()),
    );
    assert_eq!(closed_port.with("skip").len(), 5, "{:#}", closed_port.whole);
    let no_tls = site.ask(&[], agent("cloud_server_url", site.url("wss", address.http))).await;
    no_tls.fails_only("tls", "", "corrupt message", "speaks no TLS");
    let other_protocol = site.ask(&[], agent("cloud_server_url", site.url("ws", address.rtsp))).await;
    other_protocol.fails_only("websocket", "", "", "is the port right?");
    let other_path = site.ask(&[], agent("cloud_server_url", json!(format!("wss://{}/door", address.tls)))).await;
    other_path.fails_only("websocket", "", "HTTP 404", "ends in /agent");
    let no_name = site.ask(&[], agent("cloud_server_url", json!("wss://no-such-host.invalid/agent"))).await;
    no_name.fails_only("dns", "", "no-such-host.invalid", "spelled right");
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let silent_address = silent.local_addr().expect("an address");
    let says_nothing = site.ask(&["--wait", "1"], agent("cloud_server_url", site.url("wss", silent_address))).await;
    says_nothing.fails_only("tls", "", "no handshake within 1.0 s", "`tls` port");

    let plain = site.ask(&[], agent("cloud_server_url", site.url("ws", address.http))).await;
    assert_eq!((plain.code, plain.with("warn")), (Some(0), vec![("tls", "")]), "a warning is no failure");
    let placeholder = site.ask(&[], |config| config["network"]["speed"] = json!(3)).await;
    assert_eq!((placeholder.code, placeholder.with("warn")), (Some(0), vec![("configuration", "")]));
    let broken = site.ask(&[], |config| config["network"]["heartbeat_interval"] = json!("soon")).await;
    broken.fails_only("configuration", "", "network.heartbeat_interval is \"soon\"", "--check-config");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_time_is_found_and_works_all_the_same() {
    let site = Site::new().await;
    let raw = RawServer::start().await;
    let url = format!("ws://{}/agent", raw.address());
    for (off, way) in [(600_i64, "behind the server's"), (-600, "ahead of the server's")] {
        let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + shifted(off));
        let headers = [("Sec-WebSocket-Protocol", SUBPROTOCOL), ("Date", date.as_str())];
        let asked = site.ask(&[], |config| config["agent"]["cloud_server_url"] = json!(url));
        let (diagnosis, ()) = tokio::join!(asked, raw.upgrade_with(&headers));
        assert_eq!(diagnosis.code, Some(0), "a warning is no failure: {:#}", diagnosis.whole);
        let (verdict, measured, advice) = diagnosis.step("server_clock", "");
        assert_eq!(verdict, "warn", "{:#}", diagnosis.whole);
        let seconds: i64 = measured.split(' ').find_map(|word| word.parse().ok()).expect("how much");
        // The date is older by what the doctor took until the answer.
        assert!((seconds - 600).abs() <= 60 && measured.contains(way), "{measured}");
        assert!(advice.contains("NTP"), "{advice}");
        // It goes on behind that.
        assert!(diagnosis.step("round_trip", "").1.contains("pings"), "{:#}", diagnosis.whole);
    }
    let asked = site.ask(&[], |config| config["agent"]["cloud_server_url"] = json!(url));
    let (timeless, ()) = tokio::join!(asked, raw.upgrade_with(&[("Sec-WebSocket-Protocol", SUBPROTOCOL)]));
    assert_eq!((timeless.code, timeless.step("server_clock", "").0), (Some(0), "skip"), "{:#}", timeless.whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_that_are_swallowed_and_a_certificate_that_ends_soon_are_warnings() {
    let site = Site::new().await;
    let raw = RawServer::start().await;
    let there =
        |config: &mut Value| config["agent"]["cloud_server_url"] = json!(format!("ws://{}/agent", raw.address()));
    let (swallowed, ()) = tokio::join!(site.ask(&["--wait", "1"], there), raw.upgrade_and_swallow());
    assert_eq!(swallowed.code, Some(0), "{:#}", swallowed.whole);
    let (verdict, measured, advice) = swallowed.step("round_trip", "");
    assert!(verdict == "warn" && measured.contains("no ping was answered: no answer"), "{measured}");
    assert!(advice.contains("swallows their pings"), "{advice}");

    let files = tempfile::tempdir().expect("a temporary folder");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| files.path().join(name));
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address is a name");
    // As in `Sun, 06 Nov 1994 08:49:37 GMT`.
    let end = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(5 * 86_400));
    let words: Vec<&str> = end.split(' ').collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = 1 + months.iter().position(|month| *month == words[2]).expect("a month") as u8;
    let number = |word: &str| word.parse::<u16>().expect("a number");
    params.not_after = rcgen::date_time_ymd(number(words[3]).into(), month, number(words[1]) as u8);
    let pair = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&pair).expect("a certificate");
    std::fs::write(&certificate, made.pem()).expect("the folder can be written");
    std::fs::write(&key, pair.serialize_pem()).expect("the folder can be written");
    let server = CloudServer::with(|config| {
        (config.tls.certificate, config.tls.private_key) = (Some(certificate.clone()), Some(key));
    })
    .await;
    let token = server.add_agent("gate").await;
    let site = Site { server, token, folder: tempfile::tempdir().expect("a temporary folder") };
    let ends = site.ask(&[], |config| {
        let agent = config["agent"].as_object_mut().expect("an object");
        drop(agent.remove("server_pin"));
        agent.insert("ca_file".to_owned(), json!(certificate));
    });
    let ends = ends.await;
    assert_eq!((ends.code, ends.with("warn")), (Some(0), vec![("tls", "")]), "{:#}", ends.whole);
    let (_, measured, advice) = ends.step("tls", "");
    assert!(measured.contains("the certificate ends within 7 day(s)"), "{measured}");
    assert!(advice.contains("renew the server's certificate"), "{advice}");
}

/// The time that a clock shows which is so many seconds off.
fn shifted(seconds: i64) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("this clock is set");
    let moved = i64::try_from(now.as_secs()).expect("it fits") + seconds;
    Duration::from_secs(u64::try_from(moved).expect("after 1970"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_version_is_found_wherever_it_shows() {
    let site = Site::new().await;
    let raw = RawServer::start().await;
    let there =
        |config: &mut Value| config["agent"]["cloud_server_url"] = json!(format!("ws://{}/agent", raw.address()));
    let update = "the older one";

    // It upgrades to something else, or to nothing that it would name.
    for headers in [&[("Sec-WebSocket-Protocol", "camagent.v2")][..], &[]] {
        let (other, ()) = tokio::join!(site.ask(&[], there), raw.upgrade_with(headers));
        other.fails_only("websocket", "", "no such WebSocket sub-protocol", update);
    }
    // It refuses ours, as a server of version 2 only does; ours refuses that of such an agent in the same way.
    let refusal = r#"{"error":{"code":"subprotocol_expected","message":"the WebSocket sub-protocol is camagent.v2"}}"#;
    let (refused, ()) = tokio::join!(site.ask(&[], there), raw.refuse(400, refusal));
    refused.fails_only("websocket", "", "the WebSocket sub-protocol is camagent.v2", update);
    let ours = RawAgent::dial(site.server.addresses().http, "gate", Some(&site.token), Some("camagent.v2")).await;
    let Err((400, words)) = ours else { panic!("version 2 is let in") };
    assert!(words.contains("the WebSocket sub-protocol is camagent.v1"), "{words}");

    // The door is the same, and the session has no version in common.
    let registers = async {
        raw.upgrade_with(&[("Sec-WebSocket-Protocol", SUBPROTOCOL)]).await;
        raw.session_of(2).await
    };
    let (newer, _session) = tokio::join!(site.ask(&["--register"], there), registers);
    newer.fails_only("register", "", "2", update);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_of_somebody_else_is_found_when_it_registers() {
    let site = Site::new().await;
    let other = site.server.add_agent("other").await;
    let mut others = site.server.agent_json("other", &other, site.server.addresses().tls);
    others["camera"] = json!({"id": "yard"});
    let file = site.folder.path().join("other.json");
    std::fs::write(&file, others.to_string()).expect("the folder can be written");
    let _daemon = Daemon::start(DAEMON, &["--config", file.to_str().expect("text")]);
    let online = || site.server.server().agents().status("other").is_some_and(|status| status.online);
    wait::until("the other agent", wait::SOON, online).await;

    let diagnosis = site.ask(&["--register"], |config| config["camera"] = json!({"id": "yard"})).await;
    diagnosis.fails_only("register", "", "yard", "belongs to another agent");
}

/// The configuration's camera: the kit's, with its account.
fn pulled(config: &mut Value, camera: &RtspCamera) {
    let address = camera.rtsp_address();
    config["camera"] = json!({
        "host": address.ip().to_string(), "rtsp_port": address.port(), "user": camera.user(), "password": camera.password(),
        "codec": "H.265", "stream_paths": [MAIN, SUB, THIRD], "services": {"http": camera.http_address().port()},
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_camera_has_its_codecs_and_key_frames_told() {
    let site = Site::new().await;
    let camera = RtspCamera::start().await;
    let diagnosis = site.ask(&[], |config| pulled(config, &camera)).await;
    assert_eq!((diagnosis.code, diagnosis.with("warn")), (Some(0), vec![]), "{:#}", diagnosis.whole);
    for (id, subject, verdict, part) in [
        ("rtsp_port", "gate", "ok", format!("connected to {}", camera.rtsp_address())),
        ("describe", "gate/main", "ok", format!("{MAIN}: H.265 ")),
        ("describe", "gate/main", "ok", "PCMA 8000 Hz".into()),
        ("key_frame", "gate/main", "ok", "a key frame every 2.0 s".into()),
        ("describe", "gate/sub", "ok", "H.264 ".into()),
        ("describe", "gate/sub", "ok", "AAC ".into()),
        ("key_frame", "gate/sub", "ok", " pictures/s".into()),
        ("describe", "gate/third", "ok", "PCMU 8000 Hz".into()),
        ("key_frame", "gate/third", "skip", "no video".into()),
        ("service", "gate/http", "ok", format!("connected to {}", camera.http_address())),
    ] {
        let (found, measured, _) = diagnosis.step(id, subject);
        assert_eq!(found, verdict, "{:#}", diagnosis.whole);
        assert!(measured.contains(&part), "{part:?} is not in {measured:?}");
    }
    assert!(!diagnosis.checks().iter().any(|check| check["subject"] == "gate/rtsp"), "knocked once is enough");
    wait::until("nothing of it plays on", wait::SOON, || camera.traffic(MAIN).playing == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_camera_has_its_step_and_its_advice() {
    let site = Site::new().await;
    let mut camera = RtspCamera::start().await;
    let only_main = |config: &mut Value, camera: &RtspCamera| {
        pulled(config, camera);
        config["camera"]["stream_paths"] = json!([MAIN]);
    };

    let wrong_password = site.ask(&[], |config| {
        only_main(config, &camera);
        config["camera"]["password"] = json!("guessed-by-somebody");
    });
    let wrong_password = wrong_password.await;
    wrong_password.fails_only("describe", "gate/main", "401", "does not take user and password");
    assert!(!wrong_password.whole.to_string().contains("guessed"), "{:#}", wrong_password.whole);
    let no_password = site.ask(&[], |config| {
        only_main(config, &camera);
        let camera = config["camera"].as_object_mut().expect("an object");
        camera.retain(|key, _| key != "user" && key != "password");
    });
    no_password.await.fails_only("describe", "gate/main", "401", "wants a user and a password");

    let unknown_path = site.ask(&[], |config| {
        only_main(config, &camera);
        config["camera"]["stream_paths"] = json!(["/live/ch0"]);
    });
    unknown_path.await.fails_only("describe", "gate/main", "/live/ch0: 404", "correct stream_paths");
    let other_codec = site.ask(&[], |config| {
        only_main(config, &camera);
        config["camera"]["codec"] = json!("H.264");
    });
    let other_codec = other_codec.await;
    assert_eq!((other_codec.code, other_codec.with("warn")), (Some(0), vec![("describe", "gate/main")]));
    assert!(other_codec.step("describe", "gate/main").2.contains("camera.codec says H.264"));

    camera.behave(|behaviour| behaviour.late_key_frame = Duration::from_secs(600));
    let late = site.ask(&["--wait", "2"], |config| only_main(config, &camera)).await;
    late.fails_only("key_frame", "gate/main", "pictures and no key frame within 2.0 s", "smart codec");
    camera.behave(|behaviour| *behaviour = Behaviour { silent_after: Some(0), ..Behaviour::default() });
    let silent = site.ask(&["--wait", "2"], |config| only_main(config, &camera)).await;
    silent.fails_only("key_frame", "gate/main", "no picture within 2.0 s", "sends nothing");
    camera.behave(|behaviour| *behaviour = Behaviour { refuses_tcp: true, ..Behaviour::default() });
    let refused = site.ask(&[], |config| only_main(config, &camera)).await;
    refused.fails_only("key_frame", "gate/main", "461", "rtsp_transport");
    camera.behave(|behaviour| *behaviour = Behaviour::default());

    let wrong_service = closed_port();
    let service = site.ask(&[], |config| {
        only_main(config, &camera);
        config["camera"]["services"] = json!({"http": wrong_service.port()});
    });
    service.await.fails_only(
        "service",
        "gate/http",
        "refused",
        &format!("nothing listens on port {}", wrong_service.port()),
    );
    let no_rtsp = site.ask(&[], |config| {
        only_main(config, &camera);
        config["camera"]["rtsp_port"] = json!(camera.http_address().port());
        config["camera"]["services"] = json!({});
    });
    no_rtsp.await.fails_only("describe", "gate/main", "", "is rtsp_port right?");

    camera.stop().await;
    let off = site.ask(&[], |config| {
        only_main(config, &camera);
        config["camera"]["services"] = json!({});
    });
    let off = off.await;
    off.fails_only("rtsp_port", "gate", "refused", "nothing listens on port");
    assert_eq!(off.step("describe", "gate/main").0, "skip");
}

//! What the owner asks over HTTP reaches the camera and its answer comes back: restart, commands of the host, statistics,
//! streams; and nobody without a token gets anything but the server's health.

use std::time::{Duration, Instant};

use camagent_testkit::core::{Command, Event};
use camagent_testkit::script::VIDEO;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Api, CloudServer, Script, Viewer, camera};
use serde_json::{Value, json};

const CONTROL: &str = "/agents/cam/control";

/// The `number`th command that the host was given.
async fn command(camera: &camagent_testkit::Camera, number: usize) -> Command {
    let commands = || {
        let given = camera.events().all().into_iter().filter_map(|event| match event {
            Event::Command(command) => Some(command),
            _ => None,
        });
        given.collect::<Vec<_>>().into_iter().nth(number)
    };
    wait::found("a command at the camera", SOON, commands).await
}

fn ask(api: &Api, body: Value) -> tokio::task::JoinHandle<(u16, Value)> {
    let api = api.clone();
    tokio::spawn(async move { api.post(CONTROL, &body).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_begins_session_and_epochs_anew_and_viewers_go_on() {
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let camera = camera::Setup::new(server.agent("cam", &token), Script::h264_aac()).start();
    let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
    viewer.wait_count(0, 20, SOON).await;

    let (status, body) = api.post(CONTROL, &json!({"action": "restart"})).await;
    assert_eq!((status, &body["status"], &body["result"]), (200, &json!("ok"), &json!({"restarting": true})), "{body}");
    wait::until("a second session", SOON, || camera.events().sessions() == 2).await;
    let ended = camera.events().all().into_iter().find_map(|event| match event {
        Event::Disconnected { code, reason, .. } => Some((code, reason)),
        _ => None,
    });
    let (code, reason) = ended.expect("a restart ends the session");
    assert!(code == 1000 && reason.contains("restart"), "told as what it was: {code} {reason}");
    let wants_key = |event: &Event| matches!(event, Event::KeyFrameWanted { track: VIDEO });
    camera.events().wait("a wish for a key frame", SOON, |event| wants_key(event).then_some(())).await;
    // The new epoch begins at a key frame: what was pushed before it was left out, and the same viewer goes on there.
    let pushed = camera.track(VIDEO);
    let seen = viewer.count(0);
    viewer.wait_count(0, seen + 60, SOON).await;
    assert!(camera.left_out().iter().any(|left| left.track == VIDEO), "pictures before the key frame are of no use");
    let gap = camera.track(VIDEO).windows(2).find(|two| two[1].pts_us - two[0].pts_us > 40_000).map(|two| two[1].key);
    assert_eq!(gap, Some(true), "after the hole comes a key frame");
    assert!(camera.pictures() > pushed.len());
    assert!(viewer.ended().is_none());
    assert_eq!(viewer.seen(0).holes, 0);
    let (_, body) = api.get("/agents/cam").await;
    assert_eq!((&body["online"], &body["generation"]), (&json!(true), &json!(2)));
    // Everything of both epochs is acknowledged, so a stop does not wait for more.
    let begun = Instant::now();
    let report = camera.stop(Duration::from_secs(60));
    assert_eq!((report.frames_left, report.has_ended), (0, true));
    assert!(begun.elapsed() < SOON, "a stop took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_answers_refuses_or_is_silent() {
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let config = server.agent("cam", &token);
    let camera = camera::Setup::new(config, Script::h264_aac()).answers_commands().start();
    wait::until("a session", SOON, || camera.agent().is_connected()).await;

    let answer = ask(&api, json!({"action": "ptz", "camera": "cam", "args": {"pan": -3.5, "name": "Tür"}}));
    let given = command(&camera, 0).await;
    assert_eq!((given.action.as_str(), given.camera.as_deref()), ("ptz", Some("cam")));
    let args: Value = serde_json::from_str(&given.args).expect("JSON");
    assert_eq!(args, json!({"pan": -3.5, "name": "Tür"}));
    camera.agent().answer(given.token, Ok(r#"{"position":[1,2,3]}"#)).expect("it waits");
    let (status, body) = answer.await.expect("no panic");
    assert_eq!((status, &body["status"], &body["result"]["position"]), (200, &json!("ok"), &json!([1, 2, 3])));
    assert!(camera.agent().answer(given.token, Ok("")).is_err(), "it was answered before");

    let answer = ask(&api, json!({"action": "dance"}));
    let given = command(&camera, 1).await;
    assert!(camera.agent().answer(given.token, Ok("{no json")).is_err(), "an answer is JSON");
    camera.agent().answer(given.token, Err(("too_old", "this camera does not dance"))).expect("it still waits");
    let refused = json!({"error": {"code": "too_old", "message": "this camera does not dance"}});
    assert_eq!(answer.await.expect("no panic"), (422, refused));

    // Nobody answers: an error within the time that was asked for, and not a request that hangs.
    let (status, body) = ask(&api, json!({"action": "sleep", "timeout_ms": 300})).await.expect("no panic");
    let code = body["error"]["code"].as_str().unwrap_or_default();
    assert!(matches!((status, code), (422, "unanswered") | (504, "timeout")), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_handles_is_an_error_and_so_is_an_absent_agent() {
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let (status, body) = api.post(CONTROL, &json!({"action": "restart"})).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("agent_offline")));
    let camera = camera::Setup::new(server.agent("cam", &token), Script::h264_aac()).start();
    wait::until("a session", SOON, || camera.agent().is_connected()).await;
    let (status, body) = api.post(CONTROL, &json!({"action": "dance"})).await;
    assert_eq!((status, &body["error"]["code"]), (422, &json!("unsupported")));
    assert!(body["error"]["message"].as_str().is_some_and(|words| words.contains("dance")), "{body}");
    assert_eq!(camera.events().count(|event| matches!(event, Event::Command(_))), 0);
    assert_eq!(api.post("/agents/nobody/control", &json!({"action": "restart"})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_and_streams_are_told() {
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let api = server.api("ops").await;
    let camera = camera::Setup::new(server.agent("cam", &token), Script::h264_aac()).pace(2.0).start();
    let statistics = async || api.get("/agents/cam").await.1["statistics"].take();
    let told = async {
        loop {
            let now = statistics().await;
            if now["uptime"].as_u64() >= Some(1) && now["bytes_sent"].as_u64() > Some(50_000) {
                return now;
            }
        }
    };
    let told = wait::within("statistics", SOON, told).await;
    for name in ["bytes_sent", "bytes_received", "packets_lost", "reconnections", "uptime", "buffer_size"] {
        assert!(told[name].is_u64(), "{name} is missing in {told}");
    }
    assert_eq!((&told["packets_lost"], &told["reconnections"]), (&json!(0), &json!(0)));
    assert!(camera.agent().statistics().bytes_sent >= told["bytes_sent"].as_u64().unwrap_or_default());

    let (status, agents) = api.get("/agents").await;
    assert_eq!(
        (status, &agents["agents"][0]["id"], &agents["agents"][0]["online"]),
        (200, &json!("cam"), &json!(true))
    );
    let (status, streams) = api.get("/streams").await;
    let stream = streams["streams"].as_array().and_then(|all| all.iter().find(|stream| stream["source"] == "main"));
    let stream = stream.expect("the source that is pushed");
    assert_eq!((status, &stream["camera"], &stream["online"]), (200, &json!("cam"), &json!(true)));
    assert_eq!(stream["url"], json!(server.url("cam", "main")));
    let (video, audio) = (&stream["tracks"][0], &stream["tracks"][1]);
    assert_eq!((&video["codec"], &video["width"], &video["height"]), (&json!("H.264"), &json!(640), &json!(360)));
    assert!(video["rfc6381"].as_str().is_some_and(|name| name.starts_with("avc1.64")), "{video}");
    assert_eq!(
        (&audio["codec"], &audio["sample_rate"], &audio["channels"]),
        (&json!("AAC"), &json!(48_000), &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_closed_without_a_token_except_health() {
    let server = CloudServer::start().await;
    let agent_token = server.add_agent("cam").await;
    let address = server.addresses().http;
    let (status, health) = Api::new(address, None).get("/health").await;
    assert_eq!((status, &health["status"]), (200, &json!("ok")));
    for token in [None, Some("wrong"), Some(agent_token.as_str())] {
        let api = Api::new(address, token);
        for path in ["/agents", "/agents/cam", "/streams", "/openapi.json"] {
            let (status, body) = api.get(path).await;
            assert_eq!((status, &body["error"]["code"]), (401, &json!("unauthorized")), "{path} with {token:?}");
        }
        let (status, _) = api.post(CONTROL, &json!({"action": "restart"})).await;
        assert_eq!(status, 401);
    }
}

//! The owner's endpoints, exactly: who may call them and what they say.

mod support;

use serde_json::{Value, json};
use support::agent::{FakeAgent, Targets, camera, shared_camera};
use support::{Running, eventually, http};

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_everything_else_needs_a_token() {
    let running = Running::start().await;
    let address = running.server.addresses().http;
    let token = running.server.add_token("ops").await.expect("adds");
    let (status, health) = http(address, "GET", "/health", None, None).await;
    assert_eq!((status, &health["status"], &health["agents_online"]), (200, &json!("ok"), &json!(0)));
    for (method, path) in [
        ("GET", "/agents"),
        ("GET", "/agents/a"),
        ("POST", "/agents/a/control"),
        ("GET", "/streams"),
        ("GET", "/openapi.json"),
    ] {
        for wrong in [None, Some("wrong")] {
            let (status, body) = http(address, method, path, wrong, None).await;
            assert_eq!((status, &body["error"]["code"]), (401, &json!("unauthorized")), "{method} {path}");
        }
    }
    let (status, body) = http(address, "GET", "/agents", Some(&token), None).await;
    assert_eq!((status, body), (200, json!({"agents": []})));
    running.server.store().remove_token("ops").await.expect("removes");
    assert_eq!(http(address, "GET", "/agents", Some(&token), None).await.0, 401, "a removal holds at once");
    assert!(running.server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_commands_to_those_that_are_away() {
    let running = Running::start().await;
    let address = running.server.addresses().http;
    let token = running.server.add_token("ops").await.expect("adds");
    let ask = async |method: &str, path: &str, body: Option<Value>| {
        http(address, method, path, Some(&token), body.as_ref()).await
    };
    running.server.add_agent("cam-1").await.expect("adds");
    let (status, agent) = ask("GET", "/agents/cam-1", None).await;
    assert_eq!((status, &agent["id"], &agent["online"]), (200, &json!("cam-1"), &json!(false)));
    assert_eq!(ask("GET", "/agents/nobody", None).await.0, 404);
    let restart = json!({"action": "restart"});
    let (status, body) = ask("POST", "/agents/cam-1/control", Some(restart.clone())).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("agent_offline")));
    assert_eq!(ask("POST", "/agents/nobody/control", Some(restart)).await.0, 404);
    for wrong in
        [json!({}), json!({"action": ""}), json!({"action": "x", "timeout_ms": 0}), json!({"action": "x", "y": 1})]
    {
        let (status, body) = ask("POST", "/agents/cam-1/control", Some(wrong.clone())).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_request")), "{wrong}");
    }
    assert_eq!(ask("GET", "/nothing", None).await.0, 404);
    assert_eq!(ask("DELETE", "/agents", None).await.0, 405);
    let (status, description) = ask("GET", "/openapi.json", None).await;
    assert_eq!(status, 200);
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_show_where_their_services_are() {
    let running = Running::start().await;
    let address = running.server.addresses().http;
    let token = running.server.add_token("ops").await.expect("adds");
    let paths = [("main", "/cam/realmonitor?channel=1&subtype=0"), ("sub", "/cam/realmonitor?channel=1&subtype=1")];
    let mut gate = shared_camera("gate", &paths);
    gate.services.extend(camera("gate", &[("onvif", 80)]).services);
    gate.description.insert("model".into(), json!("x"));
    let agent = FakeAgent::join(&running.server, "cam-1", vec![gate], Targets::new()).await;
    let listening = || {
        let all = running.server.tunnels().of_agent("cam-1");
        all.len() == 2 && all.iter().all(|status| status.row.state.word() == "listening")
    };
    eventually("both services to listen", listening).await;
    let (status, body) = http(address, "GET", "/api/v1/agents/cam-1", Some(&token), None).await;
    assert_eq!(status, 200);
    assert_eq!(body, http(address, "GET", "/agents/cam-1", Some(&token), None).await.1, "both names are one");
    let gate = &body["cameras"][0];
    assert_eq!((&gate["id"], &gate["model"]), (&json!("gate"), &json!("x")));
    assert_eq!(gate["sources"][1]["policy"], "on_demand");
    let [onvif, rtsp] = &gate["services"].as_array().expect("a list")[..] else { panic!("{gate}") };
    let at = rtsp["address"].as_str().expect("an address");
    assert_eq!(rtsp["urls"], json!(paths.map(|(_, path)| format!("rtsp://{at}{path}"))));
    assert_eq!((&rtsp["state"], &rtsp["mode"], &rtsp["port"]), (&json!("listening"), &json!("shared"), &json!(554)));
    assert!(onvif["urls"][0].as_str().is_some_and(|url| url.ends_with("/onvif/device_service")), "{onvif}");
    assert_eq!((&rtsp["visitors"], &rtsp["octets_to_visitors"], &rtsp["reason"]), (&json!(0), &json!(0), &Value::Null));

    // Also while the agent is away.
    agent.leave();
    let (_, body) = http(address, "GET", "/agents/cam-1", Some(&token), None).await;
    assert_eq!((&body["online"], &body["cameras"][0]["services"][1]["address"]), (&json!(false), &json!(at)));
}

//! The owner's endpoints, exactly: who may call them and what they say.

mod support;

use serde_json::{Value, json};
use support::{Running, http};

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

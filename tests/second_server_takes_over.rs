//! A list of servers: when the first one is away the second takes over, with the same cameras and viewers' URLs of its own; when the first
//! one is well again the agent goes back, without being without a server meanwhile.

use std::time::Duration;

use camagent_testkit::core::{Config, Event};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Camera, CloudServer, Script, Viewer, camera};
use serde_json::Value;

/// Two servers that know one agent. Its configuration trusts both, as plain ws:// does anybody.
async fn two() -> (CloudServer, CloudServer, Value) {
    let (first, second) = (CloudServer::start().await, CloudServer::start().await);
    let json = known_to_both(&first, &second).await;
    (first, second, json)
}

async fn known_to_both(first: &CloudServer, second: &CloudServer) -> Value {
    let token = first.add_agent("cam").await;
    // The same token at both, as an operator sets it up who copies the row.
    second.server().store().add_agent("cam", &cloud_server::auth::hash(&token), 1).await.expect("a new id");
    let mut json = first.agent_json("cam", &token, first.addresses().http);
    let url = |server: &CloudServer| format!("ws://{}/agent", server.addresses().http);
    json["agent"]["cloud_server_url"] = serde_json::json!([url(first), url(second)]);
    json["agent"].as_object_mut().expect("an object").remove("server_pin");
    json["network"]["return_interval"] = 1.into();
    json
}

fn start(json: &Value) -> Camera {
    let config = Config::from_json(&json.to_string()).expect("a good file");
    camera::Setup::new(config, Script::h264_aac()).start()
}

async fn plays(server: &CloudServer) {
    let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
    viewer.wait_count(0, 20, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_over_and_the_first_one_gets_its_agent_back() {
    let (mut first, second, json) = two().await;
    let camera = start(&json);
    plays(&first).await;
    assert_eq!(second.event_count("agent_online"), 0, "the first one is well");

    first.stop().await;
    plays(&second).await;

    first.start_again().await;
    plays(&first).await;
    wait::until("the second one's end", SOON, || second.event_count("agent_offline") == 1).await;
    let last = camera.events().all().into_iter().rev().find_map(|event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    });
    assert!(last.as_ref().is_some_and(|reason| reason.contains("well again")), "{last:?}");
    assert_eq!(camera.agent().statistics().packets_lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_sends_its_agents_to_another_one() {
    let second = CloudServer::start().await;
    let there = format!("ws://{}/agent", second.addresses().http);
    let mut first = CloudServer::with(|config| {
        config.goaway.come_back_within = Duration::ZERO;
        config.goaway.servers = vec!["wss://nobody-configured-this.example/agent".into(), there.clone()];
    })
    .await;
    let json = known_to_both(&first, &second).await;
    let camera = start(&json);
    plays(&first).await;
    first.stop().await;
    plays(&second).await;
    let ends = camera.events().count(|event| matches!(event, Event::Disconnected { .. }));
    assert_eq!(ends, 1, "straight there: {:?}", camera.events().all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_passed_over() {
    let (first, second, mut json) = two().await;
    first.server().store().remove_agent("cam").await.expect("it was there");
    json["network"]["return_interval"] = 3_600.into();
    let camera = start(&json);
    plays(&second).await;
    assert!(camera.agent().is_connected());
    assert_eq!(first.event_count("agent_online"), 0);
}

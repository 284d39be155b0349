//! An agent believes exactly whom its configuration names, over IPv4 and IPv6: an authority's file with names checked, a pinned key, or the
//! system's authorities, which know nothing of a server's own certificate.

use camagent_testkit::{
    CloudServer,
    core::{Agent, Config, Event, Host},
    wait,
};
use serde_json::Value;

/// What came first: `Ok` for a session, else why there is none.
async fn outcome(json: &Value) -> Result<String, String> {
    let agent = Agent::start(Config::from_json(&json.to_string()).unwrap(), Host::default()).unwrap();
    tokio::task::spawn_blocking(move || {
        while let Some(event) = agent.poll_event(wait::SOON) {
            match event {
                Event::Connected { address, .. } => return Ok(address),
                Event::Disconnected { reason, .. } => return Err(reason),
                _ => {}
            }
        }
        panic!("neither a session nor a reason within {:?}", wait::SOON)
    })
    .await
    .unwrap()
}

async fn setting(address: &str) -> (CloudServer, Value) {
    let server = CloudServer::with(|config| config.listen.tls = address.parse().unwrap()).await;
    let token = server.add_agent("porch").await;
    let mut json = server.agent_json("porch", &token, server.addresses().tls);
    json["agent"].as_object_mut().unwrap().remove("server_pin");
    (server, json)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_a_file_is_believed_for_its_names() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (server, mut json) = setting(address).await;
        json["agent"]["ca_file"] = server.folder().join("cert.pem").to_str().unwrap().into();
        let connected = outcome(&json).await.unwrap_or_else(|reason| panic!("{address}: {reason}"));
        assert_eq!(connected, server.addresses().tls.to_string());
    }
    let (server, mut json) = setting("127.0.0.1:0").await;
    json["agent"]["ca_file"] = server.folder().join("cert.pem").to_str().unwrap().into();
    json["agent"]["cloud_server_url"] = format!("wss://localhost:{}/agent", server.addresses().tls.port()).into();
    assert_eq!(outcome(&json).await.unwrap(), server.addresses().tls.to_string(), "by name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_in_the_certificate_is_refused() {
    let (server, mut json) = setting("0.0.0.0:0").await;
    json["agent"]["ca_file"] = server.folder().join("cert.pem").to_str().unwrap().into();
    json["agent"]["cloud_server_url"] = format!("wss://127.0.0.2:{}/agent", server.addresses().tls.port()).into();
    let reason = outcome(&json).await.unwrap_err();
    assert!(reason.contains("certificate") && reason.contains("127.0.0.2"), "{reason}");
    assert!(reason.contains("agent.cloud_server_url"), "says what to do: {reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_systems_authorities_do_not_know_a_servers_own_certificate() {
    let (server, json) = setting("127.0.0.1:0").await;
    let reason = outcome(&json).await.unwrap_err();
    assert!(reason.contains("certificate"), "{reason}");
    assert!(reason.contains("agent.ca_file") && reason.contains("agent.server_pin"), "says what to do: {reason}");
    assert_eq!(server.event_count("agent_online"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_key_is_believed_under_any_name_and_another_one_never() {
    let (server, mut json) = setting("0.0.0.0:0").await;
    json["agent"]["server_pin"] = server.pin().into();
    json["agent"]["cloud_server_url"] = format!("wss://127.0.0.2:{}/agent", server.addresses().tls.port()).into();
    outcome(&json).await.unwrap();
    let (other, _) = setting("127.0.0.1:0").await;
    json["agent"]["server_pin"] = other.pin().into();
    let reason = outcome(&json).await.unwrap_err();
    assert!(reason.contains(server.pin()), "the reason names the key that was seen: {reason}");
}

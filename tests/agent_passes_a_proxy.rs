//! An agent behind an HTTP proxy: frames arrive through it, TLS reaches from the agent to the server, what the proxy refuses is told in words,
//! and the account there is never shown.

use std::path::Path;
use std::process::Command;

use camagent_testkit::core::{Config, Event};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Proxy, Script, Viewer, camera};
use serde_json::Value;

const DAEMON: &str = env!("CARGO_BIN_EXE_camagentd");
const ACCOUNT: (&str, &str) = ("gate", "Sesam0effne0dich");

async fn behind(proxy: &str) -> (CloudServer, Value) {
    let server = CloudServer::start().await;
    let token = server.add_agent("gate").await;
    let mut json = server.agent_json("gate", &token, server.addresses().tls);
    json["network"]["proxy"] = proxy.into();
    (server, json)
}

fn read(json: &Value) -> Config {
    Config::from_json(&json.to_string()).expect("a good file")
}

fn url(proxy: &Proxy, password: &str) -> String {
    format!("http://{}:{password}@{}", ACCOUNT.0, proxy.address())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_through_the_proxy_and_come_back_after_its_end() {
    let (server, mut json) = behind("http://127.0.0.1").await;
    let Some(proxy) = Proxy::start(server.addresses().tls.port(), Some(ACCOUNT)).await else { return };
    json["network"]["proxy"] = url(&proxy, ACCOUNT.1).into();
    let camera = camera::Setup::new(read(&json), Script::h264_aac()).start();
    let viewer = Viewer::play_again(&server.url("gate", "main"), SOON).await;
    viewer.wait_count(0, 40, SOON).await;
    assert_eq!((proxy.asked(), camera.events().sessions()), (1, 1));
    let through =
        |event: &Event| matches!(event, Event::Connected { address, .. } if address.contains("through proxy"));
    assert_eq!(camera.events().count(through), 1, "{:?}", camera.events().all());
    assert!(!format!("{:?}", camera.events().all()).contains(ACCOUNT.1));

    // There is no other way: without the proxy nothing is reached, and it is said so.
    let address = proxy.address();
    drop(proxy);
    let refused = |event: &Event| match event {
        Event::Disconnected { reason, .. } if reason.contains("cannot connect") => Some(reason.clone()),
        _ => None,
    };
    let reason = camera.events().wait("the proxy's absence", SOON, refused).await;
    assert!(reason.contains(&format!("proxy http://{address}")), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_refuses_is_told_and_not_tried_over_and_over() {
    let (server, mut json) = behind("http://127.0.0.1").await;
    let Some(strict) = Proxy::start(server.addresses().tls.port(), Some(ACCOUNT)).await else { return };
    let Some(elsewhere) = Proxy::start(1, None).await else { return };
    for (proxy, words) in [
        (url(&strict, "wrong"), ["HTTP 40", "user and password"]),
        (format!("http://{}", strict.address()), ["HTTP 407", "network.proxy"]),
        (format!("http://{}", elsewhere.address()), ["HTTP 403", "does not allow"]),
    ] {
        json["network"]["proxy"] = proxy.as_str().into();
        let camera = camera::Setup::new(read(&json), Script::h264_aac()).start();
        let ended = |event: &Event| match event {
            Event::Disconnected { reason, retry_in, .. } => Some((reason.clone(), *retry_in)),
            _ => None,
        };
        let (reason, retry_in) = camera.events().wait("a refusal", SOON, ended).await;
        assert!(words.iter().all(|word| reason.contains(word)), "{proxy}: {reason}");
        assert!(retry_in.as_secs() >= 30, "only a person can lift it: {retry_in:?}");
    }
    assert_eq!(server.event_count("agent_online"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_shows_the_step_at_the_proxy() {
    let (server, mut json) = behind("http://127.0.0.1").await;
    let Some(proxy) = Proxy::start(server.addresses().tls.port(), Some(ACCOUNT)).await else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (password, proxy_step, tls_step, words) in
        [(ACCOUNT.1, "ok", "ok", "made a way to"), ("Wrong0Password", "fail", "skip", "it wants a user and password")]
    {
        json["network"]["proxy"] = url(&proxy, password).into();
        let whole = doctor(folder.path(), &json).await;
        let step = |id: &str| {
            let checks = whole["checks"].as_array().expect("a list");
            checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id} in {whole:#}")).clone()
        };
        assert_eq!(
            (&step("proxy")["verdict"], &step("tls")["verdict"]),
            (&proxy_step.into(), &tls_step.into()),
            "{whole:#}"
        );
        assert!(step("proxy")["measured"].as_str().expect("text").contains(words), "{whole:#}");
        assert!(!whole.to_string().contains(password), "the password is shown");
    }
}

async fn doctor(folder: &Path, json: &Value) -> Value {
    let file = folder.join("config.json");
    std::fs::write(&file, json.to_string()).expect("the folder can be written");
    let mut command = Command::new(DAEMON);
    command.args(["doctor", "--json", "--config"]).arg(file);
    let output = wait::within("the doctor", SOON, tokio::task::spawn_blocking(move || command.output())).await;
    let output = output.expect("it does not panic").expect("it starts");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

//! Agent and server log everything at their most detailed level, the server's libraries too, through success, refusal and
//! restart: no token and no password is in it. And neither of them turns on the process-wide logger of the `log` crate,
//! where the WebSocket library shows whole requests.

use std::sync::Arc;
use std::time::Duration;

use camagent_testkit::core::{Config, Event, Secret};
use camagent_testkit::logs::{Logs, process_wide_log_is_off};
use camagent_testkit::raw_agent::{RawAgent, SUBPROTOCOL, registration};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Script, Viewer, camera};
use serde_json::json;

const PASSWORD: &str = "sesame-of-the-camera";
const WRONG: &str = "guessed-by-somebody";

#[tokio::test(flavor = "multi_thread")]
async fn neither_token_nor_password() {
    let logs = Logs::of_the_process();
    let server = CloudServer::start().await;
    let token = server.add_agent("cam").await;
    let api_token = server.server().add_token("ops").await.expect("a new name");
    let address = server.addresses();
    let api = camagent_testkit::Api::new(address.http, Some(&api_token));

    for (place, id) in
        [(format!("wss://{}/agent", address.tls), "cam"), (format!("ws://{}/agent", address.http), "cam")]
    {
        let mut json = server.agent_json(id, &token, address.tls);
        json["agent"]["cloud_server_url"] = json!(place);
        json["camera"] = json!({"user": "admin", "password": PASSWORD});
        let config = Config::from_json(&json.to_string()).expect("a good file");
        assert!(!format!("{config:?}").contains(&token), "nor does Debug show it");
        assert!(!format!("{config:?}").contains(PASSWORD));
        assert_eq!(config.cameras[0].password.as_ref().map(Secret::reveal), Some(PASSWORD));
        let setup = camera::Setup::new(config, Script::h264_aac()).pace(4.0).logger(Arc::new(logs.clone()));
        let camera = setup.start();
        let viewer = Viewer::play_again(&server.url("cam", "main"), SOON).await;
        viewer.wait_count(0, 20, SOON).await;
        assert_eq!(api.get("/agents/cam").await.0, 200);
        assert_eq!(api.post("/agents/cam/control", &json!({"action": "restart"})).await.0, 200);
        wait::until("a second session", SOON, || camera.events().sessions() == 2).await;
        assert!(camera.stop(Duration::from_secs(5)).has_ended);
    }

    // Refused with a token that is wrong, in the header and in the first message.
    let refused =
        camera::Setup::new(server.agent("cam", WRONG), Script::h264_aac()).logger(Arc::new(logs.clone())).start();
    let told = |event: &Event| matches!(event, Event::Disconnected { .. }).then_some(());
    refused.events().wait("a refusal", SOON, told).await;
    drop(refused);
    let mut agent = RawAgent::dial(address.http, "cam", None, Some(SUBPROTOCOL)).await.expect("register may bring it");
    let mut data = registration("cam");
    data["token"] = json!(WRONG);
    agent.tell("register", data).await;
    assert_eq!(agent.closed().await.0, 4001);
    assert_eq!(camagent_testkit::Api::new(address.http, Some(WRONG)).get("/agents").await.0, 401);

    let text = logs.text();
    for proof in ["connected to", "agent_online", "agent_refused"] {
        assert!(text.contains(proof), "{proof}: the log was caught at all");
    }
    for (what, secret) in [
        ("the agent's token", token.as_str()),
        ("the API token", &api_token),
        ("the password", PASSWORD),
        ("a guess", WRONG),
    ] {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{what} is in the log");
    }
    assert!(process_wide_log_is_off(), "the host's process-wide logger is the host's");
}

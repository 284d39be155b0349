//! A router that forgets idle connections costs an agent two of them: then its heartbeats come often enough, and the third one lives.

use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Event, Host};
use camagent_testkit::events::Recorder;
use camagent_testkit::netns::CLOUD;
use camagent_testkit::wait;
use camagent_testkit::{CloudServer, Nat};

/// The router's patience, and the heartbeats of the configuration, in seconds. Seven tenths of these are less than that.
const FORGETS_AFTER: u32 = 12;
const HEARTBEATS: u64 = 14;
/// What a few such silences may take.
const LONG: Duration = Duration::from_secs(90);

#[test]
fn after_two_connections_that_died_of_silence_the_third_lives() {
    let Some(nat) = Nat::make() else { return };
    nat.forget_after(FORGETS_AFTER);
    nat.cloud.block_on(async {
        let server = CloudServer::with(|config| config.listen.tls = (CLOUD, 0).into()).await;
        let token = server.add_agent("cam").await;
        let mut json = server.agent_json("cam", &token, server.addresses().tls);
        json["network"]["heartbeat_interval"] = HEARTBEATS.into();
        let config = Config::from_json(&json.to_string()).expect("a good file");
        let events = Recorder::default();
        let keeper = events.clone();
        let host = Host { on_event: Some(Box::new(move |event| keeper.keep(event))), ..Host::default() };
        let _agent = nat.site.within(|| Agent::start(config, host).expect("it starts"));
        wait::until("the third session", LONG, || events.sessions() == 3).await;
        let silent = |event: &Event| matches!(event, Event::Disconnected { code: 4008, .. });
        assert_eq!(events.count(silent), 2, "{:?}", events.all());

        let heartbeat = || server.server().agents().status("cam").and_then(|status| status.heartbeat_us);
        wait::until("the first heartbeat of the session", wait::SOON, || heartbeat().is_some()).await;
        for _ in 0..2 {
            let before = heartbeat();
            wait::until("a heartbeat after a silence", LONG, || heartbeat() > before).await;
        }
        assert_eq!(events.sessions(), 3, "{:?}", events.all());
    });
}

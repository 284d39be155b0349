//! A camera that gets another address, or changes from cable to radio, is back at once: it does not wait until its old connection is found dead.
//! The kernel tells it, or the host program does.

use std::time::{Duration, Instant};

use camagent_testkit::core::{Agent, Config, Event, Host};
use camagent_testkit::events::Recorder;
use camagent_testkit::netns::CLOUD;
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{CloudServer, Nat, RawServer};
use serde_json::json;

#[test]
fn another_address_is_noticed_by_the_agent_itself() {
    let Some(nat) = Nat::make() else { return };
    nat.cloud.block_on(async {
        let server = CloudServer::with(|config| config.listen.tls = (CLOUD, 0).into()).await;
        let token = server.add_agent("cam").await;
        let mut json = server.agent_json("cam", &token, server.addresses().tls);
        // An idle agent: nothing but a heartbeat would find out, half a minute later.
        json["network"]["heartbeat_interval"] = 3_600.into();
        let config = Config::from_json(&json.to_string()).expect("a good file");
        let events = Recorder::default();
        let keeper = events.clone();
        let host = Host { on_event: Some(Box::new(move |event| keeper.keep(event))), ..Host::default() };
        let agent = nat.site.within(|| Agent::start(config, host).expect("it starts"));
        wait::until("a session", SOON, || events.sessions() == 1).await;
        wait::until("its first heartbeat's answer", SOON, || agent.statistics().round_trip_us > 0).await;

        let begun = Instant::now();
        for line in [
            "addr del 192.168.77.108/24 dev up0",
            "addr add 192.168.77.109/24 dev up0",
            "route add default via 192.168.77.1",
        ] {
            nat.site.ip(line).expect("root may");
        }
        wait::until("a session from there", SOON, || events.sessions() == 2).await;
        #[allow(clippy::print_stderr, reason = "the measurement is worth having")]
        {
            eprintln!("back after {:?}", begun.elapsed());
        }
        let moved =
            |event: &Event| matches!(event, Event::Disconnected { reason, .. } if reason.contains("another network"));
        assert_eq!(events.count(moved), 1, "{:?}", events.all());
        assert_eq!(server.event_count("agent_replaced"), 1, "the new one was there before the old one was missed");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_knows_better_is_believed() {
    let server = RawServer::start().await;
    let mut json = server.agent_json("cam", &json!({}));
    json["network"]["heartbeat_interval"] = 3_600.into();
    let config = Config::from_json(&json.to_string()).expect("a good file");
    let agent = Agent::start(config, Host::default()).expect("it starts");
    let mut first = server.session().await;
    // It answers what was asked at the beginning, and nothing afterwards.
    first.heard().await;
    let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
    let uptime = uptime.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).expect("seconds");
    let sent_us = ((uptime - 0.05) * 1e6) as u64;
    assert!(first.say("heartbeat_ack", json!({"sent_us": sent_us, "server_time_ms": 0})).await);
    wait::until("an answered heartbeat", SOON, || agent.statistics().round_trip_us > 0).await;

    agent.network_changed().expect("it runs");
    let second = server.session().await;
    assert_eq!(second.register["boot_id"], first.register["boot_id"]);
    let events: Vec<Event> = std::iter::from_fn(|| agent.poll_event(Duration::ZERO)).collect();
    let moved = events
        .iter()
        .any(|event| matches!(event, Event::Disconnected { reason, .. } if reason.contains("does not answer")));
    assert!(moved, "{events:?}");
}

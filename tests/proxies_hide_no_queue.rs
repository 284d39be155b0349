//! A proxy that ends TCP acknowledges everything at once. However much it would take, the agent lets little wait there, keeps the link behind it busy,
//! and stays prompt.

use std::time::Duration;

use camagent_testkit::core::{Agent, Config, Host};
use camagent_testkit::wait::{self, SOON};
use camagent_testkit::{Accelerator, CloudServer};
use cloud_server::agents::Visit;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::TcpListener,
    sync::oneshot,
};

/// 2 Mbit/s, in octets.
const RATE: u32 = 250_000;
/// Downloads at once: their windows together hold many seconds of the link.
const VISITORS: usize = 24;
/// What may wait: a second of the link, where without a bound the windows wait.
const MOST: u64 = RATE as u64;

#[tokio::test(flavor = "multi_thread")]
async fn downloads_through_an_accelerator_wait_at_the_camera() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Until the visitor goes.
                while socket.write_all(&[7; 16 << 10]).await.is_ok() {}
            });
        }
    });
    let server = CloudServer::start().await;
    let token = server.add_agent("gate").await;
    let api = server.api("ops").await;
    let accelerator = Accelerator::to(server.addresses().tls, RATE).await;
    let mut config = server.agent_json("gate", &token, accelerator.address());
    config["camera"] = json!({"services": {"flood": port}});
    let config = Config::from_json(&config.to_string()).expect("a configuration");
    let agent = Agent::start(config, Host::default()).expect("starts");
    wait::until("a session", SOON, || agent.is_connected()).await;
    for _ in 0..VISITORS {
        let (mut near, far) = duplex(64 << 10);
        let (farewell, _told) = oneshot::channel();
        let visit = Visit {
            camera: "gate".into(),
            service: "flood".into(),
            visitor: "192.0.2.7:1234".into(),
            socket: Box::new(far),
            farewell,
        };
        server.server().agents().visit("gate", visit, SOON).await.expect("the agent is there");
        tokio::spawn(async move {
            let mut octets = vec![0; 64 << 10];
            while let Ok(1..) = near.read(&mut octets).await {}
        });
    }
    let carried = |seconds: u64| {
        let until = accelerator.carried() + seconds * u64::from(RATE);
        let accelerator = &accelerator;
        async move { wait::until("octets", 6 * SOON, || accelerator.carried() >= until).await }
    };
    carried(2).await;
    // What came in before anybody could know has to leave.
    let mut rounds = 0;
    while accelerator.take_most() > MOST {
        rounds += 1;
        assert!(rounds < 12, "what waits does not become less");
        carried(2).await;
    }
    for round in 0..4 {
        carried(2).await;
        let most = accelerator.take_most();
        #[allow(clippy::print_stderr, reason = "the measurement is worth having")]
        {
            eprintln!("after {rounds} rounds, round {round}: at most {most} octets wait in the proxy");
        }
        assert!(most <= MOST, "{most} octets wait in the proxy");
    }
    let (status, body) = api.get("/agents/gate").await;
    assert_eq!((status, &body["online"]), (200, &json!(true)), "{body}");
    agent.stop(Duration::from_secs(1)).expect("stops");
}

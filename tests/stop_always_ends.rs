//! A stop ends the agent within its time, whatever the network does: a link that swallows everything cannot hold it.

use std::time::{Duration, Instant};

use camagent_testkit::{
    CloudServer, Link,
    core::{Agent, Codec, Frame, Framing, Host, TrackDescription},
    wait,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_on_a_link_that_swallows_everything() {
    let server = CloudServer::start().await;
    let link = Link::to(server.addresses().tls).await;
    let token = server.add_agent("porch").await;
    let agent = Agent::start(server.agent_at("porch", &token, link.address()), Host::default()).unwrap();
    agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).unwrap();
    wait::until("the agent is connected", wait::SOON, || agent.is_connected()).await;
    link.swallow();
    // More than the kernel's buffers take: the socket is not writable any more when the stop comes.
    let mut picture = vec![0xa5; 1 << 20];
    picture[..5].copy_from_slice(&[0, 0, 0, 1, 0x65]);
    let (mut number, mut sent, mut rounds_alike) = (0, 0, 0);
    wait::until("the socket takes nothing any more", wait::SOON, || {
        number += 40_000;
        agent.push_frame(0, Frame { pts_us: number, dts_us: number, data: &picture, ..Frame::default() }).unwrap();
        let before = std::mem::replace(&mut sent, agent.statistics().bytes_sent);
        rounds_alike = if before == sent { rounds_alike + 1 } else { 0 };
        rounds_alike > 20
    })
    .await;
    let began = Instant::now();
    let report = tokio::task::block_in_place(|| agent.stop(Duration::from_millis(500))).unwrap();
    assert!(report.has_ended, "the agent's thread has ended");
    assert!(report.frames_left > 0, "{report:?}");
    assert!(began.elapsed() < wait::SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_besiege_a_server_that_refuses() {
    let server = CloudServer::start().await;
    server.add_agent("porch").await;
    let agent = Agent::start(server.agent("porch", "not-its-token"), Host::default()).unwrap();
    agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).unwrap();
    let picture = [0, 0, 0, 1, 0x65, 0x88];
    agent.push_frame(0, Frame { data: &picture, ..Frame::default() }).unwrap();
    wait::until("the server has refused", wait::SOON, || server.event_count("agent_refused") > 0).await;
    let report = tokio::task::block_in_place(|| agent.stop(Duration::from_secs(600))).unwrap();
    assert!(report.has_ended && report.frames_left == 1, "{report:?}");
    assert!(server.event_count("agent_refused") <= 2, "one more try, no more");
}

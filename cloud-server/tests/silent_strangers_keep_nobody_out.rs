//! Strangers who connect to the TLS port and say nothing do not use up the places of those who speak: they are bounded, and time out.

use std::time::Duration;

use cloud_server::metrics::Gauges;
use cloud_server::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_too_many_is_dropped_and_the_places_come_back() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut config = Config::for_tests(folder.path());
    (config.limits.handshakes_per_address, config.limits.handshakes) = (8, 16);
    let server = Server::start(config).await.expect("starts");
    let refused = |limit: &str| {
        let text = server.metrics().text(&Gauges::default());
        let told =
            |line: &str| text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok()).unwrap_or(0_u64);
        (
            told(&format!("camagent_limit_breaches_total{{limit=\"{limit}\"}}")),
            told("camagent_handshakes_refused_total"),
        )
    };
    let address = server.addresses().tls;
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut socket = TcpStream::connect(address).await.expect("connects");
        // The beginning of a handshake record, so that the server waits for the rest.
        socket.write_all(&[22, 3, 1]).await.expect("is taken");
        silent.push(socket);
    }
    let is_dropped = || async {
        let mut socket = TcpStream::connect(address).await.expect("connects");
        let said = tokio::time::timeout(Duration::from_secs(1), socket.read(&mut [0; 8])).await;
        matches!(said, Ok(Ok(0) | Err(_)))
    };
    let begun = tokio::time::Instant::now();
    while !is_dropped().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "eight of one address are let in, the next is not");
    }
    let (of_address, all) = refused("handshakes_of_an_address");
    assert!(of_address > 0 && of_address == all, "{of_address} of {all}");
    // Their time is over by itself; then there is room again.
    while is_dropped().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "the places come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(silent);
    assert!(server.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_is_bounded_by_the_limit_of_all_only() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut config = Config::for_tests(folder.path());
    (config.limits.handshakes_per_address, config.limits.handshakes) = (2, 6);
    config.limits.handshakes_trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    let server = Server::start(config).await.expect("starts");
    let mut silent = Vec::new();
    let line = format!("limit_breaches_total{{limit=\"{}\"}}", "handshakes");
    let told = || server.metrics().text(&Gauges::default()).contains(&line);
    let begun = tokio::time::Instant::now();
    while !told() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} are let in", silent.len());
        let mut socket = TcpStream::connect(server.addresses().tls).await.expect("connects");
        let _ = socket.write_all(&[22, 3, 1]).await;
        silent.push(socket);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(silent.len() > 6, "{}", silent.len());
    let text = server.metrics().text(&Gauges::default());
    assert!(!text.contains("handshakes_of_an_address"), "{text}");
    assert!(server.stop().await);
}

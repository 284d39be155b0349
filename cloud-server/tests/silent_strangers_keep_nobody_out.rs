//! Strangers who connect to the TLS port and say nothing do not use up the places of those who speak: they are bounded, and time out.

use std::time::Duration;

use cloud_server::{Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_too_many_is_dropped_and_the_places_come_back() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let server = Server::start(Config::for_tests(folder.path())).await.expect("starts");
    let address = server.addresses().tls;
    let mut silent = Vec::new();
    for _ in 0..64 {
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
        assert!(begun.elapsed() < Duration::from_secs(20), "64 of one address are let in, the next is not");
    }
    // Their time is over by itself; then there is room again.
    while is_dropped().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "the places come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(silent);
    assert!(server.stop().await);
}

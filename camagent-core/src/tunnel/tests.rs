//! Visits through the agent's end: real sockets of the service, and the two muxes without a network.

use std::{future::poll_fn, io::Write, task::Poll, time::Duration};

use camagent_proto::{
    Instant,
    frame::{MAX_RECORD, RecordReader, RecordWriter, Space},
    message::TunnelLimits,
    mux::{Mux, Read, StreamEvent, Streams},
};
use serde_json::json;

use super::*;
use crate::{Config, burst::MAX_BURST};

struct World {
    server: Mux,
    agent: Mux,
    tunnels: Tunnels,
    now: Instant,
    got: Vec<u8>,
    events: Vec<StreamEvent>,
}

/// What the visitor says in one record.
struct Says<'a>(&'a [u8], bool);

impl Streams for Says<'_> {
    fn read(&mut self, _: u64, into: &mut Space<'_>, _: usize) -> Read {
        if self.0.is_empty() {
            return if std::mem::take(&mut self.1) { Read::End } else { Read::Pending };
        }
        let count = into.len().min(self.0.len());
        into[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Read::Octets(count)
    }
}

impl World {
    fn new(port: u16) -> Self {
        let file = json!({
            "agent": {"agent_id": "a", "cloud_server_url": "ws://h", "cloud_server_token": "t"},
            "camera": {"services": {"http": port}},
        });
        let config = Config::from_json(&file.to_string()).unwrap();
        let takes = limits(&config);
        let sends =
            TunnelLimits { streams: 0, stream_bytes: 64 << 10, bytes: 4 << 20, opens_per_second: 0, resume_bytes: 0 };
        let now = Instant::from_micros(1);
        Self {
            server: Mux::opener(sends, takes, now),
            agent: Mux::acceptor(takes, sends, now),
            tunnels: Tunnels::new(&config.cameras),
            now,
            got: Vec::new(),
            events: Vec::new(),
        }
    }

    fn visitor_says(&mut self, says: &[u8], ends: bool) {
        self.server.look_again();
        let mut record = RecordWriter::new(MAX_RECORD);
        self.server.fill_control(self.now, &mut record);
        self.server.fill(&mut record, &mut Says(says, ends));
        let mut reader = RecordReader::new(record.finish()).unwrap();
        while let Some(frame) = reader.next_frame().unwrap() {
            self.agent.handle(self.now, frame).unwrap();
        }
    }

    /// A turn of the agent's loop; its uplink takes something only when `uplink` says so.
    async fn turn(&mut self, uplink: bool) {
        let record = poll_fn(|cx| {
            while let Some(event) = self.agent.poll_event() {
                self.tunnels.hear(event, &mut self.agent);
            }
            self.tunnels.turn(cx, &mut self.agent, self.now);
            let mut record = RecordWriter::new(MAX_RECORD);
            if uplink {
                self.agent.fill_control(self.now, &mut record);
                self.agent.fill(&mut record, &mut self.tunnels.sides(cx, MAX_BURST, self.now));
            }
            Poll::Ready(record.finish())
        })
        .await;
        let mut reader = RecordReader::new(record).unwrap();
        while let Some(frame) = reader.next_frame().unwrap() {
            self.server.handle(self.now, frame).unwrap();
        }
        for stream in [1, 5] {
            let octets: Vec<u8> = self.server.received(stream).flatten().copied().collect();
            self.server.consumed(stream, octets.len());
            self.got.extend(octets);
        }
        while let Some(event) = self.server.poll_event() {
            self.events.push(event);
        }
        // Lets the runtime look at the sockets.
        tokio::task::yield_now().await;
    }

    async fn until(&mut self, done: impl Fn(&World) -> bool) {
        let begun = std::time::Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}, {} octets", self.events, self.got.len());
            self.turn(true).await;
            self.visitor_says(b"", false);
        }
    }

    fn is_connected(&self) -> bool {
        self.events.contains(&StreamEvent::Connected(1))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn an_answer_that_was_given_before_the_service_closed_reaches_the_visitor() {
    runtime().block_on(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut world = World::new(listener.local_addr().unwrap().port());
        world.server.open(world.now, "a", "http", "test").unwrap();
        world.visitor_says(b"POST / HTTP/1.1\r\n", false);
        let answer = vec![7; 20_000];
        let (mut service, _) = {
            world.until(World::is_connected).await;
            listener.accept().unwrap()
        };
        // A camera that wants a password: it answers, closes, and does not wait for the body.
        service.write_all(&answer).unwrap();
        service.shutdown(std::net::Shutdown::Write).unwrap();
        drop(service);
        // The visitor is still sending its body; the uplink is busy for a moment.
        for _ in 0..5 {
            world.visitor_says(b"more of the body", false);
            world.turn(false).await;
        }
        world.until(|world| world.got.len() >= answer.len()).await;
        assert!(world.got == answer);
    });
}

#[test]
fn a_visitor_who_left_a_hung_service_does_not_keep_his_place_for_ever() {
    runtime().block_on(async {
        // It listens and never accepts, as a hung process does.
        let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut world = World::new(hung.local_addr().unwrap().port());
        world.server.open(world.now, "a", "http", "test").unwrap();
        world.visitor_says(b"GET / HTTP/1.1\r\n\r\n", false);
        world.until(World::is_connected).await;
        // The visitor loses his patience.
        world.visitor_says(b"", true);
        world.until(|world| world.tunnels.deadline().is_some()).await;
        while let Some(deadline) = {
            world.turn(true).await;
            world.visitor_says(b"", false);
            world.tunnels.deadline()
        } {
            assert!(deadline < Instant::from_micros(600_000_000), "he keeps his place");
            world.now = world.now.max(deadline);
        }
        assert!(world.now > Instant::from_micros(1), "it took its time");
        world.until(|world| world.agent.open_streams() == 0).await;
    });
}

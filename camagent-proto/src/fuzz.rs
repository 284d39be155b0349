//! The bodies of the fuzz targets (feature `fuzz`): any octets may come, nothing panics, memory stays bounded, what is read can be written again.

mod tunnels;

pub use tunnels::tunnels;

use alloc::vec::Vec;

use bytes::Bytes;

use crate::{
    frame::{
        self, Body, Data, FrameAbort, FrameMore, FrameStart, Mack, MaxData, MaxStreamData, MaxStreams, Open,
        OpenResult, Reader, RecordReader, RecordWriter, ResetStream, ReturnStreamData, Skip, StopSending, Tack,
        TrackInfo,
    },
    message::{BootId, Message},
    mux::NoStreams,
    session::{Accept, Agent, AgentConfig, Server, ServerConfig},
    time::{Duration, Instant},
    transfer::{Entry, Journal},
};

/// One record: what is read is written and read again as the same frames.
pub fn record(data: &[u8]) {
    let Ok(mut reader) = RecordReader::new(Bytes::copy_from_slice(data)) else { return };
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = reader.next_frame() {
        frames.push(frame);
    }
    let mut writer = RecordWriter::new(usize::MAX);
    let written = frames.iter().take_while(|frame| writer.push(frame)).count();
    let mut again = RecordReader::new(writer.finish()).expect("a writer never goes over the limit");
    for frame in &frames[..written] {
        assert_eq!(again.next_frame().expect("written frames are right").as_ref(), Some(frame));
    }
}

/// The body of one frame: the first octet picks the kind.
pub fn frame(data: &[u8]) {
    fn check<B: Body + PartialEq + core::fmt::Debug>(octets: &[u8]) {
        if let Ok(body) = B::read(&mut Reader::new(Bytes::copy_from_slice(octets))) {
            let mut again = Vec::new();
            body.write(&mut again);
            assert_eq!(B::read(&mut Reader::new(again.into())).as_ref(), Ok(&body));
        }
    }
    let Some((kind, octets)) = data.split_first() else { return };
    // The kinds of tunnels came later: the octets of the others keep their meaning in the corpus.
    match kind {
        0x80 => return check::<Open>(octets),
        0x81 => return check::<OpenResult>(octets),
        0x82 => return check::<Data>(octets),
        0x83 => return check::<ResetStream>(octets),
        0x84 => return check::<StopSending>(octets),
        0x85 => return check::<MaxData>(octets),
        0x86 => return check::<MaxStreamData>(octets),
        0x87 => return check::<MaxStreams>(octets),
        0x88 => return check::<Tack>(octets),
        0x89 => return check::<frame::Journal>(octets),
        0x8a => return check::<frame::EpochEnd>(octets),
        0x8b => return check::<frame::Arrived>(octets),
        0x8c => return check::<ReturnStreamData>(octets),
        _ => {}
    }
    match kind % 6 {
        0 => check::<TrackInfo>(octets),
        1 => check::<FrameStart>(octets),
        2 => check::<FrameMore>(octets),
        3 => check::<FrameAbort>(octets),
        4 => check::<Skip>(octets),
        _ => check::<Mack>(octets),
    }
}

/// One control message: what is read is written and read again as the same message.
pub fn control_json(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(Some(message)) = Message::read(text) {
        let again = message.to_text();
        // Numbers and defaults may make the text longer than the limit that was held on the way in.
        if again.len() <= crate::message::MAX_TEXT {
            let read = Message::read(&again).expect("what was written is right").expect("and of a known type");
            assert_eq!(read.to_text(), again);
        }
    }
}

/// Sequences of messages to both roles. Each operation: one octet that says what, one that says how long, then so many octets.
pub fn session(data: &[u8]) {
    let mut world = World::new();
    let mut data = data;
    while let [what, length, rest @ ..] = data {
        let (octets, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        world.step(*what, octets);
    }
}

/// A journal that holds all frames up to an end, until it loses one while that is being sent: each seventeenth.
struct Endless {
    end: u64,
    evicted: u64,
}

impl Journal for Endless {
    fn find(&mut self, _: u32, _: u64, sequence: u64) -> Option<Entry> {
        let sequence = sequence.max(self.evicted);
        (sequence < self.end).then(|| Entry { sequence, head: Default::default(), length: 700 })
    }
    fn newest_key(&mut self, _: u32, _: u64) -> Option<u64> {
        (self.evicted < self.end).then(|| self.end - 1)
    }
    fn end(&mut self, _: u32, _: u64) -> u64 {
        self.end
    }
    fn copy(&mut self, _: u32, _: u64, sequence: u64, _: u64, into: &mut [u8]) -> bool {
        into.fill(sequence as u8);
        if sequence.is_multiple_of(17) {
            self.evicted = self.evicted.max(sequence + 1);
        }
        sequence >= self.evicted
    }
    fn received(&mut self, _: u32, _: u64, next: u64) {
        assert!(next <= self.end, "nothing is acknowledged that was never pushed");
    }
}

struct World {
    agent: Agent,
    server: Server,
    journal: Endless,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::from_micros(1);
        let mut agent = Agent::new(AgentConfig {
            agent_id: "a".into(),
            token: None,
            boot_id: BootId([0; 16]),
            software: "fuzz".into(),
            cameras: Vec::new(),
            capabilities: Vec::new(),
            heartbeat_interval: Duration::from_secs(30),
            tunnels: Default::default(),
            keep_streams: Duration::ZERO,
        });
        let track = TrackInfo {
            track: 0,
            epoch: 1,
            next: 0,
            camera: "c".into(),
            source: "main".into(),
            codec: 1,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: Bytes::new(),
        };
        agent.announce_track(track, Some(Duration::from_millis(100)));
        agent.connected(now, now + Duration::from_secs(30));
        Self {
            agent,
            server: Server::new(ServerConfig::default(), now, 0),
            journal: Endless { end: 0, evicted: 0 },
            now,
        }
    }

    fn step(&mut self, what: u8, octets: &[u8]) {
        let text = alloc::string::String::from_utf8_lossy(octets);
        match what % 10 {
            0 => self.agent.handle_text(self.now, &text, &mut self.journal),
            1 => self.agent.handle_binary(self.now, Bytes::copy_from_slice(octets), &mut self.journal),
            2 => self.server.handle_text(self.now, &text),
            3 => self.server.handle_binary(self.now, Bytes::copy_from_slice(octets)),
            4 => self.now = self.now + Duration::from_millis(u64::from(what) * 40),
            5 => self.journal.end += 1,
            6 => {
                self.agent.disconnected(self.now);
                self.agent.connected(self.now, self.now + Duration::from_secs(30));
            }
            7 => self.server = Server::new(ServerConfig::default(), self.now, 0),
            8 => self.server.accept(self.now, Accept::default()),
            _ => self.exchange(),
        }
        self.agent.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        while self.agent.poll_event().is_some() {}
        while self.server.poll_event().is_some() {}
        let (held, most) = (self.server.held_octets(), ServerConfig::default().bounds.held_bytes);
        // A session that is over may still say why.
        assert!(held <= most || !self.server.is_established(), "{held} octets are held");
    }

    /// What one end writes, the other hears: valid sequences make the deep states reachable.
    fn exchange(&mut self) {
        use crate::session::Transmit;
        for _ in 0..4 {
            match self.agent.poll_transmit(self.now, &mut self.journal, &mut NoStreams, usize::MAX) {
                Some(Transmit::Text(text)) => self.server.handle_text(self.now, &text),
                Some(Transmit::Binary(record)) => self.server.handle_binary(self.now, record),
                _ => {}
            }
            match self.server.poll_transmit(self.now, &mut NoStreams) {
                Some(Transmit::Text(text)) => self.agent.handle_text(self.now, &text, &mut self.journal),
                Some(Transmit::Binary(record)) => self.agent.handle_binary(self.now, record, &mut self.journal),
                _ => {}
            }
        }
    }
}

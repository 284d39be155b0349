//! Both ends of tunnels, two links that hold records as long as the input wants, and frames of a peer that keeps no rules.
//!
//! What holds: nothing panics; what waits stays within the credit, streams within their number, events within what came. And as long as
//! no frame was forged, the two ends never find fault with each other and every octet arrives in its place, however often their connection breaks.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec,
};

use bytes::Bytes;

use crate::{
    error::Error,
    frame::{
        Data, Frame, MAX_RECORD, MaxData, MaxStreamData, MaxStreams, Open, OpenOutcome, OpenResult, RecordReader,
        RecordWriter, ResetStream, ReturnStreamData, Space, StopSending, StreamError, Tack,
    },
    message::TunnelLimits,
    mux::{MIN_RESUME_BYTES, Mux, Read, StreamEvent, Streams},
    time::{Duration, Instant},
};

const AGENT: TunnelLimits =
    TunnelLimits { streams: 6, stream_bytes: 3_000, bytes: 40_000, opens_per_second: 50, resume_bytes: 0 };
const SERVER: TunnelLimits =
    TunnelLimits { streams: 0, stream_bytes: 5_000, bytes: 60_000, opens_per_second: 0, resume_bytes: 0 };
/// Events of one record at most, and the memory of one.
const EVENTS: u64 = 600;
const EVENT: u64 = size_of::<StreamEvent>() as u64;
/// What is written in front of octets, and pieces of no size.
const SMALL: u64 = 4 << 10;
/// Octets of memory of a stream beside what waits: its names, words, and numbers.
const STREAM: u64 = 1_500;
/// Records that a link holds.
const UNDER_WAY: usize = 16;

/// From here on an operation is about the connection.
const CONNECTION: u8 = 0xf0;

/// Operations of three octets: what, on which stream, how much.
pub fn tunnels(data: &[u8]) {
    let mut world = World::new();
    for operation in data.chunks_exact(3) {
        world.step(operation[0], u64::from(operation[1]), operation[2]);
        world.check();
    }
}

/// One end: its mux, its local sides, and what is on the way from it.
struct End {
    mux: Mux,
    sides: Sides,
    link: VecDeque<Bytes>,
    taken: BTreeMap<u64, usize>,
    takes: u64,
}

/// Local sides that say what the input wants them to.
struct Sides {
    mood: u8,
    sent: BTreeMap<u64, usize>,
}

impl Streams for Sides {
    fn read(&mut self, stream: u64, into: &mut Space<'_>, _: usize) -> Read {
        let count = match self.mood % 8 {
            0 => into.len(),
            1 => into.len().min(usize::from(self.mood)),
            2 => 1,
            3 => 0,
            4 | 5 => return Read::Pending,
            6 => return Read::End,
            _ => return Read::Broken,
        };
        let sent = self.sent.entry(stream).or_default();
        for octet in &mut into[..count] {
            *octet = expected(stream, *sent);
            *sent += 1;
        }
        if !self.mood.is_multiple_of(8) {
            // Once, then nothing more.
            self.mood = 4;
        }
        Read::Octets(count)
    }
}

fn expected(stream: u64, at: usize) -> u8 {
    (stream as usize * 31 + at * 7 + at / 251) as u8
}

impl End {
    fn new(mut mux: Mux, takes: u64) -> Self {
        mux.keep();
        let sides = Sides { mood: 0, sent: BTreeMap::new() };
        Self { mux, sides, link: VecDeque::new(), taken: BTreeMap::new(), takes }
    }

    fn write(&mut self, now: Instant) {
        if self.link.len() < UNDER_WAY {
            let mut record = RecordWriter::new(MAX_RECORD);
            self.mux.fill_control(now, &mut record);
            self.mux.fill(&mut record, &mut self.sides);
            if !record.is_empty() {
                let record = record.finish();
                self.mux.sent(&record);
                self.link.push_back(record);
            }
        }
    }

    fn hear(&mut self, now: Instant, record: Bytes) -> Result<(), Error> {
        let mut reader = RecordReader::new(record)?;
        while let Some(frame) = reader.next_frame()? {
            self.mux.handle(now, frame)?;
        }
        Ok(())
    }

    /// Takes octets, which have to be the right ones.
    fn take(&mut self, stream: u64, count: usize, honest: bool) {
        let taken = self.taken.entry(stream).or_default();
        let octets = self.mux.received(stream).flatten().take(count);
        let mut here = 0;
        for octet in octets {
            assert!(!honest || *octet == expected(stream, *taken + here), "octet {} of {stream}", *taken + here);
            here += 1;
        }
        *taken += here;
        self.mux.consumed(stream, count);
    }
}

struct World {
    agent: End,
    server: End,
    now: Instant,
    /// No frame was forged.
    honest: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::from_micros(1);
        Self {
            agent: End::new(Mux::acceptor(AGENT, SERVER, now), AGENT.bytes),
            server: End::new(Mux::opener(SERVER, AGENT, now), SERVER.bytes),
            now,
            honest: true,
        }
    }

    fn step(&mut self, what: u8, which: u64, amount: u8) {
        let (now, honest, stream) = (self.now, self.honest, 4 * which + 1);
        let outcome = OpenOutcome::from_number(u64::from(amount) % 5);
        let error = StreamError::from_number(u64::from(amount) % 4);
        let count = usize::from(amount) * 17;
        let mut result = Ok(());
        match what % 20 {
            _ if what >= CONNECTION => result = self.connection(what, which, u64::from(amount)),
            0 | 1 => drop(self.server.mux.open(now, "gate", "rtsp", "a visitor")),
            2 => self.agent.mux.answer(stream, outcome, "so"),
            3 | 4 => self.agent.take(stream, count, honest),
            5 | 6 => self.server.take(stream, count, honest),
            7 => self.agent.mux.abandon(stream, error),
            8 => self.server.mux.abandon(stream, error),
            9 | 10 => self.agent.write(now),
            11 | 12 => self.server.write(now),
            13 | 14 => {
                if let Some(record) = self.agent.link.pop_front() {
                    result = self.server.hear(now, record);
                }
            }
            15 | 16 => {
                if let Some(record) = self.server.link.pop_front() {
                    result = self.agent.hear(now, record);
                }
            }
            17 => self.now = now + Duration::from_millis(u64::from(amount) * 20),
            18 => {
                for (end, mood) in [(&mut self.agent, which as u8), (&mut self.server, amount)] {
                    end.sides.mood = mood;
                    end.mux.look_again();
                    end.mux.set_round_trip(Duration::from_millis(which));
                }
            }
            _ => {
                let end = if which & 0x80 > 0 { &mut self.agent } else { &mut self.server };
                self.honest = false;
                result = end.mux.handle(now, forged(which & 0x7f, amount)).map(drop);
            }
        }
        if let Err(error) = result {
            assert!(!self.honest, "two honest ends: {error}");
            *self = Self { now: self.now, ..Self::new() };
        }
    }

    /// The connection breaks, and the next one begins; or somebody says what is not so.
    fn connection(&mut self, what: u8, which: u64, amount: u64) -> Result<(), Error> {
        let is_resumed = match what {
            0xfe => {
                self.honest = false;
                let now = self.now;
                return self.end(which).mux.handle(now, Frame::Tack(Tack { received: amount })).map(drop);
            }
            0xff => {
                self.honest = false;
                self.end(which).mux.resume(amount)
            }
            _ => {
                // Some of what is on the way still arrives.
                for (by_agent, some) in [(true, which & 0xf), (false, amount & 0xf)] {
                    let Self { agent, server, .. } = self;
                    let (from, to) = if by_agent { (agent, server) } else { (server, agent) };
                    let link = core::mem::take(&mut from.link);
                    link.into_iter().take(some as usize).try_for_each(|record| to.hear(self.now, record))?;
                }
                let [agent, server] = [&self.agent, &self.server].map(|end| end.mux.received_frames());
                let [Some(agent), Some(server)] = [agent, server] else {
                    assert!(!self.honest, "the streams are lost");
                    *self = Self { now: self.now, ..Self::new() };
                    return Ok(());
                };
                self.agent.mux.resume(server) && self.server.mux.resume(agent)
            }
        };
        if !is_resumed {
            assert!(!self.honest, "two honest ends know how far they are");
            *self = Self { now: self.now, ..Self::new() };
        }
        Ok(())
    }

    fn end(&mut self, which: u64) -> &mut End {
        if which & 0x80 > 0 { &mut self.agent } else { &mut self.server }
    }

    fn check(&mut self) {
        for end in [&mut self.agent, &mut self.server] {
            assert!(end.mux.waiting_octets() <= end.takes, "more waits than was granted");
            assert!(end.mux.kept_octets() <= 2 * MIN_RESUME_BYTES, "more is kept than was said");
            assert!(end.mux.open_streams() as u64 <= AGENT.streams, "more streams than were granted");
            let mut events = 0;
            while let Some(event) = end.mux.poll_event() {
                events += 1;
                if let StreamEvent::Open { stream, .. } = event
                    && stream % 8 == 1
                {
                    end.mux.answer(stream, OpenOutcome::Connected, "");
                }
            }
            assert!(events <= EVENTS, "{events} events of one record");
            // What waits lies in at most twice as much; what a vector has beside its octets is at most as much again.
            let memory = end.mux.memory();
            let most = 2 * end.takes + 2 * MIN_RESUME_BYTES + 2 * AGENT.streams * STREAM + 2 * EVENTS * EVENT + SMALL;
            assert!(memory <= most, "{memory} octets of memory, at most {most}");
        }
    }
}

/// A frame that nobody should send now; some are right by chance.
fn forged(which: u64, amount: u8) -> Frame {
    let (stream, value) = (which >> 3, u64::from(amount));
    let (words, text) = (usize::from(amount), String::from_utf8_lossy(&[amount]).into_owned());
    match which & 7 {
        0 => Frame::Open(Open { stream: 4 * value + 1, camera: text.clone(), service: text.clone(), visitor: text }),
        1 => Frame::OpenResult(OpenResult { stream, outcome: OpenOutcome::from_number(value % 5), detail: text }),
        2 => Frame::Data(Data { stream, fin: amount.is_multiple_of(2), octets: vec![amount; words * 60].into() }),
        3 => Frame::ResetStream(ResetStream { stream, error: StreamError::Broken, final_size: value }),
        4 => Frame::StopSending(StopSending { stream, error: StreamError::Stalled }),
        5 => Frame::MaxData(MaxData { limit: value << (which >> 1) }),
        6 if amount.is_multiple_of(5) => Frame::ReturnStreamData(ReturnStreamData { stream, octets: value << 4 }),
        6 => Frame::MaxStreamData(MaxStreamData { stream, limit: value << 10 }),
        _ => Frame::MaxStreams(MaxStreams { limit: value << (which >> 1) }),
    }
}

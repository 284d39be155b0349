//! The local sides of one end's streams: octets in memory instead of sockets, that are sent and taken as a test wants it.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use crate::{
    frame::{OpenOutcome, Space, StreamError},
    mux::{Mux, Read, StreamEvent, Streams},
};

/// One local side: a visitor, or a service.
#[derive(Debug, Default)]
pub struct Side {
    /// Camera, service and visitor, at the agent's end.
    pub names: Option<[String; 3]>,
    /// What it sends.
    pub outgoing: Vec<u8>,
    /// How much of that was read already.
    pub sent: usize,
    /// Whether it ends its direction after that.
    pub ends: bool,
    /// Whether it breaks after that.
    pub breaks: bool,
    /// Whether it takes nothing.
    pub is_stuck: bool,
    /// What it took.
    pub incoming: Vec<u8>,
    /// Whether it saw the end of what it takes.
    pub saw_end: bool,
    /// What the agent said, at the server's end.
    pub outcome: Option<OpenOutcome>,
    /// The error by which the peer gave up.
    pub broken: Option<StreamError>,
    /// Whether the mux has said that the stream is over.
    pub is_closed: bool,
    /// Whether there was a look at what it takes after that.
    pub is_done: bool,
}

/// All local sides of one end.
#[derive(Debug, Default)]
pub struct TestStreams {
    /// By stream.
    pub sides: BTreeMap<u64, Side>,
    /// How OPEN is answered; with nothing the test answers.
    pub answer: Option<OpenOutcome>,
    /// What services of these names are like: octets that they send, and whether they end then. Others send nothing.
    pub services: BTreeMap<String, (Vec<u8>, bool)>,
    /// Whether new services take nothing.
    pub are_stuck: bool,
    /// The streams that were read from, in order, and how much each gave.
    pub reads: Vec<(u64, usize)>,
}

impl TestStreams {
    /// The side of a stream; a new one when there is none.
    pub fn side(&mut self, stream: u64) -> &mut Side {
        self.sides.entry(stream).or_default()
    }

    /// Whether all sides were told that their streams are over.
    pub fn are_closed(&self) -> bool {
        self.sides.values().all(|side| side.is_closed)
    }

    /// A local side sends more, and ends then or not.
    pub fn send(&mut self, stream: u64, octets: &[u8], ends: bool) {
        let side = self.side(stream);
        side.outgoing.extend_from_slice(octets);
        side.ends = ends;
    }

    /// What a driver does with an event.
    pub fn hear(&mut self, event: StreamEvent, mux: &mut Mux) {
        match event {
            StreamEvent::Open { stream, camera, service, visitor } => {
                let (outgoing, ends) = self.services.get(&service).cloned().unwrap_or_default();
                let (names, is_stuck) = (Some([camera, service, visitor]), self.are_stuck);
                let before = self.sides.insert(stream, Side { names, outgoing, ends, is_stuck, ..Side::default() });
                assert!(before.is_none(), "stream {stream} is opened twice");
                if let Some(outcome) = self.answer {
                    mux.answer(stream, outcome, "as the test wants it");
                }
            }
            StreamEvent::Connected(stream) => self.side(stream).outcome = Some(OpenOutcome::Connected),
            StreamEvent::Refused { stream, outcome, .. } => {
                let side = self.side(stream);
                (side.outcome, side.is_closed) = (Some(outcome), true);
            }
            StreamEvent::Received(_) => {}
            StreamEvent::Broken(stream, error) => {
                self.side(stream).broken = Some(error);
                mux.abandon(stream, StreamError::Cancelled);
            }
            StreamEvent::Stopped(stream, error) => self.side(stream).broken = Some(error),
            StreamEvent::Closed(stream) => {
                let side = self.side(stream);
                assert!(!side.is_closed, "stream {stream} is closed twice");
                side.is_closed = true;
            }
        }
    }

    /// Takes what was received, at all sides that are not stuck. Whether there was something.
    pub fn take(&mut self, mux: &mut Mux) -> bool {
        let mut is_some = false;
        for (&stream, side) in self.sides.iter_mut().filter(|(_, side)| !side.is_stuck && !side.is_done) {
            let before = side.incoming.len();
            for octets in mux.received(stream) {
                side.incoming.extend_from_slice(octets);
            }
            side.is_done = side.is_closed;
            is_some |= side.incoming.len() > before;
            mux.consumed(stream, side.incoming.len() - before);
            side.saw_end |= side.broken.is_none() && mux.is_ended(stream);
        }
        is_some
    }
}

impl Streams for TestStreams {
    fn read(&mut self, stream: u64, into: &mut Space<'_>, _: usize) -> Read {
        let side = self.sides.entry(stream).or_default();
        let left = &side.outgoing[side.sent..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        side.sent += count;
        match count {
            0 if side.breaks => Read::Broken,
            0 if side.ends => Read::End,
            0 => Read::Pending,
            count => {
                self.reads.push((stream, count));
                Read::Octets(count)
            }
        }
    }
}

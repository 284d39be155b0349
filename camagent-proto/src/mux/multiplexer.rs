//! One end of all streams of a session.

use alloc::{
    collections::VecDeque,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    StreamEvent,
    credit::{Allowance, Window},
    pace::Pace,
    resume::Resume,
    stream::{Incoming, Outgoing, Stream},
};
use crate::{
    frame::{MAX_DETAIL, MAX_NAME, Open, OpenOutcome, StreamError},
    message::TunnelLimits,
    time::{Duration, Instant},
};

/// Why a stream cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The agent takes no tunnels, or the name of the camera or the service is too long for one.
    Unsupported,
    /// As many are open as the agent takes, or as this end has memory for; try again when one is over.
    TooMany,
    /// Too many were opened lately; try again then.
    TooFast(Instant),
}

/// How much of a peer one end bears, and promises, beside what both told each other in [`TunnelLimits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// RESET_STREAM and STOP_SENDING in ten seconds; more where more streams may come and go. Default 100.
    pub resets: u64,
    /// Frames without effect in ten seconds: credit that raises nothing or is given back, frames of streams that are over. More where more
    /// streams may come and go. Default 1 000.
    pub useless: u64,
    /// Empty DATA without FIN on one stream. Default 16.
    pub empty_data: u64,
    /// Octets to which the window of one stream grows while its user empties it fast. Default 1 MiB; what it begins with is
    /// [`TunnelLimits::stream_bytes`].
    pub window: u64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { resets: 100, useless: 1_000, empty_data: 16, window: 1 << 20 }
    }
}

/// One end. A new session has a new one.
#[derive(Debug)]
pub struct Mux {
    pub(super) opens: bool,
    pub(super) tolerance: Tolerance,
    pub(super) receives: TunnelLimits,
    pub(super) sends: TunnelLimits,
    pub(super) streams: Vec<Stream>,
    /// How many streams were opened.
    pub(super) opened: u64,
    /// How many may be opened, by the peer or by this end.
    pub(super) max_streams: u64,
    pub(super) allowance: Allowance,
    pub(super) window: Window,
    pub(super) round_trip: Duration,
    pub(super) events: VecDeque<StreamEvent>,
    /// The streams that sent last, the young and the others: the next one has its turn.
    pub(super) turns: [u64; 2],
    /// What the stream whose turn it is has sent in it.
    pub(super) in_turn: u64,
    /// What it may send in it.
    pub(super) quantum: u64,
    pub(super) open_pace: Pace,
    pub(super) reset_pace: Pace,
    pub(super) useless_pace: Pace,
    pub(super) head: Vec<u8>,
    /// There when the streams are to survive their connection.
    pub(super) resume: Option<Resume>,
}

impl Mux {
    /// The server's end, which opens streams. `receives` is what this end takes, `sends` what the peer said that it takes.
    pub fn opener(receives: TunnelLimits, sends: TunnelLimits, now: Instant) -> Self {
        Self::new(true, receives, sends, now)
    }

    /// The agent's end, for which streams are opened.
    pub fn acceptor(receives: TunnelLimits, sends: TunnelLimits, now: Instant) -> Self {
        Self::new(false, receives, sends, now)
    }

    fn new(opens: bool, receives: TunnelLimits, sends: TunnelLimits, now: Instant) -> Self {
        Self {
            opens,
            tolerance: Tolerance::default(),
            receives,
            sends,
            streams: Vec::new(),
            opened: 0,
            max_streams: if opens { sends.streams } else { receives.streams },
            allowance: Allowance::new(sends.bytes),
            window: Window::new(receives.bytes, now),
            round_trip: Duration::ZERO,
            events: VecDeque::new(),
            turns: [0; 2],
            in_turn: 0,
            quantum: 0,
            open_pace: Pace::default(),
            reset_pace: Pace::default(),
            useless_pace: Pace::default(),
            head: Vec::new(),
            resume: None,
        }
    }

    /// Sets what is borne of the peer.
    #[must_use]
    pub fn bearing(self, tolerance: Tolerance) -> Self {
        Self { tolerance, ..self }
    }

    /// The measured round trip, by which windows grow.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Streams that are not over.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Octets that were received and wait for the local sides.
    pub fn waiting_octets(&self) -> u64 {
        self.streams.iter().map(|stream| stream.waiting.len() as u64).sum()
    }

    /// Octets that the peer may make this end hold for its streams: those that wait, and the credit that is out.
    pub fn promised_octets(&self) -> u64 {
        self.streams.iter().map(Stream::promised).sum()
    }

    /// Octets of memory that this end holds, all kinds together.
    pub fn memory(&self) -> u64 {
        let of_event = |event: &StreamEvent| match event {
            StreamEvent::Open { camera, service, visitor, .. } => {
                camera.capacity() + service.capacity() + visitor.capacity()
            }
            StreamEvent::Refused { detail, .. } => detail.capacity(),
            _ => 0,
        };
        let events = self.events.iter().map(of_event).sum::<usize>();
        let own = self.streams.capacity() * size_of::<Stream>() + self.events.capacity() * size_of::<StreamEvent>();
        let streams = self.streams.iter().map(Stream::memory).sum::<u64>();
        streams + self.kept_octets() + (own + events + self.head.capacity()) as u64
    }

    /// Opens a stream. `visitor` is cut at 256 octets. Octets may be sent at once; the agent answers by [`StreamEvent::Connected`] or [`StreamEvent::Refused`].
    pub fn open(&mut self, now: Instant, camera: &str, service: &str, visitor: &str) -> Result<u64, NotOpened> {
        if !self.opens || !takes(&self.receives, 1) || !takes(&self.sends, self.sends.streams) {
            return Err(NotOpened::Unsupported);
        }
        if camera.len().max(service.len()) > MAX_NAME {
            return Err(NotOpened::Unsupported);
        }
        if self.opened >= self.max_streams || self.streams.len() as u64 >= self.most() {
            return Err(NotOpened::TooMany);
        }
        if let Some(until) = self.open_pace.take(now, self.sends.opens_per_second.max(1).saturating_mul(10)) {
            return Err(NotOpened::TooFast(until));
        }
        let id = 4 * self.opened + 1;
        self.opened += 1;
        let mut stream = Stream::new(id, Outgoing::Open, self.sends.stream_bytes, self.receives.stream_bytes, now);
        let visitor = cut(visitor);
        stream.open = Some(Open { stream: id, camera: camera.into(), service: service.into(), visitor });
        self.streams.push(stream);
        Ok(id)
    }

    /// Answers [`StreamEvent::Open`], once. With any outcome but connected the stream is over. `detail` is cut at 256 octets.
    pub fn answer(&mut self, stream: u64, outcome: OpenOutcome, detail: &str) {
        let Some(at) = self.find(stream) else { return };
        let stream = &mut self.streams[at];
        if self.opens || stream.outgoing != Outgoing::Waiting {
            return;
        }
        if outcome != OpenOutcome::Connected {
            let dropped = stream.refuse(outcome, cut(detail));
            return self.window.consume(dropped);
        }
        stream.result = Some((outcome, cut(detail)));
        stream.outgoing = Outgoing::Open;
        if !stream.waiting.is_empty() || stream.incoming == Incoming::Ended {
            self.events.push_back(StreamEvent::Received(stream.id));
        }
    }

    /// What was received on a stream and not consumed yet, in order.
    pub fn received(&self, stream: u64) -> impl Iterator<Item = &[u8]> {
        let found = self.find(stream).map(|at| &self.streams[at]);
        found.into_iter().flat_map(|stream| stream.waiting.iter())
    }

    /// Whether the peer has ended its direction and everything of it was consumed.
    pub fn is_ended(&self, stream: u64) -> bool {
        self.find(stream).is_none_or(|at| self.streams[at].incoming == Incoming::Ended)
    }

    /// Whether this end has ended its direction.
    pub fn has_ended_sending(&self, stream: u64) -> bool {
        self.find(stream).is_none_or(|at| self.streams[at].outgoing == Outgoing::Ended)
    }

    /// The local side took `count` octets.
    pub fn consumed(&mut self, stream: u64, count: usize) {
        let Some(at) = self.find(stream) else { return };
        let taken = self.streams[at].consume(count);
        self.streams[at].settle_end();
        self.window.consume(taken);
        self.reap();
    }

    /// The local side is gone: gives up what this end sends, and wants nothing more. [`StreamEvent::Closed`] follows when the peer has heard it.
    pub fn abandon(&mut self, stream: u64, error: StreamError) {
        let Some(at) = self.find(stream) else { return };
        if self.streams[at].outgoing == Outgoing::Waiting {
            return self.answer(stream, OpenOutcome::Unreachable, error.name());
        }
        let stream = &mut self.streams[at];
        if stream.outgoing == Outgoing::Open {
            stream.reset.get_or_insert(error);
        }
        let id = stream.id;
        self.stop(id, error);
    }

    /// The local side takes nothing more; what it says is still sent.
    pub fn stop(&mut self, stream: u64, error: StreamError) {
        let Some(at) = self.find(stream) else { return };
        let stream = &mut self.streams[at];
        match stream.incoming {
            Incoming::Open => {
                stream.incoming = Incoming::Stopped;
                stream.stop = Some(error);
            }
            Incoming::Ending => stream.incoming = Incoming::Ended,
            Incoming::Stopped | Incoming::Ended => {}
        }
        let dropped = stream.drop_waiting();
        self.window.consume(dropped);
        self.reap();
    }

    /// Local sides that had nothing may have something now. To be called before [`Mux::fill`] whenever the driver was woken.
    pub fn look_again(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.parked = false);
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Whether [`Mux::poll_event`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Streams that may be open at once: what the agent takes, and what this end can promise a window each.
    pub(super) fn most(&self) -> u64 {
        if self.opens {
            self.sends.streams.min(self.receives.bytes / self.receives.stream_bytes.max(1)).max(1)
        } else {
            self.receives.streams
        }
    }

    pub(super) fn find(&self, stream: u64) -> Option<usize> {
        self.streams.binary_search_by_key(&stream, |stream| stream.id).ok()
    }

    /// Forgets the streams that are over.
    pub(super) fn reap(&mut self) {
        let events = &mut self.events;
        self.streams.retain(|stream| {
            let over = stream.is_over();
            if over {
                events.push_back(StreamEvent::Closed(stream.id));
            }
            !over
        });
        if self.streams.is_empty() {
            self.rest();
        }
    }
}

/// Whether an end takes tunnels at all.
fn takes(limits: &TunnelLimits, streams: u64) -> bool {
    streams.min(limits.stream_bytes).min(limits.bytes) > 0
}

/// Text that fits into a frame.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_DETAIL)].to_string()
}

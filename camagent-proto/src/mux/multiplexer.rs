//! One end of all streams of a session.

use alloc::{
    collections::VecDeque,
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    Read, StreamEvent, Streams,
    credit::{Allowance, Window},
    pace::Pace,
    stream::{Incoming, Outgoing, Stream},
};
use crate::{
    error::Error,
    frame::{
        Data, Frame, MAX_DETAIL, MaxData, MaxStreamData, MaxStreams, Open, OpenOutcome, OpenResult, RecordWriter,
        ResetStream, StopSending, StreamError,
    },
    message::TunnelLimits,
    time::{Duration, Instant},
};

/// The largest window of one stream.
const MAX_WINDOW: u64 = 1 << 20;
/// A stream that has sent less than this goes before those that have sent more: a click before a download.
const YOUNG: u64 = 16 << 10;
/// Credit frames that raise no limit, and frames of streams that are over, in ten seconds.
const MAX_USELESS: u64 = 1_000;
/// RESET_STREAM and STOP_SENDING in ten seconds, at least.
const MIN_RESETS: u64 = 100;

/// Why a stream cannot be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOpened {
    /// The agent knows no tunnels.
    Unsupported,
    /// As many are open as the agent takes; try again when one is over.
    TooMany,
    /// Too many were opened lately; try again then.
    TooFast(Instant),
}

/// One end. A new session has a new one.
#[derive(Debug)]
pub struct Mux {
    opens: bool,
    receives: TunnelLimits,
    sends: TunnelLimits,
    streams: Vec<Stream>,
    /// How many streams were opened.
    opened: u64,
    /// How many may be opened, by the peer or by this end.
    max_streams: u64,
    allowance: Allowance,
    window: Window,
    round_trip: Duration,
    events: VecDeque<StreamEvent>,
    /// The stream that sent last: the next one has its turn.
    turn: u64,
    open_pace: Pace,
    reset_pace: Pace,
    useless_pace: Pace,
    head: Vec<u8>,
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
            receives,
            sends,
            streams: Vec::new(),
            opened: 0,
            max_streams: if opens { sends.streams } else { receives.streams },
            allowance: Allowance::new(sends.bytes),
            window: Window::new(receives.bytes, now),
            round_trip: Duration::ZERO,
            events: VecDeque::new(),
            turn: 0,
            open_pace: Pace::default(),
            reset_pace: Pace::default(),
            useless_pace: Pace::default(),
            head: Vec::new(),
        }
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
        let waiting = |stream: &Stream| -> usize {
            stream.waiting.iter().map(|octets| octets.len()).sum::<usize>() - stream.offset
        };
        self.streams.iter().map(|stream| waiting(stream) as u64).sum()
    }

    /// Opens a stream. Octets may be sent at once; the agent answers by [`StreamEvent::Connected`] or [`StreamEvent::Refused`].
    pub fn open(&mut self, now: Instant, camera: &str, service: &str, visitor: &str) -> Result<u64, NotOpened> {
        if !self.opens || self.sends.streams == 0 {
            return Err(NotOpened::Unsupported);
        }
        if self.opened >= self.max_streams {
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

    /// Answers [`StreamEvent::Open`].
    pub fn answer(&mut self, stream: u64, outcome: OpenOutcome, detail: &str) {
        let Some(at) = self.find(stream) else { return };
        let stream = &mut self.streams[at];
        if self.opens || stream.outgoing != Outgoing::Waiting {
            return;
        }
        stream.result = Some((outcome, cut(detail)));
        if outcome == OpenOutcome::Connected {
            stream.outgoing = Outgoing::Open;
        } else {
            stream.outgoing = Outgoing::Ended;
            stream.incoming = Incoming::Ended;
            (stream.reset, stream.stop) = (None, None);
            let dropped = stream.drop_waiting();
            self.window.consume(dropped);
        }
    }

    /// What was received on a stream and not consumed yet, in order.
    pub fn received(&self, stream: u64) -> impl Iterator<Item = &[u8]> {
        let found = self.find(stream).map(|at| &self.streams[at]);
        found.into_iter().flat_map(|stream| {
            let octets = stream.waiting.iter().enumerate();
            octets.map(|(at, octets)| if at == 0 { &octets[stream.offset..] } else { &octets[..] })
        })
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
    }

    /// The local side is gone: gives up what this end sends, and wants nothing more.
    pub fn abandon(&mut self, stream: u64, error: StreamError) {
        let Some(at) = self.find(stream) else { return };
        if self.streams[at].outgoing == Outgoing::Waiting {
            return self.answer(stream, OpenOutcome::Unreachable, error.name());
        }
        let stream = &mut self.streams[at];
        if stream.outgoing == Outgoing::Open {
            stream.reset.get_or_insert(error);
        }
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

    /// Takes a frame; one that is no tunnel's is given back.
    pub fn handle(&mut self, now: Instant, frame: Frame) -> Result<Option<Frame>, Error> {
        match frame {
            Frame::Open(open) => self.handle_open(now, open)?,
            Frame::OpenResult(result) => self.handle_result(result)?,
            Frame::Data(data) => self.handle_data(now, data)?,
            Frame::ResetStream(reset) => self.handle_reset(now, &reset)?,
            Frame::StopSending(stop) => self.handle_stop(now, &stop)?,
            Frame::MaxData(max) => {
                if !self.allowance.raise(max.limit) {
                    self.useless(now)?;
                }
            }
            Frame::MaxStreamData(max) => {
                let raised = match self.known(max.stream, "MAX_STREAM_DATA stream")? {
                    Some(at) => self.streams[at].allowance.raise(max.limit),
                    None => false,
                };
                if !raised {
                    self.useless(now)?;
                }
            }
            Frame::MaxStreams(max) => {
                if !self.opens {
                    return Err(wrong("MAX_STREAMS", "from an agent", "one from a server".into()));
                }
                if max.limit > self.max_streams {
                    self.max_streams = max.limit;
                } else {
                    self.useless(now)?;
                }
            }
            other => return Ok(Some(other)),
        }
        self.reap();
        Ok(None)
    }

    /// Writes what is small and goes first: answers, ends, credit.
    pub fn fill_control(&mut self, now: Instant, record: &mut RecordWriter) {
        for at in 0..self.streams.len() {
            if !self.control_of(at, record) {
                return;
            }
            if self.streams[at].window.is_due() && !self.renew(at, now, record) {
                return;
            }
        }
        self.reap();
        if self.window.is_due() && record.room() > 20 {
            let limit = self.window.renew(now, 0);
            record.push(&Frame::MaxData(MaxData { limit }));
        }
        if !self.opens && self.receives.streams > 0 {
            let over = self.opened - self.streams.len() as u64;
            let limit = over + self.receives.streams;
            if limit >= self.max_streams + self.receives.streams.div_ceil(4)
                && record.push(&Frame::MaxStreams(MaxStreams { limit }))
            {
                self.max_streams = limit;
            }
        }
    }

    /// Fills the rest of a record with octets of the local sides, stream by stream in turns.
    pub fn fill(&mut self, record: &mut RecordWriter, streams: &mut dyn Streams) {
        for young in [true, false] {
            while record.room() > 64 {
                let Some(at) = self.next_to_send(young) else { break };
                self.turn = self.streams[at].id;
                if !self.send(at, record, streams) {
                    self.streams[at].parked = true;
                }
            }
        }
        self.reap();
    }

    /// The next stream in turn that may send.
    fn next_to_send(&self, young: bool) -> Option<usize> {
        if self.allowance.left() == 0 {
            return None;
        }
        let start = self.streams.partition_point(|stream| stream.id <= self.turn);
        let count = self.streams.len();
        (start..count).chain(0..start).find(|&at| {
            let stream = &self.streams[at];
            stream.outgoing == Outgoing::Open
                && !stream.parked
                && stream.open.is_none()
                && stream.result.is_none()
                && stream.reset.is_none()
                && stream.allowance.left() > 0
                && (!young || stream.allowance.used() < YOUNG)
        })
    }

    /// Reads from a local side into the record; `false` when it has nothing now.
    fn send(&mut self, at: usize, record: &mut RecordWriter, streams: &mut dyn Streams) -> bool {
        let stream = &mut self.streams[at];
        self.head.clear();
        Data::write_head(stream.id, false, &mut self.head);
        let credit = self.allowance.left().min(stream.allowance.left());
        let most = usize::try_from(credit).unwrap_or(usize::MAX);
        let mut outcome = Read::Pending;
        let id = stream.id;
        let written = record.push_read(Data::NUMBER, &self.head, most, |into| {
            outcome = streams.read(id, into);
            match outcome {
                Read::Octets(count) => Some(count),
                Read::Pending | Read::End | Read::Broken => None,
            }
        });
        match outcome {
            Read::Octets(_) => {
                let count = written.unwrap_or(0) as u64;
                stream.allowance.spend(count);
                self.allowance.spend(count);
                true
            }
            Read::Pending => false,
            Read::End => {
                if record.push(&Frame::Data(Data { stream: id, fin: true, octets: Default::default() })) {
                    stream.outgoing = Outgoing::Ended;
                }
                true
            }
            Read::Broken => {
                self.abandon(id, StreamError::Broken);
                true
            }
        }
    }

    /// Writes what a stream has to say before its octets; `false` when there is no room.
    fn control_of(&mut self, at: usize, record: &mut RecordWriter) -> bool {
        let stream = &mut self.streams[at];
        let id = stream.id;
        if let Some(open) = stream.open.take() {
            let open = Frame::Open(open);
            if !record.push(&open) {
                let Frame::Open(open) = open else { return false };
                stream.open = Some(open);
                return false;
            }
        }
        if let Some((outcome, detail)) = &stream.result {
            let result = OpenResult { stream: id, outcome: *outcome, detail: detail.clone() };
            if !record.push(&Frame::OpenResult(result)) {
                return false;
            }
            stream.result = None;
        }
        if let Some(error) = stream.stop {
            if !record.push(&Frame::StopSending(StopSending { stream: id, error })) {
                return false;
            }
            stream.stop = None;
        }
        if let Some(error) = stream.reset {
            let final_size = stream.allowance.used();
            if !record.push(&Frame::ResetStream(ResetStream { stream: id, error, final_size })) {
                return false;
            }
            stream.reset = None;
            stream.outgoing = Outgoing::Ended;
        }
        true
    }

    /// Gives a stream new credit; `false` when there is no room for the frame.
    fn renew(&mut self, at: usize, now: Instant, record: &mut RecordWriter) -> bool {
        if !matches!(self.streams[at].incoming, Incoming::Open) {
            return true;
        }
        if record.room() < 20 {
            return false;
        }
        let wish = self.streams[at].window.wish(now, self.round_trip, MAX_WINDOW);
        // Every stream that may still be opened keeps its share, so that streams whose local side takes nothing never use up the others' credit.
        let others: u64 = self.streams.iter().map(|stream| stream.window.promised()).sum::<u64>()
            - self.streams[at].window.promised();
        let most = if self.opens { self.sends.streams } else { self.receives.streams };
        let unopened = most.saturating_sub(self.streams.len() as u64);
        let reserved = unopened.saturating_mul(self.receives.stream_bytes);
        let stream = &mut self.streams[at];
        let wanted = others.saturating_add(reserved).saturating_add(stream.window.size()).saturating_add(wish);
        let growth = if wanted <= self.receives.bytes { wish } else { 0 };
        let limit = stream.window.renew(now, growth);
        record.push(&Frame::MaxStreamData(MaxStreamData { stream: stream.id, limit }))
    }

    fn handle_open(&mut self, now: Instant, open: Open) -> Result<(), Error> {
        if self.opens {
            return Err(wrong("OPEN", "from a server", "one from an agent".into()));
        }
        let expected = 4 * self.opened + 1;
        if open.stream != expected {
            return Err(wrong("OPEN stream", "the next number", format!("{} instead of {expected}", open.stream)));
        }
        let opened = self.opened + 1;
        if opened > self.max_streams {
            return Err(Error::Credit { credit: "MAX_STREAMS", allowed: self.max_streams, got: opened });
        }
        let allowed = self.opens_in_ten_seconds();
        self.open_pace.count(now, "OPEN in ten seconds", allowed)?;
        self.opened = opened;
        let (sends, takes) = (self.sends.stream_bytes, self.receives.stream_bytes);
        self.streams.push(Stream::new(open.stream, Outgoing::Waiting, sends, takes, now));
        let Open { stream, camera, service, visitor } = open;
        self.events.push_back(StreamEvent::Open { stream, camera, service, visitor });
        Ok(())
    }

    fn handle_result(&mut self, result: OpenResult) -> Result<(), Error> {
        if !self.opens {
            return Err(wrong("OPEN_RESULT", "from an agent", "one from a server".into()));
        }
        let at = self.known(result.stream, "OPEN_RESULT stream")?;
        let Some(at) = at.filter(|&at| self.streams[at].open.is_none() && !self.streams[at].is_answered) else {
            return Err(wrong("OPEN_RESULT", "one for each OPEN", format!("one more for stream {}", result.stream)));
        };
        self.streams[at].is_answered = true;
        if result.outcome == OpenOutcome::Connected {
            self.events.push_back(StreamEvent::Connected(result.stream));
        } else {
            self.streams.remove(at);
            let OpenResult { stream, outcome, detail } = result;
            self.events.push_back(StreamEvent::Refused { stream, outcome, detail });
        }
        Ok(())
    }

    fn handle_data(&mut self, now: Instant, data: Data) -> Result<(), Error> {
        let length = data.octets.len() as u64;
        self.window.receive("MAX_DATA", length)?;
        let Some(at) = self.known(data.stream, "DATA stream")? else {
            // Sent before the peer heard of the stream's end.
            self.window.consume(length);
            return if length == 0 { self.useless(now) } else { Ok(()) };
        };
        let stream = &mut self.streams[at];
        if self.opens && !stream.is_answered {
            return Err(wrong("DATA", "an OPEN_RESULT before it", format!("octets on stream {}", stream.id)));
        }
        let told = stream.incoming == Incoming::Open;
        let dropped = stream.receive(data.octets, data.fin)?;
        self.window.consume(dropped);
        // While the service is being connected nobody can take anything.
        if told && stream.outgoing != Outgoing::Waiting {
            self.events.push_back(StreamEvent::Received(data.stream));
        }
        Ok(())
    }

    fn handle_reset(&mut self, now: Instant, reset: &ResetStream) -> Result<(), Error> {
        self.count_reset(now)?;
        let Some(at) = self.known(reset.stream, "RESET_STREAM stream")? else { return Ok(()) };
        let stream = &mut self.streams[at];
        if reset.final_size != stream.window.received() {
            let got = format!("{} after {} octets", reset.final_size, stream.window.received());
            return Err(wrong("RESET_STREAM final size", "what was sent", got));
        }
        if matches!(stream.incoming, Incoming::Ending | Incoming::Ended) {
            return Err(wrong("RESET_STREAM", "a direction that has not ended", format!("stream {}", stream.id)));
        }
        let told = stream.incoming == Incoming::Open;
        stream.incoming = Incoming::Ended;
        stream.stop = None;
        let dropped = stream.drop_waiting();
        self.window.consume(dropped);
        if told {
            self.events.push_back(StreamEvent::Broken(reset.stream, reset.error));
        }
        Ok(())
    }

    fn handle_stop(&mut self, now: Instant, stop: &StopSending) -> Result<(), Error> {
        self.count_reset(now)?;
        let Some(at) = self.known(stop.stream, "STOP_SENDING stream")? else { return Ok(()) };
        let stream = &mut self.streams[at];
        match stream.outgoing {
            Outgoing::Ended => return Ok(()),
            Outgoing::Waiting => {
                // The visitor has gone before its service was reached.
                stream.outgoing = Outgoing::Ended;
                stream.result = Some((OpenOutcome::Unreachable, "the visitor has gone".into()));
                stream.incoming = Incoming::Ended;
                let dropped = stream.drop_waiting();
                self.window.consume(dropped);
            }
            Outgoing::Open => {
                stream.reset.get_or_insert(StreamError::Cancelled);
            }
        }
        self.events.push_back(StreamEvent::Broken(stop.stream, stop.error));
        Ok(())
    }

    fn count_reset(&mut self, now: Instant) -> Result<(), Error> {
        // A stream has at most one of each.
        let allowed = self.opens_in_ten_seconds().saturating_mul(2).max(MIN_RESETS);
        self.reset_pace.count(now, "RESET_STREAM and STOP_SENDING in ten seconds", allowed)
    }

    /// Streams that may be opened in ten seconds. A link that was stuck delivers what was sent in time all at once: twice as much passes.
    fn opens_in_ten_seconds(&self) -> u64 {
        let limits = if self.opens { &self.sends } else { &self.receives };
        limits.opens_per_second.max(1).saturating_mul(20)
    }

    fn useless(&mut self, now: Instant) -> Result<(), Error> {
        let allowed = self.opens_in_ten_seconds().max(MAX_USELESS);
        self.useless_pace.count(now, "frames of tunnels without effect in ten seconds", allowed)
    }

    /// Where a stream is; `None` when it is over, an error when it never was.
    fn known(&self, stream: u64, place: &'static str) -> Result<Option<usize>, Error> {
        if stream % 4 != 1 || stream / 4 >= self.opened {
            return Err(wrong(place, "a stream that was opened", format!("{stream}")));
        }
        Ok(self.find(stream))
    }

    fn find(&self, stream: u64) -> Option<usize> {
        self.streams.binary_search_by_key(&stream, |stream| stream.id).ok()
    }

    /// Forgets the streams that are over.
    fn reap(&mut self) {
        let events = &mut self.events;
        self.streams.retain(|stream| {
            let over = stream.is_over();
            if over {
                events.push_back(StreamEvent::Closed(stream.id));
            }
            !over
        });
    }
}

fn wrong(place: &'static str, expected: &'static str, got: String) -> Error {
    Error::Violation { place, expected, got }
}

/// Text that fits into a frame.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_DETAIL)].to_string()
}

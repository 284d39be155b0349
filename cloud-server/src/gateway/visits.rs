//! Visitors of one agent's cameras: each is a socket at this end and a stream of the session. Octets wait in the mux or in the kernel, never
//! here; a visitor who takes nothing keeps its own window full and nobody else's.
//!
//! What does not belong here: listeners and who may come in (`tunnel`), the protocol of the streams (`camagent_proto::mux`).

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use camagent_proto::Instant;
use camagent_proto::frame::{Space, StreamError};
use camagent_proto::mux::{Mux, NotOpened, Read, StreamEvent, Streams};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::agents::{Farewell, Visit};

/// How long a visitor may take nothing while octets wait for it, and how long nothing may move once one direction has ended. The agent gives up
/// first, and says why.
const STALLED_AFTER: Duration = Duration::from_secs(65);
/// How long a visitor waits for others to leave when the agent takes no more streams.
const PATIENCE: Duration = Duration::from_secs(10);
/// Visitors that wait so.
pub(super) const MAX_WAITING: usize = 32;
/// Chunks that are passed on in one call.
const CHUNKS: usize = 16;

/// All visitors of one session.
#[derive(Default)]
pub(super) struct Visits {
    waiting: VecDeque<(Visit, Instant)>,
    /// By stream, which is the order of their opening.
    open: Vec<Open>,
    /// Not before then is another stream opened.
    not_before: Option<Instant>,
}

struct Open {
    stream: u64,
    visit: Visit,
    reached: bool,
    is_shut: bool,
    /// A write has failed: nothing more is written, what the visitor has said before is still read.
    takes_nothing: bool,
    /// Since when nothing moved, while something should: octets wait for the visitor, or one direction has ended.
    stuck_since: Option<Instant>,
    to_visitor: u64,
    to_camera: u64,
}

impl Visits {
    /// Whether one more can be taken from the registry.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// A visitor wants through.
    pub(super) fn arrive(&mut self, visit: Visit, now: Instant) {
        self.waiting.push_back((visit, now));
    }

    /// The streams go on with a new connection: nobody is blamed for the time without one.
    pub(super) fn resumed(mut self, now: Instant) -> Self {
        self.open.iter_mut().for_each(|open| open.stuck_since = None);
        self.waiting.iter_mut().for_each(|(_, since)| *since = now);
        self.not_before = None;
        self
    }

    /// The agent was started anew and knows of no stream: whose octets were carried is broken off, all others wait for a stream again.
    pub(super) fn begun_anew(mut self, now: Instant) -> Self {
        let is_untouched = |open: &Open| !open.reached && open.to_camera == 0;
        let (untouched, torn): (Vec<_>, Vec<_>) = self.open.drain(..).partition(is_untouched);
        for open in torn {
            open.visit.socket.break_off();
            open.end("the agent was started anew".to_owned());
        }
        for open in untouched.into_iter().rev() {
            self.waiting.push_front((open.visit, now));
        }
        self.waiting.iter_mut().for_each(|(_, since)| *since = now);
        self.not_before = None;
        self
    }

    /// How many visitors there are, and how many wait for a stream.
    pub(super) fn count(&self) -> usize {
        self.open.len() + self.waiting.len()
    }

    /// Breaks all visits off, and says why.
    pub(super) fn give_up(mut self, reason: &str) {
        for (visit, _) in self.waiting.drain(..) {
            visit.turn_away(reason);
        }
        for stream in self.open.iter().map(|open| open.stream).collect::<Vec<_>>() {
            self.break_off(stream, reason.to_owned());
        }
    }

    /// What the mux says.
    pub(super) fn hear(&mut self, event: StreamEvent, mux: &mut Mux) {
        match event {
            StreamEvent::Connected(stream) => {
                if let Some(at) = self.find(stream) {
                    self.open[at].reached = true;
                }
            }
            StreamEvent::Refused { stream, outcome, detail } => {
                let separator = if detail.is_empty() { "" } else { ": " };
                self.end(stream, format!("{}{separator}{detail}", outcome.name()));
            }
            StreamEvent::Broken(stream, error) => {
                mux.abandon(stream, StreamError::Cancelled);
                self.break_off(stream, format!("the camera's side: {}", error.name()));
            }
            StreamEvent::Closed(stream) => self.end(stream, "closed".to_owned()),
            // What the camera says goes on; an end of it closes the stream.
            StreamEvent::Stopped(..) => {}
            // The octets are looked for whenever the connection turns; an agent opens nothing.
            StreamEvent::Received(_) | StreamEvent::Open { .. } => {}
        }
    }

    /// Opens streams for those who wait, and passes on what was received, as far as that goes without waiting.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>, mux: &mut Mux, now: Instant) {
        mux.look_again();
        self.let_in(mux, now);
        let mut ended = Vec::new();
        for open in &mut self.open {
            if let Some(error) = open.pass_on(cx, mux, now) {
                mux.abandon(open.stream, error);
                ended.push((open.stream, error));
            }
        }
        for (stream, error) in ended {
            self.break_off(stream, format!("the visitor's side: {}", error.name()));
        }
    }

    /// When [`Visits::turn`] wants to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let stuck = self.open.iter().filter_map(|open| Some(open.stuck_since? + STALLED_AFTER));
        let patience = self.waiting.front().map(|(_, since)| *since + PATIENCE);
        let paced = self.not_before.filter(|_| !self.waiting.is_empty());
        stuck.chain(patience).chain(paced).min()
    }

    /// The visitors' sides, for the mux to read from.
    pub(super) fn sides<'a, 'c>(&'a mut self, cx: &'a mut Context<'c>, now: Instant) -> Sides<'a, 'c> {
        Sides { visits: self, now, cx }
    }

    fn let_in(&mut self, mux: &mut Mux, now: Instant) {
        if self.not_before.is_some_and(|at| at > now) {
            return self.turn_away_the_late(now);
        }
        self.not_before = None;
        while let Some((visit, _)) = self.waiting.front() {
            match mux.open(now, &visit.camera, &visit.service, &visit.visitor) {
                Ok(stream) => {
                    let Some((visit, _)) = self.waiting.pop_front() else { return };
                    self.open.push(Open {
                        stream,
                        visit,
                        reached: false,
                        is_shut: false,
                        takes_nothing: false,
                        stuck_since: None,
                        to_visitor: 0,
                        to_camera: 0,
                    });
                }
                Err(NotOpened::Unsupported) => {
                    let Some((visit, _)) = self.waiting.pop_front() else { return };
                    visit.turn_away("the agent takes no tunnels");
                }
                Err(NotOpened::TooMany) => break,
                Err(NotOpened::TooFast(until)) => {
                    self.not_before = Some(until);
                    break;
                }
            }
        }
        self.turn_away_the_late(now);
    }

    fn turn_away_the_late(&mut self, now: Instant) {
        while let Some((visit, _)) = self.waiting.pop_front_if(|(_, since)| *since + PATIENCE <= now) {
            visit.turn_away("the agent has as many tunnels open as it takes");
        }
    }

    fn find(&self, stream: u64) -> Option<usize> {
        self.open.binary_search_by_key(&stream, |open| open.stream).ok()
    }

    fn break_off(&mut self, stream: u64, reason: String) {
        if let Some(at) = self.find(stream) {
            self.open[at].visit.socket.break_off();
        }
        self.end(stream, reason);
    }

    fn end(&mut self, stream: u64, reason: String) {
        let Some(at) = self.find(stream) else { return };
        self.open.remove(at).end(reason);
    }
}

impl Drop for Visits {
    fn drop(&mut self) {
        const REASON: &str = "the agent's session ended";
        for (visit, _) in self.waiting.drain(..) {
            visit.turn_away(REASON);
        }
        // In the middle of what these visitors were getting.
        for open in self.open.drain(..) {
            open.visit.socket.break_off();
            open.end(REASON.to_owned());
        }
    }
}

impl Open {
    fn end(self, reason: String) {
        let Self { visit, reached, to_visitor, to_camera, .. } = self;
        // Who brought the visitor may have gone home already.
        let _ = visit.farewell.send(Farewell { reason, reached, to_visitor, to_camera, unused: None });
    }

    /// Writes what the visitor takes; an error when the visit is over.
    fn pass_on(&mut self, cx: &mut Context<'_>, mux: &mut Mux, now: Instant) -> Option<StreamError> {
        let waits = loop {
            let mut slices = [IoSlice::new(&[]); CHUNKS];
            let mut count = 0;
            for (slice, octets) in slices.iter_mut().zip(mux.received(self.stream)) {
                *slice = IoSlice::new(octets);
                count += 1;
            }
            if count == 0 {
                break false;
            }
            match Pin::new(&mut self.visit.socket).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => break true,
                Poll::Ready(Ok(0) | Err(_)) => {
                    // A visitor who has said all and left is told by the read; until then the camera may still listen.
                    self.takes_nothing = true;
                    mux.stop(self.stream, StreamError::Broken);
                    break false;
                }
                Poll::Ready(Ok(written)) => {
                    self.stuck_since = None;
                    self.to_visitor += written as u64;
                    mux.consumed(self.stream, written);
                }
            }
        };
        if !self.is_shut && !self.takes_nothing {
            // What a watcher of the socket holds back goes out with this.
            let flushed = Pin::new(&mut self.visit.socket).poll_flush(cx);
            if flushed.is_ready() && mux.is_ended(self.stream) {
                let _ = Pin::new(&mut self.visit.socket).poll_shutdown(cx);
                self.is_shut = true;
            }
        }
        let is_half = self.is_shut || self.takes_nothing || mux.has_ended_sending(self.stream);
        if !waits && !is_half {
            self.stuck_since = None;
            return None;
        }
        let since = *self.stuck_since.get_or_insert(now);
        (now.saturating_since(since) >= STALLED_AFTER).then_some(StreamError::Stalled)
    }
}

/// The visitors' sides while the connection turns.
pub(super) struct Sides<'a, 'c> {
    visits: &'a mut Visits,
    now: Instant,
    cx: &'a mut Context<'c>,
}

impl Streams for Sides<'_, '_> {
    fn read(&mut self, stream: u64, into: &mut Space<'_>, _: usize) -> Read {
        let Some(at) = self.visits.find(stream) else { return Read::Broken };
        let open = &mut self.visits.open[at];
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut open.visit.socket).poll_read(self.cx, &mut buffer) {
            Poll::Pending => Read::Pending,
            Poll::Ready(Err(_)) => Read::Broken,
            Poll::Ready(Ok(())) => match buffer.filled().len() {
                0 => Read::End,
                count => {
                    open.to_camera += count as u64;
                    if open.stuck_since.is_some() {
                        open.stuck_since = Some(self.now);
                    }
                    Read::Octets(count)
                }
            },
        }
    }
}

//! What the host is told, and the queue for hosts that fetch it themselves.

use std::{
    collections::VecDeque,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{command::Command, error::Error};

/// Events that wait for a host that fetches them; when they are more, the oldest goes and is counted.
const MAX_WAITING: usize = 256;

/// Something that the operator should know and that stops nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The server's URL is `ws://`: nothing is encrypted.
    Plaintext,
    /// The configuration has a key that is unknown, or a value that is a placeholder.
    Configuration,
    /// The journal is full, frames are lost.
    JournalOverflow,
    /// Another agent uses this agent's id.
    DuplicateIdentity,
    /// The server asked for a service that the configuration does not allow, or for too many at once.
    TunnelRefused,
    /// A camera that the agent fetches frames from does not answer, refuses the password, or stopped sending.
    Source,
    /// The data plan's month is used up by 80 % or 100 %, something stops because of it, or goes on with the next month.
    DataPlan,
    /// The folder of the journal is not there, is full, can only be read, or has a file that is not understood. Live goes on.
    Storage,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session is established.
    Connected {
        /// The session's name in the server's logs.
        session_id: String,
        /// The server's address.
        address: String,
    },
    /// The session, or an attempt to get one, has ended.
    Disconnected {
        /// Why.
        reason: String,
        /// The WebSocket close code behind it; 0 when there is none.
        code: u16,
        /// When the next attempt will be made.
        retry_in: Duration,
    },
    /// The server asks for something that the host has to do and to answer.
    Command(Command),
    /// A viewer waits: please let the encoder begin a new GOP on this track.
    KeyFrameWanted {
        /// The track.
        track: u32,
    },
    /// The uplink is short, or wide enough again: what the encoder of this track should produce from now on. Told at most once a second.
    TargetBitrate {
        /// The track.
        track: u32,
        /// Bits a second; 0: what it was configured for.
        bits_per_second: u32,
    },
    /// Whether frames of this track are taken now.
    TrackWanted {
        /// The track.
        track: u32,
        /// Whether they are.
        wanted: bool,
    },
    /// Something that the operator should know.
    Warning {
        /// What kind.
        warning: Warning,
        /// In words.
        message: String,
    },
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    dropped: u64,
    is_closed: bool,
}

/// Events for a host that fetches them, with a descriptor that is readable while there are any.
#[derive(Debug)]
pub(crate) struct EventQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    descriptor: OwnedFd,
}

impl EventQueue {
    pub(crate) fn new() -> Result<Self, Error> {
        // SAFETY: eventfd takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(Error::io("cannot create an event descriptor")(std::io::Error::last_os_error()));
        }
        // SAFETY: the descriptor was just created and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { waiting: Mutex::default(), arrived: Condvar::new(), descriptor })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    pub(crate) fn push(&self, event: Event) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.events.len() == MAX_WAITING {
            waiting.events.pop_front();
            waiting.dropped += 1;
        }
        waiting.events.push_back(event);
        drop(waiting);
        self.arrived.notify_one();
        let one = 1_u64;
        // SAFETY: eight bytes of a valid integer are written to an eventfd. A full counter means that it is readable already.
        unsafe { libc::write(self.descriptor(), (&raw const one).cast(), 8) };
    }

    /// Nobody waits any more; what is there can still be fetched.
    pub(crate) fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.arrived.notify_all();
    }

    /// The oldest event, or `None` when none comes within `timeout` or before the queue is closed.
    pub(crate) fn pop(&self, timeout: Duration) -> Option<Event> {
        let until = Instant::now().checked_add(timeout);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(event) = waiting.events.pop_front() {
                if waiting.events.is_empty() {
                    self.clear();
                }
                return Some(event);
            }
            self.clear();
            if waiting.is_closed {
                return None;
            }
            let left = match until {
                Some(until) => until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?,
                None => Duration::from_secs(3_600),
            };
            waiting = self.arrived.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: eight bytes are read into a valid integer; the descriptor never blocks.
        unsafe { libc::read(self.descriptor(), (&raw mut count).cast(), 8) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(queue: &EventQueue) -> bool {
        let mut poll = libc::pollfd { fd: queue.descriptor(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd is given.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn the_descriptor_is_readable_while_there_are_events() {
        let queue = EventQueue::new().unwrap();
        assert!(!readable(&queue));
        queue.push(Event::KeyFrameWanted { track: 1 });
        queue.push(Event::KeyFrameWanted { track: 2 });
        assert!(readable(&queue));
        assert_eq!(queue.pop(Duration::ZERO), Some(Event::KeyFrameWanted { track: 1 }));
        assert!(readable(&queue));
        assert_eq!(queue.pop(Duration::ZERO), Some(Event::KeyFrameWanted { track: 2 }));
        assert!(!readable(&queue));
        assert_eq!(queue.pop(Duration::ZERO), None);
    }

    #[test]
    fn a_host_that_never_looks_costs_a_bounded_queue() {
        let queue = EventQueue::new().unwrap();
        for track in 0..=MAX_WAITING as u32 {
            queue.push(Event::KeyFrameWanted { track });
        }
        assert_eq!(queue.pop(Duration::ZERO), Some(Event::KeyFrameWanted { track: 1 }));
    }
}

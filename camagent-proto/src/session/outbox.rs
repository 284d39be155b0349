//! What waits to be written besides media: control messages, and the close that ends a connection.

use alloc::{
    collections::VecDeque,
    string::{String, ToString},
};

use bytes::Bytes;

use super::Transmit;
use crate::{
    error::{CloseCode, Error},
    message::{ErrorMessage, Message},
};

/// Octets of the reason that a WebSocket close frame has room for (RFC 6455 section 5.5).
const MAX_REASON: usize = 123;
/// Messages that may wait. A peer that makes us answer faster than it reads is cut off.
pub(super) const MAX_WAITING: usize = 512;

#[derive(Debug)]
pub(super) struct Outbox {
    waiting: VecDeque<Transmit>,
    most: usize,
    octets: u64,
    closing: bool,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::of(MAX_WAITING)
    }
}

impl Outbox {
    /// One in which so many messages may wait.
    pub(super) fn of(most: usize) -> Self {
        Self { waiting: VecDeque::new(), most, octets: 0, closing: false }
    }

    pub(super) fn message(&mut self, message: &Message) {
        self.push(Transmit::Text(message.to_text()));
    }

    pub(super) fn record(&mut self, record: Bytes) {
        self.push(Transmit::Binary(record));
    }

    /// Ends the connection with an `error` message and the close code that belongs to it. Only the first call counts.
    pub(super) fn fail(&mut self, error: &Error) {
        let code = error.close_code();
        let detail = error.to_string();
        let (limit, retry_after_ms) = match error {
            Error::Refused { retry_after_ms, .. } => ("", *retry_after_ms),
            Error::Limit { limit, .. } => (*limit, 0),
            Error::Credit { credit, .. } => (*credit, 0),
            _ => ("", 0),
        };
        let (name, limit) = (code.name().into(), limit.into());
        let message = ErrorMessage { code: code.number(), name, detail: detail.clone(), limit, retry_after_ms };
        self.message(&Message::Error(message));
        self.close(code, detail);
    }

    /// Ends the connection after what waits already.
    pub(super) fn close(&mut self, code: CloseCode, mut reason: String) {
        if !self.closing {
            let mut end = reason.len().min(MAX_REASON);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            reason.truncate(end);
            let close = Transmit::Close(code, reason);
            self.octets += close.octets() as u64;
            self.waiting.push_back(close);
            self.closing = true;
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Octets that wait.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    pub(super) fn pop(&mut self) -> Option<Transmit> {
        let next = self.waiting.pop_front()?;
        self.octets -= next.octets() as u64;
        Some(next)
    }

    fn push(&mut self, transmit: Transmit) {
        if self.closing {
            return;
        }
        self.octets += transmit.octets() as u64;
        self.waiting.push_back(transmit);
        if self.waiting.len() > self.most {
            self.waiting.clear();
            self.octets = 0;
            self.close(CloseCode::LimitExceeded, "control messages are not being read".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_last_and_its_reason_fits() {
        let mut outbox = Outbox::default();
        outbox.close(CloseCode::Normal, "ü".repeat(100));
        outbox.record(Bytes::from_static(b"late"));
        let Some(Transmit::Close(CloseCode::Normal, reason)) = outbox.pop() else { panic!() };
        assert!(reason.len() <= 123 && reason.starts_with('ü'));
        assert_eq!(outbox.pop(), None);
    }

    #[test]
    fn a_peer_that_does_not_read_is_cut_off() {
        let mut outbox = Outbox::default();
        for _ in 0..=MAX_WAITING {
            outbox.record(Bytes::new());
        }
        assert!(matches!(outbox.pop(), Some(Transmit::Close(CloseCode::LimitExceeded, _))));
        assert_eq!(outbox.octets(), 0);
    }
}

//! OPEN, OPEN_RESULT, DATA, RESET_STREAM, STOP_SENDING, MAX_DATA, MAX_STREAM_DATA, MAX_STREAMS: streams with the words of RFC 9000;
//! RETURN_STREAM_DATA, by which an idle one gives credit back; and TACK, by which they survive their connection.
//!
//! What does not belong here: who may send what when (`mux`).

use alloc::{format, string::String, vec::Vec};

use bytes::Bytes;

use super::{Body, MAX_NAME, Reader, put_text, read::violation};
use crate::{error::Error, varint};

/// Octets of the visitor in OPEN, and of the words in OPEN_RESULT.
pub const MAX_DETAIL: usize = 256;

/// OPEN: a visitor wants to a service of a camera. Both go by their names: no host and no port travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The stream: 1, 5, 9 … as RFC 9000 section 2.1 numbers those that a server opens.
    pub stream: u64,
    /// The camera's id.
    pub camera: String,
    /// The service's name.
    pub service: String,
    /// Who comes, for the agent's log.
    pub visitor: String,
}

impl Open {
    /// Its kind.
    pub const NUMBER: u64 = 0x01;
}

impl Body for Open {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            stream: reader.integer("OPEN stream")?,
            camera: reader.text(MAX_NAME, "OPEN camera")?,
            service: reader.text(MAX_NAME, "OPEN service")?,
            visitor: reader.text(MAX_DETAIL, "OPEN visitor")?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.stream, out);
        put_text(&self.camera, out);
        put_text(&self.service, out);
        put_text(&self.visitor, out);
    }
}

/// What came of an OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenOutcome {
    /// The service is connected.
    Connected,
    /// The agent's configuration has no such service of such a camera.
    NotAllowed,
    /// The service does not answer.
    Unreachable,
    /// The camera has as many streams as it may have.
    Busy,
    /// Another number, of a later version.
    Other(u64),
}

impl OpenOutcome {
    /// The number on the wire.
    pub const fn number(self) -> u64 {
        match self {
            OpenOutcome::Connected => 0,
            OpenOutcome::NotAllowed => 1,
            OpenOutcome::Unreachable => 2,
            OpenOutcome::Busy => 3,
            OpenOutcome::Other(number) => number,
        }
    }

    /// The outcome behind a number.
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => OpenOutcome::Connected,
            1 => OpenOutcome::NotAllowed,
            2 => OpenOutcome::Unreachable,
            3 => OpenOutcome::Busy,
            number => OpenOutcome::Other(number),
        }
    }

    /// The name in logs and events.
    pub const fn name(self) -> &'static str {
        match self {
            OpenOutcome::Connected => "connected",
            OpenOutcome::NotAllowed => "not_allowed",
            OpenOutcome::Unreachable => "unreachable",
            OpenOutcome::Busy => "busy",
            OpenOutcome::Other(_) => "other",
        }
    }
}

/// OPEN_RESULT: what came of an OPEN. With any outcome but `connected` the stream is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenResult {
    /// The stream.
    pub stream: u64,
    /// What came of it.
    pub outcome: OpenOutcome,
    /// In words, for people.
    pub detail: String,
}

impl Body for OpenResult {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            stream: reader.integer("OPEN_RESULT stream")?,
            outcome: OpenOutcome::from_number(reader.integer("OPEN_RESULT outcome")?),
            detail: reader.text(MAX_DETAIL, "OPEN_RESULT detail")?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.stream, out);
        varint::put(self.outcome.number(), out);
        put_text(&self.detail, out);
    }
}

/// DATA: the next octets of one direction of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The stream.
    pub stream: u64,
    /// Whether these are the last octets of this direction.
    pub fin: bool,
    /// The octets.
    pub octets: Bytes,
}

impl Data {
    /// The number of the kind.
    pub const NUMBER: u64 = 0x05;

    /// Appends what stands before the octets.
    pub(crate) fn write_head(stream: u64, fin: bool, out: &mut Vec<u8>) {
        varint::put(stream, out);
        varint::put(u64::from(fin), out);
    }
}

impl Body for Data {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let stream = reader.integer("DATA stream")?;
        let flags = reader.integer("DATA flags")?;
        if flags > 1 {
            return Err(violation("DATA flags", "0 or 1", format!("{flags}")));
        }
        Ok(Self { stream, fin: flags == 1, octets: reader.rest() })
    }

    fn write(&self, out: &mut Vec<u8>) {
        Self::write_head(self.stream, self.fin, out);
        out.extend_from_slice(&self.octets);
    }
}

/// Why a direction of a stream ends before its last octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Its user has gone.
    Cancelled,
    /// Its TCP connection broke.
    Broken,
    /// Nothing could be delivered for too long.
    Stalled,
    /// Another number, of a later version.
    Other(u64),
}

impl StreamError {
    /// The number on the wire.
    pub const fn number(self) -> u64 {
        match self {
            StreamError::Cancelled => 0,
            StreamError::Broken => 1,
            StreamError::Stalled => 2,
            StreamError::Other(number) => number,
        }
    }

    /// The error behind a number.
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => StreamError::Cancelled,
            1 => StreamError::Broken,
            2 => StreamError::Stalled,
            number => StreamError::Other(number),
        }
    }

    /// The name in logs and events.
    pub const fn name(self) -> &'static str {
        match self {
            StreamError::Cancelled => "cancelled",
            StreamError::Broken => "broken",
            StreamError::Stalled => "stalled",
            StreamError::Other(_) => "other",
        }
    }
}

/// RESET_STREAM: the sender gives a direction up; what was not delivered yet is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetStream {
    /// The stream.
    pub stream: u64,
    /// Why.
    pub error: StreamError,
    /// Octets that were sent of this direction, and credit that was given back: they settle the credit.
    pub final_size: u64,
}

impl Body for ResetStream {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            stream: reader.integer("RESET_STREAM stream")?,
            error: StreamError::from_number(reader.integer("RESET_STREAM error")?),
            final_size: reader.integer("RESET_STREAM final size")?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.stream, out);
        varint::put(self.error.number(), out);
        varint::put(self.final_size, out);
    }
}

/// STOP_SENDING: the receiver wants nothing more of a direction; the sender answers with RESET_STREAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSending {
    /// The stream.
    pub stream: u64,
    /// Why.
    pub error: StreamError,
}

impl Body for StopSending {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            stream: reader.integer("STOP_SENDING stream")?,
            error: StreamError::from_number(reader.integer("STOP_SENDING error")?),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.stream, out);
        varint::put(self.error.number(), out);
    }
}

/// MAX_DATA: octets that may be sent of all streams together since the session began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxData {
    /// The limit; a lower one than before means nothing.
    pub limit: u64,
}

impl Body for MaxData {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { limit: reader.integer("MAX_DATA limit")? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.limit, out);
    }
}

/// MAX_STREAM_DATA: octets that may be sent of one direction of a stream since it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxStreamData {
    /// The stream.
    pub stream: u64,
    /// The limit; a lower one than before means nothing.
    pub limit: u64,
}

impl Body for MaxStreamData {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { stream: reader.integer("MAX_STREAM_DATA stream")?, limit: reader.integer("MAX_STREAM_DATA limit")? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.stream, out);
        varint::put(self.limit, out);
    }
}

/// MAX_STREAMS: streams that may be opened since the session began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxStreams {
    /// The limit; a lower one than before means nothing.
    pub limit: u64,
}

impl Body for MaxStreams {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { limit: reader.integer("MAX_STREAMS limit")? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.limit, out);
    }
}

/// RETURN_STREAM_DATA: the sender of a direction gives credit back that it does not use. It counts as if so many octets had come and were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnStreamData {
    /// The stream.
    pub stream: u64,
    /// How much of its credit.
    pub octets: u64,
}

impl Body for ReturnStreamData {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            stream: reader.integer("RETURN_STREAM_DATA stream")?,
            octets: reader.integer("RETURN_STREAM_DATA octets")?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.stream, out);
        varint::put(self.octets, out);
    }
}

/// TACK: how many frames of tunnels the peer need not keep any longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tack {
    /// Frames of tunnels that were received since the streams' first session began; a TACK is not counted.
    pub received: u64,
}

impl Body for Tack {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { received: reader.integer("TACK received")? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(self.received, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_words_have_limits() {
        let open = |camera: &str, visitor: &str| {
            let mut body = Vec::new();
            let [camera, visitor] = [camera, visitor].map(String::from);
            Open { stream: 1, camera, service: "rtsp".into(), visitor }.write(&mut body);
            Open::read(&mut Reader::new(body.into()))
        };
        assert!(open("gate", &"x".repeat(MAX_DETAIL)).is_ok());
        assert!(matches!(open(&"x".repeat(MAX_NAME + 1), ""), Err(Error::Limit { limit: "OPEN camera", .. })));
        assert!(matches!(open("gate", &"x".repeat(MAX_DETAIL + 1)), Err(Error::Limit { limit: "OPEN visitor", .. })));
    }

    #[test]
    fn numbers_of_a_later_version_survive() {
        assert_eq!(OpenOutcome::from_number(9).number(), 9);
        assert_eq!(StreamError::from_number(9).number(), 9);
        for number in 0..4 {
            assert!(!matches!(OpenOutcome::from_number(number), OpenOutcome::Other(_)));
        }
    }
}

//! One direction of a connection: octets in order, at a rate, after a delay, until it breaks at any octet.
//!
//! Messages stand in it as on a WebSocket: a kind, a length, octets. Whoever reads gets only what is whole, so that a message that a break tore
//! is never heard of. What does not belong here: what the messages say.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use camagent_proto::{CloseCode, session::Transmit};

/// What is in front of a message.
const HEAD: usize = 5;

/// What comes out of a pipe.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A close.
    Close,
    /// The connection ends here.
    End,
}

/// One direction.
#[derive(Debug)]
pub struct Pipe {
    /// Octets a second.
    rate: u64,
    latency_us: u64,
    /// Octets that may be on their way; the writer waits beyond.
    window: usize,
    chunks: VecDeque<(u64, Bytes)>,
    in_flight: usize,
    free_at: u64,
    arrived: BytesMut,
    /// When the reader sees the end, once nothing more can come.
    ends_at: Option<u64>,
    /// Whatever is written is lost, and nobody is told.
    is_hole: bool,
    has_ended: bool,
}

impl Pipe {
    /// A pipe that works.
    pub fn new(rate: u64, latency_us: u64, window: usize) -> Self {
        Self {
            rate,
            latency_us,
            window,
            chunks: VecDeque::new(),
            in_flight: 0,
            free_at: 0,
            arrived: BytesMut::new(),
            ends_at: None,
            is_hole: false,
            has_ended: false,
        }
    }

    /// Whether a writer need not wait.
    pub fn takes(&self) -> bool {
        self.ends_at.is_none() && self.in_flight < self.window
    }

    /// Writes a message.
    pub fn write(&mut self, now: u64, transmit: Transmit) {
        if self.ends_at.is_some() {
            return;
        }
        let (kind, body) = match transmit {
            Transmit::Text(text) => (1, Bytes::from(text)),
            Transmit::Binary(record) => (2, record),
            Transmit::Close(code, _) => (8, Bytes::copy_from_slice(&CloseCode::number(code).to_be_bytes())),
        };
        let mut chunk = Vec::with_capacity(HEAD + body.len());
        chunk.push(kind);
        chunk.extend_from_slice(&u32::try_from(body.len()).expect("records are small").to_be_bytes());
        chunk.extend_from_slice(&body);
        let leaves = self.free_at.max(now) + chunk.len() as u64 * 1_000_000 / self.rate;
        self.free_at = leaves;
        self.in_flight += chunk.len();
        if self.is_hole {
            // Nobody gets it, and it takes its room in the sender's buffer.
            return;
        }
        self.chunks.push_back((leaves + self.latency_us, chunk.into()));
    }

    /// The writer closes: what is on its way still comes.
    pub fn finish(&mut self, now: u64) {
        let last = self.chunks.back().map_or(now + self.latency_us, |(at, _)| *at);
        self.ends_at.get_or_insert(last);
    }

    /// It breaks: of the octets on their way `keep` of 256 parts still come, the rest never does. The reader sees the end `notice_us` later, or never.
    pub fn cut(&mut self, now: u64, keep: u64, notice_us: Option<u64>) {
        let on_their_way: usize = self.chunks.iter().map(|(_, chunk)| chunk.len()).sum();
        let mut left = on_their_way * keep as usize / 256;
        for (_, chunk) in &mut self.chunks {
            chunk.truncate(left);
            left -= chunk.len();
        }
        self.chunks.retain(|(_, chunk)| !chunk.is_empty());
        self.is_hole = true;
        if let Some(notice_us) = notice_us {
            let last = self.chunks.back().map_or(now, |(at, _)| *at);
            self.ends_at = Some(last.max(now) + notice_us);
        }
    }

    /// When something comes out.
    pub fn due(&self) -> Option<u64> {
        if self.has_ended {
            return None;
        }
        self.chunks.front().map(|(at, _)| *at).or(self.ends_at)
    }

    /// The next message that has come, or the end.
    pub fn read(&mut self, now: u64) -> Option<Heard> {
        loop {
            if let Some(heard) = self.whole() {
                return Some(heard);
            }
            match self.chunks.pop_front_if(|(at, _)| *at <= now) {
                Some((_, chunk)) => {
                    self.in_flight -= chunk.len().min(self.in_flight);
                    self.arrived.extend_from_slice(&chunk);
                }
                None if !self.has_ended && self.chunks.is_empty() && self.ends_at.is_some_and(|at| at <= now) => {
                    self.has_ended = true;
                    return Some(Heard::End);
                }
                None => return None,
            }
        }
    }

    fn whole(&mut self) -> Option<Heard> {
        let head = self.arrived.get(..HEAD)?;
        let kind = head[0];
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if self.arrived.len() < HEAD + length {
            return None;
        }
        self.arrived.advance(HEAD);
        let body = self.arrived.split_to(length).freeze();
        Some(match kind {
            1 => Heard::Text(String::from_utf8(body.to_vec()).expect("it was a text when it was written")),
            2 => Heard::Binary(body),
            _ => Heard::Close,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_come_in_order_after_rate_and_delay() {
        let mut pipe = Pipe::new(1_000, 50_000, 100);
        pipe.write(0, Transmit::Binary(Bytes::from_static(&[1; 45])));
        pipe.write(0, Transmit::Text("hello".into()));
        assert_eq!((pipe.due(), pipe.read(99_999)), (Some(100_000), None));
        assert_eq!(pipe.read(100_000), Some(Heard::Binary(Bytes::from_static(&[1; 45]))));
        assert_eq!(pipe.read(110_000), Some(Heard::Text("hello".into())));
        pipe.finish(110_000);
        assert_eq!((pipe.read(159_999), pipe.read(160_000), pipe.read(170_000)), (None, Some(Heard::End), None));
    }

    #[test]
    fn a_break_tears_what_is_on_its_way_at_any_octet() {
        for keep in 0..256 {
            let mut pipe = Pipe::new(1_000_000, 10, 1 << 20);
            for number in 0..10_u8 {
                pipe.write(0, Transmit::Binary(Bytes::from(vec![number; 20])));
            }
            pipe.cut(1, keep, Some(5));
            pipe.write(2, Transmit::Text("lost".into()));
            let mut number = 0;
            loop {
                match pipe.read(1_000_000) {
                    Some(Heard::Binary(body)) => assert_eq!(body, vec![number; 20]),
                    Some(Heard::End) => break,
                    other => panic!("{other:?}"),
                }
                number += 1;
            }
            assert_eq!(u64::from(number), 250 * keep / 256 / 25);
        }
    }
}

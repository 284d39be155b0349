//! Frames that were sent and that the peer has not acknowledged, as they were written: should the connection break, they are sent again.
//!
//! Frames are numbered by the order of their sending; an acknowledgement is the number of those that were received. So the peer handles each
//! frame once and in order, as if there were one connection without end, and nothing else of the mux knows of it.

use alloc::{collections::VecDeque, vec::Vec};

use bytes::Bytes;

use crate::{frame::MAX_RECORD, varint};

/// A part of a record of at least so many octets is kept in the memory of its record; smaller ones are copied together, so that a credit does not
/// hold a whole record.
const LARGE: usize = MAX_RECORD / 2;
/// What small parts are copied together to.
const CHUNK: usize = MAX_RECORD;

#[derive(Debug)]
enum Octets {
    Shared(Bytes),
    Copied(Vec<u8>),
}

impl Octets {
    fn as_slice(&self) -> &[u8] {
        match self {
            Octets::Shared(octets) => octets,
            Octets::Copied(octets) => octets,
        }
    }

    /// The memory that they hold.
    fn held(&self) -> u64 {
        match self {
            Octets::Shared(_) => MAX_RECORD as u64,
            Octets::Copied(octets) => octets.len() as u64,
        }
    }
}

/// Whole frames, one behind the other.
#[derive(Debug)]
struct Piece {
    octets: Octets,
    frames: u64,
}

/// The place of a frame.
#[derive(Clone, Copy, Debug)]
struct Place {
    piece: usize,
    offset: usize,
    number: u64,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pieces: VecDeque<Piece>,
    /// The number of the first frame of the first piece.
    first: u64,
    /// What the peer has received.
    acknowledged: u64,
    /// Frames that were ever sent.
    sent: u64,
    held: u64,
    /// The next frame that is to be sent again.
    again: Option<Place>,
    /// Memory of records that need not be kept any longer: the next ones are written there. Without it an allocator returns and fetches the
    /// same pages thousands of times a second.
    free: Vec<Vec<u8>>,
    /// So many at most.
    most_free: usize,
}

impl Kept {
    /// Nothing is kept yet. The memory of so many records is used again.
    pub(super) fn new(most_free: usize) -> Self {
        Self { most_free, ..Self::default() }
    }

    /// Memory for a record; without any when there is none to use again.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Takes memory back.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        if self.free.len() < self.most_free && buffer.capacity() > 0 {
            self.free.push(buffer);
        }
    }

    /// There is nothing to write soon.
    pub(super) fn rest(&mut self) {
        self.free = Vec::new();
    }

    /// The memory of what is kept, in octets.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// All memory, that which waits for the next records included.
    pub(super) fn memory(&self) -> u64 {
        self.held + (self.free.len() * MAX_RECORD) as u64
    }

    /// `frames` whole frames were sent.
    pub(super) fn push(&mut self, octets: Bytes, frames: u64) {
        self.sent += frames;
        if octets.len() >= LARGE {
            self.held += MAX_RECORD as u64;
            return self.pieces.push_back(Piece { octets: Octets::Shared(octets), frames });
        }
        self.held += octets.len() as u64;
        match self.pieces.back_mut() {
            Some(Piece { octets: Octets::Copied(chunk), frames: here }) if chunk.len() + octets.len() <= CHUNK => {
                chunk.extend_from_slice(&octets);
                *here += frames;
            }
            _ => self.pieces.push_back(Piece { octets: Octets::Copied(octets.to_vec()), frames }),
        }
    }

    /// The peer has received `number` frames. `false` when that cannot be; how many are news otherwise.
    pub(super) fn acknowledge(&mut self, number: u64) -> Option<u64> {
        let most = self.again.map_or(self.sent, |again| again.number);
        if number > most || number < self.acknowledged {
            return None;
        }
        let news = number - self.acknowledged;
        self.acknowledged = number;
        while let Some(piece) = self.pieces.pop_front_if(|piece| self.first + piece.frames <= number) {
            self.first += piece.frames;
            self.held -= piece.octets.held();
            if let Octets::Shared(octets) = piece.octets
                && octets.is_unique()
            {
                self.give_back(octets.into());
            }
            if let Some(again) = &mut self.again {
                again.piece -= 1;
            }
        }
        Some(news)
    }

    /// A new connection: the peer has received `number` frames, the others are sent again. `false` when these are not all here.
    pub(super) fn go_back(&mut self, number: u64) -> bool {
        self.again = None;
        if self.acknowledge(number).is_none() {
            return false;
        }
        self.again = Some(Place { piece: 0, offset: 0, number: self.first });
        while self.again.is_some_and(|again| again.number < number) {
            self.step();
        }
        self.settle();
        true
    }

    /// Whether frames are still to be sent again.
    pub(super) fn is_repeating(&self) -> bool {
        self.again.is_some()
    }

    /// The next frame that is to be sent again, as it was written.
    pub(super) fn next_again(&self) -> Option<&[u8]> {
        let again = self.again?;
        let octets = &self.pieces.get(again.piece)?.octets.as_slice()[again.offset..];
        Some(&octets[..frame_length(octets)])
    }

    /// That frame was sent again.
    pub(super) fn sent_again(&mut self) {
        self.step();
        self.settle();
    }

    fn step(&mut self) {
        let Some(length) = self.next_again().map(<[u8]>::len) else { return };
        let Some(again) = &mut self.again else { return };
        again.number += 1;
        again.offset += length;
        if self.pieces.get(again.piece).is_some_and(|piece| again.offset >= piece.octets.as_slice().len()) {
            (again.piece, again.offset) = (again.piece + 1, 0);
        }
    }

    fn settle(&mut self) {
        self.again = self.again.filter(|again| again.number < self.sent);
    }
}

/// The length of the first frame; all octets when they are none, which this end never writes.
fn frame_length(octets: &[u8]) -> usize {
    let length = varint::get(octets).and_then(|(_, head)| {
        let (body, length) = varint::get(&octets[head..])?;
        Some(head + length + usize::try_from(body).ok()?)
    });
    length.unwrap_or(octets.len()).min(octets.len())
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::frame::RecordWriter;

    /// A frame with a body of so many octets.
    fn frame(number: u8, body: usize) -> Vec<u8> {
        let mut octets = vec![5];
        varint::put(body as u64, &mut octets);
        octets.extend(core::iter::repeat_n(number, body));
        octets
    }

    fn again(kept: &mut Kept) -> Vec<u8> {
        let mut numbers = Vec::new();
        while let Some(octets) = kept.next_again() {
            assert_eq!(octets.len(), frame(0, octets.len() - if octets.len() > 65 { 3 } else { 2 }).len());
            numbers.push(octets[octets.len() - 1]);
            kept.sent_again();
        }
        assert!(!kept.is_repeating());
        numbers
    }

    #[test]
    fn what_was_not_received_is_sent_again_in_order() {
        let mut kept = Kept::default();
        let mut number = 0;
        for sizes in [vec![10, 3, 9_000], vec![1], vec![20, 16_000], vec![4], vec![5, 6]] {
            let record: Vec<u8> = sizes
                .iter()
                .flat_map(|size| {
                    number += 1;
                    frame(number, *size)
                })
                .collect();
            kept.push(record.into(), sizes.len() as u64);
        }
        assert_eq!(kept.acknowledge(2), Some(2));
        assert_eq!((kept.acknowledge(1), kept.acknowledge(10)), (None, None), "the past and the future");
        assert!(kept.go_back(2));
        assert_eq!(kept.acknowledge(3), None, "not sent again yet");
        assert_eq!(again(&mut kept), [3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(kept.acknowledge(4), Some(2));
        assert!(kept.go_back(5));
        kept.sent_again();
        assert_eq!(kept.acknowledge(6), Some(1));
        assert_eq!(again(&mut kept), [7, 8, 9]);
        assert!(kept.go_back(9) && again(&mut kept).is_empty());
        assert_eq!((kept.held(), kept.pieces.len()), (0, 0));
        assert!(!kept.go_back(8) && !kept.go_back(10));
    }

    #[test]
    fn the_memory_of_an_acknowledged_record_is_used_again() {
        let mut kept = Kept::new(1);
        for number in 0..2 {
            let mut writer = RecordWriter::reusing(kept.buffer(), MAX_RECORD, MAX_RECORD);
            assert!(writer.push_encoded(&frame(7, MAX_RECORD - 5)));
            let record = writer.finish();
            let address = record.as_ptr();
            kept.push(record.slice(..), 1);
            drop(record);
            assert_eq!(kept.acknowledge(number + 1), Some(1));
            let buffer = kept.buffer();
            assert!(core::ptr::eq(buffer.as_ptr(), address) && buffer.capacity() >= MAX_RECORD);
            kept.give_back(buffer);
        }
        kept.give_back(vec![0; MAX_RECORD]);
        assert_eq!(kept.free.len(), 1);
        kept.rest();
        assert_eq!(kept.buffer().capacity(), 0);
    }

    #[test]
    fn little_frames_hold_no_records() {
        let record = Bytes::from(frame(1, MAX_RECORD - 10));
        let mut kept = Kept::default();
        kept.push(record.slice(..record.len()), 1);
        assert_eq!((kept.held(), record.is_unique()), (MAX_RECORD as u64, false));
        kept.acknowledge(1);
        let little = Bytes::from(frame(2, 10));
        (0..100).for_each(|_| kept.push(little.clone(), 1));
        assert!(record.is_unique() && little.is_unique() && kept.pieces.len() == 1);
        assert_eq!(kept.held(), 1_200);
    }
}

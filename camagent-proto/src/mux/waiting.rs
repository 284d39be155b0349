//! Octets that were received and wait for a local side: in order, in pieces, and in no more memory than about twice their number.

use alloc::{collections::VecDeque, vec::Vec};

use bytes::Bytes;

/// A piece of at least so many octets stays where it came, in the memory of its record; a record is at most twice as large. Smaller ones
/// are copied together: a single octet must not hold a whole record.
const LARGE: usize = 8 << 10;
/// What small pieces are copied together to.
const CHUNK: usize = 16 << 10;

#[derive(Debug)]
enum Piece {
    Shared(Bytes),
    Copied(Vec<u8>),
}

impl Piece {
    fn octets(&self) -> &[u8] {
        match self {
            Piece::Shared(octets) => octets,
            Piece::Copied(octets) => octets,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pieces: VecDeque<Piece>,
    /// Octets of the first piece that are taken already.
    offset: usize,
    length: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Octets of memory: a piece that stays where it came holds its record, which is at most twice as large.
    pub(super) fn memory(&self) -> u64 {
        let of_piece = |piece: &Piece| match piece {
            Piece::Shared(octets) => 2 * octets.len(),
            Piece::Copied(octets) => octets.capacity(),
        };
        let pieces = self.pieces.iter().map(of_piece).sum::<usize>();
        (pieces + self.pieces.capacity() * size_of::<Piece>()) as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, octets: Bytes) {
        if octets.is_empty() {
            return;
        }
        self.length += octets.len();
        if octets.len() >= LARGE {
            return self.pieces.push_back(Piece::Shared(octets));
        }
        match self.pieces.back_mut() {
            Some(Piece::Copied(chunk)) if chunk.len() + octets.len() <= CHUNK => chunk.extend_from_slice(&octets),
            _ => self.pieces.push_back(Piece::Copied(octets.to_vec())),
        }
    }

    /// The octets in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let pieces = self.pieces.iter().enumerate();
        pieces.map(|(at, piece)| if at == 0 { &piece.octets()[self.offset..] } else { piece.octets() })
    }

    /// The first `count` octets are taken; how many these really are.
    pub(super) fn take(&mut self, count: usize) -> usize {
        let taken = count.min(self.length);
        self.length -= taken;
        let mut left = taken;
        while let Some(first) = self.pieces.front() {
            let here = first.octets().len() - self.offset;
            if left < here {
                self.offset += left;
                break;
            }
            left -= here;
            self.offset = 0;
            self.pieces.pop_front();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(waiting: &Waiting) -> Vec<u8> {
        waiting.iter().flatten().copied().collect()
    }

    #[test]
    fn octets_come_out_as_they_went_in() {
        let mut waiting = Waiting::default();
        let mut expected = Vec::new();
        for length in [1, 0, LARGE, 3, CHUNK - 3, 2, LARGE + 1, LARGE - 1] {
            let octets: Vec<u8> = (0..length).map(|at| (at + length) as u8).collect();
            expected.extend_from_slice(&octets);
            waiting.push(octets.into());
        }
        assert_eq!((all(&waiting), waiting.len()), (expected.clone(), expected.len()));
        for count in [0, 1, 7, LARGE, CHUNK, 5] {
            assert_eq!(waiting.take(count), count);
            expected.drain(..count);
            assert_eq!(all(&waiting), expected);
        }
        assert_eq!(waiting.take(usize::MAX), expected.len());
        assert!(waiting.is_empty() && waiting.iter().next().is_none() && waiting.take(1) == 0);
    }

    #[test]
    fn a_small_piece_does_not_keep_its_record() {
        let record = Bytes::from(alloc::vec![7; CHUNK]);
        let mut waiting = Waiting::default();
        (0..100).for_each(|at| waiting.push(record.slice(at..at + 1)));
        assert_eq!((waiting.len(), waiting.pieces.len()), (100, 1));
        assert!(record.is_unique(), "nothing refers to the record any more");
    }
}

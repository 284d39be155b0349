//! The octets of frames: memory that is taken once and given out in pieces, so that a frame in the middle can go and its room is used again.
//!
//! Pieces are given out in the order in which they came back. As long as frames go in the order in which they came, a frame's pieces lie behind each
//! other, and it is copied in one or two moves. What does not belong here: whose octets these are (`ring`).

use std::collections::TryReserveError;

/// Octets of a piece: the last one of a frame is half full on average.
pub(crate) const PIECE: usize = 256;
/// No piece.
const NONE: u32 = u32::MAX;

/// Where the octets of a frame lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    first: u32,
    last: u32,
    length: u32,
}

impl Place {
    /// Octets of the frame.
    pub(super) fn length(&self) -> usize {
        self.length as usize
    }

    /// Pieces that it takes.
    pub(super) fn pieces(&self) -> usize {
        pieces(self.length())
    }
}

/// A piece of a frame, and the octet of the frame with which it begins: who reads on need not look for it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    piece: u32,
    begins: usize,
}

/// Pieces that so many octets take.
pub(super) fn pieces(octets: usize) -> usize {
    octets.div_ceil(PIECE)
}

/// The memory.
pub(super) struct Arena {
    octets: Box<[u8]>,
    /// What comes behind each piece, of a frame and of what is free.
    next: Box<[u32]>,
    first_free: u32,
    last_free: u32,
    free: usize,
}

impl Arena {
    /// Memory for so many octets and not a whole piece more.
    pub(super) fn new(capacity: usize) -> Result<Self, TryReserveError> {
        let count = pieces(capacity).max(1);
        let mut octets = Vec::new();
        octets.try_reserve_exact(count * PIECE)?;
        octets.resize(count * PIECE, 0);
        let mut next = Vec::new();
        next.try_reserve_exact(count)?;
        let count = u32::try_from(count).unwrap_or(NONE);
        next.extend((1..count).chain([NONE]));
        Ok(Self {
            octets: octets.into_boxed_slice(),
            next: next.into_boxed_slice(),
            first_free: 0,
            last_free: count - 1,
            free: count as usize,
        })
    }

    /// Octets that it may hold.
    pub(super) fn capacity(&self) -> usize {
        self.octets.len()
    }

    /// Pieces that nobody uses.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Octets of the pieces that are used.
    pub(super) fn used(&self) -> usize {
        (self.next.len() - self.free) * PIECE
    }

    /// Takes octets in, for which there is room.
    pub(super) fn put(&mut self, data: &[u8]) -> Place {
        let taken = pieces(data.len());
        debug_assert!((1..=self.free).contains(&taken));
        let first = self.first_free;
        let (mut last, mut rest) = (first, data);
        while !rest.is_empty() {
            let (end, room) = self.row(self.first_free, rest.len());
            let (now, later) = rest.split_at(room.min(rest.len()));
            let start = self.first_free as usize * PIECE;
            self.octets[start..start + now.len()].copy_from_slice(now);
            (last, rest, self.first_free) = (end, later, self.next[end as usize]);
        }
        self.free -= taken;
        if self.first_free == NONE {
            self.last_free = NONE;
        }
        Place { first, last, length: u32::try_from(data.len()).unwrap_or(u32::MAX) }
    }

    /// Gives the pieces of a frame back.
    pub(super) fn release(&mut self, place: &Place) {
        match self.last_free {
            NONE => self.first_free = place.first,
            last => self.next[last as usize] = place.first,
        }
        self.last_free = place.last;
        self.next[place.last as usize] = NONE;
        self.free += place.pieces();
    }

    /// Copies octets of a frame from `offset` on into all of `into`, which the frame has. `known` is a spot of this frame at or before `offset`; the one that
    /// was come to is given back.
    pub(super) fn copy(&self, place: &Place, known: Option<Spot>, offset: usize, into: &mut [u8]) -> Spot {
        let Spot { mut piece, mut begins } =
            known.filter(|spot| spot.begins <= offset).unwrap_or(Spot { piece: place.first, begins: 0 });
        while begins + PIECE <= offset {
            (piece, begins) = (self.next[piece as usize], begins + PIECE);
        }
        let (mut rest, mut skipped) = (into, offset - begins);
        while !rest.is_empty() {
            let (end, room) = self.row(piece, skipped + rest.len());
            let start = piece as usize * PIECE;
            let octets = &self.octets[start + skipped..start + room];
            let copied = octets.len().min(rest.len());
            let (now, later) = rest.split_at_mut(copied);
            now.copy_from_slice(&octets[..copied]);
            rest = later;
            if rest.is_empty() {
                // The last piece of these may have more for who reads on.
                begins += (end - piece) as usize * PIECE;
                piece = end;
            } else {
                begins += room;
                (piece, skipped) = (self.next[end as usize], 0);
            }
        }
        Spot { piece, begins }
    }

    /// The last piece of those from `first` on that lie behind each other, as far as so many octets need them, and the octets of all of these.
    fn row(&self, first: u32, octets: usize) -> (u32, usize) {
        let (mut last, mut room) = (first, PIECE);
        while room < octets && self.next[last as usize] == last + 1 {
            (last, room) = (last + 1, room + PIECE);
        }
        (last, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whatever_went_before_them() {
        let mut arena = Arena::new(20 * PIECE).unwrap();
        let mut held = std::collections::VecDeque::new();
        for round in 0..500_usize {
            let data: Vec<u8> = (0..round * 37 % 1_500 + 1).map(|at| (at + round) as u8).collect();
            while arena.free() < pieces(data.len()) {
                // Not always the oldest.
                let (place, data): (Place, Vec<u8>) = held.remove(round % 3 % held.len()).unwrap();
                let mut octets = vec![0; place.length()];
                arena.copy(&place, None, 0, &mut octets);
                assert_eq!(octets, data, "round {round}");
                arena.release(&place);
            }
            held.push_back((arena.put(&data), data));
            let used: usize = held.iter().map(|(place, _)| place.pieces()).sum();
            assert_eq!((arena.used(), arena.free()), (used * PIECE, 20 - used));
        }
    }

    #[test]
    fn who_reads_on_gets_the_same_octets() {
        let mut arena = Arena::new(16 * PIECE).unwrap();
        let places: Vec<Place> = (0..16).map(|at| arena.put(&[at; PIECE])).collect();
        (0..16).rev().for_each(|at| arena.release(&places[at]));
        // Its pieces lie in the opposite order now.
        let data: Vec<u8> = (0..3_000).map(|at| (at % 251) as u8).collect();
        let place = arena.put(&data);
        for step in [1, 7, 255, 256, 257, 1_000] {
            let (mut spot, mut at) = (None, 0);
            while at < data.len() {
                let mut octets = vec![0; step.min(data.len() - at)];
                spot = Some(arena.copy(&place, spot, at, &mut octets));
                assert_eq!(octets, data[at..at + octets.len()], "step {step} at {at}");
                at += octets.len();
            }
            let mut back = [0];
            arena.copy(&place, spot, 5, &mut back);
            assert_eq!(back[0], 5);
        }
    }
}

//! What was read from one service beyond the record at hand: a burst leaves in several records and is read in one system call.
//!
//! One buffer serves all streams, and only while the uplink is fast: on a slow one each record is read when it is sent.

use crate::burst::MAX_BURST;

/// Octets of one stream that wait for the next records.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    stream: u64,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Ahead {
    /// Moves what waits of `stream` into `into`.
    pub(super) fn take(&mut self, stream: u64, into: &mut [u8]) -> Option<usize> {
        if self.from == self.to || self.stream != stream {
            return None;
        }
        let count = into.len().min(self.to - self.from);
        into[..count].copy_from_slice(&self.buffer[self.from..self.from + count]);
        self.from += count;
        Some(count)
    }

    /// Where the next burst may be read to, when bursts have more than one record and nothing waits. The buffer goes when they have not. More than
    /// the stream's `credit` is not read: what cannot leave would keep the buffer from all other streams.
    pub(super) fn room(&mut self, burst: usize, credit: usize) -> Option<&mut [u8]> {
        if self.from < self.to {
            return None;
        }
        if burst < MAX_BURST {
            self.buffer = Vec::new();
            return None;
        }
        self.buffer.resize(MAX_BURST, 0);
        Some(&mut self.buffer[..credit.min(MAX_BURST)])
    }

    /// `count` octets of `stream` were read; the first of them go into `into`, and how many is returned.
    pub(super) fn fill(&mut self, stream: u64, count: usize, into: &mut [u8]) -> usize {
        (self.stream, self.from, self.to) = (stream, 0, count);
        self.take(stream, into).unwrap_or(0)
    }

    /// The stream is over.
    pub(super) fn forget(&mut self, stream: u64) {
        if self.stream == stream {
            self.to = self.from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_leaves_in_pieces_and_belongs_to_one_stream() {
        let mut ahead = Ahead::default();
        assert!(ahead.room(MAX_BURST - 1, MAX_BURST).is_none());
        ahead.room(MAX_BURST, usize::MAX).unwrap()[..5].copy_from_slice(b"abcde");
        let mut into = [0; 2];
        assert_eq!((ahead.fill(1, 5, &mut into), &into), (2, b"ab"));
        assert!(ahead.take(5, &mut into).is_none() && ahead.room(MAX_BURST, usize::MAX).is_none());
        assert_eq!((ahead.take(1, &mut into), &into), (Some(2), b"cd"));
        assert_eq!((ahead.take(1, &mut into), into[0]), (Some(1), b'e'));
        assert!(ahead.take(1, &mut into).is_none());
        ahead.fill(5, 3, &mut into);
        ahead.forget(5);
        assert_eq!(ahead.room(MAX_BURST, 7).map(|room| room.len()), Some(7), "what cannot leave is not read");
        assert!(ahead.take(5, &mut into).is_none() && ahead.room(MAX_BURST, usize::MAX).is_some());
    }
}

//! Frames that get a number and are not kept: the server hears of them by a SKIP.

use super::{Journal, Link};

impl Journal {
    /// The next frame of a track is let go of before it is copied.
    pub(crate) fn pass(&mut self, track: u32) {
        if let Some(chain) = self.chains.get_mut(track as usize) {
            chain.end += 1;
            chain.needs_key |= chain.is_video;
        }
    }

    /// Times of arrival of a track's oldest and newest frame, in microseconds.
    pub(crate) fn span(&self, track: u32) -> Option<(u64, u64)> {
        let chain = self.chains.get(track as usize)?;
        let at = |index: Link| Some(self.slot(index?).head.arrival_us);
        Some((at(chain.first)?, at(chain.last)?))
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::{frame::FrameHead, transfer::Journal as _};

    use super::*;

    #[test]
    fn a_frame_that_is_passed_leaves_a_hole() {
        let mut journal = Journal::new(1_000).unwrap();
        journal.begin_epoch(0, 1, true);
        assert_eq!(journal.span(0), None);
        let at = |arrival_us| FrameHead { key: true, arrival_us, ..FrameHead::default() };
        journal.push(0, at(5), &[1; 10]);
        journal.pass(0);
        assert!(journal.needs_key(0));
        journal.push(0, at(9), &[1; 10]);
        assert!(!journal.needs_key(0));
        assert_eq!((journal.find(0, 1, 1).unwrap().sequence, journal.end(0, 1)), (2, 3));
        assert_eq!((journal.span(0), journal.span(9_999)), (Some((5, 9)), None));
    }
}

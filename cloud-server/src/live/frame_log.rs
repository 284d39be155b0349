//! The shared frame log of one source: a ring of frames that are packetized once and read by any number of cursors.
//! Bounded by bytes; never shorter than the current group of pictures while that fits, because a new viewer begins
//! at its key frame. Sequence numbers of the log only grow, so a cursor knows whether it fell out.

use std::collections::VecDeque;

use bytes::Bytes;

/// One coded picture or audio unit, ready for the wire.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Index of the track within the source; its packets carry the interleaved channel `2 * track`.
    pub track: u8,
    /// A viewer may begin here.
    pub key: bool,
    /// Media time, see [`super::timeline`].
    pub media_us: i64,
    /// RTP time stamp of the first packet.
    pub rtp_time: u32,
    /// RTP sequence number of the first packet.
    pub first_sequence: u16,
    /// Number of RTP packets.
    pub packets: u32,
    /// RTP payload octets, as sender reports count them.
    pub octets: u32,
    /// All packets, each with its RFC 2326 10.12 prefix: `$`, channel, two bytes of length.
    pub data: Bytes,
}

/// The ring.
#[derive(Debug)]
pub struct FrameLog {
    frames: VecDeque<Frame>,
    first: u64,
    bytes: usize,
    limit: usize,
    keep_us: i64,
    newest_key: Option<u64>,
}

impl FrameLog {
    /// At most `limit` bytes, or one larger frame; what is neither of the current group of pictures nor younger than `keep_us` goes earlier.
    #[must_use]
    pub fn new(limit: usize, keep_us: i64) -> Self {
        Self { frames: VecDeque::new(), first: 0, bytes: 0, limit, keep_us, newest_key: None }
    }

    /// Appends a frame and lets old ones go.
    pub fn push(&mut self, frame: Frame) {
        if frame.key {
            self.newest_key = Some(self.end());
        }
        let newest_us = frame.media_us;
        self.bytes += frame.data.len();
        self.frames.push_back(frame);
        while let Some(oldest) = self.frames.front() {
            let in_group = self.newest_key.is_some_and(|key| self.first >= key);
            let aged = newest_us.saturating_sub(oldest.media_us) > self.keep_us;
            let is_last = self.frames.len() == 1;
            if is_last || (self.bytes <= self.limit && (in_group || !aged)) {
                break;
            }
            self.bytes -= oldest.data.len();
            self.frames.pop_front();
            self.first += 1;
        }
        if self.newest_key.is_some_and(|key| key < self.first) {
            self.newest_key = None;
        }
    }

    /// What follows does not refer to what is here: nobody may begin at a key frame from before.
    pub fn end_group(&mut self) {
        self.newest_key = None;
    }

    /// Forgets all frames; numbers go on.
    pub fn clear(&mut self) {
        self.first = self.end();
        self.frames.clear();
        self.bytes = 0;
        self.newest_key = None;
    }

    /// Number of the oldest frame that is still here.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number that the next frame gets.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// Number of the newest frame at which a viewer may begin, if it is still here.
    #[must_use]
    pub fn newest_key(&self) -> Option<u64> {
        self.newest_key
    }

    /// The frame of a number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Frame> {
        self.frames.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The frames from a number on.
    pub fn from(&self, number: u64) -> impl Iterator<Item = &Frame> {
        let skip = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.frames.range(skip.min(self.frames.len())..)
    }

    /// The newest frame.
    #[must_use]
    pub fn newest(&self) -> Option<&Frame> {
        self.frames.back()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(key: bool, media_us: i64, size: usize) -> Frame {
        Frame {
            track: 0,
            key,
            media_us,
            rtp_time: 0,
            first_sequence: 0,
            packets: 1,
            octets: 0,
            data: Bytes::from(vec![0; size]),
        }
    }

    #[test]
    fn bounded_by_bytes() {
        let mut log = FrameLog::new(1000, i64::MAX);
        for index in 0..100 {
            log.push(frame(index % 10 == 0, index, 100));
            assert!(log.bytes() <= 1000);
        }
        assert_eq!((log.first(), log.end()), (90, 100));
        assert_eq!(log.newest_key(), Some(90));
        assert!(log.get(89).is_none());
        assert_eq!(log.from(98).count(), 2);
        assert_eq!(log.from(1000).count(), 0);
    }

    #[test]
    fn the_current_group_stays_and_older_frames_go_by_age() {
        let mut log = FrameLog::new(usize::MAX, 100);
        for index in 0..=300 {
            log.push(frame(index == 0, index, 1));
        }
        assert_eq!(log.first(), 0, "a long group is kept whole");
        log.push(frame(true, 301, 1));
        assert_eq!(log.first(), 201, "its successor makes it old");
        assert_eq!(log.newest_key(), Some(301));
    }

    #[test]
    fn a_group_that_does_not_fit_has_no_beginning() {
        let mut log = FrameLog::new(500, i64::MAX);
        log.push(frame(true, 0, 100));
        for index in 1..10 {
            log.push(frame(false, index, 100));
        }
        assert_eq!(log.newest_key(), None);
        log.push(frame(true, 10, 5000));
        assert_eq!((log.first(), log.newest_key()), (10, Some(10)), "the newest frame is held whatever its size");
        log.push(frame(true, 11, 100));
        log.clear();
        assert_eq!((log.newest_key(), log.end()), (None, 12));
    }
}

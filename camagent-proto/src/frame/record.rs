//! Records: one binary WebSocket message, whole frames one behind the other.

use alloc::{format, vec::Vec};

use bytes::Bytes;

use super::{Frame, Reader, read::violation};
use crate::{error::Error, varint};

/// The largest record in octets. With the 8-octet header of a client's WebSocket message it fills one TLS record (RFC 8446 section 5.1).
pub const MAX_RECORD: usize = 16_376;
/// The smallest limit that a peer may ask for: the largest TRACK fits into it.
pub const MIN_RECORD: usize = 4_096;
/// How many frames a record may hold.
pub const MAX_FRAMES: usize = 256;

/// Fills one record.
#[derive(Debug)]
pub struct RecordWriter {
    /// The record, and behind it what reads that gave nothing have left: it is cleared once and not for each of them.
    bytes: Vec<u8>,
    /// Octets of the record.
    length: usize,
    limit: usize,
    /// What the record should have at most: octets of frames that can be cut go no further.
    target: usize,
    frames: usize,
    body: Vec<u8>,
    integer: Vec<u8>,
}

impl RecordWriter {
    /// An empty record of at most `limit` octets, kept within [`MIN_RECORD`] and [`MAX_RECORD`].
    pub fn new(limit: usize) -> Self {
        Self::reusing(Vec::new(), limit, limit)
    }

    /// The same in memory that an earlier record had. What is left of that one stays behind the new one, and is not cleared.
    pub(crate) fn reusing(buffer: Vec<u8>, limit: usize, target: usize) -> Self {
        let limit = limit.clamp(MIN_RECORD, MAX_RECORD);
        let (mut bytes, body, integer) = (buffer, Vec::new(), Vec::new());
        bytes.reserve_exact(limit.saturating_sub(bytes.len()));
        Self { bytes, length: 0, limit, target: target.min(limit), frames: 0, body, integer }
    }

    /// The memory of a record in which nothing was written.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// The same, which should have no more than `target` octets: only a frame that cannot be cut goes beyond.
    pub fn aiming_at(limit: usize, target: usize) -> Self {
        Self::reusing(Vec::new(), limit, target)
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Octets that were written.
    pub fn octets(&self) -> usize {
        self.length
    }

    /// Octets and frames that were written.
    pub(crate) fn written(&self) -> (usize, usize) {
        (self.length, self.frames)
    }

    /// Appends a frame that was encoded for an earlier record, when it fits; the first frame of a record may go beyond target and limit.
    pub(crate) fn push_encoded(&mut self, frame: &[u8]) -> bool {
        let limit = if self.frames == 0 { MAX_RECORD } else { self.target };
        let fits = self.frames < MAX_FRAMES && self.length + frame.len() <= limit;
        if fits {
            self.append(frame);
            self.frames += 1;
        }
        fits
    }

    /// Octets that still fit, the header of one more frame of that size already taken off.
    pub fn room(&self) -> usize {
        if self.frames == MAX_FRAMES {
            return 0;
        }
        self.room_up_to(self.target)
    }

    fn room_up_to(&self, limit: usize) -> usize {
        // Type in one octet, length in at most four: records are shorter than 2^30.
        limit.saturating_sub(self.length + 5)
    }

    /// Appends `frame` when it fits; says whether it did.
    pub fn push(&mut self, frame: &Frame) -> bool {
        let mut body = core::mem::take(&mut self.body);
        body.clear();
        frame.write_body(&mut body);
        let fits = self.frames < MAX_FRAMES && body.len() <= self.room_up_to(self.limit);
        if fits {
            self.header(frame.number(), body.len());
            self.append(&body);
            self.frames += 1;
        }
        self.body = body;
        fits
    }

    /// Appends a frame whose body is `head` and then as many payload octets as fit, at most `payload`. `copy` fills them and says whether it
    /// could; when it could not, nothing is appended. Returns how many payload octets went in; `None` when not even one fits or `copy` failed.
    pub fn push_payload(
        &mut self,
        number: u64,
        head: &[u8],
        payload: usize,
        copy: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<usize> {
        let taken = payload.min(self.room().saturating_sub(head.len()));
        if taken == 0 {
            return None;
        }
        let before = self.length;
        self.header(number, head.len() + taken);
        self.append(head);
        if copy(self.space(taken)) {
            self.length += taken;
            self.frames += 1;
            return Some(taken);
        }
        self.length = before;
        None
    }

    /// Appends a frame whose body is `head` and then what `read` puts into the space that it is given: at most `most` octets, and not more than
    /// fit. `read` says how many these are; with `None` nothing is appended. Returns what `read` returned, `None` when not one octet fits.
    pub fn push_read(
        &mut self,
        number: u64,
        head: &[u8],
        most: usize,
        read: impl FnOnce(&mut Space<'_>) -> Option<usize>,
    ) -> Option<usize> {
        let most = most.min(self.room().saturating_sub(head.len()));
        if most == 0 {
            return None;
        }
        let before = self.length;
        self.put(number);
        // The length is not known yet: two octets hold every length that a record has room for.
        let length_at = self.length;
        self.append(&[0; 2]);
        self.append(head);
        let begins = self.length;
        self.space(most);
        let alone = self.limit - 5 - head.len();
        let mut space = Space { record: &mut self.bytes, frame: before, begins, most, alone };
        let Some(taken) = read(&mut space).map(|taken| taken.min(space.len())) else {
            self.length = before;
            return None;
        };
        self.length += taken;
        let length = (head.len() + taken) as u16 | 0x4000;
        self.bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        self.frames += 1;
        Some(taken)
    }

    /// The finished record.
    pub fn finish(mut self) -> Bytes {
        self.bytes.truncate(self.length);
        self.bytes.into()
    }

    fn header(&mut self, number: u64, length: usize) {
        self.put(number);
        self.put(length as u64);
    }

    fn put(&mut self, integer: u64) {
        let mut octets = core::mem::take(&mut self.integer);
        octets.clear();
        varint::put(integer, &mut octets);
        self.append(&octets);
        self.integer = octets;
    }

    fn append(&mut self, octets: &[u8]) {
        self.space(octets.len()).copy_from_slice(octets);
        self.length += octets.len();
    }

    /// So many octets behind the record.
    fn space(&mut self, count: usize) -> &mut [u8] {
        let end = self.length + count;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.length..end]
    }
}

/// Where the payload of one frame goes. To who fills it it is a slice.
#[derive(Debug)]
pub struct Space<'a> {
    record: &'a mut Vec<u8>,
    frame: usize,
    begins: usize,
    most: usize,
    alone: usize,
}

impl Space<'_> {
    /// The payload's place in the record.
    pub fn place(&self) -> usize {
        self.begins
    }

    /// Its place in a record that has nothing before this frame.
    pub fn place_in_empty(&self) -> usize {
        self.begins - self.frame
    }

    /// Octets that fit into a record that has nothing else.
    pub fn most_in_empty(&self) -> usize {
        self.alone
    }

    /// Goes on in other memory, which has the payload at its [place](Space::place) already: a whole record was read there, and need not be copied. Gives
    /// the memory back that the record had.
    pub fn exchange(&mut self, mut memory: Vec<u8>) -> Vec<u8> {
        memory[..self.begins].copy_from_slice(&self.record[..self.begins]);
        core::mem::replace(self.record, memory)
    }
}

impl core::ops::Deref for Space<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.record[self.begins..self.record.len().min(self.begins + self.most)]
    }
}

impl core::ops::DerefMut for Space<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let end = self.record.len().min(self.begins + self.most);
        &mut self.record[self.begins..end]
    }
}

/// Reads the frames of one record.
#[derive(Debug)]
pub struct RecordReader {
    reader: Reader,
    frames: usize,
    skipped: u64,
    octets: usize,
}

impl RecordReader {
    /// Starts at the front of a record; a record over [`MAX_RECORD`] is an error.
    pub fn new(record: Bytes) -> Result<Self, Error> {
        if record.len() > MAX_RECORD {
            return Err(Error::Limit { limit: "record octets", allowed: MAX_RECORD as u64, got: record.len() as u64 });
        }
        Ok(Self { reader: Reader::new(record), frames: 0, skipped: 0, octets: 0 })
    }

    /// The next frame of a known kind; `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        while self.reader.remaining() > 0 {
            self.frames += 1;
            if self.frames > MAX_FRAMES {
                return Err(Error::Limit {
                    limit: "frames in a record",
                    allowed: MAX_FRAMES as u64,
                    got: self.frames as u64,
                });
            }
            let number = self.reader.integer("frame type")?;
            let body = self.reader.octets(MAX_RECORD, "frame length")?;
            self.octets = body.len();
            match Frame::read_body(number, &mut Reader::new(body)) {
                Some(frame) => return frame.map(Some),
                None if number.is_multiple_of(2) => self.skipped += 1,
                None => {
                    return Err(violation(
                        "frame type",
                        "a known kind, or an even one that may be skipped",
                        format!("{number:#x}"),
                    ));
                }
            }
        }
        Ok(None)
    }

    /// Octets of the last frame's body.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// How many frames of unknown even kinds were passed over.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, *};

    #[test]
    fn unknown_even_kinds_are_skipped_and_odd_ones_close() {
        let skip = Skip { track: 1, first: 2, last: 3, reason: SkipReason::OverBudget };
        let mut writer = RecordWriter::new(MAX_RECORD);
        assert!(writer.push(&Frame::Skip(skip.clone())));
        let mut bytes = [0x30, 2, 9, 9].to_vec();
        bytes.extend_from_slice(&writer.finish());
        let mut reader = RecordReader::new(bytes.into()).unwrap();
        assert_eq!(reader.next_frame().unwrap(), Some(Frame::Skip(skip)));
        assert_eq!((reader.next_frame().unwrap(), reader.skipped()), (None, 1));

        let mut reader = RecordReader::new(Bytes::from_static(&[0x31, 0])).unwrap();
        let error = reader.next_frame().unwrap_err();
        assert!(matches!(error, Error::Violation { place: "frame type", .. }), "{error}");
    }

    #[test]
    fn a_record_never_outgrows_its_limit() {
        let mut writer = RecordWriter::new(MIN_RECORD);
        while writer.push_payload(0x25, &[1], 97, |_| true).is_some() {}
        let record = writer.finish();
        assert!(record.len() <= MIN_RECORD && record.len() > MIN_RECORD - 8, "{}", record.len());
        assert!(RecordReader::new(Bytes::from(alloc::vec![0; MAX_RECORD + 1])).is_err());
    }

    #[test]
    fn a_target_cuts_what_can_be_cut_and_nothing_else() {
        let mut writer = RecordWriter::aiming_at(MAX_RECORD, 1_000);
        assert_eq!(writer.push_payload(0x25, &[1], 5_000, |_| true), Some(1_000 - 6));
        assert_eq!((writer.room(), writer.push_payload(0x25, &[1], 1, |_| true)), (0, None));
        assert!(writer.push(&Frame::Skip(Skip { track: 1, first: 2, last: 3, reason: SkipReason::OverBudget })));
        assert!(writer.finish().len() > 1_000);
    }

    #[test]
    fn more_than_256_frames_are_refused() {
        let bytes = Bytes::from([0x02, 0].repeat(MAX_FRAMES + 1));
        assert!(matches!(RecordReader::new(bytes).unwrap().next_frame(), Err(Error::Limit { .. })));
    }
}

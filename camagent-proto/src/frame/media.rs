//! FRAME, FRAME_MORE, FRAME_ABORT, SKIP and MACK: a track's frames in order, and the answer to them.

use alloc::{format, vec::Vec};

use bytes::Bytes;

use super::{Body, Reader, read::violation};
use crate::{error::Error, varint};

/// What is known of a coded picture or audio unit besides its octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHead {
    /// Presentation time in microseconds of the camera's own clock; any zero.
    pub pts_us: i64,
    /// Decoding time on the same clock; equal to `pts_us` without B pictures.
    pub dts_us: i64,
    /// When the agent got the frame, in microseconds of its boot-time clock.
    pub arrival_us: u64,
    /// Decoding can start here.
    pub key: bool,
    /// No other frame refers to this one.
    pub disposable: bool,
    /// The camera's clock jumped, or frames were lost before this one.
    pub discontinuity: bool,
}

const FLAG_KEY: u64 = 1;
const FLAG_DISPOSABLE: u64 = 2;
const FLAG_DISCONTINUITY: u64 = 4;

/// FRAME: begins a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameStart {
    /// The track.
    pub track: u32,
    /// The frame's number in the track's epoch; the first is 0, each next one is one more.
    pub sequence: u64,
    /// Times and flags.
    pub head: FrameHead,
    /// Octets of the whole frame.
    pub total: u64,
    /// The first of them; all of them when the record had room.
    pub payload: Bytes,
}

impl FrameStart {
    /// The number of the kind.
    pub const NUMBER: u64 = 0x23;
}

impl Body for FrameStart {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let track = reader.integer32("FRAME track")?;
        let sequence = reader.integer("FRAME sequence")?;
        let pts_us = reader.signed("FRAME pts")?;
        let before_pts = reader.signed("FRAME pts - dts")?;
        let arrival_us = reader.integer("FRAME arrival")?;
        let flags = reader.integer("FRAME flags")?;
        let total = reader.integer("FRAME total length")?;
        let payload = reader.rest();
        if payload.len() as u64 > total || payload.is_empty() != (total == 0) {
            return Err(violation(
                "FRAME payload",
                "1 to total length octets",
                format!("{} of {total}", payload.len()),
            ));
        }
        let head = FrameHead {
            pts_us,
            dts_us: pts_us.wrapping_sub(before_pts),
            arrival_us,
            key: flags & FLAG_KEY != 0,
            disposable: flags & FLAG_DISPOSABLE != 0,
            discontinuity: flags & FLAG_DISCONTINUITY != 0,
        };
        Ok(Self { track, sequence, head, total, payload })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let head = &self.head;
        varint::put(u64::from(self.track), out);
        varint::put(self.sequence, out);
        varint::put(varint::zigzag(head.pts_us), out);
        varint::put(varint::zigzag(head.pts_us.wrapping_sub(head.dts_us)), out);
        varint::put(head.arrival_us, out);
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let flags = flag(head.key, FLAG_KEY)
            | flag(head.disposable, FLAG_DISPOSABLE)
            | flag(head.discontinuity, FLAG_DISCONTINUITY);
        varint::put(flags, out);
        varint::put(self.total, out);
        out.extend_from_slice(&self.payload);
    }
}

/// FRAME_MORE: continues the frame that is open on this track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameMore {
    /// The track.
    pub track: u32,
    /// The next octets.
    pub payload: Bytes,
}

impl FrameMore {
    /// The number of the kind.
    pub const NUMBER: u64 = 0x25;
}

impl Body for FrameMore {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { track: reader.integer32("FRAME_MORE track")?, payload: reader.rest() })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(u64::from(self.track), out);
        out.extend_from_slice(&self.payload);
    }
}

/// FRAME_ABORT: the open frame of this track is taken back; a SKIP over its number follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameAbort {
    /// The track.
    pub track: u32,
    /// The open frame.
    pub sequence: u64,
}

impl Body for FrameAbort {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { track: reader.integer32("FRAME_ABORT track")?, sequence: reader.integer("FRAME_ABORT sequence")? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(u64::from(self.track), out);
        varint::put(self.sequence, out);
    }
}

/// Why frames will never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The agent's journal was full, and older frames had to go.
    OverBudget,
    /// The frame is larger than the agent or the server takes; video goes on with a key frame.
    TooLarge,
    /// They were too late to be live; decoding goes on with a key frame.
    Late,
    /// They were too late to be live, and no other frame refers to them: decoding goes on.
    Disposable,
    /// The agent's flash did not give the frames back.
    Corrupt,
    /// On a lane: they were sent as live frames and stored, or told as lost there. Nothing more is lost.
    Live,
    /// The agent's journal was full: of older groups of pictures only the key frames were kept.
    Thinned,
    /// The agent did not take the frames from their encoder: the time of one went back, and others may refer to it. Video goes on with a key frame.
    Refused,
    /// A reason that this version does not know.
    Other(u64),
}

impl SkipReason {
    /// The reason behind a number on the wire.
    pub const fn from_number(number: u64) -> Self {
        match number {
            1 => SkipReason::OverBudget,
            2 => SkipReason::TooLarge,
            3 => SkipReason::Late,
            4 => SkipReason::Disposable,
            5 => SkipReason::Corrupt,
            6 => SkipReason::Live,
            7 => SkipReason::Thinned,
            8 => SkipReason::Refused,
            other => SkipReason::Other(other),
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u64 {
        match self {
            SkipReason::OverBudget => 1,
            SkipReason::TooLarge => 2,
            SkipReason::Late => 3,
            SkipReason::Disposable => 4,
            SkipReason::Corrupt => 5,
            SkipReason::Live => 6,
            SkipReason::Thinned => 7,
            SkipReason::Refused => 8,
            SkipReason::Other(number) => number,
        }
    }

    /// The name in logs, events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            SkipReason::OverBudget => "over_budget",
            SkipReason::TooLarge => "too_large",
            SkipReason::Late => "late",
            SkipReason::Disposable => "disposable",
            SkipReason::Corrupt => "corrupt",
            SkipReason::Live => "live",
            SkipReason::Thinned => "thinned",
            SkipReason::Refused => "refused",
            SkipReason::Other(_) => "other",
        }
    }
}

/// SKIP: the frames `first..=last` of a track will never come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The track.
    pub track: u32,
    /// The first missing frame.
    pub first: u64,
    /// The last missing frame.
    pub last: u64,
    /// Why.
    pub reason: SkipReason,
}

impl Body for Skip {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let track = reader.integer32("SKIP track")?;
        let first = reader.integer("SKIP first")?;
        let last = reader.integer("SKIP last")?;
        let reason = SkipReason::from_number(reader.integer("SKIP reason")?);
        if last < first {
            return Err(violation("SKIP last", "not less than first", format!("{last} < {first}")));
        }
        Ok(Self { track, first, last, reason })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(u64::from(self.track), out);
        varint::put(self.first, out);
        varint::put(self.last, out);
        varint::put(self.reason.number(), out);
    }
}

/// MACK: all frames of this epoch of the track with a number below `received` have arrived or were skipped, and those below
/// `persisted` are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mack {
    /// The track.
    pub track: u32,
    /// The epoch that the number counts in.
    pub epoch: u64,
    /// The first number that has not arrived.
    pub received: u64,
    /// The first number that is not stored where it survives the server's power; 0 when nothing of the track is recorded.
    pub persisted: u64,
}

impl Body for Mack {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            track: reader.integer32("MACK track")?,
            epoch: reader.integer("MACK epoch")?,
            received: reader.integer("MACK received")?,
            persisted: reader.integer("MACK persisted")?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(u64::from(self.track), out);
        varint::put(self.epoch, out);
        varint::put(self.received, out);
        varint::put(self.persisted, out);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Frame, *};

    #[test]
    fn every_kind_comes_back() {
        let head = FrameHead {
            pts_us: -40,
            dts_us: -80,
            arrival_us: 123_456_789,
            key: true,
            disposable: false,
            discontinuity: true,
        };
        let frames = [
            Frame::Frame(FrameStart { track: 1, sequence: 9, head, total: 5, payload: Bytes::from_static(b"ab") }),
            Frame::FrameMore(FrameMore { track: 1, payload: Bytes::from_static(b"cde") }),
            Frame::FrameAbort(FrameAbort { track: 1, sequence: 9 }),
            Frame::Skip(Skip { track: 1, first: 9, last: 12, reason: SkipReason::Other(77) }),
            Frame::Mack(Mack { track: 1, epoch: 4, received: 13, persisted: 9 }),
        ];
        for frame in frames {
            let mut body = Vec::new();
            frame.write_body(&mut body);
            let read = Frame::read_body(frame.number(), &mut Reader::new(body.into())).unwrap().unwrap();
            assert_eq!(read, frame);
        }
    }

    #[test]
    fn a_frame_longer_than_it_says_is_refused() {
        let start = FrameStart {
            track: 1,
            sequence: 0,
            head: FrameHead::default(),
            total: 1,
            payload: Bytes::from_static(b"ab"),
        };
        let mut body = Vec::new();
        start.write(&mut body);
        assert!(matches!(
            FrameStart::read(&mut Reader::new(body.into())),
            Err(Error::Violation { place: "FRAME payload", .. })
        ));
    }
}

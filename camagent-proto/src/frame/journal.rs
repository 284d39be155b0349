//! JOURNAL and EPOCH_END: what waits in an agent's persistent journal, also of its former runs.

use alloc::{format, vec::Vec};

use bytes::Bytes;

use super::{Body, Reader, TrackInfo, read::violation};
use crate::{error::Error, varint};

/// The first number of a lane; smaller ones are tracks.
pub const FIRST_LANE: u32 = 65_536;

/// JOURNAL: opens a lane, on which the frames of one epoch of any run of the agent follow, or says that an open one has more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The lane: in the frames that follow it stands where the track's number stands.
    pub lane: u32,
    /// The run of the agent: its boot id.
    pub boot: [u8; 16],
    /// The number behind the last frame that the journal has or had.
    pub end: u64,
    /// The run's boot-time clock in microseconds when the time of day was known …
    pub clock_us: u64,
    /// … and UTC then, in microseconds since 1970; 0 when that run never knew it.
    pub utc_us: u64,
    /// Track and epoch; `next` is the first number that the lane is about.
    pub info: TrackInfo,
}

impl Journal {
    /// Its kind.
    pub const NUMBER: u64 = 0x2d;
}

impl Body for Journal {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        let lane = reader.integer32("JOURNAL lane")?;
        let boot: Bytes = reader.octets(16, "JOURNAL boot")?;
        let Ok(boot) = <[u8; 16]>::try_from(&boot[..]) else {
            return Err(violation("JOURNAL boot", "16 octets", format!("{}", boot.len())));
        };
        let (end, clock_us, utc_us) =
            (reader.integer("JOURNAL end")?, reader.integer("JOURNAL clock")?, reader.integer("JOURNAL UTC")?);
        let info = TrackInfo::read(reader)?;
        if lane < FIRST_LANE || end < info.next {
            return Err(violation(
                "JOURNAL",
                "a lane from 65536 on, and an end not below next",
                format!("{lane}, {end}"),
            ));
        }
        Ok(Self { lane, boot, end, clock_us, utc_us, info })
    }

    fn write(&self, out: &mut Vec<u8>) {
        varint::put(u64::from(self.lane), out);
        varint::put(16, out);
        out.extend_from_slice(&self.boot);
        for value in [self.end, self.clock_us, self.utc_us] {
            varint::put(value, out);
        }
        self.info.write(out);
    }
}

/// Why nothing comes behind an epoch's last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The agent was stopped, or left the epoch, as planned.
    Stopped,
    /// The run ended without a word: what was not on its card yet is gone.
    PowerCut,
    /// A reason that this version does not know.
    Other(u64),
}

impl EndReason {
    /// The reason behind a number on the wire.
    pub const fn from_number(number: u64) -> Self {
        match number {
            1 => EndReason::Stopped,
            2 => EndReason::PowerCut,
            other => EndReason::Other(other),
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> u64 {
        match self {
            EndReason::Stopped => 1,
            EndReason::PowerCut => 2,
            EndReason::Other(number) => number,
        }
    }

    /// The name in logs, events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            EndReason::Stopped => "stopped",
            EndReason::PowerCut => "power_cut",
            EndReason::Other(_) => "other",
        }
    }
}

/// EPOCH_END: the epoch of a lane is over; numbers from `next` on never come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The lane.
    pub lane: u32,
    /// The number behind the last frame.
    pub next: u64,
    /// Why.
    pub cause: EndReason,
}

impl Body for EpochEnd {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self {
            lane: reader.integer32("EPOCH_END lane")?,
            next: reader.integer("EPOCH_END next")?,
            cause: EndReason::from_number(reader.integer("EPOCH_END cause")?),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        for value in [u64::from(self.lane), self.next, self.cause.number()] {
            varint::put(value, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Frame, *};

    fn journal() -> Journal {
        let info = TrackInfo {
            track: 3,
            epoch: 2,
            next: 70,
            camera: "gate".into(),
            source: "main".into(),
            codec: 2,
            framing: 1,
            sample_rate: 0,
            channels: 0,
            config: Bytes::new(),
        };
        Journal { lane: FIRST_LANE, boot: [7; 16], end: 90, clock_us: 5, utc_us: 1_700_000_000_000_000, info }
    }

    #[test]
    fn both_kinds_come_back() {
        for frame in [
            Frame::Journal(journal()),
            Frame::EpochEnd(EpochEnd { lane: FIRST_LANE + 1, next: 9, cause: EndReason::PowerCut }),
        ] {
            let mut body = Vec::new();
            frame.write_body(&mut body);
            assert_eq!(Frame::read_body(frame.number(), &mut Reader::new(body.into())).unwrap().unwrap(), frame);
        }
    }

    #[test]
    fn a_lane_among_the_tracks_and_an_end_before_the_beginning_are_refused() {
        for wrong in [Journal { lane: 127, ..journal() }, Journal { end: 69, ..journal() }] {
            let mut body = Vec::new();
            wrong.write(&mut body);
            assert!(matches!(
                Journal::read(&mut Reader::new(body.into())),
                Err(Error::Violation { place: "JOURNAL", .. })
            ));
        }
    }
}

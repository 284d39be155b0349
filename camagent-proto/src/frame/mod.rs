//! Binary frames, and the records that carry them: tunnels and media on the wire.
//!
//! One binary WebSocket message is one record; a record holds whole frames, each `type varint, length varint, body`. One row of
//! the table below is one kind of frame: its number, its name, its body. Even-numbered kinds that a peer does not know are
//! skipped, odd ones close the session. Octets after the last field that a peer knows are ignored, so a body may grow.
//!
//! Reserved for later versions: 0x15-0x1f tunnels.
//! What does not belong here: what a frame means to a session (`mux`, `transfer`), JSON messages (`message`).

mod arrived;
mod journal;
mod media;
mod read;
mod record;
mod track;
mod tunnel;

pub use arrived::Arrived;
pub use journal::{EndReason, EpochEnd, FIRST_LANE, Journal};
pub use media::{FrameAbort, FrameHead, FrameMore, FrameStart, Mack, Skip, SkipReason};
pub use read::Reader;
pub use record::{MAX_FRAMES, MAX_RECORD, MIN_RECORD, RecordReader, RecordWriter, Space};
pub use track::{MAX_CONFIG, MAX_NAME, TrackInfo};
pub use tunnel::{
    Data, MAX_DETAIL, MaxData, MaxStreamData, MaxStreams, Open, OpenOutcome, OpenResult, ResetStream, ReturnStreamData,
    StopSending, StreamError, Tack,
};

use alloc::vec::Vec;

use crate::{error::Error, varint};

/// A body that can be read and written.
pub trait Body: Sized {
    /// Reads the body; what follows the last known field is ignored.
    fn read(reader: &mut Reader) -> Result<Self, Error>;
    /// Appends the body.
    fn write(&self, out: &mut Vec<u8>);
}

/// Appends text behind its length.
fn put_text(text: &str, out: &mut Vec<u8>) {
    varint::put(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

macro_rules! frames {
    ($($(#[doc = $doc:literal])+ $number:literal $kind:ident($body:ty),)+) => {
        /// One binary frame.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Frame {
            $($(#[doc = $doc])+ $kind($body),)+
        }

        impl Frame {
            /// Number and name of every kind, in the order of the numbers.
            pub const KINDS: &'static [(u64, &'static str)] = &[$(($number, stringify!($kind)),)+];

            /// The number on the wire.
            pub const fn number(&self) -> u64 {
                match self { $(Frame::$kind(_) => $number,)+ }
            }

            /// Appends the body, without type and length.
            pub fn write_body(&self, out: &mut Vec<u8>) {
                match self { $(Frame::$kind(body) => body.write(out),)+ }
            }

            /// Reads the body of a frame of kind `number`; `None` when the kind is unknown.
            fn read_body(number: u64, reader: &mut Reader) -> Option<Result<Frame, Error>> {
                match number {
                    $($number => Some(<$body as Body>::read(reader).map(Frame::$kind)),)+
                    _ => None,
                }
            }
        }
    };
}

frames! {
    /// A visitor wants to a service of a camera.
    0x01 Open(Open),
    /// What came of an OPEN.
    0x03 OpenResult(OpenResult),
    /// The next octets of one direction of a stream.
    0x05 Data(Data),
    /// The sender gives a direction up.
    0x07 ResetStream(ResetStream),
    /// The receiver wants nothing more of a direction.
    0x09 StopSending(StopSending),
    /// Credit for all streams together.
    0x0b MaxData(MaxData),
    /// Credit for one direction of a stream.
    0x0d MaxStreamData(MaxStreamData),
    /// Credit for opening streams.
    0x0f MaxStreams(MaxStreams),
    /// Tunnel acknowledgement: what the peer need not keep any longer.
    0x11 Tack(Tack),
    /// The sender of a direction gives credit back.
    0x13 ReturnStreamData(ReturnStreamData),
    /// Announces a track, or a new epoch of it; repeated after every reconnect, before the track's first frame.
    0x21 Track(TrackInfo),
    /// Begins a coded picture or audio unit, and carries it whole when it fits.
    0x23 Frame(FrameStart),
    /// Continues the frame that a FRAME of this track began.
    0x25 FrameMore(FrameMore),
    /// Takes back a frame that was begun and can no longer be finished.
    0x27 FrameAbort(FrameAbort),
    /// A hole that explains itself: these frames will never come.
    0x29 Skip(Skip),
    /// Media acknowledgement: what the server has received.
    0x2b Mack(Mack),
    /// Opens a lane for frames of the past: what waits in the agent's persistent journal.
    0x2d Journal(Journal),
    /// The epoch of a lane is over.
    0x2f EpochEnd(EpochEnd),
    /// What has reached the server, whatever waits in between.
    0x32 Arrived(Arrived),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_order_and_odd_but_for_what_may_be_skipped() {
        assert!(Frame::KINDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(Frame::KINDS.iter().all(|(number, name)| (number % 2 == 0) == (*name == "Arrived")));
    }
}

//! Tunnels: many TCP connections as streams of one session, with the words of RFC 9000 sections 2 to 4.
//!
//! The server opens a stream by the names of a camera and a service; the agent looks into its own configuration at each OPEN, connects, and
//! answers. Octets go both ways within credit; each direction ends by FIN, or by RESET_STREAM and STOP_SENDING.
//!
//! [`Mux`] is one end, as a value. It never holds what it sends: octets are read from the local side ([`Streams`]) only when the transport takes
//! a record, straight into that record. What it receives waits in it, within the window that it granted, until the local side takes it.
//! What does not belong here: sockets, names and who may go where (the drivers), what goes first in a record (`session`).

mod credit;
mod fill;
mod kept;
mod multiplexer;
mod pace;
mod receive;
mod resume;
mod stream;
mod waiting;

pub use multiplexer::{Mux, NotOpened, Tolerance};
pub(crate) use pace::Pace;
pub use resume::MIN_RESUME_BYTES;

use alloc::string::String;

use crate::frame::{OpenOutcome, Space, StreamError};

/// The local sides of the streams, as the driver has them.
pub trait Streams {
    /// Reads what the local side of `stream` has, at most as much as `into` holds, without waiting. The peer takes `credit` octets of the stream,
    /// these included: whoever reads ahead for the next records and stays within it keeps nothing that cannot leave.
    fn read(&mut self, stream: u64, into: &mut Space<'_>, credit: usize) -> Read;
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many octets, at least one; none count as [`Read::Pending`].
    Octets(usize),
    /// Nothing now.
    Pending,
    /// The local side will send nothing more. It is not asked again.
    End,
    /// The local side broke: the stream is given up as by [`Mux::abandon`]. It is not asked again.
    Broken,
}

/// No streams: for ends without tunnels.
#[derive(Clone, Copy, Debug)]
pub struct NoStreams;

impl Streams for NoStreams {
    fn read(&mut self, _: u64, _: &mut Space<'_>, _: usize) -> Read {
        Read::Pending
    }
}

/// What a mux tells its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A visitor wants in: answer with [`Mux::answer`]. What it sends meanwhile waits.
    Open {
        /// The stream.
        stream: u64,
        /// The camera's id, as the peer says.
        camera: String,
        /// The service's name, as the peer says.
        service: String,
        /// Who comes.
        visitor: String,
    },
    /// The service was reached.
    Connected(u64),
    /// The service was not reached; the stream is over, and there will be no [`StreamEvent::Closed`].
    Refused {
        /// The stream.
        stream: u64,
        /// Why.
        outcome: OpenOutcome,
        /// In words.
        detail: String,
    },
    /// There are octets, or the end of them: see [`Mux::received`] and [`Mux::is_ended`]. What came before the service was connected is told
    /// by [`Mux::answer`].
    Received(u64),
    /// The peer has given its direction up: the connection behind it broke. What waited is dropped; end the local side,
    /// and call [`Mux::abandon`].
    Broken(u64, StreamError),
    /// The peer takes nothing more; what this end still wanted to send is given up. What the peer sends goes on.
    Stopped(u64, StreamError),
    /// Both directions are over; the mux has forgotten the stream.
    Closed(u64),
}

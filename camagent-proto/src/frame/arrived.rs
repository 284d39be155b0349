//! ARRIVED: what reached the server, for the agent's governor.
//!
//! What follows from it does not belong here: `governor`.

use alloc::vec::Vec;

use super::{Body, Reader};
use crate::{error::Error, varint};

/// ARRIVED: how much the server has read. It may be passed over: without it the agent knows its queue as far as its kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Octets of all records of this session that were read so far.
    pub octets: u64,
    /// When the last of them was read, in milliseconds of a clock of the server whose zero does not matter.
    pub at_ms: u64,
}

impl Body for Arrived {
    fn read(reader: &mut Reader) -> Result<Self, Error> {
        Ok(Self { octets: reader.integer("ARRIVED octets")?, at_ms: reader.integer("ARRIVED at_ms")? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        for value in [self.octets, self.at_ms] {
            varint::put(value, out);
        }
    }
}

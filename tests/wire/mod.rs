//! What the promise about the wire needs: the tables of the specification, the samples in a form that can be compared, and the two
//! parts that are played: limits and sessions.

mod limits;
pub(crate) mod pages;
pub(crate) mod samples;
mod sessions;

//! Both ends of camagent on a simulated clock, link and disk, and a checker that reads the log: `cargo xtask chaos`.
//!
//! The ends are the real ones: session, sender, receiver, intake, journal in memory and on flash, recorder. The world around them is simulated and follows from a seed, so that a
//! run can be had again, exactly. The checker shares no code with the ends.
//!
//! * [`chance`], [`log`] numbers from a seed; what happened, as data
//! * [`checker`] reads the log and says which promise did not hold
//! * [`plan`], [`planted`] what a run is made of; bugs that are planted on purpose
//! * [`link`], [`card`], [`camera`] a connection that breaks at any octet, a disk that loses its power, frames whose octets tell who they are
//! * [`store`] where the server keeps frames: the real recorder
//! * [`agent`], [`server`], [`world`] the two ends, and everything around them
//! * [`real`] the same promises with real processes and links
//! * [`shrink`], [`campaign`] a smaller run that fails too; many runs, and their sum

pub mod agent;
pub mod camera;
pub mod campaign;
pub mod card;
pub mod chance;
pub mod checker;
pub mod link;
pub mod log;
pub mod plan;
pub mod planted;
pub mod real;
pub mod server;
pub mod shrink;
pub mod store;
pub mod world;

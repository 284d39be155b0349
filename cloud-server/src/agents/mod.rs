//! Who is connected: one entry for each agent that was seen, its newest connection, what it said about itself, commands
//! that wait for an answer, and how far its tracks were received. The gateway writes here, the API reads.

mod ledger;
mod registry;
mod visit;

pub use ledger::{Ledger, Turn};
pub use registry::{AgentStatus, Agents, CommandFailure, Joining, Membership, Order};
pub use visit::{Farewell, NotVisited, Socket, Visit};

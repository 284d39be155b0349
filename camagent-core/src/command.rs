//! What the server may ask of the host.

pub use camagent_proto::session::CommandToken;

/// A command that waits for the host's answer. One that nobody answers in time is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Names it in the answer.
    pub token: CommandToken,
    /// The camera that it is for; `None` for the agent itself.
    pub camera: Option<String>,
    /// What to do.
    pub action: String,
    /// Details as JSON text, `null` when there are none.
    pub args: String,
}

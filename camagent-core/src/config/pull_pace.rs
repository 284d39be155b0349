//! The pace at which cameras are asked for their streams. No keys of the file: the values suit every camera, others are for tests.

use std::time::Duration;

/// How patient the agent is with cameras that it fetches streams from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullPace {
    /// The pause after the first failure. Default 1 s.
    pub first: Duration,
    /// The longest pause; each failure doubles the one before. Default 30 s.
    pub longest: Duration,
    /// The pause while the camera refuses the password: many lock an account after a few wrong ones. Default 60 s.
    pub refused: Duration,
    /// What one request may take, and how long a camera that plays may send no frame. Default 10 s.
    pub silence: Duration,
    /// How long a source on demand is still fetched without a server, for the journal to carry over a short outage. Default 30 s.
    pub without_server: Duration,
}

impl Default for PullPace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
            refused: Duration::from_secs(60),
            silence: Duration::from_secs(10),
            without_server: Duration::from_secs(30),
        }
    }
}

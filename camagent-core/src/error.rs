//! What can go wrong in the agent, sorted by who can act.

use std::io;

/// Why a call failed, or a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // The host program can act.
    /// A value of the configuration is wrong.
    #[error("configuration: {key} is {value}, allowed is {allowed}")]
    Config {
        /// Dotted path of the key, for example `network.reconnect_interval`.
        key: String,
        /// What stands there; secrets are masked.
        value: String,
        /// What may stand there.
        allowed: String,
    },
    /// The configuration is not readable at all.
    #[error("configuration: {0}")]
    ConfigText(String),
    /// The call does not fit the agent's state or its own arguments.
    #[error("{0}")]
    Usage(String),
    /// No track has this number.
    #[error("no track {0}: add it first")]
    NoTrack(u32),
    /// No command waits for this answer.
    #[error("no such command, or it was answered before")]
    NoCommand,
    /// The frame is before the last one of its track.
    #[error(
        "track {track}: decoding time went back by {back_us} us; push frames in order, or flag a discontinuity if the camera's clock jumped"
    )]
    OutOfOrder {
        /// The track.
        track: u32,
        /// By how much.
        back_us: u64,
    },
    /// The frame can never be held.
    #[error("track {track}: a frame of {length} bytes does not fit, at most {allowed} bytes do ({limit})")]
    FrameTooLarge {
        /// The track.
        track: u32,
        /// The frame's size.
        length: usize,
        /// The largest size that fits.
        allowed: usize,
        /// Which limit that is.
        limit: &'static str,
    },
    /// The agent's thread is busy and cannot take more; try again later.
    #[error("too many calls wait for the agent's thread: try again later")]
    Busy,
    /// The agent was stopped.
    #[error("the agent is stopped")]
    Stopped,
    /// The call would wait for the thread that makes it.
    #[error("not allowed on the agent's own thread, that is, from a callback")]
    OwnThread,

    // The machine's operator can act.
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Its words.
        source: io::Error,
    },
    /// Certificates or keys are not usable.
    #[error("TLS: {0}")]
    Tls(String),

    // The network or the server's operator can act.
    /// The server could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The server answered the WebSocket handshake with an HTTP error.
    #[error("the server refused the connection: HTTP {status}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    Http {
        /// The status code.
        status: u16,
        /// The server's words.
        detail: String,
        /// What the server asked for in `Retry-After`, in seconds.
        retry_after_s: Option<u64>,
    },
    /// The proxy did not make a way to the server.
    #[error("proxy {proxy}: HTTP {status}: {}", advice_of_proxy(*status, server))]
    Proxy {
        /// Where the proxy is; its account is not shown.
        proxy: String,
        /// Where it was to lead.
        server: String,
        /// The status code.
        status: u16,
        /// What the proxy asked for in `Retry-After`, in seconds.
        retry_after_s: Option<u64>,
    },
    /// The agent itself left a connection for a better one.
    #[error("moving: {0}")]
    Moved(String),
    /// The session ended.
    #[error("{0}")]
    Session(#[from] camagent_proto::Error),

    // We can act.
    /// A bug in the agent: its thread has ended. Stop it and start again.
    #[error("the agent's thread has ended because of a bug: {0}")]
    Fault(String),
}

/// What a proxy's refusal means.
fn advice_of_proxy(status: u16, server: &str) -> String {
    match status {
        // Some, tinyproxy for one, answer a wrong password with the server's number.
        401 | 407 => {
            "it wants a user and password, or others: network.proxy has them as http://USER:PASSWORD@HOST:PORT".into()
        }
        403 | 405 => format!("it does not allow connections to {server}: who runs it can; many allow port 443 only"),
        502..=504 => format!("it cannot reach {server}"),
        _ => format!("it made no way to {server}"),
    }
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

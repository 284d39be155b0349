//! A second connection beside the present one: dialled, encrypted and upgraded, so that it can take over in one round trip, or be dropped if the
//! present one comes alive. It does not register before: the newest registered connection wins at the server.

use std::task::{Context, Poll};

use camagent_proto::Error as ProtocolError;

use crate::{
    error::Error,
    net::{Connection, Dial, Incoming},
};

/// Pings that are answered at once: more of them come from nobody who means it.
const PINGS: usize = 32;

/// What a second connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The present one may be dead.
    Suspicion,
    /// The machine is in another network, or may be.
    Network,
    /// The kernel would take another way than the present one does.
    Moved,
    /// The present one leads to another server than the first.
    Return,
}

enum State {
    Dialling(Dial),
    Ready(Box<Connection>),
}

/// A connection that is not needed yet.
pub(super) struct Second {
    /// The server's place in the configuration.
    pub(super) server: usize,
    pub(super) why: Why,
    state: State,
}

impl Second {
    pub(super) fn new(server: usize, why: Why, dial: Dial) -> Self {
        Self { server, why, state: State::Dialling(dial) }
    }

    /// Whether it can take over.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Goes on with the dial; an error when it has failed, or when the server has thought better of it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if let State::Dialling(dial) = &mut self.state
            && let Poll::Ready(dialled) = dial.as_mut().poll(cx)
        {
            self.state = State::Ready(Box::new(dialled?));
        }
        let State::Ready(connection) = &mut self.state else { return Ok(()) };
        // Before it registers a server says nothing but that it will not have it.
        for _ in 0..PINGS {
            return match connection.poll_receive(cx) {
                Poll::Pending => Ok(()),
                Poll::Ready(Incoming::Ping) => continue,
                Poll::Ready(Incoming::Closed(code, detail)) => {
                    Err(Error::Session(ProtocolError::ClosedByPeer { code, detail }))
                }
                Poll::Ready(Incoming::Text(_) | Incoming::Binary(_)) => {
                    Err(Error::Unreachable("the server ends the second connection".into()))
                }
            };
        }
        Err(Error::Unreachable(format!("the server sends more than {PINGS} pings at once")))
    }

    /// The connection, or the dial that goes on.
    pub(super) fn into_dial(self) -> Dial {
        match self.state {
            State::Dialling(dial) => dial,
            State::Ready(connection) => Box::pin(std::future::ready(Ok(*connection))),
        }
    }
}

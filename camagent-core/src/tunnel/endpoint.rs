//! One TCP connection to a service of a camera.

use std::{
    future::Future,
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use camagent_proto::{
    Instant,
    frame::{OpenOutcome, StreamError},
    mux::Mux,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use super::{CONNECT_WITHIN, STALLED_AFTER};
use crate::{config::ServiceConfig, resolve::Resolver};

/// After so long without a word the kernel asks whether the service is still there.
const ALIVE_AFTER: Duration = Duration::from_secs(60);
/// A read of so many octets shows that the service sends faster than record by record.
const WHOLE_READ: usize = 8 << 10;
/// Chunks that are passed on in one call.
const CHUNKS: usize = 16;

/// How an endpoint goes on.
pub(super) enum Progress {
    Goes,
    Unreachable(String),
    Over(StreamError),
}

enum Side {
    Connecting(Pin<Box<dyn Future<Output = Result<TcpStream, String>> + Send>>),
    Connected(TcpStream),
}

pub(super) struct Endpoint {
    stream: u64,
    camera: String,
    /// Camera, service and visitor, for people.
    names: String,
    side: Side,
    /// Nothing more will be written.
    is_shut: bool,
    /// A write has failed: nothing more is written, what the service has said before is still read.
    takes_nothing: bool,
    /// Since when nothing moved, while something should: octets wait for the service, or one direction has ended.
    stuck_since: Option<Instant>,
    /// The last read filled what it was given.
    has_more: bool,
}

impl Endpoint {
    pub(super) fn connect(
        stream: u64,
        camera: String,
        names: String,
        target: &ServiceConfig,
        addresses: &Resolver,
    ) -> Self {
        let (host, port, addresses) = (target.host.clone(), target.port, addresses.clone());
        let connect = async move {
            match timeout(CONNECT_WITHIN, addresses.connect(&host, port)).await {
                Ok(Ok(socket)) => Ok(socket),
                Ok(Err(error)) => Err(format!("{host}:{port}: {error}")),
                Err(_) => Err(format!("{host}:{port}: no connection within {} s", CONNECT_WITHIN.as_secs())),
            }
        };
        Self {
            stream,
            camera,
            names,
            side: Side::Connecting(Box::pin(connect)),
            is_shut: false,
            takes_nothing: false,
            stuck_since: None,
            has_more: false,
        }
    }

    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    pub(super) fn camera(&self) -> &str {
        &self.camera
    }

    pub(super) fn names(&self) -> &str {
        &self.names
    }

    /// Time begins anew for a service that is stuck.
    pub(super) fn resumed(&mut self) {
        self.stuck_since = None;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stuck_since.map(|since| since + STALLED_AFTER)
    }

    pub(super) fn turn(&mut self, cx: &mut Context<'_>, mux: &mut Mux, now: Instant) -> Progress {
        if let Side::Connecting(connecting) = &mut self.side {
            match connecting.as_mut().poll(cx) {
                Poll::Pending => return Progress::Goes,
                Poll::Ready(Err(why)) => return Progress::Unreachable(why),
                Poll::Ready(Ok(socket)) => {
                    // What a camera or its visitor says is passed on as it comes.
                    let _ = socket.set_nodelay(true);
                    // A service whose host has vanished is noticed although nobody says anything.
                    let alive = TcpKeepalive::new().with_time(ALIVE_AFTER).with_interval(ALIVE_AFTER / 4);
                    let _ = SockRef::from(&socket).set_tcp_keepalive(&alive);
                    self.side = Side::Connected(socket);
                    mux.answer(self.stream, OpenOutcome::Connected, "");
                }
            }
        }
        let Side::Connected(socket) = &mut self.side else { return Progress::Goes };
        let waits = loop {
            let mut slices = [IoSlice::new(&[]); CHUNKS];
            let mut count = 0;
            for (slice, octets) in slices.iter_mut().zip(mux.received(self.stream)) {
                *slice = IoSlice::new(octets);
                count += 1;
            }
            if count == 0 {
                break false;
            }
            match Pin::new(&mut *socket).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => break true,
                Poll::Ready(Ok(0) | Err(_)) => {
                    // A service that answers and closes while its visitor still sends has said something worth reading.
                    self.takes_nothing = true;
                    mux.stop(self.stream, StreamError::Broken);
                    break false;
                }
                Poll::Ready(Ok(written)) => {
                    self.stuck_since = None;
                    mux.consumed(self.stream, written);
                }
            }
        };
        if !self.is_shut && !self.takes_nothing && mux.is_ended(self.stream) {
            // A socket that is gone says so when it is read.
            let _ = Pin::new(socket).poll_shutdown(cx);
            self.is_shut = true;
        }
        let is_half = self.is_shut || self.takes_nothing || mux.has_ended_sending(self.stream);
        if !waits && !is_half {
            self.stuck_since = None;
            return Progress::Goes;
        }
        let since = *self.stuck_since.get_or_insert(now);
        if now.saturating_since(since) < STALLED_AFTER {
            return Progress::Goes;
        }
        Progress::Over(StreamError::Stalled)
    }

    /// Ends the connection so that the service sees that it broke.
    pub(super) fn reset(self) {
        if let Side::Connected(socket) = self.side {
            // Without it the service would see a whole end.
            let _ = socket.set_zero_linger();
        }
    }

    /// Whether there is probably more than one record to read.
    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8], now: Instant) -> Poll<io::Result<usize>> {
        let Side::Connected(socket) = &mut self.side else { return Poll::Pending };
        let mut buffer = ReadBuf::new(into);
        let read = Pin::new(socket).poll_read(cx, &mut buffer);
        let (count, room) = (buffer.filled().len(), buffer.capacity());
        self.has_read(count, room, now);
        read.map_ok(|()| count)
    }

    /// The same, in several pieces.
    pub(super) fn poll_read_vectored(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [IoSliceMut<'_>],
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let Side::Connected(socket) = &mut self.side else { return Poll::Pending };
        let read = loop {
            ready!(socket.poll_read_ready(cx))?;
            match socket.try_read_vectored(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => break read?,
            }
        };
        self.has_read(read, into.iter().map(|piece| piece.len()).sum(), now);
        Poll::Ready(Ok(read))
    }

    fn has_read(&mut self, count: usize, room: usize, now: Instant) {
        // A piece for the rest of a record says nothing.
        if room >= WHOLE_READ {
            self.has_more = count >= WHOLE_READ;
        }
        if count > 0 && self.stuck_since.is_some() {
            self.stuck_since = Some(now);
        }
    }
}

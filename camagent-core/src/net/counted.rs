//! A socket that counts its octets.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Octets of one socket, or of all since the agent started.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: Cell<u64>,
    pub(crate) received: Cell<u64>,
}

#[derive(Debug)]
pub(super) struct Counted {
    socket: TcpStream,
    traffic: Rc<Traffic>,
    own: Rc<Traffic>,
}

impl Counted {
    /// `own` counts this socket, `traffic` all of them.
    pub(super) fn new(socket: TcpStream, traffic: Rc<Traffic>, own: Rc<Traffic>) -> Self {
        Self { socket, traffic, own }
    }

    fn wrote(&self, octets: usize) {
        for traffic in [&self.traffic, &self.own] {
            traffic.sent.set(traffic.sent.get() + octets as u64);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let octets = (buf.filled().len() - before) as u64;
        for traffic in [&self.traffic, &self.own] {
            traffic.received.set(traffic.received.get() + octets);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, buf))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, bufs))?;
        self.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

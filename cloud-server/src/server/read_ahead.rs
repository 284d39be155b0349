//! Reads an agent's socket in large pieces while it sends much. TLS alone asks for one record at a time, and each system call costs about as
//! much as the decryption of a record.
//!
//! A quiet connection has no buffer: thousands of idle agents cost nothing.

use std::future::Ready;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is read at once.
const PIECE: usize = 128 << 10;
/// So many reads in a row that filled what they were given tell that more is there.
const FULL_READS: u32 = 4;
/// So many pieces in a row that were short tell that the rush is over.
const SHORT_PIECES: u32 = 16;
/// A read of less is short.
const SHORT: usize = 16 << 10;

/// Accepts a connection: TCP_NODELAY, and reading ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadAheadAcceptor;

impl<S> Accept<TcpStream, S> for ReadAheadAcceptor {
    type Stream = ReadAhead<TcpStream>;
    type Service = S;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        std::future::ready(socket.set_nodelay(true).and(Ok((ReadAhead::new(socket), service))))
    }
}

/// A socket that is read ahead while that pays.
#[derive(Debug)]
pub(super) struct ReadAhead<T> {
    socket: T,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
    full_reads: u32,
    short_pieces: u32,
}

impl<T> ReadAhead<T> {
    fn new(socket: T) -> Self {
        Self { socket, buffer: Vec::new(), from: 0, to: 0, full_reads: 0, short_pieces: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.from == this.to {
            if this.full_reads < FULL_READS {
                let (room, before) = (into.remaining(), into.filled().len());
                ready!(Pin::new(&mut this.socket).poll_read(cx, into))?;
                let is_full = into.filled().len() - before == room && room >= SHORT / 4;
                this.full_reads = if is_full { this.full_reads + 1 } else { 0 };
                return Poll::Ready(Ok(()));
            }
            if this.short_pieces >= SHORT_PIECES {
                (this.full_reads, this.short_pieces) = (0, 0);
                this.buffer = Vec::new();
                return Pin::new(this).poll_read(cx, into);
            }
            this.buffer.resize(PIECE, 0);
            let mut piece = ReadBuf::new(&mut this.buffer);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut piece))?;
            (this.from, this.to) = (0, piece.filled().len());
            this.short_pieces = if this.to < SHORT { this.short_pieces + 1 } else { 0 };
        }
        let count = into.remaining().min(this.to - this.from);
        into.put_slice(&this.buffer[this.from..this.from + count]);
        this.from += count;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn octets_pass_whole_through_a_rush_and_the_buffer_goes_after_it() {
        let (mut near, far) = duplex(1 << 20);
        let mut socket = ReadAhead::new(far);
        let sent: Vec<u8> = (0..600_000_u32).map(|at| (at % 251) as u8).collect();
        near.write_all(&sent).await.expect("room");
        let mut got = vec![0; 16 << 10];
        let mut all = Vec::new();
        while all.len() < sent.len() {
            let count = socket.read(&mut got).await.expect("octets");
            all.extend_from_slice(&got[..count]);
        }
        assert!(all == sent && socket.buffer.len() == PIECE);
        for _ in 0..=SHORT_PIECES {
            near.write_all(b"quiet").await.expect("room");
            assert_eq!(socket.read(&mut got).await.expect("octets"), 5);
        }
        assert!(socket.buffer.is_empty());
        drop(near);
        assert_eq!(socket.read(&mut got).await.expect("the end"), 0);
    }
}

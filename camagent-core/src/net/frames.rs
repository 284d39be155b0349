//! Puts messages into WebSocket frames (RFC 6455 section 5.2) and writes those of a burst in one call. What the WebSocket library does for each of them,
//! a copy, a pass for the mask, memory of its own and a system call for its key, is much of what a fast tunnel costs the agent; here a frame is copied
//! and masked in one pass, into one buffer for the burst.
//!
//! It stands below that library: what the library itself writes, answers to pings and the close, goes behind the frames that wait here. So whole frames
//! follow each other as long as nothing is pushed while the library is in the middle of a frame, that is, only after it was flushed.
//!
//! What does not belong here: reading, the opening handshake and the closing one (tungstenite).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The last frame of a message.
const FIN: u8 = 0x80;
/// The payload is masked, as all is that a client sends (section 5.3).
const MASK: u8 = 0x80;
/// Octets that are masked as one, a multiple of the key's: the compiler makes a few wide instructions of them.
const WIDE: usize = 64;
/// The longest header of a frame (section 5.2).
const MAX_HEADER: usize = 14;
/// Random octets that are fetched at once, for the keys of the frames to come.
const KEYS: usize = 256;

/// After so many small bursts the next ones are expected to be small.
const SMALL_BURSTS: u8 = 32;

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opcode {
    Text = 1,
    Binary = 2,
}

/// A socket that writes whole frames in front of what is written to it otherwise.
pub(crate) struct Frames<S> {
    socket: S,
    /// The frames of the burst, and behind them what earlier bursts have left: it is cleared once and not for each of them.
    waiting: Vec<u8>,
    /// Octets of the frames, and how many of them have left.
    octets: usize,
    sent: usize,
    /// So many bursts in a row needed little of that memory.
    small: u8,
    keys: [u8; KEYS],
    keys_used: usize,
}

impl<S: AsyncWrite + Unpin> Frames<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, waiting: Vec::new(), octets: 0, sent: 0, small: 0, keys: [0; KEYS], keys_used: KEYS }
    }

    /// Adds a message as one frame, which the next flush writes. An error when there are no random numbers for its mask.
    pub(super) fn push(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), String> {
        let key = self.next_key().map_err(|error| format!("no random numbers: {error}"))?;
        let mut header = [0; MAX_HEADER];
        header[0] = FIN | opcode as u8;
        let length = match payload.len() as u64 {
            octets @ 0..126 => {
                header[1] = MASK | octets as u8;
                2
            }
            octets @ 126..=0xffff => {
                header[1] = MASK | 126;
                header[2..4].copy_from_slice(&(octets as u16).to_be_bytes());
                4
            }
            octets => {
                header[1] = MASK | 127;
                header[2..10].copy_from_slice(&octets.to_be_bytes());
                10
            }
        };
        header[length..length + 4].copy_from_slice(&key);
        let begins = self.octets + length + 4;
        let ends = begins + payload.len();
        if self.waiting.len() < ends {
            // As a vector grows, so that many small frames do not make it grow each time.
            let most = ends.max(2 * self.waiting.len());
            self.waiting.resize(most, 0);
        }
        self.waiting[self.octets..begins].copy_from_slice(&header[..length + 4]);
        mask(payload, &mut self.waiting[begins..ends], key);
        self.octets = ends;
        Ok(())
    }

    /// Nobody can foresee it (section 5.3).
    fn next_key(&mut self) -> Result<[u8; 4], getrandom::Error> {
        if self.keys_used == KEYS {
            getrandom::fill(&mut self.keys)?;
            self.keys_used = 0;
        }
        let (keys, _) = self.keys.as_chunks();
        let key = keys[self.keys_used / 4];
        self.keys_used += 4;
        Ok(key)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.octets {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.waiting[self.sent..self.octets]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        if self.sent > 0 {
            self.rest();
        }
        Poll::Ready(Ok(()))
    }

    /// All has left. The memory of large bursts goes when there are none any more.
    fn rest(&mut self) {
        let is_small = self.octets < self.waiting.len() / 4;
        self.small = if is_small { self.small + 1 } else { 0 };
        if self.small > SMALL_BURSTS {
            (self.waiting, self.small) = (Vec::new(), 0);
        }
        (self.octets, self.sent) = (0, 0);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Frames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Copies a payload and masks it (section 5.3) in one pass.
fn mask(payload: &[u8], into: &mut [u8], key: [u8; 4]) {
    let mut wide = [0; WIDE];
    wide.as_chunks_mut().0.fill(key);
    let ((blocks, rest), (into_blocks, into_rest)) = (payload.as_chunks::<WIDE>(), into.as_chunks_mut::<WIDE>());
    for (block, into) in blocks.iter().zip(into_blocks) {
        for at in 0..WIDE {
            into[at] = block[at] ^ wide[at];
        }
    }
    for ((octet, into), key) in rest.iter().zip(into_rest).zip(wide) {
        *into = octet ^ key;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use futures_util::{Sink, Stream};
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{Message, protocol::Role},
    };

    use super::*;

    /// A client whose pipe holds `room` octets, and a server that reads with the library.
    fn ends(room: usize) -> (WebSocketStream<Frames<DuplexStream>>, WebSocketStream<DuplexStream>) {
        let (near, far) = duplex(room);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let near = WebSocketStream::from_raw_socket(Frames::new(near), Role::Client, None).await;
            (near, WebSocketStream::from_raw_socket(far, Role::Server, None).await)
        })
    }

    #[test]
    fn the_library_reads_what_was_pushed_in_its_order_through_a_narrow_pipe() {
        let (mut near, mut far) = ends(1_000);
        let mut cx = Context::from_waker(Waker::noop());
        let sizes = [0, 1, 125, 126, 4_097, 65_535, 65_536, 70_001];
        let payload = |size: usize| (0..size).map(|at| (at % 253) as u8).collect::<Vec<_>>();
        for size in sizes {
            near.get_mut().push(Opcode::Binary, &payload(size)).unwrap();
        }
        let kept = b"shared octets stay as they are";
        near.get_mut().push(Opcode::Text, kept).unwrap();
        Pin::new(&mut near).start_send(Message::Close(None)).unwrap();
        let mut got = Vec::new();
        while got.len() < sizes.len() + 2 {
            let _ = Pin::new(&mut near).poll_flush(&mut cx);
            if let Poll::Ready(Some(message)) = Pin::new(&mut far).poll_next(&mut cx) {
                got.push(message.unwrap());
            }
        }
        for (size, message) in sizes.into_iter().zip(&got) {
            assert!(matches!(message, Message::Binary(octets) if octets[..] == payload(size)), "{size}");
        }
        assert!(matches!(&got[sizes.len()], Message::Text(text) if text.as_bytes() == kept));
        assert!(matches!(got.last(), Some(Message::Close(None))));
        assert_eq!(near.get_ref().octets, 0);
    }

    #[test]
    fn the_answer_to_a_ping_waits_for_the_frame_that_is_on_its_way() {
        let (mut near, mut far) = ends(100);
        let mut cx = Context::from_waker(Waker::noop());
        near.get_mut().push(Opcode::Binary, &[7; 500]).unwrap();
        assert!(Pin::new(&mut near).poll_flush(&mut cx).is_pending(), "more than the pipe holds");
        Pin::new(&mut far).start_send(Message::Ping(Bytes::from_static(b"?"))).unwrap();
        assert!(Pin::new(&mut far).poll_flush(&mut cx).is_ready());
        let mut got = Vec::new();
        while got.len() < 2 {
            // Reading makes the library answer in the middle of the frame.
            let _ = Pin::new(&mut near).poll_next(&mut cx);
            if let Poll::Ready(Some(message)) = Pin::new(&mut far).poll_next(&mut cx) {
                got.push(message.unwrap());
            }
        }
        assert!(matches!(&got[0], Message::Binary(octets) if octets[..] == [7; 500]), "{:?}", got[0]);
        assert!(matches!(&got[1], Message::Pong(octets) if octets == "?"));
    }
}

//! Puts messages into WebSocket frames (RFC 6455 section 5.2) and writes those of a burst in one call, each from where it stands. The WebSocket library
//! copies all that it writes into one buffer first, which is the largest part of what a fast tunnel costs the agent in user space.
//!
//! It stands below that library: what the library itself writes, answers to pings and the close, goes behind the frames that wait here. So whole frames
//! follow each other as long as nothing is pushed while the library is in the middle of a frame, that is, only after it was flushed.
//!
//! What does not belong here: reading, the opening handshake and the closing one (tungstenite).

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The last frame of a message.
const FIN: u8 = 0x80;
/// The payload is masked, as all is that a client sends (section 5.3).
const MASK: u8 = 0x80;
/// Slices that are written in one call: the frames of a burst.
const SLICES: usize = 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opcode {
    Text = 1,
    Binary = 2,
}

/// A frame that has not left.
struct Frame {
    header: [u8; 14],
    /// Octets of the header.
    length: usize,
    payload: BytesMut,
    /// Octets of both that have left.
    sent: usize,
}

impl Frame {
    fn new(opcode: Opcode, payload: Bytes, key: [u8; 4]) -> Self {
        let mut payload = payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        mask(&mut payload, key);
        let mut frame = Self { header: [0; 14], length: 0, payload, sent: 0 };
        let octets = frame.payload.len() as u64;
        frame.put(&[FIN | opcode as u8]);
        match octets {
            0..126 => frame.put(&[MASK | octets as u8]),
            126..=0xffff => {
                frame.put(&[MASK | 126]);
                frame.put(&(octets as u16).to_be_bytes());
            }
            _ => {
                frame.put(&[MASK | 127]);
                frame.put(&octets.to_be_bytes());
            }
        }
        frame.put(&key);
        frame
    }

    fn put(&mut self, octets: &[u8]) {
        self.header[self.length..self.length + octets.len()].copy_from_slice(octets);
        self.length += octets.len();
    }

    fn left(&self) -> usize {
        self.length + self.payload.len() - self.sent
    }

    /// What has not left of the header and of the payload.
    fn slices(&self) -> [&[u8]; 2] {
        let header = &self.header[self.sent.min(self.length)..self.length];
        [header, &self.payload[self.sent.saturating_sub(self.length)..]]
    }
}

/// A socket that writes whole frames in front of what is written to it otherwise.
pub(crate) struct Frames<S> {
    socket: S,
    waiting: VecDeque<Frame>,
}

impl<S: AsyncWrite + Unpin> Frames<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { socket, waiting: VecDeque::new() }
    }

    /// Adds a message as one frame, which the next flush writes. An error when there are no random numbers for its mask.
    pub(super) fn push(&mut self, opcode: Opcode, payload: Bytes) -> Result<(), String> {
        let mut key = [0; 4];
        getrandom::fill(&mut key).map_err(|error| format!("no random numbers: {error}"))?;
        self.waiting.push_back(Frame::new(opcode, payload, key));
        Ok(())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let octets = self.waiting.iter().flat_map(Frame::slices).filter(|octets| !octets.is_empty());
            let count = slices.iter_mut().zip(octets).map(|(slice, octets)| *slice = IoSlice::new(octets)).count();
            let mut written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            while let Some(frame) = self.waiting.front_mut() {
                let part = written.min(frame.left());
                frame.sent += part;
                written -= part;
                if frame.left() > 0 {
                    break;
                }
                self.waiting.pop_front();
            }
        }
        Poll::Ready(Ok(()))
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

/// Masks a payload (section 5.3), in wide words.
fn mask(octets: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = octets.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (octet, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *octet ^= key;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

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
            near.get_mut().push(Opcode::Binary, payload(size).into()).unwrap();
        }
        let kept = Bytes::from_static(b"shared octets stay as they are");
        near.get_mut().push(Opcode::Text, kept.clone()).unwrap();
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
        assert_eq!(kept, b"shared octets stay as they are"[..]);
    }

    #[test]
    fn the_answer_to_a_ping_waits_for_the_frame_that_is_on_its_way() {
        let (mut near, mut far) = ends(100);
        let mut cx = Context::from_waker(Waker::noop());
        near.get_mut().push(Opcode::Binary, vec![7; 500].into()).unwrap();
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

//! A visitor's connection as the gateway sees it: counts octets, gives back what was read of it before, and for RTSP puts
//! the watcher between both sides. Once the watcher is off, reads and writes go straight to the socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::traffic::Traffic;
use super::watch::Watch;
use crate::agents::Socket;

/// Octets that are read at once while the watcher is on: requests are short.
const CHUNK: usize = 4096;
/// How long a refusal waits for the camera to say something, which has to answer what the viewer asked before. A camera that answers nothing
/// is no use to it, and while it waits nobody would notice that it has gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets after which the counters that others see are brought up to date.
const COUNT_EVERY: u64 = 64 << 10;

/// The connection.
pub(super) struct Watched {
    stream: TcpStream,
    watch: Option<Watch>,
    to_camera: Vec<u8>,
    to_viewer: Vec<u8>,
    viewer_ended: bool,
    /// Who waits to read until a refusal is said, and to write until there is room.
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// When a refusal has waited for too long since the camera said something.
    tired: Option<Pin<Box<Sleep>>>,
    traffic: Arc<Traffic>,
    uncounted: (u64, u64),
}

impl Watched {
    /// A connection from which `said` was read already.
    pub(super) fn new(stream: TcpStream, said: Vec<u8>, watch: bool, traffic: Arc<Traffic>) -> Self {
        let mut watched = Self {
            stream,
            watch: watch.then(Watch::default),
            to_camera: Vec::new(),
            to_viewer: Vec::new(),
            viewer_ended: false,
            reader: None,
            writer: None,
            tired: None,
            traffic,
            uncounted: (0, 0),
        };
        watched.viewer_said(&said);
        watched
    }

    fn viewer_said(&mut self, octets: &[u8]) {
        match &mut self.watch {
            Some(watch) => watch.viewer_said(octets, &mut self.to_camera, &mut self.to_viewer),
            None => self.to_camera.extend_from_slice(octets),
        }
        self.drop_watch_when_off();
    }

    fn drop_watch_when_off(&mut self) {
        self.watch.take_if(|watch| watch.is_off());
    }

    fn count(&mut self, to_visitor: usize, to_camera: usize) {
        self.uncounted.0 += to_visitor as u64;
        self.uncounted.1 += to_camera as u64;
        if self.uncounted.0 + self.uncounted.1 >= COUNT_EVERY {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let (to_visitor, to_camera) = std::mem::take(&mut self.uncounted);
        self.traffic.count(to_visitor, to_camera);
    }

    /// Writes what the watcher has for the viewer.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.to_viewer.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.to_viewer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.count(written, 0);
            self.to_viewer.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.to_camera.len().min(buf.remaining());
        buf.put_slice(&self.to_camera[..count]);
        self.to_camera.drain(..count);
        if self.to_camera.is_empty() {
            self.to_camera = Vec::new();
        }
        self.count(0, count);
    }
}

impl Socket for Watched {
    fn break_off(&self) {
        self.stream.break_off();
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.to_camera.is_empty() {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            if this.viewer_ended {
                return Poll::Ready(Ok(()));
            }
            if !this.to_viewer.is_empty() {
                // A refusal: it must not wait for the camera to say something.
                if let Poll::Ready(drained) = this.poll_drain(cx) {
                    drained?;
                    // Both may have waited for the socket, which wakes one of them only.
                    this.writer.take().into_iter().for_each(Waker::wake);
                }
            }
            let Some(watch) = &mut this.watch else {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                let count = buf.filled().len() - before;
                this.count(0, count);
                return Poll::Ready(Ok(()));
            };
            if !watch.wants_more() {
                this.reader = Some(cx.waker().clone());
                let tired = this.tired.get_or_insert_with(|| Box::pin(sleep(PATIENCE)));
                ready!(tired.as_mut().poll(cx));
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the camera left a request unanswered",
                )));
            }
            this.tired = None;
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                watch.viewer_ended(&mut this.to_camera);
                this.viewer_ended = true;
                this.drop_watch_when_off();
            } else {
                this.viewer_said(chunk.filled());
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.poll_drain(cx)?.is_pending() {
            this.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some(watch) = &mut this.watch else {
            let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
            this.count(written, 0);
            return Poll::Ready(Ok(written));
        };
        let buf = bufs.iter().find(|buf| !buf.is_empty()).map(|buf| &**buf).unwrap_or_default();
        watch.camera_said(buf, &mut this.to_camera, &mut this.to_viewer);
        this.drop_watch_when_off();
        // It talks: that it may still answer is worth another wait, and a viewer that has gone is found out by writing to it.
        this.tired = None;
        // There may be something to read now, or reading may go on.
        this.reader.take().into_iter().for_each(Waker::wake);
        if let Poll::Ready(drained) = this.poll_drain(cx) {
            drained?;
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(said: &[u8], watch: bool) -> (TcpStream, Watched, Arc<Traffic>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let viewer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (stream, _) = listener.accept().await.expect("accepts");
        let traffic = Arc::new(Traffic::default());
        let watched = Watched::new(stream, said.to_vec(), watch, Arc::clone(&traffic));
        (viewer, watched, traffic)
    }

    const UDP: &[u8] = b"SETUP rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;unicast;client_port=1-2\r\n\r\n";

    #[tokio::test]
    async fn a_refusal_reaches_the_viewer_while_the_camera_is_silent() {
        let (mut viewer, watched, traffic) = pair(b"", true).await;
        let (mut from_viewer, mut to_viewer) = tokio::io::split(watched);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            from_viewer.read_to_end(&mut all).await.expect("reads");
            all
        });
        viewer.write_all(UDP).await.expect("writes");
        let mut reply = [0; 12];
        viewer.read_exact(&mut reply).await.expect("is answered");
        assert_eq!(&reply, b"RTSP/1.0 461");
        let tcp = b"SETUP rtsp://h/a RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP\r\n\r\nPLAY * RTSP/1.0\r\n\r\n$rest";
        viewer.write_all(tcp).await.expect("writes");
        to_viewer.write_all(b"RTSP/1.0 200 OK\r\n\r\n").await.expect("writes");
        viewer.shutdown().await.expect("ends its side");
        assert_eq!(reading.await.expect("ends"), tcp);
        to_viewer.write_all(b"more").await.expect("writes");
        to_viewer.shutdown().await.expect("ends the other side");
        drop(to_viewer);
        let mut rest = String::new();
        viewer.read_to_string(&mut rest).await.expect("reads");
        assert!(rest.ends_with("\r\n\r\nRTSP/1.0 200 OK\r\n\r\nmore"), "{rest}");
        let (_, to_camera) = traffic.octets();
        assert_eq!(to_camera, tcp.len() as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_waits_for_the_camera_and_not_for_ever() {
        let asked = b"OPTIONS * RTSP/1.0\r\nCSeq: 0\r\n\r\n";
        let said = [&asked[..], UDP].concat();
        let (mut viewer, mut watched, _) = pair(&said, true).await;
        let mut all = vec![0; asked.len()];
        watched.read_exact(&mut all).await.expect("what is for the camera passes");
        assert_eq!(all, asked);
        let began = tokio::time::Instant::now();
        let error = watched.read(&mut [0; 64]).await.expect_err("the camera says nothing");
        assert_eq!((error.kind(), began.elapsed() >= PATIENCE), (io::ErrorKind::TimedOut, true));
        drop(watched);
        let mut said = Vec::new();
        // Nothing was said, whatever the end is like.
        let _ = viewer.read_to_end(&mut said).await;
        assert_eq!(said, b"");

        // A camera that answers in the end is waited for, as long as it goes on.
        let said = [&asked[..], UDP, asked, UDP].concat();
        let (mut viewer, watched, _) = pair(&said, true).await;
        let (mut from_viewer, mut to_viewer) = tokio::io::split(watched);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            from_viewer.read_to_end(&mut all).await.map(|_| all)
        });
        for _ in 0..2 {
            tokio::time::sleep(PATIENCE * 2 / 3).await;
            to_viewer.write_all(b"RTSP/1.0 200 OK\r\n\r\n").await.expect("writes");
        }
        viewer.shutdown().await.expect("ends its side");
        assert_eq!(reading.await.expect("ends").expect("in time"), asked.repeat(2));
    }

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_everything_is_counted() {
        let (mut viewer, mut watched, traffic) = pair(b"first ", false).await;
        viewer.write_all(b"second").await.expect("writes");
        viewer.shutdown().await.expect("ends its side");
        let mut all = String::new();
        watched.read_to_string(&mut all).await.expect("reads");
        assert_eq!(all, "first second");
        watched.write_all(&[7; 100_000]).await.expect("fits");
        assert!(traffic.octets().0 >= 64 << 10, "seen while it lasts");
        drop(watched);
        assert_eq!(traffic.octets(), (100_000, 12));
    }
}

//! Visitors at the outer end of a tunnel: streams that are taken as fast as they come, requests over a connection each.
//!
//! Octets of streams are counted and thrown away where they are, without copying them out of the kernel (`MSG_TRUNC` of tcp(7)), so that visitors
//! take little of the processors from those who are measured. That octets arrive as they were is proved by the tests, not here.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::source::{self, SMALL, STREAM};

/// A stream runs so long before it counts: windows grow meanwhile.
const WARM_UP: Duration = Duration::from_millis(700);
/// A visitor that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of a stream that are taken at once.
const PIECE: usize = 256 << 10;
/// Visitors that ask at once when requests are counted.
const ASKERS: usize = 8;

/// Octets carried within a time, and what was used meanwhile.
pub(crate) struct Carried<T> {
    pub(crate) octets: usize,
    pub(crate) time: Duration,
    /// What `sample` said before and after.
    pub(crate) samples: (T, T),
}

/// Reads so many streams at once for `length`.
pub(crate) fn streams<T>(
    door: SocketAddr,
    count: usize,
    length: Duration,
    sample: impl Fn() -> T,
) -> Result<Carried<T>, String> {
    let (octets, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..count).map(|_| scope.spawn(|| read_stream(door, &octets, &is_over))).collect();
        std::thread::sleep(WARM_UP);
        let (begun, first, before) = (Instant::now(), sample(), octets.load(Ordering::Relaxed));
        std::thread::sleep(length);
        let (time, after, last) = (begun.elapsed(), octets.load(Ordering::Relaxed), sample());
        is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("a reader does not panic").map_err(|error| format!("a stream: {error}"))?;
        }
        Ok(Carried { octets: after - before, time, samples: (first, last) })
    })
}

fn read_stream(door: SocketAddr, octets: &AtomicUsize, is_over: &AtomicBool) -> io::Result<()> {
    let mut stream = connect(door)?;
    stream.write_all(STREAM)?;
    while !is_over.load(Ordering::Relaxed) {
        match take(&stream)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => octets.fetch_add(more, Ordering::Relaxed),
        };
    }
    Ok(())
}

/// Throws away what has arrived, at most [`PIECE`] octets: how many they were.
fn take(stream: &TcpStream) -> io::Result<usize> {
    // SAFETY: the descriptor is open as long as the stream is borrowed; with this flag nothing is written, so there need be no buffer.
    let taken = unsafe { libc::recv(stream.as_raw_fd(), std::ptr::null_mut(), PIECE, libc::MSG_TRUNC) };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

/// Requests answered in a second by a few visitors that ask one after the other, each time over a new connection; and
/// how many were not answered.
pub(crate) fn requests(door: SocketAddr, length: Duration) -> (f64, usize) {
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..ASKERS {
            scope.spawn(|| {
                while begun.elapsed() < length {
                    let count = if ask(door).is_ok() { &good } else { &bad };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    (good.into_inner() as f64 / begun.elapsed().as_secs_f64(), bad.into_inner())
}

/// The median of the times from the connect to the first octet of an answer, one visitor after the other.
pub(crate) fn first_octet(door: SocketAddr, times: usize) -> Result<Duration, String> {
    let mut all = Vec::new();
    for _ in 0..times {
        all.push(ask(door).map_err(|error| format!("a request: {error}"))?);
    }
    all.sort();
    Ok(all[all.len() / 2])
}

/// One request over a connection of its own: the time to the first octet of its answer, which is whole.
pub(crate) fn ask(door: SocketAddr) -> io::Result<Duration> {
    let begun = Instant::now();
    let mut stream = connect(door)?;
    stream.write_all(SMALL)?;
    let mut answer = vec![0; 4 << 10];
    let mut length = stream.read(&mut answer)?;
    let time = begun.elapsed();
    while length < answer.len() {
        match stream.read(&mut answer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    if source::is_small_answer(&answer[..length]) { Ok(time) } else { Err(io::Error::other("a wrong answer")) }
}

fn connect(door: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&door, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

//! The camera's own TCP service at the inner end of every tunnel: it answers small requests and pours out octets as fast
//! as they are taken. Threads wait on one listener, so that a request costs no thread of its own, and streams come from
//! the page cache (sendfile), so that the service takes little of the processors from those who are measured.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Requests served at once: more than the visitors that any measurement sends.
const THREADS: usize = 64;
/// Octets of one write of a stream.
const BLOCK: usize = 256 << 10;
/// What a visitor of the stream asks for.
pub(crate) const STREAM: &[u8] = b"GET /stream HTTP/1.1\r\n\r\n";
/// What a visitor of the small answer asks for.
pub(crate) const SMALL: &[u8] = b"GET /small HTTP/1.1\r\n\r\n";
/// Octets of the small answer's body.
const SMALL_BODY: usize = 1_024;

/// Starts the service for the rest of the program; where it listens.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let listener = Arc::new(listener);
    let mut block = vec![0; BLOCK];
    // Octets that no tunnel can compress away.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for octet in &mut block {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *octet = state as u8;
    }
    // One for all: a block each would be fetched from memory again and again.
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&block)?;
    let block: Arc<[u8]> = block.into();
    for _ in 0..THREADS {
        let (listener, block, file) = (Arc::clone(&listener), Arc::clone(&block), file.reopen()?);
        std::thread::spawn(move || {
            while let Ok((visitor, _)) = listener.accept() {
                // A visitor that leaves in the middle is what ends a stream.
                let _ = serve(visitor, &block, &file);
            }
        });
    }
    Ok(address)
}

fn serve(mut visitor: TcpStream, block: &[u8], file: &File) -> io::Result<()> {
    visitor.set_nodelay(true)?;
    let (mut request, mut length) = ([0; 256], 0);
    while !request[..length].ends_with(b"\r\n\r\n") {
        match visitor.read(&mut request[length..])? {
            0 => return Ok(()),
            more => length += more,
        }
    }
    if &request[..length] == STREAM {
        loop {
            pour(file, &visitor)?;
        }
    }
    visitor.write_all(&small_answer(block))
}

/// The whole file, as the pages that it is in: `io::copy` would copy them to memory and back.
fn pour(file: &File, visitor: &TcpStream) -> io::Result<()> {
    let mut from: libc::off_t = 0;
    while (from as usize) < BLOCK {
        // SAFETY: both descriptors are open as long as their owners are borrowed, and the offset is written to a variable of this function.
        let sent = unsafe { libc::sendfile(visitor.as_raw_fd(), file.as_raw_fd(), &mut from, BLOCK - from as usize) };
        match sent {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            1.. => {}
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

fn small_answer(block: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SMALL_BODY}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), &block[..SMALL_BODY]].concat()
}

/// Whether these are all octets of the small answer.
pub(crate) fn is_small_answer(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 OK\r\n")
        && answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .is_some_and(|end| answer.len() == end + 4 + SMALL_BODY)
}

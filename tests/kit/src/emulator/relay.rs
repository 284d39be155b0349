//! Services of this machine as services of the far end: a TCP port in the far namespace, carried to an address outside of
//! it. The kernel's buffers of one more connection stand at the far side; where that matters, run the server there.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// So many connections at once; more wait.
const MOST: usize = 1_024;

/// Carries what comes to `listener`, which is in the far namespace, to `target`, from the namespace of the calling
/// runtime. Ends when dropped.
pub async fn serve(listener: TcpListener, target: SocketAddr) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(MOST));
    let mut carried = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let (visitor, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            Some(_) = carried.join_next() => continue,
        };
        carried.spawn(async move {
            carry(visitor, target).await;
            drop(place);
        });
    }
}

async fn carry(mut visitor: TcpStream, target: SocketAddr) {
    let Ok(mut service) = TcpStream::connect(target).await else {
        // The visitor sees what it would see at a closed port, only later.
        let _ = visitor.set_zero_linger();
        return;
    };
    // Failures to set an option show as the program's own failure.
    let _ = (visitor.set_nodelay(true), service.set_nodelay(true));
    if tokio::io::copy_bidirectional(&mut visitor, &mut service).await.is_err() {
        // Who was reset on one side is reset on the other.
        let _ = (visitor.set_zero_linger(), service.set_zero_linger());
    }
}

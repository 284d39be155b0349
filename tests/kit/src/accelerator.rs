//! A middlebox that ends TCP on the way up: it takes everything at once, into a buffer without end, and lets it go at a rate. What the agent's kernel
//! knows of is only the way to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What leaves at once.
const PIECE: usize = 1_448;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    taken: u64,
    carried: u64,
    most: u64,
}

/// The middlebox. Ends with the value.
pub struct Accelerator {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    /// Connections with a lower number carry nothing up any more.
    swallows: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Accelerator {
    /// One on a free port of loopback, which lets `rate` octets a second go up to `target`; down nothing waits.
    pub async fn to(target: SocketAddr, rate: u32) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let counts = Arc::new(Mutex::new(Counts::default()));
        let shared = Arc::clone(&counts);
        let swallows = watch::Sender::new(0);
        let told = swallows.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((agent, _)) = listener.accept().await {
                let counts = Arc::clone(&shared);
                let mut told = told.clone();
                let born = *told.borrow_and_update();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    carry(agent, server, rate, &counts, async move {
                        // The end of the middlebox is the end of everything.
                        let _ = told.wait_for(|turn| *turn > born).await;
                    })
                    .await;
                });
            }
        });
        Self { address, counts, swallows, task }
    }

    /// Connections that are there now: what they are given is taken as before, and goes nowhere any more.
    pub fn swallow(&self) {
        self.swallows.send_modify(|turn| *turn += 1);
    }

    /// Where agents dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Octets carried up so far.
    pub fn carried(&self) -> u64 {
        self.counts().carried
    }

    /// The most octets that waited at once since this was last asked.
    pub fn take_most(&self) -> u64 {
        let mut counts = self.counts();
        let most = counts.most;
        counts.most = counts.taken - counts.carried;
        most
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Accelerator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    agent: TcpStream,
    server: TcpStream,
    rate: u32,
    counts: &Mutex<Counts>,
    swallowed: impl Future<Output = ()>,
) {
    // Failures to set an option show as the test's own failure.
    let _ = (agent.set_nodelay(true), server.set_nodelay(true));
    let (mut from_agent, mut to_agent) = agent.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let count = |change: &dyn Fn(&mut Counts)| change(&mut counts.lock().unwrap_or_else(PoisonError::into_inner));
    let (buffer, mut buffered) = mpsc::unbounded_channel::<Vec<u8>>();
    let take = async move {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_agent.read(&mut chunk).await {
            count(&|counts| {
                counts.taken += length as u64;
                counts.most = counts.most.max(counts.taken - counts.carried);
            });
            if buffer.send(chunk[..length].to_vec()).is_err() {
                return;
            }
        }
    };
    let let_go = async move {
        let mut free_at = Instant::now();
        while let Some(chunk) = buffered.recv().await {
            for piece in chunk.chunks(PIECE) {
                free_at = free_at.max(Instant::now() - Duration::from_millis(20));
                free_at += Duration::from_secs(1) * piece.len() as u32 / rate;
                tokio::time::sleep_until(free_at).await;
                if to_server.write_all(piece).await.is_err() {
                    return;
                }
                count(&|counts| counts.carried += piece.len() as u64);
            }
        }
    };
    let let_go = async move {
        // What is swallowed keeps its connection to the server, which hears nothing of it.
        let mut let_go = std::pin::pin!(let_go);
        tokio::select! {
            () = &mut let_go => {}
            () = swallowed => std::future::pending().await,
        }
    };
    let down = async move {
        // Either end may go first.
        let _ = tokio::io::copy(&mut from_server, &mut to_agent).await;
    };
    tokio::select! {
        () = async { tokio::join!(take, let_go); } => {}
        () = down => {}
    }
}

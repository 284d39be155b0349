//! A TCP link between an agent and its server that counts what goes up, and breaks in the ways that links break.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A chunk that is cut in two is at least so long: it holds more than a WebSocket frame's header.
const CUT_AT_LEAST: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Carry,
    /// Half of the next longer chunk upwards is still carried, then both ends are reset.
    CutInMidRecord,
    /// Both ends are reset at once.
    Reset,
    /// Nothing is carried any more, and nobody is told.
    Swallow,
    /// Nothing is carried for now.
    Hold,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// What becomes of connections that are there.
    fate: Fate,
    /// Grows with each fate, so that later connections do not share it.
    turn: u32,
    /// Whether new connections are carried.
    is_up: bool,
    /// Where they are carried.
    target: SocketAddr,
}

#[derive(Debug, Default)]
struct Counts {
    upwards: u64,
    cuts: u32,
    connections: u32,
}

/// The link. Ends with the value.
pub struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
    counts: Arc<Mutex<Counts>>,
    task: tokio::task::JoinHandle<()>,
}

impl Link {
    /// A link to `target` on a free port of loopback.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = watch::Sender::new(State { fate: Fate::Carry, turn: 0, is_up: true, target });
        let counts = Arc::new(Mutex::new(Counts::default()));
        let task = tokio::spawn(accept(listener, state.subscribe(), Arc::clone(&counts)));
        Self { address, state, counts, task }
    }

    /// Where agents dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Octets carried from agents to the server so far.
    pub fn carried_upwards(&self) -> u64 {
        self.counts().upwards
    }

    /// Connections that were cut in the middle of a chunk so far.
    pub fn cuts(&self) -> u32 {
        self.counts().cuts
    }

    /// Connections that were carried so far.
    pub fn connections(&self) -> u32 {
        self.counts().connections
    }

    /// Connections that are there now: half of what comes next is carried, then both ends are reset.
    pub fn cut_in_mid_record(&self) {
        self.decide(Fate::CutInMidRecord);
    }

    /// Connections that are there now are reset (RST, by SO_LINGER 0).
    pub fn reset(&self) {
        self.decide(Fate::Reset);
    }

    /// Connections that are there now carry nothing any more, and stay open.
    pub fn swallow(&self) {
        self.decide(Fate::Swallow);
    }

    /// Connections that are there now carry nothing until [`Link::release`]; what they are given meanwhile waits.
    pub fn hold(&self) {
        self.decide(Fate::Hold);
    }

    /// Connections that were held go on.
    pub fn release(&self) {
        self.decide(Fate::Carry);
    }

    /// Whether new connections are carried; while the link is down they are reset.
    pub fn set_up(&self, is_up: bool) {
        self.state.send_modify(|state| state.is_up = is_up);
    }

    /// New connections are carried to another address, as of a server that was started again.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| state.target = target);
    }

    fn decide(&self, fate: Fate) {
        self.state.send_modify(|state| (state.fate, state.turn) = (fate, state.turn + 1));
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, counts: Arc<Mutex<Counts>>) {
    while let Ok((agent, _)) = listener.accept().await {
        let now = *state.borrow();
        if !now.is_up {
            reset(&agent);
            continue;
        }
        let (state, counts) = (state.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(now.target).await else {
                reset(&agent);
                return;
            };
            counts.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
            carry(agent, server, state, now.turn, &counts).await;
        });
    }
}

async fn carry(
    mut agent: TcpStream,
    mut server: TcpStream,
    mut state: watch::Receiver<State>,
    born: u32,
    counts: &Mutex<Counts>,
) {
    // Failures to set an option show as the test's own failure.
    let _ = (agent.set_nodelay(true), server.set_nodelay(true));
    let (mut up, mut down) = (vec![0; 32 << 10], vec![0; 32 << 10]);
    let count = |change: &dyn Fn(&mut Counts)| change(&mut counts.lock().unwrap_or_else(PoisonError::into_inner));
    loop {
        let now = *state.borrow_and_update();
        let fate = if now.turn == born { Fate::Carry } else { now.fate };
        match fate {
            Fate::Reset => return reset_both(&agent, &server),
            Fate::Swallow => {
                // Both sockets stay open until the link's end.
                while state.changed().await.is_ok() {}
                return;
            }
            Fate::Hold => {
                if state.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Fate::Carry | Fate::CutInMidRecord => {}
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            read = agent.read(&mut up) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) if fate == Fate::CutInMidRecord && length >= CUT_AT_LEAST => {
                    if server.write_all(&up[..length / 2]).await.is_ok() {
                        count(&|counts| (counts.upwards, counts.cuts) = (counts.upwards + length as u64 / 2, counts.cuts + 1));
                    }
                    return reset_both(&agent, &server);
                }
                Ok(length) => {
                    if server.write_all(&up[..length]).await.is_err() {
                        return;
                    }
                    count(&|counts| counts.upwards += length as u64);
                }
            },
            read = server.read(&mut down) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => if agent.write_all(&down[..length]).await.is_err() { return },
            },
        }
    }
}

fn reset(socket: &TcpStream) {
    // What fails here is a socket that is gone already.
    let _ = socket.set_zero_linger();
}

fn reset_both(agent: &TcpStream, server: &TcpStream) {
    reset(agent);
    reset(server);
}

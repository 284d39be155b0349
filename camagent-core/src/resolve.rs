//! Addresses of host names, for whoever connects to something: the system's resolver on a thread of its own, one name at a time.
//!
//! The system's resolver cannot be interrupted and may take half a minute for a name. Whoever waits here can give up at any time; the lookup
//! goes on for the others who wait for the same name, and nothing piles up behind it. The server's name has a [`Resolver`] of its own, so
//! that it never waits for a camera's. What does not belong here: the order in which addresses are tried (`connect`).

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, sync::watch};

use crate::connect::connect;

/// Stack of the thread: the system's resolver loads modules and keeps answers there.
const STACK: usize = if cfg!(debug_assertions) { 2 << 20 } else { 256 << 10 };
/// How long an address of a camera or a service is good.
const ANSWER_FOR: Duration = Duration::from_secs(30);
/// How long a name that was not found is not looked up again; a lookup that took longer counts for as long as it took, so that one bad name
/// leaves the thread half of its time for the others.
const FAILURE_FOR: Duration = Duration::from_secs(5);

/// Addresses with port 0, or why there are none.
type Answer = Result<Arc<[SocketAddr]>, String>;
type Lookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

enum Name {
    /// Waits for its turn, or is looked up now.
    Asked(watch::Sender<Option<Answer>>),
    Known(Answer, Instant),
}

#[derive(Default)]
struct State {
    /// As many as the configuration names, for nobody else's names are looked up.
    names: HashMap<String, Name>,
    waiting: VecDeque<String>,
    has_thread: bool,
}

struct Lane {
    state: Mutex<State>,
    lookup: Box<Lookup>,
    /// How long answers and failures are remembered.
    memory: (Duration, Duration),
}

/// Finds the addresses of names, one name at a time. Clones share everything.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Lane>);

impl Resolver {
    /// For cameras and their services: remembers what it heard.
    pub(crate) fn of_cameras() -> Self {
        Self::new((ANSWER_FOR, FAILURE_FOR), system)
    }

    /// For the server: asks anew each time, because there are pauses between the times.
    pub(crate) fn of_server() -> Self {
        Self::new((Duration::ZERO, Duration::ZERO), system)
    }

    fn new(
        memory: (Duration, Duration),
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Lane { state: Mutex::default(), lookup: Box::new(lookup), memory }))
    }

    /// The addresses of a host, in the system's order, at least one. An address is its own answer at once, in brackets too. An error has
    /// words.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let answer = match self.0.ask(bare) {
            Ok(answer) => answer,
            Err(mut asked) => {
                let answer = asked.wait_for(Option::is_some).await.ok().and_then(|answer| (*answer).clone());
                answer.unwrap_or_else(|| Err("its lookup was given up".into()))
            }
        };
        let addresses = answer.map_err(|why| io::Error::other(format!("cannot resolve {bare}: {why}")))?;
        Ok(addresses.iter().map(|address| with_port(*address, port)).collect())
    }

    /// Connects to the first address of a host that takes it. An error has words.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let connected = connect(self.resolve(host, port).await?).await;
        connected.map(|(socket, _)| socket).map_err(io::Error::other)
    }
}

impl Lane {
    /// The answer, or where it will come.
    fn ask(self: &Arc<Self>, host: &str) -> Result<Answer, watch::Receiver<Option<Answer>>> {
        let mut state = self.lock();
        match state.names.get(host) {
            Some(Name::Known(answer, until)) if *until > Instant::now() => return Ok(answer.clone()),
            Some(Name::Asked(sender)) => return Err(sender.subscribe()),
            _ => {}
        }
        if !state.has_thread {
            // Only the agent's thread asks: every signal is blocked on it, and that is inherited.
            let lane = Arc::downgrade(self);
            let builder = std::thread::Builder::new().name("camagent-dns".into()).stack_size(STACK);
            // Nobody waits for its end, which is near as soon as nobody asks.
            if let Err(error) = builder.spawn(move || work(&lane)) {
                return Ok(Err(format!("no thread for the lookup: {error}")));
            }
            state.has_thread = true;
        }
        let (sender, receiver) = watch::channel(None);
        state.names.insert(host.into(), Name::Asked(sender));
        state.waiting.push_back(host.into());
        Err(receiver)
    }

    /// The next name to look up; `None` ends the thread.
    fn next(&self) -> Option<String> {
        let mut state = self.lock();
        let next = state.waiting.pop_front();
        state.has_thread = next.is_some();
        next
    }

    fn look_up(&self, host: &str) -> (Answer, Duration) {
        let began = Instant::now();
        let answer = match (self.lookup)(host) {
            Ok(addresses) if addresses.is_empty() => Err("it has no address".into()),
            Ok(addresses) => Ok(addresses.into()),
            Err(error) => Err(error.to_string()),
        };
        let (answers, failures) = self.memory;
        let remembered = match &answer {
            Ok(_) => answers,
            Err(_) if failures.is_zero() => failures,
            Err(_) => failures.max(began.elapsed()),
        };
        (answer, remembered)
    }

    fn tell(&self, host: String, answer: Answer, remembered: Duration) {
        let known = Name::Known(answer.clone(), Instant::now() + remembered);
        if let Some(Name::Asked(sender)) = self.lock().names.insert(host, known) {
            sender.send_replace(Some(answer));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread: until nobody asks, or nobody is left who could.
fn work(lane: &Weak<Lane>) {
    while let Some(lane) = lane.upgrade()
        && let Some(host) = lane.next()
    {
        let (answer, remembered) = lane.look_up(&host);
        lane.tell(host, answer, remembered);
    }
}

fn system(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use futures_util::{FutureExt, future::join};

    use super::*;

    /// A resolver whose lookups are seen when they begin, and end when the test says how: `None` is a failure.
    fn driven(memory: (Duration, Duration)) -> (Resolver, Receiver<String>, Sender<Option<[u8; 4]>>) {
        let (begun, seen) = channel();
        let (answers, said) = channel();
        let both = Mutex::new((begun, said));
        let resolver = Resolver::new(memory, move |host| {
            let both = both.lock().unwrap();
            both.0.send(host.to_owned()).unwrap();
            match both.1.recv().ok().flatten() {
                Some(address) => Ok(vec![(address, 0).into()]),
                None => Err(io::Error::other("the drill's failure")),
            }
        });
        (resolver, seen, answers)
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    const LONG: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(3_600));

    #[test]
    fn an_address_is_its_own_answer_and_needs_no_thread() {
        let resolver = Resolver::new(LONG, |_| panic!("a lookup"));
        for (host, shown) in [("192.0.2.4", "192.0.2.4:80"), ("::1", "[::1]:80"), ("[::1]", "[::1]:80")] {
            let addresses = resolver.resolve(host, 80).now_or_never().unwrap().unwrap();
            assert_eq!(addresses, [shown.parse().unwrap()]);
        }
        assert!(!resolver.0.lock().has_thread);
    }

    #[test]
    fn those_who_wait_for_a_name_share_one_lookup_and_who_gives_up_leaves_none_behind() {
        let (resolver, seen, answers) = driven(LONG);
        for _ in 0..100 {
            assert!(resolver.resolve("cam", 80).now_or_never().is_none(), "not yet");
        }
        assert!(resolver.resolve("other", 80).now_or_never().is_none());
        answers.send(Some([192, 0, 2, 1])).unwrap();
        answers.send(Some([192, 0, 2, 2])).unwrap();
        let (one, two) = run(join(resolver.resolve("cam", 80), resolver.resolve("cam", 81)));
        assert_eq!(one.unwrap(), [([192, 0, 2, 1], 80).into()]);
        assert_eq!(two.unwrap(), [([192, 0, 2, 1], 81).into()]);
        assert_eq!(run(resolver.resolve("other", 80)).unwrap(), [([192, 0, 2, 2], 80).into()]);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["cam", "other"]);
    }

    #[test]
    fn a_failure_is_remembered_and_named() {
        let (resolver, seen, answers) = driven(LONG);
        answers.send(None).unwrap();
        let error = run(resolver.resolve("cam", 80)).unwrap_err().to_string();
        assert_eq!(error, "cannot resolve cam: the drill's failure");
        assert_eq!(resolver.resolve("cam", 80).now_or_never().unwrap().unwrap_err().to_string(), error);
        assert_eq!(seen.try_iter().count(), 1);
    }

    #[test]
    fn the_servers_name_is_asked_anew_and_waits_for_no_camera() {
        let (cameras, seen, _hold) = driven(LONG);
        assert!(cameras.resolve("cam", 80).now_or_never().is_none());
        assert_eq!(seen.recv().unwrap(), "cam", "under way, and it hangs");
        let (server, seen, answers) = driven((Duration::ZERO, Duration::ZERO));
        for last in 1..3 {
            answers.send(Some([192, 0, 2, last])).unwrap();
            assert_eq!(run(server.resolve("srv", 443)).unwrap(), [([192, 0, 2, last], 443).into()]);
        }
        answers.send(None).unwrap();
        assert!(run(server.resolve("srv", 443)).is_err());
        answers.send(Some([192, 0, 2, 9])).unwrap();
        assert!(run(server.resolve("srv", 443)).is_ok());
        assert_eq!(seen.try_iter().count(), 4);
    }

    #[test]
    fn the_systems_resolver_knows_this_machine() {
        let addresses = run(Resolver::of_server().resolve("localhost", 80)).unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{addresses:?}");
    }
}

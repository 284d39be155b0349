//! The handle of a running agent: everything that a host calls. All calls may come from any thread.

use std::{
    fmt,
    os::{fd::RawFd, unix::thread::JoinHandleExt},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use camagent_proto::{
    Instant,
    message::{self, BootId, Camera, CommandError, Service, Source},
    session::{self, AgentConfig},
    stats::Statistics,
};
use tokio::runtime::Builder;

#[cfg(feature = "pull")]
use crate::source::pull::Pulls;
use crate::{
    clock,
    command::CommandToken,
    config::{Config, ServerUrl, Storage},
    driver::{Driver, Ear, Gauge, Hours, Order, Quiet, Rarely, Shared, Spending, statistics},
    error::Error,
    event::{Event, EventQueue},
    journal::flash::{disk::Folder, store::FlashConfig},
    logger::Logger,
    net::{ServerTime, Servers, Tls},
    resolve::Resolver,
    source::{Frame, Intake, Pushed, TrackDescription},
    stats::{NetworkCounts, Uplink},
    storage::{Run, Shelf, Worker},
    tunnel::{self, Tunnels},
};

/// Stack of the agent's thread. TLS and JSON need 96 KiB when optimised; unoptimised code needs far more.
const STACK: usize = if cfg!(debug_assertions) { 2 << 20 } else { 256 << 10 };
/// Stack of the disk thread.
const DISK_STACK: usize = if cfg!(debug_assertions) { 1 << 20 } else { 128 << 10 };
/// A clock that shows less, 2025, was never set.
const PLAUSIBLE: Duration = Duration::from_secs(1_735_689_600);
/// What a stop grants beyond its own timeout before it leaves a thread behind that hangs in the host's callback.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What the host gives to its agent.
#[derive(Default)]
pub struct Host {
    /// Where log messages go. Default: nowhere.
    pub logger: Option<Arc<dyn log::Log>>,
    /// Hears events, on the agent's thread, one at a time, with no lock held. It must return soon. Without it events wait for [`Agent::poll_event`].
    pub on_event: Option<Box<dyn FnMut(Event) + Send>>,
    /// Whether the host answers commands that the agent does not know itself; otherwise they are answered with an error at once.
    pub answers_commands: bool,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("answers_commands", &self.answers_commands).finish_non_exhaustive()
    }
}

/// What a stop left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Frames that the server had not acknowledged.
    pub frames_left: u64,
    /// Their bytes.
    pub bytes_left: u64,
    /// Whether the agent's thread has ended; `false` when it hangs in a callback of the host.
    pub has_ended: bool,
}

/// How the agent's thread is.
#[derive(Debug, Default)]
struct Life {
    /// Why it has ended, `Ok` as planned.
    ended: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

impl Life {
    fn end(&self, how: Result<(), String>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
        self.changed.notify_all();
    }

    /// Waits for the end; `false` when it did not come.
    fn wait(&self, longest: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(ended, longest, |ended| ended.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    fn fault(&self) -> Option<String> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.as_ref().err().cloned()
    }
}

/// A running agent. Dropping it stops it without waiting for frames.
pub struct Agent {
    shared: Arc<Shared>,
    life: Arc<Life>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The agent's thread. Asking the standard library who calls would leave an allocation behind on the host's threads.
    thread_id: libc::pthread_t,
    started: Instant,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").finish_non_exhaustive()
    }
}

impl Agent {
    /// Starts an agent: takes its memory, reads its certificates, starts its thread. Nothing is dialled before this returns.
    pub fn start(config: Config, host: Host) -> Result<Self, Error> {
        let server_time = Arc::new(ServerTime::default());
        let tls = match config.servers.iter().any(ServerUrl::is_tls) {
            true => Some(Tls::new(&config.trust, Arc::clone(&server_time))?),
            false => None,
        };
        let agent_config = agent_config(&config, host.answers_commands)?;
        let boot = agent_config.boot_id;
        let mut session = session::Agent::new(agent_config);
        session.set_backfill_rate(config.storage.as_ref().and_then(|storage| storage.backfill_rate));
        let intake = Arc::new(Intake::new(config.buffer_size, &config.cameras, config.storage.is_some())?);
        let shelf = config.storage.as_ref().map(|_| Arc::<Shelf>::default());
        let shared = Arc::new(Shared::new(intake, shelf, Run::new(boot), EventQueue::new()?));
        let (storage, agent_id) = (config.storage.clone(), config.agent_id.clone());
        let life = Arc::new(Life::default());
        let started = clock::now();
        let driver = Driver {
            shared: Arc::clone(&shared),
            session,
            logger: Logger::new(host.logger, config.log_level),
            ear: host.on_event.map_or(Ear::Queue, Ear::Function),
            answers_commands: host.answers_commands,
            tls,
            quiet: Quiet::new(config.heartbeat_interval),
            servers: Servers::new(config.servers.len(), config.reconnect_interval),
            server_time,
            started,
            uplink: Uplink::default(),
            network_tried_at: None,
            overflow_told: None,
            spending: Spending::new(&config),
            gauge: Gauge::default(),
            hours: Hours::new(config.storage.as_ref().and_then(|storage| storage.backfill_window)),
            refusals_logged: Rarely::new(1),
            refusals_told: Rarely::new(10),
            tunnels: Tunnels::new(&config.cameras),
            server_addresses: Resolver::of_server(),
            config: Arc::new(config),
        };
        if let (Some(storage), Some(shelf)) = (&storage, &shared.shelf) {
            spawn_disk(storage, &agent_id, boot, &shared, Arc::clone(shelf))?;
        }
        let thread = spawn(driver, Arc::clone(&life)).inspect_err(|_| {
            // Without the agent's thread nobody else tells the disk thread to end and to give the folder back.
            if let Some(shelf) = &shared.shelf {
                shelf.ask_to_stop();
            }
        })?;
        let thread_id = thread.as_pthread_t();
        Ok(Self { shared, life, thread: Mutex::new(Some(thread)), thread_id, started })
    }

    /// Adds track `number` (0 to 127), or changes it: frames from now on are of the new kind. Frames are pushed under this number.
    pub fn set_track(&self, number: u32, track: TrackDescription) -> Result<(), Error> {
        self.check()?;
        self.shared.intake.set_track(number, &track)?;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Ends a track. What the journal holds of it is still sent.
    pub fn remove_track(&self, number: u32) -> Result<(), Error> {
        self.check()?;
        self.shared.intake.remove_track(number)
    }

    /// Copies a frame into the journal and, when it can leave at once, wakes the agent. Waits for nothing but the copy of another frame, or of a part of
    /// one; allocates nothing.
    /// Frames of one track must be pushed in their order, by one thread at a time.
    pub fn push_frame(&self, track: u32, frame: Frame<'_>) -> Result<Pushed, Error> {
        self.check()?;
        let pushed = self.shared.intake.push(clock::now(), track, frame);
        // One that is refused may ask for a key frame.
        if !matches!(pushed, Ok(Pushed::NotWanted)) {
            self.shared.frame_came();
        }
        pushed
    }

    /// Answers a command: with JSON text (empty for nothing), or with a code and a message why it was not done.
    pub fn answer(&self, token: CommandToken, outcome: Result<&str, (&str, &str)>) -> Result<(), Error> {
        self.check()?;
        let outcome = match outcome {
            Ok("") => Ok(serde_json::Value::Null),
            Ok(text) => Ok(serde_json::from_str(text)
                .map_err(|error| Error::Usage(format!("the answer to a command is no JSON: {error}")))?),
            Err((code, message)) => Err(CommandError { code: code.into(), message: message.into() }),
        };
        if !self.shared.claim(token) {
            return Err(Error::NoCommand);
        }
        self.shared.order(Order::Answer(token, outcome))
    }

    /// Tells the server of something that happened at the camera, now or as soon as there is a session, until the server has kept it.
    /// At most 64 events wait; the oldest goes first. An event fits into a control message of 4 096 octets.
    pub fn push_event(&self, camera: Option<&str>, kind: &str, data: serde_json::Value) -> Result<(), Error> {
        self.check()?;
        let camera = camera.map(String::from);
        let event = message::Event { camera, kind: kind.into(), data, ..message::Event::default() };
        session::check_event(&event).map_err(|error| Error::Usage(error.to_string()))?;
        self.shared.order(Order::Event(event))
    }

    /// Tells that the machine is in another network, or has other addresses there: the agent looks at once whether its connection is alive, dials a second
    /// one beside it, and cuts a pause between attempts short. On Linux the agent hears of most changes by itself.
    pub fn network_changed(&self) -> Result<(), Error> {
        self.check()?;
        self.shared.note_network_change(true);
        Ok(())
    }

    /// The oldest event that waits, or `None` when none comes within `timeout` or before the agent is stopped. Only without [`Host::on_event`].
    pub fn poll_event(&self, timeout: Duration) -> Option<Event> {
        self.shared.events.pop(timeout)
    }

    /// A descriptor that is readable while events wait, for the host's own poll loop. It belongs to the agent and ends with it.
    pub fn event_fd(&self) -> RawFd {
        self.shared.events.descriptor()
    }

    /// Counters since the start, and what the journal holds now.
    pub fn statistics(&self) -> Statistics {
        statistics(&self.shared, clock::now().saturating_since(self.started))
    }

    /// Whether a session is established.
    pub fn is_connected(&self) -> bool {
        self.shared.counts.read().is_connected
    }

    /// Takes no more frames, sends what the journal holds as long as `timeout` allows, and ends the thread. Tells what was left.
    /// A second call tells the same.
    pub fn stop(&self, timeout: Duration) -> Result<StopReport, Error> {
        // SAFETY: it takes nothing, and cannot fail.
        if unsafe { libc::pthread_self() } == self.thread_id {
            return Err(Error::OwnThread);
        }
        self.shared.intake.close();
        self.shared.stop(clock::now() + timeout);
        let has_ended = self.life.wait(timeout.saturating_add(STOP_GRACE));
        self.shared.events.close();
        if has_ended && let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The thread's last act was to say that it has ended.
            let _ = thread.join();
        }
        let (frames, bytes) = self.shared.intake.held();
        Ok(StopReport { frames_left: frames as u64, bytes_left: bytes as u64, has_ended })
    }

    /// Whether the agent's thread is well; [`Error::Fault`] when a bug has ended it.
    pub fn check(&self) -> Result<(), Error> {
        self.life.fault().map_or(Ok(()), |fault| Err(Error::Fault(fault)))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Who was stopped before, and hangs, was waited for once; from the agent's own thread nothing can be waited for.
        if self.shared.is_stopping() || self.stop(Duration::ZERO).is_err() {
            self.shared.stop(clock::now());
        }
    }
}

fn agent_config(config: &Config, answers_commands: bool) -> Result<AgentConfig, Error> {
    let mut boot_id = [0; 16];
    getrandom::fill(&mut boot_id).map_err(|error| Error::Usage(format!("no random numbers: {error}")))?;
    let cameras = config.cameras.iter().map(|camera| Camera {
        id: camera.id.clone(),
        sources: camera
            .sources
            .iter()
            .map(|source| Source {
                name: source.name.clone(),
                policy: source.policy,
                retention: source.retention,
                path: source.path.clone(),
            })
            .collect(),
        services: camera
            .services
            .iter()
            .map(|service| Service { name: service.name.clone(), port: service.port, mode: service.mode })
            .collect(),
        description: camera.description.clone(),
    });
    let mut capabilities = vec!["restart".to_owned()];
    if answers_commands {
        capabilities.push("host".to_owned());
    }
    Ok(AgentConfig {
        agent_id: config.agent_id.clone(),
        // Also in the HTTP header; some proxies strip that one.
        token: Some(config.token.reveal().to_owned()),
        boot_id: BootId(boot_id),
        software: crate::SOFTWARE.to_owned(),
        cameras: cameras.collect(),
        capabilities,
        heartbeat_interval: config.heartbeat_interval,
        tunnels: tunnel::limits(config),
        keep_streams: config.tunnel_resume_time,
    })
}

/// Starts the agent's thread with every signal blocked: handlers of the host never run on it, and a connection that the server resets
/// cannot raise SIGPIPE in the host's process.
fn spawn(driver: Driver, life: Arc<Life>) -> Result<JoinHandle<()>, Error> {
    let builder = std::thread::Builder::new().name("camagent".into()).stack_size(STACK);
    let logger = driver.logger.clone();
    let shared = Arc::clone(&driver.shared);
    with_signals_blocked(|| {
        builder.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| run(driver)));
            let how = match result {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(panic) => Err(panic_text(&*panic)),
            };
            // Stopped or not by the loop, the disk thread ends too.
            if let Some(shelf) = &shared.shelf {
                shelf.ask_to_stop();
            }
            // Who waits for an event, or looks whether it is connected, is not left in the dark.
            shared.events.close();
            shared.counts.write(NetworkCounts { is_connected: false, ..shared.counts.read() });
            if let Err(fault) = &how {
                logger.error(format_args!("the agent's thread has ended because of a bug: {fault}"));
            }
            life.end(how);
        })
    })
    .map_err(Error::io("cannot start the agent's thread"))
}

/// Starts the thread that waits for the card. It ends with the agent's thread, or when the card lets it.
fn spawn_disk(
    storage: &Storage,
    agent_id: &str,
    boot: BootId,
    shared: &Shared,
    shelf: Arc<Shelf>,
) -> Result<(), Error> {
    let builder = std::thread::Builder::new().name("camagent-disk".into()).stack_size(DISK_STACK);
    let config = FlashConfig { agent_id: agent_id.to_owned(), boot, max_bytes: storage.max_bytes };
    let worker = Worker::new(Box::new(Folder::new(&storage.path)), config, storage.mode, storage.sync_interval);
    let (intake, wake) = (Arc::clone(&shared.intake), Arc::clone(&shared.wake));
    if let Ok(utc) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)
        && utc >= PLAUSIBLE
    {
        shelf.set_clock(clock::now().as_micros(), u64::try_from(utc.as_micros()).unwrap_or(0));
    }
    with_signals_blocked(|| builder.spawn(move || worker.run(&intake, &shelf, &wake, clock::now)))
        .map_err(Error::io("cannot start the disk thread"))?;
    Ok(())
}

fn run(driver: Driver) -> Result<(), Error> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Nothing here blocks; names are found in `resolve`.
        .max_blocking_threads(1)
        .thread_stack_size(STACK)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(Error::io("cannot start the agent's event loop"))?;
    let work = async {
        #[cfg(feature = "pull")]
        let pulls = Pulls::start(&driver.shared, &driver.config, &driver.logger);
        driver.run().await;
        #[cfg(feature = "pull")]
        pulls.stop().await;
    };
    let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
    runtime.shutdown_background();
    result.map_err(|panic| Error::Fault(panic_text(&*panic)))
}

fn with_signals_blocked<T>(action: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are valid memory that the calls fill before it is read; only this thread's mask is changed, and it is put back.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let result = action();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, Framing};

    /// Nothing listens on port 9 of loopback here, and nothing would understand us there.
    fn nowhere() -> Config {
        Config::new("a", "ws://127.0.0.1:9/agent", "t").unwrap()
    }

    #[test]
    fn an_agent_without_server_takes_frames_tells_events_and_stops_in_time() {
        let agent = Agent::start(nowhere(), Host::default()).unwrap();
        agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).unwrap();
        let data = [0, 0, 0, 1, 0x65, 1];
        assert_eq!(agent.push_frame(0, Frame { data: &data, ..Frame::default() }).unwrap(), Pushed::Kept);
        let mut seen = Vec::new();
        while let Some(event) = agent.poll_event(Duration::from_secs(10)) {
            seen.push(event);
            if matches!(seen.last(), Some(Event::Disconnected { .. })) {
                break;
            }
        }
        assert!(matches!(seen.first(), Some(Event::Warning { warning: crate::Warning::Plaintext, .. })), "{seen:?}");
        let Some(Event::Disconnected { reason, .. }) = seen.last() else { panic!("{seen:?}") };
        assert!(reason.contains("127.0.0.1:9"), "{reason}");
        let report = agent.stop(Duration::from_millis(200)).unwrap();
        assert_eq!(report, StopReport { frames_left: 1, bytes_left: 6, has_ended: true });
        assert_eq!(agent.stop(Duration::ZERO).unwrap(), report);
        assert!(matches!(agent.push_frame(0, Frame { data: &data, ..Frame::default() }), Err(Error::Stopped)));
    }

    #[test]
    fn a_panic_in_the_hosts_ear_is_a_fault_and_not_the_end_of_the_process() {
        let host = Host { on_event: Some(Box::new(|_| panic!("drill"))), ..Host::default() };
        let agent = Agent::start(nowhere(), host).unwrap();
        assert!(agent.life.wait(Duration::from_secs(10)));
        let error = agent.set_track(0, TrackDescription::video("main", Codec::H264, Framing::AnnexB)).unwrap_err();
        assert!(error.to_string().contains("drill"), "{error}");
        assert!(agent.stop(Duration::ZERO).unwrap().has_ended);
    }

    #[test]
    fn stop_from_a_callback_is_refused() {
        let slot: Arc<Mutex<Option<Agent>>> = Arc::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        let inside = Arc::clone(&slot);
        let host = Host {
            on_event: Some(Box::new(move |_| {
                if let Some(agent) = &*inside.lock().unwrap() {
                    let _ = sender.send(matches!(agent.stop(Duration::ZERO), Err(Error::OwnThread)));
                }
            })),
            ..Host::default()
        };
        let mut config = nowhere();
        config.reconnect_interval = Duration::from_millis(1);
        *slot.lock().unwrap() = Some(Agent::start(config, host).unwrap());
        assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap());
        let agent = slot.lock().unwrap().take().unwrap();
        assert!(agent.stop(Duration::ZERO).unwrap().has_ended);
    }

    #[test]
    fn every_signal_is_blocked_on_the_agents_thread_and_none_on_the_hosts() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let host = Host {
            on_event: Some(Box::new(move |_| {
                let _ = sender.send(blocked_signals());
            })),
            ..Host::default()
        };
        let before = blocked_signals();
        let agent = Agent::start(nowhere(), host).unwrap();
        assert_eq!(blocked_signals(), before);
        let inside = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(inside.contains(&libc::SIGPIPE) && inside.contains(&libc::SIGTERM) && inside.contains(&libc::SIGCHLD));
        drop(agent);
    }

    fn blocked_signals() -> Vec<i32> {
        // SAFETY: the set is filled before it is read.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut set);
            (1..32).filter(|signal| libc::sigismember(&raw const set, *signal) == 1).collect()
        }
    }
}

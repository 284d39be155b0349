//! The one loop where clock, socket, journal and protocol meet. It runs on the agent's thread and owns everything that only this thread needs.

use std::{
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use camagent_proto::{
    CloseCode, Error as ProtocolError, Instant,
    message::{self, CommandError, Registered},
    session::{self, AgentEvent, CommandToken},
    stats::Statistics,
};
use futures_util::future::{Either, select};
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::{Sleep, sleep, timeout},
};

use crate::{
    clock,
    command::Command,
    config::Config,
    error::Error,
    event::{Event, EventQueue, Warning},
    logger::Logger,
    net::{self, Backoff, Connection, Ending, Incoming, ServerTime, Tls, Traffic},
    source::Intake,
    stats::{NetworkCounts, SharedCounts},
};

/// Orders of the host that may wait for the loop.
const MAX_ORDERS: usize = 1_024;
/// Commands that may wait for the host's answer.
const MAX_COMMANDS: usize = 64;
/// How long a host may take for an answer when the server does not say.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long the server may take to answer a close before the connection is dropped.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Messages that are read before others get a turn.
const READ_BURST: usize = 32;
/// The longest pause between attempts while a stop waits for frames to be sent.
const STOPPING_PAUSE: Duration = Duration::from_millis(500);
/// A full journal is told at most this often.
const OVERFLOW_EVERY: Duration = Duration::from_secs(10);
/// Being replaced so often by a newer connection means that somebody else uses the agent's id.
const DUPLICATE_AFTER: u32 = 3;

/// What the handle asks of the loop.
pub(crate) enum Order {
    /// A command was answered.
    Answer(CommandToken, Result<serde_json::Value, CommandError>),
    /// Something happened at the camera.
    Event(message::Event),
}

/// What handle and loop share.
pub(crate) struct Shared {
    pub(crate) intake: Intake,
    pub(crate) counts: SharedCounts,
    pub(crate) events: EventQueue,
    /// Wakes the loop: a frame, an order, or the wish to stop.
    pub(crate) wake: Arc<Notify>,
    /// Wakes a loop that is dialling or waiting: the wish to stop only.
    pub(crate) stop_wake: Notify,
    orders: Mutex<VecDeque<Order>>,
    /// When the loop has to end at the latest, once it has to.
    stop_until: Mutex<Option<Instant>>,
    /// Commands that wait for an answer of the host, and until when.
    unanswered: Mutex<Vec<(CommandToken, Instant)>>,
}

impl Shared {
    pub(crate) fn new(intake: Intake, events: EventQueue) -> Self {
        Self {
            intake,
            counts: SharedCounts::default(),
            events,
            wake: Arc::default(),
            stop_wake: Notify::new(),
            orders: Mutex::default(),
            stop_until: Mutex::default(),
            unanswered: Mutex::default(),
        }
    }

    /// Hands an order to the loop.
    pub(crate) fn order(&self, order: Order) -> Result<(), Error> {
        let mut orders = lock(&self.orders);
        if orders.len() == MAX_ORDERS {
            return Err(Error::Busy);
        }
        orders.push_back(order);
        drop(orders);
        self.wake.notify_one();
        Ok(())
    }

    /// Asks the loop to end: at `until` at the latest.
    pub(crate) fn stop(&self, until: Instant) {
        *lock(&self.stop_until) = Some(until);
        self.wake.notify_one();
        self.stop_wake.notify_one();
    }

    /// Takes a command off the list of unanswered ones; `false` when it is not there.
    pub(crate) fn claim(&self, token: CommandToken) -> bool {
        let mut unanswered = lock(&self.unanswered);
        let before = unanswered.len();
        unanswered.retain(|(other, _)| *other != token);
        unanswered.len() < before
    }

    /// Whether the loop was asked to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop_until().is_some()
    }

    fn stop_until(&self) -> Option<Instant> {
        *lock(&self.stop_until)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the host hears events.
pub(crate) enum Ear {
    /// By this function, on the agent's thread.
    Function(Box<dyn FnMut(Event) + Send>),
    /// By fetching them.
    Queue,
}

/// The loop's own things.
pub(crate) struct Driver {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: session::Agent,
    pub(crate) logger: Logger,
    pub(crate) ear: Ear,
    /// Whether the host answers commands at all.
    pub(crate) answers_commands: bool,
    pub(crate) tls: Option<Tls>,
    pub(crate) server_time: Arc<ServerTime>,
    pub(crate) started: Instant,
    /// When the host was last told that frames are lost.
    pub(crate) overflow_told: Option<Instant>,
}

/// What one connection needs until it ends.
struct Talk {
    connection: Connection,
    timer: Pin<Box<Sleep>>,
    woken: Pin<Box<OwnedNotified>>,
    established_at: Option<Instant>,
    /// Why it ends, as soon as that is known.
    failure: Option<Error>,
    /// When the connection is dropped, once it is being closed: a peer that takes nothing any more cannot hold it open.
    ends_by: Option<Instant>,
    /// When the server wants the agent to have left.
    leave_at: Option<Instant>,
    ending: Option<Ending>,
}

struct Outcome {
    error: Error,
    lived: Duration,
    ending: Option<Ending>,
}

impl Driver {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) {
        for warning in std::mem::take(&mut self.config.warnings) {
            self.warn(Warning::Configuration, warning);
        }
        if !self.config.server.is_tls() {
            self.warn(
                Warning::Plaintext,
                format!("{} is not encrypted: use wss:// outside a laboratory", self.config.server),
            );
        }
        let traffic = Rc::new(Traffic::default());
        let mut backoff = Backoff::new(self.config.reconnect_interval);
        let mut replaced = 0;
        while !self.is_done() {
            let Some(outcome) = self.attempt(&traffic).await else { break };
            let ending = match (outcome.ending, Ending::of(&outcome.error)) {
                // What the server decided last counts more than what was planned.
                (Some(planned), Ending::Trouble) => planned,
                (_, of_error) => of_error,
            };
            let random = random();
            let pause = backoff.next(clock::now(), ending, outcome.lived, random);
            let code = match &outcome.error {
                Error::Session(ProtocolError::ClosedByPeer { code, .. }) => *code,
                Error::Session(error) => error.close_code().number(),
                _ => 0,
            };
            self.logger.warn(format_args!("{}; next attempt in {:.1} s", outcome.error, pause.as_secs_f64()));
            self.tell(Event::Disconnected { reason: outcome.error.to_string(), code, retry_in: pause });
            if code == CloseCode::Replaced.number() {
                replaced += 1;
                if replaced == DUPLICATE_AFTER {
                    let message =
                        format!("another agent uses the id {:?}: give each camera its own", self.config.agent_id);
                    self.warn(Warning::DuplicateIdentity, message);
                }
            }
            if ending == Ending::Restart {
                self.shared.intake.restart();
                self.ask_for_keys();
            }
            self.wait(pause).await;
        }
        self.shared.intake.close();
        self.logger.info(format_args!("stopped"));
    }

    /// Whether there is nothing more to do: a stop was asked for, and all is sent or the time is up.
    fn is_done(&self) -> bool {
        let mut journal = &self.shared.intake;
        self.shared.stop_until().is_some_and(|until| until <= clock::now() || self.session.is_settled(&mut journal))
    }

    /// Waits between two attempts; orders are taken meanwhile. With a stop under way the pauses are short.
    async fn wait(&mut self, pause: Duration) {
        let began = clock::now();
        while !self.is_done() {
            let pause = if self.shared.is_stopping() { pause.min(STOPPING_PAUSE) } else { pause };
            let until = began + pause;
            self.take_orders();
            self.tell_overflow();
            self.ask_for_keys();
            let left = until.saturating_since(clock::now());
            if left.is_zero() {
                return;
            }
            // Frames may wake this often; a look at the orders is all that it costs.
            let _ = timeout(left, Arc::clone(&self.shared.wake).notified_owned()).await;
        }
    }

    /// One connection from dial to end; `None` when the agent is to stop.
    async fn attempt(&mut self, traffic: &Rc<Traffic>) -> Option<Outcome> {
        let began = clock::now();
        self.logger.debug(format_args!("dialling {}", self.config.server));
        self.take_orders();
        let dialled = {
            let stop = std::pin::pin!(self.given_up());
            let connect = net::connect(&self.config, self.tls.as_ref(), traffic);
            let connect = std::pin::pin!(timeout(self.config.connection_timeout, connect));
            match select(connect, stop).await {
                Either::Left((dialled, _)) => dialled,
                Either::Right(_) => return None,
            }
        };
        self.publish(traffic);
        let failed = |error| Some(Outcome { error, lived: Duration::ZERO, ending: None });
        let connection = match dialled {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return failed(error),
            Err(_) => {
                let waited = self.config.connection_timeout.as_secs();
                return failed(Error::Unreachable(format!("{}: no connection within {waited} s", self.config.server)));
            }
        };
        self.session.connected(clock::now(), began + self.config.connection_timeout);
        let mut talk = Talk {
            connection,
            timer: Box::pin(sleep(Duration::ZERO)),
            woken: Box::pin(Arc::clone(&self.shared.wake).notified_owned()),
            established_at: None,
            failure: None,
            ends_by: None,
            leave_at: None,
            ending: None,
        };
        let closing = std::future::poll_fn(|cx| self.turn(cx, &mut talk, traffic)).await;
        self.session.disconnected();
        self.publish(traffic);
        if self.is_done() {
            return None;
        }
        let error = talk.failure.unwrap_or(closing);
        let lived = talk.established_at.map(|at| clock::now().saturating_since(at)).unwrap_or_default();
        Some(Outcome { error, lived, ending: talk.ending })
    }

    /// Comes true when a dial is to be given up because of a stop.
    async fn given_up(&self) {
        while !self.is_done() {
            match self.shared.stop_until() {
                Some(until) => sleep(until.saturating_since(clock::now())).await,
                None => self.shared.stop_wake.notified().await,
            }
        }
    }

    /// Moves everything that can be moved; ready when the connection has ended.
    fn turn(&mut self, cx: &mut Context<'_>, talk: &mut Talk, traffic: &Rc<Traffic>) -> Poll<Error> {
        loop {
            // Asked before the work, so that whatever comes in meanwhile wakes us.
            let was_woken = talk.woken.as_mut().poll(cx).is_ready();
            if was_woken {
                talk.woken.as_mut().set(Arc::clone(&self.shared.wake).notified_owned());
            }
            let now = clock::now();
            self.take_orders();
            let read = self.read(cx, talk, now);
            if self.session.poll_timeout().is_some_and(|at| at <= now) {
                let statistics = self.statistics(now, traffic);
                self.session.set_statistics(statistics);
                self.session.handle_timeout(now);
            }
            self.expire_commands(now);
            self.hear(talk, now);
            self.leave_if_due(talk, now);
            let has_more = matches!(read, Read::More);
            let ended = match read {
                Read::Ended(error) => Some(error),
                Read::Drained | Read::More => self.write(cx, talk).err(),
            };
            self.publish(traffic);
            if let Some(error) = ended {
                return Poll::Ready(error);
            }
            if talk.ends_by.is_some_and(|at| at <= now) {
                return Poll::Ready(Error::Unreachable("the server did not answer a close".into()));
            }
            if was_woken || has_more {
                continue;
            }
            // A timer that has fired wakes us again at once.
            if !self.arm(cx, talk) {
                return Poll::Pending;
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, talk: &mut Talk, now: Instant) -> Read {
        let mut journal = &self.shared.intake;
        for _ in 0..READ_BURST {
            match talk.connection.poll_receive(cx) {
                Poll::Pending => return Read::Drained,
                Poll::Ready(Incoming::Text(text)) => self.session.handle_text(now, &text, &mut journal),
                Poll::Ready(Incoming::Binary(record)) => self.session.handle_binary(record, &mut journal),
                Poll::Ready(Incoming::Closed(code, detail)) => {
                    return Read::Ended(Error::Session(ProtocolError::ClosedByPeer { code, detail }));
                }
            }
        }
        Read::More
    }

    /// Writes as long as the socket takes something: the next thing is chosen only then.
    fn write(&mut self, cx: &mut Context<'_>, talk: &mut Talk) -> Result<(), Error> {
        let lost = |detail| Error::Session(ProtocolError::ClosedByPeer { code: 1006, detail });
        while let Poll::Ready(writable) = talk.connection.poll_writable(cx) {
            writable.map_err(lost)?;
            let mut journal = &self.shared.intake;
            let Some(transmit) = self.session.poll_transmit(&mut journal) else { break };
            talk.connection.send(transmit).map_err(lost)?;
        }
        match talk.connection.poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map_err(lost),
            Poll::Pending => Ok(()),
        }
    }

    /// Sets the timer to the next deadline; `true` when that has passed already.
    fn arm(&mut self, cx: &mut Context<'_>, talk: &mut Talk) -> bool {
        let deadlines = [
            self.session.poll_timeout(),
            talk.ends_by,
            talk.leave_at.filter(|_| talk.ends_by.is_none()),
            self.shared.stop_until().filter(|_| talk.ends_by.is_none()),
            lock(&self.shared.unanswered).iter().map(|(_, until)| *until).min(),
        ];
        let Some(next) = deadlines.into_iter().flatten().min() else { return false };
        let left = next.saturating_since(clock::now());
        talk.timer.as_mut().reset(tokio::time::Instant::now() + left);
        talk.timer.as_mut().poll(cx).is_ready()
    }

    fn leave_if_due(&mut self, talk: &mut Talk, now: Instant) {
        if talk.ends_by.is_some() {
            return;
        }
        if let Some(until) = self.shared.stop_until() {
            let mut journal = &self.shared.intake;
            if until <= now || self.session.is_settled(&mut journal) {
                self.close(talk, now, "the agent is stopped");
            }
        } else if talk.leave_at.is_some_and(|at| at <= now) {
            self.close(talk, now, "asked to leave");
        }
    }

    fn close(&mut self, talk: &mut Talk, now: Instant, reason: &str) {
        self.session.close(reason);
        talk.ends_by.get_or_insert(now + CLOSE_WITHIN);
    }

    /// What the session says.
    fn hear(&mut self, talk: &mut Talk, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                AgentEvent::Registered(registered) => {
                    talk.established_at = Some(now);
                    self.welcome(&talk.connection.address, registered, now);
                }
                AgentEvent::Command(token, command) => self.command(talk, token, command, now),
                AgentEvent::SourceWanted(state) => self.want(&state.camera, &state.source, state.wanted),
                AgentEvent::KeyFrame(wanted) => {
                    for track in self.shared.intake.video_tracks(&wanted.camera, &wanted.source) {
                        self.tell(Event::KeyFrameWanted { track });
                    }
                }
                AgentEvent::Goaway(goaway) => {
                    self.logger.info(format_args!("the server asks to leave: {}", goaway.reason));
                    talk.leave_at = Some(now + Duration::from_millis(goaway.after_ms.min(60_000)));
                    let spread = Duration::from_millis(goaway.spread_ms.min(600_000));
                    talk.ending = Some(Ending::ComeBack { after: Duration::ZERO, spread });
                }
                AgentEvent::Failed(error) => {
                    talk.failure = Some(error.into());
                    talk.ends_by.get_or_insert(now + CLOSE_WITHIN);
                }
            }
        }
        self.tell_overflow();
        self.ask_for_keys();
    }

    fn welcome(&mut self, address: &str, registered: Registered, now: Instant) {
        let mut counts = self.shared.counts.read();
        counts.sessions += 1;
        self.shared.counts.write(counts);
        if registered.server_time_ms > 0 && self.config.server.is_tls() {
            self.server_time.told(registered.server_time_ms, now);
        }
        self.logger.info(format_args!("connected to {address}, session {}", registered.session_id));
        self.tell(Event::Connected { session_id: registered.session_id, address: address.into() });
        for state in registered.sources {
            self.want(&state.camera, &state.source, state.wanted);
        }
    }

    fn want(&mut self, camera: &str, source: &str, wanted: bool) {
        for track in self.shared.intake.set_wanted(camera, source, wanted) {
            self.tell(Event::TrackWanted { track, wanted });
        }
    }

    fn command(&mut self, talk: &mut Talk, token: CommandToken, command: message::Command, now: Instant) {
        self.logger.info(format_args!("command {:?}", command.action));
        if command.action == "restart" {
            self.answer(token, Ok(serde_json::json!({"restarting": true})));
            talk.ending = Some(Ending::Restart);
            self.close(talk, now, "restart");
            return;
        }
        let refuse = |code: &str, message: &str| CommandError { code: code.into(), message: message.into() };
        if !self.answers_commands {
            let message = format!("this agent does not know the command {:?}", command.action);
            return self.answer(token, Err(refuse("unsupported", &message)));
        }
        let within = if command.timeout_ms == 0 { ANSWER_WITHIN } else { Duration::from_millis(command.timeout_ms) };
        {
            let mut unanswered = lock(&self.shared.unanswered);
            if unanswered.len() < MAX_COMMANDS {
                unanswered.push((token, now + within));
            } else {
                drop(unanswered);
                return self.answer(token, Err(refuse("busy", "too many commands wait for the camera's answer")));
            }
        }
        let args = command.args.to_string();
        self.tell(Event::Command(Command { token, camera: command.camera, action: command.action, args }));
    }

    /// Answers commands that the host did not answer in time.
    fn expire_commands(&mut self, now: Instant) {
        let mut late = Vec::new();
        lock(&self.shared.unanswered).retain(|(token, until)| {
            let is_late = *until <= now;
            if is_late {
                late.push(*token);
            }
            !is_late
        });
        for token in late {
            let message = "the camera did not answer in time".into();
            self.answer(token, Err(CommandError { code: "unanswered".into(), message }));
        }
    }

    fn answer(&mut self, token: CommandToken, outcome: Result<serde_json::Value, CommandError>) {
        if let Err(error) = self.session.answer(token, outcome) {
            // The session forgets the oldest of very many commands.
            self.logger.debug(format_args!("an answer came too late: {}", error.message));
        }
    }

    fn take_orders(&mut self) {
        for info in self.shared.intake.take_unannounced() {
            self.session.announce_track(info);
        }
        loop {
            let Some(order) = lock(&self.shared.orders).pop_front() else { return };
            match order {
                Order::Answer(token, outcome) => self.answer(token, outcome),
                Order::Event(event) => {
                    let pushed = self.session.push_event(clock::now(), event.camera, &event.kind, event.data);
                    if let Err(error) = pushed {
                        // The handle has checked it already.
                        self.logger.error(format_args!("{error}"));
                    }
                }
            }
        }
    }

    fn tell_overflow(&mut self) {
        let now = clock::now();
        if self.overflow_told.is_some_and(|at| now.saturating_since(at) < OVERFLOW_EVERY) {
            return;
        }
        let lost = self.shared.intake.take_overflow();
        if lost > 0 {
            self.overflow_told = Some(now);
            self.warn(Warning::JournalOverflow, format!("the journal is full: {lost} older frames had to go"));
        }
    }

    fn ask_for_keys(&mut self) {
        for track in self.shared.intake.take_key_requests() {
            self.tell(Event::KeyFrameWanted { track });
        }
    }

    fn warn(&mut self, warning: Warning, message: String) {
        self.logger.warn(format_args!("{message}"));
        self.tell(Event::Warning { warning, message });
    }

    fn tell(&mut self, event: Event) {
        match &mut self.ear {
            Ear::Function(function) => function(event),
            Ear::Queue => self.shared.events.push(event),
        }
    }

    /// Copies the counters to where everybody may read them.
    fn publish(&self, traffic: &Traffic) {
        let transfer = self.session.transfer_counts();
        let sessions = self.shared.counts.read().sessions;
        self.shared.counts.write(NetworkCounts {
            bytes_sent: traffic.sent.get(),
            bytes_received: traffic.received.get(),
            frames_sent: transfer.frames_sent,
            frames_lost: transfer.frames_skipped,
            sessions,
            round_trip_us: u64::try_from(self.session.round_trip().as_micros()).unwrap_or(u64::MAX),
            is_connected: self.session.is_established(),
        });
    }

    fn statistics(&self, now: Instant, traffic: &Traffic) -> Statistics {
        self.publish(traffic);
        statistics(&self.shared, now.saturating_since(self.started))
    }
}

enum Read {
    Drained,
    More,
    Ended(Error),
}

/// The product's statistics, from what is counted at both sides of the journal.
pub(crate) fn statistics(shared: &Shared, uptime: Duration) -> Statistics {
    let network = shared.counts.read();
    let (intake, held) = shared.intake.counts();
    Statistics {
        bytes_sent: network.bytes_sent,
        bytes_received: network.bytes_received,
        packets_lost: network.frames_lost,
        reconnections: network.sessions.saturating_sub(1),
        uptime: uptime.as_secs(),
        buffer_size: held as u64,
        frames_accepted: intake.accepted,
        frames_sent: network.frames_sent,
        frames_dropped: intake.dropped,
        round_trip_us: network.round_trip_us,
        ..Statistics::default()
    }
}

/// Random bits for the jitter; a source without any gives the middle.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

//! The one loop where clock, socket, journal and protocol meet. It runs on the agent's thread and owns everything that only this thread needs.
//!
//! Here: from one connection to the next. One connection is in `talk`, what is said to and heard from the host in `host`, what the handle sees in
//! `shared`.

mod held;
mod host;
mod liveness;
mod plan;
mod quiet;
mod rarely;
mod replaced;
mod round_trips;
mod second;
mod shared;
mod spending;
mod talk;
mod watch;
mod window;

pub(crate) use held::Gauge;
pub(crate) use host::Ear;
pub(crate) use quiet::Quiet;
pub(crate) use rarely::Rarely;
pub(crate) use shared::{Order, Shared, statistics};
pub(crate) use spending::Spending;
pub(crate) use window::Hours;

use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};

use camagent_proto::{CloseCode, Error as ProtocolError, Instant, session, stats::Statistics};
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    clock,
    config::Config,
    error::Error,
    event::{Event, Warning},
    logger::Logger,
    net::{self, Connection, Dial, Dialler, Ending, Notices, ServerTime, Servers, Tls, Traffic},
    resolve::Resolver,
    stats::{NetworkCounts, Uplink},
    tunnel::Tunnels,
};
use replaced::Replaced;
use second::Second;
use talk::Talk;

/// How long a stop waits for the card.
const SHELF_WITHIN: Duration = Duration::from_secs(1);
/// The longest pause between attempts while a stop waits for frames to be sent.
const STOPPING_PAUSE: Duration = Duration::from_millis(500);

/// Networks that come and go do not make the agent dial more often than this.
const NETWORK_EVERY: Duration = Duration::from_secs(2);
/// What the kernel tells of it is acted upon within so long, in milliseconds.
const NETWORK_SPREAD_MS: u64 = 1_000;

/// The loop's own things.
pub(crate) struct Driver {
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: session::Agent,
    pub(crate) logger: Logger,
    pub(crate) ear: Ear,
    /// Whether the host answers commands at all.
    pub(crate) answers_commands: bool,
    pub(crate) tls: Option<Tls>,
    pub(crate) servers: Servers,
    pub(crate) quiet: Quiet,
    pub(crate) server_time: Arc<ServerTime>,
    pub(crate) tunnels: Tunnels,
    pub(crate) server_addresses: Resolver,
    pub(crate) started: Instant,
    /// Refused tunnels in the log.
    pub(crate) refusals_logged: Rarely,
    /// Refused tunnels that the host is told of.
    pub(crate) refusals_told: Rarely,
    pub(crate) uplink: Uplink,
    /// When another network last ended a pause.
    pub(crate) network_tried_at: Option<Instant>,
    /// When the host was last told that frames are lost.
    pub(crate) overflow_told: Option<Instant>,
    /// What the octets are for.
    pub(crate) spending: Spending,
    /// What sources produce.
    pub(crate) gauge: Gauge,
    /// When frames of the past may be sent.
    pub(crate) hours: Hours,
}

struct Outcome {
    error: Error,
    lived: Duration,
    ending: Option<Ending>,
    /// Where the server wants its agents to go.
    go_to: Option<usize>,
    /// What takes over at once.
    second: Option<Second>,
}

impl Driver {
    /// Runs until it is told to stop.
    pub(crate) async fn run(mut self) {
        let config = Arc::clone(&self.config);
        for warning in config.warnings.iter().cloned() {
            self.warn(Warning::Configuration, warning);
        }
        for server in config.servers.iter().filter(|server| !server.is_tls()) {
            let message = format!("{server} is not encrypted: use wss:// outside a laboratory");
            self.warn(Warning::Plaintext, message);
        }
        let traffic = Rc::new(Traffic::default());
        let dialler = Dialler::new(&self.config, &self.server_addresses, self.tls.take(), &traffic);
        let notices = self.hear_of_networks();
        let mut replaced = Replaced::default();
        let mut second: Option<Second> = None;
        while !self.is_done() {
            let (server, dial) = match second.take() {
                Some(second) => (second.server, second.into_dial()),
                None => {
                    let (server, _) = self.servers.next();
                    self.logger.debug(format_args!("dialling {}", config.servers[server]));
                    (server, dialler.dial(server, dialler.patience()))
                }
            };
            let Some(outcome) = self.attempt(server, dial, &dialler, &traffic).await else { break };
            let ending = match (outcome.ending, Ending::of(&outcome.error)) {
                // What the server decided last counts more than what was planned.
                (Some(planned), Ending::Trouble) => planned,
                (_, of_error) => of_error,
            };
            let mut pause = self.servers.ended(clock::now(), server, ending, outcome.lived, random());
            if let Some(other) = outcome.go_to {
                self.servers.go_to(server, other);
            }
            // A refusal of the present server says nothing good about the next connection.
            second = outcome.second.filter(|_| matches!(ending, Ending::Trouble));
            if second.is_some() {
                pause = Duration::ZERO;
            }
            let code = match &outcome.error {
                Error::Session(ProtocolError::ClosedByPeer { code, .. }) => *code,
                Error::Session(error) => error.close_code().number(),
                _ => 0,
            };
            match second.is_some() {
                true => self.logger.warn(format_args!("{}; a second connection takes over", outcome.error)),
                false => {
                    self.logger.warn(format_args!("{}; next attempt in {:.1} s", outcome.error, pause.as_secs_f64()));
                }
            }
            self.tell(Event::Disconnected { reason: outcome.error.to_string(), code, retry_in: pause });
            // What a person has to lift does not change while a stop waits.
            if self.shared.is_stopping() && matches!(ending, Ending::Refused | Ending::Replaced) {
                break;
            }
            if code == CloseCode::Replaced.number() && replaced.happened(clock::now()) {
                let message = format!("another agent uses the id {:?}: give each camera its own", self.config.agent_id);
                self.warn(Warning::DuplicateIdentity, message);
            }
            if ending == Ending::Restart {
                self.shared.intake.restart();
                self.ask_for_keys();
            }
            if second.is_none() {
                self.wait().await;
            }
        }
        if let Some(notices) = notices {
            notices.abort();
        }
        self.tunnels.clear();
        self.shared.intake.close();
        if let Some(shelf) = &self.shared.shelf
            && !shelf.stop(SHELF_WITHIN)
        {
            self.logger.warn(format_args!("the journal's card takes too long: what memory had is not on it"));
        }
        self.tell_storage();
        self.logger.info(format_args!("stopped"));
    }

    /// Whether there is nothing more to do: a stop was asked for, and all is sent or the time is up.
    fn is_done(&self) -> bool {
        let mut journal = self.shared.journal();
        self.shared.stop_until().is_some_and(|until| until <= clock::now() || self.session.is_settled(&mut journal))
    }

    /// Lets the kernel tell of other networks, where it does.
    fn hear_of_networks(&self) -> Option<JoinHandle<()>> {
        let mut notices = match Notices::open() {
            Ok(notices) => notices,
            Err(error) => {
                self.logger.info(format_args!("the kernel tells nothing of the network ({error}): only the host can"));
                return None;
            }
        };
        let shared = Arc::clone(&self.shared);
        Some(tokio::spawn(async move {
            loop {
                notices.changed().await;
                shared.note_network_change(false);
            }
        }))
    }

    /// Waits for the time of the next attempt; orders are taken meanwhile. With a stop under way the pauses are short, and another network ends them.
    async fn wait(&mut self) {
        let began = clock::now();
        let mut try_at: Option<Instant> = None;
        while !self.is_done() {
            let now = clock::now();
            if let Some(told_by_host) = self.shared.take_network_change() {
                // One that comes soon after another, as addresses do one by one, waits and is not forgotten.
                let earliest = self.network_tried_at.map_or(now, |at| now.max(at + NETWORK_EVERY));
                // A router that renews addresses tells all cameras behind it at once.
                let spread = if told_by_host { 0 } else { random() % NETWORK_SPREAD_MS };
                let at = earliest + Duration::from_millis(spread);
                try_at = Some(try_at.map_or(at, |before| before.min(at)));
            }
            if try_at.take_if(|at| *at <= now).is_some() && self.servers.network_changed(now) {
                self.logger.info(format_args!("the network has changed: dialling at once"));
                self.network_tried_at = Some(now);
            }
            let (_, mut until) = self.servers.next();
            if self.shared.is_stopping() {
                until = until.min(began + STOPPING_PAUSE);
            }
            self.take_orders();
            self.tell_overflow();
            self.tell_storage();
            self.ask_for_keys();
            if self.session.expire_streams(now) {
                self.tunnels.clear();
            }
            let left = until.saturating_since(now);
            if left.is_zero() {
                return;
            }
            let left = self.session.streams_until().map_or(left, |at| at.saturating_since(now).min(left));
            let left = try_at.map_or(left, |at| at.saturating_since(now).min(left));
            let left = self.overflow_due(now).map_or(left, |after| after.min(left));
            let _ = timeout(left, Arc::clone(&self.shared.wake).notified_owned()).await;
        }
    }

    /// Awaits a dial; `None` when the agent is to stop. In another network it is begun anew: what left by the old one is lost.
    async fn finish(&mut self, server: usize, mut dial: Dial, dialler: &Dialler) -> Option<Result<Connection, Error>> {
        let mut began = clock::now();
        let shared = Arc::clone(&self.shared);
        // What was told before is why it was begun.
        let _ = shared.network_wake.notified().now_or_never();
        loop {
            let stop = pin!(self.given_up());
            let not_before = began + NETWORK_EVERY;
            let network = pin!(async {
                shared.network_wake.notified().await;
                // One that comes soon after the dial began, as addresses do one by one, waits and is not forgotten.
                tokio::time::sleep(not_before.saturating_since(clock::now())).await;
            });
            match select(&mut dial, select(stop, network)).await {
                Either::Left((dialled, _)) => return Some(dialled),
                Either::Right((Either::Left(_), _)) => return None,
                Either::Right((Either::Right(_), _)) => {
                    began = clock::now();
                    dial = dialler.dial(server, dialler.patience());
                }
            }
        }
    }

    /// One connection from dial to end; `None` when the agent is to stop.
    async fn attempt(
        &mut self,
        server: usize,
        dial: Dial,
        dialler: &Dialler,
        traffic: &Rc<Traffic>,
    ) -> Option<Outcome> {
        let began = clock::now();
        self.take_orders();
        let dialled = self.finish(server, dial, dialler).await?;
        self.publish(traffic);
        let connection = match dialled {
            Ok(connection) => connection,
            Err(error) => {
                return Some(Outcome { error, lived: Duration::ZERO, ending: None, go_to: None, second: None });
            }
        };
        self.session.connected(clock::now(), began + dialler.patience());
        self.spending.begin();
        // The first heartbeat goes out with the welcome.
        let numbers = self.statistics(clock::now(), traffic);
        self.session.set_statistics(numbers);
        if let Some((own, _)) = connection.ends() {
            self.quiet.begin(own.ip());
            self.session.set_heartbeat_interval(self.quiet.interval());
        }
        let mut talk = Talk::new(connection, server, &self.shared, self.config.queue_target);
        let closing = std::future::poll_fn(|cx| self.turn(cx, &mut talk, dialler, traffic)).await;
        self.shared.await_frames(false);
        if let Some(silence) = talk.watch.died_after(talk.failure.as_ref().unwrap_or(&closing))
            && talk.connection.ends().is_some_and(|(own, peer)| net::way_to(peer) == Some(own.ip()))
        {
            self.quiet.died(silence);
            self.session.set_heartbeat_interval(self.quiet.interval());
        }
        self.spending.lost();
        self.set_online(false);
        if let Some(shelf) = &self.shared.shelf {
            shelf.set_connected(false);
        }
        if !self.session.disconnected(clock::now()) {
            self.tunnels.clear();
        }
        self.uplink = Uplink::default();
        self.publish(traffic);
        if self.is_done() {
            return None;
        }
        let error = talk.failure.unwrap_or(closing);
        let lived = talk.established_at.map(|at| clock::now().saturating_since(at)).unwrap_or_default();
        Some(Outcome { error, lived, ending: talk.ending, go_to: talk.go_to, second: talk.watch.second })
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
            uplink: self.uplink,
            is_connected: self.session.is_established(),
        });
    }

    fn statistics(&mut self, now: Instant, traffic: &Traffic) -> Statistics {
        self.publish(traffic);
        let (data, server_faults) = self.spending.report(now, traffic.sent.get(), traffic.received.get());
        let numbers = statistics(&self.shared, now.saturating_since(self.started));
        Statistics { data: Some(data), server_faults, held: self.held(), ..numbers }
    }
}

/// Random bits for the jitter; a source without any gives the middle.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

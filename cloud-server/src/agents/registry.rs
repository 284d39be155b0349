//! The registry of agents. The newest connection of an agent wins at once: connections are counted, and the count (the
//! generation) decides whose word holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camagent_proto::CloseCode;
use camagent_proto::message::{Camera, Command, CommandResult, ResumePoint};
use camagent_proto::stats::Statistics;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::visit::{LOOK_EVERY, NotVisited, Visit};
use crate::event::{Event, Events};
use crate::store::AgentRow;

/// Orders that may wait for one connection; one that takes no more is as good as gone.
const MAX_ORDERS: usize = 64;
/// Commands that may wait for answers of one agent.
const MAX_PENDING: usize = 64;
/// Commands for one agent within [`PACE_OF`]. An agent ends a session in which twice as many come.
const MAX_COMMANDS: u32 = 100;
const PACE_OF: Duration = Duration::from_secs(10);
/// Visits that may wait until the connection takes them.
const MAX_VISITS: usize = 32;

/// All agents that were seen since the start.
#[derive(Debug)]
pub struct Agents {
    events: Arc<Events>,
    inner: Mutex<BTreeMap<String, Agent>>,
    /// Wakes visits that wait for an agent.
    joined: Notify,
    /// Agents whose cameras were told since somebody last asked.
    news: Mutex<BTreeSet<String>>,
    /// Wakes whoever waits for such news.
    told: Notify,
}

/// What a connection must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Give the agent a command.
    Command(Command),
    /// End the session and say why.
    Leave(CloseCode, String),
}

/// What an agent says when it joins.
#[derive(Clone, Debug)]
pub struct Joining {
    /// Where it comes from.
    pub address: String,
    /// Hash of the token it showed.
    pub token_hash: [u8; 32],
    /// Its run.
    pub boot: [u8; 16],
    /// Its software.
    pub software: String,
    /// Its cameras.
    pub cameras: Vec<Camera>,
    /// Commands it answers.
    pub capabilities: Vec<String>,
    /// Now, UTC.
    pub now_us: i64,
}

/// A connection's place in the registry.
#[derive(Debug)]
pub struct Membership {
    /// Counts this agent's connections.
    pub generation: u64,
    /// The agent's run.
    pub boot: [u8; 16],
    /// Where its tracks go on.
    pub resume: Vec<ResumePoint>,
    /// How far they were shown: it goes back before that only for what could not be stored.
    pub shown: Vec<ResumePoint>,
    /// What guards the delivery of its frames.
    pub ledger: Ledger,
    /// Orders for the connection.
    pub orders: mpsc::Receiver<Order>,
    /// Visitors that want through to the agent's cameras.
    pub visits: mpsc::Receiver<Visit>,
}

/// Why a command has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFailure {
    /// The agent is not connected.
    Offline,
    /// Too many commands wait already, or came lately.
    Busy,
    /// No answer came in time.
    TimedOut,
}

/// What is known about an agent.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are documented where the API serializes them")]
pub struct AgentStatus {
    pub online: bool,
    pub generation: u64,
    pub address: String,
    pub software: String,
    pub boot: [u8; 16],
    pub connected_us: Option<i64>,
    pub heartbeat_us: Option<i64>,
    pub cameras: Vec<Camera>,
    pub capabilities: Vec<String>,
    pub statistics: Option<Statistics>,
}

#[derive(Debug, Default)]
struct Agent {
    status: AgentStatus,
    token_hash: [u8; 32],
    previous_boot: Option<[u8; 16]>,
    ledger: Ledger,
    orders: Option<mpsc::Sender<Order>>,
    visits: Option<mpsc::Sender<Visit>>,
    pending: HashMap<String, Pending>,
    next_command: u64,
    /// Commands since then.
    lately: Option<(Instant, u32)>,
}

#[derive(Debug)]
struct Pending {
    command: Command,
    answer: oneshot::Sender<CommandResult>,
}

impl Agent {
    /// One more command, if it is not one too many.
    fn pace(&mut self) -> Result<(), CommandFailure> {
        let (since, count) = self.lately.get_or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= PACE_OF {
            (*since, *count) = (Instant::now(), 0);
        }
        if *count == MAX_COMMANDS {
            return Err(CommandFailure::Busy);
        }
        *count += 1;
        Ok(())
    }
}

impl Agents {
    /// Nobody was seen yet.
    #[must_use]
    pub fn new(events: Arc<Events>) -> Self {
        Self { events, inner: Mutex::default(), joined: Notify::new(), news: Mutex::default(), told: Notify::new() }
    }

    /// Takes a connection in. The one before it is told to leave; commands without an answer are given again.
    #[must_use]
    pub fn join(&self, id: &str, joining: Joining) -> Membership {
        let (sender, orders) = mpsc::channel(MAX_ORDERS + MAX_PENDING);
        let mut inner = self.lock();
        let agent = inner.entry(id.to_owned()).or_default();
        let same_boot = agent.status.boot == joining.boot;
        // Two processes that fight for one id come back in turns; a restart brings a boot that was never seen.
        let duplicate = !same_boot && agent.previous_boot == Some(joining.boot);
        if !same_boot && agent.status.generation > 0 {
            agent.previous_boot = Some(agent.status.boot);
        }
        agent.status.generation += 1;
        let generation = agent.status.generation;
        let (resume, shown) = agent.ledger.take_over(generation, joining.boot);
        let replaced = agent.orders.replace(sender.clone());
        if let Some(older) = &replaced {
            let reason = if duplicate {
                format!("two agents use the id \"{id}\" in turns; the newer one is at {}", joining.address)
            } else {
                format!("a newer connection of this agent from {} took over", joining.address)
            };
            let _ = older.try_send(Order::Leave(CloseCode::Replaced, reason));
        }
        // Nobody waits for the others any more; another boot does not know which of them it ran already.
        agent.pending.retain(|_, pending| same_boot && !pending.answer.is_closed());
        for pending in agent.pending.values() {
            let _ = sender.try_send(Order::Command(pending.command.clone()));
        }
        let (visit, visits) = mpsc::channel(MAX_VISITS);
        agent.visits = Some(visit);
        agent.token_hash = joining.token_hash;
        agent.status = AgentStatus {
            online: true,
            generation,
            address: joining.address.clone(),
            software: joining.software,
            boot: joining.boot,
            connected_us: Some(joining.now_us),
            heartbeat_us: None,
            cameras: joining.cameras,
            capabilities: joining.capabilities,
            statistics: agent.status.statistics.take().filter(|_| same_boot),
        };
        let ledger = agent.ledger.clone();
        drop(inner);
        self.joined.notify_waiters();
        self.tell_cameras(id);
        let agent = id.to_owned();
        if replaced.is_some() {
            self.events.emit(Event::AgentReplaced { agent: agent.clone(), generation });
        }
        if duplicate {
            self.events.emit(Event::DuplicateIdentity { agent: agent.clone() });
        }
        self.events.emit(Event::AgentOnline { agent, generation, address: joining.address });
        Membership { generation, boot: joining.boot, resume, shown, ledger, orders, visits }
    }

    /// More cameras of the agent.
    pub fn add_cameras(&self, id: &str, generation: u64, cameras: Vec<Camera>) {
        self.with(id, generation, |agent| agent.status.cameras.extend(cameras));
        self.tell_cameras(id);
    }

    fn tell_cameras(&self, id: &str) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        self.told.notify_one();
    }

    /// Waits until agents tell of their cameras, and gives their ids. For one caller; cancel safe.
    pub async fn cameras_told(&self) -> BTreeSet<String> {
        loop {
            let news = std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner));
            if !news.is_empty() {
                return news;
            }
            self.told.notified().await;
        }
    }

    /// True as soon as the agent is connected, false when it is not within the patience.
    pub async fn wait_online(&self, id: &str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        loop {
            let joined = self.joined.notified();
            if self.lock().get(id).is_some_and(|agent| agent.status.online) {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            let _ = tokio::time::timeout(LOOK_EVERY.min(until - now), joined).await;
        }
    }

    /// A heartbeat came.
    pub fn heartbeat(&self, id: &str, generation: u64, statistics: Option<Statistics>, now_us: i64) {
        self.with(id, generation, |agent| {
            // One that tells none fares as it told before.
            if statistics.is_some() {
                agent.status.statistics = statistics;
            }
            agent.status.heartbeat_us = Some(now_us);
        });
    }

    /// A command's answer came; an answer that nobody waits for is dropped.
    pub fn answer(&self, id: &str, result: CommandResult) {
        let pending = self.lock().get_mut(id).and_then(|agent| agent.pending.remove(&result.id));
        if let Some(pending) = pending {
            let _ = pending.answer.send(result);
        }
    }

    /// A connection is over. An older one than the newest changes nothing.
    pub fn leave(&self, id: &str, generation: u64, reason: &str) {
        let mut was_newest = false;
        self.with(id, generation, |agent| {
            agent.status.online = false;
            agent.orders = None;
            agent.visits = None;
            was_newest = true;
        });
        if was_newest {
            let (agent, reason) = (id.to_owned(), reason.to_owned());
            self.events.emit(Event::AgentOffline { agent, generation, reason });
        }
    }

    /// Gives a command and waits for its answer, across a reconnect of the agent if need be.
    pub async fn command(
        &self,
        id: &str,
        mut command: Command,
        patience: Duration,
    ) -> Result<CommandResult, CommandFailure> {
        let (answer, answered) = oneshot::channel();
        let number;
        {
            let mut inner = self.lock();
            let agent = inner.get_mut(id).filter(|agent| agent.status.online).ok_or(CommandFailure::Offline)?;
            // Forget those whose caller went away.
            agent.pending.retain(|_, pending| !pending.answer.is_closed());
            if agent.pending.len() >= MAX_PENDING {
                return Err(CommandFailure::Busy);
            }
            agent.pace()?;
            agent.next_command += 1;
            number = agent.next_command;
            // Unique also across restarts of the server: the agent remembers ids it has seen.
            let mut random = [0; 8];
            let _ = getrandom::fill(&mut random);
            let key = format!("{number}-{:016x}", u64::from_be_bytes(random));
            command.id = Some(key.clone());
            let orders = agent.orders.as_ref().ok_or(CommandFailure::Offline)?;
            orders.try_send(Order::Command(command.clone())).map_err(|_| CommandFailure::Busy)?;
            agent.pending.insert(key, Pending { command: command.clone(), answer });
        }
        self.events.emit(Event::CommandSent { agent: id.to_owned(), id: number, action: command.action });
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(CommandFailure::Offline),
            Err(_) => Err(CommandFailure::TimedOut),
        }
    }

    /// Hands a visitor to the agent's newest connection; waits at most `patience` for one to be there and to take it. A visit that does not come
    /// to be is [turned away](Visit::turn_away).
    pub async fn visit(&self, id: &str, visit: Visit, patience: Duration) -> Result<(), NotVisited> {
        let until = Instant::now() + patience;
        loop {
            let joined = self.joined.notified();
            let visits = self.lock().get(id).and_then(|agent| agent.visits.clone());
            if let Some(visits) = visits {
                // A connection that has just come has other things to do first, and all who waited for it come at once.
                match tokio::time::timeout_at(until, visits.reserve()).await {
                    Ok(Ok(place)) => {
                        place.send(visit);
                        return Ok(());
                    }
                    // The connection has just ended; the next one takes it.
                    Ok(Err(_)) => {}
                    Err(_) => {
                        visit.turn_away("the agent has too many visitors at once");
                        return Err(NotVisited::Busy);
                    }
                }
            }
            let now = Instant::now();
            if now >= until {
                visit.turn_away("the agent went away");
                return Err(NotVisited::Offline);
            }
            let _ = tokio::time::timeout(LOOK_EVERY.min(until - now), joined).await;
        }
    }

    /// What is known about an agent; none when it was not seen since the start.
    #[must_use]
    pub fn status(&self, id: &str) -> Option<AgentStatus> {
        self.lock().get(id).map(|agent| agent.status.clone())
    }

    /// Whether the agent has a session.
    #[must_use]
    pub fn is_online(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|agent| agent.status.online)
    }

    /// Number of agents that are connected.
    #[must_use]
    pub fn online(&self) -> usize {
        self.lock().values().filter(|agent| agent.status.online).count()
    }

    /// Ends sessions whose agent is not in the database any more, or has another token.
    pub fn enforce(&self, rows: &[AgentRow]) {
        self.lock().retain(|id, agent| {
            let row = rows.iter().find(|row| row.id == *id);
            let order = match row {
                None => Order::Leave(CloseCode::AgentRemoved, "the agent was removed from the server".to_owned()),
                Some(row) if row.token_hash == agent.token_hash => return true,
                Some(_) => Order::Leave(CloseCode::AuthFailed, "the agent has a new token".to_owned()),
            };
            if let Some(orders) = &agent.orders {
                let _ = orders.try_send(order);
            }
            // The generation must go on counting for as long as the old connection may speak.
            row.is_some() || agent.status.online
        });
    }

    fn with(&self, id: &str, generation: u64, change: impl FnOnce(&mut Agent)) {
        let mut inner = self.lock();
        if let Some(agent) = inner.get_mut(id).filter(|agent| agent.status.generation == generation) {
            change(agent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Agent>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use camagent_proto::message::CommandStatus;

    use super::*;

    fn joining(boot: u8) -> Joining {
        Joining {
            address: format!("192.0.2.{boot}:1"),
            token_hash: [1; 32],
            boot: [boot; 16],
            software: "camagent/0".into(),
            cameras: Vec::new(),
            capabilities: Vec::new(),
            now_us: 1,
        }
    }

    fn restart() -> Command {
        Command { action: "restart".into(), ..Command::default() }
    }

    #[tokio::test]
    async fn the_newest_connection_wins_and_the_older_is_told() {
        let events = Arc::new(Events::new());
        let agents = Agents::new(Arc::clone(&events));
        let mut first = agents.join("a", joining(1));
        let second = agents.join("a", joining(2));
        assert!(second.generation > first.generation);
        let Some(Order::Leave(CloseCode::Replaced, reason)) = first.orders.recv().await else { panic!("told") };
        assert!(reason.contains("192.0.2.2"), "{reason}");
        agents.leave("a", first.generation, "late");
        assert!(agents.status("a").expect("seen").online, "the older one's end changes nothing");
        assert_eq!(events.count("duplicate_identity"), 0, "a restart is no duplicate");
        let _third = agents.join("a", joining(1));
        assert_eq!(events.count("duplicate_identity"), 1, "boots in turns are");
    }

    #[tokio::test]
    async fn a_command_is_answered_also_after_a_reconnect() {
        let agents = Arc::new(Agents::new(Arc::default()));
        let patience = Duration::from_secs(5);
        assert_eq!(agents.command("a", restart(), patience).await, Err(CommandFailure::Offline));
        let mut first = agents.join("a", joining(1));
        let waiting = tokio::spawn({
            let agents = Arc::clone(&agents);
            async move { agents.command("a", restart(), patience).await }
        });
        let Some(Order::Command(given)) = first.orders.recv().await else { panic!("given") };
        agents.leave("a", first.generation, "cut");
        let mut second = agents.join("a", joining(1));
        let Some(Order::Command(again)) = second.orders.recv().await else { panic!("given again") };
        assert_eq!(given, again);
        let result = CommandResult {
            id: given.id.expect("an id"),
            status: CommandStatus::Ok,
            result: serde_json::Value::Null,
            error: None,
        };
        agents.answer("a", result.clone());
        assert_eq!(waiting.await.expect("ends"), Ok(result));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_without_an_answer_times_out() {
        let agents = Agents::new(Arc::default());
        let _member = agents.join("a", joining(1));
        assert_eq!(agents.command("a", restart(), Duration::from_secs(1)).await, Err(CommandFailure::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_gets_no_more_commands_than_it_bears() {
        let agents = Agents::new(Arc::default());
        let mut member = agents.join("a", joining(1));
        let mut give = async || {
            let outcome = agents.command("a", restart(), Duration::ZERO).await;
            (outcome, member.orders.try_recv().is_ok())
        };
        for _ in 0..MAX_COMMANDS {
            assert_eq!(give().await, (Err(CommandFailure::TimedOut), true));
        }
        assert_eq!(give().await, (Err(CommandFailure::Busy), false));
        tokio::time::advance(PACE_OF).await;
        assert_eq!(give().await, (Err(CommandFailure::TimedOut), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_nobody_waits_for_is_not_given_again() {
        let agents = Agents::new(Arc::default());
        let member = agents.join("a", joining(1));
        assert_eq!(agents.command("a", restart(), Duration::from_secs(1)).await, Err(CommandFailure::TimedOut));
        agents.leave("a", member.generation, "cut");
        let mut later = agents.join("a", joining(1));
        assert!(later.orders.try_recv().is_err(), "its caller has got its answer: none came");
    }

    #[tokio::test]
    async fn a_command_is_not_given_to_another_boot() {
        let agents = Arc::new(Agents::new(Arc::default()));
        let mut first = agents.join("a", joining(1));
        let waiting = tokio::spawn({
            let agents = Arc::clone(&agents);
            async move { agents.command("a", restart(), Duration::from_secs(60)).await }
        });
        first.orders.recv().await.expect("given");
        let mut rebooted = agents.join("a", joining(2));
        assert!(rebooted.orders.try_recv().is_err(), "it may have been done before the reboot");
        assert_eq!(waiting.await.expect("ends"), Err(CommandFailure::Offline));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_agent_or_its_cameras_is_woken() {
        let agents = Arc::new(Agents::new(Arc::default()));
        assert!(!agents.wait_online("a", Duration::from_secs(3)).await);
        let waiting = tokio::spawn({
            let agents = Arc::clone(&agents);
            async move { (agents.wait_online("a", Duration::from_secs(60)).await, agents.cameras_told().await) }
        });
        tokio::task::yield_now().await;
        let member = agents.join("a", joining(1));
        let (online, told) = waiting.await.expect("ends");
        assert!(online && told.into_iter().eq(["a".to_owned()]));
        agents.add_cameras("a", member.generation, vec![Camera::default()]);
        assert_eq!(agents.cameras_told().await.len(), 1);
    }

    #[tokio::test]
    async fn removed_agents_leave() {
        let agents = Agents::new(Arc::default());
        let mut member = agents.join("a", joining(1));
        let row = AgentRow { id: "a".into(), token_hash: vec![1; 32], created_us: 0, seen_us: None };
        agents.enforce(std::slice::from_ref(&row));
        assert!(member.orders.try_recv().is_err(), "known, with its token");
        agents.enforce(&[]);
        assert!(matches!(member.orders.recv().await, Some(Order::Leave(CloseCode::AgentRemoved, _))));
    }

    #[tokio::test]
    async fn all_who_wait_are_let_in_when_the_agent_comes() {
        let agents = Arc::new(Agents::new(Arc::new(Events::new())));
        let mut told = Vec::new();
        let mut visits = tokio::task::JoinSet::new();
        for number in 0..2 * MAX_VISITS {
            let (farewell, ended) = oneshot::channel();
            let (camera, service) = ("gate".to_owned(), "rtsp".to_owned());
            let socket = Box::new(tokio::io::duplex(1).0);
            let visit = Visit { camera, service, visitor: number.to_string(), socket, farewell };
            let agents = Arc::clone(&agents);
            visits.spawn(async move { agents.visit("a", visit, Duration::from_secs(60)).await });
            told.push(ended);
        }
        tokio::task::yield_now().await;
        let mut member = agents.join("a", joining(1));
        // The connection has other things to do before it looks at visitors.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(told.iter_mut().all(|told| told.try_recv().is_err()), "nobody is turned away");
        for _ in 0..2 * MAX_VISITS {
            member.visits.recv().await.expect("another one");
        }
        while let Some(visited) = visits.join_next().await {
            assert_eq!(visited.expect("no panic"), Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_be_let_in_gets_the_connection_back() {
        let agents = Agents::new(Arc::new(Events::new()));
        let visit = || {
            let (farewell, ended) = oneshot::channel();
            let (camera, service) = ("gate".to_owned(), "rtsp".to_owned());
            let socket = Box::new(tokio::io::duplex(1).0);
            (Visit { camera, service, visitor: String::new(), socket, farewell }, ended)
        };
        let (late, ended) = visit();
        assert_eq!(agents.visit("a", late, Duration::from_secs(1)).await, Err(NotVisited::Offline));
        assert!(ended.await.expect("told").unused.is_some());
        let _member = agents.join("a", joining(1));
        for _ in 0..MAX_VISITS {
            assert_eq!(agents.visit("a", visit().0, Duration::ZERO).await, Ok(()));
        }
        let (late, ended) = visit();
        assert_eq!(agents.visit("a", late, Duration::from_secs(1)).await, Err(NotVisited::Busy));
        assert!(ended.await.expect("told").unused.is_some());
    }
}

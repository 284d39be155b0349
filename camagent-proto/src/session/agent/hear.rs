//! What the agent does with each message and record of the server, and how many of each it bears.

use alloc::{format, string::ToString};

use bytes::Bytes;

use super::{Agent, AgentEvent, Arrival, State};
use crate::{
    error::Error,
    frame::{Frame, MAX_RECORD, RecordReader},
    message::{Command, Goaway, Message, Registered, SourceState},
    time::{Duration, Instant},
    transfer::Journal,
    version,
};

/// Frames of unknown kinds that a peer may send in a session.
const MAX_UNKNOWN: u64 = 1_000;
/// Commands that a server may give in ten seconds.
const MAX_COMMANDS: u64 = 200;
/// Pings and pongs of the WebSocket in ten seconds.
const MAX_PINGS: u64 = 40;
/// Times in ten seconds that a server may ask the agent to leave.
const MAX_GOAWAYS: u64 = 10;
/// Wishes of one kind that a server may have in ten seconds, and those for each source of the agent when that is more: behind `registered`
/// it names them all.
const MAX_WISHES: (u64, u64) = (1_000, 20);

impl Agent {
    pub(super) fn message(&mut self, now: Instant, message: Message, journal: &mut dyn Journal) -> Result<(), Error> {
        match (&self.state, message) {
            (_, Message::Error(error)) => {
                if error.retry_after_ms > 0 {
                    self.events_out.push_back(AgentEvent::RetryAfter(Duration::from_millis(error.retry_after_ms)));
                }
                Err(Error::ClosedByPeer { code: error.code, detail: error.detail })
            }
            (_, Message::Goaway(goaway)) => {
                self.asked.goaways.count(now, "goaway in ten seconds", MAX_GOAWAYS)?;
                let (got, allowed) = (goaway.servers.len() as u64, Goaway::MAX_SERVERS as u64);
                if got > allowed {
                    return Err(Error::Limit { limit: "servers in a goaway", allowed, got });
                }
                self.events_out.push_back(AgentEvent::Goaway(goaway));
                Ok(())
            }
            (State::Registering { .. }, Message::Registered(registered)) => self.registered(now, registered, journal),
            (State::Registering { .. }, other) => Err(unexpected("registered", &other)),
            (_, Message::HeartbeatAck(ack)) => {
                let sent = match ack.sent_us {
                    // Several under way cannot be told apart.
                    0 => (self.bare.0 == 1).then_some(self.bare.1),
                    sent_us => Some(Instant::from_micros(sent_us)),
                };
                if ack.sent_us == 0 {
                    self.bare.0 = self.bare.0.saturating_sub(1);
                }
                if let Some(sent) = sent {
                    (self.round_trip, self.measured_here) = (now.saturating_since(sent), true);
                    self.tunnels.set_round_trip(self.round_trip);
                }
                Ok(())
            }
            (_, Message::Command(command)) => {
                self.asked.commands.count(now, "commands in ten seconds", MAX_COMMANDS)?;
                self.command(command);
                Ok(())
            }
            (_, Message::EventAck(ack)) => {
                self.happenings.kept(ack.sequence);
                Ok(())
            }
            (_, Message::SourceState(state)) => {
                let allowed = self.wishes();
                self.asked.source_states.count(now, "source_state in ten seconds", allowed)?;
                self.retain(&state);
                self.events_out.push_back(AgentEvent::SourceWanted(state));
                Ok(())
            }
            (_, Message::KeyFrame(key_frame)) => {
                let allowed = self.wishes();
                self.asked.key_frames.count(now, "key_frame in ten seconds", allowed)?;
                self.events_out.push_back(AgentEvent::KeyFrame(key_frame));
                Ok(())
            }
            (_, other) => Err(unexpected("a message of a server", &other)),
        }
    }

    /// How many wishes of one kind a server may have in ten seconds.
    fn wishes(&self) -> u64 {
        let sources: usize = self.config.cameras.iter().map(|camera| camera.sources.len()).sum();
        MAX_WISHES.0.max(MAX_WISHES.1 * sources as u64)
    }

    /// A server that names sources which the agent does not have costs no memory.
    fn retain(&mut self, state: &SourceState) {
        let mut cameras = self.config.cameras.iter().filter(|camera| camera.id == state.camera);
        if cameras.any(|camera| camera.sources.iter().any(|source| source.name == state.source)) {
            self.sender.set_retention(&state.camera, &state.source, state.retention);
        }
    }

    fn registered(&mut self, now: Instant, registered: Registered, journal: &mut dyn Journal) -> Result<(), Error> {
        if !version::SUPPORTED.contains(&registered.version) {
            return Err(Error::Incompatible {
                supported: format!("{:?}", version::SUPPORTED),
                offered: registered.version.to_string(),
            });
        }
        self.settle_streams(now, &registered)?;
        self.state = State::Established;
        self.record_limit = usize::try_from(registered.limits.record_bytes).unwrap_or(MAX_RECORD);
        self.wanted_interval = match registered.heartbeat_interval_ms {
            0 => Duration::MAX,
            wanted => Duration::from_millis(wanted.max(1_000)),
        };
        self.heartbeat_interval = self.config.heartbeat_interval.min(self.wanted_interval);
        for state in &registered.sources {
            self.retain(state);
        }
        let lost = !registered.storage_epoch.is_empty()
            && !self.storage_epoch.is_empty()
            && self.storage_epoch != registered.storage_epoch;
        if !registered.storage_epoch.is_empty() {
            self.storage_epoch.clone_from(&registered.storage_epoch);
        }
        self.sender.rewind(now, &registered.resume, &registered.limits, journal, lost);
        self.happenings.rewind();
        // The first heartbeat goes out at once: it tells both ends how far apart they and their clocks are.
        self.heartbeat_at = now;
        self.events_out.push_back(AgentEvent::Registered(registered));
        self.handle_timeout(now);
        Ok(())
    }

    fn command(&mut self, command: Command) {
        match self.commands.arrived(&command) {
            Arrival::New(token) => self.events_out.push_back(AgentEvent::Command(token, command)),
            Arrival::Running => {}
            Arrival::Done(result) => self.outbox.message(&Message::CommandResult(result)),
        }
    }

    pub(super) fn record(&mut self, now: Instant, record: Bytes, journal: &mut dyn Journal) -> Result<(), Error> {
        if self.state != State::Established {
            return Err(Error::Violation { place: "session", expected: "registered first", got: "a record".into() });
        }
        let mut reader = RecordReader::new(record)?;
        while let Some(frame) = reader.next_frame()? {
            match self.tunnels.handle(now, frame)? {
                None => {}
                Some(Frame::Mack(mack)) => self.sender.acknowledged(&mack, journal)?,
                Some(Frame::Arrived(arrived)) => {
                    if arrived.octets > self.records {
                        let got = format!("{} of {}", arrived.octets, self.records);
                        return Err(Error::Violation { place: "ARRIVED", expected: "no more than was sent", got });
                    }
                    self.arrived_octets = arrived.octets;
                    self.arrived = Some(arrived);
                }
                Some(other) => {
                    return Err(Error::Violation {
                        place: "record of a server",
                        expected: "MACK, ARRIVED, or a tunnel's",
                        got: format!("frame {:#x}", other.number()),
                    });
                }
            }
        }
        self.count_unknown(reader.skipped())
    }

    pub(super) fn count_ping(&mut self, now: Instant) -> Result<(), Error> {
        self.asked.pings.count(now, "pings in ten seconds", MAX_PINGS)
    }

    pub(super) fn count_unknown(&mut self, count: u64) -> Result<(), Error> {
        self.unknown += count;
        if self.unknown > MAX_UNKNOWN {
            return Err(Error::Limit { limit: "unknown frames and messages", allowed: MAX_UNKNOWN, got: self.unknown });
        }
        Ok(())
    }
}

fn unexpected(expected: &'static str, got: &Message) -> Error {
    Error::Violation { place: "session", expected, got: got.kind().into() }
}

//! The sample sessions, played by both ends of the implementation: each says exactly what the sample says, at its time.

use std::collections::VecDeque;

use bytes::Bytes;
use camagent_proto::{
    CloseCode, Duration, Instant,
    frame::Frame,
    message::{CommandError, CommandStatus, Goaway, Limits, Message},
    pair::{TestJournal, TestStreams},
    session::{Accept, Agent, AgentConfig, AgentEvent, CommandToken, Server, ServerConfig, ServerEvent, Transmit},
};
use serde_json::Value;

use super::samples::{all, frame, number, octets, text};

/// Both ends, and what is under way between them.
struct Play {
    agent: Agent,
    server: Server,
    journal: TestJournal,
    server_events: Vec<ServerEvent>,
    visitors: TestStreams,
    services: TestStreams,
    commands: Vec<(CommandToken, String)>,
    under_way: VecDeque<(u64, bool, Transmit)>,
    agent_ahead: Duration,
}

impl Play {
    fn new(session: &Value) -> Self {
        let Ok(Some(Message::Register(register))) = Message::read(&session["steps"][0]["text"].to_string()) else {
            panic!("a session begins with register")
        };
        let mut agent = Agent::new(AgentConfig {
            agent_id: register.agent_id,
            token: register.token,
            boot_id: register.boot_id,
            software: register.software,
            cameras: register.cameras,
            capabilities: register.capabilities,
            heartbeat_interval: Duration::from_secs(30),
            tunnels: register.tunnels,
            keep_streams: Duration::from_secs(60),
        });
        let agent_ahead = Duration::from_millis(number(&session["agent_clock_ahead_ms"]));
        agent.connected(Instant::ZERO + agent_ahead, Instant::ZERO + agent_ahead + Duration::from_secs(30));
        let utc_us = i64::try_from(number(&session["server_utc_ms"]) * 1_000).expect("a time");
        let mut play = Self {
            agent,
            server: Server::new(
                ServerConfig { limits: limits(session), ..ServerConfig::default() },
                Instant::ZERO,
                utc_us,
            ),
            journal: TestJournal::default(),
            server_events: Vec::new(),
            visitors: TestStreams::default(),
            services: TestStreams::default(),
            commands: Vec::new(),
            under_way: VecDeque::new(),
            agent_ahead,
        };
        for step in session["steps"].as_array().expect("a list").iter().filter(|step| is_resumed(step)) {
            play.prompt_agent(step, Instant::ZERO);
        }
        play
    }

    /// Lets everything arrive that has to be there at `at_ms`.
    fn deliver(&mut self, at_ms: u64) {
        while self.under_way.front().is_some_and(|(arrives, ..)| *arrives <= at_ms) {
            let (arrives, from_agent, transmit) = self.under_way.pop_front().expect("it was just looked at");
            let now = Instant::from_micros(arrives * 1_000);
            match (from_agent, transmit) {
                (true, Transmit::Text(text)) => self.server.handle_text(now, &text),
                (true, Transmit::Binary(record)) => self.server.handle_binary(now, record),
                (false, Transmit::Text(text)) => {
                    self.agent.handle_text(now + self.agent_ahead, &text, &mut self.journal);
                }
                (false, Transmit::Binary(record)) => self.agent.handle_binary(now, record, &mut self.journal),
                (_, Transmit::Close(..)) => {}
            }
            while let Some(event) = self.agent.poll_event() {
                match event {
                    AgentEvent::Command(token, command) => self.commands.push((token, command.id.unwrap_or_default())),
                    AgentEvent::Failed(error) => panic!("the agent at {arrives} ms: {error}"),
                    AgentEvent::Stream(event) => self.services.hear(event, self.agent.tunnels()),
                    _ => {}
                }
            }
            self.services.take(self.agent.tunnels());
            while let Some(event) = self.server.poll_event() {
                match event {
                    ServerEvent::Failed(error) => panic!("the server at {arrives} ms: {error}"),
                    ServerEvent::Stream(event) => self.visitors.hear(event, self.server.tunnels()),
                    other => self.server_events.push(other),
                }
            }
            self.visitors.take(self.server.tunnels());
        }
    }

    /// Lets the agent's host do what makes the agent say this.
    fn prompt_agent(&mut self, step: &Value, now: Instant) {
        let now = now + self.agent_ahead;
        for means in step["means"].as_array().into_iter().flatten() {
            match frame(means) {
                Frame::Track(mut track) => {
                    track.next = 0;
                    self.agent.announce_track(track, None);
                }
                Frame::Frame(start) => {
                    while self.journal.push(start.track, 1, start.head, start.payload.clone()) < start.sequence {}
                }
                Frame::OpenResult(result) => {
                    self.agent.tunnels().answer(result.stream, result.outcome, &result.detail);
                }
                Frame::Data(data) => self.services.send(data.stream, &data.octets, data.fin),
                Frame::ResetStream(reset) => self.agent.tunnels().abandon(reset.stream, reset.error),
                _ => {}
            }
        }
        for means in step["means"].as_array().into_iter().flatten() {
            if let Frame::Skip(skip) = frame(means) {
                self.journal.evict(skip.track, 1, skip.last + 1);
            }
        }
        if let Some(reason) = step.get("reason") {
            self.agent.close(text(reason));
        }
        match step.get("text").map(|message| Message::read(&message.to_string()).expect("is right").expect("is known"))
        {
            Some(Message::CommandResult(result)) => {
                let at = self.commands.iter().position(|(_, id)| *id == result.id).expect("the command came");
                let (token, _) = self.commands.remove(at);
                let outcome = match result.status {
                    CommandStatus::Ok => Ok(result.result),
                    CommandStatus::Error => Err(result.error.unwrap_or(CommandError::default())),
                };
                self.agent.answer(token, outcome).expect("it waits for its answer");
            }
            Some(Message::Event(event)) => {
                self.agent.push_event(now, event.camera, &event.kind, event.data).expect("small")
            }
            _ => {}
        }
    }

    /// Lets the server's driver do what makes the server say this.
    fn prompt_server(&mut self, step: &Value, now: Instant) {
        let mut events = std::mem::take(&mut self.server_events);
        for means in step["means"].as_array().into_iter().flatten() {
            match frame(means) {
                Frame::Open(open) => {
                    let opened = self.server.tunnels().open(now, &open.camera, &open.service, &open.visitor);
                    assert_eq!(opened, Ok(open.stream));
                }
                Frame::Data(data) => self.visitors.send(data.stream, &data.octets, data.fin),
                Frame::ResetStream(reset) => self.server.tunnels().abandon(reset.stream, reset.error),
                _ => {}
            }
        }
        let Some(message) = step.get("text") else { return };
        match Message::read(&message.to_string()).expect("is right").expect("is known") {
            Message::Registered(registered) => {
                assert!(matches!(events.pop(), Some(ServerEvent::Register(_))));
                self.server.accept(
                    now,
                    Accept {
                        session_id: registered.session_id,
                        generation: registered.generation,
                        sources: registered.sources,
                        resume: registered.resume,
                        storage_epoch: registered.storage_epoch,
                        data_used_bytes: registered.data_used_bytes,
                    },
                );
            }
            Message::Command(command) => self.server.command(command),
            Message::SourceState(state) => self.server.set_wanted(state),
            Message::KeyFrame(key_frame) => self.server.request_key_frame(key_frame),
            Message::EventAck(ack) => {
                assert!(
                    events.iter().any(|event| matches!(event, ServerEvent::Event(e) if e.sequence == ack.sequence))
                );
                self.server.keep_event(ack.sequence);
            }
            Message::Goaway(goaway) => self.server.goaway(Goaway { ..goaway }),
            _ => {}
        }
    }

    fn says(&mut self, by_agent: bool, now: Instant) -> Option<Transmit> {
        if by_agent {
            self.agent.tunnels().look_again();
            self.agent.poll_transmit(now, &mut self.journal, &mut self.services, usize::MAX)
        } else {
            self.server.tunnels().look_again();
            self.server.poll_transmit(now, &mut self.visitors)
        }
    }
}

/// What the server of a session takes.
fn limits(session: &Value) -> Limits {
    let steps = session["steps"].as_array().expect("a list");
    let messages = steps.iter().filter_map(|step| Message::read(&step.get("text")?.to_string()).ok()?);
    let mut welcome = messages.filter_map(|message| match message {
        Message::Registered(registered) => Some(registered.limits),
        _ => None,
    });
    welcome.next_back().expect("the server welcomes the agent")
}

/// Whether this goes on with a track that the agent had before the session began.
fn is_resumed(step: &Value) -> bool {
    step["means"].as_array().into_iter().flatten().any(|means| means["kind"] == "TRACK" && means["next"] != 0)
}

fn check(session: &str, step: &Value, said: Option<&Transmit>) {
    let at = format!("{session} at {} ms", step["at_ms"]);
    match said.unwrap_or_else(|| panic!("{at}: nothing is said, {step} is expected")) {
        Transmit::Text(told) => assert_eq!(serde_json::from_str::<Value>(told).expect("JSON"), step["text"], "{at}"),
        Transmit::Binary(record) => {
            let expected: Bytes = octets(&step["hex"]);
            assert_eq!(format!("{record:02x}"), format!("{expected:02x}"), "{at}");
        }
        Transmit::Close(code, reason) => {
            let expected = CloseCode::from_number(number(&step["close"]) as u16);
            assert_eq!((Some(*code), reason.as_str()), (expected, text(&step["reason"])), "{at}");
        }
    }
}

#[test]
fn both_ends_play_the_sessions() {
    for (name, session) in all("sessions") {
        let mut play = Play::new(&session);
        let delay_ms = number(&session["delay_ms"]);
        let steps = session["steps"].as_array().expect("a list");
        // What one end says at one moment is prompted together.
        for together in steps.chunk_by(|one, next| one["at_ms"] == next["at_ms"] && one["from"] == next["from"]) {
            let at_ms = number(&together[0]["at_ms"]);
            let (now, by_agent) = (Instant::from_micros(at_ms * 1_000), text(&together[0]["from"]) == "agent");
            play.deliver(at_ms);
            for step in together {
                match by_agent {
                    true if is_resumed(step) => {}
                    true => play.prompt_agent(step, now),
                    false => play.prompt_server(step, now),
                }
            }
            for step in together {
                let said = play.says(by_agent, now);
                check(&name, step, said.as_ref());
                play.under_way.extend(said.map(|said| (at_ms + delay_ms, by_agent, said)));
            }
        }
        let end_ms = number(&steps[steps.len() - 1]["at_ms"]) + delay_ms;
        play.deliver(end_ms);
        let now = Instant::from_micros(end_ms * 1_000);
        assert_eq!((play.says(true, now), play.says(false, now)), (None, None), "{name}: nothing is left to say");
    }
}

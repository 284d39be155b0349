//! What the session and the host say to each other through the loop: events, commands and their answers, tracks that begin.

use std::time::Duration;

use camagent_proto::{
    Instant,
    message::{self, CommandError, Registered},
    session::{AgentEvent, CommandToken},
};

use super::{Driver, Order, talk::Talk};
use crate::{
    clock,
    command::Command,
    config::ServerUrl,
    event::{Event, Warning},
    net::Ending,
    tunnel::Happening,
};

/// How long a host may take for an answer when the server does not say.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A full journal is told at most this often.
const OVERFLOW_EVERY: Duration = Duration::from_secs(10);

/// Characters of a server's words in the log.
const MAX_WORDS: usize = 64;

/// How the host hears events.
pub(crate) enum Ear {
    /// By this function, on the agent's thread.
    Function(Box<dyn FnMut(Event) + Send>),
    /// By fetching them.
    Queue,
}

impl Driver {
    /// What the session says.
    pub(super) fn hear(&mut self, talk: &mut Talk, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                AgentEvent::Registered(registered) => {
                    talk.established_at = Some(now);
                    self.welcome(talk, registered, now);
                }
                AgentEvent::Command(token, command) => self.command(talk, token, command, now),
                AgentEvent::SourceWanted(state) => self.want(&state.camera, &state.source, state.wanted),
                AgentEvent::KeyFrame(wanted) => {
                    for track in self.shared.intake.video_tracks(&wanted.camera, &wanted.source) {
                        self.tell(Event::KeyFrameWanted { track });
                    }
                }
                AgentEvent::KeyFrameNeeded(track) if self.shared.intake.is_pushed(track) => {
                    self.tell(Event::KeyFrameWanted { track });
                }
                AgentEvent::TargetBitrate { track, bits_per_second } if self.shared.intake.is_pushed(track) => {
                    let bits_per_second = u32::try_from(bits_per_second).unwrap_or(u32::MAX);
                    self.tell(Event::TargetBitrate { track, bits_per_second });
                }
                // What is pulled comes as its camera makes it.
                AgentEvent::KeyFrameNeeded(_) | AgentEvent::TargetBitrate { .. } => {}
                AgentEvent::Goaway(goaway) => {
                    self.logger.info(format_args!("the server asks to leave: {:?}", short(&goaway.reason)));
                    talk.leave_at = Some(now + Duration::from_millis(goaway.after_ms.min(60_000)));
                    let spread = Duration::from_millis(goaway.spread_ms.min(600_000));
                    talk.ending = Some(Ending::Goaway { spread });
                    talk.go_to = self.named(&goaway.servers);
                }
                AgentEvent::RetryAfter(after) => talk.ending = Some(Ending::retry_after(after)),
                AgentEvent::StreamsLost => self.tunnels.clear(),
                AgentEvent::Stream(event) => {
                    self.spending.hear(&event);
                    let happening = self.tunnels.hear(event, self.session.tunnels());
                    happening.into_iter().for_each(|happening| self.tell_tunnel(happening));
                }
                AgentEvent::Failed(error) => {
                    self.spending.blame(&error);
                    talk.failure = Some(error.into());
                    talk.end_soon(now);
                }
            }
        }
        self.tell_overflow();
        self.tell_storage();
        self.ask_for_keys();
    }

    fn welcome(&mut self, talk: &Talk, registered: Registered, now: Instant) {
        let address = &talk.connection.address;
        let mut counts = self.shared.counts.read();
        counts.sessions += 1;
        self.shared.counts.write(counts);
        if registered.server_time_ms > 0 && self.config.servers[talk.server].is_tls() {
            self.server_time.told(registered.server_time_ms, now);
        }
        if registered.server_time_ms > 0 {
            let (boot_us, utc_us) = (now.as_micros(), registered.server_time_ms.saturating_mul(1_000));
            self.shared.run.set_clock(boot_us, utc_us);
            self.shared.shelf.iter().for_each(|shelf| shelf.set_clock(boot_us, utc_us));
        }
        self.logger.info(format_args!("connected to {address}, session {}", registered.session_id));
        if registered.streams.is_some() {
            self.tunnels.resumed();
            let count = self.session.tunnels().open_streams();
            self.logger.info(format_args!("{count} tunnels go on where they were"));
        }
        self.tell(Event::Connected { session_id: registered.session_id, address: address.clone() });
        self.told_use(now, registered.data_used_bytes, registered.server_time_ms);
        self.set_online(true);
        self.hours.told(now, registered.server_time_ms);
        self.keep_hours(now);
        for state in registered.sources {
            self.want(&state.camera, &state.source, state.wanted);
        }
    }

    /// The first of the servers that a server names which the configuration names too: the token goes to nobody else.
    fn named(&self, urls: &[String]) -> Option<usize> {
        let known = urls.iter().find_map(|url| {
            let url = ServerUrl::parse(url).ok()?;
            self.config.servers.iter().position(|server| *server == url)
        });
        if known.is_none() && !urls.is_empty() {
            self.logger
                .warn(format_args!("the server names others that agent.cloud_server_url does not: they are not asked"));
        }
        known
    }

    /// There is a session now, or none.
    pub(super) fn set_online(&mut self, is_online: bool) {
        for (track, wanted) in self.shared.intake.set_online(is_online) {
            self.tell(Event::TrackWanted { track, wanted });
        }
    }

    fn want(&mut self, camera: &str, source: &str, wanted: bool) {
        let wanted = self.wish(camera, source, wanted);
        for track in self.shared.intake.set_wanted(camera, source, wanted) {
            self.tell(Event::TrackWanted { track, wanted });
        }
    }

    fn command(&mut self, talk: &mut Talk, token: CommandToken, command: message::Command, now: Instant) {
        self.logger.info(format_args!("command {:?}", short(&command.action)));
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
        if !self.shared.expect_answer(token, now + within) {
            return self.answer(token, Err(refuse("busy", "too many commands wait for the camera's answer")));
        }
        let args = command.args.to_string();
        self.tell(Event::Command(Command { token, camera: command.camera, action: command.action, args }));
    }

    /// Answers commands that the host did not answer in time.
    pub(super) fn expire_commands(&mut self, now: Instant) {
        for token in self.shared.take_late(now) {
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

    pub(super) fn take_orders(&mut self) {
        for info in self.shared.intake.take_unannounced() {
            if self.spending.track(info.track, &info.camera, &info.source) {
                for track in self.shared.intake.set_wanted(&info.camera, &info.source, false) {
                    self.tell(Event::TrackWanted { track, wanted: false });
                }
            }
            let budget = self.config.latency_budget_of(&info.camera, &info.source);
            self.session.announce_track(info, budget);
        }
        while let Some(order) = self.shared.next_order() {
            match order {
                Order::Answer(token, outcome) => self.answer(token, outcome),
                #[cfg(feature = "pull")]
                Order::Warn(message) => self.warn(Warning::Source, message),
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

    pub(super) fn tell_tunnel(&mut self, happening: Happening) {
        match happening {
            Happening::Opened(names) => self.logger.info(format_args!("tunnel opened: {names}")),
            Happening::Closed(names) => self.logger.info(format_args!("tunnel closed: {names}")),
            Happening::Unreachable(names) => self.logger.warn(format_args!("tunnel leads nowhere: {names}")),
            Happening::Refused(why) => self.tell_refusal(&format!("tunnel refused: {why}")),
        }
    }

    /// A server can ask for what it does not get as fast as the line carries it.
    fn tell_refusal(&mut self, message: &str) {
        let now = clock::now();
        let with = |others: u64| match others {
            0 => message.to_owned(),
            _ => format!("{message} ({others} others before)"),
        };
        if let Some(others) = self.refusals_logged.take(now) {
            self.logger.warn(format_args!("{}", with(others)));
        }
        if let Some(others) = self.refusals_told.take(now) {
            self.tell(Event::Warning { warning: Warning::TunnelRefused, message: with(others) });
        }
    }

    /// Those that no later refusal has told.
    pub(super) fn tell_refusals_left_out(&mut self, now: Instant) {
        let message = |others: u64| format!("tunnels refused: {others} others before");
        if let Some(others) = self.refusals_logged.rest(now) {
            self.logger.warn(format_args!("{}", message(others)));
        }
        if let Some(others) = self.refusals_told.rest(now) {
            self.tell(Event::Warning { warning: Warning::TunnelRefused, message: message(others) });
        }
    }

    pub(super) fn tell_overflow(&mut self) {
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

    /// After how long frames that went are told of: when some went since they were told of last.
    pub(super) fn overflow_due(&self, now: Instant) -> Option<Duration> {
        let told = self.overflow_told.filter(|_| self.shared.intake.has_overflow())?;
        Some((told + OVERFLOW_EVERY).saturating_since(now))
    }

    /// What the disk thread has to say.
    pub(super) fn tell_storage(&mut self) {
        let tellings = self.shared.shelf.as_ref().map(|shelf| shelf.take_tellings()).unwrap_or_default();
        tellings.into_iter().for_each(|what| self.warn(Warning::Storage, what));
    }

    pub(super) fn ask_for_keys(&mut self) {
        for track in self.shared.intake.take_key_requests() {
            self.tell(Event::KeyFrameWanted { track });
        }
    }

    pub(super) fn warn(&mut self, warning: Warning, message: String) {
        self.logger.warn(format_args!("{message}"));
        self.tell(Event::Warning { warning, message });
    }

    pub(super) fn tell(&mut self, event: Event) {
        match &mut self.ear {
            Ear::Function(function) => function(event),
            Ear::Queue => self.shared.events.push(event),
        }
    }
}

/// The beginning of a server's words.
fn short(words: &str) -> &str {
    words.char_indices().nth(MAX_WORDS).map_or(words, |(at, _)| &words[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_server_are_cut_between_characters() {
        assert_eq!(short("restart"), "restart");
        assert_eq!(short(&"ü".repeat(64)), "ü".repeat(64));
        assert_eq!(short(&"ü".repeat(9_000)), "ü".repeat(64));
    }
}

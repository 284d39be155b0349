//! What an agent remembers across connections: commands it was given, and events that the server has not kept yet.

use alloc::{collections::VecDeque, string::String};

use crate::message::{Command, CommandResult, Event};

/// Results that are kept, so that a repeated command is answered instead of run again.
const MAX_COMMANDS: usize = 64;
/// Events that may wait for the server; the oldest goes first.
const MAX_EVENTS: usize = 64;

/// Names a command towards the host until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandToken(pub u64);

#[derive(Debug)]
struct Remembered {
    id: String,
    token: CommandToken,
    result: Option<CommandResult>,
}

/// What is to be done with a command that came in.
#[derive(Debug, PartialEq)]
pub(super) enum Arrival {
    New(CommandToken),
    Running,
    Done(CommandResult),
}

#[derive(Debug, Default)]
pub(super) struct Commands {
    remembered: VecDeque<Remembered>,
    last: u64,
}

impl Commands {
    pub(super) fn arrived(&mut self, command: &Command) -> Arrival {
        let id = command.id.clone().unwrap_or_default();
        if !id.is_empty()
            && let Some(known) = self.remembered.iter().find(|known| known.id == id)
        {
            return known.result.clone().map_or(Arrival::Running, Arrival::Done);
        }
        self.last += 1;
        let token = CommandToken(self.last);
        if self.remembered.len() == MAX_COMMANDS {
            // Rather one that no repeat can name, then one that is answered; a running one only when all are.
            let forgettable = |known: &Remembered| known.id.is_empty() && known.result.is_some();
            let answered = |known: &Remembered| known.result.is_some();
            let at = self.remembered.iter().position(forgettable).or_else(|| self.remembered.iter().position(answered));
            self.remembered.remove(at.unwrap_or(0));
        }
        self.remembered.push_back(Remembered { id, token, result: None });
        Arrival::New(token)
    }

    /// Keeps a result; `None` when the command is unknown, was answered, or has no id to answer to.
    pub(super) fn finish(
        &mut self,
        token: CommandToken,
        result: impl FnOnce(String) -> CommandResult,
    ) -> Result<Option<CommandResult>, ()> {
        let known = self.remembered.iter_mut().find(|known| known.token == token && known.result.is_none()).ok_or(())?;
        let result = result(known.id.clone());
        known.result = Some(result.clone());
        Ok((!known.id.is_empty()).then_some(result))
    }
}

#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<Event>,
    last: u64,
    /// The newest event that was sent in this session.
    sent: u64,
    /// The newest event that was ever sent: a server cannot keep what it has not seen.
    ever_sent: u64,
}

impl Events {
    pub(super) fn push(&mut self, mut event: Event) {
        self.last += 1;
        event.sequence = self.last;
        if self.waiting.len() == MAX_EVENTS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(event);
    }

    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    pub(super) fn kept(&mut self, sequence: u64) {
        let sequence = sequence.min(self.ever_sent);
        self.waiting.retain(|event| event.sequence > sequence);
    }

    pub(super) fn next_to_send(&mut self) -> Option<Event> {
        let event = self.waiting.iter().find(|event| event.sequence > self.sent)?;
        self.sent = event.sequence;
        self.ever_sent = self.ever_sent.max(self.sent);
        Some(event.clone())
    }

    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::CommandStatus;

    fn result(id: String) -> CommandResult {
        CommandResult { id, status: CommandStatus::Ok, result: Default::default(), error: None }
    }

    #[test]
    fn a_repeated_command_is_answered_and_not_run() {
        let mut commands = Commands::default();
        let command = Command { id: Some("7".into()), action: "reboot".into(), ..Default::default() };
        let Arrival::New(token) = commands.arrived(&command) else { panic!() };
        assert_eq!(commands.arrived(&command), Arrival::Running);
        let answer = commands.finish(token, result).unwrap().unwrap();
        assert_eq!(commands.arrived(&command), Arrival::Done(answer));
        assert_eq!(commands.finish(token, result), Err(()), "a second answer is refused");
    }

    #[test]
    fn commands_without_id_are_never_repeats() {
        let mut commands = Commands::default();
        let command = Command { action: "reboot".into(), ..Default::default() };
        let Arrival::New(token) = commands.arrived(&command) else { panic!() };
        assert!(matches!(commands.arrived(&command), Arrival::New(_)));
        assert_eq!(commands.finish(token, result), Ok(None));
    }

    #[test]
    fn events_are_told_again_until_kept() {
        let mut events = Events::default();
        events.push(Event { kind: "a".into(), ..Default::default() });
        events.push(Event { kind: "b".into(), ..Default::default() });
        assert_eq!(events.next_to_send().unwrap().sequence, 1);
        assert_eq!(events.next_to_send().unwrap().sequence, 2);
        assert_eq!(events.next_to_send(), None);
        events.kept(1);
        events.rewind();
        assert_eq!(events.next_to_send().unwrap().kind, "b");
        events.kept(2);
        assert!(events.is_settled());
    }
}

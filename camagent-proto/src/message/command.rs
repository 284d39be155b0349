//! `command` and `command_result`: at least once on the wire, at most once in effect.

use alloc::string::String;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `command`: something that the agent or its host is to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Names the command in its result. A repeat with the same id is answered, not run again. Without one no result is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The camera it is for; left out when it is for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    /// What to do: `restart`, or a name that the host knows.
    pub action: String,
    /// Details, an object or nothing.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub args: Value,
    /// After so many milliseconds nobody waits for the result any more; 0 for no limit.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandStatus {
    /// Done.
    Ok,
    /// Not done.
    Error,
}

/// Why a command was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandError {
    /// For machines: `unsupported`, `busy`, `failed`, or the host's own word.
    pub code: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

/// `command_result`: what came of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The command's id.
    pub id: String,
    /// How it ended.
    pub status: CommandStatus,
    /// What it gave, when it was done.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// Why not, when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CommandError>,
}

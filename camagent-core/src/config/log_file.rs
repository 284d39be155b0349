//! `agent.log_file` and its sizes: where a program around the agent writes the log. The agent itself only gives messages to its host's logger.

use std::path::PathBuf;

use serde_json::Value;

use super::reader::Section;
use crate::error::Error;

/// The file that is meant when `log_file` says only `true`.
pub const DEFAULT_LOG_FILE: &str = "/var/log/camera_agent/agent.log";

/// A log file that does not grow without end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The file; `None` writes none. Default none.
    pub path: Option<PathBuf>,
    /// Bytes after which it becomes `.1` and a new one begins. Default 1 MiB, some 10 000 lines.
    pub max_bytes: u64,
    /// Old files that are kept: `.1` is the youngest. Default 3, so four times `max_bytes` lie on the disk at most.
    pub old_files: u32,
}

impl Default for LogFile {
    fn default() -> Self {
        Self { path: None, max_bytes: 1 << 20, old_files: 3 }
    }
}

pub(super) fn read(agent: &Section<'_>) -> Result<LogFile, Error> {
    let default = LogFile::default();
    let path = match agent.value("log_file") {
        None | Some(Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(DEFAULT_LOG_FILE.into()),
        Some(Value::String(path)) if !path.is_empty() && !path.contains('\0') => Some(PathBuf::from(path)),
        Some(_) => return Err(agent.wrong("log_file", "the path of a file, or true for the usual one")),
    };
    let max_bytes = agent.integer("log_file_size", 4_096, 1 << 30)?.unwrap_or(default.max_bytes);
    let old_files = agent.integer("log_file_count", 0, 99)?.and_then(|count| u32::try_from(count).ok());
    Ok(LogFile { path, max_bytes, old_files: old_files.unwrap_or(default.old_files) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn with(keys: &str) -> Result<LogFile, Error> {
        let agent = r#""agent_id":"a","cloud_server_url":"ws://h","cloud_server_token":"t""#;
        Config::from_json(&format!("{{\"agent\":{{{agent}{keys}}}}}")).map(|config| {
            assert!(config.warnings.is_empty(), "{:?}", config.warnings);
            config.log_file
        })
    }

    #[test]
    fn a_file_is_written_when_it_is_wanted() {
        assert_eq!(with("").unwrap(), LogFile::default());
        assert_eq!(with(r#","log_file":false"#).unwrap().path, None);
        assert_eq!(with(r#","log_file":true"#).unwrap().path, Some(DEFAULT_LOG_FILE.into()));
        let all = with(r#","log_file":"/tmp/a.log","log_file_size":4096,"log_file_count":0"#).unwrap();
        assert_eq!(all, LogFile { path: Some("/tmp/a.log".into()), max_bytes: 4_096, old_files: 0 });
        for (wrong, allowed) in [
            (r#","log_file":7"#, "path"),
            (r#","log_file":"""#, "path"),
            (r#","log_file_size":100"#, "4096"),
            (r#","log_file_count":100"#, "99"),
        ] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("agent.log_file") && error.contains(allowed), "{error}");
        }
    }
}

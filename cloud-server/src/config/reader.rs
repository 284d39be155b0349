//! Reads one TOML document section by section, collecting every problem before it speaks. What the keys mean is the
//! sections' own business.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::{Table, Value};

use crate::error::{Error, Result};

/// A parsed file and what was found wrong in it so far.
pub(super) struct Document {
    table: Table,
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// One `[section]`; a key that is read is taken out, what stays is unknown.
pub(super) struct Section<'a> {
    name: &'static str,
    table: Table,
    problems: &'a mut Vec<String>,
}

impl Document {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let table = text.parse::<Table>().map_err(|error| Error::Config(error.to_string()))?;
        Ok(Self { table, problems: Vec::new(), warnings: Vec::new() })
    }

    pub(super) fn section<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let table = match self.table.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.problems.push(format!("{name} = {}: [{name}] is a section", show(&other)));
                Table::new()
            }
        };
        let mut section = Section { name, table, problems: &mut self.problems };
        let read = read(&mut section);
        self.warnings.extend(section.table.keys().map(|key| format!("unknown key {name}.{key} is ignored")));
        read
    }

    /// The warnings, or one error with all problems.
    pub(super) fn finish(mut self) -> Result<Vec<String>> {
        self.warnings.extend(self.table.keys().map(|key| format!("unknown section {key} is ignored")));
        if self.problems.is_empty() { Ok(self.warnings) } else { Err(Error::Config(self.problems.join("\n"))) }
    }
}

impl Section<'_> {
    fn wrong<T>(&mut self, key: &str, value: impl Display, allowed: impl Display) -> Option<T> {
        self.problems.push(format!("{}.{key} = {value}: {allowed}", self.name));
        None
    }

    /// An address with a port.
    pub(super) fn address(&mut self, key: &str, default: SocketAddr) -> SocketAddr {
        match self.table.remove(key) {
            None => None,
            Some(Value::String(text)) => match text.parse() {
                Ok(address) => Some(address),
                Err(_) => self.wrong(key, quoted(&text), "must be an address with a port, as \"127.0.0.1:8080\""),
            },
            Some(other) => self.wrong(key, show(&other), "must be an address with a port, as \"127.0.0.1:8080\""),
        }
        .unwrap_or(default)
    }

    /// A whole number within a range.
    pub(super) fn integer(&mut self, key: &str, range: RangeInclusive<i64>, default: i64) -> i64 {
        let allowed = format!("must be a whole number from {} to {}", range.start(), range.end());
        match self.table.remove(key) {
            None => None,
            Some(Value::Integer(number)) if range.contains(&number) => Some(number),
            Some(other) => self.wrong(key, show(&other), allowed),
        }
        .unwrap_or(default)
    }

    /// Seconds, whole or broken, within a range.
    pub(super) fn seconds(&mut self, key: &str, range: RangeInclusive<f64>, default: Duration) -> Duration {
        let allowed = format!("must be seconds from {} to {}", range.start(), range.end());
        let value = self.table.remove(key);
        #[allow(clippy::cast_precision_loss, reason = "seconds in a configuration are far below 2^52")]
        let number = match &value {
            None => return default,
            Some(Value::Integer(number)) => Some(*number as f64),
            Some(Value::Float(number)) => Some(*number),
            Some(_) => None,
        };
        match (number, value) {
            (Some(number), _) if range.contains(&number) => Duration::from_secs_f64(number),
            (_, Some(other)) => self.wrong(key, show(&other), allowed).unwrap_or(default),
            (_, None) => default,
        }
    }

    /// One of a few words.
    pub(super) fn word(&mut self, key: &str, words: &[&'static str], default: &'static str) -> &'static str {
        let allowed = format!("must be one of {}", words.join(", "));
        match self.table.remove(key) {
            None => None,
            Some(Value::String(text)) => match words.iter().find(|word| text.eq_ignore_ascii_case(word)) {
                Some(word) => Some(*word),
                None => self.wrong(key, quoted(&text), allowed),
            },
            Some(other) => self.wrong(key, show(&other), allowed),
        }
        .unwrap_or(default)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.table.remove(key) {
            None => None,
            Some(Value::Boolean(flag)) => Some(flag),
            Some(other) => self.wrong(key, show(&other), "must be true or false"),
        }
        .unwrap_or(default)
    }

    /// A text that can be read as something else.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self, key: &str, allowed: &str, default: T) -> T {
        match self.table.remove(key) {
            None => None,
            Some(Value::String(text)) => text.parse().ok().or_else(|| self.wrong(key, quoted(&text), allowed)),
            Some(other) => self.wrong(key, show(&other), allowed),
        }
        .unwrap_or(default)
    }

    /// A list of such texts.
    pub(super) fn all_parsed<T>(&mut self, key: &str, allowed: &str, parse: fn(&str) -> Option<T>) -> Vec<T> {
        self.few_parsed(key, usize::MAX, allowed, parse)
    }

    /// A list of at most so many.
    pub(super) fn few_parsed<T>(
        &mut self,
        key: &str,
        most: usize,
        allowed: &str,
        parse: fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let Some(value) = self.table.remove(key) else { return Vec::new() };
        let few = value.as_array().filter(|values| values.len() <= most);
        let parsed = few.and_then(|values| values.iter().map(|value| parse(value.as_str()?)).collect());
        parsed.or_else(|| self.wrong(key, show(&value), allowed)).unwrap_or_default()
    }

    /// Any text, or nothing.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key) {
            None => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => self.wrong(key, show(&other), "must be text in quotes"),
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let allowed = "must be a list of texts, as [\"a\", \"b\"]";
        match self.table.remove(key) {
            None => None,
            Some(Value::Array(values)) => {
                let texts: Option<Vec<_>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
                match texts {
                    Some(texts) => Some(texts),
                    None => self.wrong(key, show(&Value::Array(values)), allowed),
                }
            }
            Some(other) => self.wrong(key, show(&other), allowed),
        }
        .unwrap_or_default()
    }
}

/// Text as a TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// A value as the operator wrote it, more or less.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(moment) => moment.to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Table(_) => "{…}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_can_be_read_again() {
        let nasty = "a\"b\\c\nd\u{7f}é";
        let table: Table = format!("x = {}", quoted(nasty)).parse().expect("TOML");
        assert_eq!(table["x"].as_str(), Some(nasty));
    }
}

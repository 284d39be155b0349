//! Reads one JSON object key by key: what is asked for is used, what is left over is a warning.

use std::{cell::RefCell, rc::Rc};

use serde_json::{Map, Value};

use crate::error::Error;

/// An object of the configuration and its dotted path.
pub(super) struct Section<'a> {
    path: String,
    map: Option<&'a Map<String, Value>>,
    used: RefCell<Vec<&'a str>>,
    /// The same list for all objects of a configuration.
    warnings: Rc<RefCell<Vec<String>>>,
}

impl<'a> Section<'a> {
    pub(super) fn root(value: &'a Value) -> Result<Self, Error> {
        match value {
            Value::Object(map) => Ok(Self::new(String::new(), Some(map), &Rc::default())),
            other => Err(Error::ConfigText(format!("an object is wanted, got {}", shown(other)))),
        }
    }

    fn new(path: String, map: Option<&'a Map<String, Value>>, warnings: &Rc<RefCell<Vec<String>>>) -> Self {
        Self { path, map, used: RefCell::default(), warnings: Rc::clone(warnings) }
    }

    /// The object behind `key`, an empty one when it is not there.
    pub(super) fn section(&self, key: &str) -> Result<Section<'a>, Error> {
        match self.value(key) {
            None => Ok(Self::new(self.key(key), None, &self.warnings)),
            Some(Value::Object(map)) => Ok(Self::new(self.key(key), Some(map), &self.warnings)),
            Some(_) => Err(self.wrong(key, "an object")),
        }
    }

    pub(super) fn required_section(&self, key: &str) -> Result<Section<'a>, Error> {
        let section = self.section(key)?;
        if section.map.is_none() {
            return Err(self.missing(key, "an object"));
        }
        Ok(section)
    }

    /// The objects of the list behind `key`.
    pub(super) fn sections(&self, key: &str) -> Result<Option<Vec<Section<'a>>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let Value::Array(items) = value else { return Err(self.wrong(key, "a list of objects")) };
        let section = |(at, item): (usize, &'a Value)| match item {
            Value::Object(map) => Ok(Self::new(format!("{}[{at}]", self.key(key)), Some(map), &self.warnings)),
            _ => Err(self.wrong(key, "a list of objects")),
        };
        items.iter().enumerate().map(section).collect::<Result<_, _>>().map(Some)
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.map.into_iter().flat_map(|map| map.keys()).map(String::as_str)
    }

    /// The objects behind all keys: name and section.
    pub(super) fn named_sections(&self) -> Result<Vec<(&'a str, Section<'a>)>, Error> {
        self.keys().map(|key| Ok((key, self.section(key)?))).collect()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.map.is_some_and(|map| map.contains_key(key))
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<String>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let strings = value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.as_str().map(String::from)).collect::<Option<Vec<_>>>());
        strings.map(Some).ok_or_else(|| self.wrong(key, "a list of strings"))
    }

    pub(super) fn integer(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(key, &format!("a whole number from {least} to {most}"))),
        }
    }

    /// One of the given words, in any case.
    pub(super) fn one_of<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_str().unwrap_or_default();
        match words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(self.wrong(key, &format!("one of {}", words.join(", "))))
            }
        }
    }

    pub(super) fn required<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Self, &str) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        read(self, key)?.ok_or_else(|| self.missing(key, "a value: it is required"))
    }

    /// The error for a wrong value.
    pub(super) fn wrong(&self, key: &str, allowed: &str) -> Error {
        let value = self.map.and_then(|map| map.get(key)).map_or_else(|| "missing".into(), shown);
        Error::Config { key: self.key(key), value, allowed: allowed.into() }
    }

    /// The error for a wrong value that may stand somewhere else.
    pub(super) fn wrong_value(&self, key: &str, value: &str, allowed: &str) -> Error {
        Error::Config { key: self.key(key), value: value.into(), allowed: allowed.into() }
    }

    /// The error for a wrong value that must not be shown.
    pub(super) fn wrong_secret(&self, key: &str, allowed: &str) -> Error {
        Error::Config { key: self.key(key), value: "***".into(), allowed: allowed.into() }
    }

    pub(super) fn warn(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Warns of every key that nobody asked for.
    pub(super) fn finish(&self) {
        let used = self.used.borrow();
        for key in self.map.into_iter().flat_map(|map| map.keys()) {
            if !used.contains(&key.as_str()) {
                self.warn(format!("{} is not a known key and was ignored", self.key(key)));
            }
        }
    }

    pub(super) fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        let (key, value) = self.map?.get_key_value(key)?;
        self.used.borrow_mut().push(key);
        Some(value)
    }

    fn missing(&self, key: &str, allowed: &str) -> Error {
        Error::Config { key: self.key(key), value: "missing".into(), allowed: allowed.into() }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.into() } else { format!("{}.{key}", self.path) }
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(60).chain(['…']).collect() } else { text }
}

//! PURE. A value of the file with the path that leads to it: read as what it should be, or reported.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Node, Value};
use super::error::{ConfigError, Errors, Place, hint};
use crate::args::Interval;

#[derive(Debug, Clone)]
pub(super) struct Item<'a> {
    pub(super) path: String,
    pub(super) place: Place,
    value: &'a Value,
}

/// An entry of a mapping whose keys the user chooses.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) key_place: Place,
    pub(super) item: Item<'a>,
}

/// A mapping with known keys only.
pub(super) struct Object<'a> {
    /// False: it is something else, which has been reported.
    is_mapping: bool,
    path: String,
    place: Place,
    entries: Vec<Entry<'a>>,
}

const TEXT_LIMIT: usize = 4096;

impl<'a> Item<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self::new(String::new(), node)
    }

    fn new(path: String, node: &'a Node) -> Self {
        Self {
            path,
            place: node.referenced.into(),
            value: &node.value,
        }
    }

    pub(super) fn error(&self, errors: &mut Errors, message: impl Into<String>) {
        errors.add(ConfigError {
            path: self.path.clone(),
            place: self.place,
            message: message.into(),
        });
    }

    fn expected(&self, errors: &mut Errors, what: &str) {
        self.error(
            errors,
            format!("expected {what}, found {}", self.value.kind()),
        );
    }

    /// At most `limit` entries, each key once.
    pub(super) fn entries(&self, limit: usize, errors: &mut Errors) -> Vec<Entry<'a>> {
        let map = match self.value {
            Value::Map(map) => map,
            // `reasons:` with nothing below it.
            Value::Null => return Vec::new(),
            _ => {
                self.expected(errors, "a mapping");
                return Vec::new();
            }
        };
        if map.len() > limit {
            self.error(errors, format!("{} entries; at most {limit}", map.len()));
        }
        let mut entries: Vec<Entry<'a>> = Vec::new();
        for (key, node) in map.iter().take(limit) {
            let path = match self.path.as_str() {
                "" => key.value.clone(),
                path => format!("{path}.{}", key.value),
            };
            let entry = Entry {
                key: &key.value,
                key_place: key.referenced.into(),
                item: Item::new(path, node),
            };
            match entries.iter().find(|other| other.key == entry.key) {
                Some(first) => {
                    entry.error(errors, format!("given twice; first at {}", first.key_place))
                }
                None => entries.push(entry),
            }
        }
        entries
    }

    pub(super) fn object(&self, known: &[&str], errors: &mut Errors) -> Object<'a> {
        const MOST_KEYS: usize = 256;
        let mut entries = self.entries(MOST_KEYS, errors);
        entries.retain(|entry| {
            let is_known = known.contains(&entry.key);
            if !is_known {
                let near = hint(entry.key, known.iter().copied());
                entry.error(errors, format!("unknown key{near}"));
            }
            is_known
        });
        Object {
            is_mapping: matches!(self.value, Value::Map(_) | Value::Null),
            path: self.path.clone(),
            place: self.place,
            entries,
        }
    }

    pub(super) fn list(&self, limit: usize, errors: &mut Errors) -> Vec<Item<'a>> {
        let list = match self.value {
            Value::List(list) => list,
            Value::Null => return Vec::new(),
            _ => {
                self.expected(errors, "a list");
                return Vec::new();
            }
        };
        if list.len() > limit {
            self.error(errors, format!("{} entries; at most {limit}", list.len()));
        }
        let item = |(index, node)| Item::new(format!("{}[{index}]", self.path), node);
        list.iter().take(limit).enumerate().map(item).collect()
    }

    pub(super) fn boolean(&self, errors: &mut Errors) -> Option<bool> {
        match self.value {
            Value::Boolean(value) => Some(*value),
            _ => {
                self.expected(errors, "true or false");
                None
            }
        }
    }

    pub(super) fn text(&self, errors: &mut Errors) -> Option<&'a str> {
        match self.value {
            Value::Text(text) if text.is_empty() => {
                self.error(errors, "must not be empty");
                None
            }
            Value::Text(text) if text.len() > TEXT_LIMIT => {
                self.error(errors, format!("longer than {TEXT_LIMIT} bytes"));
                None
            }
            Value::Text(text) if text.contains('\0') => {
                self.error(errors, "has a NUL in it");
                None
            }
            Value::Text(text) => Some(text),
            _ => {
                self.expected(errors, "text");
                None
            }
        }
    }

    pub(super) fn texts(&self, limit: usize, errors: &mut Errors) -> Vec<String> {
        let items = self.list(limit, errors);
        let texts = items.iter().filter_map(|item| item.text(errors));
        texts.map(str::to_owned).collect()
    }

    /// Absolute, one path.
    pub(super) fn path(&self, errors: &mut Errors) -> Option<String> {
        let path = self.text(errors)?;
        if !path.starts_with('/') {
            self.error(errors, "must be an absolute path");
            return None;
        }
        Some(path.to_owned())
    }

    pub(super) fn count(&self, range: RangeInclusive<u32>, errors: &mut Errors) -> Option<u32> {
        let Value::Integer(value) = self.value else {
            self.expected(errors, "a whole number");
            return None;
        };
        let count = u32::try_from(*value)
            .ok()
            .filter(|count| range.contains(count));
        if count.is_none() {
            self.error(
                errors,
                format!("{value} is not within {} to {}", range.start(), range.end()),
            );
        }
        count
    }

    /// From one second to `most`.
    pub(super) fn duration(&self, most: Interval, errors: &mut Errors) -> Option<Duration> {
        let text = match self.value {
            Value::Text(text) => text,
            Value::Integer(number) => {
                self.error(
                    errors,
                    format!("a duration has a unit: did you mean {number}s?"),
                );
                return None;
            }
            _ => {
                self.expected(errors, "a duration like 90s, 5m or 1h30m");
                return None;
            }
        };
        match text.parse::<Interval>() {
            Ok(Interval(duration)) if duration <= most.0 => Some(duration),
            Ok(_) => {
                self.error(errors, format!("at most {}h", most.0.as_secs() / 3600));
                None
            }
            Err(error) => {
                // The part before is about the parser's own many formats.
                let remedy = error.rsplit("; ").next().unwrap_or_default();
                self.error(errors, format!("not a duration here: {remedy}"));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        what: &str,
        choice: &[(&'static str, T)],
        errors: &mut Errors,
    ) -> Option<T> {
        let word = self.text(errors)?;
        let found = choice.iter().find(|(name, _)| *name == word);
        if found.is_none() {
            let near = hint(word, choice.iter().map(|(name, _)| *name));
            self.error(errors, format!("unknown {what} {word}{near}"));
        }
        found.map(|(_, value)| *value)
    }
}

impl Entry<'_> {
    /// About the key, not the value.
    pub(super) fn error(&self, errors: &mut Errors, message: impl Into<String>) {
        errors.add(ConfigError {
            path: self.item.path.clone(),
            place: self.key_place,
            message: message.into(),
        });
    }
}

impl<'a> Object<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&Item<'a>> {
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.item)
    }

    /// Reports that it is missing.
    pub(super) fn required(&self, key: &str, errors: &mut Errors) -> Option<&Item<'a>> {
        let item = self.get(key);
        if item.is_none() && self.is_mapping {
            self.error(errors, format!("{key} is missing"));
        }
        item
    }

    pub(super) fn error(&self, errors: &mut Errors, message: impl Into<String>) {
        errors.add(ConfigError {
            path: self.path.clone(),
            place: self.place,
            message: message.into(),
        });
    }
}

//! PURE. What is wrong with a configuration: where, what, and which word was probably meant.

use std::fmt;

use crate::text;

/// Line and column, counted from 1; 0 where they are not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub line: u64,
    pub column: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// For example `reasons.OOMKilling.severity`; empty: the file as a whole.
    pub path: String,
    pub place: Place,
    pub message: String,
}

/// All that is wrong, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Errors {
    list: Vec<ConfigError>,
    /// More than anybody would read.
    left_out: usize,
}

const MOST: usize = 100;
const MESSAGE_LIMIT: usize = 512;

impl Errors {
    pub(super) fn add(&mut self, error: ConfigError) {
        if self.list.len() < MOST {
            self.list.push(ConfigError {
                path: text::printable(error.path.as_bytes(), MESSAGE_LIMIT),
                message: text::printable(error.message.as_bytes(), MESSAGE_LIMIT),
                ..error
            });
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn into_list(mut self) -> Vec<ConfigError> {
        self.list
            .sort_by(|a, b| (a.place, &a.path).cmp(&(b.place, &b.path)));
        if self.left_out > 0 {
            self.list.push(ConfigError {
                path: String::new(),
                place: Place::default(),
                message: format!("and {} more errors", self.left_out),
            });
        }
        self.list
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        Self {
            line: location.line(),
            column: location.column(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// `LINE:COLUMN: path: message`; whoever knows the file's name puts it before this.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.line > 0 {
            write!(f, "{}: ", self.place)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// `; did you mean X?`, or the whole choice where nothing is near and the choice is short.
pub(super) fn hint<'a>(word: &str, choice: impl IntoIterator<Item = &'a str>) -> String {
    const SHORT: usize = 12;
    let choice: Vec<_> = choice.into_iter().collect();
    match nearest(word, choice.iter().copied()) {
        Some(near) => format!("; did you mean {near}?"),
        None if choice.len() <= SHORT => format!("; valid: {}", choice.join(", ")),
        None => String::new(),
    }
}

/// By the number of letters to change; upper and lower case are the same.
fn nearest<'a>(word: &str, choice: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance of long words takes long, and nobody mistypes a hundred letters.
    let word = text::bounded(word, 100).to_lowercase();
    let limit = (word.chars().count() / 3).max(1);
    choice
        .map(|valid| {
            let distance = strsim::osa_distance(&word, &valid.to_lowercase());
            (distance, valid)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, valid)| valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_named_or_a_short_choice_is() {
        let severities = ["Info", "Warning", "Fatal"];
        assert_eq!(hint("fatal", severities), "; did you mean Fatal?");
        assert_eq!(hint("Wraning", severities), "; did you mean Warning?");
        assert_eq!(
            hint("Catastrophe", severities),
            "; valid: Info, Warning, Fatal"
        );
    }
}

//! PURE. The boots of this host: which of them nobody asked for, and how often that happens.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) mod note;
mod pstore;

#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_pstore(bytes: &[u8]) {
    if let Some(words) = pstore::last_words(bytes) {
        crate::fuzz::assert_plain(&words, 200);
    }
}

/// In which unexpected boots are counted.
pub(crate) const WINDOW: Duration = Duration::from_secs(24 * 3600);
/// Older ones are forgotten.
const MOST_BOOTS: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boots {
    /// Oldest first; the last one is the present one.
    boots: Vec<Boot>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Boot {
    id: String,
    /// When an agent first started in it.
    started: Timestamp,
    /// The agent was told to stop, and none has started since: what follows was asked for.
    stopped: bool,
    /// The boot before had not been told to stop.
    unexpected: bool,
}

/// A boot that nobody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unexpected {
    /// How many of them there were within [`WINDOW`], this one included.
    pub count: usize,
    /// When the boot that ended so had begun.
    pub before: Timestamp,
}

impl Boots {
    pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(bytes).context("the list of boots is damaged")
    }

    /// An agent starts.
    pub(crate) fn start(&mut self, id: &str, now: Timestamp) -> Option<Unexpected> {
        if let Some(present) = self.boots.last_mut().filter(|boot| boot.id == id) {
            present.stopped = false;
            return None;
        }
        let before = self.boots.last().cloned();
        let unexpected = before.as_ref().is_some_and(|before| !before.stopped);
        if self.boots.len() >= MOST_BOOTS {
            self.boots.remove(0);
        }
        self.boots.push(Boot {
            id: id.to_owned(),
            started: now,
            stopped: false,
            unexpected,
        });
        let recent = |boot: &&Boot| {
            let age = now.duration_since(boot.started);
            boot.unexpected && age.unsigned_abs() < WINDOW
        };
        before.filter(|_| unexpected).map(|before| Unexpected {
            count: self.boots.iter().filter(recent).count(),
            before: before.started,
        })
    }

    /// The agent was told to stop, as it is when the host shuts down in order.
    pub(crate) fn stop(&mut self) {
        if let Some(present) = self.boots.last_mut() {
            present.stopped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + hour * 3600).unwrap()
    }

    #[test]
    fn the_first_boot_that_is_known_is_no_surprise() {
        assert_eq!(Boots::default().start("a", at(0)), None);
    }

    #[test]
    fn a_boot_after_an_orderly_stop_was_asked_for() {
        let mut boots = Boots::default();
        boots.start("a", at(0));
        boots.stop();
        assert_eq!(boots.start("b", at(1)), None);
    }

    #[test]
    fn a_boot_while_the_agent_was_running_was_not() {
        let mut boots = Boots::default();
        boots.start("a", at(0));
        let unexpected = boots.start("b", at(1)).unwrap();
        assert_eq!((unexpected.count, unexpected.before), (1, at(0)));
    }

    #[test]
    fn a_restart_of_the_agent_is_no_boot_and_ends_its_stop() {
        let mut boots = Boots::default();
        boots.start("a", at(0));
        boots.stop();
        assert_eq!(boots.start("a", at(0)), None);
        assert_eq!(boots.start("b", at(1)).map(|boot| boot.count), Some(1));
    }

    #[test]
    fn only_those_of_the_last_day_count() {
        let mut boots = Boots::default();
        let counts: Vec<_> = [0, 1, 2, 25, 26, 60]
            .into_iter()
            .map(|hour| boots.start(&hour.to_string(), at(hour)).map(|b| b.count))
            .collect();
        assert_eq!(counts, [None, Some(1), Some(2), Some(2), Some(2), Some(1)]);
    }

    #[test]
    fn a_host_that_boots_for_ever_takes_bounded_room() {
        let mut boots = Boots::default();
        for number in 0..1000 {
            boots.start(&number.to_string(), at(0));
        }
        assert_eq!(boots.boots.len(), MOST_BOOTS);
    }

    #[test]
    fn a_damaged_list_is_an_error() {
        assert!(Boots::parse(b"{\"boots\":[{").is_err());
        assert_eq!(Boots::parse(b"{\"boots\":[]}").unwrap(), Boots::default());
    }
}

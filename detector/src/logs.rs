//! Which logs this agent reads. A rule that looks at another one watches nothing, and must not make its
//! condition look watched.

use std::path::PathBuf;

use tracing::warn;

use crate::config::Config;
use crate::rules::{Live, LogRules};
use crate::source::journal;

pub(crate) struct Logs {
    pub kernel_log: bool,
    pub files: bool,
    /// The host's root, where the journal would be followed.
    pub journal: Result<PathBuf, String>,
}

impl Logs {
    /// Every configuration, before it is in force. Waits for a disk that hangs, though not for long:
    /// nothing for the reader's thread.
    pub(crate) fn feed(&self, config: &mut Config) {
        let live = self.live(&config.rules);
        config.feed(live);
        // Nobody who writes a rule may think that it is watched when it is not.
        for rule in config.rules.iter() {
            if let Some(why) = rule.unwatched(live) {
                warn!(rule = rule.name, why, "LOG RULE NOT WATCHED");
            }
        }
    }

    pub(crate) fn live(&self, rules: &LogRules) -> Live {
        let missing = self.missing_journal(rules);
        if let Some(missing) = &missing {
            warn!(source = "journal", missing, "not watched");
        }
        Live {
            kernel_log: self.kernel_log,
            files: self.files,
            journal: missing.is_none(),
        }
    }

    /// No disk is touched for a journal that no rule asks for.
    pub(crate) fn missing_journal(&self, rules: &LogRules) -> Option<String> {
        if rules.units().is_empty() {
            self.journal.clone().err()
        } else {
            self.find_journal().err()
        }
    }

    /// The file that journald writes to, or why there is none.
    pub(crate) fn find_journal(&self) -> Result<String, String> {
        self.journal.clone().and_then(journal::find)
    }
}

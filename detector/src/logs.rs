//! Which logs this agent reads. A rule that looks at another one watches nothing, and must not make its
//! condition look watched.

use std::path::PathBuf;

use tracing::warn;

use crate::config::Config;
use crate::rules::Live;
use crate::source::journal;

pub(crate) struct Logs {
    pub kernel_log: bool,
    pub files: bool,
    /// The host's root, where the journal would be followed.
    pub journal: Result<PathBuf, String>,
}

impl Logs {
    /// Every configuration, before it is in force. Waits for a disk that hangs, though not for long:
    /// nothing for the reader's thread. Returns what was found of the journal.
    pub(crate) fn feed(&self, config: &mut Config) -> Result<String, String> {
        let journal = self.find_journal();
        if let Err(missing) = &journal {
            warn!(source = "journal", missing, "not watched");
        }
        let live = self.live(&journal);
        config.feed(live);
        // Nobody who writes a rule may think that it is watched when it is not.
        for rule in config.rules.iter() {
            if let Some(why) = rule.unwatched(live) {
                warn!(rule = rule.name, why, "LOG RULE NOT WATCHED");
            }
        }
        journal
    }

    /// `journal`: as [`Self::find_journal`] has found it.
    pub(crate) fn live(&self, journal: &Result<String, String>) -> Live {
        Live {
            kernel_log: self.kernel_log,
            files: self.files,
            journal: journal.is_ok(),
        }
    }

    /// The file that journald writes to, or why there is none.
    pub(crate) fn find_journal(&self) -> Result<String, String> {
        self.journal.clone().and_then(journal::find)
    }
}

//! PURE. What NVIDIA's error codes mean, one row each, and what helps: data, with where it comes from.
//! Where the sources disagree the safer choice stands, with a note.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::reason::Severity;

pub(crate) mod nvlink5;
mod sxids;
pub(crate) mod xid_line;
mod xids;

/// XIDs that are told after another one and say no more than it: the driver cleans up channels (45),
/// and names the details of a double-bit error (48).
const FOLLOW_ONS: [(u32, Causes); 5] = [
    (45, Causes::Any),
    (63, Causes::One(48)),
    (64, Causes::One(48)),
    (171, Causes::One(48)),
    (172, Causes::One(48)),
];

/// After which errors a code is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Causes {
    Any,
    One(u32),
}

impl Causes {
    pub(crate) fn include(self, code: u32) -> bool {
        match self {
            Self::Any => true,
            Self::One(cause) => cause == code,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A program causes it; the GPU goes on.
    Application,
    Hardware,
    /// NVLink, NVSwitch, the link to the processor.
    Fabric,
    /// The driver or firmware, or a code that no current driver uses.
    Driver,
}

/// What helps, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Action {
    None,
    RestartApplication,
    Inspect,
    ResetGpu,
    Reboot,
    Replace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub code: u32,
    pub name: &'static str,
    pub class: Class,
    pub severity: Severity,
    pub action: Action,
    pub meaning: &'static str,
    /// Who says so.
    pub provenance: &'static str,
    pub note: &'static str,
}

pub(crate) fn xids() -> &'static [Judgement] {
    &xids::TABLE
}

pub(crate) fn sxids() -> &'static [Judgement] {
    &sxids::TABLE
}

pub(crate) fn xid(code: u32) -> Option<&'static Judgement> {
    of(xids(), code)
}

pub(crate) fn sxid(code: u32) -> Option<&'static Judgement> {
    of(sxids(), code)
}

fn of(table: &'static [Judgement], code: u32) -> Option<&'static Judgement> {
    let index = table.binary_search_by_key(&code, |row| row.code).ok()?;
    table.get(index)
}

/// What an XID may be no more than a consequence of.
pub(crate) fn causes(xid: u32) -> Option<Causes> {
    let row = FOLLOW_ONS.iter().find(|(code, _)| *code == xid)?;
    Some(row.1)
}

/// What the driver says that a GPU needs, by its number (`nvmlDeviceGpuRecoveryAction_t`).
pub(crate) fn recovery_action(number: u64) -> Option<Action> {
    match number {
        0 => Some(Action::None),
        1 | 4 => Some(Action::ResetGpu),
        2 => Some(Action::Reboot),
        // Traffic between GPUs must be drained: the programs have to go.
        3 => Some(Action::RestartApplication),
        _ => None,
    }
}

impl Action {
    /// For a message.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::None => "nothing to do",
            Self::RestartApplication => "restart the application",
            Self::Inspect => "have the hardware inspected",
            Self::ResetGpu => "reset the GPU, or reboot the node",
            Self::Reboot => "reboot the node",
            Self::Replace => "replace the node",
        }
    }

    /// For programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::RestartApplication => "RestartApplication",
            Self::Inspect => "Inspect",
            Self::ResetGpu => "ResetGPU",
            Self::Reboot => "Reboot",
            Self::Replace => "Replace",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Application => "application",
            Self::Hardware => "hardware",
            Self::Fabric => "fabric",
            Self::Driver => "driver",
        })
    }
}

macro_rules! judgements {
    ($(($code:literal, $name:literal, $class:ident, $severity:ident, $action:ident, $meaning:literal, $provenance:literal, $note:literal),)+) => {
        [$(crate::judgement::Judgement {
            code: $code,
            name: $name,
            class: crate::judgement::Class::$class,
            severity: crate::reason::Severity::$severity,
            action: crate::judgement::Action::$action,
            meaning: $meaning,
            provenance: $provenance,
            note: $note,
        },)+]
    };
}
use judgements;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::FATAL_XIDS;

    #[test]
    fn the_tables_are_sorted_and_their_rows_whole() {
        for table in [xids(), sxids()] {
            assert!(table.is_sorted_by(|a, b| a.code < b.code));
            for row in table {
                assert!(
                    !row.meaning.is_empty() && !row.provenance.is_empty() && !row.name.is_empty(),
                    "{row:?}"
                );
                // It goes into a condition's message, whose parts it separates.
                assert!(!row.meaning.contains(';'), "{row:?}");
            }
        }
        assert_eq!((xids().len(), sxids().len()), (173, 92));
    }

    #[test]
    fn what_is_fatal_is_what_ekss_agent_has_so() {
        let fatal: Vec<_> = xids()
            .iter()
            .filter(|row| row.severity == Severity::Fatal)
            .map(|row| row.code)
            .collect();
        assert_eq!(fatal, FATAL_XIDS);
    }

    /// What a program can cause never has a node repaired.
    #[test]
    fn nothing_of_the_application_class_is_fatal_or_asks_for_more_than_its_restart() {
        for row in xids().iter().filter(|row| row.class == Class::Application) {
            assert_eq!(row.severity, Severity::Warning, "{row:?}");
            assert!(row.action <= Action::RestartApplication, "{row:?}");
        }
        for code in [13, 31, 43, 94] {
            assert_eq!(xid(code).unwrap().class, Class::Application, "{code}");
        }
    }

    #[test]
    fn what_is_fatal_says_what_helps() {
        for row in xids().iter().chain(sxids()) {
            if row.severity == Severity::Fatal {
                assert!(row.action >= Action::Inspect, "{row:?}");
            }
        }
    }

    #[test]
    fn a_follow_on_and_its_cause_are_in_the_table() {
        for (code, causes) in FOLLOW_ONS {
            assert!(xid(code).is_some(), "{code}");
            if let Causes::One(cause) = causes {
                assert!(xid(cause).is_some(), "{cause}");
            }
        }
    }
}

//! PURE. The reason table: everything that can be reported, as metadata. Folding and corroboration
//! are functions of the core, not rules in the table.

use std::fmt;
use std::time::Duration;

mod kernel;
mod networking;
mod storage;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    OomKilling,
    AppBlocked,
    SoftLockup,
    SignalsLost,
    BlockIoError,
    FilesystemError,
    FilesystemReadOnly,
    PacketsDropped,
}

/// Condition types and healthy reasons are those of EKS's node monitoring agent; True = healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::enum_variant_names, reason = "the names of the API")]
pub(crate) enum ConditionType {
    KernelReady,
    StorageReady,
    NetworkingReady,
}

/// Fatal makes the condition False; a Warning is an Event only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Warning,
    Fatal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clears {
    /// No new signal for this long.
    Quiet(Duration),
    /// The evidence was read again and the fault is gone.
    Recovered,
}

pub(crate) struct Row {
    pub name: &'static str,
    pub condition: ConditionType,
    /// The worst it can be.
    pub severity: Severity,
    pub clears: Clears,
    pub threshold: &'static str,
    pub meaning: &'static str,
    pub advice: &'static str,
    /// Where the fact comes from.
    pub source: &'static str,
}

impl Reason {
    pub(crate) fn row(self) -> &'static Row {
        match self {
            Self::OomKilling => &kernel::OOM_KILLING,
            Self::AppBlocked => &kernel::APP_BLOCKED,
            Self::SoftLockup => &kernel::SOFT_LOCKUP,
            Self::SignalsLost => &kernel::SIGNALS_LOST,
            Self::BlockIoError => &storage::BLOCK_IO_ERROR,
            Self::FilesystemError => &storage::FILESYSTEM_ERROR,
            Self::FilesystemReadOnly => &storage::FILESYSTEM_READ_ONLY,
            Self::PacketsDropped => &networking::PACKETS_DROPPED,
        }
    }

    pub(crate) const ALL: [Self; 8] = [
        Self::OomKilling,
        Self::AppBlocked,
        Self::SoftLockup,
        Self::SignalsLost,
        Self::BlockIoError,
        Self::FilesystemError,
        Self::FilesystemReadOnly,
        Self::PacketsDropped,
    ];
}

impl ConditionType {
    pub(crate) const ALL: [Self; 3] =
        [Self::KernelReady, Self::StorageReady, Self::NetworkingReady];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KernelReady => "KernelReady",
            Self::StorageReady => "StorageReady",
            Self::NetworkingReady => "NetworkingReady",
        }
    }

    pub(crate) fn healthy_reason(self) -> &'static str {
        match self {
            Self::KernelReady => "KernelIsReady",
            Self::StorageReady => "StorageIsReady",
            Self::NetworkingReady => "NetworkingIsReady",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "Warning",
            Self::Fatal => "Fatal",
        })
    }
}

impl fmt::Display for Clears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet(quiet) => write!(
                f,
                "after {} minutes without a new signal",
                quiet.as_secs() / 60
            ),
            Self::Recovered => {
                f.write_str("when the evidence, read again every 10 seconds, says that it is over")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_condition_reason() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.row().name).collect();
        for name in &names {
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric()),
                "{name}: Kubernetes asks for CamelCase"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}

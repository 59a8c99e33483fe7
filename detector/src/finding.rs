//! PURE. A finding: one fault, counted when it repeats.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::reason::{Reason, Severity};
use crate::signal::Workload;

/// The two clocks, read together by the loop: one to measure, one to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// `CLOCK_BOOTTIME`: every duration and order is by this one.
    pub boot: Duration,
    /// For people and for the API only.
    pub wall: Timestamp,
}

/// One sighting of a fault, as assessed from a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub reason: Reason,
    /// What has the fault: sightings with the same reason and entity are one finding.
    pub entity: String,
    pub severity: Severity,
    /// One line that names what it happened to, but not the pod: the exporter knows its name.
    pub message: String,
    pub subject: Subject,
    /// How many faults this stands for.
    pub count: u64,
    /// When the kernel saw it (`CLOCK_BOOTTIME`).
    pub at: Duration,
}

/// What a fault happened to, as far as its class allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Subject {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    #[serde(skip)]
    pub workload: Option<Workload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub reason: Reason,
    pub entity: String,
    pub severity: Severity,
    pub message: String,
    pub subject: Subject,
    pub count: u64,
    /// How often it was opened, or came back, within an hour.
    pub flaps: usize,
    /// Known only from lines that are older than the first agent of this boot.
    pub historic: bool,
    pub opened: Now,
    pub last_seen: Duration,
}

/// That many openings within an hour are flapping: the finding then stays open until it has been well
/// for a while, so that its condition says False throughout instead of starting everybody's clock
/// anew with each flap.
pub(crate) const FLAPS: usize = 3;

impl Finding {
    pub(crate) fn text(&self) -> Cow<'_, str> {
        let message = &self.message;
        if self.historic {
            return Cow::Owned(format!("{message}; before the agent's start"));
        }
        if self.flaps < FLAPS {
            return Cow::Borrowed(message);
        }
        let flaps = self.flaps;
        Cow::Owned(format!("{message}; flapping: {flaps} times within an hour"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Opened,
    Repeated,
    Cleared,
}

/// What happened to a finding, and when: `fault` by the kernel, `found` by us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub change: Change,
    pub finding: Finding,
    pub fault: Duration,
    pub found: Now,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Repeated => "repeated",
            Self::Cleared => "cleared",
        }
    }
}

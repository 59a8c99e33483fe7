//! What the guest tells the host, a line of JSON each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// By what a detector may know of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Tracepoints, BPF iterators and counters: the kernel log is off.
    Hooks,
    /// The kernel log and counters: all hooks are off.
    Log,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "report")]
pub enum Report {
    /// The rows of `nodemend-detector check -o json`.
    Check { rows: Vec<serde_json::Value> },
    /// A command for QEMU's monitor (QMP): a fault that comes from outside.
    Ask { command: serde_json::Value },
    /// A hook that came with its module, while the detector ran.
    Attached {
        class: String,
        hook: String,
        using: String,
    },
    /// A fault was provoked, and what one of the detectors said within the time.
    Seen {
        class: String,
        /// Of several hooks of the class the one that is to tell of this fault.
        hook: Option<String>,
        way: Way,
        seen: Option<Seen>,
    },
    /// A fault that could not be provoked.
    Missing { class: String, why: String },
    /// What became of the faults while the detector had it hard.
    Stressed {
        stress: String,
        provoked: usize,
        told: usize,
        /// Whether it said that it had lost some.
        lost: bool,
        seconds: u64,
    },
    /// The guest did all that it was to do.
    End,
    /// It could not.
    Failed { why: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    pub reason: String,
    /// From the provocation, by the guest's clock.
    pub milliseconds: u64,
    /// The fields of the subject that are known.
    pub subject: Vec<String>,
}

/// As a person reads it while it goes on.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen {
                class, way, seen, ..
            } => match seen {
                Some(seen) => write!(
                    out,
                    "{class}, {way:?}: {} after {} ms, names {:?}",
                    seen.reason, seen.milliseconds, seen.subject
                ),
                None => write!(out, "{class}, {way:?}: not seen"),
            },
            Self::Missing { class, why } => write!(out, "{class}: could not be provoked: {why}"),
            Self::Stressed {
                stress,
                provoked,
                told,
                lost,
                seconds,
            } => {
                let lost = if *lost {
                    ", and that some were lost"
                } else {
                    ""
                };
                write!(
                    out,
                    "{stress}: {told} of {provoked} told{lost}, in {seconds} s"
                )
            }
            Self::Attached { class, using, .. } => {
                write!(out, "{class}: {using} was attached late")
            }
            Self::Check { rows } => write!(out, "`check` has {} rows", rows.len()),
            Self::Ask { command } => write!(out, "asks for {command}"),
            Self::End => write!(out, "the end"),
            Self::Failed { why } => write!(out, "failed: {why}"),
        }
    }
}

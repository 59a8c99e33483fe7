//! PURE. What a configuration changes in the reason table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::reason::{ConditionType, FATAL_XIDS, Reason, Severity};
use crate::signal::Task;

/// No node works without kubelet and its container runtime.
const NODE_PROCESSES: [&str; 4] = ["kubelet", "containerd", "crio", "dockerd"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// By the name of a row (`NvidiaXID<n>Error`) or of one reason of it (`NvidiaXID79Error`).
    pub overrides: BTreeMap<String, Override>,
    /// XIDs that are `NvidiaXID<n>Error`; the others are `NvidiaXID<n>Warning`.
    pub fatal_xids: BTreeSet<u32>,
    /// XIDs whose severity the configuration gives, whatever their line says.
    pub decided_xids: BTreeSet<u32>,
    /// Whether reasons that EKS's agent does not have may be Fatal: others act on these conditions.
    pub own_fatal_reasons: bool,
    /// Names of more processes of the host that the node cannot do without.
    pub critical_processes: BTreeSet<String>,
    /// The reasons of the user's own log rules.
    pub custom: BTreeSet<Reason>,
    /// The conditions that live log rules look after.
    pub fed_by_rules: BTreeSet<ConditionType>,
}

/// What is absent stays as the table has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Override {
    pub enabled: Option<bool>,
    pub severity: Option<Severity>,
    pub threshold: Option<Threshold>,
    /// Instead of the row's quiet time; a reason that clears by evidence stays open as long after
    /// the evidence became good.
    pub clear_after: Option<Duration>,
}

/// Opens a finding at the `count`th fault of one entity within `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threshold {
    pub count: u32,
    pub window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            overrides: BTreeMap::new(),
            fatal_xids: FATAL_XIDS.into_iter().collect(),
            decided_xids: BTreeSet::new(),
            own_fatal_reasons: true,
            critical_processes: BTreeSet::new(),
            custom: BTreeSet::new(),
            fed_by_rules: BTreeSet::new(),
        }
    }
}

impl Settings {
    pub(crate) fn of(&self, reason: Reason) -> Override {
        let row = self.overrides.get(reason.row().name);
        let one = self.overrides.get(reason.name().as_ref());
        let (row, one) = (
            row.cloned().unwrap_or_default(),
            one.cloned().unwrap_or_default(),
        );
        Override {
            enabled: one.enabled.or(row.enabled),
            severity: one.severity.or(row.severity),
            threshold: one.threshold.or(row.threshold),
            clear_after: one.clear_after.or(row.clear_after),
        }
    }

    pub(crate) fn is_enabled(&self, reason: Reason) -> bool {
        // A rule that is gone takes its reason along.
        let known = !matches!(reason, Reason::Custom { .. }) || self.custom.contains(&reason);
        known && self.of(reason).enabled.unwrap_or(true)
    }

    /// `seen`: as the evidence has it. Evidence that makes a fault milder than its row still does.
    pub(crate) fn severity(&self, reason: Reason, seen: Severity) -> Severity {
        let row = reason.row();
        let severity = match self.of(reason).severity {
            Some(wanted) if seen < row.severity => wanted.min(seen),
            Some(wanted) => wanted,
            None => seen,
        };
        if row.eks || self.own_fatal_reasons {
            severity
        } else {
            severity.min(Severity::Warning)
        }
    }

    /// By its name, as [`Reason::name`] gives it.
    pub(crate) fn reason(&self, name: &str) -> Option<Reason> {
        let custom = self.custom.iter().find(|reason| reason.name() == name);
        custom.copied().or_else(|| Reason::from_name(name))
    }

    /// Whether the node cannot do without the process of this name that the task is of. A pod's
    /// process can have any name.
    pub(crate) fn needs(&self, task: &Task, process: &str) -> bool {
        let workload = task.workload.as_ref();
        let outside_of_pods = workload.is_some_and(|workload| workload.pod_uid.is_none());
        let known = NODE_PROCESSES.contains(&process) || self.critical_processes.contains(process);
        outside_of_pods && known
    }

    /// The same where its line says how bad it is.
    pub(crate) fn of_decoded_xid(&self, xid: u32, severity: Severity) -> Reason {
        if self.decided_xids.contains(&xid) {
            return self.of_xid(xid);
        }
        // EKS's agent decodes none.
        let fatal = severity == Severity::Fatal
            && (self.own_fatal_reasons || self.fatal_xids.contains(&xid));
        if fatal {
            Reason::NvidiaXidError(xid)
        } else {
            Reason::NvidiaXidWarning(xid)
        }
    }

    /// The reason of an XID.
    pub(crate) fn of_xid(&self, xid: u32) -> Reason {
        if self.fatal_xids.contains(&xid) {
            Reason::NvidiaXidError(xid)
        } else {
            Reason::NvidiaXidWarning(xid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Workload;

    fn with(name: &str, over: Override) -> Settings {
        Settings {
            overrides: BTreeMap::from([(name.to_owned(), over)]),
            ..Settings::default()
        }
    }

    #[test]
    fn one_reason_overrides_its_row() {
        let severity = |severity| Override {
            severity: Some(severity),
            ..Override::default()
        };
        let mut settings = with("NvidiaXID<n>Error", severity(Severity::Warning));
        settings
            .overrides
            .insert("NvidiaXID79Error".to_owned(), severity(Severity::Fatal));
        let of = |xid| settings.severity(Reason::NvidiaXidError(xid), Severity::Fatal);
        assert_eq!((of(79), of(48)), (Severity::Fatal, Severity::Warning));
    }

    #[test]
    fn a_process_of_a_pod_is_not_critical_by_its_name() {
        let settings = Settings {
            critical_processes: BTreeSet::from(["chronyd".to_owned()]),
            ..Settings::default()
        };
        let needs = |process: &str, pod_uid: Option<&str>| {
            let workload = Workload {
                pod_uid: pod_uid.map(str::to_owned),
                ..Workload::default()
            };
            let thread = Task {
                pid: 1,
                comm: "worker".to_owned(),
                workload: Some(workload),
            };
            settings.needs(&thread, process)
        };
        assert!(needs("kubelet", None));
        assert!(needs("chronyd", None));
        assert!(!needs("chronyd", Some("a-b")));
        assert!(!needs("kubelet", Some("a-b")));
        assert!(!needs("dd", None));
        assert!(!settings.needs(&Task::default(), "kubelet"));
    }

    #[test]
    fn milder_evidence_stays_milder() {
        let fatal = Override {
            severity: Some(Severity::Fatal),
            ..Override::default()
        };
        let settings = with("FilesystemReadOnly", fatal);
        let seen = |severity| settings.severity(Reason::FilesystemReadOnly, severity);
        assert_eq!(seen(Severity::Warning), Severity::Warning);
        assert_eq!(seen(Severity::Fatal), Severity::Fatal);
    }

    #[test]
    fn without_own_fatal_reasons_only_those_of_eks_are_fatal() {
        let settings = Settings {
            own_fatal_reasons: false,
            ..Settings::default()
        };
        let of = |reason| settings.severity(reason, Severity::Fatal);
        assert_eq!(of(Reason::FilesystemReadOnly), Severity::Warning);
        assert_eq!(of(Reason::NvidiaXidError(79)), Severity::Fatal);
    }
}

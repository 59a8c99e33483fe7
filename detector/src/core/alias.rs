//! PURE. One fault under two names: a counter and the kernel log know different things of it.

use super::findings::{Findings, Open};
use crate::reason::Reason;
use crate::signal::What;

/// Gives what is said the name of the finding that is open.
pub(super) fn resolve(what: &mut What, findings: &Findings) {
    let (fault, by_counter) = match what {
        What::Counted { fault, .. } => (fault, true),
        What::Logged(fault) => (fault, false),
        _ => return,
    };
    let open = |is_it: &dyn Fn(&str) -> bool| -> Option<&Open> {
        let of_reason = findings
            .iter()
            .filter(|((reason, entity), _)| *reason == fault.reason && is_it(entity));
        of_reason.map(|(_, open)| open).last()
    };
    let other = match (fault.reason, fault.entity.as_str(), by_counter) {
        // The log names the container that wanted a process, the counter only the pod where the
        // limit is the pod's.
        (Reason::PidsLimitReached, pod, true) => {
            let of_container = format!("{pod} container ");
            open(&|entity| entity.starts_with(&of_container))
        }
        // The log names the network namespace in recent kernels only.
        (Reason::ConntrackExceededKernel, "conntrack", false) => {
            open(&|entity| entity.starts_with("netns "))
        }
        (Reason::ConntrackExceededKernel, _, true) => open(&|entity| entity == "conntrack"),
        _ => None,
    };
    if let Some(open) = other {
        fault.entity.clone_from(&open.finding.entity);
        if let Some(task) = &mut fault.task {
            task.workload.clone_from(&open.finding.subject.workload);
        }
    }
}

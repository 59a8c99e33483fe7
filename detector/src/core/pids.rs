//! PURE. A pod that may have no more processes: the log names the container that wanted one, the
//! counter only the pod where the limit is the pod's.

use super::findings::Findings;
use crate::reason::Reason;
use crate::signal::What;

/// One fault, one finding: what is said of the pod is said of its container that is told already.
pub(super) fn of_pod(what: &mut What, findings: &Findings) {
    let What::Counted { fault, .. } = what else {
        return;
    };
    if fault.reason != Reason::PidsLimitReached {
        return;
    }
    let of_container = format!("{} container ", fault.entity);
    let told = findings.iter().filter(|((reason, entity), _)| {
        *reason == Reason::PidsLimitReached && entity.starts_with(&of_container)
    });
    if let Some(((_, entity), open)) = told.last() {
        fault.entity.clone_from(entity);
        if let Some(task) = &mut fault.task {
            task.workload.clone_from(&open.finding.subject.workload);
        }
    }
}

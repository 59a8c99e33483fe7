//! PURE. A pod that may have no more processes: the log names the container that wanted one, the
//! counter only the pod where the limit is the pod's.

use super::findings::Findings;
use crate::finding::Sighting;
use crate::reason::Reason;

/// One fault, one finding: what is said of the pod is said of its container that is told already.
pub(super) fn of_pod(sighting: &mut Sighting, findings: &Findings) {
    if sighting.reason != Reason::PidsLimitReached {
        return;
    }
    let of_container = format!("{} container ", sighting.entity);
    let told = findings
        .iter()
        .map(|((reason, entity), _)| (reason, entity));
    let told = told.filter(|(reason, entity)| {
        **reason == Reason::PidsLimitReached && entity.starts_with(&of_container)
    });
    if let Some((_, entity)) = told.last() {
        sighting.entity.clone_from(entity);
    }
}

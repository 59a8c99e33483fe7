//! PURE. Lines that mean more where the kernel's own numbers say the same.

use super::findings::Findings;
use crate::finding::Sighting;
use crate::reason::{Reason, Severity};
use crate::signal::HOST;

/// kubelet prints the same where one container's limit is reached: only the host's own breaks the
/// node.
pub(super) fn weigh(sighting: &mut Sighting, findings: &Findings) {
    if sighting.reason != Reason::ForkFailedOutOfPids {
        return;
    }
    let host = (Reason::PidsLimitReached, HOST.to_owned());
    if findings.get(&host).is_none() {
        sighting.severity = sighting.severity.min(Severity::Warning);
    }
}

//! PURE. Why kubelet is silent: what else is open about it, and what its Node says, in one message.

use super::findings::{Findings, Key};
use super::{Output, blocked};
use crate::finding::{Finding, Now, Sighting, Subject};
use crate::reason::{Reason, Severity};
use crate::text;

/// Of all that is joined.
const LONGEST: usize = 640;

/// Conditions of the Node that are not ours and not well, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeSays {
    /// The API server hears nothing of kubelet.
    pub silent: bool,
    pub ready: Option<String>,
    pub disk_pressure: Option<String>,
    pub memory_pressure: Option<String>,
}

impl NodeSays {
    /// The agent has just reached the API server: where that hears nothing of kubelet, the two differ.
    pub(super) fn renew(
        &mut self,
        says: Self,
        findings: &mut Findings,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        *self = says;
        let key: Key = (Reason::KubeletUnresponsive, "heartbeat".to_owned());
        if !self.silent {
            return findings.well(&key, now, out);
        }
        let mut sighting = Sighting {
            reason: key.0,
            entity: key.1,
            severity: Severity::Warning,
            message: "the API server hears nothing of kubelet, and hears this agent".to_owned(),
            subject: Subject::default(),
            count: 1,
            at: now.boot,
        };
        explain(&mut sighting, findings, self);
        findings.is_so(sighting, now, out);
    }
}

/// Joins to the message what is known beside it, and weighs how bad it is.
pub(super) fn explain(sighting: &mut Sighting, findings: &Findings, says: &NodeSays) {
    let mut known = Vec::new();
    match sighting.reason {
        Reason::KubeletUnresponsive => {
            if !hangs_on_own_disk(sighting, findings) {
                sighting.severity = sighting.severity.min(Severity::Warning);
            }
            known.extend(about_kubelet(findings).map(|finding| {
                let name = finding.reason.name();
                format!("{name}: {}", finding.message)
            }));
            known.extend(says.ready.clone());
            known.extend(says.disk_pressure.clone());
            known.extend(says.memory_pressure.clone());
        }
        Reason::MemoryStall => known.extend(says.memory_pressure.clone()),
        _ => return,
    }
    known.insert(0, std::mem::take(&mut sighting.message));
    sighting.message = text::bounded(&known.join(" | "), LONGEST);
}

/// Proven for the very thread, by its kernel stack.
fn hangs_on_own_disk(sighting: &Sighting, findings: &Findings) -> bool {
    let thread = sighting.subject.pid.map(blocked::entity);
    let open = thread.and_then(|entity| findings.get(&(Reason::AppBlocked, entity)));
    open.is_some_and(|open| open.seen == Severity::Fatal)
}

fn about_kubelet(findings: &Findings) -> impl Iterator<Item = &Finding> {
    let open = findings.iter().map(|(_, open)| &open.finding);
    open.filter(|finding| match finding.reason {
        Reason::OomKilling => is_kubelets(&finding.subject),
        Reason::KubeletFailed | Reason::KubeletCertificateExpired => true,
        Reason::UnitRepeatedRestart(unit) => unit == "Kubelet",
        _ => false,
    })
}

/// A pod's process can have any name.
fn is_kubelets(subject: &Subject) -> bool {
    let workload = subject.workload.as_ref();
    let of_pod = workload.is_some_and(|workload| workload.pod_uid.is_some());
    subject.comm.as_deref() == Some("kubelet") && !of_pod
}

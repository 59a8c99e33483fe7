//! Events: one per transition, on the Node, with the pod beside it where there is one.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use super::schedule::Bucket;
use crate::finding::{Change, Transition};
use crate::reason::{Reason, Severity};
use crate::signal::Workload;
use crate::text;

/// Events about cluster-scoped objects live here.
pub(super) const NAMESPACE: &str = "default";
const CONTROLLER: &str = "nodemend.dev/detector";
/// The API's limit of `note`.
const NOTE_LIMIT: usize = 1024;

/// One budget per reason: a storm of one never silences another.
pub(super) struct Budgets {
    buckets: HashMap<Reason, (Bucket, u64)>,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self {
            buckets: HashMap::new(),
        }
    }

    /// Whether an Event of this reason may go out; if so, how many could not since the last one.
    pub(super) fn take(&mut self, reason: Reason, now: Duration) -> Option<u64> {
        let fresh = || (Bucket::new(10, Duration::from_secs(30)), 0);
        let (bucket, withheld) = self.buckets.entry(reason).or_insert_with(fresh);
        match bucket.take(now) {
            Ok(()) => Some(std::mem::take(withheld)),
            Err(_) => {
                *withheld += 1;
                None
            }
        }
    }
}

/// Opened and repeated findings are told; a Warning that went quiet is not.
pub(super) fn is_told(transition: &Transition) -> bool {
    match transition.change {
        Change::Opened | Change::Repeated => true,
        Change::Cleared => transition.finding.severity == Severity::Fatal,
    }
}

pub(super) struct NodeIdentity<'a> {
    pub name: &'a str,
    pub uid: &'a str,
}

/// A transition on its way to the API server.
pub(super) struct Pending {
    pub(super) transition: Transition,
    /// Events of its reason that the budget did not let out before it.
    pub(super) withheld: u64,
    /// Unique in this process.
    pub(super) sequence: u64,
}

pub(super) fn event(pending: &Pending, node: &NodeIdentity<'_>, pod_logs: &Path) -> Event {
    let Pending {
        transition,
        withheld,
        sequence,
    } = pending;
    let finding = &transition.finding;
    let found = transition.found.wall;
    let pod = finding
        .subject
        .workload
        .as_ref()
        .map(|workload| Pod::find(workload, pod_logs));
    let mut note = match transition.change {
        Change::Opened => finding.message.clone(),
        Change::Repeated => format!("{} ({} times)", finding.message, finding.count),
        Change::Cleared => format!("recovered: {}", finding.message),
    };
    if let Some(pod) = &pod {
        note = format!("{note}, in {}", pod.label);
    }
    if *withheld > 0 {
        note = format!(
            "{note} [{withheld} earlier events of this reason were withheld by its rate limit]"
        );
    }
    let kind = match transition.change {
        Change::Opened | Change::Repeated => "Warning",
        Change::Cleared => "Normal",
    };
    Event {
        metadata: ObjectMeta {
            // The same at each try: an Event whose answer was lost is not created twice.
            name: Some(format!(
                "{}.{:x}{sequence:04x}",
                node.name,
                found.as_microsecond()
            )),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some(transition.change.name().to_owned()),
        event_time: Some(MicroTime(found)),
        note: Some(text::bounded(&note, NOTE_LIMIT)),
        reason: Some(finding.reason.to_string()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.name.to_owned()),
            uid: Some(node.uid.to_owned()),
            ..ObjectReference::default()
        }),
        related: pod.and_then(|pod| pod.reference),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(text::bounded(node.name, 128)),
        type_: Some(kind.to_owned()),
        ..Event::default()
    }
}

/// The pod of a workload, as the host knows it.
struct Pod {
    label: String,
    reference: Option<ObjectReference>,
}

impl Pod {
    /// Names come from kubelet's folders `<namespace>_<name>_<uid>`: the API server is not asked
    /// for pods.
    fn find(workload: &Workload, pod_logs: &Path) -> Self {
        let container = workload
            .container_id
            .as_deref()
            .map(|id| format!(", container {id}"))
            .unwrap_or_default();
        let Some(uid) = &workload.pod_uid else {
            return Self {
                label: format!("cgroup {}", workload.cgroup),
                reference: None,
            };
        };
        let Some((namespace, name)) = folder_of(pod_logs, uid) else {
            return Self {
                label: format!("the pod with UID {uid} (not found on this node){container}"),
                reference: None,
            };
        };
        Self {
            label: format!("pod {namespace}/{name} (UID {uid}){container}"),
            reference: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(namespace),
                name: Some(name),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            }),
        }
    }
}

fn folder_of(pod_logs: &Path, uid: &str) -> Option<(String, String)> {
    let folders = std::fs::read_dir(pod_logs).ok()?;
    folders.flatten().find_map(|entry: std::fs::DirEntry| {
        let folder = entry.file_name().into_string().ok()?;
        // Neither namespaces nor pod names may contain an underscore.
        let mut parts = folder.splitn(3, '_');
        let (namespace, name, found) = (parts.next()?, parts.next()?, parts.next()?);
        (found == uid).then(|| (namespace.to_owned(), name.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Finding, Now, Subject};

    const UID: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

    fn oom(workload: Workload) -> Pending {
        let now = Now {
            boot: Duration::from_secs(9),
            wall: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        };
        let finding = Finding {
            reason: Reason::OomKilling,
            entity: "e".to_owned(),
            severity: Severity::Warning,
            message: "process hog (pid 7) was killed by the OOM killer".to_owned(),
            subject: Subject {
                workload: Some(workload),
                ..Subject::default()
            },
            count: 1,
            flaps: 0,
            opened: now,
            last_seen: now.boot,
        };
        let transition = Transition {
            change: Change::Opened,
            finding,
            fault: now.boot,
            found: now,
        };
        Pending {
            transition,
            withheld: 0,
            sequence: 1,
        }
    }

    fn in_pod() -> Workload {
        Workload {
            cgroup: "c".to_owned(),
            pod_uid: Some(UID.to_owned()),
            container_id: Some("abc".to_owned()),
        }
    }

    fn told(pending: &Pending, pod_logs: &Path) -> Event {
        event(
            pending,
            &NodeIdentity {
                name: "node-1",
                uid: "node-uid",
            },
            pod_logs,
        )
    }

    #[test]
    fn an_event_is_about_the_node_and_names_pod_and_process() {
        let logs = tempfile::tempdir().unwrap();
        std::fs::create_dir(logs.path().join(format!("shop_web-1_{UID}"))).unwrap();
        let event = told(&oom(in_pod()), logs.path());
        let regarding = event.regarding.unwrap();
        assert_eq!(
            (regarding.kind.as_deref(), regarding.uid.as_deref()),
            (Some("Node"), Some("node-uid"))
        );
        assert_eq!(
            event.note.unwrap(),
            format!(
                "process hog (pid 7) was killed by the OOM killer, in pod shop/web-1 (UID {UID}), container abc"
            )
        );
        let related = event.related.unwrap();
        assert_eq!(
            (related.namespace.as_deref(), related.name.as_deref()),
            (Some("shop"), Some("web-1"))
        );
    }

    #[test]
    fn a_pod_that_this_node_does_not_know_is_named_by_its_uid() {
        let logs = tempfile::tempdir().unwrap();
        let event = told(&oom(in_pod()), logs.path());
        assert!(
            event
                .note
                .unwrap()
                .contains(&format!("the pod with UID {UID} (not found on this node)"))
        );
        assert_eq!(event.related, None);
    }

    #[test]
    fn a_cgroup_outside_of_pods_is_named() {
        let workload = Workload {
            cgroup: "system.slice/x.service".to_owned(),
            ..Workload::default()
        };
        let event = told(&oom(workload), Path::new("/nonexistent"));
        assert!(
            event
                .note
                .unwrap()
                .ends_with(", in cgroup system.slice/x.service")
        );
    }

    #[test]
    fn a_second_try_has_the_name_of_the_first() {
        let pending = oom(in_pod());
        let [first, second] =
            [(); 2].map(|()| told(&pending, Path::new("/nonexistent")).metadata.name);
        assert_eq!(first, second);
        let other = Pending {
            sequence: 2,
            ..oom(in_pod())
        };
        assert_ne!(told(&other, Path::new("/nonexistent")).metadata.name, first);
    }

    #[test]
    fn a_storm_of_one_reason_withholds_its_own_events_only_and_counts_them() {
        let mut budgets = Budgets::new();
        let second = Duration::from_secs;
        let let_out = (0..20)
            .filter(|_| budgets.take(Reason::OomKilling, second(100)).is_some())
            .count();
        assert_eq!(let_out, 10);
        assert_eq!(budgets.take(Reason::BlockIoError, second(100)), Some(0));
        assert_eq!(budgets.take(Reason::OomKilling, second(130)), Some(10));
    }

    #[test]
    fn a_warning_that_went_quiet_is_not_told_and_a_fatal_one_is() {
        let mut cleared = oom(in_pod()).transition;
        cleared.change = Change::Cleared;
        assert!(!is_told(&cleared));
        cleared.finding.severity = Severity::Fatal;
        assert!(is_told(&cleared));
    }
}

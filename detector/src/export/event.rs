//! PURE. Events: one per transition, on the Node, and one on the pod where there is one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::{Value, json};

use super::schedule::Bucket;
use crate::finding::{Change, Now, Transition};
use crate::reason::{Reason, Severity};
use crate::text;

/// Events about cluster-scoped objects live here.
const NAMESPACE: &str = "default";
const CONTROLLER: &str = "nodemend.dev/detector";
/// The API's limit of `note`.
const NOTE_LIMIT: usize = 1024;
/// The API's limit of names, less a dot and 16 digits.
const NAME_LIMIT: usize = 253 - 17;

/// One budget per reason: a storm of one never silences another, nor what is history what happens
/// now.
pub(super) struct Budgets {
    buckets: HashMap<(Reason, bool), (Bucket, u64)>,
}

impl Budgets {
    pub(super) fn new() -> Self {
        Self {
            buckets: HashMap::new(),
        }
    }

    /// Whether an Event of this reason may go out; if so, how many could not since the last one.
    pub(super) fn take(&mut self, reason: Reason, historic: bool, now: Duration) -> Option<u64> {
        let fresh = || (Bucket::new(10, Duration::from_secs(30)), 0);
        let (bucket, withheld) = self.buckets.entry((reason, historic)).or_insert_with(fresh);
        match bucket.take(now) {
            Ok(()) => Some(std::mem::take(withheld)),
            Err(_) => {
                *withheld += 1;
                None
            }
        }
    }

    /// The Event that went out had no room to say it.
    pub(super) fn not_said(&mut self, reason: Reason, historic: bool, withheld: u64) {
        if let Some((_, waiting)) = self.buckets.get_mut(&(reason, historic)) {
            *waiting += withheld;
        }
    }
}

/// Opened and repeated findings are told; a Warning that went quiet is not, and Info never is.
pub(super) fn is_told(transition: &Transition) -> bool {
    match (transition.finding.severity, transition.change) {
        (Severity::Info, _) => false,
        (Severity::Warning, change) => change != Change::Cleared,
        (Severity::Fatal, _) => true,
    }
}

/// What the exporter itself has to say: about no finding, once.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub reason: &'static str,
    pub note: String,
    pub at: Now,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are transitions; boxing each would cost more than it saves"
)]
pub(super) enum News {
    Transition(Transition),
    Notice(Notice),
}

/// News on their way to the API server.
pub(super) struct Pending {
    pub(super) news: News,
    /// Events of its reason that the budget did not let out before it.
    pub(super) withheld: u64,
    /// Found when its turn has come.
    pub(super) pod: Option<Pod>,
    /// The Node's Event is there; the pod's is not yet.
    pub(super) node_told: bool,
}

/// The pod of a workload, as the host knows it.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) label: String,
    pub(super) reference: Option<ObjectReference>,
}

/// Who says it.
#[derive(Clone, Copy)]
pub(super) struct Reporter<'a> {
    pub(super) node: &'a str,
    /// Of the Node object.
    pub(super) uid: &'a str,
    pub(super) boot_id: &'a str,
}

impl Pending {
    pub(super) fn of(news: News, withheld: u64) -> Self {
        Self {
            news,
            withheld,
            pod: None,
            node_told: false,
        }
    }

    pub(super) fn reason(&self) -> Cow<'_, str> {
        match &self.news {
            News::Transition(transition) => transition.finding.reason.name(),
            News::Notice(notice) => Cow::Borrowed(notice.reason),
        }
    }

    fn at(&self) -> Timestamp {
        match &self.news {
            News::Transition(transition) => transition.found.wall,
            News::Notice(notice) => notice.at.wall,
        }
    }

    fn action(&self) -> &'static str {
        match &self.news {
            News::Transition(transition) => transition.change.name(),
            News::Notice(_) => "noticed",
        }
    }

    fn note(&self) -> String {
        let mut note = match &self.news {
            News::Notice(notice) => notice.note.clone(),
            News::Transition(transition) => {
                let finding = &transition.finding;
                match transition.change {
                    Change::Opened => finding.text().into_owned(),
                    Change::Repeated => format!("{} ({} times)", finding.text(), finding.count),
                    Change::Cleared => format!("recovered: {}", finding.message),
                }
            }
        };
        if let Some(pod) = &self.pod {
            note = format!("{note}, in {}", pod.label);
        }
        if self.withheld > 0 {
            let withheld = self.withheld;
            note = format!(
                "{note} [{withheld} earlier events of this reason were withheld by its rate limit]"
            );
        }
        text::printable(note.as_bytes(), NOTE_LIMIT)
    }

    /// The same for the same fault of the same boot, whoever tells it: an agent that was killed
    /// before it could note that it had told it, and reads the fault again, makes no second Event.
    fn identity(&self, boot_id: &str) -> u64 {
        let mut hash = Fnv::new();
        hash.field(boot_id.as_bytes());
        hash.field(self.reason().as_bytes());
        match &self.news {
            News::Transition(transition) => {
                hash.field(transition.finding.entity.as_bytes());
                hash.field(transition.change.name().as_bytes());
                hash.field(&transition.fault.as_nanos().to_le_bytes());
                hash.field(&transition.finding.count.to_le_bytes());
            }
            News::Notice(notice) => hash.field(notice.note.as_bytes()),
        }
        hash.0
    }
}

impl Reporter<'_> {
    /// The Node object.
    fn object(self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.node.to_owned()),
            uid: Some(self.uid.to_owned()),
            ..ObjectReference::default()
        }
    }
}

/// About the Node.
pub(super) fn on_node(pending: &Pending, by: Reporter<'_>) -> Event {
    let pod = pending.pod.as_ref().and_then(|pod| pod.reference.clone());
    event(pending, by, NAMESPACE, by.object(), pod)
}

/// About the pod, in its namespace, so that `kubectl describe pod` shows it; None without one.
pub(super) fn on_pod(pending: &Pending, by: Reporter<'_>) -> Option<Event> {
    let pod = pending.pod.as_ref()?.reference.clone()?;
    let namespace = pod.namespace.clone()?;
    Some(event(pending, by, &namespace, pod, Some(by.object())))
}

fn event(
    pending: &Pending,
    by: Reporter<'_>,
    namespace: &str,
    regarding: ObjectReference,
    related: Option<ObjectReference>,
) -> Event {
    let kind = match &pending.news {
        News::Transition(Transition {
            change: Change::Cleared,
            ..
        }) => "Normal",
        News::Transition(_) | News::Notice(_) => "Warning",
    };
    let mut identity = Fnv(pending.identity(by.boot_id));
    identity.field(regarding.kind.as_deref().unwrap_or_default().as_bytes());
    let name: String = regarding
        .name
        .iter()
        .flat_map(|name| name.chars())
        .take(NAME_LIMIT)
        .collect();
    let name = name.trim_end_matches(['.', '-']);
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", identity.0)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some(pending.action().to_owned()),
        event_time: Some(MicroTime(pending.at())),
        note: Some(pending.note()),
        reason: Some(pending.reason().into_owned()),
        regarding: Some(regarding),
        related,
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(text::bounded(by.node, 128)),
        type_: Some(kind.to_owned()),
        ..Event::default()
    }
}

/// How often, on an Event that is there already: the API allows no other change.
pub(super) fn series(transition: &Transition) -> Value {
    let count = i32::try_from(transition.finding.count).unwrap_or(i32::MAX);
    let last = transition.found.wall.strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    json!({"series": {"count": count.max(2), "lastObservedTime": last.to_string()}})
}

/// FNV-1a: the same in every release, and no secret depends on it.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn field(&mut self, bytes: &[u8]) {
        // With its length, so that two fields cannot trade bytes.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes();
        for byte in length.iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Finding, Subject};

    const BY: Reporter<'_> = Reporter {
        node: "node-1",
        uid: "node-uid",
        boot_id: "boot-1",
    };

    fn oom() -> Transition {
        let now = Now {
            boot: Duration::from_secs(9),
            wall: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        };
        let finding = Finding {
            reason: Reason::OomKilling,
            entity: "e".to_owned(),
            severity: Severity::Warning,
            message: "process hog (pid 7) was killed by the OOM killer".to_owned(),
            subject: Subject::default(),
            count: 1,
            flaps: 0,
            historic: false,
            opened: now,
            last_seen: now.boot,
        };
        Transition {
            change: Change::Opened,
            finding,
            fault: now.boot,
            found: now,
        }
    }

    fn of(transition: Transition) -> Pending {
        Pending::of(News::Transition(transition), 0)
    }

    fn in_pod() -> Pending {
        let reference = ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some("shop".to_owned()),
            name: Some("web-1".to_owned()),
            uid: Some("pod-uid".to_owned()),
            ..ObjectReference::default()
        };
        Pending {
            pod: Some(Pod {
                label: "pod shop/web-1".to_owned(),
                reference: Some(reference),
            }),
            ..of(oom())
        }
    }

    fn name(pending: &Pending, by: Reporter<'_>) -> String {
        on_node(pending, by).metadata.name.unwrap()
    }

    #[test]
    fn an_event_is_about_the_node_and_names_pod_and_process() {
        let event = on_node(&in_pod(), BY);
        let regarding = event.regarding.unwrap();
        assert_eq!(
            (regarding.kind.as_deref(), regarding.uid.as_deref()),
            (Some("Node"), Some("node-uid"))
        );
        assert_eq!(
            event.note.unwrap(),
            "process hog (pid 7) was killed by the OOM killer, in pod shop/web-1"
        );
        assert_eq!(event.related.unwrap().uid.as_deref(), Some("pod-uid"));
    }

    #[test]
    fn the_pod_has_an_event_of_its_own_in_its_namespace() {
        let event = on_pod(&in_pod(), BY).unwrap();
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(event.regarding.unwrap().uid.as_deref(), Some("pod-uid"));
        assert_eq!(event.related.unwrap().uid.as_deref(), Some("node-uid"));
        assert!(on_pod(&of(oom()), BY).is_none());
    }

    #[test]
    fn a_fault_that_is_read_again_has_the_name_of_its_first_event() {
        let mut again = oom();
        again.found.wall = "2026-01-02T03:05:00Z".parse().unwrap();
        again.found.boot += Duration::from_secs(55);
        assert_eq!(name(&of(again), BY), name(&of(oom()), BY));
    }

    #[test]
    fn another_boot_fault_entity_change_or_count_is_another_event() {
        let mut names = vec![
            name(&of(oom()), BY),
            name(
                &of(oom()),
                Reporter {
                    boot_id: "boot-2",
                    ..BY
                },
            ),
        ];
        let changes: [fn(&mut Transition); 5] = [
            |t| t.finding.reason = Reason::AppBlocked,
            |t| t.finding.entity = "f".to_owned(),
            |t| t.change = Change::Repeated,
            |t| t.fault += Duration::from_nanos(1),
            |t| t.finding.count = 2,
        ];
        for change in changes {
            let mut transition = oom();
            change(&mut transition);
            names.push(name(&of(transition), BY));
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_name_of_an_event_never_changes_between_releases() {
        assert_eq!(name(&of(oom()), BY), "node-1.3750e2014cbbe127");
    }

    #[test]
    fn the_longest_node_name_still_makes_a_valid_event_name() {
        let long = format!("{}.{}", "a".repeat(235), "b".repeat(17));
        let name = name(&of(oom()), Reporter { node: &long, ..BY });
        assert!(name.len() <= 253, "{}", name.len());
        assert!(!name.contains(".."), "{name}");
    }

    #[test]
    fn a_note_is_one_bounded_line_without_terminal_escapes() {
        let mut transition = oom();
        transition.finding.message = format!("\x1b[2J\n{}", "x".repeat(5000));
        let note = on_node(&of(transition), BY).note.unwrap();
        assert!(note.starts_with("\\u{1b}[2J\\u{a}xxx"), "{note}");
        assert!(note.len() <= NOTE_LIMIT);
    }

    #[test]
    fn a_series_counts_at_least_two() {
        let mut transition = oom();
        assert_eq!(series(&transition)["series"]["count"], 2);
        transition.finding.count = u64::MAX;
        assert_eq!(
            series(&transition),
            json!({"series": {"count": i32::MAX, "lastObservedTime": "2026-01-02T03:04:05.678000Z"}})
        );
    }

    #[test]
    fn a_storm_of_one_reason_withholds_its_own_events_only_and_counts_them() {
        let mut budgets = Budgets::new();
        let second = Duration::from_secs;
        let let_out = (0..20)
            .filter(|_| {
                budgets
                    .take(Reason::OomKilling, false, second(100))
                    .is_some()
            })
            .count();
        assert_eq!(let_out, 10);
        let mut take = |reason, historic, now| budgets.take(reason, historic, second(now));
        assert_eq!(take(Reason::BlockIoError, false, 100), Some(0));
        assert_eq!(take(Reason::OomKilling, true, 100), Some(0));
        assert_eq!(take(Reason::OomKilling, false, 130), Some(10));
    }

    #[test]
    fn a_warning_that_went_quiet_is_not_told_and_a_fatal_one_is() {
        let mut cleared = oom();
        cleared.change = Change::Cleared;
        assert!(!is_told(&cleared));
        cleared.finding.severity = Severity::Fatal;
        assert!(is_told(&cleared));
    }

    #[test]
    fn info_is_no_event() {
        let mut info = oom();
        info.finding.severity = Severity::Info;
        assert!(!is_told(&info));
    }
}

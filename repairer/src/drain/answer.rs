//! PURE. What the API server's answers to evictions mean, and when to ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kube::core::Status;

/// What became of one eviction (pkg/registry/core/pod/storage/eviction.go).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is on its way.
    Accepted,
    /// It is gone, or the pod of this name is another one.
    Gone,
    /// A PodDisruptionBudget says not now.
    Budget(String),
    /// Two budgets select it: says the API server for ever.
    TwoBudgets,
    /// The API server is busy with others; no word about a budget.
    Throttled(Duration),
    /// Its namespace is being deleted, and it goes with that.
    NamespaceGoes,
    /// The budget's controller is behind by thousands of pods.
    Overloaded,
    /// Our account may not: no other pod will fare better.
    Forbidden(String),
    /// Somebody else wrote at the same time.
    Conflict,
    Trouble(String),
}

impl Answer {
    pub fn refused(status: &Status) -> Self {
        let details = status.details.as_ref();
        let causes = details.iter().flat_map(|details| &details.causes);
        let budget = causes
            .into_iter()
            .find(|cause| cause.reason == "DisruptionBudget");
        let message = &status.message;
        let wait = details.map_or(0, |details| details.retry_after_seconds);
        match status.code {
            404 => Self::Gone,
            409 if message.contains("UID") => Self::Gone,
            409 => Self::Conflict,
            429 => match budget {
                Some(cause) => Self::Budget(cause.message.clone()),
                // Priority and fairness of the API server.
                None => Self::Throttled(Duration::from_secs(u64::from(wait.clamp(1, 60)))),
            },
            403 if message.contains("being terminated") => Self::NamespaceGoes,
            403 if message.contains("too many") || message.contains("negative") => Self::Overloaded,
            403 => Self::Forbidden(message.clone()),
            500 if message.contains("more than one PodDisruptionBudget") => Self::TwoBudgets,
            code => Self::Trouble(format!("{code} {}: {message}", status.reason)),
        }
    }

    /// When the same pod is asked again; some pods sooner than others, so that they do not all come
    /// at once.
    fn again(&self, uid: &str) -> Duration {
        let jitter = uid.bytes().fold(0_u64, |sum, byte| sum + u64::from(byte)) % 2000;
        let seconds = match self {
            Self::Accepted | Self::Gone | Self::Conflict => 1,
            Self::Budget(_) => 4,
            Self::Trouble(_) => 10,
            Self::NamespaceGoes | Self::Overloaded | Self::TwoBudgets | Self::Forbidden(_) => 30,
            Self::Throttled(wait) => wait.as_secs(),
        };
        Duration::from_secs(seconds) + Duration::from_millis(jitter)
    }

    /// For the record; `None` where nothing is in the way.
    pub fn in_the_way(&self) -> Option<String> {
        match self {
            Self::Accepted | Self::Gone => None,
            Self::Budget(message) => Some(message.clone()),
            Self::TwoBudgets => Some(
                "more than one PodDisruptionBudget selects it: the API server evicts no such pod"
                    .to_owned(),
            ),
            Self::Throttled(_) => Some("the API server is throttling".to_owned()),
            Self::NamespaceGoes => Some("its namespace is being deleted".to_owned()),
            Self::Overloaded => {
                Some("the controller of disruption budgets is overloaded".to_owned())
            }
            Self::Forbidden(message) => Some(format!("not allowed to us: {message}")),
            Self::Conflict => Some("somebody else wrote at the same time".to_owned()),
            Self::Trouble(message) => Some(message.clone()),
        }
    }
}

/// What was answered last for each pod. It is not stored: a new process asks again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    by_uid: BTreeMap<String, (Answer, Timestamp)>,
    throttled_until: Option<Timestamp>,
}

impl Tries {
    pub fn note(&mut self, uid: &str, answer: Answer, now: Timestamp) {
        if let Answer::Throttled(wait) = &answer {
            self.throttled_until = Some(now + *wait);
        }
        let again = now + answer.again(uid);
        self.by_uid.insert(uid.to_owned(), (answer, again));
    }

    /// Forgets the pods that are not there any more.
    pub fn keep(&mut self, uids: &BTreeSet<&str>) {
        self.by_uid.retain(|uid, _| uids.contains(uid.as_str()));
    }

    pub fn last(&self, uid: &str) -> Option<&Answer> {
        self.by_uid.get(uid).map(|(answer, _)| answer)
    }

    /// Before this, asking is of no use.
    pub fn not_before(&self, uid: &str) -> Option<Timestamp> {
        let own = self.by_uid.get(uid).map(|(_, again)| *again);
        own.into_iter().chain(self.throttled_until).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, message: &str, cause: Option<&str>) -> Status {
        let cause = cause
            .map(|message| serde_json::json!({"reason": "DisruptionBudget", "message": message}));
        let causes: Vec<_> = cause.into_iter().collect();
        serde_json::from_value(
            serde_json::json!({"code": code, "message": message, "reason": "x", "details": {"causes": causes}}),
        )
        .unwrap()
    }

    #[test]
    fn each_answer_has_its_own_meaning() {
        let budget = "The disruption budget web needs 3 healthy pods and has 3 currently";
        let uid = "Precondition failed: UID in precondition: a, UID in object meta: b";
        let two = "This pod has more than one PodDisruptionBudget";
        let going = "unable to create new content in namespace a because it is being terminated";
        let rbac = "pods \"a\" is forbidden: User cannot create resource pods/eviction";
        let cases = [
            (
                status(429, "", Some(budget)),
                Answer::Budget(budget.to_owned()),
            ),
            (
                status(429, "busy", None),
                Answer::Throttled(Duration::from_secs(1)),
            ),
            (status(404, "not found", None), Answer::Gone),
            (status(409, uid, None), Answer::Gone),
            (
                status(409, "the object has been modified", None),
                Answer::Conflict,
            ),
            (status(500, two, None), Answer::TwoBudgets),
            (
                status(500, "webhook", None),
                Answer::Trouble("500 x: webhook".to_owned()),
            ),
            (status(403, going, None), Answer::NamespaceGoes),
            (status(403, "too many evictions", None), Answer::Overloaded),
            (status(403, rbac, None), Answer::Forbidden(rbac.to_owned())),
        ];
        for (status, expected) in cases {
            assert_eq!(Answer::refused(&status), expected, "{status:?}");
        }
    }

    #[test]
    fn throttling_stops_all_and_a_budget_only_its_pod() {
        let now = Timestamp::UNIX_EPOCH;
        let mut tries = Tries::default();
        tries.note("a", Answer::Budget("no".to_owned()), now);
        assert!(tries.not_before("a").is_some_and(|at| at > now));
        assert_eq!(tries.not_before("b"), None);
        tries.note("c", Answer::Throttled(Duration::from_secs(20)), now);
        assert_eq!(tries.not_before("b"), Some(now + Duration::from_secs(20)));
        tries.keep(&BTreeSet::from(["c"]));
        assert_eq!(tries.last("a"), None);
    }
}

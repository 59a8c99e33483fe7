//! PURE. The next step of a drain: who is evicted now, who is waited for, what stays, and what is in
//! the way.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::answer::{Answer, Tries};
use super::budget::{Budget, Clears};
use super::pod::{Owner, PodView, Wish};
use super::volume::{self, Attachment};
use crate::api::duration::Wait;
use crate::api::policy::{
    LocalVolumes, LocalVolumesAtReboot, OnTimeout, RepairAction, UnmanagedPods,
};
use crate::api::repair::Blocked;

/// Beyond its grace a pod that still is there is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Evictions of one pass.
const MOST_AT_ONCE: usize = 100;
/// Pods that are told of.
const MOST_TOLD: usize = 10;

/// What is known, and what the policy says.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Listed in this pass.
    pub pods: &'a [PodView],
    pub budgets: Option<&'a [Budget]>,
    /// Namespace and name of those that exist.
    pub daemon_sets: Option<&'a BTreeSet<String>>,
    /// Of this node.
    pub attachments: Option<&'a [&'a Attachment]>,
    pub tries: &'a Tries,
    /// Namespace and name of the pod that this process runs in.
    pub own_pod: Option<&'a str>,
    /// Nobody is there to end a pod.
    pub kubelet_is_silent: bool,
    pub rules: Rules,
    pub now: Timestamp,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What the drain is for.
    pub action: RepairAction,
    pub since: Timestamp,
    /// Since when no pod was left that had to leave.
    pub emptied: Option<Timestamp>,
    pub timeout: Wait,
    pub on_timeout: OnTimeout,
    pub local_volumes: LocalVolumes,
    pub local_volumes_at_reboot: LocalVolumesAtReboot,
    pub unmanaged_pods: UnmanagedPods,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    pub evict: Vec<PodView>,
    /// Past its budget, after the timeout.
    pub delete: Vec<Deletion>,
    /// Only the pod of this process is left: somebody else is to lead first.
    pub own_pod_is_last: bool,
    pub remaining: usize,
    pub blocked: Vec<Blocked>,
    pub left: Vec<Blocked>,
    pub detaching: Vec<String>,
    pub state: State,
    /// When time alone changes the plan.
    pub wake: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub pod: PodView,
    /// Never zero: the kubelet is to say that it has ended.
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody is left who has to leave, and their volumes are gone.
    Drained,
    /// Nobody is left; volumes are still attached.
    Detaching,
    Going,
    /// Only those are left that a person must decide about.
    Stuck,
    /// The timeout has passed, and no pod's own grace excuses it.
    Late,
    /// The API server does not let us evict.
    Denied(String),
}

enum Fate {
    /// Stays, and is no obstacle; with a reason where that is worth telling.
    Leave(Option<String>),
    Evict,
    /// Past all budgets.
    Delete(Duration),
    /// Ends by itself.
    Await(String),
    /// A person must decide.
    Hold(&'static str),
}

impl Task<'_> {
    pub fn plan(&self) -> Drain {
        let fates: Vec<_> = self.pods.iter().map(|pod| (pod, self.fate(pod))).collect();
        let mut drain = Drain {
            evict: Vec::new(),
            delete: Vec::new(),
            own_pod_is_last: false,
            remaining: 0,
            blocked: Vec::new(),
            left: Vec::new(),
            detaching: Vec::new(),
            state: State::Going,
            wake: None,
        };
        let goes = |fate: &Fate| !matches!(fate, Fate::Leave(_));
        let remaining = fates.iter().filter(|(_, fate)| goes(fate));
        let rank = remaining.map(|(pod, _)| self.rank(pod)).min();
        let mut only_a_person = true;
        let mut denied = None;
        for (pod, fate) in &fates {
            drain.remaining += usize::from(goes(fate));
            match fate {
                Fate::Leave(why) => {
                    if let Some(why) = why {
                        drain.left.push(told(pod, why.clone()));
                    }
                }
                Fate::Hold(why) => drain.blocked.push(told(pod, (*why).to_owned())),
                Fate::Await(why) => {
                    only_a_person = false;
                    drain.blocked.push(told(pod, why.clone()));
                }
                Fate::Evict | Fate::Delete(_) => {
                    only_a_person = false;
                    drain.blocked.extend(self.in_the_way(pod));
                    if let Some(Answer::Forbidden(why)) = self.tries.last(&pod.uid) {
                        denied = Some(why.clone());
                    }
                    if Some(self.rank(pod)) == rank {
                        self.ask(pod, fate, &mut drain);
                    }
                }
            }
        }
        drain.evict.truncate(MOST_AT_ONCE);
        drain.delete.truncate(MOST_AT_ONCE);
        drain.blocked.truncate(MOST_TOLD);
        drain.left.truncate(MOST_TOLD);
        drain.own_pod_is_last = rank == Some(Rank::Own) && !drain.evict.is_empty();
        let deadline = self.deadline();
        drain.state = if drain.remaining == 0 {
            self.detach(&fates, &mut drain)
        } else if let Some(why) = denied {
            State::Denied(why)
        } else if deadline <= self.now {
            State::Late
        } else if only_a_person {
            State::Stuck
        } else {
            State::Going
        };
        if deadline > self.now {
            drain.wake = drain.wake.into_iter().chain([deadline]).min();
        }
        drain
    }

    /// kubectl's classes, in its order, and what else is to be told apart.
    fn fate(&self, pod: &PodView) -> Fate {
        let rules = &self.rules;
        let unmanaged = match &pod.owner {
            Owner::Static => return Fate::Leave(None),
            Owner::DaemonSet(name) => {
                let key = format!("{}/{name}", pod.namespace);
                if self.daemon_sets.is_none_or(|all| all.contains(&key)) {
                    return Fate::Leave(None);
                }
                true
            }
            Owner::Controller => false,
            Owner::None => true,
        };
        if pod.wish == Some(Wish::Skip) {
            return Fate::Leave(Some("its label nodemend.dev/drain=skip".to_owned()));
        }
        if pod.ended {
            return Fate::Leave(None);
        }
        if let Some(ends) = pod.ends {
            return self.ending(pod, ends);
        }
        // Times of creation are whole seconds.
        if pod.tolerates_cordon && pod.created.as_second() >= rules.since.as_second() {
            let why = "it tolerates the cordon, and would come back again".to_owned();
            return Fate::Leave(Some(why));
        }
        let forced = self.forced_at(pod).is_some_and(|at| at <= self.now);
        if pod.local_volume {
            match (
                rules.action,
                rules.local_volumes_at_reboot,
                rules.local_volumes,
            ) {
                (RepairAction::Reboot, LocalVolumesAtReboot::Leave, _) => {
                    let why = "its emptyDir volume outlives the reboot".to_owned();
                    return Fate::Leave(Some(why));
                }
                (RepairAction::Reboot, LocalVolumesAtReboot::Hold, _) => {
                    return Fate::Hold(
                        "its emptyDir volume would be lost (drain.localVolumesAtReboot: Hold)",
                    );
                }
                (RepairAction::Replace | RepairAction::NoAction, _, LocalVolumes::Hold) => {
                    return Fate::Hold(
                        "its emptyDir volume would be lost (drain.localVolumes: Hold)",
                    );
                }
                (RepairAction::Reboot, LocalVolumesAtReboot::Discard, _)
                | (RepairAction::Replace | RepairAction::NoAction, _, LocalVolumes::Discard) => {}
            }
        }
        if unmanaged {
            match rules.unmanaged_pods {
                UnmanagedPods::Hold => {
                    return Fate::Hold(
                        "no controller would make it again (drain.unmanagedPods: Hold)",
                    );
                }
                UnmanagedPods::Evict => {}
            }
        }
        if forced {
            return Fate::Delete(pod.grace.max(Duration::from_secs(1)));
        }
        if pod.wish == Some(Wish::Wait) {
            return Fate::Await("its label nodemend.dev/drain=wait: it ends by itself".to_owned());
        }
        match &pod.asks_to_stay {
            Some(mark) if self.now < rules.since + rules.timeout.0 => Fate::Await(format!(
                "it asks to stay ({mark}), until the drain's timeout"
            )),
            Some(_) | None => Fate::Evict,
        }
    }

    /// Of a pod that was told to end.
    fn ending(&self, pod: &PodView, ends: Timestamp) -> Fate {
        if ends > self.now {
            return Fate::Await(format!("its grace lasts until {}", second(ends)));
        }
        if self.kubelet_is_silent {
            let why = "its kubelet is silent: it may run until the instance ends";
            return Fate::Leave(Some(why.to_owned()));
        }
        let stuck = ends + STUCK <= self.now;
        if stuck && !pod.finalizers.is_empty() {
            let why = format!(
                "only its finalizers are left: {}",
                pod.finalizers.join(", ")
            );
            return Fate::Leave(Some(why.chars().take(256).collect()));
        }
        match self.forced_at(pod) {
            Some(at) if at <= self.now && stuck => {
                let why = "it does not end; the end of the instance ends it (onTimeout: Force)";
                Fate::Leave(Some(why.to_owned()))
            }
            Some(at) if at <= self.now => Fate::Delete(Duration::from_secs(1)),
            Some(_) | None => {
                let ends = second(ends);
                Fate::Await(format!(
                    "it has not ended since {ends}, when its grace was over"
                ))
            }
        }
    }

    /// So early that its grace ends with the timeout, but not before half of that has passed.
    fn forced_at(&self, pod: &PodView) -> Option<Timestamp> {
        match self.rules.on_timeout {
            OnTimeout::Hold | OnTimeout::Release => None,
            OnTimeout::Force => {
                let Wait(timeout) = self.rules.timeout;
                let early = timeout.saturating_sub(pod.grace).max(timeout / 2);
                Some(self.rules.since + early)
            }
        }
    }

    /// Never before the grace of a pod that is on its way.
    fn deadline(&self) -> Timestamp {
        let graces = self.pods.iter().filter_map(|pod| pod.ends);
        let graces = graces.filter(|ends| *ends > self.now);
        let timeout = self.rules.since + self.rules.timeout.0;
        graces.fold(timeout, Timestamp::max)
    }

    fn rank(&self, pod: &PodView) -> Rank {
        if self.own_pod == Some(pod.label().as_str()) {
            Rank::Own
        } else if pod.critical {
            Rank::Critical
        } else {
            Rank::Ordinary
        }
    }

    fn budgets_of(&self, pod: &PodView) -> Vec<&Budget> {
        let budgets = self.budgets.unwrap_or_default().iter();
        budgets.filter(|budget| budget.selects(pod)).collect()
    }

    fn ask(&self, pod: &PodView, fate: &Fate, drain: &mut Drain) {
        if let Some(at) = self.tries.not_before(&pod.uid).filter(|at| *at > self.now) {
            drain.wake = drain.wake.into_iter().chain([at]).min();
            return;
        }
        match fate {
            Fate::Delete(grace) => drain.delete.push(Deletion {
                pod: pod.clone(),
                grace: *grace,
            }),
            Fate::Evict => drain.evict.push(pod.clone()),
            Fate::Leave(_) | Fate::Await(_) | Fate::Hold(_) => {}
        }
    }

    /// What the last answer said, with what its budget says about ever letting go.
    fn in_the_way(&self, pod: &PodView) -> Option<Blocked> {
        let answer = self.tries.last(&pod.uid)?;
        let why = answer.in_the_way()?;
        let budgets = self.budgets_of(pod);
        let mut blocked = told(pod, why);
        match (answer, budgets.as_slice()) {
            (Answer::TwoBudgets, budgets) => {
                let names: Vec<_> = budgets.iter().map(|budget| budget.name.as_str()).collect();
                blocked.budget = (!names.is_empty()).then(|| names.join(", "));
                blocked.never = true;
            }
            (Answer::Budget(_), [budget]) => {
                blocked.budget = Some(budget.name.clone());
                let clears = budget.clears();
                blocked.never = matches!(clears, Clears::Never(_));
                let (Clears::Never(more) | Clears::Maybe(more)) = clears;
                let word = if blocked.never {
                    "it never lets go: "
                } else {
                    ""
                };
                blocked.why = format!("{}; {word}{more}", blocked.why);
            }
            _ => {}
        }
        Some(blocked)
    }

    /// Whether the volumes of those who left are gone, too.
    fn detach(&self, fates: &[(&PodView, Fate)], drain: &mut Drain) -> State {
        // A reboot keeps them, and a silent kubelet never lets go of one.
        if self.rules.action == RepairAction::Reboot || self.kubelet_is_silent {
            return State::Drained;
        }
        let since = self.rules.emptied.unwrap_or(self.now);
        let until = since + volume::LONGEST;
        let kept: BTreeSet<_> = fates.iter().flat_map(|(pod, _)| &pod.claims).collect();
        let own = |attachment: &&&Attachment| {
            let claim = attachment.claim.as_ref();
            !attachment.shared && !claim.is_some_and(|claim| kept.contains(claim))
        };
        let attached = match self.attachments {
            Some(attachments) => attachments.iter().filter(own).collect::<Vec<_>>(),
            None => Vec::new(),
        };
        let known = self.attachments.is_some();
        let volumes = attached.iter().map(|attachment| attachment.volume.clone());
        drain.detaching = volumes.take(MOST_TOLD).collect();
        if (known && drain.detaching.is_empty()) || until <= self.now {
            return State::Drained;
        }
        drain.wake = Some(until);
        State::Detaching
    }
}

/// Who is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ordinary,
    /// DNS, networks, storage: others may need them to end well.
    Critical,
    Own,
}

fn told(pod: &PodView, why: String) -> Blocked {
    Blocked {
        pod: pod.label(),
        why,
        ..Blocked::default()
    }
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

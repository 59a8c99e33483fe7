//! PURE. One repair's next step. A phase is an intent that is stored before what it names is done:
//! a pass either stores a new status, or does what the stored one allows, never both.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::due::Due;
use super::gate::{self, Held, Stage, Subject};
use super::tally::group_of;
use super::{Act, Planner, Step, is_finished, reasons};
use crate::api::policy::{CordonWhen, GroupKind, RepairPolicy, ReplaceBy, Verify};
use crate::api::repair::{
    Attempt, AttemptResult, Blocked, DrainStatus, Gate, Hold, NodeRepair, NodeRepairStatus,
    Outcome, Phase, PolicySnapshot, Replacement, Shadow, Trigger,
};
use crate::cluster::{InstanceView, NodeView};
use crate::drain::{PodView, Treatment};

/// How often the pods of a node in its drain are listed and evicted again.
const DRAIN_POLL: Duration = Duration::from_secs(3);
/// How often AWS is asked about an instance that is being replaced.
const CLOUD_POLL: Duration = Duration::from_secs(2);
/// An instance that shows no sign of a call after this did not get it: longer than the call's
/// own deadline and than AWS's descriptions lag behind.
const SETTLE: Duration = Duration::from_secs(20);
/// How often the numbers of a hold are told anew that depend on other nodes.
const RETELL: Duration = Duration::from_secs(300);
/// From a refused call to the next attempt.
const RETRY: Duration = Duration::from_secs(30);
/// The call after which it is the health of the instance that changes first.
const SET_HEALTH: &str = "SetInstanceHealth";
/// AWS has said no so often: the rest is for a person.
const MOST_REFUSALS: usize = 3;
/// Of any result.
const MOST_ATTEMPTS: usize = 10;
/// Pods that are told to block a drain.
const MOST_BLOCKED: usize = 10;

/// A repair with what is known about its node.
struct Case<'a> {
    name: &'a str,
    repair: &'a NodeRepair,
    node: Option<&'a NodeView>,
    policy: Option<&'a RepairPolicy>,
    /// No condition of the node is unhealthy, nor was within the soak.
    is_over: bool,
}

impl Planner<'_> {
    pub(super) fn advance(&mut self, name: &str, repair: &NodeRepair) {
        let cluster = self.cluster;
        let node = cluster.node_of(repair);
        let policy = node.and_then(|node| self.assigned.policy(node));
        // Nobody but that person takes a person's request back.
        let is_over = repair.spec.trigger == Trigger::Auto
            && node.is_some_and(|node| self.episodes.is_well(&node.uid));
        let case = Case {
            name,
            repair,
            node,
            policy,
            is_over,
        };
        self.wake_when_over(&case);

        let stored = repair.status.clone().unwrap_or_default();
        let mut status = self.refreshed(&case, &stored);
        let act = if let Some(other) = self.superseded_by(&case, &stored) {
            let message = format!("NodeRepair {other} of the node goes on in its place");
            finish(&mut status, Outcome::Superseded, &message, self.now)
        } else {
            self.step(&case, &stored, &mut status)
        };
        let policy = self.policy_name(repair);
        self.place(name, &policy, &status);
        let repair = name.to_owned();
        if repair_is_new(&case) || status != stored {
            self.plan.steps.push(Step::Record {
                repair,
                status: Box::new(status),
            });
        } else if let Some(act) = act {
            self.plan.steps.push(Step::Act { repair, act });
        }
    }

    fn step(
        &mut self,
        case: &Case<'_>,
        stored: &NodeRepairStatus,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        match stored.phase {
            Phase::Watching => self.watching(case, status),
            Phase::Cordoning => self.cordoning(case, status),
            Phase::Waiting => self.waiting(case, status),
            Phase::Draining => self.draining(case, status),
            Phase::Replacing => self.replacing(case, status),
            Phase::Verifying => self.verifying(case, status),
            Phase::Uncordoning => self.uncordoning(case, status),
            Phase::Finished => None,
        }
    }

    /// Of several repairs of one node one goes on: the one that has called for its destruction, then
    /// a person's, then the oldest.
    fn superseded_by(&self, case: &Case<'_>, stored: &NodeRepairStatus) -> Option<String> {
        let uid = case.repair.spec.node_ref.uid.as_str();
        let all = self.history.of_node(uid);
        if all.len() < 2 {
            return None;
        }
        let rank = |repair: &NodeRepair| {
            let called = repair
                .status
                .as_ref()
                .is_some_and(|s| !s.attempts.is_empty());
            (
                !called,
                repair.spec.trigger != Trigger::Manual,
                repair.metadata.creation_timestamp.as_ref().map(|at| at.0),
                repair.metadata.name.clone().unwrap_or_default(),
            )
        };
        let open = all.iter().filter(|repair| !is_finished(repair));
        let first = open.min_by_key(|repair| rank(repair))?;
        let name = first.metadata.name.as_deref().unwrap_or_default();
        (name != case.name && !stored.is_finished()).then(|| name.to_owned())
    }

    /// A recovery is over, or not, at the end of its soak.
    fn wake_when_over(&mut self, case: &Case<'_>) {
        let (Some(node), Some(policy)) = (case.node, case.policy) else {
            return;
        };
        for recovered in self
            .episodes
            .of(&node.uid)
            .iter()
            .filter_map(|episode| episode.recovered)
        {
            self.wake(recovered + policy.spec.cordon.recovery_soak.0);
        }
    }

    /// What follows from the snapshot whatever the phase.
    fn refreshed(&self, case: &Case<'_>, stored: &NodeRepairStatus) -> NodeRepairStatus {
        let mut status = stored.clone();
        let Some(node) = case.node else { return status };
        let episodes = self.episodes.of(&node.uid);
        let due = case
            .policy
            .and_then(|policy| Due::of(&policy.spec, node, &episodes, self.now));
        if !episodes.is_empty() {
            status.reasons = reasons(&episodes, due.as_ref());
        }
        status.action = match case.repair.spec.trigger {
            Trigger::Manual => Some(case.repair.spec.action),
            Trigger::Auto => due.map(|due| due.action).or(status.action),
        };
        if let (None, Ok(instance)) = (&status.instance_id, node.instance()) {
            status.instance_id = Some(instance.to_string());
        }
        // The group that it was admitted with stays in the record: another one is refused.
        if let Some(group) = self.cluster.group_of(node)
            && status.policy.is_none()
        {
            status.group = Some(group.to_owned());
        }
        if let Some(zone) = node.zone() {
            status.zone = Some(zone.to_owned());
        }
        if let Some(policy) = case.policy
            && policy.spec.group_by.kind == GroupKind::Label
        {
            status.count_group = group_of(self.cluster, node, policy).map(str::to_owned);
        }
        if repair_is_new(case) {
            let seen: Vec<_> = episodes
                .iter()
                .flat_map(|e| e.reasons.iter().map(|seen| (&e.condition, &seen.reason)))
                .map(|(condition, reason)| format!("{condition} ({reason})"))
                .collect();
            let spec = &case.repair.spec;
            match spec.trigger {
                Trigger::Auto => status.note(self.now, format!("unhealthy: {}", seen.join(", "))),
                Trigger::Manual => {
                    let who = spec.requested_by.as_deref().unwrap_or("nobody");
                    let gates: Vec<_> = spec.override_gates.iter().map(|o| o.gate()).collect();
                    let event = format!("{who} asks for {:?} and overrides {gates:?}", spec.action);
                    status.note(self.now, event);
                }
            }
        }
        status
    }

    fn watching(&mut self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        let Some(node) = case.node else {
            return finish(status, Outcome::Cancelled, "the Node is gone", self.now);
        };
        if case.is_over {
            return finish(
                status,
                Outcome::Recovered,
                "healthy again before anything was done",
                self.now,
            );
        }
        let early = self.early_cordon(case, node);
        let thought_of = |shadow: &Shadow| shadow.cordoned.is_some();
        let cordoned = status.shadow.as_ref().is_some_and(thought_of);
        let stage = if early.is_some_and(|due| due <= self.now) && !cordoned {
            Stage::Cordon
        } else {
            Stage::Start
        };
        if let Some(due) = early {
            self.wake(due);
        }
        if self.is_held(stage, case, node, status) {
            self.think(stage, status);
            return None;
        }
        status.phase = Phase::Cordoning;
        status.shadow = None;
        status.found_cordoned = node.unschedulable
            && (!node.has_our_taint() || self.was_found_cordoned(case, &node.uid));
        None
    }

    /// In mode `Shadow`: what would be done now, and is not.
    fn think(&self, stage: Stage, status: &mut NodeRepairStatus) {
        let only_shadow = |hold: &Hold| hold.gate == Gate::Shadow && hold.behind.is_empty();
        if !status.hold.as_ref().is_some_and(only_shadow) {
            return;
        }
        let now = MicroTime(self.now);
        let mut shadow = status.shadow.clone().unwrap_or_default();
        let event = match stage {
            Stage::Cordon => {
                shadow.cordoned = Some(now);
                "would be cordoned now (mode Shadow)"
            }
            Stage::Start if shadow.started.is_none() => {
                shadow.cordoned.get_or_insert_with(|| now.clone());
                shadow.started = Some(now);
                "would be drained and replaced now (mode Shadow)"
            }
            Stage::Start | Stage::Continue | Stage::Destroy => return,
        };
        status.shadow = Some(shadow);
        status.note(self.now, event);
    }

    /// By somebody else, before the repair that this one goes on for.
    fn was_found_cordoned(&self, case: &Case<'_>, uid: &str) -> bool {
        let others = self.history.of_node(uid).iter();
        let mut others = others.filter(|other| other.metadata.name != case.repair.metadata.name);
        others.any(|other| other.status.as_ref().is_some_and(|s| s.found_cordoned))
    }

    /// When the node is to be cordoned ahead of its repair. Not for `Ready`: the control plane
    /// has tainted such a node itself.
    fn early_cordon(&self, case: &Case<'_>, node: &NodeView) -> Option<Timestamp> {
        let cordon = &case.policy?.spec.cordon;
        match cordon.when {
            CordonWhen::AtRepair => return None,
            CordonWhen::Immediately => {}
        }
        let episodes = self.episodes.of(&node.uid);
        let mut open = episodes
            .iter()
            .filter(|e| e.recovered.is_none() && e.condition != "Ready");
        open.next().map(|first| first.since + cordon.after.0)
    }

    fn cordoning(&mut self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        let Some(node) = case.node else {
            return finish(status, Outcome::Cancelled, "the Node is gone", self.now);
        };
        if case.is_over {
            status.phase = Phase::Uncordoning;
            return None;
        }
        if node.has_our_cordon() {
            status.phase = Phase::Waiting;
            status.set_condition(
                "Cordoned",
                true,
                "Cordoned",
                "unschedulable, with our taint",
                self.now,
            );
            status.note(self.now, "cordoned");
            return None;
        }
        if self.is_held(Stage::Cordon, case, node, status) {
            return None;
        }
        Some(Act::Cordon)
    }

    fn waiting(&mut self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        let node = self.still_ours(case, status)?;
        if self.is_held(Stage::Start, case, node, status) {
            let spent = |hold: &Hold| hold.gate == Gate::AttemptsSpent;
            let spent = status.hold.as_ref().is_some_and(spent);
            if spent && case.policy.is_some_and(|p| self.line_is_spent(p, node)) {
                let said = status.hold.take().map(|hold| hold.message);
                let message = said.unwrap_or_default();
                return finish(status, Outcome::NeedsHuman, &message, self.now);
            }
            return None;
        }
        status.policy = case.policy.map(|policy| PolicySnapshot {
            name: policy.metadata.name.clone().unwrap_or_default(),
            generation: policy.metadata.generation.unwrap_or_default(),
            unhealthy_threshold: policy.spec.unhealthy_threshold.clone(),
            last_node: policy.spec.last_node,
            drain: policy.spec.drain.clone(),
            verify: policy.spec.verify.clone(),
        });
        status.phase = Phase::Draining;
        status.drain = Some(DrainStatus::begin(self.now));
        status.note(self.now, "drain started");
        None
    }

    fn draining(&mut self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        let node = self.still_ours(case, status)?;
        if self.is_held(Stage::Continue, case, node, status) {
            return None;
        }
        self.wake(self.now + DRAIN_POLL);
        let local_volumes = gate::local_volumes(case.policy?, case.repair);
        let timeout = case.policy?.spec.drain.timeout;
        // Not listed in this pass: nothing is known, so nothing is done.
        let pods = self.cluster.pods.get(&node.name)?;
        let treated: Vec<_> = pods
            .iter()
            .map(|pod| (pod, pod.treatment(local_volumes)))
            .collect();
        let remaining: Vec<_> = treated
            .iter()
            .filter(|(_, t)| *t != Treatment::Leave)
            .map(|(pod, _)| *pod)
            .collect();
        if remaining.is_empty() {
            release(status);
            status.phase = Phase::Replacing;
            status.drain = None;
            status.set_condition(
                "Drained",
                true,
                "Drained",
                "no pod is left that has to leave",
                self.now,
            );
            status.note(self.now, "drained");
            return None;
        }
        let with = |wanted| {
            treated
                .iter()
                .filter(move |(_, t)| *t == wanted)
                .map(|(pod, _)| *pod)
        };
        let evict: Vec<_> = with(Treatment::Evict).cloned().collect();
        let local = with(Treatment::HoldForLocalVolume).map(|pod| Blocked {
            pod: pod.label(),
            why: "its emptyDir volume would be lost (drain.localVolumes: Hold)".to_owned(),
        });
        let drain = status
            .drain
            .get_or_insert_with(|| DrainStatus::begin(self.now));
        drain.remaining = u32::try_from(remaining.len()).unwrap_or(u32::MAX);
        // What the last evictions said stays, as long as it is about pods that are still to be evicted.
        let said = drain
            .blocked
            .iter()
            .filter(|entry| evict.iter().any(|pod| pod.label() == entry.pod))
            .cloned();
        drain.blocked = local.chain(said).take(MOST_BLOCKED).collect();
        let only_local = evict.is_empty() && with(Treatment::Await).next().is_none();
        let late = drain.since.0 + timeout.0;
        if only_local || late <= self.now {
            let what = if only_local {
                "waits for a person".to_owned()
            } else {
                format!("took longer than {timeout}")
            };
            let blocked: Vec<_> = drain
                .blocked
                .iter()
                .map(|entry| format!("{}: {}", entry.pod, entry.why))
                .collect();
            let message = format!(
                "the drain {what}; {} pods are left: {}",
                drain.remaining,
                blocked.join("; ")
            );
            self.hold(status, Held::by(Gate::Drain, message));
        } else {
            release(status);
            self.wake(late);
        }
        (!evict.is_empty()).then_some(Act::Evict(evict))
    }

    fn replacing(&mut self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        self.wake(self.now + CLOUD_POLL);
        let instance = status
            .instance_id
            .as_deref()
            .and_then(|id| self.cluster.instances.get(id));
        match status
            .attempts
            .last()
            .map(|attempt| (attempt.started.0, attempt.result))
        {
            Some((started, None)) => {
                self.settle(started, instance, status);
                return None;
            }
            Some((_, Some(AttemptResult::Accepted))) => {
                status.phase = Phase::Verifying;
                return None;
            }
            Some((
                started,
                Some(
                    AttemptResult::Refused
                    | AttemptResult::NotApplied
                    | AttemptResult::Withheld
                    | AttemptResult::Throttled,
                ),
            )) => {
                let refused = status
                    .attempts
                    .iter()
                    .filter(|a| a.result == Some(AttemptResult::Refused))
                    .count();
                if refused >= MOST_REFUSALS || status.attempts.len() >= MOST_ATTEMPTS {
                    let last = status
                        .attempts
                        .last()
                        .and_then(|attempt| attempt.message.clone())
                        .unwrap_or_default();
                    let message = format!(
                        "gave up after {} attempts; the last: {last}",
                        status.attempts.len()
                    );
                    return finish(status, Outcome::Failed, &message, self.now);
                }
                if started + RETRY > self.now {
                    self.wake(started + RETRY);
                    return None;
                }
            }
            Some((_, Some(AttemptResult::Denied))) => return self.after_denial(case, status),
            None => {}
        }
        let node = self.still_ours(case, status)?;
        let local_volumes = case
            .policy
            .map(|policy| gate::local_volumes(policy, case.repair));
        let pods = self.cluster.pods.get(&node.name)?;
        if let Some(local_volumes) = local_volumes
            && pods
                .iter()
                .any(|pod| pod.treatment(local_volumes) != Treatment::Leave)
        {
            // Bound just before the cordon, or tolerating it.
            status.phase = Phase::Draining;
            status.note(self.now, "new pods came; draining again");
            return None;
        }
        match self.clearance(case.name) {
            Ok(clearance) => {
                release(status);
                Some(Act::Replace(clearance))
            }
            Err(held) => {
                self.hold(status, held);
                None
            }
        }
    }

    /// The node gets back what the policy would not have taken from it by itself.
    fn after_denial(&self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        let at_repair = |policy: &RepairPolicy| policy.spec.cordon.when == CordonWhen::AtRepair;
        if case.policy.is_some_and(at_repair) && case.node.is_some_and(NodeView::has_our_taint) {
            return Some(Act::Uncordon);
        }
        let last = status.attempts.last();
        let message = last.and_then(|attempt| attempt.message.clone());
        let message = message.unwrap_or_default();
        finish(status, Outcome::Failed, &message, self.now)
    }

    /// A call whose end was never learned: look, never repeat.
    fn settle(
        &mut self,
        started: Timestamp,
        instance: Option<&InstanceView>,
        status: &mut NodeRepairStatus,
    ) {
        let Some(instance) = instance else { return };
        let last = status
            .attempts
            .last()
            .and_then(|last| last.message.as_deref());
        let by_health = last.is_some_and(|message| message.starts_with(SET_HEALTH));
        if instance.is_ending() || (by_health && instance.facts.unhealthy) {
            status.end_attempt(
                AttemptResult::Accepted,
                None,
                Some("seen by the state of the instance".to_owned()),
                self.now,
            );
            status.phase = Phase::Verifying;
        } else if started + SETTLE <= self.now {
            let message = "the instance shows no sign of the call".to_owned();
            status.end_attempt(AttemptResult::NotApplied, None, Some(message), self.now);
        } else {
            self.wake(started + SETTLE);
        }
    }

    fn verifying(&mut self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        self.wake(self.now + CLOUD_POLL);
        let began = status
            .attempts
            .last()
            .map_or(self.now, |attempt| attempt.started.0);
        let verify = self.verify_limits(case);
        let deadline = began + verify.replace_deadline.0;
        let instance = status
            .instance_id
            .as_deref()
            .and_then(|id| self.cluster.instances.get(id));
        let gone = instance.is_some_and(|instance| instance.is_ending());
        let found = self.replacement(case, status, began);
        if found.as_ref().map(|r| &r.node_uid) != status.replacement.as_ref().map(|r| &r.node_uid)
            && let Some(found) = &found
        {
            status.note(
                self.now,
                format!("{} ({}) is Ready", found.node_name, found.instance_id),
            );
        }
        status.replacement = found;
        if let Some(replacement) = status.replacement.clone() {
            let verified = replacement.since.0 + verify.soak.0;
            if gone && verified <= self.now {
                let message = format!(
                    "{} has been healthy for {}",
                    replacement.node_name, verify.soak
                );
                status.set_condition("Verified", true, "Verified", &message, self.now);
                return finish(status, Outcome::Succeeded, &message, self.now);
            }
            self.wake(verified);
        }
        if deadline <= self.now {
            let message = format!(
                "no healthy replacement {} after the call",
                verify.replace_deadline
            );
            return finish(status, Outcome::Failed, &message, self.now);
        }
        self.wake(deadline);
        None
    }

    /// The node may be gone, and its policy with it.
    fn verify_limits(&self, case: &Case<'_>) -> Verify {
        let by_name = || {
            let wanted = &case.repair.spec.policy_ref.name;
            self.cluster
                .policies
                .iter()
                .find(|policy| policy.metadata.name.as_ref() == Some(wanted))
        };
        let started = case.repair.status.as_ref().and_then(|s| s.policy.as_ref());
        if let Some(started) = started {
            return started.verify.clone();
        }
        case.policy
            .or_else(by_name)
            .map(|policy| policy.spec.verify.clone())
            .unwrap_or_default()
    }

    /// A Ready, healthy node of the group that came after the call and that no other repair claims.
    fn replacement(
        &mut self,
        case: &Case<'_>,
        status: &NodeRepairStatus,
        began: Timestamp,
    ) -> Option<Replacement> {
        let group = status.group.as_deref()?;
        let claimed = |uid: &str| {
            self.claims
                .get(uid)
                .is_some_and(|repair| repair != case.name)
        };
        let healthy =
            |node: &NodeView| node.is_ready() && !node.deleting && self.episodes.is_well(&node.uid);
        let mut nodes: Vec<_> = self
            .cluster
            .nodes
            .values()
            .filter(|node| {
                node.uid != case.repair.spec.node_ref.uid && healthy(node) && !claimed(&node.uid)
            })
            // Creation times are whole seconds.
            .filter(|node| node.created.as_second() >= began.as_second())
            .filter(|node| self.cluster.group_of(node) == Some(group))
            .collect();
        nodes.sort_by_key(|node| {
            let known = status
                .replacement
                .as_ref()
                .is_some_and(|known| known.node_uid == node.uid);
            (!known, node.created, node.name.clone())
        });
        let node = nodes.first()?;
        self.claims.insert(node.uid.clone(), case.name.to_owned());
        let since = match &status.replacement {
            Some(known) if known.node_uid == node.uid => known.since.0,
            Some(_) | None => self.now,
        };
        Some(Replacement {
            node_name: node.name.clone(),
            node_uid: node.uid.clone(),
            instance_id: node.instance().ok()?.to_string(),
            since: MicroTime(since),
        })
    }

    fn uncordoning(&mut self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<Act> {
        match case.node {
            Some(node) if node.has_our_taint() => Some(Act::Uncordon),
            Some(_) => {
                status.set_condition(
                    "Cordoned",
                    false,
                    "Uncordoned",
                    "our taint is gone",
                    self.now,
                );
                finish(
                    status,
                    Outcome::Recovered,
                    "healthy again; un-cordoned",
                    self.now,
                )
            }
            None => finish(status, Outcome::Cancelled, "the Node is gone", self.now),
        }
    }

    /// The node, unless there is nothing left to repair, or somebody has taken it back.
    fn still_ours<'c>(
        &mut self,
        case: &Case<'c>,
        status: &mut NodeRepairStatus,
    ) -> Option<&'c NodeView> {
        let Some(node) = case.node else {
            return finish(
                status,
                Outcome::Cancelled,
                "the Node went away before we touched its instance",
                self.now,
            );
        };
        if case.is_over {
            release(status);
            status.phase = Phase::Uncordoning;
            status.note(self.now, "healthy again; un-cordoning");
            return None;
        }
        if !node.has_our_cordon() {
            let message = "somebody un-cordoned the node: it is theirs until its condition changes";
            return finish(status, Outcome::Cancelled, message, self.now);
        }
        Some(node)
    }

    /// Asks the gates, and says in the status what they answer.
    fn is_held(
        &mut self,
        stage: Stage,
        case: &Case<'_>,
        node: &NodeView,
        status: &mut NodeRepairStatus,
    ) -> bool {
        let subject = Subject {
            node,
            name: case.name,
            repair: Some(case.repair),
            episodes: self.episodes.of(&node.uid),
        };
        match self.gates(stage, &subject) {
            Ok(()) => {
                // The drain's own hold is the drain's to release: until then it keeps its age.
                if status
                    .hold
                    .as_ref()
                    .is_some_and(|hold| hold.gate != Gate::Drain)
                {
                    release(status);
                }
                false
            }
            Err(held) => {
                self.hold(status, held);
                true
            }
        }
    }

    /// A hold keeps its age while its gate is the same.
    fn hold(&self, status: &mut NodeRepairStatus, held: Held) {
        let known = status.hold.as_ref().filter(|hold| hold.gate == held.gate);
        if let Some(known) = known
            && known.behind == held.behind
        {
            let same = known.message == held.message && known.opens == held.opens;
            let told = known.told.as_ref().unwrap_or(&known.since).0;
            // Or every change of one node would be a write for each that is held with it.
            if same || (held.gate.counts_others() && told + RETELL > self.now) {
                return;
            }
        }
        let now = MicroTime(self.now);
        status.hold = Some(Hold {
            gate: held.gate,
            since: known.map_or(now.clone(), |known| known.since.clone()),
            told: Some(now),
            message: held.message,
            values: held.values,
            opens: held.opens,
            behind: held.behind,
        });
    }
}

/// Created, but its first status was never stored.
fn repair_is_new(case: &Case<'_>) -> bool {
    case.repair
        .status
        .as_ref()
        .is_none_or(|status| status.timeline.is_empty())
}

fn release(status: &mut NodeRepairStatus) {
    status.hold = None;
}

/// Always `None`, for use as the last word of a phase.
fn finish<T>(
    status: &mut NodeRepairStatus,
    outcome: Outcome,
    message: &str,
    now: Timestamp,
) -> Option<T> {
    status.phase = Phase::Finished;
    status.outcome = Some(outcome);
    status.hold = None;
    status.drain = None;
    status.set_condition("Finished", true, &format!("{outcome:?}"), message, now);
    status.note(now, format!("{outcome:?}: {message}"));
    None
}

impl NodeRepairStatus {
    /// The intent; stored before the call is made.
    pub fn begin_attempt(&mut self, clearance: &super::Clearance, now: Timestamp) {
        let call = match clearance.by() {
            ReplaceBy::Terminate => "TerminateInstanceInAutoScalingGroup",
            ReplaceBy::InstanceHealth => SET_HEALTH,
        };
        let message = Some(format!("{call} {}", clearance.instance()));
        // A call that AWS threw away is no attempt of its own: there may be any number of them.
        let throttled = |last: &mut Attempt| last.result == Some(AttemptResult::Throttled);
        self.attempts.pop_if(throttled);
        self.attempts.push(Attempt {
            started: MicroTime(now),
            result: None,
            request_id: None,
            message,
        });
        self.note(
            now,
            format!(
                "replacing {} of {}",
                clearance.instance(),
                clearance.group()
            ),
        );
    }

    /// What became of the attempt that was begun last.
    pub fn end_attempt(
        &mut self,
        result: AttemptResult,
        request_id: Option<String>,
        message: Option<String>,
        now: Timestamp,
    ) {
        let said = message
            .clone()
            .map(|message| format!(": {message}"))
            .unwrap_or_default();
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.result = Some(result);
            attempt.request_id = request_id;
            attempt.message = message.or(attempt.message.take());
        }
        match result {
            AttemptResult::Accepted => {
                self.set_condition(
                    "ActionTaken",
                    true,
                    "Replace",
                    "AWS replaces the instance",
                    now,
                );
                self.phase = Phase::Verifying;
                self.note(now, format!("AWS accepted the call{said}"));
            }
            AttemptResult::Refused => self.note(now, format!("AWS refused{said}")),
            AttemptResult::NotApplied => self.note(now, format!("not applied{said}")),
            AttemptResult::Withheld => self.note(now, format!("not called{said}")),
            AttemptResult::Throttled => self.note(now, format!("AWS throttles{said}")),
            AttemptResult::Denied => self.note(now, format!("AWS denied the call{said}")),
        }
    }

    /// What the API server said about pods of the drain; those that it let go are not in `blocked`.
    pub fn set_blocked(&mut self, asked: &[PodView], blocked: Vec<Blocked>) {
        if let Some(drain) = &mut self.drain {
            drain
                .blocked
                .retain(|entry| asked.iter().all(|pod| pod.label() != entry.pod));
            drain.blocked.extend(blocked);
            drain.blocked.truncate(MOST_BLOCKED);
        }
    }
}

impl DrainStatus {
    fn begin(now: Timestamp) -> Self {
        Self {
            since: MicroTime(now),
            remaining: 0,
            blocked: Vec::new(),
        }
    }
}

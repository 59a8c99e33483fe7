//! The drain, pod by pod and pass by pass, on a virtual clock.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::duration::Wait;
use crate::api::policy::{
    LocalVolumes, LocalVolumesAtReboot, OnTimeout, RepairAction, UnmanagedPods,
};
use crate::decide::fixture::{at, pod};

const SINCE: i64 = 1000;
const TIMEOUT: i64 = 900;

fn rules() -> Rules {
    Rules {
        action: RepairAction::Replace,
        since: at(SINCE),
        emptied: None,
        timeout: Wait::seconds(900),
        on_timeout: OnTimeout::Hold,
        local_volumes: LocalVolumes::Hold,
        local_volumes_at_reboot: LocalVolumesAtReboot::Leave,
        unmanaged_pods: UnmanagedPods::Hold,
    }
}

struct Scene {
    pods: Vec<PodView>,
    tries: Tries,
    rules: Rules,
    silent: bool,
    attachments: Vec<Attachment>,
    budgets: Vec<Budget>,
    daemon_sets: BTreeSet<String>,
}

impl Scene {
    fn of(pods: Vec<PodView>) -> Self {
        Self {
            pods,
            tries: Tries::default(),
            rules: rules(),
            silent: false,
            attachments: Vec::new(),
            budgets: Vec::new(),
            daemon_sets: BTreeSet::from(["default/agent".to_owned()]),
        }
    }

    fn plan(&self, second: i64) -> Drain {
        let attachments: Vec<_> = self.attachments.iter().collect();
        let task = Task {
            pods: &self.pods,
            budgets: Some(&self.budgets),
            daemon_sets: Some(&self.daemon_sets),
            attachments: Some(&attachments),
            tries: &self.tries,
            own_pod: Some("default/repairer"),
            kubelet_is_silent: self.silent,
            rules: self.rules,
            now: at(second),
        };
        task.plan()
    }

    fn evicted(&self, second: i64) -> Vec<String> {
        let plan = self.plan(second);
        plan.evict.into_iter().map(|pod| pod.name).collect()
    }
}

fn daemon(name: &str, set: &str) -> PodView {
    PodView {
        owner: Owner::DaemonSet(set.to_owned()),
        ..pod(name)
    }
}

fn bare(name: &str) -> PodView {
    PodView {
        owner: Owner::None,
        ..pod(name)
    }
}

fn local(name: &str) -> PodView {
    PodView {
        local_volume: true,
        ..pod(name)
    }
}

fn ending(name: &str, second: i64) -> PodView {
    PodView {
        ends: Some(at(second)),
        ..pod(name)
    }
}

#[test]
fn what_would_come_back_or_has_ended_is_left() {
    let mut zoo = vec![daemon("a", "agent")];
    zoo.push(PodView {
        owner: Owner::Static,
        ..pod("b")
    });
    zoo.push(PodView {
        ended: true,
        ..bare("c")
    });
    zoo.push(PodView {
        wish: Some(Wish::Skip),
        ..pod("d")
    });
    let plan = Scene::of(zoo).plan(SINCE);
    assert_eq!((plan.state, plan.remaining), (State::Drained, 0));
    assert_eq!(plan.left.len(), 1, "only the label is worth telling");
}

#[test]
fn what_nobody_makes_again_and_local_data_wait_for_a_person() {
    let zoo = vec![bare("a"), daemon("b", "gone"), local("c")];
    let mut scene = Scene::of(zoo);
    let plan = scene.plan(SINCE);
    assert_eq!((plan.state, plan.blocked.len()), (State::Stuck, 3));
    scene.rules.unmanaged_pods = UnmanagedPods::Evict;
    scene.rules.local_volumes = LocalVolumes::Discard;
    assert_eq!(scene.evicted(SINCE), ["a", "b", "c"]);
}

#[test]
fn local_data_stays_for_a_reboot_and_not_for_a_replacement() {
    let mut scene = Scene::of(vec![local("db")]);
    scene.rules.action = RepairAction::Reboot;
    assert_eq!(scene.plan(SINCE).state, State::Drained);
    scene.rules.local_volumes_at_reboot = LocalVolumesAtReboot::Hold;
    assert_eq!(scene.plan(SINCE).state, State::Stuck);
    scene.rules.local_volumes_at_reboot = LocalVolumesAtReboot::Discard;
    assert_eq!(scene.evicted(SINCE), ["db"]);
}

#[test]
fn critical_pods_go_after_the_others_and_our_own_last() {
    let critical = PodView {
        critical: true,
        ..pod("dns")
    };
    let mut scene = Scene::of(vec![pod("repairer"), critical, pod("web")]);
    assert_eq!(scene.evicted(SINCE), ["web"]);
    scene.pods[2].ends = Some(at(SINCE + 30));
    assert_eq!(scene.evicted(SINCE), [""; 0], "it has not ended yet");
    scene.pods.pop();
    assert_eq!(scene.evicted(SINCE), ["dns"]);
    assert!(!scene.plan(SINCE).own_pod_is_last);
    scene.pods.pop();
    assert!(scene.plan(SINCE).own_pod_is_last);
}

#[test]
fn a_pod_that_tolerates_the_cordon_is_evicted_once() {
    let mut tolerates = PodView {
        tolerates_cordon: true,
        ..pod("a")
    };
    let mut scene = Scene::of(vec![tolerates.clone()]);
    assert_eq!(scene.evicted(SINCE), ["a"]);
    tolerates.created = at(SINCE + 5);
    scene.pods = vec![tolerates];
    let plan = scene.plan(SINCE + 10);
    assert_eq!(plan.state, State::Drained);
    assert!(plan.left[0].why.contains("tolerates"), "{:?}", plan.left);
}

#[test]
fn a_late_pod_is_evicted_as_any_other() {
    let late = PodView {
        created: at(SINCE + 60),
        ..pod("late")
    };
    assert_eq!(Scene::of(vec![late]).evicted(SINCE + 61), ["late"]);
}

#[test]
fn the_grace_of_a_pod_outlasts_the_timeout() {
    let long = SINCE + TIMEOUT + 3600;
    let scene = Scene::of(vec![ending("a", long)]);
    assert_eq!(scene.plan(SINCE + TIMEOUT + 1).state, State::Going);
    assert_eq!(scene.plan(long + 1).state, State::Late);
}

#[test]
fn an_object_that_only_finalizers_keep_is_no_pod() {
    let mut kept = ending("a", SINCE);
    let scene = Scene::of(vec![kept.clone()]);
    assert_eq!(
        scene.plan(SINCE + 100).state,
        State::Going,
        "it may be running"
    );
    kept.finalizers = vec!["example.test/kept".to_owned()];
    let scene = Scene::of(vec![kept]);
    assert_eq!(
        scene.plan(SINCE + 30).state,
        State::Going,
        "its kubelet needs time"
    );
    assert_eq!(scene.plan(SINCE + 60).state, State::Drained);
}

#[test]
fn nobody_waits_for_a_silent_kubelet() {
    let mut scene = Scene::of(vec![ending("a", SINCE + 30), pod("b")]);
    scene.silent = true;
    assert_eq!(
        scene.evicted(SINCE),
        ["b"],
        "its budget is asked all the same"
    );
    scene.pods = vec![ending("a", SINCE + 30), ending("b", SINCE + 30)];
    assert_eq!(scene.plan(SINCE + 29).state, State::Going);
    let plan = scene.plan(SINCE + 31);
    assert_eq!((plan.state, plan.left.len()), (State::Drained, 2));
}

#[test]
fn labels_and_marks_ask_for_time() {
    let waits = PodView {
        wish: Some(Wish::Wait),
        ..pod("batch")
    };
    let asks = PodView {
        asks_to_stay: Some("karpenter.sh/do-not-disrupt=true".to_owned()),
        ..pod("asks")
    };
    let scene = Scene::of(vec![waits, asks]);
    assert_eq!(scene.evicted(SINCE), [""; 0]);
    assert_eq!(scene.plan(SINCE).state, State::Going);
    assert_eq!(scene.evicted(SINCE + TIMEOUT), ["asks"]);
}

#[test]
fn force_deletes_with_grace_and_never_what_the_policy_protects() {
    let mut scene = Scene::of(vec![pod("web"), local("db")]);
    scene.rules.on_timeout = OnTimeout::Force;
    assert!(scene.plan(SINCE).delete.is_empty());
    // So early that its grace of 30 s ends with the timeout.
    let plan = scene.plan(SINCE + TIMEOUT - 30);
    let deleted: Vec<_> = plan
        .delete
        .iter()
        .map(|d| (d.pod.name.as_str(), d.grace))
        .collect();
    assert_eq!(deleted, [("web", Duration::from_secs(30))]);
    scene.pods = vec![ending("web", SINCE + TIMEOUT)];
    let plan = scene.plan(SINCE + TIMEOUT + 1);
    assert_eq!(plan.delete[0].grace, Duration::from_secs(1));
    assert_eq!(scene.plan(SINCE + TIMEOUT + 60).state, State::Drained);
}

#[test]
fn volumes_are_waited_for_and_not_for_ever() {
    let volume = Attachment {
        node: "node-0".to_owned(),
        volume: "pv-1".to_owned(),
        claim: Some("default/data".to_owned()),
        shared: false,
    };
    let mut scene = Scene::of(Vec::new());
    scene.attachments = vec![volume.clone()];
    scene.rules.emptied = Some(at(SINCE));
    let plan = scene.plan(SINCE + 10);
    assert_eq!(
        (plan.state, plan.detaching),
        (State::Detaching, vec!["pv-1".to_owned()])
    );
    assert_eq!(scene.plan(SINCE + 360).state, State::Drained);
    // Of one who stays, or that others have as well.
    scene.pods = vec![PodView {
        claims: vec!["default/data".to_owned()],
        ..daemon("a", "agent")
    }];
    assert_eq!(scene.plan(SINCE + 10).state, State::Drained);
    scene.pods.clear();
    scene.attachments[0].shared = true;
    assert_eq!(scene.plan(SINCE + 10).state, State::Drained);
    scene.attachments = vec![volume];
    scene.rules.action = RepairAction::Reboot;
    assert_eq!(scene.plan(SINCE + 10).state, State::Drained);
}

fn budget(name: &str, spec: Value, status: Value) -> Budget {
    let mut object = json!({
        "metadata": {"namespace": "default", "name": name, "generation": 1},
        "spec": spec, "status": status,
    });
    object["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    object["status"]["observedGeneration"] = json!(1);
    Budget::read(&serde_json::from_value(object).unwrap()).unwrap()
}

#[test]
fn the_record_names_the_budget_and_whether_it_ever_lets_go() {
    let mut web = pod("web");
    web.labels.insert("app".to_owned(), "web".to_owned());
    let mut scene = Scene::of(vec![web]);
    let never = json!({"expectedPods": 1, "desiredHealthy": 1, "currentHealthy": 1, "disruptionsAllowed": 0});
    scene.budgets = vec![budget("web", json!({"minAvailable": 1}), never.clone())];
    let said = Answer::Budget("needs 1 healthy pods".to_owned());
    scene.tries.note("uid-web", said, at(SINCE));
    let plan = scene.plan(SINCE);
    assert_eq!(plan.evict, [], "not before its time");
    assert!(plan.wake.is_some_and(|wake| wake > at(SINCE)));
    let blocked = &plan.blocked[0];
    assert_eq!(
        (blocked.budget.as_deref(), blocked.never),
        (Some("web"), true)
    );
    assert_eq!(scene.evicted(SINCE + 10), ["web"], "and asked again");

    scene
        .budgets
        .push(budget("other", json!({"maxUnavailable": 1}), never));
    scene.tries.note("uid-web", Answer::TwoBudgets, at(SINCE));
    let blocked = scene.plan(SINCE).blocked.remove(0);
    assert_eq!(
        (blocked.budget.as_deref(), blocked.never),
        (Some("web, other"), true)
    );

    let denied = Answer::Forbidden("no".to_owned());
    scene.tries.note("uid-web", denied, at(SINCE));
    assert_eq!(scene.plan(SINCE).state, State::Denied("no".to_owned()));
}

fn any_pod() -> impl Strategy<Value = PodView> {
    let owner = prop::sample::select(vec![
        Owner::Controller,
        Owner::Controller,
        Owner::None,
        Owner::Static,
        Owner::DaemonSet("agent".to_owned()),
        Owner::DaemonSet("gone".to_owned()),
    ]);
    let flags = prop::array::uniform5(prop::bool::weighted(0.2));
    let wish = prop::option::weighted(0.2, prop::sample::select(vec![Wish::Skip, Wish::Wait]));
    let ends = prop::option::weighted(0.3, SINCE - 100..SINCE + 2000);
    let created = SINCE - 100..SINCE + 2000;
    (owner, flags, wish, ends, created, 0..4000u64, "[a-z]{8}").prop_map(
        |(owner, flags, wish, ends, created, grace, name)| PodView {
            owner,
            ended: flags[0],
            local_volume: flags[1],
            critical: flags[2],
            tolerates_cordon: flags[3],
            finalizers: flags[4].then(|| "f".to_owned()).into_iter().collect(),
            wish,
            ends: ends.map(at),
            created: at(created),
            grace: Duration::from_secs(grace),
            ..pod(&name)
        },
    )
}

fn any_rules() -> impl Strategy<Value = Rules> {
    use prop::sample::select;
    (
        select(vec![RepairAction::Reboot, RepairAction::Replace]),
        select(vec![OnTimeout::Hold, OnTimeout::Release, OnTimeout::Force]),
        select(vec![LocalVolumes::Hold, LocalVolumes::Discard]),
        select(vec![UnmanagedPods::Hold, UnmanagedPods::Evict]),
    )
        .prop_map(
            |(action, on_timeout, local_volumes, unmanaged_pods)| Rules {
                action,
                on_timeout,
                local_volumes,
                unmanaged_pods,
                ..rules()
            },
        )
}

proptest! {
    /// Whatever the pods are and the policy says.
    #[test]
    fn a_drain_protects_what_it_is_told_to(
        pods in prop::collection::vec(any_pod(), 0..12),
        rules in any_rules(),
        silent in any::<bool>(),
        second in SINCE..SINCE + 3000,
    ) {
        let mut scene = Scene::of(pods);
        scene.rules = rules;
        scene.silent = silent;
        let plan = scene.plan(second);
        let now: Timestamp = at(second);
        for pod in plan.evict.iter().chain(plan.delete.iter().map(|d| &d.pod)) {
            prop_assert!(!pod.ended && pod.wish != Some(Wish::Skip));
            prop_assert!(pod.owner != Owner::Static);
            prop_assert!(pod.owner != Owner::DaemonSet("agent".to_owned()));
            let kept = pod.local_volume && pod.ends.is_none();
            prop_assert!(!kept || rules.action == RepairAction::Reboot || rules.local_volumes == LocalVolumes::Discard);
        }
        for deletion in &plan.delete {
            prop_assert!(deletion.grace >= Duration::from_secs(1));
            prop_assert_eq!(rules.on_timeout, OnTimeout::Force);
        }
        for pod in &plan.evict {
            prop_assert!(pod.ends.is_none(), "asked twice");
        }
        prop_assert_eq!(plan.state == State::Drained, plan.remaining == 0);
        // Whoever may be running with its kubelet alive and its grace not over is not passed over.
        let running = scene.pods.iter().any(|pod| pod.owner == Owner::Controller && !pod.ended
            && pod.wish.is_none() && pod.ends.is_some_and(|ends| ends > now));
        prop_assert!(!running || plan.state != State::Drained);
        if plan.state == State::Going {
            prop_assert!(plan.wake.is_some(), "nobody would look again");
        }
    }
}

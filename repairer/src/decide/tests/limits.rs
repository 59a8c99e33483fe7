//! Properties of any decision: limits hold, what must not be touched is not, and the same question
//! gets the same answer.

use proptest::prelude::*;

use super::*;
use crate::api::policy::Mode;

#[derive(Debug, Clone)]
struct Spot {
    sick: bool,
    ready: bool,
    excluded: bool,
    control_plane: bool,
    group: u8,
    repair: Option<Phase>,
    pods: u8,
}

fn spot() -> impl Strategy<Value = Spot> {
    let phases = prop::option::of(prop::sample::select(vec![
        Phase::Watching,
        Phase::Cordoning,
        Phase::Waiting,
        Phase::Draining,
        Phase::Replacing,
        Phase::Verifying,
        Phase::Uncordoning,
    ]));
    let rarely = || prop::bool::weighted(0.1);
    (
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.9),
        rarely(),
        rarely(),
        0..2u8,
        phases,
        0..2u8,
    )
        .prop_map(
            |(sick, ready, excluded, control_plane, group, repair, pods)| Spot {
                sick,
                ready,
                excluded,
                control_plane,
                group,
                // A node that is well has no repair here; recovery has its own tests.
                repair: repair.filter(|_| sick),
                pods,
            },
        )
}

prop_compose! {
    fn clusters()(
        spots in prop::collection::vec(spot(), 1..14),
        mode in prop::sample::select(vec![Mode::Enforce, Mode::Enforce, Mode::Enforce, Mode::Disabled]),
        paused in prop::bool::weighted(0.1),
        parallel in 1..4u32,
        percentage in prop::sample::select(vec![20u32, 50, 100]),
        min_nodes in 1..8u32,
    ) -> Cluster {
        let mut cluster = fixture::cluster(spots.len());
        let spec = &mut cluster.policies[0].spec;
        (spec.mode, spec.paused, spec.parallel.count) = (mode, paused, Some(parallel));
        spec.unhealthy_threshold.percentage = Some(percentage);
        spec.unhealthy_threshold.min_nodes = min_nodes;
        for (index, spot) in spots.iter().enumerate() {
            let name = format!("node-{index}");
            let id = cluster.nodes[&name].instance().unwrap();
            cluster.instances.get_mut(id.as_str()).unwrap().group = Some(format!("asg-{}", spot.group));
            if spot.sick {
                fixture::make_sick(&mut cluster, &name);
            }
            if !spot.ready {
                fixture::set_condition(&mut cluster, &name, "Ready", "False");
            }
            let labels = &mut cluster.nodes.get_mut(&name).unwrap().labels;
            if spot.excluded {
                labels.insert("nodemend.dev/exclude".to_owned(), "true".to_owned());
            }
            if spot.control_plane {
                labels.insert("node-role.kubernetes.io/control-plane".to_owned(), String::new());
            }
            if let Some(phase) = spot.repair {
                let repair = fixture::add_repair(&mut cluster, &name, phase, SICK_SINCE);
                let status = cluster.repairs.get_mut(&repair).unwrap().status.as_mut().unwrap();
                status.group = Some(format!("asg-{}", spot.group));
            }
            let pods = (0..spot.pods).map(|pod| fixture::pod(&format!("pod-{index}-{pod}"))).collect();
            cluster.pods.insert(name, pods);
        }
        cluster
    }
}

fn places(cluster: &Cluster) -> usize {
    cluster
        .repairs
        .values()
        .filter(|repair| repair.status.as_ref().is_some_and(takes_a_place))
        .count()
}

/// The cluster after the records of a plan were stored.
fn stored(cluster: &Cluster, plan: &Plan) -> Cluster {
    let mut after = cluster.clone();
    for step in &plan.steps {
        if let Step::Record { repair, status } = step {
            after.repairs.get_mut(repair).unwrap().status = Some((**status).clone());
        }
    }
    after
}

/// The node of each step that goes further with a repair: a destructive or preparing act, or a
/// phase that leads to one.
fn driven<'a>(cluster: &'a Cluster, plan: &'a Plan) -> Vec<&'a NodeView> {
    let node = |repair: &String| cluster.node_of(&cluster.repairs[repair]);
    plan.steps
        .iter()
        .filter_map(|step| match step {
            Step::Open(_)
            | Step::Forget { .. }
            | Step::Dismiss { .. }
            | Step::Act {
                act: Act::Uncordon | Act::BackInService,
                ..
            } => None,
            Step::Act {
                repair,
                act:
                    Act::Cordon
                    | Act::Evict(_)
                    | Act::Delete(_)
                    | Act::StepDown(_)
                    | Act::OutOfService
                    | Act::Reboot(_)
                    | Act::Replace(_),
            } => node(repair),
            Step::Record { repair, status } => {
                let before = phase(&cluster.repairs[repair]);
                let driven = status.phase > before
                    && matches!(status.phase, Phase::Cordoning | Phase::Draining);
                if driven { node(repair) } else { None }
            }
        })
        .collect()
}

/// Counted apart from the tally: nodes of a group, and those that are sick or in repair.
fn share(cluster: &Cluster, group: &str) -> (usize, usize) {
    let of_group = |node: &&NodeView| cluster.group_of(node) == Some(group);
    let members: Vec<_> = cluster.nodes.values().filter(of_group).collect();
    let bad = |node: &&&NodeView| {
        node.conditions
            .iter()
            .any(|c| c.kind == "StorageReady" && c.status == "False")
            || cluster.open_repair(&node.uid).is_some()
    };
    (members.iter().filter(bad).count(), members.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_same_question_gets_the_same_answer(cluster in clusters()) {
        prop_assert_eq!(plan(&cluster, RIPE), plan(&cluster, RIPE));
    }

    #[test]
    fn never_more_places_than_the_policy_has(cluster in clusters()) {
        let before = places(&cluster);
        let after = places(&stored(&cluster, &plan(&cluster, RIPE)));
        let limit = cluster.policies[0].spec.parallel.count.unwrap() as usize;
        prop_assert!(after <= before.max(limit), "{before} -> {after}, limit {limit}");
    }

    #[test]
    fn nothing_is_destroyed_beyond_the_places(cluster in clusters()) {
        let plan = plan(&cluster, RIPE);
        let limit = cluster.policies[0].spec.parallel.count.unwrap() as usize;
        let destroys = plan.steps.iter().any(|step| matches!(step, Step::Act { act: Act::Replace(_), .. }));
        prop_assert!(!destroys || places(&cluster) <= limit);
    }

    #[test]
    fn a_disabled_or_paused_policy_drives_nothing(cluster in clusters()) {
        let spec = &cluster.policies[0].spec;
        let plan = plan(&cluster, RIPE);
        if spec.mode == Mode::Disabled || spec.paused {
            prop_assert_eq!(driven(&cluster, &plan).len(), 0);
        }
    }

    #[test]
    fn excluded_and_control_plane_nodes_are_never_touched(cluster in clusters()) {
        let plan = plan(&cluster, RIPE);
        for node in driven(&cluster, &plan) {
            prop_assert!(node.labels.is_empty(), "{node:?}");
        }
    }

    #[test]
    fn nothing_is_driven_in_a_group_beyond_its_threshold(cluster in clusters()) {
        let threshold = &cluster.policies[0].spec.unhealthy_threshold;
        let plan = plan(&cluster, RIPE);
        for node in driven(&cluster, &plan) {
            let (bad, all) = share(&cluster, cluster.group_of(node).unwrap());
            let percentage = threshold.percentage.unwrap() as usize;
            let beyond = bad > 1 && all >= threshold.min_nodes as usize && bad * 100 >= percentage * all;
            prop_assert!(!beyond, "{bad} of {all}, threshold {threshold:?}: {}", node.name);
        }
    }

    #[test]
    fn a_repair_takes_one_step_at_a_time(cluster in clusters()) {
        let plan = plan(&cluster, RIPE);
        let mut seen = BTreeSet::new();
        for step in &plan.steps {
            if let Step::Record { repair, .. } | Step::Act { repair, .. } = step {
                prop_assert!(seen.insert(repair.clone()), "{repair} twice");
            }
        }
    }

    #[test]
    fn an_instance_is_destroyed_only_where_that_is_stored_as_the_intent(cluster in clusters()) {
        for step in plan(&cluster, RIPE).steps {
            if let Step::Act { repair, act: Act::Replace(clearance) } = step {
                let object = &cluster.repairs[&repair];
                prop_assert_eq!(phase(object), Phase::Replacing);
                prop_assert!(object.spec.provider_id.ends_with(clearance.instance().as_str()));
            }
        }
    }
}

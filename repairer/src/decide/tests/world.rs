//! Whole repairs in a simulated world: an API server and an AWS that do what they are told, lose
//! answers, and processes that crash. What must always hold is asserted after every pass.

use proptest::prelude::*;

use super::*;
use crate::cluster::InstanceState;

/// Seconds from one pass to the next.
const STEP: i64 = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    None,
    /// The process dies before it does what it decided.
    CrashBefore,
    /// AWS acts, its answer is lost.
    LostAnswer,
    /// The process dies after AWS has acted.
    CrashAfter,
    /// The call never reaches AWS.
    LostCall,
}

struct World {
    cluster: Cluster,
    episodes: Episodes,
    now: i64,
    /// Calls that AWS acted on, by instance.
    terminated: BTreeMap<String, i64>,
    calls: usize,
    launched: usize,
}

impl World {
    fn new(nodes: usize, sick: usize, parallel: u32) -> Self {
        let mut cluster = fixture::cluster(nodes);
        cluster.policies[0].spec.parallel.count = Some(parallel);
        cluster.policies[0].spec.unhealthy_threshold.percentage = Some(60);
        for index in 0..sick {
            fixture::make_sick(&mut cluster, &format!("node-{index}"));
        }
        Self {
            cluster,
            episodes: Episodes::default(),
            now: SICK_SINCE,
            terminated: BTreeMap::new(),
            calls: 0,
            launched: 0,
        }
    }

    fn pass(&mut self, mishap: Mishap) {
        self.now += STEP;
        self.live();
        let now = at(self.now);
        self.episodes.observe(&self.cluster, now);
        let plan = decided(&self.cluster, &self.episodes, self.now);
        if mishap == Mishap::CrashBefore {
            self.episodes = Episodes::default();
            return;
        }
        for step in plan.steps {
            self.carry_out(step, mishap);
        }
        self.check();
    }

    /// What happens by itself: heartbeats, terminated instances go, new ones come.
    fn live(&mut self) {
        for node in self.cluster.nodes.values_mut() {
            for condition in &mut node.conditions {
                condition.heartbeat = Some(at(self.now));
            }
        }
        for (id, &when) in &self.terminated {
            let view = self.cluster.instances.get_mut(id).unwrap();
            view.state = if self.now >= when + 30 {
                InstanceState::Gone
            } else {
                InstanceState::Going
            };
            view.lifecycle = (view.state == InstanceState::Going).then(|| "Terminating".to_owned());
            if view.state == InstanceState::Gone {
                self.cluster
                    .nodes
                    .retain(|_, node| node.instance().unwrap().as_str() != id);
            }
        }
        let due = self
            .terminated
            .values()
            .filter(|&&when| self.now >= when + 60)
            .count();
        while self.launched < due {
            let index = 100 + self.launched;
            let node = NodeView {
                created: at(self.now),
                ..fixture::node(&format!("node-{index}"), index)
            };
            self.cluster
                .instances
                .insert(node.instance().unwrap().to_string(), fixture::in_service());
            self.cluster.nodes.insert(node.name.clone(), node);
            self.launched += 1;
        }
        let drained = self
            .cluster
            .nodes
            .keys()
            .cloned()
            .map(|name| (name, Vec::new()));
        self.cluster.pods = drained.collect();
    }

    fn status(&mut self, repair: &str) -> &mut NodeRepairStatus {
        self.cluster
            .repairs
            .get_mut(repair)
            .unwrap()
            .status
            .as_mut()
            .unwrap()
    }

    fn carry_out(&mut self, step: Step, mishap: Mishap) {
        match step {
            Step::Open(repair) => drop(
                self.cluster
                    .repairs
                    .insert(repair.metadata.name.clone().unwrap(), *repair),
            ),
            Step::Forget { repair } => drop(self.cluster.repairs.remove(&repair)),
            Step::Dismiss { node } => panic!("{node} has a record"),
            Step::Record { repair, status } => {
                // What is read back is what the API stores, not what was in memory.
                let stored =
                    serde_json::from_value(serde_json::to_value(*status).unwrap()).unwrap();
                self.cluster.repairs.get_mut(&repair).unwrap().status = Some(stored);
            }
            Step::Act { repair, act } => {
                let name = self.cluster.repairs[&repair].spec.node_ref.name.clone();
                match act {
                    Act::Cordon => fixture::cordon(self.cluster.nodes.get_mut(&name).unwrap()),
                    Act::Uncordon
                    | Act::Evict(_)
                    | Act::Delete(_)
                    | Act::StepDown(_)
                    | Act::OutOfService
                    | Act::BackInService
                    | Act::Reboot(_) => {}
                    Act::Replace(clearance) => self.replace(&repair, &clearance, mishap),
                }
            }
        }
    }

    fn replace(&mut self, repair: &str, clearance: &Clearance, mishap: Mishap) {
        let now = at(self.now);
        self.status(repair).begin_attempt(clearance, now);
        if mishap == Mishap::LostCall {
            return;
        }
        self.calls += 1;
        let id = clearance.instance().to_string();
        assert!(!self.terminated.contains_key(&id), "{id} terminated twice");
        self.terminated.insert(id, self.now);
        match mishap {
            Mishap::None | Mishap::CrashBefore => {
                self.status(repair)
                    .end_attempt(AttemptResult::Accepted, None, None, now)
            }
            Mishap::LostAnswer => {}
            Mishap::CrashAfter => self.episodes = Episodes::default(),
            Mishap::LostCall => {}
        }
    }

    fn check(&self) {
        let limit = self.cluster.policies[0].spec.parallel.count.unwrap() as usize;
        let taken = self
            .cluster
            .repairs
            .values()
            .filter(|r| r.status.as_ref().is_some_and(takes_a_place))
            .count();
        assert!(taken <= limit, "{taken} in parallel, {limit} allowed");
        let attempts: usize = self
            .cluster
            .repairs
            .values()
            .filter_map(|r| r.status.as_ref())
            .map(|status| status.attempts.len())
            .sum();
        assert!(
            self.calls <= attempts,
            "{} calls, {attempts} attempts on record",
            self.calls
        );
        for repair in self.cluster.repairs.values() {
            let finished = repair
                .status
                .as_ref()
                .is_some_and(NodeRepairStatus::is_finished);
            let outcome = repair
                .status
                .as_ref()
                .is_some_and(|status| status.outcome.is_some());
            assert_eq!(finished, outcome, "an outcome and the end come together");
        }
    }
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        20 => Just(Mishap::None),
        2 => Just(Mishap::CrashBefore),
        1 => Just(Mishap::LostAnswer),
        1 => Just(Mishap::CrashAfter),
        1 => Just(Mishap::LostCall),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_sick_node_is_replaced_once_whatever_crashes_and_gets_lost(
        sick in 1..4usize,
        parallel in 1..3u32,
        mishaps in prop::collection::vec(mishap(), 200..600),
    ) {
        let mut world = World::new(8, sick, parallel);
        for mishap in mishaps {
            world.pass(mishap);
        }
        // Left alone, it comes to its end.
        for _ in 0..1200 {
            world.pass(Mishap::None);
        }
        prop_assert_eq!(world.terminated.len(), sick);
        prop_assert_eq!(world.cluster.nodes.len(), 8);
        for repair in world.cluster.repairs.values() {
            let status = repair.status.as_ref().unwrap();
            prop_assert_eq!(status.outcome, Some(Outcome::Succeeded), "{:?}", status.timeline);
        }
    }
}

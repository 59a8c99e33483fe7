//! PURE. `simulate`: a policy against a described cluster and timeline, on a virtual clock. The
//! decisions are those of the daemon, by the same code; only the world is made up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;

use crate::api::repair::{NodeRepair, NodeRepairStatus};
use crate::decide::{self, Plan, Retention, Step};
use crate::episode::Episodes;

mod expect;
pub mod file;
mod invariant;
pub mod report;
mod world;

use self::file::{Event, File};
use self::invariant::Invariants;
use self::report::{Line, Report};
use self::world::{Done, World};

/// Passes at one moment: more, and the decision does not come to rest.
const MOST_PASSES: usize = 10_000;

/// What the file says comes to.
pub fn run(file: &File) -> anyhow::Result<Report> {
    let mut simulation = Simulation {
        start: file.start,
        world: World::new(file)?,
        episodes: Episodes::default(),
        invariants: Invariants::default(),
        report: Report::new(file),
        started: Vec::new(),
    };
    simulation.run(file)?;
    Ok(simulation.report)
}

struct Simulation {
    start: Timestamp,
    world: World,
    episodes: Episodes,
    invariants: Invariants,
    report: Report,
    /// Nodes whose drain has started, in order.
    started: Vec<String>,
}

impl Simulation {
    fn run(&mut self, file: &File) -> anyhow::Result<()> {
        let end = file.start + file.lasts.0;
        // By their text where they are simultaneous: their order in the file has no meaning.
        let mut events: Vec<&Event> = file.timeline.iter().collect();
        events.sort_by(|a, b| (a.at, &a.text).cmp(&(b.at, &b.text)));
        let mut events = events.into_iter().peekable();
        let moments: BTreeSet<_> = file.expect.iter().filter_map(|e| e.at).collect();
        let mut now = file.start;
        loop {
            while let Some(event) = events.next_if(|event| file.start + event.at.0 <= now) {
                let what = self.world.happen(&event.what, now);
                if what.with_context(|| format!("the event at {}", event.at))? {
                    self.episodes = Episodes::default();
                }
            }
            let wake = self.passes(now)?;
            let since = now.duration_since(file.start).unsigned_abs();
            if moments.iter().any(|at| at.0 == since) {
                self.check(file, Some(since), now);
            }
            if now >= end {
                break;
            }
            let event = events.peek().map(|event| file.start + event.at.0);
            let moment = moments.iter().map(|at| file.start + at.0);
            let next = [event, wake, self.world.next()].into_iter().flatten();
            let next = next.chain(moment).filter(|at| *at > now).min();
            now = next.unwrap_or(end).min(end);
        }
        self.check(file, None, now);
        self.report.end(&self.world.cluster, &self.world.destroyed);
        Ok(())
    }

    /// Decides until there is nothing left to do now. Returns when to look again.
    fn passes(&mut self, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
        self.world.live(now);
        if !self.world.reachable {
            return Ok(None);
        }
        for _ in 0..MOST_PASSES {
            self.episodes.observe(&self.world.cluster, now);
            let plan = decide::decide(
                &self.world.cluster,
                &self.episodes,
                Retention::default(),
                now,
            );
            let wake = plan.wake_at;
            if !self.carry_out(plan, now)? {
                return Ok(wake);
            }
        }
        anyhow::bail!("the decision did not come to rest after {MOST_PASSES} passes at {now}")
    }

    /// Whether anything has changed.
    fn carry_out(&mut self, plan: Plan, now: Timestamp) -> anyhow::Result<bool> {
        let mut changed = false;
        for policy in &mut self.world.cluster.policies {
            let name = policy.metadata.name.clone().unwrap_or_default();
            let wanted = plan.policies.get(&name).cloned();
            if wanted.is_some() && policy.status != wanted {
                policy.status = wanted;
                changed = true;
            }
        }
        let at = now.duration_since(self.start).unsigned_abs();
        let before = self.statuses(&plan.steps);
        for step in plan.steps {
            self.invariants.before(&self.world.cluster, &step, now);
            let done = self.world.carry_out(step, now);
            let done = match done {
                Ok(done) => done,
                Err(error) => {
                    self.invariants.broken(format!("{error:#}"));
                    continue;
                }
            };
            changed = true;
            self.tell(at, &before, &done);
            self.invariants.after(&self.world.cluster, &done);
        }
        for broken in self.invariants.take() {
            self.report.broken(at, broken);
        }
        Ok(changed)
    }

    /// Of the repairs that the steps are about.
    fn statuses(&self, steps: &[Step]) -> BTreeMap<String, NodeRepairStatus> {
        let recorded = steps.iter().filter_map(|step| match step {
            Step::Record { repair, .. } => Some(repair),
            Step::Open(_) | Step::Act { .. } | Step::Forget { .. } | Step::Dismiss { .. } => None,
        });
        recorded
            .filter_map(|name| {
                let repair = self.world.cluster.repairs.get(name)?;
                Some((name.clone(), repair.status.clone().unwrap_or_default()))
            })
            .collect()
    }

    fn tell(&mut self, at: Duration, before: &BTreeMap<String, NodeRepairStatus>, done: &Done) {
        let repair = |name: &String| self.world.cluster.repairs.get(name);
        let line = |name: &String, event: &str, message: String| {
            let node = repair(name).map(|repair| repair.spec.node_ref.name.clone());
            Line::new(at, node.unwrap_or_default(), name.clone(), event, message)
        };
        match done {
            Done::Opened(name) => {
                let action = repair(name).map(|repair| repair.spec.action);
                let message = action.map(|action| format!("action {action:?}"));
                let told = line(name, "unhealthy", message.unwrap_or_default());
                self.report.line(told);
            }
            Done::Cordoned(name) => {
                let told = line(name, "cordoned", String::new());
                self.report.line(told);
            }
            Done::Uncordoned(name) => {
                let told = line(name, "un-cordoned", String::new());
                self.report.line(told);
            }
            Done::Marked { repair, what } => {
                let told = line(repair, what, String::new());
                self.report.line(told);
            }
            Done::Dismissed(node) => {
                let event = "given back";
                let told = Line::new(at, node.clone(), String::new(), event, String::new());
                self.report.line(told);
            }
            Done::Deleted { repair, pods } => {
                let told = line(repair, "deleted", pods.join(", "));
                self.report.line(told);
            }
            Done::Rebooted {
                repair,
                instance,
                result,
            } => {
                let told = line(repair, "rebooted", format!("{instance}: {result}"));
                self.report.line(told);
            }
            Done::Evicted { repair, pods } => {
                if !pods.is_empty() {
                    let told = line(repair, "evicted", pods.join(", "));
                    self.report.line(told);
                }
            }
            Done::Terminated {
                repair,
                instance,
                group,
                result,
            } => {
                let message = format!("{instance} of {group}: {result}");
                let told = line(repair, "terminated", message);
                self.report.line(told);
            }
            Done::Forgotten(name) => {
                let told = line(name, "forgotten", String::new());
                self.report.line(told);
            }
            Done::Recorded(name) => {
                if let Some(object) = repair(name).cloned() {
                    let before = before.get(name).cloned().unwrap_or_default();
                    self.tell_change(at, name, &before, &object);
                }
            }
        }
    }

    fn tell_change(
        &mut self,
        at: Duration,
        name: &str,
        before: &NodeRepairStatus,
        repair: &NodeRepair,
    ) {
        let Some(status) = &repair.status else {
            return;
        };
        let node = &repair.spec.node_ref.name;
        if crate::api::repair::Phase::Draining == status.phase && before.phase < status.phase {
            self.started.push(node.clone());
        }
        for line in report::changes(at, node, name, before, status) {
            self.report.line(line);
        }
    }

    fn check(&mut self, file: &File, at: Option<Duration>, now: Timestamp) {
        let seen = expect::Seen {
            world: &self.world,
            episodes: &self.episodes,
            started: &self.started,
            now,
        };
        for expectation in file.expect.iter().filter(|e| e.at.map(|at| at.0) == at) {
            let failures = expect::check(expectation, &seen);
            self.report.expected(expectation, failures);
        }
    }
}

/// The whole of it, for the command line and for tests.
pub fn simulate(text: &str) -> anyhow::Result<Report> {
    let file = File::read(text)?;
    ensure!(
        file.expect
            .iter()
            .all(|e| e.at.is_none_or(|at| at <= file.lasts)),
        "something is expected after the end ({})",
        file.lasts
    );
    run(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = r#"
for: 70m
policies:
  - name: default
    spec:
      mode: Enforce
      selector: {}
      rules:
        - {nodeMonitoringCondition: StorageReady, minRepairWaitTime: 30m, repairActions: [Replace]}
nodes:
  - {name: n, count: 10, group: workers}
pods:
  - {name: web, node: n-0, count: 2, pdb: web}
pdbs:
  - {name: web, allowed: 1}
timeline:
  - {at: 5m, condition: {nodes: [n-0], type: StorageReady, status: "False", reason: FilesystemReadOnly}}
  - {at: 5m, condition: {nodes: [n-1], type: StorageReady, status: "True", reason: StorageIsReady}}
  - {at: 5m, label: {nodes: [n-2], label: a, value: b}}
  - {at: 5m, restart: {}}
expect:
  - {at: 10m, node: n-0, phase: Waiting, gate: WaitTime, cordoned: true}
  - {node: n-0, outcome: Succeeded}
  - {destroyed: [n-0]}
"#;

    #[test]
    fn a_whole_repair_takes_its_course() {
        let report = simulate(STORY).unwrap();
        assert!(report.is_as_expected(), "{}", report.text());
        insta::assert_snapshot!(report.text());
    }

    #[test]
    fn the_order_of_simultaneous_events_has_no_meaning() {
        let wanted = simulate(STORY).unwrap().text();
        let mut file = File::read(STORY).unwrap();
        for _ in 0..file.timeline.len() {
            file.timeline.rotate_left(1);
            assert_eq!(run(&file).unwrap().text(), wanted);
        }
        file.timeline.reverse();
        assert_eq!(run(&file).unwrap().text(), wanted);
    }

    #[test]
    fn what_is_not_so_is_told() {
        let report = simulate(&STORY.replace("outcome: Succeeded", "outcome: Failed")).unwrap();
        assert!(!report.is_as_expected());
        let text = report.text();
        assert!(text.contains("outcome is Succeeded, not Failed"), "{text}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let cases = [
            ("for: 70m", "four: 70m", "four"),
            ("label: a,", "labbel: a,", "labbel"),
            ("restart: {}", "reboot: {}", "reboot"),
            ("node: n-0, count", "node: m-0, count", "m-0"),
            ("count: 10", "count: 4294967295", "at most 20000"),
            ("count: 2,", "count: 4294967295,", "at most 1000000"),
            ("for: 70m", "for: 70m\nstart: 9999-12-30T21:59:59Z", "9999"),
            (
                "nodes: [n-1], type",
                "nodes: [n-0], type",
                "which comes first?",
            ),
            (
                "selector: {}",
                "selector: {}\n      parallel: {count: 1, percentageOfUnhealthy: 5}",
                "not both",
            ),
        ];
        for (old, new, named) in cases {
            let error = simulate(&STORY.replace(old, new)).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(named), "{new}: {error}");
        }
    }
}

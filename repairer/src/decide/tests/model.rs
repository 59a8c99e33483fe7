//! A model checker: three sick nodes, two replicas, and every interleaving of passes, calls, kills,
//! lost calls, lost answers and changes of the leader, up to a bound. What decides is the real
//! decision; what carries it out is the order of `step.rs`, each of whose guards can be taken out,
//! to see that it is needed.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::*;
use crate::cluster::InstanceState;

const SICK: [&str; 3] = ["node-0", "node-1", "node-2"];
/// Longer than an instance may show no sign of a call.
const TICK: i64 = 25;
/// What is older than this is simply old: no wait of a repair that goes on is longer.
const OLD: i64 = 4 * TICK;
/// An unmendable state would go on for ever.
const ENOUGH: usize = 80;

/// What `step.rs` and `act.rs` do, and would be wrong without.
#[derive(Clone, Copy, PartialEq)]
struct Guards {
    /// The lease is asked right before the call.
    fence: bool,
    /// The attempt is stored before the call.
    intent: bool,
    /// A status is stored only over the one that it was derived from.
    version: bool,
    /// What became of a call is seen by describing the instance.
    look: bool,
    /// All gates are asked again between the intent and the call.
    again: bool,
    /// No more nodes at a time than the policy has places.
    places: bool,
}

const ALL: Guards = Guards {
    fence: true,
    intent: true,
    version: true,
    look: true,
    again: true,
    places: true,
};

/// A destructive call between two of its steps.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    repair: String,
    instance: String,
    /// The status that the call's end is derived from, and its version.
    status: NodeRepairStatus,
    version: u32,
    /// Looked at once more, and still allowed.
    cleared: bool,
    answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Happens {
    /// The leader decides, and does all that destroys nothing.
    Pass,
    Look(usize),
    Send(usize),
    LoseCall(usize),
    LoseAnswer(usize),
    Store(usize),
    Kill(usize),
    /// A person excludes the node that a replica is about to destroy.
    Exclude(usize),
    /// The other replica takes the lease; the old leader does not know yet.
    Depose,
    Tick,
}

#[derive(Clone)]
struct Model {
    cluster: Cluster,
    versions: BTreeMap<String, u32>,
    now: i64,
    leader: usize,
    /// One for each replica: a pass ends before the next one.
    hands: [Vec<Call>; 2],
    /// When each instance took a call.
    taken: BTreeMap<String, i64>,
    mishaps: u32,
    violation: Option<String>,
}

impl Model {
    fn new(mishaps: u32) -> Self {
        let mut cluster = fixture::cluster(6);
        let spec = &mut cluster.policies[0].spec;
        spec.cordon.after = crate::api::duration::Wait::seconds(0);
        spec.rules[0].min_repair_wait_time = crate::api::duration::Wait::seconds(0);
        spec.unhealthy_threshold.percentage = Some(100);
        spec.correlation.min_nodes = 10;
        spec.parallel.count = Some(2);
        spec.verify.soak = crate::api::duration::Wait::seconds(0);
        for name in SICK {
            fixture::make_sick(&mut cluster, name);
        }
        let mut model = Self {
            cluster,
            versions: BTreeMap::new(),
            now: SICK_SINCE,
            leader: 0,
            hands: [Vec::new(), Vec::new()],
            taken: BTreeMap::new(),
            mishaps,
            violation: None,
        };
        // Its agents have spoken.
        model.tick();
        model
    }

    /// All that decides what comes next; what does not, such as texts, is left out.
    fn key(&self) -> String {
        let age = |then: Timestamp| at(self.now).duration_since(then).as_secs().min(OLD);
        let mut key = format!("{} {}|", self.leader, self.mishaps);
        for (name, repair) in &self.cluster.repairs {
            let status = repair.status.clone().unwrap_or_default();
            let hold = status.hold.as_ref().map(|hold| hold.gate);
            let drain = status.drain.as_ref().map(|drain| age(drain.since.0));
            let _ = write!(key, "{name} {:?} {hold:?} {drain:?} ", status.phase);
            for attempt in &status.attempts {
                let _ = write!(key, "{}{:?} ", age(attempt.started.0), attempt.result);
            }
            let new = status.replacement.as_ref();
            let new = new.map(|new| (new.node_name.as_str(), age(new.since.0)));
            let _ = write!(key, "{new:?}{:?}|", status.outcome);
        }
        for node in self.cluster.nodes.values() {
            let excluded = !node.labels.is_empty();
            let _ = write!(key, "{}{}{excluded} ", node.name, node.has_our_cordon());
        }
        for calls in &self.hands {
            for call in calls {
                let attempts = call.status.attempts.len();
                let (cleared, answered) = (call.cleared, call.answered);
                let _ = write!(key, "{}{cleared}{answered}{attempts}", call.repair);
                let current = self.versions.get(&call.repair) == Some(&call.version);
                let _ = write!(key, "{current} ");
            }
            key.push('/');
        }
        for (instance, when) in &self.taken {
            let _ = write!(key, "{instance}{}", (self.now - when).min(OLD));
        }
        key
    }

    fn can_happen(&self) -> Vec<Happens> {
        let mut all = Vec::new();
        let idle = self.hands[self.leader].is_empty();
        let busy = idle && self.after(Happens::Pass, ALL).key() != self.key();
        if busy {
            all.push(Happens::Pass);
        }
        // Time passes when there is nothing to do, or in the middle of a call.
        if !busy || self.hands.iter().any(|hands| !hands.is_empty()) {
            all.push(Happens::Tick);
        }
        for replica in 0..2 {
            match self.hands[replica].first() {
                Some(call) if call.answered => all.push(Happens::Store(replica)),
                Some(call) if !call.cleared => {
                    all.push(Happens::Look(replica));
                    if self.mishaps > 0 {
                        all.push(Happens::Exclude(replica));
                    }
                }
                Some(_) => {
                    all.push(Happens::Send(replica));
                    if self.mishaps > 0 {
                        all.push(Happens::LoseCall(replica));
                        all.push(Happens::LoseAnswer(replica));
                    }
                }
                None => {}
            }
            if self.mishaps > 0 && !self.hands[replica].is_empty() {
                all.push(Happens::Kill(replica));
            }
        }
        if self.mishaps > 0 {
            all.push(Happens::Depose);
        }
        all
    }

    fn after(&self, happens: Happens, guards: Guards) -> Self {
        let mut next = self.clone();
        match happens {
            Happens::Pass => next.pass(guards),
            Happens::Tick => next.tick(),
            Happens::Look(replica) => next.look(replica, guards),
            Happens::Send(replica) => next.send(replica, guards),
            Happens::LoseCall(replica) => {
                next.hands[replica].remove(0);
                next.mishaps -= 1;
            }
            Happens::LoseAnswer(replica) => {
                next.send(replica, guards);
                next.hands[replica].retain(|call| !call.answered);
                next.mishaps -= 1;
            }
            Happens::Store(replica) => next.store(replica, guards),
            Happens::Kill(replica) => {
                next.hands[replica].clear();
                next.mishaps -= 1;
            }
            Happens::Exclude(replica) => {
                let name = next.node_of_call(replica);
                if let Some(node) = next.cluster.nodes.get_mut(&name) {
                    let label = (crate::api::EXCLUDE_LABEL.to_owned(), "true".to_owned());
                    node.labels.extend([label]);
                }
                next.mishaps -= 1;
            }
            Happens::Depose => {
                next.leader = 1 - next.leader;
                // Who has lost the lease ends, so who takes it has just begun.
                next.hands[next.leader].clear();
                next.mishaps -= 1;
            }
        }
        next
    }

    fn broken(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// What the API server and AWS say.
    fn seen(&self, guards: Guards) -> Cluster {
        let mut seen = self.cluster.clone();
        if !guards.look {
            for view in seen.instances.values_mut() {
                *view = fixture::in_service();
            }
        }
        seen
    }

    fn pass(&mut self, guards: Guards) {
        let seen = self.seen(guards);
        // A process that has just begun knows what the records say.
        let mut episodes = Episodes::default();
        episodes.observe(&seen, at(self.now));
        for step in decided(&seen, &episodes, self.now).steps {
            match step {
                Step::Open(repair) => {
                    let name = repair.metadata.name.clone().unwrap();
                    self.versions.insert(name.clone(), 0);
                    self.cluster.repairs.insert(name, *repair);
                }
                Step::Record { repair, status } => self.write(&repair, *status),
                Step::Forget { repair } => drop(self.cluster.repairs.remove(&repair)),
                Step::Dismiss { node } => self.broken(format!("{node} is dismissed")),
                Step::Act { repair, act } => self.act(&repair, act, guards),
            }
        }
    }

    fn write(&mut self, name: &str, status: NodeRepairStatus) {
        let repair = self.cluster.repairs.get_mut(name).unwrap();
        let before = repair.status.as_ref().and_then(|status| status.outcome);
        let changed = before.is_some() && status.outcome != before;
        repair.status = Some(status);
        *self.versions.get_mut(name).unwrap() += 1;
        if changed {
            self.broken(format!("{name} had ended with {before:?}"));
        }
    }

    fn act(&mut self, name: &str, act: Act, guards: Guards) {
        let repair = self.cluster.repairs[name].clone();
        let node = self.cluster.nodes.get_mut(&repair.spec.node_ref.name);
        match act {
            Act::Cordon => fixture::cordon(node.unwrap()),
            Act::Uncordon => fixture::uncordon(node.unwrap()),
            Act::Replace(clearance) => {
                let mut status = repair.status.unwrap();
                status.begin_attempt(&clearance, at(self.now));
                if guards.intent {
                    self.write(name, status.clone());
                }
                let call = Call {
                    repair: name.to_owned(),
                    instance: clearance.instance().to_string(),
                    status,
                    version: self.versions[name],
                    cleared: false,
                    answered: false,
                };
                self.hands[self.leader].push(call);
            }
            act => self.broken(format!("{name}: {act:?}")),
        }
    }

    fn node_of_call(&self, replica: usize) -> String {
        let repair = &self.hands[replica][0].repair;
        self.cluster.repairs[repair].spec.node_ref.name.clone()
    }

    /// The second look: what has changed since the intent was stored holds the call back.
    fn look(&mut self, replica: usize, guards: Guards) {
        let mut episodes = Episodes::default();
        let seen = self.seen(guards);
        episodes.observe(&seen, at(self.now));
        let name = self.hands[replica][0].repair.clone();
        let asked = clearance(&seen, &episodes, &name, at(self.now));
        if guards.again && asked.is_err() {
            let call = self.hands[replica].remove(0);
            if self.versions[&name] == call.version {
                let mut status = call.status;
                let message = Some("held".to_owned());
                status.end_attempt(AttemptResult::Withheld, None, message, at(self.now));
                self.write(&name, status);
            }
            return;
        }
        let node = self.cluster.nodes.get(&self.node_of_call(replica));
        if node.is_some_and(|node| !node.labels.is_empty()) {
            self.broken(format!("{name}: its node was excluded before the look"));
        }
        self.hands[replica][0].cleared = true;
    }

    fn send(&mut self, replica: usize, guards: Guards) {
        if guards.fence && self.leader != replica {
            self.hands[replica].remove(0);
            return;
        }
        let call = self.hands[replica][0].clone();
        self.hands[replica][0].answered = true;
        let stored = self.cluster.repairs.get(&call.repair);
        let stored = stored.and_then(|repair| repair.status.clone());
        let stored = stored.unwrap_or_default();
        let recorded = stored.attempts.last().is_some_and(|a| a.result.is_none());
        let own = stored.attempts.len() == call.status.attempts.len();
        if !(recorded && own) {
            self.broken(format!(
                "{}: a call without an open attempt of its own",
                call.repair
            ));
        }
        let others = self.cluster.repairs.iter().filter(|(name, other)| {
            let status = other.status.as_ref();
            **name != call.repair
                && status.is_some_and(|s| !s.is_finished() && !s.attempts.is_empty())
        });
        if others.count() >= 2 {
            self.broken(format!("{}: a third node at a time", call.repair));
        }
        if self.taken.insert(call.instance.clone(), self.now).is_some() {
            self.broken(format!("{} is terminated twice", call.instance));
        }
        let view = self.cluster.instances.get_mut(&call.instance).unwrap();
        view.lifecycle = Some("Terminating".to_owned());
        view.state = InstanceState::Going;
    }

    fn store(&mut self, replica: usize, guards: Guards) {
        let call = self.hands[replica].remove(0);
        if guards.version && self.versions[&call.repair] != call.version {
            return;
        }
        let mut status = call.status;
        status.end_attempt(AttemptResult::Accepted, None, None, at(self.now));
        self.write(&call.repair, status);
    }

    /// Agents confirm, terminated instances go, others come in their place.
    fn tick(&mut self) {
        self.now += TICK;
        for (id, when) in self.taken.clone() {
            let view = self.cluster.instances.get_mut(&id).unwrap();
            if view.state == InstanceState::Going && self.now > when {
                view.state = InstanceState::Gone;
                let node = self.cluster.nodes.values();
                let mut node = node.filter(|n| n.instance().unwrap().as_str() == id);
                let name = node.next().map(|node| node.name.clone()).unwrap();
                self.cluster.nodes.remove(&name);
                let index = 100 + name.trim_start_matches("node-").parse::<usize>().unwrap();
                let mut new = fixture::node(&format!("node-{index}"), index);
                new.created = at(self.now);
                let id = new.instance().unwrap().to_string();
                self.cluster.instances.insert(id, fixture::in_service());
                self.cluster.nodes.insert(new.name.clone(), new);
            }
        }
        for node in self.cluster.nodes.values_mut() {
            self.cluster.pods.insert(node.name.clone(), Vec::new());
            for condition in &mut node.conditions {
                condition.heartbeat = Some(at(self.now));
            }
        }
    }

    fn is_over(&self) -> bool {
        let repairs = &self.cluster.repairs;
        let ended = |repair: &NodeRepair| {
            let status = repair.status.as_ref();
            status.is_some_and(|status| status.outcome == Some(Outcome::Succeeded))
        };
        repairs.len() == SICK.len() && repairs.values().all(ended)
    }

    /// Without further mishaps every story ends well.
    fn ends(mut self) -> Result<(), String> {
        for node in self.cluster.nodes.values_mut() {
            node.labels.clear();
        }
        for _ in 0..ENOUGH {
            if self.is_over() {
                return Ok(());
            }
            for replica in 0..2 {
                while let Some(call) = self.hands[replica].first() {
                    let happens = match (call.cleared, call.answered) {
                        (false, _) => Happens::Look(replica),
                        (true, false) => Happens::Send(replica),
                        (true, true) => Happens::Store(replica),
                    };
                    self = self.after(happens, ALL);
                }
            }
            for _ in 0..3 {
                if self.hands[self.leader].is_empty() {
                    self = self.after(Happens::Pass, ALL);
                }
            }
            self.tick();
        }
        let told = self.cluster.repairs.values().map(|repair| {
            let status = repair.status.clone().unwrap_or_default();
            let hold = status
                .hold
                .map(|hold| format!("{:?}: {}", hold.gate, hold.message));
            format!(
                "{:?} {:?} {hold:?} {:?}",
                status.phase, status.outcome, status.attempts
            )
        });
        Err(told.collect::<Vec<_>>().join("; "))
    }
}

struct Explored {
    states: usize,
    /// A story without further mishaps was told to its end from so many.
    told: usize,
    violation: Option<String>,
    /// All three nodes replaced.
    ends: usize,
}

/// Every state, breadth first, so that a violation comes with its shortest story.
fn explore(guards: Guards, mishaps: u32) -> Explored {
    let mut start = Model::new(mishaps);
    if !guards.places {
        start.cluster.policies[0].spec.parallel.count = Some(3);
    }
    let mut seen = HashSet::from([start.key()]);
    let mut queue = VecDeque::from([(start, Vec::new())]);
    let mut explored = Explored {
        states: 0,
        told: 0,
        violation: None,
        ends: 0,
    };
    while let Some((model, story)) = queue.pop_front() {
        explored.states += 1;
        explored.ends += usize::from(model.is_over());
        if explored.states.is_multiple_of(101) && guards == ALL {
            explored.told += 1;
            if let Err(stands) = model.clone().ends() {
                explored.violation = Some(format!("it does not end: {stands}: {story:?}"));
                return explored;
            }
        }
        if model.is_over() {
            continue;
        }
        for happens in model.can_happen() {
            let next = model.after(happens, guards);
            let mut story: Vec<Happens> = story.clone();
            story.push(happens);
            if let Some(violation) = next.violation {
                explored.violation = Some(format!("{violation}: {story:?}"));
                return explored;
            }
            if seen.insert(next.key()) {
                queue.push_back((next, story));
            }
        }
    }
    explored
}

#[test]
fn no_interleaving_breaks_what_must_hold() {
    let explored = explore(ALL, 1);
    assert_eq!(explored.violation, None);
    let Explored {
        states, told, ends, ..
    } = explored;
    println!("{states} states, {ends} of them the end, {told} told to the end");
    assert!(ends > 0 && told > 0, "{states} {ends} {told}");
}

#[test]
fn each_guard_is_needed() {
    type TakeOut = fn(&mut Guards);
    let without: [(&str, TakeOut); 6] = [
        ("fence", |guards| guards.fence = false),
        ("intent", |guards| guards.intent = false),
        ("version", |guards| guards.version = false),
        ("look", |guards| guards.look = false),
        ("again", |guards| guards.again = false),
        ("places", |guards| guards.places = false),
    ];
    for (guard, take_out) in without {
        let mut guards = ALL;
        take_out(&mut guards);
        let explored = explore(guards, 2);
        let violation = explored.violation;
        assert!(
            violation.is_some(),
            "nothing is wrong without the guard {guard}"
        );
        println!("without {guard}: {}", violation.unwrap_or_default());
    }
}

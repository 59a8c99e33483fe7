//! PURE. What AWS knows, and what it does by itself as time passes. The same state serves a real
//! and a manual clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::group::{Group, NodeGroup, Shift};
use super::machine::{Instance, InstanceState, Seen};

/// How long AWS takes; seconds here, minutes there.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub pending: Duration,
    pub shutting_down: Duration,
    /// From the terminate to the launch of the replacement, and from a failed launch to the next.
    pub replacement: Duration,
    /// How far the descriptions of EC2 lag behind.
    pub consistency: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            pending: Duration::from_millis(700),
            shutting_down: Duration::from_millis(700),
            replacement: Duration::from_millis(500),
            consistency: Duration::ZERO,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Activity {
    pub(super) id: String,
    pub(super) group: String,
    pub(super) description: String,
    pub(super) cause: String,
    pub(super) started: Timestamp,
    /// When it will have ended; until then it is in progress.
    pub(super) ends: Timestamp,
    pub(super) failure: Option<String>,
}

struct Launch {
    at: Timestamp,
    group: String,
    zone: String,
}

/// An error of the API, told to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn client(code: &str, message: String) -> Self {
        Self {
            status: 400,
            code: code.to_owned(),
            message,
        }
    }
}

pub(super) struct State {
    pub(super) delays: Delays,
    pub(super) instances: BTreeMap<String, Instance>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) node_groups: Vec<NodeGroup>,
    /// `None`: the cluster is not registered with ARC.
    pub(super) shifts: Option<Vec<Shift>>,
    /// Ids, and how many instances each has room for.
    pub(super) reservations: BTreeMap<String, u32>,
    pub(super) activities: Vec<Activity>,
    launches: Vec<Launch>,
    next: u64,
}

impl State {
    pub(super) fn new(delays: Delays) -> Self {
        Self {
            delays,
            instances: BTreeMap::new(),
            groups: BTreeMap::new(),
            node_groups: Vec::new(),
            shifts: None,
            reservations: BTreeMap::new(),
            activities: Vec::new(),
            launches: Vec::new(),
            next: 1,
        }
    }

    /// A group whose instances have been running for a while.
    pub(super) fn create_group(
        &mut self,
        name: &str,
        zones: &[&str],
        now: Timestamp,
    ) -> Vec<String> {
        let long_ago = now - Duration::from_secs(3600);
        self.groups
            .insert(name.to_owned(), Group::new(name, zones, long_ago));
        zones
            .iter()
            .map(|zone| self.launch(name, zone, long_ago))
            .collect()
    }

    pub(super) fn create_member(&mut self, group: &str, zone: &str, now: Timestamp) -> String {
        if let Some(group) = self.groups.get_mut(group) {
            group.desired += 1;
            group.max += 1;
        }
        self.launch(group, zone, now - Duration::from_secs(3600))
    }

    /// An instance of no group that has been running for a while.
    pub(super) fn create_instance(&mut self, zone: &str, now: Timestamp) -> String {
        self.launch("", zone, now - Duration::from_secs(3600))
    }

    pub(super) fn terminate_alone(&mut self, id: &str, now: Timestamp) {
        let instance = self.instances.get_mut(id);
        if let Some(instance) = instance.filter(|instance| instance.group.is_empty()) {
            instance.terminated.get_or_insert(now);
        }
    }

    /// Does what AWS does by itself as time passes: launches what is due, replaces what is unhealthy.
    pub(super) fn advance(&mut self, now: Timestamp) {
        for Launch { at, group, zone } in std::mem::take(&mut self.launches) {
            let Some(settings) = self.groups.get(&group).filter(|group| group.runs("Launch"))
            else {
                self.launches.push(Launch { at, group, zone });
                continue;
            };
            if at > now {
                self.launches.push(Launch { at, group, zone });
            } else if let Some(failure) = settings.launch_failure.clone() {
                let description = "Launching a new EC2 instance.  Status Reason: ".to_owned();
                let activity = self.record(
                    &group,
                    description + &failure,
                    DIFFERENCE.to_owned(),
                    (at, at),
                );
                if let Some(kept) = self.activities.iter_mut().find(|a| a.id == activity.id) {
                    kept.failure = Some(failure);
                }
                let at = at + self.delays.replacement;
                self.launches.push(Launch { at, group, zone });
            } else {
                let hook = settings.launching_hook;
                let id = self.launch(&group, &zone, at);
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.waits_until = hook.map(|hook| at + self.delays.pending + hook);
                }
                self.record(
                    &group,
                    format!("Launching a new EC2 instance: {id}"),
                    DIFFERENCE.to_owned(),
                    (at, at + self.delays.pending),
                );
            }
        }
        self.replace_unhealthy(now);
    }

    /// A group with a launch-before-terminate policy waits until it has one more than it needs.
    fn replace_unhealthy(&mut self, now: Timestamp) {
        let unhealthy: Vec<_> = self
            .instances
            .values()
            .filter(|instance| instance.unhealthy && instance.ending.is_none())
            .map(|instance| {
                (
                    instance.id.clone(),
                    instance.group.clone(),
                    instance.zone.clone(),
                )
            })
            .collect();
        for (id, name, zone) in unhealthy {
            let Some(group) = self.groups.get(&name) else {
                continue;
            };
            if !group.runs("HealthCheck") || !group.runs("ReplaceUnhealthy") {
                continue;
            }
            let launch_first = group.maintenance.is_some_and(|(_, most)| most > 100);
            let running = self.in_service(&name, now);
            let coming = self.launches.iter().any(|launch| launch.group == name);
            let at = now + self.delays.replacement;
            if !launch_first || running > group.desired {
                self.end(
                    &id,
                    now,
                    "an EC2 health check indicating it has been terminated or stopped",
                );
                if !launch_first {
                    self.launches.push(Launch {
                        at,
                        group: name,
                        zone,
                    });
                }
            } else if !coming && self.members(&name, now) <= group.desired {
                self.launches.push(Launch {
                    at,
                    group: name,
                    zone,
                });
            }
        }
    }

    fn members(&self, group: &str, now: Timestamp) -> usize {
        let of_group = self
            .instances
            .values()
            .filter(|i| i.group == group && i.ending.is_none());
        of_group
            .filter(|i| !i.state(&self.delays, now).is_going())
            .count()
    }

    fn in_service(&self, group: &str, now: Timestamp) -> usize {
        let of_group = self.instances.values().filter(|i| i.group == group);
        of_group
            .filter(|i| i.lifecycle(&self.delays, now) == Some("InService"))
            .count()
    }

    pub(super) fn instances(&self, now: Timestamp) -> Vec<Seen> {
        let seen = |instance: &Instance| Seen {
            id: instance.id.clone(),
            group: instance.group.clone(),
            zone: instance.zone.clone(),
            state: instance.state(&self.delays, now),
            joins: instance.joins,
            reboots: instance.reboots,
        };
        self.instances.values().map(seen).collect()
    }

    /// `TerminateInstanceInAutoScalingGroup`: terminate, then launch.
    pub(super) fn terminate_in_group(
        &mut self,
        id: &str,
        decrement: bool,
        now: Timestamp,
    ) -> Result<Activity, Refusal> {
        let instance = self.member(id, now)?;
        if instance.ending.is_some() {
            let message = format!("Scaling activity is in progress for instance {id}");
            return Err(Refusal::client("ScalingActivityInProgress", message));
        }
        let (name, zone) = (instance.group.clone(), instance.zone.clone());
        let group = self.groups.get_mut(&name).ok_or_else(|| not_a_member(id))?;
        if decrement {
            if group.desired <= group.min {
                let message = format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will violate group's min size constraint",
                    group.min
                );
                return Err(Refusal::client("ValidationError", message));
            }
            group.desired -= 1;
        } else {
            let at = now + self.delays.replacement;
            self.launches.push(Launch {
                at,
                group: name,
                zone,
            });
        }
        Ok(self.end(id, now, "a user request"))
    }

    /// `SetInstanceHealth`: the group acts on it in its own time.
    pub(super) fn set_health(
        &mut self,
        id: &str,
        healthy: bool,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.member(id, now)?;
        if let Some(instance) = self.instances.get_mut(id) {
            instance.unhealthy = !healthy;
        }
        Ok(())
    }

    fn member(&self, id: &str, now: Timestamp) -> Result<&Instance, Refusal> {
        let instance = self
            .instances
            .get(id)
            .filter(|instance| !instance.group.is_empty());
        instance
            .filter(|instance| instance.state(&self.delays, now) != InstanceState::Terminated)
            .ok_or_else(|| not_a_member(id))
    }

    /// The end begins at once, or when a hook lets it.
    fn end(&mut self, id: &str, now: Timestamp, cause: &str) -> Activity {
        let (mut group, mut begins) = (String::new(), now);
        if let Some(instance) = self.instances.get_mut(id) {
            group.clone_from(&instance.group);
            let hook = self
                .groups
                .get(&group)
                .and_then(|group| group.terminating_hook);
            begins = now + hook.unwrap_or_default();
            instance.ending = Some(now);
            instance.terminated = Some(begins);
        }
        self.record(
            &group,
            format!("Terminating EC2 instance: {id}"),
            format!("At {now} instance {id} was taken out of service in response to {cause}."),
            (now, begins + self.delays.shutting_down),
        )
    }

    /// Whoever holds the hook lets the instance go.
    pub(super) fn complete_hook(&mut self, id: &str, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        if let Some(at) = instance.terminated {
            instance.terminated = Some(at.min(now));
        }
        if let Some(until) = instance.waits_until {
            instance.waits_until = Some(until.min(now));
        }
    }

    /// `RebootInstances`: all or none.
    pub(super) fn reboot(&mut self, ids: &[String], now: Timestamp) -> Result<(), Refusal> {
        for id in ids {
            let instance = self.instances.get(id).ok_or_else(|| no_such_instance(id))?;
            if instance.state(&self.delays, now).is_going() {
                let message =
                    format!("The instance '{id}' is not in a state from which it can be rebooted");
                return Err(Refusal::client("IncorrectState", message));
            }
        }
        for id in ids {
            if let Some(instance) = self.instances.get_mut(id) {
                instance.reboots += 1;
            }
        }
        Ok(())
    }

    fn launch(&mut self, group: &str, zone: &str, at: Timestamp) -> String {
        let number = self.number();
        let id = format!("i-{number:017x}");
        let instance = Instance::new(id.clone(), group, zone, at, number);
        self.instances.insert(id.clone(), instance);
        id
    }

    fn record(
        &mut self,
        group: &str,
        description: String,
        cause: String,
        (started, ends): (Timestamp, Timestamp),
    ) -> Activity {
        let id = format!("00000000-0000-4000-8000-{:012x}", self.number());
        let activity = Activity {
            id,
            group: group.to_owned(),
            description,
            cause,
            started,
            ends,
            failure: None,
        };
        self.activities.push(activity.clone());
        activity
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }
}

const DIFFERENCE: &str =
    "an instance was launched in response to a difference between desired and actual capacity";

fn not_a_member(id: &str) -> Refusal {
    Refusal::client(
        "ValidationError",
        format!("Instance Id not found - No managed instance found for instance ID {id}"),
    )
}

pub(super) fn no_such_instance(id: &str) -> Refusal {
    Refusal::client(
        "InvalidInstanceID.NotFound",
        format!("The instance ID '{id}' does not exist"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn two_instances() -> (State, Vec<String>) {
        let delay = Duration::from_secs(10);
        let mut state = State::new(Delays {
            pending: delay,
            shutting_down: delay,
            replacement: delay,
            consistency: Duration::ZERO,
        });
        let ids = state.create_group("workers", &["a", "b"], after(0));
        (state, ids)
    }

    fn states(state: &mut State, now: Timestamp) -> Vec<InstanceState> {
        state.advance(now);
        state.instances(now).iter().map(|seen| seen.state).collect()
    }

    #[test]
    fn a_terminated_instance_is_replaced_in_its_zone_as_time_passes() {
        use InstanceState::{Pending, Running, ShuttingDown, Terminated};
        let (mut state, ids) = two_instances();
        state.terminate_in_group(&ids[1], false, after(0)).unwrap();
        assert_eq!(states(&mut state, after(9)), [Running, ShuttingDown]);
        assert_eq!(
            states(&mut state, after(10)),
            [Running, Terminated, Pending]
        );
        assert_eq!(
            states(&mut state, after(20)),
            [Running, Terminated, Running]
        );
        assert_eq!(state.instances(after(20))[2].zone, "b");
    }

    #[test]
    fn a_decrement_launches_nothing() {
        let (mut state, ids) = two_instances();
        state.terminate_in_group(&ids[0], true, after(0)).unwrap();
        assert_eq!(states(&mut state, after(60)).len(), 2);
        assert_eq!(state.groups["workers"].desired, 1);
    }

    #[test]
    fn a_decrement_below_the_minimum_is_refused() {
        let (mut state, ids) = two_instances();
        state.groups.get_mut("workers").unwrap().min = 2;
        let refusal = state
            .terminate_in_group(&ids[0], true, after(0))
            .unwrap_err();
        assert_eq!(refusal.code, "ValidationError");
        assert_eq!(states(&mut state, after(60)), [InstanceState::Running; 2]);
    }

    #[test]
    fn a_second_terminate_of_an_instance_launches_no_second_replacement() {
        let (mut state, ids) = two_instances();
        state.terminate_in_group(&ids[0], false, after(0)).unwrap();
        assert_eq!(
            state
                .terminate_in_group(&ids[0], false, after(1))
                .unwrap_err()
                .code,
            "ScalingActivityInProgress"
        );
        assert_eq!(
            state
                .terminate_in_group(&ids[0], false, after(30))
                .unwrap_err()
                .code,
            "ValidationError"
        );
        assert_eq!(states(&mut state, after(60)).len(), 3);
    }

    #[test]
    fn a_reboot_with_one_unknown_id_reboots_none() {
        let (mut state, ids) = two_instances();
        let refusal = state
            .reboot(&[ids[0].clone(), "i-0".to_owned()], after(0))
            .unwrap_err();
        assert_eq!(refusal.code, "InvalidInstanceID.NotFound");
        assert_eq!(state.instances(after(0))[0].reboots, 0);
    }

    #[test]
    fn a_suspended_launch_launches_when_it_is_resumed() {
        let (mut state, ids) = two_instances();
        let group = |state: &mut State, change: fn(&mut Group)| {
            change(state.groups.get_mut("workers").unwrap());
        };
        group(&mut state, |group| {
            group
                .suspended
                .insert("Launch".to_owned(), "User suspended".to_owned());
        });
        state.terminate_in_group(&ids[0], false, after(0)).unwrap();
        assert_eq!(states(&mut state, after(60)).len(), 2);
        group(&mut state, |group| group.suspended.clear());
        assert_eq!(states(&mut state, after(60)).len(), 3);
    }

    #[test]
    fn a_failing_launch_is_tried_again_and_recorded() {
        let (mut state, ids) = two_instances();
        state.groups.get_mut("workers").unwrap().launch_failure = Some("no capacity".to_owned());
        state.terminate_in_group(&ids[0], false, after(0)).unwrap();
        for second in [10, 20, 30] {
            state.advance(after(second));
        }
        let failed = state
            .activities
            .iter()
            .filter(|a| a.failure.is_some())
            .count();
        assert_eq!((states(&mut state, after(31)).len(), failed), (2, 3));
    }

    #[test]
    fn a_hook_holds_an_instance_until_it_is_completed() {
        let (mut state, ids) = two_instances();
        state.groups.get_mut("workers").unwrap().terminating_hook = Some(Duration::from_secs(1800));
        state.terminate_in_group(&ids[0], false, after(0)).unwrap();
        let lifecycle = |state: &State, second| {
            let instance = &state.instances[&ids[0]];
            instance
                .lifecycle(&state.delays, after(second))
                .map(str::to_owned)
        };
        assert_eq!(lifecycle(&state, 60).as_deref(), Some("Terminating:Wait"));
        state.complete_hook(&ids[0], after(60));
        assert_eq!(lifecycle(&state, 61).as_deref(), Some("Terminating"));
        assert_eq!(lifecycle(&state, 70), None);
    }

    #[test]
    fn a_maintenance_policy_launches_before_it_terminates() {
        let (mut state, ids) = two_instances();
        state.groups.get_mut("workers").unwrap().maintenance = Some((100, 110));
        state.set_health(&ids[0], false, after(0)).unwrap();
        state.advance(after(0));
        assert_eq!(states(&mut state, after(10)).len(), 3);
        assert!(!states(&mut state, after(19))[0].is_going());
        assert!(states(&mut state, after(20))[0].is_going());
        assert_eq!(states(&mut state, after(60)).len(), 3);
    }
}

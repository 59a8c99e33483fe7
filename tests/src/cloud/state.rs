//! PURE. Instances and Auto Scaling groups. What an instance is follows from when things happened
//! to it and from `now`, so the same state serves a real and a manual clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// How long AWS takes; seconds here, minutes there.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    pub pending: Duration,
    pub shutting_down: Duration,
    /// From the terminate to the launch of the replacement.
    pub replacement: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            pending: Duration::from_millis(700),
            shutting_down: Duration::from_millis(700),
            replacement: Duration::from_millis(500),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
}

impl InstanceState {
    pub fn is_going(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::ShuttingDown | Self::Terminated => true,
        }
    }

    /// Name and code, as in the EC2 API's `InstanceState`.
    pub(super) fn name_and_code(self) -> (&'static str, u8) {
        match self {
            Self::Pending => ("pending", 0),
            Self::Running => ("running", 16),
            Self::ShuttingDown => ("shutting-down", 32),
            Self::Terminated => ("terminated", 48),
        }
    }

    /// As in the Auto Scaling API's `LifecycleState`; a terminated instance has left its group.
    pub(super) fn lifecycle(self) -> Option<&'static str> {
        match self {
            Self::Pending => Some("Pending"),
            Self::Running => Some("InService"),
            Self::ShuttingDown => Some("Terminating"),
            Self::Terminated => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) group: String,
    pub(super) zone: String,
    pub(super) private_dns: String,
    pub(super) launched: Timestamp,
    terminated: Option<Timestamp>,
    pub(super) reboots: u32,
}

/// An instance as it is at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub group: String,
    pub zone: String,
    pub state: InstanceState,
    pub reboots: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) zones: Vec<String>,
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) desired: usize,
    pub(super) created: Timestamp,
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
    delays: Delays,
    pub(super) instances: BTreeMap<String, Instance>,
    pub(super) groups: BTreeMap<String, Group>,
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
        let mut distinct: Vec<_> = zones.iter().map(|&zone| zone.to_owned()).collect();
        distinct.sort();
        distinct.dedup();
        let group = Group {
            name: name.to_owned(),
            zones: distinct,
            min: 0,
            max: zones.len() + 1,
            desired: zones.len(),
            created: long_ago,
        };
        self.groups.insert(name.to_owned(), group);
        zones
            .iter()
            .map(|zone| self.launch(name, zone, long_ago))
            .collect()
    }

    /// Does what AWS does by itself as time passes: launches what is due.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let (due, later) = std::mem::take(&mut self.launches)
            .into_iter()
            .partition(|launch| launch.at <= now);
        self.launches = later;
        let due: Vec<Launch> = due;
        for Launch { at, group, zone } in due {
            let id = self.launch(&group, &zone, at);
            self.record(
                &group,
                format!("Launching a new EC2 instance: {id}"),
                "an instance was launched in response to a difference between desired and actual capacity".to_owned(),
                (at, at + self.delays.pending),
            );
        }
    }

    pub(super) fn state_of(&self, instance: &Instance, now: Timestamp) -> InstanceState {
        match instance.terminated {
            Some(at) if now >= at + self.delays.shutting_down => InstanceState::Terminated,
            Some(_) => InstanceState::ShuttingDown,
            None if now >= instance.launched + self.delays.pending => InstanceState::Running,
            None => InstanceState::Pending,
        }
    }

    pub(super) fn instances(&self, now: Timestamp) -> Vec<Seen> {
        let seen = |instance: &Instance| Seen {
            id: instance.id.clone(),
            group: instance.group.clone(),
            zone: instance.zone.clone(),
            state: self.state_of(instance, now),
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
        let absent = || {
            Refusal::client(
                "ValidationError",
                format!("Instance Id not found - No managed instance found for instance ID {id}"),
            )
        };
        let instance = self.instances.get(id).ok_or_else(absent)?;
        match self.state_of(instance, now) {
            InstanceState::Pending | InstanceState::Running => {}
            InstanceState::ShuttingDown => {
                let message = format!("Scaling activity is in progress for instance {id}");
                return Err(Refusal::client("ScalingActivityInProgress", message));
            }
            InstanceState::Terminated => return Err(absent()),
        }
        let (group_name, zone) = (instance.group.clone(), instance.zone.clone());
        let group = self.groups.get_mut(&group_name).ok_or_else(absent)?;
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
            self.launches.push(Launch {
                at: now + self.delays.replacement,
                group: group_name.clone(),
                zone,
            });
        }
        if let Some(instance) = self.instances.get_mut(id) {
            instance.terminated = Some(now);
        }
        Ok(self.record(
            &group_name,
            format!("Terminating EC2 instance: {id}"),
            format!(
                "At {now} instance {id} was taken out of service in response to a user request."
            ),
            (now, now + self.delays.shutting_down),
        ))
    }

    /// `RebootInstances`: all or none.
    pub(super) fn reboot(&mut self, ids: &[String], now: Timestamp) -> Result<(), Refusal> {
        for id in ids {
            let instance = self.instances.get(id).ok_or_else(|| no_such_instance(id))?;
            match self.state_of(instance, now) {
                InstanceState::Running | InstanceState::Pending => {}
                InstanceState::ShuttingDown | InstanceState::Terminated => {
                    let message = format!(
                        "The instance '{id}' is not in a state from which it can be rebooted"
                    );
                    return Err(Refusal::client("IncorrectState", message));
                }
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
        let private_dns = format!(
            "ip-10-0-{}-{}.us-west-2.compute.internal",
            number / 250,
            number % 250 + 4
        );
        let instance = Instance {
            id: id.clone(),
            group: group.to_owned(),
            zone: zone.to_owned(),
            private_dns,
            launched: at,
            terminated: None,
            reboots: 0,
        };
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
}

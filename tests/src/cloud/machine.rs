//! PURE. An instance: what it is follows from when things happened to it and from `now`.

use jiff::Timestamp;

use super::state::Delays;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Pending,
    Running,
    Stopped,
    ShuttingDown,
    Terminated,
}

impl InstanceState {
    pub fn is_going(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Stopped => false,
            Self::ShuttingDown | Self::Terminated => true,
        }
    }

    /// Name and code, as in the EC2 API's `InstanceState`.
    pub(super) fn name_and_code(self) -> (&'static str, u8) {
        match self {
            Self::Pending => ("pending", 0),
            Self::Running => ("running", 16),
            Self::Stopped => ("stopped", 80),
            Self::ShuttingDown => ("shutting-down", 32),
            Self::Terminated => ("terminated", 48),
        }
    }
}

/// Public fields are a test's to set, through `Cloud::instance`.
#[derive(Clone, Debug)]
pub struct Instance {
    pub(super) id: String,
    /// Empty: it is in no group.
    pub(super) group: String,
    pub(super) zone: String,
    pub(super) private_dns: String,
    pub(super) launched: Timestamp,
    /// When somebody asked for its end, and when that begins: a hook may lie between.
    pub(super) ending: Option<Timestamp>,
    pub(super) terminated: Option<Timestamp>,
    pub(super) reboots: u32,
    /// Until when the launching hook of its group holds it.
    pub(super) waits_until: Option<Timestamp>,
    /// Somebody has told the group that it is unhealthy.
    pub(super) unhealthy: bool,
    /// Somebody has stopped it.
    pub stopped: bool,
    /// Whether its machine becomes a Node.
    pub(super) joins: bool,
    pub tags: Vec<(String, String)>,
    /// `Standby`, `Warmed:Stopped`, `Detaching`: what follows from nothing else.
    pub lifecycle: Option<String>,
    pub protected_from_scale_in: bool,
    pub termination_protection: bool,
    /// The status code of its Spot request, where it is a Spot instance.
    pub spot: Option<String>,
    pub capacity_reservation: Option<String>,
    /// Its status checks fail, since then.
    pub impaired: Option<Timestamp>,
    /// Codes of scheduled events, and when each may begin.
    pub events: Vec<(String, Timestamp)>,
}

impl Instance {
    pub(super) fn new(
        id: String,
        group: &str,
        zone: &str,
        launched: Timestamp,
        number: u64,
    ) -> Self {
        Self {
            id,
            group: group.to_owned(),
            zone: zone.to_owned(),
            private_dns: format!(
                "ip-10-0-{}-{}.us-west-2.compute.internal",
                number / 250,
                number % 250 + 4
            ),
            launched,
            ending: None,
            terminated: None,
            reboots: 0,
            waits_until: None,
            unhealthy: false,
            stopped: false,
            joins: true,
            tags: Vec::new(),
            lifecycle: None,
            protected_from_scale_in: false,
            termination_protection: false,
            spot: None,
            capacity_reservation: None,
            impaired: None,
            events: Vec::new(),
        }
    }

    pub fn is_unhealthy(&self) -> bool {
        self.unhealthy
    }

    pub(super) fn state(&self, delays: &Delays, now: Timestamp) -> InstanceState {
        match self.terminated {
            Some(at) if now >= at + delays.shutting_down => InstanceState::Terminated,
            Some(at) if now >= at => InstanceState::ShuttingDown,
            Some(_) | None if self.stopped => InstanceState::Stopped,
            Some(_) | None if now >= self.launched + delays.pending => InstanceState::Running,
            Some(_) | None => InstanceState::Pending,
        }
    }

    /// As in the Auto Scaling API's `LifecycleState`; a terminated instance has left its group.
    pub(super) fn lifecycle(&self, delays: &Delays, now: Timestamp) -> Option<&str> {
        if self.group.is_empty() {
            return None;
        }
        match self.state(delays, now) {
            InstanceState::Terminated => None,
            InstanceState::ShuttingDown => Some("Terminating"),
            InstanceState::Pending | InstanceState::Running | InstanceState::Stopped
                if self.ending.is_some() =>
            {
                Some("Terminating:Wait")
            }
            InstanceState::Pending => Some("Pending"),
            InstanceState::Running if self.waits_until.is_some_and(|until| now < until) => {
                Some("Pending:Wait")
            }
            InstanceState::Running | InstanceState::Stopped => {
                Some(self.lifecycle.as_deref().unwrap_or("InService"))
            }
        }
    }

    /// `usw2-az1` of `us-west-2a`: in this account they happen to be in order.
    pub(super) fn zone_id(&self) -> String {
        let number = self
            .zone
            .bytes()
            .last()
            .map_or(0, |letter| letter.saturating_sub(b'a') + 1);
        format!("usw2-az{number}")
    }
}

/// An instance as it is at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub group: String,
    pub zone: String,
    pub state: InstanceState,
    pub joins: bool,
    pub reboots: u32,
}

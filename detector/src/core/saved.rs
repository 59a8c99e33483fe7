//! PURE. The core's memory, handed to the next agent and taken over from the one before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::blocked;
use super::condition::Before;
use super::findings::{Key, Open};
use super::settings::Settings;
use super::{Core, Output};
use crate::finding::{Finding, Now, Sighting, Subject, Transition};
use crate::reason::{ConditionType, Reason};
use crate::state::{
    SavedCondition, SavedFaults, SavedFinding, SavedOpenings, SavedSubject, SavedTransition, State,
};

const AGENT: &str = "agent";

impl Core {
    /// Writes what must not be forgotten into `state`.
    pub(crate) fn save(&self, state: &mut State) {
        state.findings = self.findings.iter().map(|(_, open)| save(open)).collect();
        let name = |reason: &Reason| reason.name().into_owned();
        let openings = self.findings.openings().iter();
        state.openings = openings
            .map(|((reason, entity), at)| SavedOpenings {
                reason: name(reason),
                entity: entity.clone(),
                at: at.iter().copied().collect(),
            })
            .collect();
        let faults = self.findings.below_threshold().iter();
        state.below_threshold = faults
            .map(|((reason, entity), at)| SavedFaults {
                reason: name(reason),
                entity: entity.clone(),
                at: at.iter().copied().collect(),
            })
            .collect();
        state.suspects = self.suspects.names().cloned().collect();
        state.gpus = self.gpus.states().clone();
        state.restarts = self.restarts.save();
        state.conditions = self
            .before
            .iter()
            .map(|(kind, before)| SavedCondition {
                kind: kind.name().to_owned(),
                healthy: before.healthy,
                transition: before.transition,
            })
            .collect();
    }

    /// Goes on where the agent before stopped. What it had told is not told again; what it knew by
    /// evidence is asked for again.
    pub(crate) fn restore(&mut self, state: &State, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        for saved in &state.findings {
            if let Some(reason) = self.findings.settings().reason(&saved.reason)
                && self.findings.settings().is_enabled(reason)
            {
                let severity = self.findings.settings().severity(reason, saved.seen);
                let open = open(saved, reason, severity);
                self.findings
                    .adopt((reason, open.finding.entity.clone()), open);
            }
        }
        let key = |reason: &str, entity: &str| -> Option<Key> {
            let reason = self.findings.settings().reason(reason)?;
            Some((reason, entity.to_owned()))
        };
        let openings: BTreeMap<Key, VecDeque<_>> = state
            .openings
            .iter()
            .filter_map(|saved| {
                let at = saved.at.iter().copied().collect();
                Some((key(&saved.reason, &saved.entity)?, at))
            })
            .collect();
        let faults = state
            .below_threshold
            .iter()
            .filter_map(|saved| {
                let at = saved.at.iter().copied().collect();
                Some((key(&saved.reason, &saved.entity)?, at))
            })
            .collect();
        self.findings.remember(openings, faults);
        self.gpus.remember(state.gpus.clone());
        self.restarts.restore(state.restarts.clone());
        let conditions = state.conditions.iter().filter_map(|saved| {
            let kind = ConditionType::ALL
                .into_iter()
                .find(|kind| kind.name() == saved.kind)?;
            let before = Before {
                healthy: saved.healthy,
                transition: saved.transition,
            };
            Some((kind, before))
        });
        self.before = conditions.collect();
        for device in &state.suspects {
            self.suspects
                .add(device.clone(), now.boot, &mut self.findings, now, &mut out);
        }
        let open = self.findings.iter();
        let tasks: Vec<_> = open
            .filter_map(|((reason, entity), _)| blocked::pid(*reason, entity))
            .collect();
        for pid in tasks {
            self.blocked.add(pid, &self.findings, now, &mut out);
        }
        // Unless its counter, which begins anew, says again that it is so.
        let told = self.findings.iter().map(|(key, _)| key);
        let told: Vec<_> = told
            .filter_map(|key| Some((key.clone(), said_again_within(key.0)?)))
            .collect();
        for (key, within) in told {
            self.findings.well_from(&key, now.boot + within);
        }
        let gap = now.boot.saturating_sub(state.saved.boot);
        let reason = Reason::MonitoringGap;
        let gap = Sighting {
            reason,
            entity: AGENT.to_owned(),
            severity: reason.row().severity,
            message: format!("no agent watched for {:.1} s", gap.as_secs_f64()),
            subject: Subject::default(),
            count: 1,
            at: now.boot,
        };
        self.findings.see(gap, now, &mut out);
        out
    }
}

/// Of states that a counter tells with each reading: how long one that begins anew needs to see them.
fn said_again_within(reason: Reason) -> Option<Duration> {
    match reason {
        Reason::BlockIoStuck => Some(Duration::ZERO),
        Reason::CheckHung
        | Reason::MissingLoopbackInterface
        | Reason::InterfaceNotUp
        | Reason::InterfaceNotRunning
        | Reason::IpamdNotRunning
        | Reason::NetworkSysctl
        | Reason::MissingIpRules
        | Reason::MissingIpRoutes
        | Reason::MissingDefaultRoutes
        | Reason::PortConflict
        | Reason::UnexpectedRejectRule
        | Reason::MacAddressPolicyMisconfigured
        | Reason::NpaNotRunning
        | Reason::KubeletUnresponsive
        | Reason::KubeletCertificateExpired
        | Reason::DiskNearlyFull
        | Reason::DeprecatedContainerdConfiguration
        | Reason::IpamdInconsistentState
        | Reason::XfsSmallAverageClusterSize => Some(Duration::from_secs(20 * 60)),
        _ => None,
    }
}

impl Core {
    /// The agent before this one left something that cannot be read.
    pub(crate) fn state_damaged(&mut self, why: &str, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let reason = Reason::StateDamaged;
        let sighting = Sighting {
            reason,
            entity: AGENT.to_owned(),
            severity: reason.row().severity,
            message: format!("the state of the agent before this one: {why}"),
            subject: Subject::default(),
            count: 1,
            at: now.boot,
        };
        self.findings.see(sighting, now, &mut out);
        out
    }
}

/// What the agent before this one could not tell any more.
pub(crate) fn untold(state: &State, settings: &Settings) -> Vec<Transition> {
    let transition = |saved: &SavedTransition| {
        let reason = settings.reason(&saved.finding.reason)?;
        let severity = settings.severity(reason, saved.finding.seen);
        Some(Transition {
            change: saved.change,
            finding: open(&saved.finding, reason, severity).finding,
            fault: saved.fault,
            found: saved.found.into(),
        })
    };
    state.untold.iter().filter_map(transition).collect()
}

impl From<&Transition> for SavedTransition {
    fn from(transition: &Transition) -> Self {
        let finding = transition.finding.clone();
        Self {
            change: transition.change,
            fault: transition.fault,
            found: transition.found.into(),
            finding: save(&Open {
                seen: finding.severity,
                announced: finding.last_seen,
                announced_count: finding.count,
                well_since: None,
                finding,
            }),
        }
    }
}

fn save(open: &Open) -> SavedFinding {
    let finding = &open.finding;
    SavedFinding {
        reason: finding.reason.name().into_owned(),
        entity: finding.entity.clone(),
        seen: open.seen,
        message: finding.message.clone(),
        subject: SavedSubject {
            workload: finding.subject.workload.clone(),
            subject: finding.subject.clone(),
        },
        count: finding.count,
        flaps: finding.flaps,
        opened: finding.opened.into(),
        last_seen: finding.last_seen,
        announced: open.announced,
        announced_count: open.announced_count,
        historic: finding.historic,
    }
}

fn open(saved: &SavedFinding, reason: Reason, severity: crate::reason::Severity) -> Open {
    let mut subject = saved.subject.subject.clone();
    subject.workload.clone_from(&saved.subject.workload);
    Open {
        finding: Finding {
            reason,
            entity: saved.entity.clone(),
            severity,
            message: saved.message.clone(),
            subject,
            count: saved.count,
            flaps: saved.flaps,
            historic: saved.historic,
            opened: saved.opened.into(),
            last_seen: saved.last_seen,
        },
        seen: saved.seen,
        announced: saved.announced,
        announced_count: saved.announced_count,
        // Evidence is read anew: nobody watched for a while.
        well_since: None,
    }
}

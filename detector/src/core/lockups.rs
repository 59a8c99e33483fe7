//! PURE. CPUs that the kernel log calls locked up: only what was seen of them at that time makes it
//! more than a line.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Output;
use super::findings::Findings;
use super::stolen::Stolen;
use crate::finding::{Now, Sighting, Subject};
use crate::probe::CpuState;
use crate::reason::{Reason, Severity};

/// Lockups of one CPU within the time that mean that the node cannot go on.
const MANY: usize = 3;
const WITHIN: Duration = Duration::from_secs(600);
/// CPUs that are looked at and remembered.
const MOST_CPUS: usize = 64;

#[derive(Default)]
pub(super) struct Lockups(BTreeMap<u32, Cpu>);

#[derive(Default)]
struct Cpu {
    asked: bool,
    reported: Duration,
    /// When it was seen in the kernel while the log said so.
    seen: VecDeque<Duration>,
}

impl Lockups {
    /// The log says that the CPU is locked up now.
    pub(super) fn reported(&mut self, cpu: u32, now: Now, out: &mut Vec<Output>) {
        self.0
            .retain(|_, cpu| cpu.asked || cpu.reported + WITHIN > now.boot);
        if !self.0.contains_key(&cpu) && self.0.len() >= MOST_CPUS {
            return;
        }
        let known = self.0.entry(cpu).or_default();
        known.reported = now.boot;
        if !known.asked {
            known.asked = true;
            out.push(Output::LookAtCpu { cpu });
        }
    }

    pub(super) fn looked(
        &mut self,
        number: u32,
        state: CpuState,
        stolen: &Stolen,
        findings: &mut Findings,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let Some(cpu) = self.0.get_mut(&number) else {
            return;
        };
        cpu.asked = false;
        let entity = entity(number);
        let explained = stolen.explains(Reason::SoftLockup, &entity, now.boot);
        if state != CpuState::InKernel || explained {
            return;
        }
        cpu.seen.retain(|then| *then + WITHIN > now.boot);
        cpu.seen.push_back(now.boot);
        if cpu.seen.len() < MANY {
            return;
        }
        cpu.seen.pop_front();
        let message = format!(
            "CPU {number} was stuck in the kernel {MANY} times within 10 minutes: each time it ran nothing else while a real-time thread waited for it"
        );
        let sighting = Sighting {
            reason: Reason::SoftLockup,
            entity,
            severity: Severity::Fatal,
            message,
            subject: Subject::default(),
            count: 1,
            at: now.boot,
        };
        findings.is_so(sighting, now, out);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The CPU that a line calls locked up. Not of a hard lockup: the kernel counts no time on it, so it
/// looks like one that the hypervisor does not run.
pub(super) fn cpu(sighting: &Sighting) -> Option<u32> {
    if sighting.reason != Reason::SoftLockup {
        return None;
    }
    sighting.entity.strip_prefix("cpu ")?.parse().ok()
}

/// The next line alone makes it no milder.
pub(super) fn as_known(mut sighting: Sighting, findings: &Findings) -> Sighting {
    let open = findings.get(&(sighting.reason, sighting.entity.clone()));
    if sighting.reason == Reason::SoftLockup
        && let Some(open) = open
        && open.seen == Severity::Fatal
    {
        sighting.severity = open.seen;
        sighting.message.clone_from(&open.finding.message);
    }
    sighting
}

fn entity(cpu: u32) -> String {
    format!("cpu {cpu}")
}

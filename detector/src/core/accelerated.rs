//! PURE. GPUs: what the kernel log and NVML say becomes one finding, and what ends it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::assess::of_device;
use super::findings::{MOST_PER_REASON, Open};
use super::{Core, Existing, Output};
use crate::finding::{Finding, Now, Sighting, Subject};
use crate::reason::{ConditionType, Reason, Severity};
use crate::signal::{GpuState, Nvml, Recovery, SourceName, gpu_name};

/// In which the kernel log and NVML report one fault: NVML is read only when a look is over.
const ONE_FAULT: Duration = Duration::from_secs(10);

const NVML: &str = "NVML";

#[derive(Default)]
pub(super) struct Gpus {
    states: BTreeMap<String, GpuState>,
    /// XIDs that only one source has reported so far: who, and when it happened.
    alone: BTreeMap<(String, u32), (SourceName, Duration)>,
}

impl Gpus {
    pub(super) fn states(&self) -> &BTreeMap<String, GpuState> {
        &self.states
    }

    /// As the agent before this one saw them last.
    pub(super) fn remember(&mut self, states: BTreeMap<String, GpuState>) {
        self.states = states;
    }
}

/// What is published: a GPU that is known to be broken also when its driver has gone.
pub(super) fn published<'a>(
    monitored: &[ConditionType],
    mut findings: impl Iterator<Item = &'a Finding>,
) -> Vec<ConditionType> {
    let kind = ConditionType::AcceleratedHardwareReady;
    let mut published = monitored.to_vec();
    let fatal = |finding: &Finding| {
        finding.severity == Severity::Fatal && finding.reason.row().condition == kind
    };
    if !published.contains(&kind) && findings.any(fatal) {
        published.push(kind);
    }
    published
}

impl Core {
    pub(super) fn xid(
        &mut self,
        mut sighting: Sighting,
        fault: (String, u32),
        seen_by: SourceName,
        historic: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let key = (sighting.reason, sighting.entity.clone());
        if historic {
            // Over, or told by the agent before this one, or a question for NVML.
            if sighting.severity == Severity::Fatal && self.findings.get(&key).is_none() {
                sighting.severity = self.severity_now(&fault.0);
                self.findings.see(sighting, now, out);
            }
            return;
        }
        let at = sighting.at;
        let near = |other: Duration| at.abs_diff(other) <= ONE_FAULT;
        let twin = self
            .gpus
            .alone
            .remove(&fault)
            .is_some_and(|(by, when)| by != seen_by && near(when));
        if twin && self.findings.get(&key).is_some() {
            // The kernel log says more.
            let message = (seen_by == SourceName::Kmsg).then_some(sighting.message);
            self.findings.enrich(&key, message, now);
            return;
        }
        self.gpus.alone.retain(|_, (_, when)| near(*when));
        self.gpus.alone.insert(fault, (seen_by, at));
        self.findings.see(sighting, now, out);
    }

    /// What an error from before the start means now.
    fn severity_now(&self, gpu: &str) -> Severity {
        match self.gpus.states.get(gpu).map(health) {
            Some(Health::Unwell) => Severity::Fatal,
            Some(Health::Well | Health::Unknown) | None => Severity::Warning,
        }
    }

    pub(super) fn gpu(&mut self, gpu: String, state: GpuState, now: Now, out: &mut Vec<Output>) {
        let before = self.gpus.states.insert(gpu.clone(), state.clone());
        self.lost(&gpu, &state, now, out);
        self.ecc(&gpu, before.as_ref(), &state, now, out);
        let xids: Vec<_> = self
            .findings
            .iter()
            .filter(|((reason, entity), _)| {
                matches!(reason, Reason::NvidiaXidError(_)) && *entity == gpu
            })
            .map(|(key, open)| (key.clone(), open.seen))
            .collect();
        match health(&state) {
            Health::Unknown => {}
            Health::Unwell => {
                for (key, _) in &xids {
                    self.findings.unwell(key, now, out);
                    self.findings.set_seen(key, Severity::Fatal);
                }
            }
            Health::Well => {
                let recovered = before.as_ref().map(health) == Some(Health::Unwell);
                for (key, seen) in xids {
                    // One from before the start, of which nothing is left.
                    let over = seen == Severity::Warning;
                    if recovered || over {
                        self.findings.well(&key, now, out);
                    }
                }
            }
        }
    }

    fn lost(&mut self, gpu: &str, state: &GpuState, now: Now, out: &mut Vec<Output>) {
        let key = (Reason::NvidiaDeviceCountMismatch, gpu.to_owned());
        let Some(why) = &state.lost else {
            return self.findings.well(&key, now, out);
        };
        self.see_once(&key, format!("GPU {gpu} is lost: {why}"), now, out);
    }

    fn ecc(
        &mut self,
        gpu: &str,
        before: Option<&GpuState>,
        state: &GpuState,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let key = (Reason::NvidiaDoubleBitError, gpu.to_owned());
        let message = |count| format!("GPU {gpu} has {count} uncorrected ECC errors");
        // A GPU that is lost has no counter: its findings stay.
        match (
            before.and_then(|before| before.uncorrected),
            state.uncorrected,
        ) {
            (_, None) => {}
            (_, Some(0)) => self.findings.well(&key, now, out),
            (Some(old), Some(new)) if new > old => {
                let severity = key.0.row().severity;
                let new = sighting(&key, severity, message(new), new - old, now);
                self.findings.see(new, now, out);
            }
            (Some(_), Some(_)) => {}
            (None, Some(new)) => {
                if self.findings.get(&key).is_none() {
                    let warning = sighting(&key, Severity::Warning, message(new), new, now);
                    self.findings.see(warning, now, out);
                }
            }
        }
    }

    pub(super) fn nvml(&mut self, nvml: Nvml, now: Now, out: &mut Vec<Output>) {
        let kind = ConditionType::AcceleratedHardwareReady;
        let error = (Reason::NvmlError, NVML.to_owned());
        let hung = (Reason::NvmlHung, NVML.to_owned());
        match nvml {
            Nvml::Watching { gpus: _ } => {
                if !self.monitored.contains(&kind) {
                    self.monitored.push(kind);
                }
                self.findings.well(&error, now, out);
            }
            Nvml::Unavailable { why, driver } => {
                let had = self.monitored.contains(&kind);
                if !driver {
                    // Nobody sees a fault of a GPU without its driver.
                    self.monitored.retain(|monitored| *monitored != kind);
                }
                if driver || had {
                    self.see_once(&error, format!("NVML cannot be used: {why}"), now, out);
                }
            }
            Nvml::Hung { call, limit } => {
                let seconds = limit.as_secs();
                let message = format!("NVML has not returned from {call} within {seconds} s");
                self.see_once(&hung, message, now, out);
            }
            Nvml::Answered => self.findings.well(&hung, now, out),
        }
    }

    /// Opens the finding, or renews its text: being told of a state again is no repeat of it.
    fn see_once(
        &mut self,
        key: &(Reason, String),
        message: String,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let severity = key.0.row().severity;
        let sighting = sighting(key, severity, message, 1, now);
        self.findings.is_so(sighting, now, out);
    }

    /// What the agent before this one said about GPUs, if that was in this boot. Its Events have
    /// gone out, so these findings open silently.
    pub(super) fn remember_gpus(&mut self, condition: &Existing, now: Now) {
        let ours = condition.kind == ConditionType::AcceleratedHardwareReady && !condition.healthy;
        let age = now.wall.duration_since(condition.transition).unsigned_abs();
        if !ours || age > now.boot {
            return;
        }
        let opened = Now {
            boot: now.boot.saturating_sub(age),
            wall: condition.transition,
        };
        let remembered = condition.message.split("; ").filter_map(remembered);
        for (reason, gpu, message) in remembered.take(MOST_PER_REASON) {
            if self.is_over(reason, &gpu) {
                continue;
            }
            let key = (reason, gpu.clone());
            if self.findings.get(&key).is_some() {
                self.findings.set_seen(&key, Severity::Fatal);
                self.findings.set_opened(&key, opened);
                continue;
            }
            let severity = self.findings.settings().severity(reason, Severity::Fatal);
            let finding = Finding {
                reason,
                subject: of_device(&gpu),
                entity: gpu,
                severity,
                message,
                count: 1,
                flaps: 0,
                historic: false,
                opened,
                last_seen: now.boot,
            };
            let open = Open {
                finding,
                seen: Severity::Fatal,
                announced: now.boot,
                announced_count: 1,
                well_since: None,
            };
            self.findings.adopt(key, open);
        }
    }

    /// NVML has said so already: it can be faster than the API server.
    fn is_over(&self, reason: Reason, gpu: &str) -> bool {
        let Some(state) = self.gpus.states.get(gpu) else {
            return false;
        };
        (reason == Reason::NvidiaDeviceCountMismatch && state.lost.is_none())
            || (reason == Reason::NvidiaDoubleBitError && state.uncorrected == Some(0))
    }
}

fn sighting(
    (reason, entity): &(Reason, String),
    severity: Severity,
    message: String,
    count: u64,
    now: Now,
) -> Sighting {
    Sighting {
        reason: *reason,
        entity: entity.clone(),
        severity,
        message,
        subject: if entity == NVML {
            Subject::default()
        } else {
            of_device(entity)
        },
        count,
        at: now.boot,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Unwell,
    Unknown,
}

fn health(state: &GpuState) -> Health {
    match (&state.lost, state.recovery) {
        (Some(_), _) | (None, Recovery::Needed) => Health::Unwell,
        (None, Recovery::NotNeeded) => Health::Well,
        (None, Recovery::Unknown) => Health::Unknown,
    }
}

/// One part of a condition's message as `condition::message` and this file write it.
fn remembered(part: &str) -> Option<(Reason, String, String)> {
    let (name, rest) = part.split_once(": ")?;
    let (message, _) = rest.rsplit_once(" (since ")?;
    let gpu = gpu_name(message.strip_prefix("GPU ")?.split_once(' ')?.0)?;
    let xid = || {
        let number = name.strip_prefix("NvidiaXID")?.strip_suffix("Error")?;
        number.parse().ok().map(Reason::NvidiaXidError)
    };
    let reason = [
        Reason::NvidiaDeviceCountMismatch,
        Reason::NvidiaDoubleBitError,
    ]
    .into_iter()
    .find(|reason| reason.name() == name)
    .or_else(xid)?;
    (reason.row().severity == Severity::Fatal).then(|| (reason, gpu, message.to_owned()))
}

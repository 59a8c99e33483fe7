//! PURE. GPUs: what the kernel log and NVML say becomes one finding, and what ends it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::assess::{FALLEN_OFF, of_device};
use super::findings::{Key, MOST_PER_REASON, Open};
use super::gpu_state::{self, Says};
use super::programs::Programs;
use super::{Core, Existing, Output};
use crate::finding::{Finding, Now, Sighting, Subject};
use crate::judgement::{self, Action, Class};
use crate::reason::{ConditionType, Reason, Severity};
use crate::signal::{GpuState, HOST, Nvml, Recovery, SourceName, Task, gpu_name};
use crate::text;

/// In which the kernel log and NVML report one fault: NVML is read only when a look is over.
const ONE_FAULT: Duration = Duration::from_secs(10);

/// In which an error's consequences are told.
const FOLLOW_ON: Duration = Duration::from_secs(60);
/// Errors of each GPU that may have consequences.
const MOST_CAUSES: usize = 16;

const NVML: &str = "NVML";
/// Many may hold one GPU, and a message has an end.
const LONGEST_IDENTITY: usize = 600;

/// A GPU's error as one source saw it.
pub(super) struct XidSeen {
    pub(super) gpu: String,
    pub(super) partition: Option<u32>,
    pub(super) xid: u32,
    /// What the driver says must be done with it; with XID 154 only.
    pub(super) recovery: Option<Action>,
    /// The process whose work had the error.
    pub(super) process: Option<Task>,
    pub(super) seen_by: SourceName,
}

#[derive(Default)]
pub(super) struct Gpus {
    states: BTreeMap<String, GpuState>,
    programs: Programs,
    /// XIDs of each GPU within the last minute.
    causes: BTreeMap<String, VecDeque<(u32, Duration)>>,
    /// XIDs that only one source has reported so far: who, and when it happened.
    alone: BTreeMap<(String, u32), (SourceName, Duration)>,
}

impl Gpus {
    pub(super) fn states(&self) -> &BTreeMap<String, GpuState> {
        &self.states
    }

    /// Which GPU it is besides its address, and whose: for the end of a message. Of a GPU instance
    /// of MIG, where only that is concerned.
    fn identity(&self, gpu: &str, partition: Option<u32>) -> String {
        let Some(state) = self.states.get(gpu) else {
            return String::new();
        };
        let details = &state.details;
        let own = partition.and_then(|own| {
            let mut all = details.partitions.iter();
            all.find(|partition| partition.instance == own)
        });
        let mut parts = Vec::new();
        parts.extend(details.index.map(|index| format!("index {index}")));
        parts.extend(state.uuid.clone());
        parts.extend(
            details
                .serial
                .iter()
                .map(|serial| format!("serial {serial}")),
        );
        if let Some(instance) = partition {
            parts.push(format!("MIG instance {instance}"));
            parts.extend(own.map(|own| own.uuid.clone()));
        }
        let holders = own.map_or(&state.holders, |own| &own.holders);
        if !holders.is_empty() {
            parts.push(format!("held by {}", holders.join(" and ")));
        } else if !details.processes.is_empty() {
            parts.push(format!("used by {}", details.processes.join(" and ")));
        }
        let parts: String = parts.iter().map(|part| format!(", {part}")).collect();
        text::bounded(&parts, LONGEST_IDENTITY)
    }

    /// The XIDs that this one may be a consequence of, the last one first.
    fn causes(&mut self, gpu: &str, xid: u32, at: Duration) -> Vec<u32> {
        let causes = self.causes.entry(gpu.to_owned()).or_default();
        causes.retain(|(_, when)| at.abs_diff(*when) <= FOLLOW_ON);
        let found = judgement::causes(xid).map_or_else(Vec::new, |follows| {
            let earlier = causes.iter().rev().map(|(earlier, _)| *earlier);
            earlier
                .filter(|earlier| *earlier != xid && follows.include(*earlier))
                .collect()
        });
        if causes.iter().all(|(known, _)| *known != xid) {
            if causes.len() == MOST_CAUSES {
                causes.pop_front();
            }
            causes.push_back((xid, at));
        }
        found
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
        seen: XidSeen,
        historic: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let key = (sighting.reason, sighting.entity.clone());
        sighting.message += &self.gpus.identity(&seen.gpu, seen.partition);
        if historic {
            // Over, or told by the agent before this one, or a question for NVML.
            if sighting.severity == Severity::Fatal && self.findings.get(&key).is_none() {
                sighting.severity = self.severity_now(&seen.gpu);
                self.findings.see(sighting, now, out);
            }
            return;
        }
        let at = sighting.at;
        let near = |other: Duration| at.abs_diff(other) <= ONE_FAULT;
        let XidSeen {
            gpu, xid, seen_by, ..
        } = seen;
        let fault = (gpu.clone(), xid);
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
        if let Some(action) = seen.recovery {
            self.recovery_said(&gpu, action, now, out);
            if action == Action::None {
                return;
            }
        }
        let causes = self.gpus.causes(&gpu, xid, at);
        if let Some(cause) = self.folds_into(&causes, &sighting) {
            return self.findings.note(&cause, &format!("then XID {xid}"), now);
        }
        self.findings.see(sighting, now, out);
        let by_programs = judgement::causes(xid).is_none()
            && judgement::xid(xid).is_some_and(|row| row.class == Class::Application);
        if let Some(process) = seen.process.filter(|_| by_programs) {
            self.suspect(&gpu, process, at, now, out);
        }
    }

    /// The open finding that a consequence is told with: none that is milder than it.
    fn folds_into(&self, causes: &[u32], sighting: &Sighting) -> Option<Key> {
        let settings = self.findings.settings();
        let own = settings.severity(sighting.reason, sighting.severity);
        let keys = causes.iter().flat_map(|cause| {
            let both = [
                Reason::NvidiaXidError(*cause),
                Reason::NvidiaXidWarning(*cause),
            ];
            both.map(|reason| (reason, sighting.entity.clone()))
        });
        keys.into_iter().find(|key| {
            let open = self.findings.get(key);
            open.is_some_and(|open| open.finding.severity >= own)
        })
    }

    /// Different programs fail on this GPU and on no other.
    fn suspect(&mut self, gpu: &str, process: Task, at: Duration, now: Now, out: &mut Vec<Output>) {
        let Some(names) = self.gpus.programs.see(gpu, process, at) else {
            return;
        };
        let key = (Reason::NvidiaGpuSuspected, gpu.to_owned());
        let names = names.join(", ").replace(';', ",");
        let message = format!("GPU {gpu} fails under different programs: {names}");
        let severity = key.0.row().severity;
        let sighting = sighting(&key, severity, message, 1, now);
        self.findings.see(sighting, now, out);
    }

    /// The driver gave the GPU up; mostly the line behind an XID 79.
    pub(super) fn fallen_off(
        &mut self,
        mut sighting: Sighting,
        historic: bool,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let gpu = sighting.entity.clone();
        let key = (sighting.reason, gpu.clone());
        if self.findings.get(&key).is_some() {
            return self.findings.enrich(&key, None, now);
        }
        if historic {
            sighting.severity = sighting.severity.min(self.severity_now(&gpu));
        }
        self.gpus.causes(&gpu, FALLEN_OFF, sighting.at);
        self.findings.see(sighting, now, out);
    }

    /// What the driver says itself, in the kernel log.
    fn recovery_said(&mut self, gpu: &str, action: Action, now: Now, out: &mut Vec<Output>) {
        let needed = action != Action::None;
        if let Some(state) = self.gpus.states.get_mut(gpu) {
            state.recovery = if needed {
                Recovery::Needed
            } else {
                Recovery::NotNeeded
            };
            state.action = needed.then_some(action);
        }
        let xids = self.open_xids(gpu);
        if needed {
            for (key, _) in &xids {
                self.findings.unwell(key, now, out);
            }
            self.recovery_needed(gpu, Some(action), now, out);
        } else {
            let key = (Reason::NvidiaGpuRecoveryNeeded, gpu.to_owned());
            self.findings.well(&key, now, out);
            for (key, _) in xids {
                self.findings.well(&key, now, out);
            }
        }
    }

    /// Unless an XID of the GPU says it, with more words.
    fn recovery_needed(
        &mut self,
        gpu: &str,
        action: Option<Action>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let key = (Reason::NvidiaGpuRecoveryNeeded, gpu.to_owned());
        let xids = self.open_xids(gpu);
        let said = xids.iter().any(|(_, seen)| *seen == Severity::Fatal);
        if said && self.findings.get(&key).is_none() {
            return;
        }
        let action = action.unwrap_or(Action::ResetGpu);
        let severity = if action == Action::RestartApplication {
            Severity::Warning
        } else {
            Severity::Fatal
        };
        let advice = action.advice();
        let identity = self.gpus.identity(gpu, None);
        let message =
            format!("GPU {gpu} needs recovery, says its driver (advice: {advice}){identity}");
        let sighting = sighting(&key, severity, message, 1, now);
        self.findings.is_so(sighting, now, out);
    }

    fn open_xids(&self, gpu: &str) -> Vec<(Key, Severity)> {
        self.findings
            .iter()
            .filter(|((reason, entity), _)| {
                matches!(reason, Reason::NvidiaXidError(_)) && *entity == gpu
            })
            .map(|(key, open)| (key.clone(), open.seen))
            .collect()
    }

    /// What an error from before the start means now.
    fn severity_now(&self, gpu: &str) -> Severity {
        match self.gpus.states.get(gpu).map(health) {
            Some(Health::Unwell) => Severity::Fatal,
            Some(Health::Well | Health::Unknown) | None => Severity::Warning,
        }
    }

    pub(super) fn gpu(
        &mut self,
        gpu: String,
        mut state: GpuState,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let before = self.gpus.states.get(&gpu).cloned();
        gpu_state::remember(before.as_ref(), &mut state);
        self.gpus.states.insert(gpu.clone(), state.clone());
        self.lost(&gpu, &state, now, out);
        self.ecc(&gpu, before.as_ref(), &state, now, out);
        for told in gpu_state::told(&gpu, before.as_ref(), &state) {
            let key = (told.reason, gpu.clone());
            match told.says {
                Says::So(message) => self.see_once(&key, message, now, out),
                Says::Over => self.findings.well(&key, now, out),
                Says::Times(count, message) => {
                    let severity = key.0.row().severity;
                    let message = advised(key.0, message);
                    let sighting = sighting(&key, severity, message, count, now);
                    self.findings.see(sighting, now, out);
                }
            }
        }
        let xids = self.open_xids(&gpu);
        match health(&state) {
            Health::Unknown => {}
            Health::Unwell => {
                for (key, _) in &xids {
                    self.findings.unwell(key, now, out);
                    self.findings.set_seen(key, Severity::Fatal);
                }
                if state.recovery == Recovery::Needed {
                    self.recovery_needed(&gpu, state.action, now, out);
                }
            }
            Health::Well => {
                let key = (Reason::NvidiaGpuRecoveryNeeded, gpu);
                self.findings.well(&key, now, out);
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
        let message = |count| {
            advised(
                key.0,
                format!("GPU {gpu} has {count} uncorrected ECC errors"),
            )
        };
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
            Nvml::Watching { .. } => {
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
            Nvml::Present {
                gpus,
                expected,
                instance_type,
            } => {
                let key = (Reason::NvidiaDeviceCountMismatch, HOST.to_owned());
                if gpus >= expected {
                    return self.findings.well(&key, now, out);
                }
                let message =
                    format!("the host has {gpus} GPUs, of {expected} that a {instance_type} has");
                self.see_once(&key, message, now, out);
            }
            Nvml::Hung { call, gpu, limit } => {
                let seconds = limit.as_secs();
                let about = gpu.map_or_else(String::new, |gpu| format!(" about GPU {gpu}"));
                let message =
                    format!("NVML has not returned from {call}{about} within {seconds} s");
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
        let message = advised(key.0, message) + &self.gpus.identity(&key.1, None);
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
        match reason {
            Reason::NvidiaDeviceCountMismatch => state.lost.is_none(),
            Reason::NvidiaDoubleBitError => state.uncorrected == Some(0),
            Reason::NvidiaGpuRecoveryNeeded => state.recovery == Recovery::NotNeeded,
            other => gpu_state::is_over(other, state),
        }
    }
}

/// With what helps.
fn advised(reason: Reason, message: String) -> String {
    match reason.action() {
        Some(action) => format!("{message} (advice: {})", action.advice()),
        None => message,
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
        subject: if entity == NVML || entity == HOST {
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
    let device = message
        .strip_prefix("GPU ")
        .or_else(|| message.strip_prefix("NVSwitch "))
        .or_else(|| message.strip_prefix("Neuron device "))?;
    let device = device.split_once(' ')?.0;
    let device = gpu_name(device).or_else(|| neuron_name(device))?;
    let reason = Reason::from_name(name)?;
    let row = reason.row();
    let ours = row.condition == ConditionType::AcceleratedHardwareReady;
    (ours && row.severity == Severity::Fatal).then(|| (reason, device, message.to_owned()))
}

fn neuron_name(text: &str) -> Option<String> {
    let number = text.strip_prefix("neuron")?;
    let fits = number.len() <= 4 && number.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.to_owned())
}

//! PURE. The core: signals, evidence and time in; transitions, conditions and questions out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::finding::{Change, Finding, Now, Transition};
use crate::probe::CpuState;
use crate::reason::{ConditionType, Reason};
use crate::signal::Signal;
use crate::state::State;

mod accelerated;
mod alias;
mod assess;
mod blocked;
mod condition;
mod configuration;
mod corroborate;
mod findings;
mod gpu_state;
mod kubelet;
mod lockups;
mod nvswitch;
mod programs;
mod repeated;
mod restarts;
mod saved;
mod settings;
mod stolen;
mod suspects;
mod twice;
mod victims;
mod waits;

use self::accelerated::Gpus;
use self::assess::Assessed;
use self::blocked::BlockedTasks;
pub(crate) use self::blocked::{Sleep, TaskState};
use self::condition::Before;
pub(crate) use self::condition::{Condition, Existing};
use self::findings::Findings;
pub(crate) use self::kubelet::NodeSays;
use self::lockups::Lockups;
use self::restarts::Restarts;
pub(crate) use self::saved::untold;
pub(crate) use self::settings::{Override, Settings, Threshold};
use self::stolen::Stolen;
use self::suspects::Suspects;
use self::twice::ToldTwice;
use self::victims::Victims;
pub(crate) use self::waits::UNNAMED;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Signal(Signal),
    /// Our own conditions as they stand on the Node: nothing is published before they are known.
    Existing(Vec<Existing>),
    /// What kubelet and the node controller say of this Node, whenever it has been read.
    Node(NodeSays),
    /// Every source has handed over what was there before the agent started.
    HistoryRead,
    /// The answer to [`Output::Probe`].
    Evidence {
        device: String,
        evidence: Evidence,
    },
    /// The answer to [`Output::LookAtTask`].
    Task {
        pid: u32,
        state: TaskState,
    },
    /// The answer to [`Output::LookAtCpu`].
    Cpu {
        cpu: u32,
        state: CpuState,
    },
    /// The configuration, at start and whenever it changes.
    Settings(Settings),
    /// The time that [`Core::wake_at`] asked for has come.
    Wake,
}

/// What is so now about a device that was said to be read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A mount of it is read-only; `critical` is the critical path that lies on it.
    ReadOnly {
        mount_point: String,
        critical: Option<String>,
    },
    Writable,
    /// No mount of it is left.
    NotMounted,
    /// No answer within the deadline: nothing is known, so nothing changes.
    Late,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "few at a time; boxing each would cost more than moving it"
)]
pub(crate) enum Output {
    Transition(Transition),
    /// All wanted conditions; sent when anything but the clock changed in them.
    Conditions {
        conditions: Vec<Condition>,
        fault: Option<Duration>,
        found: Now,
    },
    /// Find out whether this device's file system is read-only now.
    Probe {
        device: String,
    },
    /// Find out whether this task is in uninterruptible sleep now.
    LookAtTask {
        pid: u32,
    },
    /// Find out whether this CPU runs anything but the kernel.
    LookAtCpu {
        cpu: u32,
    },
    /// All open findings as they are now, repeats counted.
    Open(Vec<Finding>),
    /// What the next agent must know, once everything before it has been told.
    State(Box<State>),
}

pub(crate) struct Core {
    monitored: Vec<ConditionType>,
    findings: Findings,
    suspects: Suspects,
    blocked: BlockedTasks,
    victims: Victims,
    gpus: Gpus,
    twice: ToldTwice,
    stolen: Stolen,
    restarts: Restarts,
    lockups: Lockups,
    node_says: NodeSays,
    /// Status and transition time of what was wanted last, or of what stood on the Node.
    before: BTreeMap<ConditionType, Before>,
    /// The Node has been read.
    node_read: bool,
    /// What the Node said of an earlier boot, until it is known what is so now.
    earlier_boot: BTreeMap<ConditionType, Existing>,
    published: Option<Vec<Condition>>,
    history_read: bool,
}

impl Core {
    /// `monitored`: the conditions whose sources work. The others are never published.
    pub(crate) fn new(monitored: Vec<ConditionType>) -> Self {
        Self {
            monitored,
            findings: Findings::default(),
            suspects: Suspects::default(),
            blocked: BlockedTasks::default(),
            victims: Victims::default(),
            gpus: Gpus::default(),
            twice: ToldTwice::default(),
            stolen: Stolen::default(),
            restarts: Restarts::default(),
            lockups: Lockups::default(),
            node_says: NodeSays::default(),
            before: BTreeMap::new(),
            node_read: false,
            earlier_boot: BTreeMap::new(),
            published: None,
            history_read: false,
        }
    }

    /// When [`Input::Wake`] is wanted, by `CLOCK_BOOTTIME`.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let clears = self.findings.wake_at();
        let looks = self.suspects.wake_at().into_iter();
        clears
            .into_iter()
            .chain(looks)
            .chain(self.blocked.wake_at())
            .min()
    }

    pub(crate) fn open_findings(&self) -> Vec<Finding> {
        let open = self.findings.iter();
        open.map(|(_, open)| open.finding.clone()).collect()
    }

    /// When the first finding clears, if nothing happens until then and no evidence changes.
    pub(crate) fn clears_at(&self) -> Option<Duration> {
        self.findings.wake_at()
    }

    pub(crate) fn step(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let mut fault = None;
        match input {
            Input::Signal(signal) => {
                fault = Some(signal.at);
                self.signal(signal, now, &mut out);
            }
            Input::Existing(existing) => self.existing(existing, now, &mut out),
            Input::Node(says) => {
                let (findings, node_says) = (&mut self.findings, &mut self.node_says);
                node_says.renew(says, findings, now, &mut out);
            }
            Input::HistoryRead => {
                self.history_read = true;
            }
            Input::Evidence { device, evidence } => {
                let findings = &mut self.findings;
                fault = self
                    .suspects
                    .evidence(&device, evidence, findings, now, &mut out);
            }
            Input::Task { pid, state } => {
                let findings = &mut self.findings;
                self.blocked.seen(pid, state, findings, now, &mut out);
            }
            Input::Cpu { cpu, state } => {
                let (stolen, findings) = (&self.stolen, &mut self.findings);
                self.lockups
                    .looked(cpu, state, stolen, findings, now, &mut out);
            }
            Input::Settings(settings) => self.findings.configure(settings, now, &mut out),
            Input::Wake => {
                self.findings.wake(now, &mut out);
                self.suspects.wake(&self.findings, now, &mut out);
                self.blocked.wake(&self.findings, now, &mut out);
            }
        }
        let published = self.publish(fault, now);
        if let Some(Output::Conditions { conditions, .. }) = &published {
            out.extend(self.ended_by_reboot(conditions, now));
        }
        out.extend(published);
        out
    }

    fn existing(&mut self, existing: Vec<Existing>, now: Now, out: &mut Vec<Output>) {
        // A Node that was created again has none of our conditions: what we know stands.
        if std::mem::replace(&mut self.node_read, true) {
            return;
        }
        for condition in existing {
            // The API has whole seconds.
            let saved = self.before.get(&condition.kind);
            if saved.is_some_and(|saved| {
                saved.transition.as_second() >= condition.transition.as_second()
            }) {
                continue;
            }
            // No state was left, or the Node was written after it: what was read-only may have left
            // the log by now.
            for device in condition::read_only_devices(&condition) {
                self.suspects
                    .add(device, now.boot, &mut self.findings, now, out);
            }
            self.remember_gpus(&condition, now);
            let before = Before {
                healthy: condition.healthy,
                transition: condition.transition,
            };
            self.before.insert(condition.kind, before);
            let age = now.wall.duration_since(condition.transition);
            if !condition.healthy && age.unsigned_abs() > now.boot {
                self.earlier_boot.insert(condition.kind, condition);
            }
        }
    }

    /// What the Node said of the boot before is over, if the condition is healthy now.
    fn ended_by_reboot(&mut self, conditions: &[Condition], now: Now) -> Vec<Output> {
        let settings = self.findings.settings();
        let mut over = Vec::new();
        for condition in conditions {
            let Some(earlier) = self.earlier_boot.remove(&condition.kind) else {
                continue;
            };
            if condition.healthy
                && let Some(finding) = condition::finding_of(&earlier, settings, now)
            {
                over.push(Output::Transition(Transition {
                    change: Change::Cleared,
                    fault: finding.last_seen,
                    finding,
                    found: now,
                }));
            }
        }
        over
    }

    fn signal(&mut self, mut signal: Signal, now: Now, out: &mut Vec<Output>) {
        if self.victims.knows(&signal) {
            return;
        }
        alias::resolve(&mut signal.what, &self.findings);
        let (historic, fault) = (signal.historic, signal.at);
        if !historic && self.restarts.knows(&signal) {
            return;
        }
        let news = if historic {
            None
        } else {
            self.twice.news(&signal)
        };
        let words = twice::says_more(&signal.what);
        let mut assessed = assess::assess(signal, self.findings.settings());
        if let Assessed::Sighting(sighting) = &mut assessed {
            self.stolen.explain(sighting);
            corroborate::weigh(sighting, &self.findings);
        }
        if let Assessed::Sighting(sighting) | Assessed::State { sighting, so: true } = &mut assessed
        {
            kubelet::explain(sighting, &self.findings, &self.node_says);
        }
        match assessed {
            Assessed::Sighting(sighting) if news == Some(0) => {
                let key = (sighting.reason, sighting.entity);
                let message = words.then_some(sighting.message);
                self.findings.enrich(&key, message, now);
            }
            Assessed::Sighting(mut sighting) => {
                sighting.count = news.unwrap_or(sighting.count);
                let task = blocked::pid(sighting.reason, &sighting.entity);
                let device = suspects::refuses_writes(&sighting);
                let cpu = lockups::cpu(&sighting);
                let sighting = blocked::as_known(sighting, &self.findings);
                let sighting = lockups::as_known(sighting, &self.findings);
                if historic {
                    // A first start turns no node red over old lines.
                    self.findings.see_past(sighting, now, out);
                } else {
                    self.findings.see(sighting, now, out);
                    if let Some(pid) = task {
                        self.blocked.add(pid, &self.findings, now, out);
                    }
                    if let Some(cpu) = cpu {
                        self.lockups.reported(cpu, now, out);
                    }
                }
                if let Some(device) = device {
                    self.suspects
                        .add(device, fault, &mut self.findings, now, out);
                }
            }
            Assessed::Blocked(task) => {
                let findings = &mut self.findings;
                self.blocked.found(task, fault, findings, now, out);
            }
            Assessed::SuspectReadOnly { device } => {
                self.suspects
                    .add(device, fault, &mut self.findings, now, out);
            }
            Assessed::Xid { sighting, seen } => self.xid(sighting, seen, historic, now, out),
            Assessed::FallenOff { sighting } => self.fallen_off(sighting, historic, now, out),
            Assessed::Sxid { sighting, more } => {
                self.sxid(sighting, more, historic, now, out);
            }
            Assessed::Gpu { gpu, state } => self.gpu(gpu, state, now, out),
            Assessed::Nvml(nvml) => self.nvml(nvml, now, out),
            Assessed::Configuration(state) => self.configuration(state, now, out),
            Assessed::State { sighting, so: true } => self.findings.is_so(sighting, now, out),
            Assessed::State {
                sighting,
                so: false,
            } => {
                let key = (sighting.reason, sighting.entity);
                self.findings.well(&key, now, out);
            }
            Assessed::Restarts(at, units) => {
                for sighting in self.restarts.read(at, units) {
                    self.findings.see(sighting, now, out);
                }
            }
            Assessed::Stolen(cpus) => self.stolen.read(fault, cpus, &mut self.findings, now),
            Assessed::Forged => {}
        }
    }

    /// The conditions, if they are known well enough and differ from what was sent last.
    fn publish(&mut self, fault: Option<Duration>, now: Now) -> Option<Output> {
        if !(self.node_read && self.history_read) {
            return None;
        }
        let findings = self.findings.iter().map(|(_, open)| &open.finding);
        let monitored = accelerated::published(&self.monitored, findings.clone());
        let settings = self.findings.settings();
        let monitored = configuration::published(monitored, settings, findings.clone());
        let mut conditions = condition::fold(&monitored, findings, &self.before, now.wall);
        if self.suspects.any_unanswered() {
            // Unknown is not healthy: what was said last stands, here or on the Node.
            let unknown = Reason::FilesystemReadOnly.row().condition;
            let last = self
                .published
                .iter()
                .flatten()
                .find(|condition| condition.kind == unknown)
                .cloned();
            conditions = conditions
                .into_iter()
                .filter_map(|new| {
                    if new.kind == unknown && new.healthy {
                        last.clone()
                    } else {
                        Some(new)
                    }
                })
                .collect();
        }
        if self.published.as_ref() == Some(&conditions) {
            return None;
        }
        for condition in &conditions {
            let &Condition {
                kind,
                healthy,
                transition,
                ..
            } = condition;
            self.before.insert(
                kind,
                Before {
                    healthy,
                    transition,
                },
            );
        }
        self.published = Some(conditions.clone());
        Some(Output::Conditions {
            conditions,
            fault,
            found: now,
        })
    }
}

#[cfg(test)]
mod tests;

//! PURE. The core: signals, evidence and time in; transitions, conditions and questions out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::finding::{Change, Finding, Now, Sighting, Subject, Transition};
use crate::reason::{Clears, ConditionType, Reason, Severity};
use crate::signal::Signal;

mod accelerated;
mod assess;
mod condition;
mod configuration;
mod settings;

use self::accelerated::Gpus;
use self::assess::Assessed;
use self::condition::Before;
pub(crate) use self::condition::{Condition, Existing};
pub(crate) use self::settings::{Override, Settings, Threshold};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    Signal(Signal),
    /// Our own conditions as they stand on the Node: nothing is published before they are known.
    Existing(Vec<Existing>),
    /// Every source has handed over what was there before the agent started.
    HistoryRead,
    /// The answer to [`Output::Probe`].
    Evidence {
        device: String,
        evidence: Evidence,
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
}

/// How often the evidence of an open finding is read again.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// A repeat is announced when its count has doubled, and not more often than this.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Open findings of one reason; what comes on top shares one finding.
const MOST_PER_REASON: usize = 256;
/// Devices whose evidence is asked for at a time.
const MOST_SUSPECTS: usize = 64;
const OTHERS: &str = "(others)";

pub(crate) struct Core {
    settings: Settings,
    monitored: Vec<ConditionType>,
    findings: BTreeMap<(Reason, String), Open>,
    suspects: BTreeMap<String, Suspect>,
    gpus: Gpus,
    /// Status and transition time of what was wanted last, or of what stood on the Node.
    before: Option<BTreeMap<ConditionType, Before>>,
    published: Option<Vec<Condition>>,
    history_read: bool,
}

struct Open {
    finding: Finding,
    announced: Duration,
    announced_count: u64,
}

/// A device that is said to be read-only.
struct Suspect {
    fault: Duration,
    /// Its evidence has been asked for.
    asked: bool,
    /// Its evidence has been read at least once.
    answered: bool,
    /// When to ask again.
    next: Duration,
}

impl Core {
    /// `monitored`: the conditions whose sources work. The others are never published.
    pub(crate) fn new(monitored: Vec<ConditionType>) -> Self {
        Self {
            settings: Settings::default(),
            monitored,
            findings: BTreeMap::new(),
            suspects: BTreeMap::new(),
            gpus: Gpus::default(),
            before: None,
            published: None,
            history_read: false,
        }
    }

    /// When [`Input::Wake`] is wanted, by `CLOCK_BOOTTIME`.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let quiet =
            self.findings
                .values()
                .filter_map(|open| match open.finding.reason.row().clears {
                    Clears::Quiet(quiet) => Some(open.finding.last_seen + quiet),
                    Clears::Recovered | Clears::RecoveredOrReboot => None,
                });
        let probes = self
            .suspects
            .values()
            .filter(|suspect| !suspect.asked)
            .map(|suspect| suspect.next);
        quiet.chain(probes).min()
    }

    pub(crate) fn step(&mut self, input: Input, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let mut fault = None;
        match input {
            Input::Signal(signal) => {
                fault = Some(signal.at);
                self.signal(signal, now, &mut out);
            }
            Input::Existing(existing) => {
                // A Node that was created again has none of our conditions: what we know stands.
                if self.before.is_none() {
                    // What was read-only for the agent before this one may have left the log by now.
                    for device in existing.iter().flat_map(condition::read_only_devices) {
                        self.suspect(device, now.boot, &mut out);
                    }
                    for condition in &existing {
                        self.remember_gpus(condition, now);
                    }
                    let before = |condition: Existing| {
                        (
                            condition.kind,
                            Before {
                                healthy: condition.healthy,
                                transition: condition.transition,
                            },
                        )
                    };
                    self.before = Some(existing.into_iter().map(before).collect());
                }
            }
            Input::HistoryRead => {
                self.history_read = true;
            }
            Input::Evidence { device, evidence } => {
                fault = self.evidence(&device, evidence, now, &mut out);
            }
            Input::Settings(settings) => self.settings = settings,
            Input::Wake => self.wake(now, &mut out),
        }
        out.extend(self.publish(fault, now));
        out
    }

    fn signal(&mut self, signal: Signal, now: Now, out: &mut Vec<Output>) {
        let (historic, fault) = (signal.historic, signal.at);
        match assess::assess(signal, &self.settings) {
            // What was over before the agent started is not news.
            Assessed::Sighting(_) if historic => {}
            Assessed::Sighting(sighting) => self.see(sighting, now, out),
            Assessed::SuspectReadOnly { device } => self.suspect(device, fault, out),
            Assessed::Xid {
                sighting,
                gpu,
                xid,
                seen_by,
            } => self.xid(sighting, (gpu, xid), seen_by, historic, now, out),
            Assessed::Gpu { gpu, state } => self.gpu(gpu, state, now, out),
            Assessed::Nvml(nvml) => self.nvml(nvml, now, out),
            Assessed::Configuration(state) => self.configuration(state, now, out),
            Assessed::Forged => {}
        }
    }

    fn suspect(&mut self, device: String, fault: Duration, out: &mut Vec<Output>) {
        if !self.suspects.contains_key(&device) && self.suspects.len() >= MOST_SUSPECTS {
            return;
        }
        let new = Suspect {
            fault,
            asked: false,
            answered: false,
            next: fault,
        };
        let suspect = self.suspects.entry(device.clone()).or_insert(new);
        if !suspect.asked {
            suspect.fault = fault;
            suspect.asked = true;
            out.push(Output::Probe { device });
        }
    }

    /// Opens a finding, or counts a repeat of it.
    fn see(&mut self, mut sighting: Sighting, now: Now, out: &mut Vec<Output>) {
        let mut key = (sighting.reason, sighting.entity.clone());
        let open_of_reason = self
            .findings
            .keys()
            .filter(|(reason, _)| reason.row().name == key.0.row().name)
            .count();
        if !self.findings.contains_key(&key) && open_of_reason >= MOST_PER_REASON {
            OTHERS.clone_into(&mut key.1);
            OTHERS.clone_into(&mut sighting.entity);
            sighting.subject = Subject::default();
        }
        let (fault, found) = (sighting.at, now);
        match self.findings.get_mut(&key) {
            None => {
                let finding = Finding {
                    reason: sighting.reason,
                    entity: sighting.entity,
                    severity: sighting.severity,
                    message: sighting.message,
                    subject: sighting.subject,
                    count: sighting.count,
                    opened: now,
                    last_seen: now.boot,
                };
                out.push(Output::Transition(Transition {
                    change: Change::Opened,
                    finding: finding.clone(),
                    fault,
                    found,
                }));
                let announced_count = finding.count;
                self.findings.insert(
                    key,
                    Open {
                        finding,
                        announced: now.boot,
                        announced_count,
                    },
                );
            }
            Some(open) => {
                open.finding.count = open.finding.count.saturating_add(sighting.count);
                open.finding.last_seen = now.boot;
                open.finding.severity = sighting.severity;
                let doubled = open.finding.count >= open.announced_count.saturating_mul(2);
                if doubled && now.boot.saturating_sub(open.announced) >= REPEAT_INTERVAL {
                    open.finding.message = sighting.message;
                    open.finding.subject = sighting.subject;
                    open.announced = now.boot;
                    open.announced_count = open.finding.count;
                    let finding = open.finding.clone();
                    out.push(Output::Transition(Transition {
                        change: Change::Repeated,
                        finding,
                        fault,
                        found,
                    }));
                }
            }
        }
    }

    /// Returns when the fault was, for the latency of the condition that it changes.
    fn evidence(
        &mut self,
        device: &str,
        evidence: Evidence,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<Duration> {
        let suspect = self.suspects.get_mut(device)?;
        suspect.asked = false;
        suspect.answered |= evidence != Evidence::Late;
        suspect.next = now.boot + PROBE_INTERVAL;
        let fault = suspect.fault;
        match evidence {
            Evidence::Late => {}
            Evidence::Writable | Evidence::NotMounted => {
                self.suspects.remove(device);
                self.clear(&(Reason::FilesystemReadOnly, device.to_owned()), now, out);
            }
            Evidence::ReadOnly {
                mount_point,
                critical,
            } => {
                let (severity, role) = match &critical {
                    Some(path) => (
                        Severity::Fatal,
                        format!(", which the node needs (critical path {path})"),
                    ),
                    None => (Severity::Warning, String::new()),
                };
                let message = format!("{device}, mounted at {mount_point}{role}, is read-only");
                // Seen again by our own re-reading: the same fault, not a repeat of it.
                if let Some(open) = self
                    .findings
                    .get_mut(&(Reason::FilesystemReadOnly, device.to_owned()))
                {
                    open.finding.last_seen = now.boot;
                    open.finding.severity = severity;
                    open.finding.message = message;
                    return Some(fault);
                }
                let sighting = Sighting {
                    reason: Reason::FilesystemReadOnly,
                    entity: device.to_owned(),
                    severity,
                    message,
                    subject: Subject {
                        device: Some(device.to_owned()),
                        ..Subject::default()
                    },
                    count: 1,
                    at: fault,
                };
                self.see(sighting, now, out);
            }
        }
        Some(fault)
    }

    fn wake(&mut self, now: Now, out: &mut Vec<Output>) {
        let quiet: Vec<_> = self
            .findings
            .iter()
            .filter(|(_, open)| match open.finding.reason.row().clears {
                Clears::Quiet(quiet) => open.finding.last_seen + quiet <= now.boot,
                Clears::Recovered | Clears::RecoveredOrReboot => false,
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in quiet {
            self.clear(&key, now, out);
        }
        for (device, suspect) in &mut self.suspects {
            if !suspect.asked && suspect.next <= now.boot {
                suspect.asked = true;
                out.push(Output::Probe {
                    device: device.clone(),
                });
            }
        }
    }

    fn clear(&mut self, key: &(Reason, String), now: Now, out: &mut Vec<Output>) {
        if let Some(open) = self.findings.remove(key) {
            let fault = open.finding.last_seen;
            let finding = open.finding;
            out.push(Output::Transition(Transition {
                change: Change::Cleared,
                finding,
                fault,
                found: now,
            }));
        }
    }

    /// The conditions, if they are known well enough and differ from what was sent last.
    fn publish(&mut self, fault: Option<Duration>, now: Now) -> Option<Output> {
        let before = self.before.as_mut().filter(|_| self.history_read)?;
        let findings = self.findings.values().map(|open| &open.finding);
        let monitored = accelerated::published(&self.monitored, findings.clone());
        let monitored = configuration::published(monitored, &self.settings, findings.clone());
        let mut conditions = condition::fold(&monitored, findings, before, now.wall);
        if self.suspects.values().any(|suspect| !suspect.answered) {
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
            before.insert(
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

//! PURE. Devices that are said to be read-only: what the log says is a question, and only evidence
//! answers it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::Findings;
use super::{Evidence, Output};
use crate::finding::{Now, Sighting, Subject};
use crate::reason::{Reason, Severity};

/// How often the evidence is read again.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Devices whose evidence is asked for at a time.
pub(super) const MOST_SUSPECTS: usize = 64;

/// The device of a file system that has given up writing, by what was seen: how bad it is, only the
/// evidence says.
pub(super) fn refuses_writes(sighting: &Sighting) -> Option<String> {
    let gave_up = matches!(
        sighting.reason,
        Reason::XfsShutdown | Reason::BtrfsReadOnly | Reason::JournalAborted
    );
    sighting.subject.device.clone().filter(|_| gave_up)
}

#[derive(Default)]
pub(super) struct Suspects(BTreeMap<String, Suspect>);

struct Suspect {
    fault: Duration,
    /// Its evidence has been asked for.
    asked: bool,
    /// It was said again since then: the answer may be of the time before.
    again: bool,
    /// Its evidence has been read at least once.
    answered: bool,
    /// When to ask again.
    next: Duration,
}

impl Suspects {
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(super) fn any_unanswered(&self) -> bool {
        self.0.values().any(|suspect| !suspect.answered)
    }

    /// Whatever was read before is not known any more.
    pub(super) fn add(
        &mut self,
        device: String,
        fault: Duration,
        findings: &mut Findings,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        if !self.0.contains_key(&device) && self.0.len() >= MOST_SUSPECTS {
            return;
        }
        let new = Suspect {
            fault,
            asked: false,
            again: false,
            answered: false,
            next: fault,
        };
        findings.unwell(&(Reason::FilesystemReadOnly, device.clone()), now, out);
        let suspect = self.0.entry(device.clone()).or_insert(new);
        suspect.answered = false;
        if suspect.asked {
            suspect.again = true;
            return;
        }
        suspect.fault = fault;
        suspect.asked = true;
        out.push(Output::Probe { device });
    }

    /// Returns when the fault was, for the latency of the condition that it changes.
    pub(super) fn evidence(
        &mut self,
        device: &str,
        evidence: Evidence,
        findings: &mut Findings,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Option<Duration> {
        let suspect = self.0.get_mut(device)?;
        let again = std::mem::take(&mut suspect.again);
        if again && matches!(evidence, Evidence::Writable | Evidence::NotMounted) {
            let device = device.to_owned();
            out.push(Output::Probe { device });
            return None;
        }
        suspect.asked = false;
        suspect.answered |= evidence != Evidence::Late;
        suspect.next = now.boot + PROBE_INTERVAL;
        let fault = suspect.fault;
        let key = (Reason::FilesystemReadOnly, device.to_owned());
        match evidence {
            Evidence::Late => {}
            Evidence::Writable | Evidence::NotMounted => {
                findings.well(&key, now, out);
                if findings.get(&key).is_none() {
                    self.0.remove(device);
                }
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
                findings.is_so(sighting, now, out);
            }
        }
        Some(fault)
    }

    pub(super) fn wake_at(&self) -> Option<Duration> {
        let waiting = self.0.values().filter(|suspect| !suspect.asked);
        waiting.map(|suspect| suspect.next).min()
    }

    /// After the findings: a device whose finding has cleared is no suspect any more.
    pub(super) fn wake(&mut self, findings: &Findings, now: Now, out: &mut Vec<Output>) {
        self.0.retain(|device, suspect| {
            let key = (Reason::FilesystemReadOnly, device.clone());
            !suspect.answered || suspect.asked || findings.get(&key).is_some()
        });
        for (device, suspect) in &mut self.0 {
            if !suspect.asked && suspect.next <= now.boot {
                suspect.asked = true;
                out.push(Output::Probe {
                    device: device.clone(),
                });
            }
        }
    }
}

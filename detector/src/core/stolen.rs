//! PURE. CPU time that the hypervisor took: what looks like a fault of the kernel meanwhile is none.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::{Findings, Key};
use crate::finding::{Now, Sighting};
use crate::reason::Reason;

/// How long before or after its reading a lockup is the hypervisor's.
const BESIDE: Duration = Duration::from_secs(90);

/// The last reading in which anything worth telling was taken.
#[derive(Default)]
pub(super) struct Stolen(Option<(Duration, BTreeMap<u32, u8>)>);

impl Stolen {
    /// Explains what was found shortly before: the reading comes after the lockup.
    pub(super) fn read(
        &mut self,
        at: Duration,
        cpus: BTreeMap<u32, u8>,
        findings: &mut Findings,
        now: Now,
    ) {
        self.0 = Some((at, cpus));
        let explained = findings.iter().filter_map(|((reason, entity), open)| {
            let finding = &open.finding;
            let why = self.why(*reason, entity, finding.last_seen)?;
            let told = finding.message.contains(WORDS);
            (!told).then(|| {
                let key: Key = (*reason, entity.clone());
                (key, format!("{}{why}", finding.message), finding.last_seen)
            })
        });
        let explained: Vec<_> = explained.collect();
        for (key, message, last_seen) in explained {
            let seen = Now {
                boot: last_seen,
                ..now
            };
            findings.enrich(&key, Some(message), seen);
        }
    }

    pub(super) fn explain(&self, sighting: &mut Sighting) {
        if let Some(why) = self.why(sighting.reason, &sighting.entity, sighting.at) {
            sighting.message.push_str(&why);
        }
    }

    pub(super) fn explains(&self, reason: Reason, entity: &str, at: Duration) -> bool {
        self.why(reason, entity, at).is_some()
    }

    fn why(&self, reason: Reason, entity: &str, at: Duration) -> Option<String> {
        let (read, cpus) = self.0.as_ref()?;
        if at.abs_diff(*read) > BESIDE {
            return None;
        }
        let (cpu, percent) = match reason {
            Reason::SoftLockup | Reason::HardLockup => {
                let cpu = entity.strip_prefix("cpu ")?.parse().ok()?;
                (cpu, *cpus.get(&cpu)?)
            }
            // They do not say which CPU holds them up.
            Reason::RcuStall | Reason::WorkqueueLockup => {
                let most = cpus.iter().max_by_key(|(_, percent)| **percent)?;
                (*most.0, *most.1)
            }
            _ => return None,
        };
        Some(format!("{WORDS} {percent} % of the time of CPU {cpu}"))
    }
}

const WORDS: &str = "; at that time the hypervisor took";

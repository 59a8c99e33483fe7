//! PURE. Which Events stand for the open findings, so that repeats are counted in their series.

use std::collections::HashMap;
use std::time::Duration;

use crate::finding::Finding;
use crate::reason::Reason;

/// More findings than are ever open; an Event that is forgotten costs another one, nothing else.
const MOST: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// An Event on the Node, and maybe one on a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum About {
    Node,
    Pod,
}

#[derive(Default)]
pub(super) struct Told {
    names: HashMap<(Reason, String, About), (Duration, Name)>,
}

impl Told {
    pub(super) fn insert(&mut self, finding: &Finding, about: About, name: Name) {
        if self.names.len() >= MOST {
            self.names.clear();
        }
        self.names
            .insert(key(finding, about), (finding.opened.boot, name));
    }

    /// Of this finding, not of an earlier one of the same reason and entity.
    pub(super) fn get(&self, finding: &Finding, about: About) -> Option<Name> {
        let (opened, name) = self.names.get(&key(finding, about))?;
        (*opened == finding.opened.boot).then(|| name.clone())
    }

    pub(super) fn forget(&mut self, finding: &Finding, about: About) {
        self.names.remove(&key(finding, about));
    }
}

fn key(finding: &Finding, about: About) -> (Reason, String, About) {
    (finding.reason, finding.entity.clone(), about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Now, Subject};
    use crate::reason::Severity;

    fn finding(opened: u64) -> Finding {
        let boot = Duration::from_secs(opened);
        Finding {
            reason: Reason::OomKilling,
            entity: "e".to_owned(),
            severity: Severity::Warning,
            message: String::new(),
            subject: Subject::default(),
            count: 1,
            flaps: 0,
            historic: false,
            opened: Now {
                boot,
                wall: jiff::Timestamp::UNIX_EPOCH,
            },
            last_seen: boot,
        }
    }

    #[test]
    fn a_finding_that_opened_anew_does_not_count_into_the_event_of_the_old_one() {
        let mut told = Told::default();
        let name = Name {
            namespace: "default".to_owned(),
            name: "n".to_owned(),
        };
        told.insert(&finding(1), About::Node, name.clone());
        assert_eq!(told.get(&finding(1), About::Node), Some(name));
        assert_eq!(told.get(&finding(1), About::Pod), None);
        assert_eq!(told.get(&finding(2), About::Node), None);
    }
}

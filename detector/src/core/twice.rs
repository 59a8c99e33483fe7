//! PURE. Faults that a tracepoint and the kernel log tell of, in either order, and the log of fewer
//! than there were. Each counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::{Key, MOST_PER_REASON};
use crate::reason::Reason;
use crate::signal::{Counted, Signal, SourceName, What};

/// Within which both sources report one fault: the rings are read one after the other.
const ONE_FAULT: Duration = Duration::from_secs(10);
/// The same where one of them is a counter, which is read now and then.
const COUNTED_FAULT: Duration = Duration::from_secs(40);

#[derive(Default)]
pub(super) struct ToldTwice(BTreeMap<Key, Ahead>);

/// The source that has told of more faults of an entity than the other, and of how many more.
struct Ahead {
    source: SourceName,
    by: u64,
    last: Duration,
}

/// What one signal tells of an entity.
struct Told {
    key: Key,
    source: SourceName,
    count: u64,
    /// Of a buffer that a request was for: many are of one.
    buffer: bool,
}

impl ToldTwice {
    /// How many of the signal's faults the other source has not told of; `None` where there is no
    /// other source.
    pub(super) fn news(&mut self, signal: &Signal) -> Option<u64> {
        let Told {
            key,
            source,
            count,
            buffer,
        } = told(&signal.what)?;
        let at = signal.at;
        self.0
            .retain(|_, ahead| at.abs_diff(ahead.last) <= COUNTED_FAULT);
        let counted = |ahead: &Ahead| [source, ahead.source].contains(&SourceName::Counters);
        if self
            .0
            .get(&key)
            .is_some_and(|ahead| at.abs_diff(ahead.last) > ONE_FAULT && !counted(ahead))
        {
            self.0.remove(&key);
        }
        let Some(ahead) = self.0.get_mut(&key) else {
            if self.0.len() < MOST_PER_REASON {
                let first = Ahead {
                    source,
                    by: count,
                    last: at,
                };
                self.0.insert(key, first);
            }
            return Some(count);
        };
        if buffer {
            return Some(0);
        }
        let known = if ahead.source == source {
            0
        } else {
            ahead.by.min(count)
        };
        let new = count - known;
        ahead.by -= known;
        if new > 0 {
            let before = if ahead.source == source { ahead.by } else { 0 };
            *ahead = Ahead {
                source,
                by: before.saturating_add(new),
                last: at,
            };
        }
        Some(new)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn told(what: &What) -> Option<Told> {
    let (source, reason, entity, count, buffer) = match what {
        What::BlockError { disk, count, .. } => {
            let name = disk.name.as_ref()?;
            (SourceName::Bpf, Reason::BlockIoError, name, *count, false)
        }
        What::BlockLine { disk, buffer, .. } => {
            (SourceName::Kmsg, Reason::BlockIoError, disk, 1, *buffer)
        }
        What::Ext4Error { device, .. } => {
            (SourceName::Kmsg, Reason::FilesystemError, device, 1, false)
        }
        What::Traced { fault, count } => {
            (SourceName::Bpf, fault.reason, &fault.entity, *count, false)
        }
        What::Counted {
            fault,
            counted: Counted::Times(count),
        } => (
            SourceName::Counters,
            fault.reason,
            &fault.entity,
            *count,
            false,
        ),
        What::Logged(fault) => (SourceName::Kmsg, fault.reason, &fault.entity, 1, false),
        _ => return None,
    };
    Some(Told {
        key: (reason, entity.clone()),
        source,
        count,
        buffer,
    })
}

/// Whether this source's words about a fault that was told already are the better ones: the
/// tracepoint of a request knows its sector; the line of a file system its cause.
pub(super) fn says_more(what: &What) -> bool {
    matches!(
        what,
        What::BlockError { .. } | What::Logged(_) | What::Ext4Error { .. }
    )
}

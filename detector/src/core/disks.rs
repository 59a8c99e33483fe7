//! PURE. Failed requests of disks: the tracepoint and the kernel log tell of one twice, in either
//! order, and the log of fewer than there were. Each counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::MOST_PER_REASON;
use crate::signal::{Signal, SourceName, What};

/// Within which both sources report one request: the rings are read one after the other.
const ONE_FAULT: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Disks {
    ahead: BTreeMap<String, Ahead>,
}

/// The source that has told of more requests of a disk than the other, and of how many more.
struct Ahead {
    source: SourceName,
    by: u64,
    last: Duration,
}

impl Disks {
    /// Whether the other source has told of this request.
    pub(super) fn knows(&mut self, signal: &Signal) -> bool {
        let (disk, source, buffer) = match &signal.what {
            What::BlockError { disk, .. } => match &disk.name {
                Some(name) => (name, SourceName::Bpf, false),
                None => return false,
            },
            What::BlockLine { disk, buffer, .. } => (disk, SourceName::Kmsg, *buffer),
            _ => return false,
        };
        let at = signal.at;
        self.ahead
            .retain(|_, ahead| at.abs_diff(ahead.last) <= ONE_FAULT);
        if let Some(ahead) = self.ahead.get_mut(disk) {
            // Many buffers are of one request.
            if buffer {
                return true;
            }
            if ahead.source != source && ahead.by > 0 {
                ahead.by -= 1;
                return true;
            }
            let by = ahead.by.saturating_add(1);
            *ahead = Ahead {
                source,
                by,
                last: at,
            };
        } else if self.ahead.len() < MOST_PER_REASON {
            let first = Ahead {
                source,
                by: 1,
                last: at,
            };
            self.ahead.insert(disk.clone(), first);
        }
        false
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ahead.len()
    }
}

//! PURE. What is said of a counter.

use crate::reason::Reason;
use crate::signal::{Counted, LogFault, What};

/// It has happened that often since the reading before.
pub(super) fn times(fault: LogFault, count: u64) -> What {
    let counted = Counted::Times(count);
    What::Counted { fault, counted }
}

/// It is so now.
pub(super) fn still(fault: LogFault) -> What {
    let counted = Counted::Still;
    What::Counted { fault, counted }
}

/// It is not so any more.
pub(super) fn over(fault: LogFault) -> What {
    let counted = Counted::Over;
    What::Counted { fault, counted }
}

pub(super) fn fault(reason: Reason, entity: &str, message: String) -> LogFault {
    LogFault::new(reason, entity.to_owned(), message)
}

/// Reason, entity and number of each, for tests; 0 for a state.
#[cfg(test)]
pub(super) fn summary(found: &[What]) -> Vec<(Reason, String, u64)> {
    found
        .iter()
        .map(|what| {
            let What::Counted { fault, counted } = what else {
                panic!("{what:?}");
            };
            let count = match counted {
                Counted::Times(count) => *count,
                Counted::Still => 0,
                Counted::Over => panic!("{fault:?} is over"),
            };
            (fault.reason, fault.entity.clone(), count)
        })
        .collect()
}

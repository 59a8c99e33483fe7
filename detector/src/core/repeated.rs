//! PURE. Reasons of which one fault is none yet, as the table has it; a configuration may have it
//! otherwise.

use std::time::Duration;

use super::settings::Threshold;
use crate::reason::Reason;

pub(super) fn threshold(reason: Reason) -> Option<Threshold> {
    let (count, seconds) = match reason {
        Reason::RapidCron => (2, 300),
        Reason::PodStuckTerminating => (3, 600),
        Reason::ReadinessProbeFailures | Reason::LivenessProbeFailures => (6, 60),
        Reason::UnitRepeatedRestart(_) => (4, 600),
        Reason::NpaRepeatedlyRestart => (5, 600),
        Reason::IpamdNotReady => (3, 300),
        Reason::IpamdRepeatedlyRestart => (6, 3600),
        Reason::NvidiaPcieError => (8, 60),
        _ => return None,
    };
    let window = Duration::from_secs(seconds);
    Some(Threshold { count, window })
}

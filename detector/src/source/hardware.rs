//! PURE. Faults of hardware that tracepoint and kernel log both tell of, in the same words.

use crate::reason::Reason;
use crate::signal::LogFault;

/// `MCi_STATUS.UC` (Intel SDM 17.3.2.2; AMD APM 9.3.2.2).
const UNCORRECTED: u64 = 1 << 61;

pub(super) fn machine_check(cpu: u32, bank: u32, status: u64) -> LogFault {
    let (reason, kind) = if status & UNCORRECTED == 0 {
        (Reason::MachineCheckCorrected, "a corrected")
    } else {
        (Reason::MachineCheck, "an uncorrected")
    };
    let message =
        format!("CPU {cpu} reported {kind} machine check in bank {bank}, status {status:#018x}");
    LogFault::new(reason, format!("cpu {cpu} bank {bank}"), message)
}

/// `label`: printable.
pub(super) fn memory_module(
    reason: Reason,
    kind: &str,
    count: u32,
    controller: u32,
    label: &str,
) -> LogFault {
    let message =
        format!("{count} {kind} memory errors on {label} of memory controller {controller}");
    LogFault::new(reason, format!("MC{controller} {label}"), message)
}

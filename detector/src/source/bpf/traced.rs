//! PURE. Tracepoints whose records the kernel part copies: what in them is a fault, and what it says.

use detector_ebpf::{CopyRule, Kind};

use super::fields::{Format, Unreadable, Values};
use super::hook::Hook;
use super::names::Names;
use crate::signal::LogFault;

mod hardware;
mod network;
#[cfg(test)]
mod record;
mod storage;

/// Nothing that ought to be told, or the fault.
type Reading = Result<Option<LogFault>, Unreadable>;

pub(super) struct Event {
    pub hook: Hook,
    pub kind: Kind,
    pub category: &'static str,
    /// The program has the same name.
    pub name: &'static str,
    /// The kernel module that brings it, where it is not always part of the kernel.
    pub module: Option<&'static str>,
    /// The field that tells a fault from a success, and its bits that are set in a fault.
    pub fault: Option<(&'static str, u32)>,
    /// The field by which the kernel part limits the number of records.
    pub limited_by: Option<&'static str>,
    /// Without these it is of no use.
    pub needs: &'static [&'static str],
    pub read: fn(&Values<'_>, &dyn Names) -> Reading,
}

pub(super) const EVENTS: &[Event] = &[
    storage::EXT4_ERROR,
    storage::EXT4_SHUTDOWN,
    storage::XFS_SHUTDOWN,
    storage::WRITEBACK_ERROR,
    storage::NVME_ERROR,
    storage::SCSI_ERROR,
    storage::SCSI_TIMEOUT,
    storage::ATA_ERROR,
    hardware::MACHINE_CHECK,
    hardware::MEMORY_CONTROLLER,
    hardware::AER,
    hardware::FIRMWARE_ERROR,
    hardware::ARM_ERROR,
    hardware::POISONED_PAGE,
    hardware::CXL_ERROR,
    hardware::THERMAL_TRIP,
    network::TRANSMIT_TIMEOUT,
    network::DEVLINK_HEALTH,
];

impl Event {
    /// What the kernel part needs to know, or which field this kernel's event lacks.
    pub(super) fn rule(&self, format: &Format) -> Result<CopyRule, String> {
        let of = |name: &str| {
            format.field(name).ok_or_else(|| {
                format!(
                    "the tracepoint {}:{} has no field `{name}`",
                    self.category, self.name
                )
            })
        };
        for name in self.needs {
            of(name)?;
        }
        let mut rule = CopyRule::default();
        if let Some((name, mask)) = self.fault {
            (rule.fault_offset, rule.fault_mask) = (of(name)?.offset, mask);
        }
        if let Some(name) = self.limited_by {
            let field = of(name)?;
            rule.entity_offset = field.offset;
            rule.entity_mask = match field.size {
                size @ 0..8 => (1 << (8 * size)) - 1,
                _ => u64::MAX,
            };
        }
        Ok(rule)
    }
}

fn device_label(device: (u32, u32), names: &dyn Names) -> String {
    let (major, minor) = device;
    names
        .disk(device)
        .unwrap_or_else(|| format!("device {major}:{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    #[test]
    fn people_are_told_which_tracepoint_a_reason_comes_from() {
        for Event { category, name, .. } in EVENTS {
            let event = format!("{category}:{name}");
            let told = |reason: &Reason| reason.row().source.contains(&event);
            assert!(Reason::ALL.iter().any(told), "no reason names {event}");
        }
    }
}

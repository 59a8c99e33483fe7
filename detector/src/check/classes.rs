//! PURE. The classes of kernel faults, and by what each is found on this host: the hooks first, and
//! what is left without them.

use crate::source::bpf::{Hook, HookStatus};
use crate::source::counters::CounterStatus;

struct Class {
    name: &'static str,
    hooks: &'static [Hook],
    fallback: Fallback,
    /// What of the kernel's own counters tells of it, too.
    counters: &'static [&'static str],
}

impl Class {
    const fn counted(mut self, counters: &'static [&'static str]) -> Self {
        self.counters = counters;
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fallback {
    None,
    KernelLog,
    /// Of the boot before, where the firmware keeps it.
    Pstore,
}

const fn class(name: &'static str, hooks: &'static [Hook], fallback: Fallback) -> Class {
    Class {
        name,
        hooks,
        fallback,
        counters: &[],
    }
}

const CLASSES: [Class; 42] = [
    class("OOM kill", &[Hook::Oom], Fallback::KernelLog),
    class("process crash", &[Hook::Crash], Fallback::KernelLog),
    class("block I/O error", &[Hook::BlockIo], Fallback::KernelLog),
    class(
        "hung task",
        &[Hook::BlockedTask, Hook::HungTask],
        Fallback::KernelLog,
    ),
    class("soft lockup", &[], Fallback::KernelLog),
    class("hard lockup", &[], Fallback::KernelLog),
    class("RCU stall", &[Hook::RcuStall], Fallback::KernelLog),
    class("workqueue lockup", &[], Fallback::KernelLog),
    class("WARN, oops, BUG", &[], Fallback::KernelLog),
    class("panic", &[], Fallback::Pstore),
    class("machine check", &[Hook::MachineCheck], Fallback::KernelLog),
    class("memory module (EDAC)", &[Hook::Edac], Fallback::KernelLog).counted(&["edac"]),
    class("PCIe error (AER)", &[Hook::PcieError], Fallback::KernelLog).counted(&["pcie-errors"]),
    class("PCIe link, hotplug", &[], Fallback::KernelLog),
    class(
        "firmware-first error",
        &[Hook::Firmware],
        Fallback::KernelLog,
    ),
    class(
        "Arm processor error",
        &[Hook::ArmError],
        Fallback::KernelLog,
    ),
    class("CXL error", &[Hook::Cxl], Fallback::None),
    class("poisoned page", &[Hook::PoisonedPage], Fallback::KernelLog)
        .counted(&["poisoned-memory"]),
    class("ext4 error", &[Hook::Ext4Error], Fallback::KernelLog),
    class(
        "file system shutdown",
        &[Hook::Ext4Shutdown, Hook::XfsShutdown],
        Fallback::KernelLog,
    ),
    class("btrfs error, abort", &[], Fallback::KernelLog),
    class("read-only remount", &[], Fallback::KernelLog),
    class("lost write", &[Hook::Writeback], Fallback::KernelLog),
    class("NVMe retry", &[Hook::Nvme], Fallback::None),
    class("NVMe timeout, removal", &[], Fallback::KernelLog),
    class(
        "SCSI error, timeout",
        &[Hook::ScsiError, Hook::ScsiTimeout],
        Fallback::KernelLog,
    )
    .counted(&["scsi-errors"]),
    class("ATA error", &[Hook::Ata], Fallback::KernelLog),
    class("packet drops", &[Hook::NetDrop], Fallback::None).counted(&["cpu-backlog"]),
    class(
        "transmit timeout",
        &[Hook::TransmitTimeout],
        Fallback::KernelLog,
    ),
    class("devlink health", &[Hook::DevlinkHealth], Fallback::None),
    class("conntrack full", &[], Fallback::KernelLog).counted(&["conntrack"]),
    class("neighbour table full", &[], Fallback::KernelLog).counted(&["neighbours"]),
    class("SYN flood, TCP memory", &[], Fallback::KernelLog).counted(&["tcp-memory"]),
    class("netdevice leak", &[], Fallback::KernelLog),
    class("fork refused", &[], Fallback::KernelLog).counted(&["pids-limit", "processes"]),
    class("file-max reached", &[], Fallback::KernelLog).counted(&["open-files"]),
    class("temperature", &[Hook::Thermal], Fallback::KernelLog).counted(&["thermal-throttle"]),
    class("page allocation", &[], Fallback::KernelLog),
    class("clocksource unstable", &[], Fallback::KernelLog),
    class("stuck disk", &[], Fallback::None).counted(&["stuck-disks"]),
    class("memory stall", &[], Fallback::None).counted(&["memory-stall"]),
    class("CPU starvation, steal", &[], Fallback::None).counted(&["cpu-pressure", "cpu-steal"]),
];

/// How one class is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub class: &'static str,
    /// `tp_btf mark_victim`, or what is left without the hooks.
    pub using: Option<String>,
    /// What would be left without the hooks.
    pub fallback: Option<String>,
    /// Why not by the hooks.
    pub missing: Option<String>,
    /// Neither hook nor fallback, and the kernel has no more to offer.
    pub absent: bool,
}

pub(super) fn found(
    hooks: &[HookStatus],
    kernel_log: bool,
    counters: &[CounterStatus],
) -> Vec<Found> {
    CLASSES
        .iter()
        .map(|class| one(class, hooks, kernel_log, counters))
        .collect()
}

fn one(class: &Class, hooks: &[HookStatus], kernel_log: bool, counters: &[CounterStatus]) -> Found {
    let ours: Vec<_> = hooks
        .iter()
        .filter(|status| class.hooks.contains(&status.hook))
        .collect();
    let attached: Vec<_> = ours
        .iter()
        .filter_map(|status| status.using.as_deref())
        .collect();
    let mut missing: Vec<_> = ours
        .iter()
        .filter(|status| status.using.is_none())
        .filter_map(|status| status.missing.as_deref())
        .collect();
    // Where no program can be loaded at all, all say the same.
    missing.dedup();
    let said = match class.fallback {
        Fallback::KernelLog if kernel_log => Some("kernel log".to_owned()),
        Fallback::Pstore => Some("pstore, after the next boot".to_owned()),
        Fallback::KernelLog | Fallback::None => None,
    };
    let ours_counted = counters
        .iter()
        .filter(|status| class.counters.contains(&status.name));
    let counted = ours_counted
        .clone()
        .filter(|status| status.using.is_some())
        .map(|status| format!("counter {}", status.name));
    let others: Vec<_> = said.into_iter().chain(counted).collect();
    let fallback = (!others.is_empty()).then(|| others.join(", "));
    let (using, fallback) = if attached.is_empty() {
        (fallback, None)
    } else {
        (Some(attached.join(", ")), fallback)
    };
    missing.extend(ours_counted.filter_map(|status| status.missing.as_deref()));
    let has_none = ours.is_empty() && class.counters.is_empty();
    let absent = using.is_none()
        && !has_none
        && ours.iter().all(|status| status.absent)
        && counters
            .iter()
            .filter(|status| class.counters.contains(&status.name))
            .all(|status| status.absent);
    let missing = match missing.is_empty() {
        true if using.is_none() => Some("the kernel log cannot be read".to_owned()),
        true => None,
        false => Some(missing.join("; ")),
    };
    Found {
        class: class.name,
        using,
        fallback,
        missing,
        absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hook: Hook, using: bool, absent: bool) -> HookStatus {
        HookStatus {
            hook,
            using: using.then(|| format!("tracepoint {}", hook.name())),
            missing: (!using).then(|| format!("no {}", hook.name())),
            absent,
        }
    }

    fn counter(name: &'static str, using: bool) -> CounterStatus {
        CounterStatus {
            name,
            using: using.then(|| "read".to_owned()),
            missing: (!using).then(|| format!("no {name}")),
            absent: !using,
        }
    }

    fn of<'a>(found: &'a [Found], class: &str) -> &'a Found {
        found.iter().find(|found| found.class == class).unwrap()
    }

    #[test]
    fn every_hook_belongs_to_a_class() {
        // That one is of no class: it copies lines of all.
        for hook in Hook::ALL.into_iter().filter(|hook| *hook != Hook::Console) {
            let classes = CLASSES.iter().filter(|class| class.hooks.contains(&hook));
            assert_eq!(classes.count(), 1, "{}", hook.name());
        }
    }

    #[test]
    fn a_class_is_found_by_its_hook_or_by_what_is_left() {
        let hooks = [
            status(Hook::Oom, true, false),
            status(Hook::BlockedTask, false, false),
            status(Hook::HungTask, false, false),
            status(Hook::NetDrop, false, false),
            status(Hook::DevlinkHealth, false, true),
            status(Hook::Ext4Shutdown, true, false),
            status(Hook::XfsShutdown, false, true),
        ];
        let counters = [counter("cpu-backlog", false), counter("conntrack", true)];
        let with_log = found(&hooks, true, &counters);
        let oom = of(&with_log, "OOM kill");
        assert_eq!(oom.using.as_deref(), Some("tracepoint oom"));
        assert_eq!(oom.fallback.as_deref(), Some("kernel log"));
        assert_eq!(oom.missing, None);
        let hung = of(&with_log, "hung task");
        assert_eq!(hung.using.as_deref(), Some("kernel log"));
        assert_eq!(
            (hung.fallback.as_deref(), hung.missing.as_deref()),
            (None, Some("no blocked-task; no hung-task"))
        );
        let drops = of(&with_log, "packet drops");
        assert_eq!((&drops.using, drops.absent), (&None, false));
        assert!(of(&with_log, "devlink health").absent);
        let shutdown = of(&with_log, "file system shutdown");
        assert_eq!(shutdown.using.as_deref(), Some("tracepoint ext4-shutdown"));
        assert_eq!(shutdown.missing.as_deref(), Some("no xfs-shutdown"));
        let full = of(&with_log, "conntrack full");
        assert_eq!(full.using.as_deref(), Some("kernel log, counter conntrack"));
    }

    #[test]
    fn without_the_log_what_only_it_tells_is_not_watched() {
        let without = found(&[status(Hook::Oom, true, false)], false, &[]);
        assert_eq!(of(&without, "OOM kill").fallback, None);
        let lockup = of(&without, "soft lockup");
        assert_eq!(lockup.using, None);
        assert!(lockup.missing.is_some() && !lockup.absent);
    }
}

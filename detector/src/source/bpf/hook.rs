//! What the programs watch, each by the best variant that the kernel has.

macro_rules! hooks {
    ($($(#[$doc:meta])* $hook:ident = $name:literal,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
        pub(crate) enum Hook {
            $($(#[$doc])* #[value(name = $name)] $hook,)+
        }

        impl Hook {
            pub(crate) const ALL: [Self; [$($name),+].len()] = [$(Self::$hook),+];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$hook => $name,)+
                }
            }
        }
    };
}

hooks! {
    /// OOM kills (oom:mark_victim)
    Oom = "oom",
    /// Block I/O errors (block:block_rq_error)
    BlockIo = "block-io",
    /// Packet drops (skb:kfree_skb)
    NetDrop = "net-drop",
    /// Hung tasks (sched:sched_process_hang)
    HungTask = "hung-task",
    /// Tasks that have not run for 30 s, with what they wait for (iter/task)
    BlockedTask = "blocked-task",
    /// Processes that a fatal signal ends (signal:signal_deliver)
    Crash = "crash",
    /// Copies of the kernel log's lines, for when it is overrun (printk:console)
    Console = "console",
    /// RCU stalls (rcu:rcu_stall_warning)
    RcuStall = "rcu-stall",
    /// ext4 errors (ext4:ext4_error)
    Ext4Error = "ext4-error",
    /// ext4 file systems that are shut down (ext4:ext4_shutdown)
    Ext4Shutdown = "ext4-shutdown",
    /// XFS file systems that are shut down (xfs:xfs_force_shutdown)
    XfsShutdown = "xfs-shutdown",
    /// Writes that were lost after they had been accepted (filemap:filemap_set_wb_err)
    Writeback = "writeback",
    /// NVMe commands that failed and are tried again (nvme:nvme_complete_rq)
    Nvme = "nvme",
    /// SCSI commands that failed (scsi:scsi_dispatch_cmd_done)
    ScsiError = "scsi-error",
    /// SCSI commands that took too long (scsi:scsi_dispatch_cmd_timeout)
    ScsiTimeout = "scsi-timeout",
    /// ATA errors (libata:ata_eh_link_autopsy)
    Ata = "ata",
    /// Machine checks (mce:mce_record)
    MachineCheck = "machine-check",
    /// Errors of memory modules (ras:mc_event)
    Edac = "edac",
    /// PCIe errors (ras:aer_event)
    PcieError = "pcie-error",
    /// Hardware errors that the firmware reports (ras:non_standard_event)
    Firmware = "firmware",
    /// Processor errors that the firmware of an Arm machine reports (ras:arm_event)
    ArmError = "arm-error",
    /// Memory pages that the hardware cannot keep (ras:memory_failure_event)
    PoisonedPage = "poisoned-page",
    /// CXL memory errors (cxl:cxl_aer_uncorrectable_error)
    Cxl = "cxl",
    /// Network interfaces that do not send (net:net_dev_xmit_timeout)
    TransmitTimeout = "transmit-timeout",
    /// What drivers of network cards report of their health (devlink:devlink_health_report)
    DevlinkHealth = "devlink-health",
    /// Hot and critical temperatures (thermal:thermal_zone_trip)
    Thermal = "thermal",
}

/// What became of one hook on this kernel.
#[derive(Debug, Clone)]
pub(crate) struct HookStatus {
    pub hook: Hook,
    /// For example `tp_btf mark_victim`.
    pub using: Option<String>,
    /// Why not, or why not by the first choice.
    pub missing: Option<String>,
    /// The running kernel does not have what the hook attaches to: nothing is wrong with the host.
    pub absent: bool,
}

impl HookStatus {
    pub(crate) fn not_attached(hook: Hook, why: String) -> Self {
        Self {
            hook,
            using: None,
            missing: Some(why),
            absent: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Hook;

    #[test]
    fn what_each_hook_needs_of_a_configuration_is_in_the_table() {
        let table = include_str!("../../../../tests/vm/configurations.tsv");
        let rows = table.lines().filter(|line| !line.starts_with("# ")).skip(1);
        let named: Vec<&str> = rows
            .filter_map(|row| row.split('\t').nth(1))
            .flat_map(|hooks| hooks.split(", "))
            .collect();
        for hook in Hook::ALL {
            let name = hook.name();
            assert!(named.contains(&name), "{name} is in no row");
        }
        let known = |name: &&str| Hook::ALL.iter().any(|hook| hook.name() == *name);
        let others = named.iter().filter(|name| !known(name));
        let strange: Vec<_> = others
            .filter(|name| **name != "all" && !name.starts_with("none ("))
            .collect();
        assert!(strange.is_empty(), "{strange:?}");
    }

    #[test]
    fn each_hook_was_looked_at_on_every_kernel_of_the_matrix() {
        let table = include_str!("../../../../tests/vm/hooks.tsv");
        for hook in Hook::ALL {
            let of_it = |row: &&str| row.split('\t').nth(1) == Some(hook.name());
            let kernels = table.lines().filter(of_it).count();
            // Debian's four and the running one.
            assert_eq!(kernels, 5, "{}: run `cargo xtask vm`", hook.name());
        }
    }
}

//! PURE. The reason table: everything that can be reported, as metadata. Folding and corroboration
//! are functions of the core, not rules in the table.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::judgement::{self, Action};

mod accelerated;
mod allowances;
mod custom;
mod gpu;
mod hardware;
mod host;
mod intern;
mod kernel;
mod limits;
mod lockup;
mod networking;
mod neuron;
mod node_network;
mod node_storage;
mod nvswitch;
mod oops;
mod runtime;
mod starved;
mod storage;

pub(crate) use self::accelerated::FATAL_XIDS;
pub(crate) use self::intern::{LONGEST_NAME, intern, intern_unit, is_reason_name};

macro_rules! reasons {
    ($($reason:ident => $row:path,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Reason {
            $($reason,)+
            /// One reason for each number.
            NvidiaXidError(u32),
            NvidiaXidWarning(u32),
            /// The same for each SXid.
            NvidiaSxidError(u32),
            NvidiaSxidWarning(u32),
            /// One reason for each service, by the unit's name in the reason's form.
            UnitRepeatedRestart(&'static str),
            /// A user's own log rule.
            Custom {
                name: &'static str,
                condition: ConditionType,
            },
        }

        impl Reason {
            /// One for each row of the table; XID 79 and 31, SXid 20034 and 12028, and kubelet, for their
            /// families.
            pub(crate) const ALL: [Self; [$(stringify!($reason)),+].len() + 5] = [
                $(Self::$reason,)+
                Self::NvidiaXidError(79),
                Self::NvidiaXidWarning(31),
                Self::NvidiaSxidError(20034),
                Self::NvidiaSxidWarning(12028),
                Self::UnitRepeatedRestart("Kubelet"),
            ];

            pub(crate) fn row(self) -> &'static Row {
                match self {
                    $(Self::$reason => &$row,)+
                    Self::NvidiaXidError(_) => &accelerated::NVIDIA_XID_ERROR,
                    Self::NvidiaXidWarning(_) => &accelerated::NVIDIA_XID_WARNING,
                    Self::NvidiaSxidError(_) => &nvswitch::NVIDIA_SXID_ERROR,
                    Self::NvidiaSxidWarning(_) => &nvswitch::NVIDIA_SXID_WARNING,
                    Self::UnitRepeatedRestart(_) => &runtime::UNIT_REPEATED_RESTART,
                    Self::Custom { condition, .. } => custom::row(condition),
                }
            }
        }
    };
}

reasons! {
    OomKilling => kernel::OOM_KILLING,
    AppBlocked => kernel::APP_BLOCKED,
    SoftLockup => kernel::SOFT_LOCKUP,
    SignalsLost => kernel::SIGNALS_LOST,
    MonitoringGap => kernel::MONITORING_GAP,
    StateDamaged => kernel::STATE_DAMAGED,
    UnexpectedReboot => kernel::UNEXPECTED_REBOOT,
    UnexpectedRebootLoop => kernel::UNEXPECTED_REBOOT_LOOP,
    CheckHung => host::CHECK_HUNG,
    ConfigInvalid => kernel::CONFIG_INVALID,
    ConfigPending => kernel::CONFIG_PENDING,
    HardLockup => lockup::HARD_LOCKUP,
    RcuStall => lockup::RCU_STALL,
    WorkqueueLockup => lockup::WORKQUEUE_LOCKUP,
    KernelWarning => oops::KERNEL_WARNING,
    KernelBug => oops::KERNEL_BUG,
    KernelPanic => oops::KERNEL_PANIC,
    AppCrash => oops::APP_CRASH,
    PageAllocationFailure => kernel::PAGE_ALLOCATION_FAILURE,
    MachineCheck => hardware::MACHINE_CHECK,
    MachineCheckCorrected => hardware::MACHINE_CHECK_CORRECTED,
    EdacCorrectedError => hardware::EDAC_CORRECTED_ERROR,
    EdacUncorrectedError => hardware::EDAC_UNCORRECTED_ERROR,
    PcieCorrectedError => hardware::PCIE_CORRECTED_ERROR,
    PcieNonFatalError => hardware::PCIE_NON_FATAL_ERROR,
    PcieFatalError => hardware::PCIE_FATAL_ERROR,
    FirmwareCorrectedError => hardware::FIRMWARE_CORRECTED_ERROR,
    FirmwareHardwareError => hardware::FIRMWARE_HARDWARE_ERROR,
    MemoryPagePoisoned => hardware::MEMORY_PAGE_POISONED,
    KernelMemoryPoisoned => hardware::KERNEL_MEMORY_POISONED,
    CxlError => hardware::CXL_ERROR,
    CpuThrottled => hardware::CPU_THROTTLED,
    CriticalTemperature => hardware::CRITICAL_TEMPERATURE,
    ClocksourceUnstable => hardware::CLOCKSOURCE_UNSTABLE,
    NmiReceived => hardware::NMI_RECEIVED,
    PcieSlotPowerLow => hardware::PCIE_SLOT_POWER_LOW,
    MemoryStall => starved::MEMORY_STALL,
    CpuStolen => starved::CPU_STOLEN,
    CpuStarved => starved::CPU_STARVED,
    BlockIoError => storage::BLOCK_IO_ERROR,
    BlockIoStuck => storage::BLOCK_IO_STUCK,
    FilesystemError => storage::FILESYSTEM_ERROR,
    WritebackError => storage::WRITEBACK_ERROR,
    FilesystemReadOnly => storage::FILESYSTEM_READ_ONLY,
    PacketsDropped => networking::PACKETS_DROPPED,
    XfsShutdown => storage::XFS_SHUTDOWN,
    BtrfsReadOnly => storage::BTRFS_READ_ONLY,
    JournalAborted => storage::JOURNAL_ABORTED,
    NvmeTimeout => storage::NVME_TIMEOUT,
    NvmeCommandRetried => storage::NVME_COMMAND_RETRIED,
    NvmeControllerFailed => storage::NVME_CONTROLLER_FAILED,
    ScsiError => storage::SCSI_ERROR,
    ScsiDeviceOffline => storage::SCSI_DEVICE_OFFLINE,
    AtaError => storage::ATA_ERROR,
    RaidDegraded => storage::RAID_DEGRADED,
    DeviceMapperError => storage::DEVICE_MAPPER_ERROR,
    AccessBeyondEndOfDevice => storage::ACCESS_BEYOND_END_OF_DEVICE,
    NfsNotResponding => storage::NFS_NOT_RESPONDING,
    NfsLockLost => storage::NFS_LOCK_LOST,
    ConntrackExceededKernel => networking::CONNTRACK_EXCEEDED_KERNEL,
    NetworkTransmitTimeout => networking::NETWORK_TRANSMIT_TIMEOUT,
    DevlinkHealthError => networking::DEVLINK_HEALTH_ERROR,
    NetworkHardwareError => networking::NETWORK_HARDWARE_ERROR,
    NetdeviceLeak => networking::NETDEVICE_LEAK,
    NeighbourTableFull => networking::NEIGHBOUR_TABLE_FULL,
    SynFlood => networking::SYN_FLOOD,
    TcpMemoryExhausted => networking::TCP_MEMORY_EXHAUSTED,
    OrphanSocketsExceeded => networking::ORPHAN_SOCKETS_EXCEEDED,
    PidsLimitReached => limits::PIDS_LIMIT_REACHED,
    FileMaxReached => limits::FILE_MAX_REACHED,
    PcieLinkDown => limits::PCIE_LINK_DOWN,
    ForkFailedOutOfPids => host::FORK_FAILED_OUT_OF_PIDS,
    RapidCron => host::RAPID_CRON,
    ApproachingMaxOpenFiles => host::APPROACHING_MAX_OPEN_FILES,
    ApproachingKernelPidMax => host::APPROACHING_KERNEL_PID_MAX,
    ExcessiveZombieProcesses => host::EXCESSIVE_ZOMBIE_PROCESSES,
    LargeEnvironment => host::LARGE_ENVIRONMENT,
    ClockUnsynchronized => host::CLOCK_UNSYNCHRONIZED,
    ZramHighUsage => host::ZRAM_HIGH_USAGE,
    PodStuckTerminating => runtime::POD_STUCK_TERMINATING,
    KubeletFailed => runtime::KUBELET_FAILED,
    KubeletUnresponsive => runtime::KUBELET_UNRESPONSIVE,
    KubeletCertificateExpired => runtime::KUBELET_CERTIFICATE_EXPIRED,
    ContainerRuntimeFailed => runtime::CONTAINER_RUNTIME_FAILED,
    ReadinessProbeFailures => runtime::READINESS_PROBE_FAILURES,
    LivenessProbeFailures => runtime::LIVENESS_PROBE_FAILURES,
    ServiceFailedToStart => runtime::SERVICE_FAILED_TO_START,
    DeprecatedContainerdConfiguration => runtime::DEPRECATED_CONTAINERD_CONFIGURATION,
    MissingLoopbackInterface => node_network::MISSING_LOOPBACK_INTERFACE,
    InterfaceNotUp => node_network::INTERFACE_NOT_UP,
    InterfaceNotRunning => node_network::INTERFACE_NOT_RUNNING,
    IpamdNotReady => node_network::IPAMD_NOT_READY,
    IpamdRepeatedlyRestart => node_network::IPAMD_REPEATEDLY_RESTART,
    IpamdNoIps => node_network::IPAMD_NO_IPS,
    IpamdNotRunning => node_network::IPAMD_NOT_RUNNING,
    IpamdInconsistentState => node_network::IPAMD_INCONSISTENT_STATE,
    NetworkSysctl => node_network::NETWORK_SYSCTL,
    MissingIpRules => node_network::MISSING_IP_RULES,
    MissingIpRoutes => node_network::MISSING_IP_ROUTES,
    MissingDefaultRoutes => node_network::MISSING_DEFAULT_ROUTES,
    PortConflict => node_network::PORT_CONFLICT,
    UnexpectedRejectRule => node_network::UNEXPECTED_REJECT_RULE,
    MacAddressPolicyMisconfigured => node_network::MAC_ADDRESS_POLICY_MISCONFIGURED,
    KubeProxyNotReady => node_network::KUBE_PROXY_NOT_READY,
    NpaNotRunning => node_network::NPA_NOT_RUNNING,
    EfaErrorMetric => node_network::EFA_ERROR_METRIC,
    NpaRepeatedlyRestart => node_network::NPA_REPEATEDLY_RESTART,
    NpaBpfRecoveryError => node_network::NPA_BPF_RECOVERY_ERROR,
    KubeletDiskUsageSlow => node_storage::KUBELET_DISK_USAGE_SLOW,
    EtcHostsMountFailed => node_storage::ETC_HOSTS_MOUNT_FAILED,
    IoDelays => node_storage::IO_DELAYS,
    DiskNearlyFull => node_storage::DISK_NEARLY_FULL,
    XfsSmallAverageClusterSize => node_storage::XFS_SMALL_AVERAGE_CLUSTER_SIZE,
    BandwidthInExceeded => allowances::BANDWIDTH_IN_EXCEEDED,
    BandwidthOutExceeded => allowances::BANDWIDTH_OUT_EXCEEDED,
    PpsExceeded => allowances::PPS_EXCEEDED,
    ConntrackExceeded => allowances::CONNTRACK_EXCEEDED,
    LinkLocalExceeded => allowances::LINK_LOCAL_EXCEEDED,
    EbsVolumeIopsExceeded => allowances::EBS_VOLUME_IOPS_EXCEEDED,
    EbsVolumeThroughputExceeded => allowances::EBS_VOLUME_THROUGHPUT_EXCEEDED,
    EbsInstanceIopsExceeded => allowances::EBS_INSTANCE_IOPS_EXCEEDED,
    EbsInstanceThroughputExceeded => allowances::EBS_INSTANCE_THROUGHPUT_EXCEEDED,
    NvidiaDeviceCountMismatch => accelerated::NVIDIA_DEVICE_COUNT_MISMATCH,
    NvidiaDoubleBitError => accelerated::NVIDIA_DOUBLE_BIT_ERROR,
    NvidiaGpuRecoveryNeeded => accelerated::NVIDIA_GPU_RECOVERY_NEEDED,
    NvidiaRowRemapFailure => accelerated::NVIDIA_ROW_REMAP_FAILURE,
    NvidiaSramThresholdExceeded => accelerated::NVIDIA_SRAM_THRESHOLD_EXCEEDED,
    NvidiaPageRetirement => accelerated::NVIDIA_PAGE_RETIREMENT,
    NvidiaNvlinkError => nvswitch::NVIDIA_NVLINK_ERROR,
    NvidiaNvlinkWarning => nvswitch::NVIDIA_NVLINK_WARNING,
    NvidiaFabricError => nvswitch::NVIDIA_FABRIC_ERROR,
    FabricManagerNotRunning => nvswitch::FABRIC_MANAGER_NOT_RUNNING,
    NvidiaThermalError => accelerated::NVIDIA_THERMAL_ERROR,
    NvidiaPowerError => accelerated::NVIDIA_POWER_ERROR,
    NvidiaPcieError => accelerated::NVIDIA_PCIE_ERROR,
    NvidiaPcieLinkDegraded => accelerated::NVIDIA_PCIE_LINK_DEGRADED,
    NvidiaInforomCorrupted => accelerated::NVIDIA_INFOROM_CORRUPTED,
    NvidiaGpuSuspected => accelerated::NVIDIA_GPU_SUSPECTED,
    NvidiaNcclError => gpu::NVIDIA_NCCL_ERROR,
    NvidiaPeermemError => gpu::NVIDIA_PEERMEM_ERROR,
    GpuHang => gpu::GPU_HANG,
    GpuResetFailed => gpu::GPU_RESET_FAILED,
    GpuMemoryError => gpu::GPU_MEMORY_ERROR,
    NeuronSramUncorrectableError => neuron::SRAM_UNCORRECTABLE_ERROR,
    NeuronNcUncorrectableError => neuron::NC_UNCORRECTABLE_ERROR,
    NeuronHbmUncorrectableError => neuron::HBM_UNCORRECTABLE_ERROR,
    NeuronDmaError => neuron::DMA_ERROR,
    NvmlHung => accelerated::NVML_HUNG,
    NvmlError => accelerated::NVML_ERROR,
}

/// Condition types and healthy reasons are those of EKS's node monitoring agent; True = healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::enum_variant_names, reason = "the names of the API")]
pub(crate) enum ConditionType {
    KernelReady,
    StorageReady,
    NetworkingReady,
    ContainerRuntimeReady,
    AcceleratedHardwareReady,
}

/// Fatal makes the condition False, a Warning is an Event only, Info is in the metrics and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Severity {
    Info,
    Warning,
    Fatal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clears {
    /// No new signal for this long.
    Quiet(Duration),
    /// The evidence was read again, and the fault has been gone for the time `settle`.
    Recovered { settle: Duration },
    /// The same where NVML can say it; otherwise only a reboot ends it.
    RecoveredOrReboot { settle: Duration },
    /// Nothing but a reboot ends it.
    Reboot,
}

pub(crate) struct Row {
    /// `<n>` stands for the number of a family.
    pub name: &'static str,
    pub condition: ConditionType,
    /// The worst it can be.
    pub severity: Severity,
    pub clears: Clears,
    /// EKS's node monitoring agent has this reason as well.
    pub eks: bool,
    pub threshold: &'static str,
    pub meaning: &'static str,
    pub cause: &'static str,
    pub advice: &'static str,
    /// Where the fact comes from.
    pub source: &'static str,
}

impl Reason {
    pub(crate) fn name(self) -> Cow<'static, str> {
        let name = self.row().name;
        match self {
            Self::Custom { name, .. } => Cow::Borrowed(name),
            Self::UnitRepeatedRestart(unit) => Cow::Owned(name.replace("<Unit>", unit)),
            Self::NvidiaXidError(number)
            | Self::NvidiaXidWarning(number)
            | Self::NvidiaSxidError(number)
            | Self::NvidiaSxidWarning(number) => {
                Cow::Owned(name.replace("<n>", &number.to_string()))
            }
            _plain => Cow::Borrowed(name),
        }
    }

    /// The driver without which nothing can print such a line of the kernel log.
    pub(crate) fn driver(self) -> Option<&'static str> {
        match self {
            Self::NeuronSramUncorrectableError
            | Self::NeuronNcUncorrectableError
            | Self::NeuronHbmUncorrectableError
            | Self::NeuronDmaError => Some("neuron"),
            _other => None,
        }
    }

    /// What helps, where a table says so.
    pub(crate) fn action(self) -> Option<Action> {
        let action = match self {
            // Only where its line was decoded as fatal.
            Self::NvidiaXidError(xid) if judgement::nvlink5::is_decoded(xid) => Action::ResetGpu,
            Self::NvidiaXidError(xid) | Self::NvidiaXidWarning(xid) => {
                judgement::xid(xid).map_or(Action::Inspect, |row| row.action)
            }
            Self::NvidiaSxidError(_) => Action::Reboot,
            Self::NvidiaSxidWarning(sxid) => {
                judgement::sxid(sxid).map_or(Action::Inspect, |row| row.action)
            }
            Self::NvidiaDeviceCountMismatch
            | Self::NvidiaFabricError
            | Self::FabricManagerNotRunning => Action::Reboot,
            Self::NvidiaDoubleBitError
            | Self::NvidiaGpuRecoveryNeeded
            | Self::NvidiaPageRetirement
            | Self::NvidiaNvlinkError => Action::ResetGpu,
            Self::NvidiaRowRemapFailure
            | Self::NvidiaSramThresholdExceeded
            | Self::NeuronSramUncorrectableError
            | Self::NeuronNcUncorrectableError
            | Self::NeuronHbmUncorrectableError
            | Self::NeuronDmaError => Action::Replace,
            Self::NvidiaThermalError
            | Self::NvidiaPowerError
            | Self::NvidiaPcieError
            | Self::NvidiaPcieLinkDegraded
            | Self::NvidiaInforomCorrupted
            | Self::NvidiaNvlinkWarning
            | Self::NvidiaGpuSuspected => Action::Inspect,
            _not_of_a_device => return None,
        };
        Some(action)
    }

    /// A reason of the table by its name, as [`Reason::name`] gives it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let code = |prefix, suffix| {
            let number: u32 = name
                .strip_prefix(prefix)?
                .strip_suffix(suffix)?
                .parse()
                .ok()?;
            // `+79` and `079` are no names of it.
            (name == format!("{prefix}{number}{suffix}")).then_some(number)
        };
        Self::ALL
            .into_iter()
            .find(|reason| reason.name() == name)
            .or_else(|| code("NvidiaXID", "Error").map(Self::NvidiaXidError))
            .or_else(|| code("NvidiaXID", "Warning").map(Self::NvidiaXidWarning))
            .or_else(|| code("NvidiaSXID", "Error").map(Self::NvidiaSxidError))
            .or_else(|| code("NvidiaSXID", "Warning").map(Self::NvidiaSxidWarning))
            .or_else(|| {
                let unit = intern_unit(name.strip_suffix("RepeatedRestart")?)?;
                Some(Self::UnitRepeatedRestart(unit))
            })
    }
}

impl ConditionType {
    pub(crate) const ALL: [Self; 5] = [
        Self::KernelReady,
        Self::StorageReady,
        Self::NetworkingReady,
        Self::ContainerRuntimeReady,
        Self::AcceleratedHardwareReady,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KernelReady => "KernelReady",
            Self::StorageReady => "StorageReady",
            Self::NetworkingReady => "NetworkingReady",
            Self::ContainerRuntimeReady => "ContainerRuntimeReady",
            Self::AcceleratedHardwareReady => "AcceleratedHardwareReady",
        }
    }

    pub(crate) fn healthy_reason(self) -> &'static str {
        match self {
            Self::KernelReady => "KernelIsReady",
            Self::StorageReady => "StorageIsReady",
            Self::NetworkingReady => "NetworkingIsReady",
            Self::ContainerRuntimeReady => "ContainerRuntimeIsReady",
            Self::AcceleratedHardwareReady => "NvidiaGPUIsReady",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Fatal => "Fatal",
        })
    }
}

impl Severity {
    /// What this agent makes of it, and what follows.
    pub(crate) fn consequence(self) -> &'static str {
        match self {
            Self::Info => "Counts it in the metrics and writes it to its log. No Event.",
            Self::Warning => {
                "An Event on the Node, and on the pod where there is one. The condition stays as it is."
            }
            Self::Fatal => {
                "Events, and the condition False until it clears. A RepairPolicy in mode `Enforce` cordons and drains the node after the wait of its rule, and reboots or replaces it."
            }
        }
    }
}

impl fmt::Display for Clears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet(quiet) => {
                let minutes = quiet.as_secs() / 60;
                match minutes % 60 {
                    0 if minutes == 60 => f.write_str("after an hour")?,
                    0 => write!(f, "after {} hours", minutes / 60)?,
                    _ => write!(f, "after {minutes} minutes")?,
                }
                f.write_str(" without a new signal")
            }
            Self::Recovered { settle } => {
                f.write_str(
                    "when the evidence, read again every 10 seconds, says that it is over",
                )?;
                settled(*settle, f)
            }
            Self::RecoveredOrReboot { settle } => {
                f.write_str("when NVML, which had called the GPU lost or in need of recovery, says that it is well again")?;
                settled(*settle, f)?;
                f.write_str("; else with the next boot")
            }
            Self::Reboot => f.write_str("with the next boot"),
        }
    }
}

fn settled(settle: Duration, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if settle.is_zero() {
        return Ok(());
    }
    write!(f, " and has been for {} seconds", settle.as_secs())
}

#[cfg(test)]
mod eks;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_name() {
        for reason in Reason::ALL
            .into_iter()
            .chain([Reason::NvidiaXidWarning(43), Reason::NvidiaSxidError(11001)])
        {
            assert_eq!(Reason::from_name(&reason.name()), Some(reason));
        }
        assert_eq!(Reason::from_name("NvidiaXID+79Error"), None);
        assert_eq!(Reason::from_name("NvidiaXID<n>Error"), None);
        assert_eq!(Reason::from_name("NvidiaSXID020034Error"), None);
    }

    #[test]
    fn names_are_unique_and_fit_a_condition_reason() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        for name in &names {
            assert!(
                name.bytes().all(|b| b.is_ascii_alphanumeric()),
                "{name}: Kubernetes asks for CamelCase"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}

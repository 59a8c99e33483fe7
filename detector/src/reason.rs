//! PURE. The reason table: everything that can be reported, as metadata. Folding and corroboration
//! are functions of the core, not rules in the table.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod accelerated;
mod custom;
mod hardware;
mod intern;
mod kernel;
mod limits;
mod lockup;
mod networking;
mod oops;
mod storage;

pub(crate) use self::accelerated::FATAL_XIDS;
pub(crate) use self::intern::{LONGEST_NAME, intern, is_reason_name};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    OomKilling,
    AppBlocked,
    SoftLockup,
    SignalsLost,
    MonitoringGap,
    StateDamaged,
    UnexpectedReboot,
    UnexpectedRebootLoop,
    ConfigInvalid,
    ConfigPending,
    HardLockup,
    RcuStall,
    WorkqueueLockup,
    KernelWarning,
    KernelBug,
    KernelPanic,
    AppCrash,
    PageAllocationFailure,
    MachineCheck,
    MachineCheckCorrected,
    EdacCorrectedError,
    EdacUncorrectedError,
    PcieCorrectedError,
    PcieNonFatalError,
    PcieFatalError,
    FirmwareCorrectedError,
    FirmwareHardwareError,
    MemoryPagePoisoned,
    CpuThrottled,
    CriticalTemperature,
    ClocksourceUnstable,
    NmiReceived,
    PcieSlotPowerLow,
    BlockIoError,
    FilesystemError,
    FilesystemReadOnly,
    PacketsDropped,
    XfsShutdown,
    BtrfsReadOnly,
    JournalAborted,
    NvmeTimeout,
    NvmeControllerFailed,
    ScsiError,
    ScsiDeviceOffline,
    AtaError,
    RaidDegraded,
    DeviceMapperError,
    AccessBeyondEndOfDevice,
    NfsNotResponding,
    NfsLockLost,
    ConntrackExceededKernel,
    NetworkTransmitTimeout,
    NetworkHardwareError,
    NetdeviceLeak,
    NeighbourTableFull,
    SynFlood,
    TcpMemoryExhausted,
    OrphanSocketsExceeded,
    PidsLimitReached,
    FileMaxReached,
    PcieLinkDown,
    /// One reason for each number.
    NvidiaXidError(u32),
    NvidiaXidWarning(u32),
    NvidiaDeviceCountMismatch,
    NvidiaDoubleBitError,
    NvmlHung,
    NvmlError,
    /// A user's own log rule.
    Custom {
        name: &'static str,
        condition: ConditionType,
    },
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
    pub(crate) fn row(self) -> &'static Row {
        match self {
            Self::OomKilling => &kernel::OOM_KILLING,
            Self::AppBlocked => &kernel::APP_BLOCKED,
            Self::SoftLockup => &kernel::SOFT_LOCKUP,
            Self::SignalsLost => &kernel::SIGNALS_LOST,
            Self::MonitoringGap => &kernel::MONITORING_GAP,
            Self::StateDamaged => &kernel::STATE_DAMAGED,
            Self::UnexpectedReboot => &kernel::UNEXPECTED_REBOOT,
            Self::UnexpectedRebootLoop => &kernel::UNEXPECTED_REBOOT_LOOP,
            Self::ConfigInvalid => &kernel::CONFIG_INVALID,
            Self::ConfigPending => &kernel::CONFIG_PENDING,
            Self::HardLockup => &lockup::HARD_LOCKUP,
            Self::RcuStall => &lockup::RCU_STALL,
            Self::WorkqueueLockup => &lockup::WORKQUEUE_LOCKUP,
            Self::KernelWarning => &oops::KERNEL_WARNING,
            Self::KernelBug => &oops::KERNEL_BUG,
            Self::KernelPanic => &oops::KERNEL_PANIC,
            Self::AppCrash => &oops::APP_CRASH,
            Self::PageAllocationFailure => &kernel::PAGE_ALLOCATION_FAILURE,
            Self::MachineCheck => &hardware::MACHINE_CHECK,
            Self::MachineCheckCorrected => &hardware::MACHINE_CHECK_CORRECTED,
            Self::EdacCorrectedError => &hardware::EDAC_CORRECTED_ERROR,
            Self::EdacUncorrectedError => &hardware::EDAC_UNCORRECTED_ERROR,
            Self::PcieCorrectedError => &hardware::PCIE_CORRECTED_ERROR,
            Self::PcieNonFatalError => &hardware::PCIE_NON_FATAL_ERROR,
            Self::PcieFatalError => &hardware::PCIE_FATAL_ERROR,
            Self::FirmwareCorrectedError => &hardware::FIRMWARE_CORRECTED_ERROR,
            Self::FirmwareHardwareError => &hardware::FIRMWARE_HARDWARE_ERROR,
            Self::MemoryPagePoisoned => &hardware::MEMORY_PAGE_POISONED,
            Self::CpuThrottled => &hardware::CPU_THROTTLED,
            Self::CriticalTemperature => &hardware::CRITICAL_TEMPERATURE,
            Self::ClocksourceUnstable => &hardware::CLOCKSOURCE_UNSTABLE,
            Self::NmiReceived => &hardware::NMI_RECEIVED,
            Self::PcieSlotPowerLow => &hardware::PCIE_SLOT_POWER_LOW,
            Self::BlockIoError => &storage::BLOCK_IO_ERROR,
            Self::FilesystemError => &storage::FILESYSTEM_ERROR,
            Self::FilesystemReadOnly => &storage::FILESYSTEM_READ_ONLY,
            Self::PacketsDropped => &networking::PACKETS_DROPPED,
            Self::XfsShutdown => &storage::XFS_SHUTDOWN,
            Self::BtrfsReadOnly => &storage::BTRFS_READ_ONLY,
            Self::JournalAborted => &storage::JOURNAL_ABORTED,
            Self::NvmeTimeout => &storage::NVME_TIMEOUT,
            Self::NvmeControllerFailed => &storage::NVME_CONTROLLER_FAILED,
            Self::ScsiError => &storage::SCSI_ERROR,
            Self::ScsiDeviceOffline => &storage::SCSI_DEVICE_OFFLINE,
            Self::AtaError => &storage::ATA_ERROR,
            Self::RaidDegraded => &storage::RAID_DEGRADED,
            Self::DeviceMapperError => &storage::DEVICE_MAPPER_ERROR,
            Self::AccessBeyondEndOfDevice => &storage::ACCESS_BEYOND_END_OF_DEVICE,
            Self::NfsNotResponding => &storage::NFS_NOT_RESPONDING,
            Self::NfsLockLost => &storage::NFS_LOCK_LOST,
            Self::ConntrackExceededKernel => &networking::CONNTRACK_EXCEEDED_KERNEL,
            Self::NetworkTransmitTimeout => &networking::NETWORK_TRANSMIT_TIMEOUT,
            Self::NetworkHardwareError => &networking::NETWORK_HARDWARE_ERROR,
            Self::NetdeviceLeak => &networking::NETDEVICE_LEAK,
            Self::NeighbourTableFull => &networking::NEIGHBOUR_TABLE_FULL,
            Self::SynFlood => &networking::SYN_FLOOD,
            Self::TcpMemoryExhausted => &networking::TCP_MEMORY_EXHAUSTED,
            Self::OrphanSocketsExceeded => &networking::ORPHAN_SOCKETS_EXCEEDED,
            Self::PidsLimitReached => &limits::PIDS_LIMIT_REACHED,
            Self::FileMaxReached => &limits::FILE_MAX_REACHED,
            Self::PcieLinkDown => &limits::PCIE_LINK_DOWN,
            Self::NvidiaXidError(_) => &accelerated::NVIDIA_XID_ERROR,
            Self::NvidiaXidWarning(_) => &accelerated::NVIDIA_XID_WARNING,
            Self::NvidiaDeviceCountMismatch => &accelerated::NVIDIA_DEVICE_COUNT_MISMATCH,
            Self::NvidiaDoubleBitError => &accelerated::NVIDIA_DOUBLE_BIT_ERROR,
            Self::NvmlHung => &accelerated::NVML_HUNG,
            Self::NvmlError => &accelerated::NVML_ERROR,
            Self::Custom { condition, .. } => custom::row(condition),
        }
    }

    pub(crate) fn name(self) -> Cow<'static, str> {
        let name = self.row().name;
        match self {
            Self::Custom { name, .. } => Cow::Borrowed(name),
            Self::NvidiaXidError(number) | Self::NvidiaXidWarning(number) => {
                Cow::Owned(name.replace("<n>", &number.to_string()))
            }
            Self::OomKilling
            | Self::AppBlocked
            | Self::SoftLockup
            | Self::SignalsLost
            | Self::MonitoringGap
            | Self::StateDamaged
            | Self::UnexpectedReboot
            | Self::UnexpectedRebootLoop
            | Self::ConfigInvalid
            | Self::ConfigPending
            | Self::HardLockup
            | Self::RcuStall
            | Self::WorkqueueLockup
            | Self::KernelWarning
            | Self::KernelBug
            | Self::KernelPanic
            | Self::AppCrash
            | Self::PageAllocationFailure
            | Self::MachineCheck
            | Self::MachineCheckCorrected
            | Self::EdacCorrectedError
            | Self::EdacUncorrectedError
            | Self::PcieCorrectedError
            | Self::PcieNonFatalError
            | Self::PcieFatalError
            | Self::FirmwareCorrectedError
            | Self::FirmwareHardwareError
            | Self::MemoryPagePoisoned
            | Self::CpuThrottled
            | Self::CriticalTemperature
            | Self::ClocksourceUnstable
            | Self::NmiReceived
            | Self::PcieSlotPowerLow
            | Self::BlockIoError
            | Self::FilesystemError
            | Self::FilesystemReadOnly
            | Self::PacketsDropped
            | Self::XfsShutdown
            | Self::BtrfsReadOnly
            | Self::JournalAborted
            | Self::NvmeTimeout
            | Self::NvmeControllerFailed
            | Self::ScsiError
            | Self::ScsiDeviceOffline
            | Self::AtaError
            | Self::RaidDegraded
            | Self::DeviceMapperError
            | Self::AccessBeyondEndOfDevice
            | Self::NfsNotResponding
            | Self::NfsLockLost
            | Self::ConntrackExceededKernel
            | Self::NetworkTransmitTimeout
            | Self::NetworkHardwareError
            | Self::NetdeviceLeak
            | Self::NeighbourTableFull
            | Self::SynFlood
            | Self::TcpMemoryExhausted
            | Self::OrphanSocketsExceeded
            | Self::PidsLimitReached
            | Self::FileMaxReached
            | Self::PcieLinkDown
            | Self::NvidiaDeviceCountMismatch
            | Self::NvidiaDoubleBitError
            | Self::NvmlHung
            | Self::NvmlError => Cow::Borrowed(name),
        }
    }

    /// A reason of the table by its name, as [`Reason::name`] gives it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let xid = |suffix| {
            let number: u32 = name
                .strip_prefix("NvidiaXID")?
                .strip_suffix(suffix)?
                .parse()
                .ok()?;
            // `+79` and `079` are no names of it.
            (name == format!("NvidiaXID{number}{suffix}")).then_some(number)
        };
        Self::ALL
            .into_iter()
            .find(|reason| reason.name() == name)
            .or_else(|| xid("Error").map(Self::NvidiaXidError))
            .or_else(|| xid("Warning").map(Self::NvidiaXidWarning))
    }

    /// One for each row of the table; XID 79 and 31 for their families.
    pub(crate) const ALL: [Self; 67] = [
        Self::OomKilling,
        Self::AppBlocked,
        Self::SoftLockup,
        Self::SignalsLost,
        Self::MonitoringGap,
        Self::StateDamaged,
        Self::UnexpectedReboot,
        Self::UnexpectedRebootLoop,
        Self::ConfigInvalid,
        Self::ConfigPending,
        Self::HardLockup,
        Self::RcuStall,
        Self::WorkqueueLockup,
        Self::KernelWarning,
        Self::KernelBug,
        Self::KernelPanic,
        Self::AppCrash,
        Self::PageAllocationFailure,
        Self::MachineCheck,
        Self::MachineCheckCorrected,
        Self::EdacCorrectedError,
        Self::EdacUncorrectedError,
        Self::PcieCorrectedError,
        Self::PcieNonFatalError,
        Self::PcieFatalError,
        Self::FirmwareCorrectedError,
        Self::FirmwareHardwareError,
        Self::MemoryPagePoisoned,
        Self::CpuThrottled,
        Self::CriticalTemperature,
        Self::ClocksourceUnstable,
        Self::NmiReceived,
        Self::PcieSlotPowerLow,
        Self::BlockIoError,
        Self::FilesystemError,
        Self::FilesystemReadOnly,
        Self::PacketsDropped,
        Self::XfsShutdown,
        Self::BtrfsReadOnly,
        Self::JournalAborted,
        Self::NvmeTimeout,
        Self::NvmeControllerFailed,
        Self::ScsiError,
        Self::ScsiDeviceOffline,
        Self::AtaError,
        Self::RaidDegraded,
        Self::DeviceMapperError,
        Self::AccessBeyondEndOfDevice,
        Self::NfsNotResponding,
        Self::NfsLockLost,
        Self::ConntrackExceededKernel,
        Self::NetworkTransmitTimeout,
        Self::NetworkHardwareError,
        Self::NetdeviceLeak,
        Self::NeighbourTableFull,
        Self::SynFlood,
        Self::TcpMemoryExhausted,
        Self::OrphanSocketsExceeded,
        Self::PidsLimitReached,
        Self::FileMaxReached,
        Self::PcieLinkDown,
        Self::NvidiaXidError(79),
        Self::NvidiaXidWarning(31),
        Self::NvidiaDeviceCountMismatch,
        Self::NvidiaDoubleBitError,
        Self::NvmlHung,
        Self::NvmlError,
    ];
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
                "Events, and the condition False until it clears. A RepairPolicy in mode `Enforce` cordons, drains and replaces the node after the wait of its rule."
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
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_name() {
        for reason in Reason::ALL
            .into_iter()
            .chain([Reason::NvidiaXidWarning(43)])
        {
            assert_eq!(Reason::from_name(&reason.name()), Some(reason));
        }
        assert_eq!(Reason::from_name("NvidiaXID+79Error"), None);
        assert_eq!(Reason::from_name("NvidiaXID<n>Error"), None);
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

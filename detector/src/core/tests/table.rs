//! Each row of the reason table opens by what its source says, and clears by its rule: a new row
//! does not compile here before it has both.

use super::accelerated::{errors, gpu, line, line_of, lost, state, sxid_line};
use super::*;
use crate::reason::{Clears, Row};
use crate::signal::{Counted, LogFault, Nvml, Recovery};

const START: u64 = 100;

/// Its fault happens, or its evidence says that it is so.
fn broken(core: &mut Core, reason: Reason, now: Now) -> Vec<Output> {
    let what = match reason {
        Reason::OomKilling => oom(7),
        Reason::AppBlocked => What::HungTask {
            task: Task::default(),
        },
        Reason::SoftLockup => What::SoftLockup {
            cpu: 1,
            seconds: 26,
            task: Task::default(),
        },
        Reason::SignalsLost => What::Lost {
            source: SourceName::Kmsg,
            count: 1,
        },
        Reason::MonitoringGap => {
            let state = State::new(String::new(), at(START - 2), at(1).boot);
            return core.restore(&state, now);
        }
        Reason::StateDamaged => return core.state_damaged("cut off", now),
        Reason::UnexpectedReboot => What::UnexpectedBoot {
            count: 1,
            last_words: None,
        },
        Reason::UnexpectedRebootLoop => What::UnexpectedBoot {
            count: 3,
            last_words: None,
        },
        Reason::ConfigInvalid => configuration(Some("1:1: x"), None),
        Reason::ConfigPending => configuration(None, Some("sources.nvml")),
        Reason::HardLockup
        | Reason::RcuStall
        | Reason::WorkqueueLockup
        | Reason::KernelWarning
        | Reason::KernelBug
        | Reason::KernelPanic
        | Reason::AppCrash
        | Reason::PageAllocationFailure
        | Reason::MachineCheck
        | Reason::MachineCheckCorrected
        | Reason::EdacCorrectedError
        | Reason::EdacUncorrectedError
        | Reason::PcieCorrectedError
        | Reason::PcieNonFatalError
        | Reason::PcieFatalError
        | Reason::FirmwareCorrectedError
        | Reason::FirmwareHardwareError
        | Reason::MemoryPagePoisoned
        | Reason::CpuThrottled
        | Reason::CriticalTemperature
        | Reason::ClocksourceUnstable
        | Reason::NmiReceived
        | Reason::PcieSlotPowerLow => logged(reason),
        Reason::KernelMemoryPoisoned
        | Reason::CxlError
        | Reason::WritebackError
        | Reason::NvmeCommandRetried
        | Reason::DevlinkHealthError => What::Traced {
            fault: LogFault::new(reason, "x".to_owned(), "m".to_owned()),
            count: 1,
        },
        Reason::BlockIoStuck
        | Reason::MemoryStall
        | Reason::CpuStolen
        | Reason::CpuStarved
        | Reason::ApproachingMaxOpenFiles
        | Reason::ApproachingKernelPidMax
        | Reason::ExcessiveZombieProcesses
        | Reason::LargeEnvironment
        | Reason::ClockUnsynchronized
        | Reason::ZramHighUsage
        | Reason::MissingLoopbackInterface
        | Reason::InterfaceNotUp
        | Reason::InterfaceNotRunning
        | Reason::IpamdNotRunning
        | Reason::NetworkSysctl
        | Reason::CheckHung
        | Reason::MissingIpRules
        | Reason::MissingIpRoutes
        | Reason::MissingDefaultRoutes
        | Reason::PortConflict
        | Reason::UnexpectedRejectRule
        | Reason::MacAddressPolicyMisconfigured
        | Reason::NpaNotRunning
        | Reason::KubeletUnresponsive
        | Reason::KubeletCertificateExpired
        | Reason::DiskNearlyFull
        | Reason::DeprecatedContainerdConfiguration
        | Reason::IpamdInconsistentState
        | Reason::XfsSmallAverageClusterSize => counted(reason, Counted::Still),
        Reason::RapidCron
        | Reason::PodStuckTerminating
        | Reason::ReadinessProbeFailures
        | Reason::LivenessProbeFailures
        | Reason::UnitRepeatedRestart(_)
        | Reason::NpaRepeatedlyRestart
        | Reason::IpamdNotReady
        | Reason::IpamdRepeatedlyRestart => return enough(core, reason, now),
        Reason::EfaErrorMetric
        | Reason::KubeProxyNotReady
        | Reason::IoDelays
        | Reason::BandwidthInExceeded
        | Reason::BandwidthOutExceeded
        | Reason::PpsExceeded
        | Reason::ConntrackExceeded
        | Reason::LinkLocalExceeded
        | Reason::EbsVolumeIopsExceeded
        | Reason::EbsVolumeThroughputExceeded
        | Reason::EbsInstanceIopsExceeded
        | Reason::EbsInstanceThroughputExceeded => counted(reason, Counted::Times(1)),
        Reason::ForkFailedOutOfPids
        | Reason::KubeletFailed
        | Reason::ContainerRuntimeFailed
        | Reason::ServiceFailedToStart
        | Reason::IpamdNoIps
        | Reason::NpaBpfRecoveryError
        | Reason::KubeletDiskUsageSlow
        | Reason::EtcHostsMountFailed => logged(reason),
        Reason::BlockIoError => io_error("sda"),
        Reason::FilesystemError => What::Ext4Error {
            device: "sda1".to_owned(),
            detail: "f:1: x".to_owned(),
        },
        Reason::FilesystemReadOnly => {
            core.step(signal(read_only_line("sda1"), now), now);
            return core.step(evidence("sda1", read_only(true)), now);
        }
        Reason::PacketsDropped => What::PacketDrops {
            reason: "SOCKET_RCVBUFF".to_owned(),
            count: 100,
            window: Duration::from_secs(1),
            interface: None,
            local_port: None,
            netns: None,
            workload: None,
        },
        Reason::XfsShutdown
        | Reason::BtrfsReadOnly
        | Reason::JournalAborted
        | Reason::NvmeTimeout
        | Reason::NvmeControllerFailed
        | Reason::ScsiError
        | Reason::ScsiDeviceOffline
        | Reason::AtaError
        | Reason::RaidDegraded
        | Reason::DeviceMapperError
        | Reason::AccessBeyondEndOfDevice
        | Reason::NfsNotResponding
        | Reason::NfsLockLost
        | Reason::ConntrackExceededKernel
        | Reason::NetworkTransmitTimeout
        | Reason::NetworkHardwareError
        | Reason::NetdeviceLeak
        | Reason::NeighbourTableFull
        | Reason::SynFlood
        | Reason::TcpMemoryExhausted
        | Reason::OrphanSocketsExceeded
        | Reason::PidsLimitReached
        | Reason::FileMaxReached
        | Reason::PcieLinkDown => logged(reason),
        Reason::NvidiaXidError(xid) => {
            let needed = core.step(signal(state(Recovery::Needed), now), now);
            let mut outputs = core.step(signal(line(xid), now), now);
            outputs.extend(needed);
            return outputs;
        }
        Reason::NvidiaXidWarning(xid) => line(xid),
        Reason::NvidiaSxidError(sxid) => sxid_line(sxid, "Fatal, Link 30"),
        Reason::NvidiaSxidWarning(sxid) => sxid_line(sxid, "Non-fatal, Link 30"),
        Reason::NvidiaGpuRecoveryNeeded => state(Recovery::Needed),
        Reason::NvidiaRowRemapFailure
        | Reason::NvidiaSramThresholdExceeded
        | Reason::NvidiaInforomCorrupted
        | Reason::NvidiaPcieLinkDegraded
        | Reason::NvidiaPageRetirement
        | Reason::NvidiaThermalError
        | Reason::NvidiaPowerError
        | Reason::NvidiaNvlinkError
        | Reason::NvidiaFabricError
        | Reason::FabricManagerNotRunning => {
            core.step(signal(gpu(false), now), now);
            gpu(true)
        }
        Reason::NvidiaPcieError => return enough(core, reason, now),
        Reason::NvidiaGpuSuspected => {
            for (pid, name) in [(1, "train"), (2, "train")] {
                core.step(signal(line_of(31, pid, name), now), now);
            }
            line_of(13, 3, "infer")
        }
        Reason::NvidiaNvlinkWarning
        | Reason::NvidiaNcclError
        | Reason::NvidiaPeermemError
        | Reason::GpuHang
        | Reason::GpuResetFailed
        | Reason::GpuMemoryError
        | Reason::NeuronSramUncorrectableError
        | Reason::NeuronNcUncorrectableError
        | Reason::NeuronHbmUncorrectableError
        | Reason::NeuronDmaError => logged(reason),
        Reason::NvidiaDeviceCountMismatch => lost(),
        Reason::NvidiaDoubleBitError => {
            core.step(signal(errors(0), now), now);
            errors(3)
        }
        Reason::NvmlHung => What::Nvml(Nvml::Hung {
            call: "nvmlInit_v2",
            gpu: None,
            limit: Duration::from_secs(5),
        }),
        Reason::NvmlError => What::Nvml(Nvml::Unavailable {
            why: "x".to_owned(),
            driver: true,
        }),
        Reason::Custom { name, condition } => What::LogRule {
            rule: "r".to_owned(),
            reason: name,
            condition,
            log: None,
            line: "l".to_owned(),
        },
    };
    core.step(signal(what, now), now)
}

/// The evidence of a reason that clears by it says that it is well.
fn mended(core: &mut Core, reason: Reason, now: Now) -> Vec<Output> {
    let what = match reason {
        Reason::ConfigInvalid | Reason::ConfigPending => configuration(None, None),
        Reason::AppBlocked => return core.step(free(0), now),
        Reason::FilesystemReadOnly => {
            core.step(Input::Wake, now);
            return core.step(evidence("sda1", Evidence::Writable), now);
        }
        Reason::BlockIoStuck
        | Reason::MissingLoopbackInterface
        | Reason::InterfaceNotUp
        | Reason::InterfaceNotRunning
        | Reason::IpamdNotRunning
        | Reason::NetworkSysctl
        | Reason::CheckHung
        | Reason::MissingIpRules
        | Reason::MissingIpRoutes
        | Reason::MissingDefaultRoutes
        | Reason::PortConflict
        | Reason::UnexpectedRejectRule
        | Reason::MacAddressPolicyMisconfigured
        | Reason::NpaNotRunning
        | Reason::KubeletUnresponsive
        | Reason::KubeletCertificateExpired
        | Reason::DiskNearlyFull
        | Reason::DeprecatedContainerdConfiguration
        | Reason::IpamdInconsistentState
        | Reason::XfsSmallAverageClusterSize => counted(reason, Counted::Over),
        Reason::NvidiaXidError(_) | Reason::NvidiaGpuRecoveryNeeded => state(Recovery::NotNeeded),
        Reason::NvidiaRowRemapFailure
        | Reason::NvidiaSramThresholdExceeded
        | Reason::NvidiaInforomCorrupted
        | Reason::NvidiaPcieLinkDegraded
        | Reason::NvidiaPageRetirement
        | Reason::NvidiaThermalError
        | Reason::NvidiaPowerError
        | Reason::NvidiaNvlinkError
        | Reason::NvidiaFabricError
        | Reason::FabricManagerNotRunning => gpu(false),
        Reason::NvidiaDeviceCountMismatch => state(Recovery::Unknown),
        Reason::NvidiaDoubleBitError => errors(0),
        Reason::NvmlHung => What::Nvml(Nvml::Answered),
        Reason::NvmlError => What::Nvml(Nvml::Watching {
            gpus: 2,
            untold: Vec::new(),
        }),
        Reason::OomKilling
        | Reason::SoftLockup
        | Reason::SignalsLost
        | Reason::MonitoringGap
        | Reason::StateDamaged
        | Reason::UnexpectedReboot
        | Reason::UnexpectedRebootLoop
        | Reason::HardLockup
        | Reason::RcuStall
        | Reason::WorkqueueLockup
        | Reason::KernelWarning
        | Reason::KernelBug
        | Reason::KernelPanic
        | Reason::AppCrash
        | Reason::PageAllocationFailure
        | Reason::MachineCheck
        | Reason::MachineCheckCorrected
        | Reason::EdacCorrectedError
        | Reason::EdacUncorrectedError
        | Reason::PcieCorrectedError
        | Reason::PcieNonFatalError
        | Reason::PcieFatalError
        | Reason::FirmwareCorrectedError
        | Reason::FirmwareHardwareError
        | Reason::MemoryPagePoisoned
        | Reason::CpuThrottled
        | Reason::CriticalTemperature
        | Reason::ClocksourceUnstable
        | Reason::NmiReceived
        | Reason::PcieSlotPowerLow
        | Reason::MemoryStall
        | Reason::CpuStolen
        | Reason::CpuStarved
        | Reason::BlockIoError
        | Reason::FilesystemError
        | Reason::PacketsDropped
        | Reason::XfsShutdown
        | Reason::BtrfsReadOnly
        | Reason::JournalAborted
        | Reason::NvmeTimeout
        | Reason::NvmeControllerFailed
        | Reason::ScsiError
        | Reason::ScsiDeviceOffline
        | Reason::AtaError
        | Reason::RaidDegraded
        | Reason::DeviceMapperError
        | Reason::AccessBeyondEndOfDevice
        | Reason::NfsNotResponding
        | Reason::NfsLockLost
        | Reason::ConntrackExceededKernel
        | Reason::NetworkTransmitTimeout
        | Reason::NetworkHardwareError
        | Reason::NetdeviceLeak
        | Reason::NeighbourTableFull
        | Reason::SynFlood
        | Reason::TcpMemoryExhausted
        | Reason::OrphanSocketsExceeded
        | Reason::PidsLimitReached
        | Reason::FileMaxReached
        | Reason::PcieLinkDown
        | Reason::KernelMemoryPoisoned
        | Reason::CxlError
        | Reason::WritebackError
        | Reason::NvmeCommandRetried
        | Reason::DevlinkHealthError
        | Reason::ApproachingMaxOpenFiles
        | Reason::ApproachingKernelPidMax
        | Reason::ExcessiveZombieProcesses
        | Reason::LargeEnvironment
        | Reason::ClockUnsynchronized
        | Reason::ZramHighUsage
        | Reason::RapidCron
        | Reason::PodStuckTerminating
        | Reason::ReadinessProbeFailures
        | Reason::LivenessProbeFailures
        | Reason::UnitRepeatedRestart(_)
        | Reason::NpaRepeatedlyRestart
        | Reason::IpamdNotReady
        | Reason::IpamdRepeatedlyRestart
        | Reason::EfaErrorMetric
        | Reason::KubeProxyNotReady
        | Reason::IoDelays
        | Reason::BandwidthInExceeded
        | Reason::BandwidthOutExceeded
        | Reason::PpsExceeded
        | Reason::ConntrackExceeded
        | Reason::LinkLocalExceeded
        | Reason::EbsVolumeIopsExceeded
        | Reason::EbsVolumeThroughputExceeded
        | Reason::EbsInstanceIopsExceeded
        | Reason::EbsInstanceThroughputExceeded
        | Reason::ForkFailedOutOfPids
        | Reason::KubeletFailed
        | Reason::ContainerRuntimeFailed
        | Reason::ServiceFailedToStart
        | Reason::IpamdNoIps
        | Reason::NpaBpfRecoveryError
        | Reason::KubeletDiskUsageSlow
        | Reason::EtcHostsMountFailed
        | Reason::NvidiaXidWarning(_)
        | Reason::NvidiaSxidError(_)
        | Reason::NvidiaSxidWarning(_)
        | Reason::NvidiaPcieError
        | Reason::NvidiaNvlinkWarning
        | Reason::NvidiaGpuSuspected
        | Reason::NvidiaNcclError
        | Reason::NvidiaPeermemError
        | Reason::GpuHang
        | Reason::GpuResetFailed
        | Reason::GpuMemoryError
        | Reason::NeuronSramUncorrectableError
        | Reason::NeuronNcUncorrectableError
        | Reason::NeuronHbmUncorrectableError
        | Reason::NeuronDmaError
        | Reason::Custom { .. } => panic!("{reason} clears by itself"),
    };
    core.step(signal(what, now), now)
}

/// A line that is a fault by itself.
fn logged(reason: Reason) -> What {
    What::Logged(LogFault::new(reason, "x".to_owned(), "m".to_owned()))
}

/// As many lines as make one finding, and not one fewer.
fn enough(core: &mut Core, reason: Reason, now: Now) -> Vec<Output> {
    let needed = repeated::threshold(reason).map_or(0, |threshold| threshold.count);
    for _ in 1..needed {
        let outputs = core.step(signal(logged(reason), now), now);
        assert_eq!(of(&outputs, reason), [], "{reason}");
    }
    core.step(signal(logged(reason), now), now)
}

/// What a counter says of it.
fn counted(reason: Reason, counted: Counted) -> What {
    let fault = LogFault::new(reason, "x".to_owned(), "m".to_owned());
    What::Counted { fault, counted }
}

fn free(pid: u32) -> Input {
    let state = TaskState::Free;
    Input::Task { pid, state }
}

fn configuration(invalid: Option<&str>, pending: Option<&str>) -> What {
    What::Configuration {
        file: "detector.yaml".to_owned(),
        invalid: invalid.map(str::to_owned),
        pending: pending.map(str::to_owned),
    }
}

fn of(outputs: &[Output], reason: Reason) -> Vec<Change> {
    let ours = changes(outputs).into_iter();
    ours.filter(|(_, told, _)| *told == reason)
        .map(|(change, ..)| change)
        .collect()
}

fn all() -> impl Iterator<Item = (Reason, &'static Row)> {
    let custom = Reason::Custom {
        name: "LogRuleOfAUser",
        condition: ConditionType::KernelReady,
    };
    Reason::ALL
        .into_iter()
        .chain([custom])
        .map(|reason| (reason, reason.row()))
}

/// A core in which this reason has just been opened.
fn opened(reason: Reason) -> Core {
    let mut core = started();
    let settings = Settings {
        custom: [reason].into(),
        ..Settings::default()
    };
    core.step(Input::Settings(settings), at(1));
    let outputs = broken(&mut core, reason, at(START));
    assert_eq!(of(&outputs, reason), [Change::Opened], "{reason}");
    core
}

#[test]
fn every_quiet_reason_opens_and_clears_when_its_time_has_come_and_not_before() {
    for (reason, row) in all() {
        let Clears::Quiet(quiet) = row.clears else {
            continue;
        };
        let mut core = opened(reason);
        let end = START + quiet.as_secs();
        let early = core.step(Input::Wake, at(end - 1));
        assert_eq!(of(&early, reason), [], "{reason}");
        let due = core.step(Input::Wake, at(end));
        assert_eq!(of(&due, reason), [Change::Cleared], "{reason}");
    }
}

#[test]
fn every_reason_that_clears_by_evidence_clears_once_that_has_been_good_for_its_time() {
    for (reason, row) in all() {
        let (Clears::Recovered { settle } | Clears::RecoveredOrReboot { settle }) = row.clears
        else {
            continue;
        };
        let mut core = opened(reason);
        let mut outputs = mended(&mut core, reason, at(START + 10));
        if !settle.is_zero() {
            assert_eq!(of(&outputs, reason), [], "{reason}");
            outputs = core.step(Input::Wake, at(START + 10 + settle.as_secs()));
        }
        assert_eq!(of(&outputs, reason), [Change::Cleared], "{reason}");
    }
}

/// The twin: the log has gone quiet, and the evidence says nothing new, or still the same.
#[test]
fn no_reason_that_clears_by_evidence_clears_by_silence() {
    for (reason, row) in all() {
        if matches!(row.clears, Clears::Quiet(_)) {
            continue;
        }
        let mut core = opened(reason);
        for hours in 1..=24 {
            let outputs = core.step(Input::Wake, at(START + hours * 3600));
            assert_eq!(of(&outputs, reason), [], "{reason}");
        }
    }
}

/// Of what many nodes share by nature, so that no repair may begin, none is Fatal: the API server
/// (IPAMDNotReady), clocks (ClockUnsynchronized), addresses of a subnet (IPAMDNoIPs), network mounts.
#[test]
fn only_what_breaks_one_node_is_fatal() {
    let fatal: Vec<_> = all()
        .filter(|(_, row)| row.severity == Severity::Fatal)
        .map(|(_, row)| row.name)
        .collect();
    assert_eq!(
        fatal,
        [
            "KernelMemoryPoisoned",
            "FilesystemReadOnly",
            "ForkFailedOutOfPIDs",
            "KubeletUnresponsive",
            "MissingLoopbackInterface",
            "InterfaceNotUp",
            "InterfaceNotRunning",
            "IPAMDNotRunning",
            "NPANotRunning",
            "NvidiaDeviceCountMismatch",
            "NvidiaDoubleBitError",
            "NvidiaGPURecoveryNeeded",
            "NvidiaRowRemapFailure",
            "NvidiaSRAMThresholdExceeded",
            "NvidiaNVLinkError",
            "NvidiaFabricError",
            "FabricManagerNotRunning",
            "NeuronSRAMUncorrectableError",
            "NeuronNCUncorrectableError",
            "NeuronHBMUncorrectableError",
            "NeuronDMAError",
            "NvidiaXID<n>Error",
            "NvidiaSXID<n>Error",
        ],
        "a new Fatal row needs a reason why it is not shared by many nodes"
    );
}

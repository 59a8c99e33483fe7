//! PURE. The reasons that agents are known to report, so that a typo in a rule is noticed: EKS's
//! own service compares strings and never says that one matches nothing.

/// `<n>` stands for a number.
const KNOWN: &[&str] = &[
    // nodemend's own: docs/reasons.md.
    "OOMKilling",
    "AppBlocked",
    "SoftLockup",
    "SignalsLost",
    "MonitoringGap",
    "StateDamaged",
    "UnexpectedReboot",
    "UnexpectedRebootLoop",
    "CheckHung",
    "ConfigInvalid",
    "ConfigPending",
    "HardLockup",
    "RCUStall",
    "WorkqueueLockup",
    "KernelWarning",
    "KernelBug",
    "KernelPanic",
    "AppCrash",
    "PageAllocationFailure",
    "MachineCheck",
    "MachineCheckCorrected",
    "EDACCorrectedError",
    "EDACUncorrectedError",
    "PCIeCorrectedError",
    "PCIeNonFatalError",
    "PCIeFatalError",
    "FirmwareCorrectedError",
    "FirmwareHardwareError",
    "MemoryPagePoisoned",
    "CPUThrottled",
    "CriticalTemperature",
    "ClocksourceUnstable",
    "KernelMemoryPoisoned",
    "CXLError",
    "NMIReceived",
    "PCIeSlotPowerLow",
    "MemoryStall",
    "CPUStealHigh",
    "CPUStarvation",
    "BlockIOStuck",
    "WritebackError",
    "NVMeCommandRetried",
    "DevlinkHealthError",
    "NetworkHardwareError",
    "PidsLimitReached",
    "FileMaxReached",
    "PCIeLinkDown",
    "BlockDeviceIOError",
    "FilesystemError",
    "FilesystemReadOnly",
    "XFSShutdown",
    "BtrfsReadOnly",
    "JournalAborted",
    "NVMeTimeout",
    "NVMeControllerFailed",
    "SCSIError",
    "SCSIDeviceOffline",
    "ATAError",
    "RAIDDegraded",
    "DeviceMapperError",
    "AccessBeyondEndOfDevice",
    "NFSNotResponding",
    "NFSLockLost",
    "PacketsDropped",
    "ConntrackExceededKernel",
    "NetworkTransmitTimeout",
    "NetdeviceLeak",
    "NeighbourTableFull",
    "SynFlood",
    "TCPMemoryExhausted",
    "OrphanSocketsExceeded",
    "ForkFailedOutOfPIDs",
    "IPAMDNotReady",
    "IPAMDNotRunning",
    "InterfaceNotRunning",
    "InterfaceNotUp",
    "MissingLoopbackInterface",
    "PodStuckTerminating",
    "RapidCron",
    "ApproachingMaxOpenFiles",
    "ApproachingKernelPidMax",
    "ExcessiveZombieProcesses",
    "LargeEnvironment",
    "ClockUnsynchronized",
    "ZramHighUsage",
    "KubeletFailed",
    "KubeletUnresponsive",
    "KubeletCertificateExpired",
    "DiskNearlyFull",
    "DeprecatedContainerdConfiguration",
    "IPAMDInconsistentState",
    "ContainerRuntimeFailed",
    "ReadinessProbeFailures",
    "LivenessProbeFailures",
    "ServiceFailedToStart",
    "<Unit>RepeatedRestart",
    "IPAMDRepeatedlyRestart",
    "IPAMDNoIPs",
    "NetworkSysctl",
    "MissingIPRules",
    "MissingIPRoutes",
    "MissingDefaultRoutes",
    "PortConflict",
    "UnexpectedRejectRule",
    "MACAddressPolicyMisconfigured",
    "KubeProxyNotReady",
    "NPANotRunning",
    "XFSSmallAverageClusterSize",
    "EFAErrorMetric",
    "NPARepeatedlyRestart",
    "NPABPFRecoveryError",
    "KubeletDiskUsageSlow",
    "EtcHostsMountFailed",
    "IODelays",
    "BandwidthInExceeded",
    "BandwidthOutExceeded",
    "PPSExceeded",
    "ConntrackExceeded",
    "LinkLocalExceeded",
    "EBSVolumeIOPSExceeded",
    "EBSVolumeThroughputExceeded",
    "EBSInstanceIOPSExceeded",
    "EBSInstanceThroughputExceeded",
    "NvidiaXID<n>Error",
    "NvidiaXID<n>Warning",
    "NvidiaDeviceCountMismatch",
    "NvidiaDoubleBitError",
    "NvidiaSXID<n>Error",
    "NvidiaSXID<n>Warning",
    "NvidiaGPURecoveryNeeded",
    "NvidiaRowRemapFailure",
    "NvidiaSRAMThresholdExceeded",
    "NvidiaPageRetirement",
    "NvidiaNVLinkError",
    "NvidiaNVLinkWarning",
    "NvidiaFabricError",
    "FabricManagerNotRunning",
    "NvidiaThermalError",
    "NvidiaPowerError",
    "NvidiaPCIeError",
    "NvidiaPCIeLinkDegraded",
    "NvidiaInfoROMCorrupted",
    "NvidiaGPUSuspected",
    "NvidiaNCCLError",
    "NvidiaPeermemError",
    "GPUHang",
    "GPUResetFailed",
    "GPUMemoryError",
    "NeuronDMAError",
    "NeuronHBMUncorrectableError",
    "NeuronNCUncorrectableError",
    "NeuronSRAMUncorrectableError",
    "NvidiaNVMLHung",
    "NvidiaNVMLError",
    // EKS's node monitoring agent.
    "DCGMError",
    "DCGMDiagnosticFailure",
    "DCGMHealthCode<n>",
    // The kubelet and the node controller.
    "KubeletNotReady",
    "NodeStatusUnknown",
    "NodeStatusNeverUpdated",
    "KubeletHasDiskPressure",
    "KubeletHasInsufficientMemory",
    "KubeletHasInsufficientPID",
];

/// What to say about a reason, or the beginning of one (`DCGM*`), that nothing is known to report.
pub fn unknown(pattern: &str) -> Option<String> {
    let (wanted, matches): (_, fn(&str, &str) -> bool) = match pattern.strip_suffix('*') {
        Some(beginning) => (beginning, |known, beginning| known.starts_with(beginning)),
        None => (pattern, |known, whole| known == whole),
    };
    let wanted = family(wanted);
    if KNOWN.iter().any(|known| matches(known, &wanted)) {
        return None;
    }
    let nearest = KNOWN
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, &wanted), *known))
        .min()
        .filter(|(distance, _)| *distance <= 2 + wanted.len() / 6)
        .map(|(_, known)| format!("; did you mean {known}?"));
    Some(format!(
        "no agent is known to report {pattern}{}",
        nearest.unwrap_or_default()
    ))
}

/// `NvidiaXID79Error` is of the family `NvidiaXID<n>Error`, `KubeletRepeatedRestart` of
/// `<Unit>RepeatedRestart`.
fn family(reason: &str) -> String {
    if reason
        .strip_suffix("RepeatedRestart")
        .is_some_and(|unit| !unit.is_empty())
    {
        return "<Unit>RepeatedRestart".to_owned();
    }
    for beginning in ["NvidiaXID", "NvidiaSXID", "DCGMHealthCode"] {
        let Some(rest) = reason.strip_prefix(beginning) else {
            continue;
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            return format!("{beginning}<n>{}", &rest[digits..]);
        }
    }
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_a_family_and_the_beginning_of_a_name_are_known() {
        for known in [
            "NvidiaXID79Error",
            "NvidiaXID*",
            "NvidiaXID7*",
            "NvidiaSXID20034Error",
            "DCGM*",
            "DCGMHealthCode101",
            "Nvidia-PersistencedRepeatedRestart",
            "FilesystemReadOnly",
            "KubeletNotReady",
        ] {
            assert_eq!(unknown(known), None, "{known}");
        }
    }

    #[test]
    fn a_typo_gets_its_hint_and_a_stranger_gets_none() {
        assert_eq!(
            unknown("NvidiaXID79Eror").unwrap(),
            "no agent is known to report NvidiaXID79Eror; did you mean NvidiaXID<n>Error?"
        );
        assert_eq!(
            unknown("Flux*").unwrap(),
            "no agent is known to report Flux*"
        );
    }

    #[test]
    fn every_reason_of_the_table_is_known() {
        let table = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
        let table = std::fs::read_to_string(table).unwrap();
        let names: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("### "))
            .collect();
        assert!(names.len() > 40, "{names:?}");
        for name in names {
            assert!(KNOWN.contains(&name), "{name} is missing here");
        }
    }
}

//! Every reason of EKS's node monitoring agent 1.7.0: a drop-in has them all, under the same names and
//! conditions. What is missing is listed, and the list may only shrink.

use super::{ConditionType, Reason};

/// Of families, one name. `DCGM...` are left out: they are names of another program's answers, which
/// policies may mention and nodemend never gives.
const REASONS: [(ConditionType, &[&str]); 5] = [
    (
        ConditionType::KernelReady,
        &[
            "SoftLockup",
            "KernelBug",
            "AppCrash",
            "AppBlocked",
            "ForkFailedOutOfPIDs",
            "RapidCron",
            "ApproachingMaxOpenFiles",
            "ApproachingKernelPidMax",
            "ExcessiveZombieProcesses",
            "LargeEnvironment",
            "ClockUnsynchronized",
            "ZramHighUsage",
        ],
    ),
    (
        ConditionType::ContainerRuntimeReady,
        &[
            "PodStuckTerminating",
            "KubeletFailed",
            "ContainerRuntimeFailed",
            "ReadinessProbeFailures",
            "LivenessProbeFailures",
            "ServiceFailedToStart",
            "KubeletRepeatedRestart",
            "DeprecatedContainerdConfiguration",
        ],
    ),
    (
        ConditionType::NetworkingReady,
        &[
            // Of EKS's KernelReady plugin, under this condition.
            "ConntrackExceededKernel",
            "MissingLoopbackInterface",
            "InterfaceNotUp",
            "InterfaceNotRunning",
            "IPAMDNotReady",
            "IPAMDRepeatedlyRestart",
            "IPAMDNoIPs",
            "IPAMDNotRunning",
            "IPAMDInconsistentState",
            "MissingIPRules",
            "MissingIPRoutes",
            "MissingDefaultRoutes",
            "PortConflict",
            "UnexpectedRejectRule",
            "NetworkSysctl",
            "BandwidthInExceeded",
            "BandwidthOutExceeded",
            "PPSExceeded",
            "ConntrackExceeded",
            "LinkLocalExceeded",
            "KubeProxyNotReady",
            "MACAddressPolicyMisconfigured",
            "EFAErrorMetric",
            "NPANotRunning",
            "NPARepeatedlyRestart",
            "NPABPFRecoveryError",
        ],
    ),
    (
        ConditionType::AcceleratedHardwareReady,
        &[
            "NvidiaXID79Error",
            "NvidiaXID31Warning",
            "NvidiaDoubleBitError",
            "NvidiaNVLinkError",
            "NvidiaPageRetirement",
            "NvidiaPowerError",
            "NvidiaThermalError",
            "NvidiaPCIeError",
            "FabricManagerNotRunning",
            "NvidiaFabricError",
            "NvidiaDeviceCountMismatch",
            "NvidiaNCCLError",
            "NeuronSRAMUncorrectableError",
            "NeuronNCUncorrectableError",
            "NeuronHBMUncorrectableError",
            "NeuronDMAError",
        ],
    ),
    (
        ConditionType::StorageReady,
        &[
            "BlockDeviceIOError",
            "KubeletDiskUsageSlow",
            "EtcHostsMountFailed",
            "XFSSmallAverageClusterSize",
            "IODelays",
            "EBSVolumeIOPSExceeded",
            "EBSVolumeThroughputExceeded",
            "EBSInstanceIOPSExceeded",
            "EBSInstanceThroughputExceeded",
        ],
    ),
];

const MISSING: [&str; 2] = [
    "DeprecatedContainerdConfiguration",
    "IPAMDInconsistentState",
];

#[test]
fn each_reason_of_ekss_agent_is_one_of_ours_or_is_known_to_be_missing() {
    for (condition, names) in REASONS {
        for name in names {
            match Reason::from_name(name).map(Reason::row) {
                Some(row) => {
                    assert_eq!(row.condition, condition, "{name}");
                    assert!(row.eks, "{name}: {} is not marked as EKS's", row.name);
                    assert!(!MISSING.contains(name), "{name} is not missing any more");
                }
                None => assert!(MISSING.contains(name), "{name} is missing"),
            }
        }
    }
}

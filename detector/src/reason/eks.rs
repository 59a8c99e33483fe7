//! Every reason of EKS's node monitoring agent 1.7.0: a drop-in has them all, under the same names and
//! conditions.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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

#[test]
fn each_reason_of_ekss_agent_is_one_of_ours() {
    for (condition, names) in REASONS {
        for name in names {
            let Some(row) = Reason::from_name(name).map(Reason::row) else {
                panic!("{name} is missing");
            };
            assert_eq!(row.condition, condition, "{name}");
            assert!(row.eks, "{name}: {} is not marked as EKS's", row.name);
        }
    }
}

const TESTS: &str = include_str!("eks_tests.tsv");
const FALSE_ALARMS: &str = include_str!("eks_false_alarms.tsv");

/// The rows below the heading.
fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines.skip(1).map(|line| line.split('\t').collect())
}

/// Why nothing is tested by it, if so. `file:name`, the file below `src`, or from the repository's root.
fn no_test(place: &str) -> Option<String> {
    let (file, name) = place.split_once(':')?;
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernel = file.starts_with("tests/");
    let path = if kernel {
        package.join("..").join(file)
    } else {
        package.join("src").join(file)
    };
    let Ok(text) = fs::read_to_string(&path) else {
        return Some(format!("{place}: there is no {}", path.display()));
    };
    let found = if kernel {
        text.contains(&format!("\"{name}\""))
    } else {
        text.contains(&format!("#[test]\n    fn {name}()"))
            || text.contains(&format!("#[test]\nfn {name}()"))
    };
    (!found).then(|| format!("{place}: {} has no such test", path.display()))
}

#[test]
fn each_reason_of_ekss_agent_is_tested_to_be_told_not_to_be_and_to_clear() {
    let mut tested = BTreeSet::new();
    for row in rows(TESTS) {
        let [reason, told, not_told, clears] = row.as_slice() else {
            panic!("four columns: {row:?}");
        };
        assert!(tested.insert(*reason), "{reason} twice");
        for place in [told, not_told, clears] {
            assert!(place.contains(':'), "{reason}: no test in {place:?}");
            assert_eq!(no_test(place), None, "{reason}");
        }
    }
    let ours = REASONS.iter().flat_map(|(_, names)| *names).copied();
    let ours: BTreeSet<&str> = ours.collect();
    assert_eq!(
        tested, ours,
        "reasons of eks_tests.tsv, and those of EKS's agent"
    );
}

#[test]
fn no_false_alarm_of_ekss_agent_is_ours() {
    let mut cases = 0;
    for row in rows(FALSE_ALARMS) {
        let [_, _, place] = row.as_slice() else {
            panic!("three columns: {row:?}");
        };
        assert_eq!(no_test(place), None, "{row:?}");
        cases += 1;
    }
    assert!(cases >= 19, "{cases}");
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert_eq!(
        no_test("reason/eks.rs:a_test_that_is_not_there_is_missed"),
        None
    );
    assert!(no_test("reason/eks.rs:no_test").is_some(), "no test");
    assert!(no_test("reason/none.rs:x").is_some());
}

//! PURE. Rows of `AcceleratedHardwareReady`: what connects GPUs.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

const SXID_SOURCE: &str = "kernel log, level 3 or 4: `nvidia-nvswitch<n>: SXid (PCI:dddd:bb:dd.0): <n>, ...`, counted only if sysfs has the device bound to the driver nvidia-nvswitch";

pub(super) const NVIDIA_SXID_ERROR: Row = Row {
    name: "NvidiaSXID<n>Error",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Reboot,
    eks: false,
    threshold: "each SXid whose line says `Fatal`, or that the table has so where the line does not say; one finding for each switch and number. The lines `Severity` and `Data` of one error count with it",
    meaning: "An NVSwitch reported an error that traffic between GPUs does not survive.",
    cause: "Hardware of the switch or of a link, or its firmware.",
    advice: "Reboot the node, which resets all GPUs and switches; replace it when the error comes back.",
    source: SXID_SOURCE,
};

pub(super) const NVIDIA_SXID_WARNING: Row = Row {
    name: "NvidiaSXID<n>Warning",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each other SXid",
    meaning: "An NVSwitch reported an error that it handled, or that is not known to be fatal.",
    cause: "Single-bit errors and replays that the hardware corrected, thermal events.",
    advice: "Watch whether it repeats; the table of SXids below has what it means.",
    source: SXID_SOURCE,
};

pub(super) const NVIDIA_NVLINK_ERROR: Row = Row {
    name: "NvidiaNVLinkError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::from_secs(10),
    },
    eks: true,
    threshold: "at once; one finding for each GPU",
    meaning: "An NVLink of a GPU that has been active in this boot is not any more.",
    cause: "A link or switch that failed, or one that was reset.",
    advice: "Reset the GPU or reboot the node; replace it when the link goes down again.",
    source: "NVML's field 165, for each link. EKS's agent reports rises of lifetime counters as well, which on healthy nodes rise too: those are NvidiaNVLinkWarning",
};

pub(super) const NVIDIA_NVLINK_WARNING: Row = Row {
    name: "NvidiaNVLinkWarning",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "8 replays and recoveries within a minute, for each GPU; each line of the driver that it could not find the links of a GPU",
    meaning: "NVLinks of a GPU have errors, or could not be found.",
    cause: "A link with a bad signal, a switch that is not ready.",
    advice: "Look at `nvidia-smi nvlink -e`, and for XIDs 74 and 144 to 150 in the kernel log.",
    source: "NVML's fields 52 and 59; kernel log, level 3 or 4: `NVRM: knvlink...`",
};

pub(super) const NVIDIA_FABRIC_ERROR: Row = Row {
    name: "NvidiaFabricError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::from_secs(10),
    },
    eks: true,
    threshold: "at once; one finding for each GPU",
    meaning: "The NVLink fabric says that it is degraded for a GPU, has no healthy route to it, recovers, or is set up wrongly.",
    cause: "A switch, a link or a cable of the fabric; a partition that does not fit.",
    advice: "Replace the node where a reboot does not help.",
    source: "NVML: the health mask of nvmlDeviceGetGpuFabricInfoV",
};

pub(super) const FABRIC_MANAGER_NOT_RUNNING: Row = Row {
    name: "FabricManagerNotRunning",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::from_secs(10),
    },
    eks: true,
    threshold: "at once; one finding for each GPU. A setup that has not begun, or has not ended, is none",
    meaning: "NVIDIA's fabric manager could not set a GPU up: programs cannot use it.",
    cause: "A fabric manager of another version than the driver, or one that failed; a switch that does not answer.",
    advice: "Look at the journal of nvidia-fabricmanager; restart it, or reboot the node.",
    source: "NVML: state and status of nvmlDeviceGetGpuFabricInfoV",
};

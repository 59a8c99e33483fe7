//! PURE. Rows of `AcceleratedHardwareReady`, and which XIDs are Fatal.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

/// The list of EKS's node monitoring agent 1.7.0: every other XID is an Event.
pub(crate) const FATAL_XIDS: [u32; 21] = [
    46, 48, 54, 62, 63, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 142, 143, 151, 155, 156, 158,
];

const XID_SOURCE: &str = "kernel log, level 3 or 4: `NVRM: Xid (PCI:dddd:bb:dd): <n>, ...`, counted only if sysfs has the device bound to the driver nvidia; NVML's event set. What both see within 10 seconds is one fault";

pub(super) const NVIDIA_XID_ERROR: Row = Row {
    name: "NvidiaXID<n>Error",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::RecoveredOrReboot {
        settle: Duration::ZERO,
    },
    eks: true,
    threshold: "each XID of 46, 48, 54, 62, 63, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 142, 143, 151, 155, 156, 158; one finding for each GPU and number. A line from before the agent's start is a Warning until NVML says that the GPU is lost or in need of recovery",
    meaning: "A GPU or its driver reported an error that work on it does not survive.",
    cause: "Hardware (memory, the link, power), the driver or its firmware; a few numbers also follow from a broken application.",
    advice: "Reboot the node (or reset the GPU); replace it when the error comes back, and at once for XID 79.",
    source: XID_SOURCE,
};

pub(super) const NVIDIA_XID_WARNING: Row = Row {
    name: "NvidiaXID<n>Warning",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: true,
    threshold: "each other XID; one finding for each GPU and number",
    meaning: "A GPU reported an error that applications can cause themselves, or that the driver handled.",
    cause: "Mostly an application: an illegal address, a bad instruction, a cancelled job; some are errors that the hardware corrected.",
    advice: "Look the number up in NVIDIA's XID catalogue, and at the process that the message names.",
    source: XID_SOURCE,
};

pub(super) const NVIDIA_DEVICE_COUNT_MISMATCH: Row = Row {
    name: "NvidiaDeviceCountMismatch",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::from_secs(10),
    },
    eks: true,
    threshold: "at once; one finding for each GPU",
    meaning: "The driver has fewer working GPUs than the PCI bus: one fell off the bus, must be reset, or has no power.",
    cause: "A GPU that overheated, lost power or its PCIe link; a driver that could not initialize it.",
    advice: "Reboot the node; replace it when the GPU stays away.",
    source: "NVML, asked for each PCI device that is bound to the driver nvidia; sysfs",
};

pub(super) const NVIDIA_DOUBLE_BIT_ERROR: Row = Row {
    name: "NvidiaDoubleBitError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: true,
    threshold: "each rise of the counter; one finding for each GPU. Errors from before the agent's start are a Warning",
    meaning: "The memory of a GPU had errors that ECC could not correct.",
    cause: "Failing memory cells, or a single particle strike; a GPU that has them again and again is wearing out.",
    advice: "Reboot the node or reset the GPU, so that the rows are remapped; replace it when the errors come back.",
    source: "NVML: volatile uncorrected ECC errors",
};

pub(super) const NVML_HUNG: Row = Row {
    name: "NvidiaNVMLHung",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "a call that has not returned 5 seconds after it should have",
    meaning: "NVIDIA's management library does not answer, as it does when a GPU is dying. GPUs are watched by the kernel log alone.",
    cause: "A GPU that does not answer its driver, a GSP firmware that timed out, or a driver that waits for a lock.",
    advice: "Look for XIDs in the kernel log, and whether nvidia-smi hangs as well; reboot the node.",
    source: "the deadline of each call to NVML",
};

pub(super) const NVML_ERROR: Row = Row {
    name: "NvidiaNVMLError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "at once, where the driver is loaded, or was",
    meaning: "NVIDIA's management library cannot be used: it is missing, does not fit the driver, lacks a function, or the driver has gone.",
    cause: "A driver upgrade without a reboot, a library of another version than the kernel module, a driver that was unloaded.",
    advice: "`nodemend-detector check` names the cause; --nvml-library says where the library is.",
    source: "NVML's own answer",
};

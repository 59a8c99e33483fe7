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
    threshold: "at once; one finding for each GPU, and one for the host",
    meaning: "The driver has fewer working GPUs than the PCI bus: one fell off the bus, must be reset, or has no power. Or the bus has fewer than an instance of this type.",
    cause: "A GPU that overheated, lost power or its PCIe link; a driver that could not initialize it.",
    advice: "Reboot the node; replace it when the GPU stays away.",
    source: "NVML, asked for each PCI device that is bound to the driver nvidia; sysfs, and a table of EC2's instance types by the firmware's product name",
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

pub(super) const NVIDIA_GPU_RECOVERY_NEEDED: Row = Row {
    name: "NvidiaGPURecoveryNeeded",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "at once, if no Fatal XID of the GPU says it; one finding for each GPU. A Warning where only peer-to-peer traffic must be drained",
    meaning: "The driver itself says that a GPU must be reset, drained, or the node rebooted, before new work can run on it.",
    cause: "An error of the GPU's memory, engines or links that the driver cannot mend while programs run.",
    advice: "What the message says: reset the GPU or reboot the node.",
    source: "NVML's field 230 (drivers since R570); kernel log: the text of XID 154, which also says when it is over",
};

pub(super) const NVIDIA_ROW_REMAP_FAILURE: Row = Row {
    name: "NvidiaRowRemapFailure",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "at once; one finding for each GPU",
    meaning: "A GPU could not replace a row of its memory that has errors: it has no spare rows left there.",
    cause: "Memory that is wearing out. NVIDIA takes such a GPU back.",
    advice: "Replace the node: neither a reset nor a reboot helps.",
    source: "NVML's field 145 (GPUs since Ampere)",
};

pub(super) const NVIDIA_SRAM_THRESHOLD_EXCEEDED: Row = Row {
    name: "NvidiaSRAMThresholdExceeded",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "at once; one finding for each GPU",
    meaning: "The caches and registers of a GPU have had more uncorrectable errors in its life than NVIDIA's threshold.",
    cause: "SRAM that is wearing out. NVIDIA takes such a GPU back.",
    advice: "Replace the node: neither a reset nor a reboot helps.",
    source: "NVML: bThresholdExceeded of nvmlDeviceGetSramEccErrorStatus (drivers since R555), read once a minute",
};

pub(super) const NVIDIA_PAGE_RETIREMENT: Row = Row {
    name: "NvidiaPageRetirement",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: true,
    threshold: "at once; one finding for each GPU",
    meaning: "A GPU has memory with errors that will be replaced, or retired, at its next reset; until then the memory is still in use.",
    cause: "Failing memory cells.",
    advice: "Reset the GPU or reboot the node when its work allows it.",
    source: "NVML's fields 144 (row remapping) and 31 (page retirement, before Ampere)",
};

pub(super) const NVIDIA_THERMAL_ERROR: Row = Row {
    name: "NvidiaThermalError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::from_secs(60),
    },
    eks: true,
    threshold: "at once; one finding for each GPU",
    meaning: "A GPU runs slower because it, or its memory, is too hot.",
    cause: "Cooling: a fan, airflow, the temperature of the room, thermal paste.",
    advice: "Look at the cooling of the host; compare with its neighbours.",
    source: "NVML: the clock event reasons HwThermalSlowdown and SwThermalSlowdown",
};

pub(super) const NVIDIA_POWER_ERROR: Row = Row {
    name: "NvidiaPowerError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::from_secs(60),
    },
    eks: true,
    threshold: "at once; one finding for each GPU",
    meaning: "The hardware slows a GPU down because of its power: the supply asserts its brake, or the board draws too much.",
    cause: "A power supply that failed or is overloaded, a power cable.",
    advice: "Look at the host's power supplies and at the power limits of the rack.",
    source: "NVML: the clock event reasons HwPowerBrakeSlowdown, and HwSlowdown where it is not thermal. A software power cap, as under full load, is none",
};

pub(super) const NVIDIA_PCIE_ERROR: Row = Row {
    name: "NvidiaPCIeError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: true,
    threshold: "8 replays within a minute; one finding for each GPU",
    meaning: "Packets between a GPU and the host are sent again and again.",
    cause: "A bad slot, riser or retimer, or a GPU that does not sit well.",
    advice: "Reseat the GPU, or replace the host.",
    source: "NVML's field 94, the PCIe replay counter",
};

pub(super) const NVIDIA_PCIE_LINK_DEGRADED: Row = Row {
    name: "NvidiaPCIeLinkDegraded",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::from_secs(60),
    },
    eks: false,
    threshold: "at once; one finding for each GPU. Fewer lanes than the GPU could have are none, as long as it never had them in this boot; nor is a lower generation, which saves power",
    meaning: "A GPU has fewer PCIe lanes to the host than it had.",
    cause: "A bad slot, riser or retimer, or a GPU that does not sit well.",
    advice: "Reboot the node; reseat the GPU, or replace the host, when they stay away.",
    source: "NVML: nvmlDeviceGetCurrPcieLinkWidth, read once a minute",
};

pub(super) const NVIDIA_INFOROM_CORRUPTED: Row = Row {
    name: "NvidiaInfoROMCorrupted",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "at once; one finding for each GPU",
    meaning: "The memory of a GPU that keeps its counters of errors and its settings is damaged: retired rows may be forgotten.",
    cause: "A loss of power while it was written, or wear.",
    advice: "Have the GPU inspected: NVIDIA's tools can repair some.",
    source: "NVML: nvmlDeviceValidateInforom, asked once for each GPU when it is first seen",
};

pub(super) const NVIDIA_GPU_SUSPECTED: Row = Row {
    name: "NvidiaGPUSuspected",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "XIDs of the application class (13, 31, 43, 94, ...) of three processes with two names, on one GPU, within 24 hours. Programs that have them on other GPUs too do not count",
    meaning: "Different programs fail on one GPU and on no other, in a way that mostly is a program's own fault.",
    cause: "Often a GPU whose arithmetic or memory is broken without an ECC error.",
    advice: "Run NVIDIA's diagnostics (dcgmi diag -r 3) on the GPU.",
    source: "the kernel log's XIDs, by the process that each names",
};

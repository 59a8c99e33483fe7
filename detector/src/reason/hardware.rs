//! PURE. Rows of `KernelReady`: the machine below the kernel.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const MACHINE_CHECK: Row = Row {
    name: "MachineCheck",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "each report; one finding for each CPU and bank",
    meaning: "The processor reported a hardware error that it could not correct.",
    cause: "A failing CPU, memory module or bus.",
    advice: "Replace the machine. rasdaemon or mcelog decode the status.",
    source: "tracepoint mce:mce_record; kernel log, level 0: `mce: [Hardware Error]: CPU N: Machine Check...: N Bank N: status` (arch/x86/kernel/cpu/mce/core.c), on AMD `[Hardware Error]: CPU:N (..) MCn_STATUS[..]: 0xN` (drivers/edac/mce_amd.c), with the UC bit of the status set",
};

pub(super) const MACHINE_CHECK_CORRECTED: Row = Row {
    name: "MachineCheckCorrected",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each report; one finding for each CPU and bank, or for the host where the line does not say",
    meaning: "The processor logged hardware errors that did no harm: they were corrected, or nobody used the data.",
    cause: "Single bit errors of memory or caches; many of them: a module or CPU that begins to fail.",
    advice: "None for a few. Rising numbers: replace the module or the machine in time.",
    source: "tracepoint mce:mce_record; the lines of MachineCheck without the UC bit; kernel log, level 6: `mce: [Hardware Error]: Machine check events logged`",
};

pub(super) const EDAC_CORRECTED_ERROR: Row = Row {
    name: "EDACCorrectedError",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line; one finding for each memory module",
    meaning: "A memory module, or a cache, returned wrong data, which ECC corrected.",
    cause: "Single bit errors; many of them on one module: it begins to fail.",
    advice: "None for a few. Rising numbers on one module: replace it.",
    source: "tracepoint ras:mc_event; kernel log, level 4: `EDAC MCn: N CE ... on LABEL (...)` (drivers/edac/edac_mc.c; also of ghes_edac), `EDAC DEVICEn: CE: ...` (drivers/edac/edac_device.c); without the tracepoint `ce_count` below /sys/devices/system/edac/mc as well, read every 30 s",
};

pub(super) const EDAC_UNCORRECTED_ERROR: Row = Row {
    name: "EDACUncorrectedError",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "each line; one finding for each memory module",
    meaning: "A memory module, or a cache, returned wrong data, which ECC could not correct: what was stored there is lost.",
    cause: "A failing memory module, its slot or the memory controller.",
    advice: "Drain the node and replace the module or the machine.",
    source: "tracepoint ras:mc_event; kernel log, level 4: `EDAC MCn: N UE ... on LABEL (...)` (drivers/edac/edac_mc.c); level 0: `EDAC DEVICEn: UE: ...` (drivers/edac/edac_device.c); without the tracepoint `ue_count` below /sys/devices/system/edac/mc as well, read every 30 s",
};

pub(super) const PCIE_CORRECTED_ERROR: Row = Row {
    name: "PCIeCorrectedError",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "A PCIe link repeated or corrected a transfer. Nothing was lost.",
    cause: "A marginal link: a connector, a riser, power saving of the link.",
    advice: "None for a few. Many on one device: reseat or replace it; they cost bandwidth and can become uncorrected.",
    source: "tracepoint ras:aer_event; kernel log, level 4 (3 before 5.8): `DRIVER ADDRESS: [AER: ]PCIe Bus Error: severity=Corrected, ...` (drivers/pci/pcie/aer.c; `Correctable` since 6.7, `CXL` for `PCIe` of a CXL device in 7.2; only where the kernel owns AER); without the tracepoint /sys/bus/pci/devices/*/aer_dev_correctable as well, read every 30 s",
};

pub(super) const PCIE_NON_FATAL_ERROR: Row = Row {
    name: "PCIeNonFatalError",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "A PCIe transfer was lost. The link works; the driver may have recovered.",
    cause: "A failing device or link, or a driver that asks for what the device does not have.",
    advice: "Look at what the device's driver says next. Repeated ones: replace the device or the machine.",
    source: "tracepoint ras:aer_event; kernel log, level 3: `DRIVER ADDRESS: [AER: ]PCIe Bus Error: severity=Uncorrected (Non-Fatal), ...` (drivers/pci/pcie/aer.c; `Uncorrectable` since 6.7, `CXL` for `PCIe` of a CXL device in 7.2); without the tracepoint /sys/bus/pci/devices/*/aer_dev_nonfatal as well, read every 30 s",
};

pub(super) const PCIE_FATAL_ERROR: Row = Row {
    name: "PCIeFatalError",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "A PCIe link is no longer reliable: the kernel resets it, and with it what is behind it.",
    cause: "A failing device, slot or link.",
    advice: "Look whether the device came back after the reset. If not, or if it comes again: replace the machine.",
    source: "tracepoint ras:aer_event; kernel log, level 3: `DRIVER ADDRESS: [AER: ]PCIe Bus Error: severity=Uncorrected (Fatal), ...` (drivers/pci/pcie/aer.c; `Uncorrectable` since 6.7, `CXL` for `PCIe` of a CXL device in 7.2); without the tracepoint /sys/bus/pci/devices/*/aer_dev_fatal as well, read every 30 s",
};

pub(super) const FIRMWARE_CORRECTED_ERROR: Row = Row {
    name: "FirmwareCorrectedError",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each event",
    meaning: "The firmware, which sees hardware errors first on this machine, told the kernel of a corrected one.",
    cause: "Single bit errors of memory, repeated transfers of a link.",
    advice: "None for a few. The lines that follow in the log name the part (`section_type`, `fru_text`).",
    source: "tracepoint ras:non_standard_event, and ras:arm_event where it has a severity (6.17); kernel log, level 4: `{N}[Hardware Error]: event severity: corrected` (drivers/acpi/apei/ghes.c, drivers/firmware/efi/cper.c)",
};

pub(super) const FIRMWARE_HARDWARE_ERROR: Row = Row {
    name: "FirmwareHardwareError",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "each event",
    meaning: "The firmware, which sees hardware errors first on this machine, told the kernel of one that was not corrected, now or in the boot before.",
    cause: "A failing memory module, CPU, or PCIe or CXL device.",
    advice: "The lines that follow in the log name the part (`section_type`, `fru_text`). Replace the machine.",
    source: "tracepoint ras:non_standard_event, and ras:arm_event where it has a severity (6.17); kernel log, level 3 or 0: `{N}[Hardware Error]: event severity: recoverable` or `fatal` (drivers/acpi/apei/ghes.c); level 6 without the number, of the boot before (drivers/acpi/apei/bert.c)",
};

pub(super) const MEMORY_PAGE_POISONED: Row = Row {
    name: "MemoryPagePoisoned",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "each line; one finding for each page",
    meaning: "The kernel gave up a memory page that the hardware cannot keep. Its users were killed, unless its content was also on disk; one that the kernel itself uses cannot be given up.",
    cause: "An uncorrectable memory error.",
    advice: "`reserved kernel page` or `Ignored`: reboot soon. More than one page: replace the module or the machine.",
    source: "kernel log, level 3: `Memory failure: 0xPFN: recovery action for TYPE: RESULT`, `Sending SIGBUS to comm:pid due to hardware memory corruption` (mm/memory-failure.c), `MCE: Killing comm:pid due to ...` (arch/x86/mm/fault.c); `HardwareCorrupted` of /proc/meminfo where neither tracepoint nor kernel log can be read",
};

pub(super) const KERNEL_MEMORY_POISONED: Row = Row {
    name: "KernelMemoryPoisoned",
    condition: ConditionType::KernelReady,
    severity: Severity::Fatal,
    clears: Clears::Reboot,
    eks: false,
    threshold: "at once, by the tracepoint alone; one finding for each page",
    meaning: "The hardware cannot keep a page of memory that the kernel itself uses and could not give up: what it holds is lost, and the kernel goes on with it.",
    cause: "A failing memory module under the kernel's own data.",
    advice: "Replace the node; it can panic or corrupt data at any time. The machine's memory needs a test.",
    source: "tracepoint ras:memory_failure_event: a reserved or slab page of the kernel, ignored or failed (mm/memory-failure.c, `action_page_types`). The line that the kernel prints for it is a Warning, MemoryPagePoisoned: no text alone is Fatal",
};

pub(super) const CXL_ERROR: Row = Row {
    name: "CXLError",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each event; one finding for each memory device",
    meaning: "A CXL memory device reported an error that it could not correct.",
    cause: "A failing CXL device, its link or its cache.",
    advice: "Drain the node and look at the device: `cxl list -H`, rasdaemon.",
    source: "tracepoint cxl:cxl_aer_uncorrectable_error (6.3 and later, drivers/cxl/core/trace.h)",
};

pub(super) const CPU_THROTTLED: Row = Row {
    name: "CPUThrottled",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(900)),
    eks: false,
    threshold: "each line, of which the kernel prints one per CPU in five minutes; one finding for each core, and one for packages; each time by the counters",
    meaning: "A CPU is too hot and has lowered its clock.",
    cause: "A fan, an air duct or a heat sink that fails, an inlet that is too warm, neighbours in the rack.",
    advice: "Check the cooling. Work on this node takes longer in the meantime.",
    source: "kernel log, level 4 (2 before 5.5): `CPUn: Core|Package temperature is above threshold, cpu clock is throttled (total events = N)` (drivers/thermal/intel/therm_throt.c); /sys/devices/system/cpu/cpu*/thermal_throttle/, read every 30 s",
};

pub(super) const CRITICAL_TEMPERATURE: Row = Row {
    name: "CriticalTemperature",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line; one finding for each thermal zone",
    meaning: "A part of the machine is so hot that the kernel shuts it down.",
    cause: "Cooling that fails, or a sensor that does.",
    advice: "Check the cooling before the machine is used again.",
    source: "tracepoint thermal:thermal_zone_trip (hot and critical); kernel log, level 0: `thermal thermal_zoneN: TYPE: critical temperature reached` (drivers/thermal/thermal_core.c)",
};

pub(super) const CLOCKSOURCE_UNSTABLE: Row = Row {
    name: "ClocksourceUnstable",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "each line; one finding for each clock",
    meaning: "The kernel no longer trusts a clock and took another one, mostly the far slower `hpet` or `acpi_pm` in place of `tsc`: each reading of the time is now a system call or worse.",
    cause: "A virtual machine that was paused or moved, firmware that touches the TSC, a CPU that fails; seldom only a very busy machine.",
    advice: "Compare `/sys/devices/system/clocksource/clocksource0/current_clocksource` with `available_clocksource`. A reboot brings the clock back; if it does not last, replace the machine.",
    source: "kernel log, level 4: `clocksource: timekeeping watchdog on CPUn: Marking clocksource 'X' as unstable ...` or `... marking X unstable` (kernel/time/clocksource.c); level 6: `tsc: Marking TSC unstable due to ...` (arch/x86/kernel/tsc.c)",
};

pub(super) const NMI_RECEIVED: Row = Row {
    name: "NMIReceived",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line; one finding for each kind: SERR, IOCK, unknown",
    meaning: "A CPU received a non-maskable interrupt: for an error of the PCI bus (SERR), for one of the I/O channel, which includes memory (IOCK), or for a reason that the kernel does not know.",
    cause: "A failing device, bus or memory module; an unknown one also comes from a button, a BMC or a hypervisor that was asked for it, and from some performance counters.",
    advice: "SERR, IOCK: read the event log of the BMC and replace the part. Unknown: none for one; several without somebody who sent them: replace the machine.",
    source: "kernel log, level 0: `NMI: PCI system error (SERR) for reason NN on CPU N.`, `NMI: IOCK error (debug interrupt?) for reason NN on CPU N.`, `Uhhuh. NMI received for unknown reason NN on CPU N.` (arch/x86/kernel/nmi.c)",
};

pub(super) const PCIE_SLOT_POWER_LOW: Row = Row {
    name: "PCIeSlotPowerLow",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "A network card reads from its PCIe slot that it may draw less power than it needs. It works; a hot or long optical module may not.",
    cause: "Mostly firmware of the machine that promises too little, on whole fleets that run well; else a card in the wrong slot.",
    advice: "None while the ports are up. Where ports are powered down: move the card, or update the firmware.",
    source: "kernel log, level 4: `mlx5_core ADDRESS: mlx5_pcie_event:N:(pid N): Detected insufficient power on the PCIe slot (NW).` (drivers/net/ethernet/mellanox/mlx5/core/events.c)",
};

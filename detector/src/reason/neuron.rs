//! PURE. Rows of `AcceleratedHardwareReady`: AWS's own accelerators.

use super::{Clears, ConditionType, Row, Severity};

const fn row(name: &'static str, meaning: &'static str) -> Row {
    Row {
        name,
        condition: ConditionType::AcceleratedHardwareReady,
        severity: Severity::Fatal,
        clears: Clears::Reboot,
        eks: true,
        threshold: "each line; one finding for each device",
        meaning,
        cause: "Failing hardware.",
        advice: "Replace the node.",
        source: "kernel log, levels 3 to 6: `NEURON_HW_ERR=<error> instance-id=...`, also behind a time stamp, counted only if sysfs has the driver neuron",
    }
}

pub(super) const SRAM_UNCORRECTABLE_ERROR: Row = row(
    "NeuronSRAMUncorrectableError",
    "The on-chip memory of a Neuron device had an error that could not be corrected.",
);

pub(super) const NC_UNCORRECTABLE_ERROR: Row = row(
    "NeuronNCUncorrectableError",
    "A core of a Neuron device had an error that could not be corrected.",
);

pub(super) const HBM_UNCORRECTABLE_ERROR: Row = row(
    "NeuronHBMUncorrectableError",
    "The memory of a Neuron device had an error that could not be corrected.",
);

pub(super) const DMA_ERROR: Row = row(
    "NeuronDMAError",
    "A DMA engine of a Neuron device had an error that could not be corrected.",
);

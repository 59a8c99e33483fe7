//! PURE. What stands in for a row where a user's log rule made the reason up: one for each condition
//! type. Severity, threshold and clear rule come with the rule, as overrides.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) fn row(condition: ConditionType) -> &'static Row {
    match condition {
        ConditionType::KernelReady => &KERNEL,
        ConditionType::StorageReady => &STORAGE,
        ConditionType::NetworkingReady => &NETWORKING,
        ConditionType::ContainerRuntimeReady => &CONTAINER_RUNTIME,
        ConditionType::AcceleratedHardwareReady => &ACCELERATED_HARDWARE,
    }
}

const KERNEL: Row = of(ConditionType::KernelReady);
const STORAGE: Row = of(ConditionType::StorageReady);
const NETWORKING: Row = of(ConditionType::NetworkingReady);
const CONTAINER_RUNTIME: Row = of(ConditionType::ContainerRuntimeReady);
const ACCELERATED_HARDWARE: Row = of(ConditionType::AcceleratedHardwareReady);

const fn of(condition: ConditionType) -> Row {
    Row {
        name: "(custom log rule)",
        condition,
        severity: Severity::Warning,
        clears: Clears::Quiet(Duration::from_secs(600)),
        eks: false,
        threshold: "each line that a rule of the configuration matches",
        meaning: "A log rule of the configuration matched.",
        cause: "What the rule was written for.",
        advice: "See the rule in the detector's configuration.",
        source: "detector.yaml",
    }
}

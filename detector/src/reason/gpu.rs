//! PURE. Rows of `AcceleratedHardwareReady`: what programs and other vendors' drivers say.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

const QUIET: Clears = Clears::Quiet(Duration::from_secs(600));

pub(super) const NVIDIA_NCCL_ERROR: Row = Row {
    name: "NvidiaNCCLError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: QUIET,
    eks: true,
    threshold: "each line; one finding for each name of a process",
    meaning: "A program crashed inside NCCL, which moves data between GPUs.",
    cause: "Mostly another node or GPU that failed first; a version of NCCL that does not fit.",
    advice: "Look for a failed GPU, network card or node among those that the job runs on.",
    source: "kernel log, level 6: a segfault or trap `in libnccl.so`",
};

pub(super) const NVIDIA_PEERMEM_ERROR: Row = Row {
    name: "NvidiaPeermemError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Info,
    clears: QUIET,
    eks: false,
    threshold: "each line",
    meaning: "GPUDirect RDMA met memory of a GPU whose program had gone.",
    cause: "A program that ended while its memory was registered with a network card; harmless on large fleets.",
    advice: "Nothing, unless jobs hang: then look at the network cards.",
    source: "kernel log, level 3: `nvidia-peermem nv_get_p2p_free_callback:<n> ERROR ...`",
};

pub(super) const GPU_HANG: Row = Row {
    name: "GPUHang",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: QUIET,
    eks: false,
    threshold: "each line; one finding for each GPU",
    meaning: "A GPU of AMD or Intel did not finish its work in time.",
    cause: "Mostly a program; a GPU that hangs under different programs is broken.",
    advice: "Look at the program that the lines around it name; reset the GPU or reboot when it repeats.",
    source: "kernel log: `amdgpu ...: ring <name> timeout, ...` (level 3), `i915 ...: GPU HANG: ...` (level 6), `xe ...: GT<n>: Engine reset: ...` (levels 5 and 6)",
};

pub(super) const GPU_RESET_FAILED: Row = Row {
    name: "GPUResetFailed",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: QUIET,
    eks: false,
    threshold: "each line; one finding for each GPU",
    meaning: "The driver of a GPU of AMD or Intel could not reset it.",
    cause: "A GPU that does not answer any more.",
    advice: "Reboot the node; replace it when the GPU stays away.",
    source: "kernel log: `amdgpu ...: GPU reset end with ret = -<n>`, `... GPU Recovery Failed: -<n>`, `xe ... has declared device ... as wedged.`, `i915 ...: ... reset request timed out`",
};

pub(super) const GPU_MEMORY_ERROR: Row = Row {
    name: "GPUMemoryError",
    condition: ConditionType::AcceleratedHardwareReady,
    severity: Severity::Warning,
    clears: QUIET,
    eks: false,
    threshold: "each line; one finding for each GPU",
    meaning: "A GPU of AMD had errors that its RAS could not correct.",
    cause: "Failing memory or logic. Some drivers print huge counts without an error: a Warning therefore.",
    advice: "Reset the GPU or reboot the node; replace it when the errors come back.",
    source: "kernel log, level 6: `amdgpu ...: <n> uncorrectable hardware errors detected in <block> block`",
};

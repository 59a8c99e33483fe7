//! PURE. Rows of `KernelReady`: mistakes of the kernel and of programs.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const KERNEL_WARNING: Row = Row {
    name: "KernelWarning",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line; one finding for each place in the source",
    meaning: "The kernel met a state that its authors had ruled out, and went on.",
    cause: "A bug of the kernel or of a driver; also hardware that answers nonsense.",
    advice: "Search the place that is named, with the kernel's version. One that comes again and again, or comes before other faults, deserves a kernel update.",
    source: "kernel log, level 4: `WARNING: CPU: N PID: N at file:line function` (kernel/panic.c), since 6.19 `WARNING: file:line at function, CPU#N: comm/pid`",
};

pub(super) const KERNEL_BUG: Row = Row {
    name: "KernelBug",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: true,
    threshold: "each line of a report's head, so that one fault can count twice; one finding for all of an oops, one for each other kind",
    meaning: "The kernel found itself broken: an oops, `BUG()`, a page in a bad state, or a report of KASAN or KFENCE. The task that was hit is gone, with the locks it held; what else is damaged nobody knows.",
    cause: "A bug of the kernel or of a driver, or memory that does not keep what was written.",
    advice: "Drain the node and reboot it. Search the function that is named, with the kernel's version; without a match, test the memory.",
    source: "kernel log: `BUG: kernel NULL pointer dereference`, `BUG: unable to handle`, `BUG: Bad page` (level 1), `kernel BUG at file:line!` (level 2), `BUG: KASAN: `, `BUG: KFENCE: `, `BUG: scheduling while atomic` (level 3), `Oops: ` and `general protection fault ... [#N]` (level 4), on arm64 `Unable to handle kernel` (level 1) and `Internal error: ` (level 0); a stack that ran over: `BUG: TASK stack guard page was hit`, `Insufficient stack space to handle exception!` (level 0)",
};

pub(super) const KERNEL_PANIC: Row = Row {
    name: "KernelPanic",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line",
    meaning: "The kernel gave up. A kernel that still speaks after it was about to die when it was read.",
    cause: "An oops with `kernel.panic_on_oops`, a lockup or a hung task with their `panic` settings, an uncorrectable hardware error, a root file system that is not there.",
    advice: "The text says why. After the reboot, look at pstore and at the crash dump.",
    source: "kernel log, level 0: `Kernel panic - not syncing: ...` (kernel/panic.c); mostly seen in saved logs and pstore, a live one seldom gets that far",
};

pub(super) const APP_CRASH: Row = Row {
    name: "AppCrash",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: true,
    threshold: "each line; one finding for each name of a process",
    meaning: "A process was ended by a signal that it did not handle, after it touched memory that is not its own or ran what is no instruction.",
    cause: "A bug of the program; a binary built for another CPU (invalid opcode); many different programs at once: memory or a CPU that fails.",
    advice: "Look at the pod that ran it. Crashes of many unrelated programs: test the hardware.",
    source: "kernel log, level 6: `comm[pid]: segfault at ...`, `traps: comm[pid] general protection fault ...`, `traps: comm[pid] trap invalid opcode ...` (arch/x86/mm/fault.c, traps.c; not `trap int3`: debuggers), on arm64 `comm[pid]: unhandled exception: ...`; the kernel limits their rate",
};

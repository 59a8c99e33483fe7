//! `signal:signal_deliver`: a signal that ends its process with a core is delivered, and the process
//! has no handler of its own. A JVM handles SIGSEGV all day, and a debugger takes its SIGTRAP away
//! before it is delivered.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use aya_ebpf::{EbpfContext, Global};
use detector_ebpf::Kind;

use crate::{cgroup, throttle};

#[unsafe(no_mangle)]
static SIGNAL_NUMBER: Global<u32> = Global::new(8);
#[unsafe(no_mangle)]
static SIGNAL_HANDLER: Global<u32> = Global::new(24);

/// SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV and SIGSYS. Not SIGQUIT, SIGXCPU and SIGXFSZ:
/// somebody asked for these.
const FATAL: u64 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 31;
const SIG_DFL: u64 = 0;

#[tracepoint]
pub(crate) fn signal_deliver(ctx: TracePointContext) -> u32 {
    let base = ctx.as_ptr().cast::<u8>();
    // SAFETY: probe reads of bad addresses are errors, not faults.
    let (signal, handler) = unsafe {
        (
            bpf_probe_read_kernel(
                base.wrapping_add(SIGNAL_NUMBER.load() as usize)
                    .cast::<u32>(),
            ),
            bpf_probe_read_kernel(
                base.wrapping_add(SIGNAL_HANDLER.load() as usize)
                    .cast::<u64>(),
            ),
        )
    };
    let (Ok(signal), Ok(SIG_DFL)) = (signal, handler) else {
        return 0;
    };
    if signal >= 64 || FATAL & (1 << signal) == 0 {
        return 0;
    }
    // SAFETY: the helper only returns a pointer, which is read by probe reads.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    // A container that crashes in a loop of its own must not fill the ring.
    if let Some(count) = throttle::admit(Kind::Crash, cgroup::of(task)) {
        cgroup::emit_task(Kind::Crash, task, signal, count);
    }
    0
}

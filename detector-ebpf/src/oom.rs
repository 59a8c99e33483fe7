//! `oom:mark_victim`: the OOM killer chose a task.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use aya_ebpf::{EbpfContext, Global};
use aya_log_ebpf::debug;
use detector_ebpf::{Kind, LIMIT_UNKNOWN, TaskRecord};

use crate::{cgroup, ring};

#[unsafe(no_mangle)]
static OOM_PID: Global<u32> = Global::new(8);

/// Kernels whose event carries the task (`mark_victim(struct task_struct *, uid_t)`).
#[btf_tracepoint(function = "mark_victim")]
pub(crate) fn oom_task(ctx: BtfTracePointContext) -> i32 {
    debug!(&ctx, "mark_victim: a task was chosen");
    cgroup::emit_task(Kind::OomKill, ctx.arg::<*const u8>(0), 0, 1);
    0
}

/// Kernels whose event carries a pid only: no name and no cgroup.
#[tracepoint]
pub(crate) fn oom_pid(ctx: TracePointContext) -> u32 {
    let field = ctx
        .as_ptr()
        .cast::<u8>()
        .wrapping_add(OOM_PID.load() as usize);
    // SAFETY: a probe read of a bad address is an error, not a fault.
    let Ok(pid) = (unsafe { bpf_probe_read_kernel(field.cast::<u32>()) }) else {
        debug!(&ctx, "mark_victim without a readable pid");
        return 0;
    };
    let Some(mut entry) = ring::reserve::<TaskRecord>(Kind::OomKill) else {
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points to reserved ring memory of the right size.
    unsafe {
        (*record).header = ring::header(Kind::OomKill);
        (*record).pid = pid;
        (*record).tgid = 0;
        (*record).comm = [0; 16];
        (*record).levels = 0;
        (*record).signal = 0;
        (*record).count = 1;
        (*record).limit_level = LIMIT_UNKNOWN;
        (*record).reserved = 0;
    }
    entry.submit(0);
    0
}

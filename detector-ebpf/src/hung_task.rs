//! `sched:sched_process_hang`: khungtaskd found a task that did not run for too long.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use aya_ebpf::{EbpfContext, Global};
use detector_ebpf::{COMM, Kind, LIMIT_UNKNOWN, TaskRecord};

use crate::{cgroup, ring};

#[unsafe(no_mangle)]
static HANG_PID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static HANG_COMM: Global<u32> = Global::new(0);
/// 1 where `comm` is a data location (6.18 and later) instead of 16 bytes in place.
#[unsafe(no_mangle)]
static HANG_COMM_DYNAMIC: Global<u32> = Global::new(0);

#[btf_tracepoint(function = "sched_process_hang")]
pub(crate) fn hung_task(ctx: BtfTracePointContext) -> i32 {
    cgroup::emit_task(Kind::HungTask, ctx.arg::<*const u8>(0), 0, 1);
    0
}

/// Without the task there is no cgroup: the current task is khungtaskd.
#[tracepoint]
pub(crate) fn hung_pid(ctx: TracePointContext) -> u32 {
    let base = ctx.as_ptr().cast::<u8>();
    // SAFETY: probe reads of bad addresses are errors, not faults.
    let (pid, comm) = unsafe {
        let Ok(pid) =
            bpf_probe_read_kernel(base.wrapping_add(HANG_PID.load() as usize).cast::<u32>())
        else {
            return 0;
        };
        let mut at = base.wrapping_add(HANG_COMM.load() as usize);
        if HANG_COMM_DYNAMIC.load() == 1 {
            // The low half of a data location is the offset from the record's start.
            let location = bpf_probe_read_kernel(at.cast::<u32>()).unwrap_or(0);
            at = base.wrapping_add((location & 0xffff) as usize);
        }
        (
            pid,
            bpf_probe_read_kernel(at.cast::<[u8; COMM]>()).unwrap_or([0; COMM]),
        )
    };
    let Some(mut entry) = ring::reserve::<TaskRecord>(Kind::HungTask) else {
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points to reserved ring memory of the right size.
    unsafe {
        (*record).header = ring::header(Kind::HungTask);
        (*record).pid = pid;
        (*record).tgid = 0;
        (*record).comm = comm;
        (*record).levels = 0;
        (*record).signal = 0;
        (*record).count = 1;
        (*record).limit_level = LIMIT_UNKNOWN;
        (*record).reserved = 0;
    }
    entry.submit(0);
    0
}

//! `rcu:rcu_stall_warning` (5.15 and later): its fields are pointers to texts of the kernel.

use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use aya_ebpf::{EbpfContext, Global};
use detector_ebpf::{EVENT_BYTES, EventRecord, Kind, RCU_TEXT};

use crate::{ring, throttle};

#[unsafe(no_mangle)]
static RCU_NAME: Global<u32> = Global::new(8);
#[unsafe(no_mangle)]
static RCU_MESSAGE: Global<u32> = Global::new(16);

#[tracepoint]
pub(crate) fn rcu_stall_warning(ctx: TracePointContext) -> u32 {
    let base = ctx.as_ptr().cast::<u8>();
    let pointer = |offset: &Global<u32>| {
        let at = base
            .wrapping_add(offset.load() as usize)
            .cast::<*const u8>();
        // SAFETY: a probe read of a bad address is an error, not a fault.
        unsafe { bpf_probe_read_kernel(at) }.unwrap_or(core::ptr::null())
    };
    let (name, message) = (pointer(&RCU_NAME), pointer(&RCU_MESSAGE));
    let Some(count) = throttle::admit(Kind::RcuStall, name as u64) else {
        return 0;
    };
    let Some(mut entry) = ring::reserve::<EventRecord>(Kind::RcuStall) else {
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points to reserved ring memory of the right size; a text that cannot be read
    // stays empty.
    unsafe {
        (*record).header = ring::header(Kind::RcuStall);
        (*record).count = count;
        (*record).data = [0; EVENT_BYTES];
        let data = (&raw mut (*record).data).cast::<[u8; RCU_TEXT]>();
        let _ = bpf_probe_read_kernel_str_bytes(name, &mut *data);
        let _ = bpf_probe_read_kernel_str_bytes(message, &mut *data.add(1));
    }
    entry.submit(0);
    0
}

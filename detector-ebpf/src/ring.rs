//! The one ring buffer, and the count of records that did not fit into it.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use detector_ebpf::{Header, Kind};

/// About 240 of the largest records: more than a node's worth of faults in the time that
/// a real-time reader may be late.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Kind::SLOTS, 0);

pub(crate) fn header(kind: Kind) -> Header {
    // SAFETY: both helpers only return a number.
    let (cpu, boot_ns) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_boot_ns()) };
    Header {
        kind: kind as u32,
        cpu,
        boot_ns,
    }
}

/// Space for one record, or a count of what was lost.
pub(crate) fn reserve<T: 'static>(kind: Kind) -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none()
        && let Some(lost) = LOST.get_ptr_mut(kind as u32)
    {
        // SAFETY: a per-CPU slot, and tracepoint programs do not nest on their own hook.
        unsafe { *lost += 1 };
    }
    entry
}

//! `skb:kfree_skb`: counts drops per CPU and reason, and says so once per window in which a
//! reason passes its threshold. Never one record per packet.

use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::{btf_tracepoint, map, tracepoint};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use aya_ebpf::{EbpfContext, Global};
use detector_ebpf::{DROP_REASONS, DROP_WINDOW_NS, DropsRecord, Kind};

use crate::ring;

#[unsafe(no_mangle)]
static KFREE_REASON: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_IIF: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_NUM: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_NET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NET_INUM: Global<u32> = Global::new(0);

/// Drops per window that make a record; 0: this reason is no sign of trouble.
#[map]
static DROP_THRESHOLDS: Array<u32> = Array::with_max_entries(DROP_REASONS, 0);

#[repr(C)]
struct Window {
    start_ns: u64,
    count: u64,
}

#[map]
static DROP_WINDOWS: PerCpuArray<Window> = PerCpuArray::with_max_entries(DROP_REASONS, 0);

struct Packet {
    skb: *const u8,
    socket: *const u8,
}

/// 6.12 and later: `(skb, location, reason, rx_sk)`.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn net_drop_socket(ctx: BtfTracePointContext) -> i32 {
    let packet = || Packet {
        skb: ctx.arg(0),
        socket: ctx.arg(3),
    };
    count(ctx.arg(2), packet);
    0
}

/// 5.15 to 6.8: `(skb, location, reason)`.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn net_drop(ctx: BtfTracePointContext) -> i32 {
    count(ctx.arg(2), || Packet {
        skb: ctx.arg(0),
        socket: core::ptr::null(),
    });
    0
}

#[tracepoint]
pub(crate) fn net_drop_classic(ctx: TracePointContext) -> u32 {
    let field = ctx
        .as_ptr()
        .cast::<u8>()
        .wrapping_add(KFREE_REASON.load() as usize);
    // SAFETY: a probe read of a bad address is an error, not a fault.
    let reason = unsafe { bpf_probe_read_kernel(field.cast::<u32>()) }.unwrap_or(0);
    count(reason, || Packet {
        skb: core::ptr::null(),
        socket: core::ptr::null(),
    });
    0
}

#[inline(always)]
fn count(reason: u32, packet: impl FnOnce() -> Packet) {
    let Some(&threshold) = DROP_THRESHOLDS.get(reason) else {
        return;
    };
    if threshold == 0 {
        return;
    }
    let Some(window) = DROP_WINDOWS.get_ptr_mut(reason) else {
        return;
    };
    // SAFETY: a per-CPU slot that the map lookup has checked.
    let window = unsafe { &mut *window };
    // SAFETY: the helper only returns a number.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if now.wrapping_sub(window.start_ns) >= DROP_WINDOW_NS {
        window.start_ns = now;
        window.count = 0;
    }
    window.count += 1;
    if window.count == u64::from(threshold) {
        emit(
            reason,
            window.count,
            now.wrapping_sub(window.start_ns),
            &packet(),
        );
    }
}

fn emit(reason: u32, count: u64, window_ns: u64, packet: &Packet) {
    let Some(mut entry) = ring::reserve::<DropsRecord>(Kind::PacketDrops) else {
        return;
    };
    let record = entry.as_mut_ptr();
    let at = |base: *const u8, offset: &Global<u32>| base.wrapping_add(offset.load() as usize);
    // SAFETY: probe reads of bad addresses are errors, not faults; `record` points to reserved
    // ring memory of the right size.
    unsafe {
        (*record).header = ring::header(Kind::PacketDrops);
        (*record).count = count;
        (*record).window_ns = window_ns;
        (*record).reason = reason;
        // Not skb->dev: on the UDP receive path that is a union with dev_scratch.
        (*record).ifindex = bpf_probe_read_kernel(at(packet.skb, &SKB_IIF).cast()).unwrap_or(0);
        (*record).netns = 0;
        (*record).port = 0;
        (*record).reserved = 0;
        // The verifier forbids arithmetic on a pointer that may be null.
        if !packet.socket.is_null() {
            let net: *const u8 = bpf_probe_read_kernel(at(packet.socket, &SOCK_NET).cast())
                .unwrap_or(core::ptr::null());
            (*record).netns = bpf_probe_read_kernel(at(net, &NET_INUM).cast()).unwrap_or(0);
            (*record).port =
                bpf_probe_read_kernel(at(packet.socket, &SOCK_NUM).cast()).unwrap_or(0);
        }
    }
    entry.submit(0);
}

//! `skb:kfree_skb`: counts drops by reason, interface and network namespace, and says so once per
//! window in which one of these passes the reason's threshold. Never one record per packet.
//!
//! Not every packet is looked at: a CPU only counts them and looks at one of a few, which stands for
//! those since the one before. How many are passed over is by chance, so that flows whose packets
//! alternate are all seen.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_boot_ns, bpf_probe_read_kernel};
use aya_ebpf::macros::{btf_tracepoint, map, tracepoint};
use aya_ebpf::maps::{Array, LruHashMap, PerCpuArray};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use aya_ebpf::{EbpfContext, Global};
use detector_ebpf::{DROP_REASONS, DROP_WINDOW_NS, DropsRecord, Kind};

use crate::cgroup::follow;
use crate::{ring, throttle};

#[unsafe(no_mangle)]
static KFREE_REASON: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_IIF: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_DEV: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static DEV_IFINDEX: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static DEV_NET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_NUM: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SOCK_NET: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NET_INUM: Global<u32> = Global::new(0);

/// Of the classic tracepoint, `skbaddr`: an address, not the packet itself.
#[unsafe(no_mangle)]
static KFREE_SKB: Global<u32> = Global::new(0);

/// Packets of which the last is looked at, at most. A power of two, and little beside a threshold.
const MOST_PASSED_OVER: u32 = 16;

/// Drops per window that make a record; 0: this reason is no sign of trouble.
#[map]
static DROP_THRESHOLDS: Array<u32> = Array::with_max_entries(DROP_REASONS, 0);

#[repr(C)]
struct Gap {
    /// Packets since one was looked at.
    passed: u32,
    /// At how many the next is looked at.
    until: u32,
}

#[map]
static DROP_GAPS: PerCpuArray<Gap> = PerCpuArray::with_max_entries(DROP_REASONS, 0);

#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    reason: u32,
    ifindex: u32,
    netns: u32,
}

#[repr(C)]
struct Window {
    start_ns: u64,
    count: u64,
    told: u64,
}

/// The least recently used place goes first: where many lose packets, those that lose most stay.
#[map]
static DROP_WINDOWS: LruHashMap<Place, Window> = LruHashMap::with_max_entries(4096, 0);

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
    let base = ctx.as_ptr().cast::<u8>();
    let field = base.wrapping_add(KFREE_REASON.load() as usize);
    // SAFETY: a probe read of a bad address is an error, not a fault.
    let reason = unsafe { bpf_probe_read_kernel(field.cast::<u32>()) }.unwrap_or(0);
    count(reason, || Packet {
        skb: follow(base, KFREE_SKB.load()).unwrap_or(core::ptr::null()),
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
    let Some(gap) = DROP_GAPS.get_ptr_mut(reason) else {
        return;
    };
    // SAFETY: a per-CPU slot that the map lookup has checked.
    let gap = unsafe { &mut *gap };
    gap.passed += 1;
    if gap.passed < gap.until {
        return;
    }
    let packets = gap.passed;
    gap.passed = 0;
    // SAFETY: the helper only returns a number.
    gap.until = 1 + (unsafe { bpf_get_prandom_u32() } & (MOST_PASSED_OVER - 1));
    look(reason, u64::from(threshold), u64::from(packets), &packet());
}

/// `packets`: for how many this one stands.
fn look(reason: u32, threshold: u64, packets: u64, packet: &Packet) {
    let place = place(reason, packet);
    // SAFETY: the helper only returns a number.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(window) = DROP_WINDOWS.get_ptr_mut(place) else {
        let window = Window {
            start_ns: now,
            count: packets,
            told: 0,
        };
        // Another CPU may have been first: then these few are missing.
        let _ = DROP_WINDOWS.insert(place, window, u64::from(BPF_NOEXIST));
        return;
    };
    // SAFETY: a value that the lookup has found; it may be recycled for another place, never freed.
    let window = unsafe { &mut *window };
    if now.wrapping_sub(window.start_ns) >= DROP_WINDOW_NS {
        window.start_ns = now;
        window.count = 0;
        window.told = 0;
    }
    // Two CPUs at the same time may count for one of them; there are never more than there were.
    window.count += packets;
    let count = window.count;
    if count < threshold || window.told != 0 {
        return;
    }
    window.told = 1;
    // Those that lose most pass the threshold first.
    if throttle::admit(Kind::PacketDrops, u64::from(reason)).is_some() {
        emit(&place, count, now.wrapping_sub(window.start_ns), packet);
    }
}

/// Zeros where nothing is known.
#[inline(always)]
fn place(reason: u32, packet: &Packet) -> Place {
    let inum = |net| read(net, &NET_INUM);
    let mut place = Place {
        reason,
        ifindex: 0,
        netns: 0,
    };
    if let Some(net) = pointer(packet.socket, &SOCK_NET) {
        place.netns = inum(net);
    }
    if packet.skb.is_null() {
        return place;
    }
    place.ifindex = read(packet.skb, &SKB_IIF);
    if place.ifindex != 0 && place.netns != 0 {
        return place;
    }
    // On the way into a UDP socket this is no pointer any more, and cannot be followed.
    if let Some(device) = pointer(packet.skb, &SKB_DEV) {
        if place.ifindex == 0 {
            place.ifindex = read(device, &DEV_IFINDEX);
        }
        if place.netns == 0
            && let Some(net) = pointer(device, &DEV_NET)
        {
            place.netns = inum(net);
        }
    }
    place
}

/// The verifier forbids arithmetic on a pointer that may be null.
#[inline(always)]
fn pointer(base: *const u8, offset: &Global<u32>) -> Option<*const u8> {
    if base.is_null() {
        return None;
    }
    follow(base, offset.load())
}

#[inline(always)]
fn read(base: *const u8, offset: &Global<u32>) -> u32 {
    // SAFETY: a probe read of a bad address is an error, not a fault.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset.load() as usize).cast::<u32>()) }
        .unwrap_or(0)
}

fn emit(place: &Place, count: u64, window_ns: u64, packet: &Packet) {
    let Some(mut entry) = ring::reserve::<DropsRecord>(Kind::PacketDrops) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: probe reads of bad addresses are errors, not faults; `record` points to reserved
    // ring memory of the right size.
    unsafe {
        (*record).header = ring::header(Kind::PacketDrops);
        (*record).count = count;
        (*record).window_ns = window_ns;
        (*record).reason = place.reason;
        (*record).ifindex = place.ifindex;
        (*record).netns = place.netns;
        (*record).port = 0;
        (*record).reserved = 0;
        // The verifier forbids arithmetic on a pointer that may be null.
        if !packet.socket.is_null() {
            let port = packet.socket.wrapping_add(SOCK_NUM.load() as usize);
            (*record).port = bpf_probe_read_kernel(port.cast()).unwrap_or(0);
        }
    }
    entry.submit(0);
}

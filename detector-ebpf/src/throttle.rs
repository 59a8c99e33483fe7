//! Keeps one failing device from filling the ring: of one kind and entity a few records in each
//! second are made, and each carries the number of those that were not.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use detector_ebpf::{Kind, MOST_CRASHES_PER_SECOND, MOST_PER_SECOND};

#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    entity: u64,
    kind: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Second {
    start_ns: u64,
    records: u64,
    held_back: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

/// The least recently used entity goes first: a flood of entities makes records, not memory.
#[map]
static SECONDS: LruHashMap<Key, Second> = LruHashMap::with_max_entries(4096, 0);

/// How many faults the record stands for, or `None` where this one is to be held back.
///
/// Two CPUs at the same time may count one of two; there are never more than there were.
pub(crate) fn admit(kind: Kind, entity: u64) -> Option<u64> {
    let key = Key {
        entity,
        kind: kind as u32,
        reserved: 0,
    };
    // SAFETY: the helper only returns a number.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(second) = SECONDS.get_ptr_mut(key) else {
        let second = Second {
            start_ns: now,
            records: 1,
            held_back: 0,
        };
        // A map that has no room limits nothing.
        let _ = SECONDS.insert(key, second, 0);
        return Some(1);
    };
    // SAFETY: a value that the lookup has found; it may be recycled for another key, never freed.
    let second = unsafe { &mut *second };
    if now.wrapping_sub(second.start_ns) >= SECOND_NS {
        second.start_ns = now;
        second.records = 0;
    }
    let most = match kind {
        Kind::Crash => MOST_CRASHES_PER_SECOND,
        _ => MOST_PER_SECOND,
    };
    if second.records >= most {
        second.held_back += 1;
        return None;
    }
    second.records += 1;
    let count = 1 + second.held_back;
    second.held_back = 0;
    Some(count)
}

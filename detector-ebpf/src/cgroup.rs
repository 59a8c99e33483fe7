//! Copies the names of a task's cgroups, from its own up to the root's, while they exist:
//! by the time user space reads the record the cgroup is often gone.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes};
use detector_ebpf::{CGROUP_LEVELS, Kind, LIMIT_UNKNOWN, NO_LIMIT, TaskRecord};

use crate::ring;

/// Offsets from BTF; the loader sets them.
#[unsafe(no_mangle)]
static TASK_PID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_TGID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub(crate) static TASK_COMM: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_CGROUPS: Global<u32> = Global::new(0);
/// Of `css_set.subsys[memory_cgrp_id]`: on cgroup v1 the memory hierarchy is the one that
/// kubelet and runtime put containers into.
#[unsafe(no_mangle)]
static CSS_SET_MEMORY: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static CSS_CGROUP: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static CGROUP_KN: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KN_NAME: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KN_PARENT: Global<u32> = Global::new(0);

/// 0: where the kernel counts a cgroup's memory is not known.
#[unsafe(no_mangle)]
static CSS_PARENT: Global<u32> = Global::new(0);
/// Of `mem_cgroup.memory.usage` and `.max`; the css is the first member of `mem_cgroup`.
#[unsafe(no_mangle)]
static MEMCG_USAGE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static MEMCG_MAX: Global<u32> = Global::new(0);

/// Deepest path that is walked. A container may make cgroups of its own below the pod's.
const MAX_DEPTH: u32 = 64;

pub(crate) type Pointer = *const u8;

/// Reads the pointer stored at `base + offset`.
pub(crate) fn follow(base: Pointer, offset: u32) -> Option<Pointer> {
    // SAFETY: a probe read of a bad address is an error, not a fault.
    let pointer =
        unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<Pointer>()) }
            .ok()?;
    (!pointer.is_null()).then_some(pointer)
}

/// What tells the task's container from others: all its tasks share a `css_set`, or few.
pub(crate) fn of(task: Pointer) -> u64 {
    follow(task, TASK_CGROUPS.load()).map_or(0, |css_set| css_set as u64)
}

/// Emits a record about `task`, a `struct task_struct *`.
pub(crate) fn emit_task(kind: Kind, task: Pointer, signal: u32, count: u64) {
    let Some(mut entry) = ring::reserve::<TaskRecord>(kind) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved ring memory of the right size.
    unsafe {
        describe(kind, task, record);
        (*record).signal = signal;
        (*record).count = count;
    }
    entry.submit(0);
}

/// Fills a record about `task`, a `struct task_struct *`.
///
/// # Safety
/// `record` points to a whole `TaskRecord`.
#[inline(always)]
pub(crate) unsafe fn describe(kind: Kind, task: Pointer, record: *mut TaskRecord) {
    // SAFETY: as the caller says; probe reads of bad addresses fail and leave zeros.
    unsafe {
        (*record).header = ring::header(kind);
        (*record).pid =
            bpf_probe_read_kernel(task.wrapping_add(TASK_PID.load() as usize).cast()).unwrap_or(0);
        (*record).tgid =
            bpf_probe_read_kernel(task.wrapping_add(TASK_TGID.load() as usize).cast()).unwrap_or(0);
        (*record).comm = bpf_probe_read_kernel(task.wrapping_add(TASK_COMM.load() as usize).cast())
            .unwrap_or([0; 16]);
        (*record).signal = 0;
        (*record).count = 1;
        (*record).limit_level = match kind {
            Kind::OomKill => limit_level(task),
            _ => LIMIT_UNKNOWN,
        };
        (*record).reserved = 0;
        (*record).levels = copy_names(task, record);
    }
}

/// The innermost of the task's cgroups that has used up its memory limit. That of an OOM kill is still
/// full when its victim is marked; without one it is the node that has no memory left.
fn limit_level(task: Pointer) -> u32 {
    if CSS_PARENT.load() == 0 {
        return LIMIT_UNKNOWN;
    }
    let mut css = follow(task, TASK_CGROUPS.load())
        .and_then(|css_set| follow(css_set, CSS_SET_MEMORY.load()));
    let mut level = 1;
    while let Some(memory) = css
        && level <= MAX_DEPTH
    {
        let pages = |offset: &Global<u32>| {
            let at = memory.wrapping_add(offset.load() as usize).cast::<u64>();
            // SAFETY: a probe read of a bad address is an error, not a fault.
            unsafe { bpf_probe_read_kernel(at) }
        };
        let (Ok(usage), Ok(max)) = (pages(&MEMCG_USAGE), pages(&MEMCG_MAX)) else {
            return LIMIT_UNKNOWN;
        };
        // Pages are charged in batches, and the last tries to reclaim may have freed a few.
        if usage + 64 + (max >> 6) >= max {
            return level;
        }
        css = follow(memory, CSS_PARENT.load());
        level += 1;
    }
    NO_LIMIT
}

/// Walks from the task's memory cgroup to the root and returns how many names there were.
///
/// It does not stop at the first name that looks like a pod's: a container can make a cgroup with
/// such a name below its own.
///
/// # Safety
/// `record` points to a whole `TaskRecord`.
unsafe fn copy_names(task: Pointer, record: *mut TaskRecord) -> u32 {
    let Some(mut node) = follow(task, TASK_CGROUPS.load())
        .and_then(|css_set| follow(css_set, CSS_SET_MEMORY.load()))
        .and_then(|css| follow(css, CSS_CGROUP.load()))
        .and_then(|cgroup| follow(cgroup, CGROUP_KN.load()))
    else {
        return 0;
    };
    let mut levels = 0;
    while levels < MAX_DEPTH {
        let Some(name) = follow(node, KN_NAME.load()) else {
            break;
        };
        let slot = levels as usize & (CGROUP_LEVELS - 1);
        // SAFETY: `slot` is inside the array.
        let buffer = unsafe { &mut (*record).cgroup[slot] };
        // A level whose name cannot be read would hide the others; it stays nameless.
        buffer[0] = 0;
        // SAFETY: a probe read of a bad address is an error, not a fault.
        let empty =
            unsafe { bpf_probe_read_kernel_str_bytes(name, buffer) }.is_ok_and(<[u8]>::is_empty);
        // The root's name is empty.
        if empty {
            break;
        }
        levels += 1;
        let Some(parent) = follow(node, KN_PARENT.load()) else {
            break;
        };
        node = parent;
    }
    levels
}

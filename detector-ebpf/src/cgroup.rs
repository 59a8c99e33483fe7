//! Copies the names of a task's cgroups, from its own up to the root's, while they exist:
//! by the time user space reads the record the cgroup is often gone.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes};
use detector_ebpf::{CGROUP_LEVELS, Kind, TaskRecord};

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

/// Emits a record about `task`, a `struct task_struct *`.
pub(crate) fn emit_task(kind: Kind, task: Pointer) {
    let Some(mut entry) = ring::reserve::<TaskRecord>(kind) else {
        return;
    };
    // SAFETY: reserved ring memory of the right size.
    unsafe { describe(kind, task, entry.as_mut_ptr()) };
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
        (*record).reserved = 0;
        (*record).levels = copy_names(task, record);
    }
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

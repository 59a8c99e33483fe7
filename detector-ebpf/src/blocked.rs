//! `iter/task`: writes a record of each task in uninterruptible sleep to whoever reads the iterator.
//! khungtaskd passes over killable sleepers (NFS, FUSE); this does not.

use core::ffi::c_void;

use aya_ebpf::Global;
use aya_ebpf::bindings::{seq_file, task_struct};
use aya_ebpf::helpers::{bpf_get_task_stack, bpf_probe_read_kernel, bpf_seq_write};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use detector_ebpf::{BlockedRecord, COMM, Kind, STACK_FRAMES};

use crate::cgroup::{self, Pointer, TASK_COMM};

/// Offsets from BTF; the loader sets them.
#[unsafe(no_mangle)]
static TASK_STATE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_FLAGS: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_LEADER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_STARTED: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_SWITCHES: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_FORCED_SWITCHES: Global<u32> = Global::new(0);

// include/linux/sched.h; the same from 5.10 to 7.2.
const TASK_UNINTERRUPTIBLE: u32 = 0x2;
/// Idle kernel threads.
const TASK_NOLOAD: u32 = 0x400;
const PF_KTHREAD: u32 = 0x0020_0000;
/// Of a task in a frozen cgroup before 6.1, which since then has a state of its own; of kcompactd
/// since 6.15.
const PF_FROZEN: u32 = 0x0001_0000;

#[expect(clippy::cast_possible_truncation, reason = "1.3 KiB")]
const RECORD_BYTES: u32 = size_of::<BlockedRecord>() as u32;
#[expect(clippy::cast_possible_truncation, reason = "256 bytes")]
const STACK_BYTES: u32 = size_of::<[u64; STACK_FRAMES]>() as u32;

/// Too large for the stack of a program.
#[map]
static BLOCKED: PerCpuArray<BlockedRecord> = PerCpuArray::with_max_entries(1, 0);

/// `struct bpf_iter__task`. aya-ebpf has no macro for iterators.
#[repr(C)]
struct Context {
    meta: *const Meta,
    /// Null at the end.
    task: *const u8,
}

/// `struct bpf_iter_meta`, as far as it is used.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn blocked_tasks(ctx: *const Context) -> i32 {
    // SAFETY: the kernel passes a whole context; the verifier checks both reads.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let state: u32 = read(task, &TASK_STATE);
    if state & TASK_UNINTERRUPTIBLE == 0 || state & TASK_NOLOAD != 0 {
        return 0;
    }
    let flags: u32 = read(task, &TASK_FLAGS);
    if flags & (PF_FROZEN | PF_KTHREAD) == PF_FROZEN {
        return 0;
    }
    let Some(record) = BLOCKED.get_ptr_mut(0) else {
        return 0;
    };
    let leader = cgroup::follow(task, TASK_LEADER.load()).unwrap_or(task);
    // SAFETY: `record` is this CPU's own, and nothing else runs this program on it meanwhile; `task`
    // and `seq` come from the kernel, which checks that they stayed what they were.
    unsafe {
        cgroup::describe(Kind::HungTask, task, &raw mut (*record).task);
        (*record).started_ns = read(task, &TASK_STARTED);
        (*record).switches = read::<u64>(task, &TASK_SWITCHES)
            .wrapping_add(read::<u64>(task, &TASK_FORCED_SWITCHES));
        (*record).process = read::<[u8; COMM]>(leader, &TASK_COMM);
        let stack = &raw mut (*record).stack;
        (*record).stack_bytes = bpf_get_task_stack(
            task.cast_mut().cast::<task_struct>(),
            stack.cast::<c_void>(),
            STACK_BYTES,
            0,
        );
        // A full buffer is grown by the kernel, which then asks for this task again.
        bpf_seq_write(
            (*meta).seq,
            record.cast_const().cast::<c_void>(),
            RECORD_BYTES,
        );
    }
    0
}

/// The field at a global offset; zeros where it cannot be read.
#[inline(always)]
fn read<T: zerocopy::FromBytes>(task: Pointer, offset: &Global<u32>) -> T {
    // SAFETY: a probe read of a bad address is an error, not a fault.
    unsafe { bpf_probe_read_kernel(task.wrapping_add(offset.load() as usize).cast::<T>()) }
        .unwrap_or_else(|_| T::new_zeroed())
}

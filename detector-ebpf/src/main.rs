//! The BPF programs of the detector. One file per hook.
//!
//! Offsets are globals that the loader sets from tracefs and BTF. A context must not be
//! dereferenced at an offset held in a global (the verifier refuses a modified context
//! pointer), so fields are read with `bpf_probe_read_kernel`.

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "BPF programs read kernel memory through raw pointers"
)]

mod block_io;
mod blocked;
mod cgroup;
mod console;
mod copied;
mod crash;
mod hung_task;
mod net_drop;
mod oom;
mod rcu_stall;
mod ring;
mod throttle;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

// GPL-only helpers (probe reads) need a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

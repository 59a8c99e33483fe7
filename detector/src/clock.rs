//! The only place that reads a clock.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::finding::Now;

pub(crate) fn now() -> Now {
    #[expect(clippy::disallowed_methods, reason = "the loops get their `now` here")]
    let wall = Timestamp::now();
    Now { boot: boot(), wall }
}

/// `CLOCK_BOOTTIME`, as in the records of the BPF programs.
pub(crate) fn boot() -> Duration {
    read(ClockId::Boottime)
}

/// What the calling thread has had of a CPU.
pub(crate) fn own_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Another one after each boot of the kernel.
pub(crate) fn boot_id() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(id.trim().to_owned())
}

/// How long the machine has been suspended since boot.
pub(crate) fn suspended() -> Duration {
    boot().saturating_sub(read(ClockId::Monotonic))
}

/// Whether the kernel's clock is, as whoever sets it says (adjtimex(2)); None where it is not told.
pub(crate) fn is_synchronised() -> Option<bool> {
    let mut state = std::mem::MaybeUninit::<libc::timex>::zeroed();
    #[expect(
        unsafe_code,
        reason = "adjtimex is a C function; with no modes set it only reads"
    )]
    let answer = unsafe {
        // SAFETY: all zeroes is a timex without modes, and the kernel fills it.
        libc::adjtimex(state.as_mut_ptr())
    };
    if answer < 0 {
        return None;
    }
    #[expect(unsafe_code, reason = "what adjtimex has filled")]
    let state = unsafe {
        // SAFETY: zeroed, and filled by the call.
        state.assume_init()
    };
    Some(state.status & libc::STA_UNSYNC == 0)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // All count up from zero.
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

//! `printk:console` (5.19 and later: every line, at the moment in which it is stored): copies lines
//! that begin like one that counts. `/dev/kmsg` is what is read; a copy is looked at only where the
//! log was overrun before its line was read.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel, generated};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, HashMap, RingBuf};
use aya_ebpf::programs::BtfTracePointContext;
use detector_ebpf::{LINE_BYTES, LineRecord, MOST_BEGINNINGS};

/// The copies have a ring of their own: a flood of lines must not take the room of faults.
#[map]
static LINES: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// One bit for each value of a line's first two bytes.
#[map]
static FIRST_BYTES: Array<u64> = Array::with_max_entries(1 << 10, 0);

/// The first four bytes of lines that count.
#[map]
static BEGINNINGS: HashMap<u32, u8> = HashMap::with_max_entries(MOST_BEGINNINGS, 0);

/// `(const char *text, size_t len)`; the text has no end but its length.
#[btf_tracepoint(function = "console")]
pub(crate) fn console(ctx: BtfTracePointContext) -> i32 {
    let (text, length): (*const u8, u64) = (ctx.arg(0), ctx.arg(1));
    if length < 4 {
        return 0;
    }
    // SAFETY: a probe read of a bad address is an error, not a fault.
    let Ok(beginning) = (unsafe { bpf_probe_read_kernel(text.cast::<u32>()) }) else {
        return 0;
    };
    if counts(u32::from_le(beginning)) {
        copy(text, length);
    }
    0
}

#[inline(always)]
fn counts(beginning: u32) -> bool {
    let first = beginning & 0xffff;
    let Some(&bits) = FIRST_BYTES.get(first >> 6) else {
        return false;
    };
    // SAFETY: the value is not looked at.
    bits & 1 << (first & 63) != 0 && unsafe { BEGINNINGS.get(beginning) }.is_some()
}

fn copy(text: *const u8, length: u64) {
    let Some(mut entry) = LINES.reserve::<LineRecord>(0) else {
        return;
    };
    let record = entry.as_mut_ptr();
    let most = LINE_BYTES as u64 - 1;
    // The mask is for the verifier.
    let length = if length > most { most } else { length } & most;
    // SAFETY: `record` points to reserved ring memory of the right size, `length` is below that of its
    // text; a probe read of a bad address is an error, not a fault.
    unsafe {
        (*record).boot_ns = bpf_ktime_get_boot_ns();
        (*record).length = length;
        #[expect(clippy::cast_possible_truncation, reason = "below LINE_BYTES")]
        let read = generated::bpf_probe_read_kernel(
            (&raw mut (*record).text).cast(),
            length as u32,
            text.cast(),
        );
        if read != 0 {
            (*record).length = 0;
        }
    }
    // The log itself wakes its reader.
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

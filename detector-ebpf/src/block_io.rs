//! `block:block_rq_error` (5.18 and later), or `block:block_rq_complete` with an error.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use aya_ebpf::{EbpfContext, Global};
use detector_ebpf::{BlockRecord, Kind};

use crate::{ring, throttle};

#[unsafe(no_mangle)]
static BLOCK_DEV: Global<u32> = Global::new(8);
#[unsafe(no_mangle)]
static BLOCK_SECTOR: Global<u32> = Global::new(16);
#[unsafe(no_mangle)]
static BLOCK_SECTORS: Global<u32> = Global::new(24);
#[unsafe(no_mangle)]
static BLOCK_ERROR: Global<u32> = Global::new(28);
#[unsafe(no_mangle)]
static BLOCK_RWBS: Global<u32> = Global::new(32);

const ENOMEM: i32 = -12;
const EAGAIN: i32 = -11;
const EBUSY: i32 = -16;
const EOPNOTSUPP: i32 = -95;

#[tracepoint]
pub(crate) fn block_rq_error(ctx: TracePointContext) -> u32 {
    report(&ctx);
    0
}

#[tracepoint]
pub(crate) fn block_rq_complete(ctx: TracePointContext) -> u32 {
    report(&ctx);
    0
}

fn report(ctx: &TracePointContext) {
    let base = ctx.as_ptr().cast::<u8>();
    let at = |offset: &Global<u32>| base.wrapping_add(offset.load() as usize);
    // SAFETY: probe reads of bad addresses are errors, not faults; `record` points to reserved
    // ring memory of the right size.
    unsafe {
        let error = bpf_probe_read_kernel(at(&BLOCK_ERROR).cast::<i32>()).unwrap_or(0);
        // block_rq_complete runs for every request: leave first thing when it went well. The
        // others are no faults: mkfs discards and write-zeroes on devices that cannot
        // (EOPNOTSUPP), and requests that the block layer will try again.
        if error == 0 || error == EOPNOTSUPP || error == EAGAIN || error == EBUSY || error == ENOMEM
        {
            return;
        }
        let dev = bpf_probe_read_kernel(at(&BLOCK_DEV).cast::<u32>()).unwrap_or(0);
        let Some(count) = throttle::admit(Kind::BlockError, u64::from(dev)) else {
            return;
        };
        let Some(mut entry) = ring::reserve::<BlockRecord>(Kind::BlockError) else {
            return;
        };
        let record = entry.as_mut_ptr();
        (*record).header = ring::header(Kind::BlockError);
        (*record).error = error;
        (*record).dev = dev;
        (*record).sector = bpf_probe_read_kernel(at(&BLOCK_SECTOR).cast()).unwrap_or(0);
        (*record).sectors = bpf_probe_read_kernel(at(&BLOCK_SECTORS).cast()).unwrap_or(0);
        (*record).rwbs = bpf_probe_read_kernel(at(&BLOCK_RWBS).cast()).unwrap_or([0; 8]);
        (*record).reserved = 0;
        (*record).count = count;
        entry.submit(0);
    }
}

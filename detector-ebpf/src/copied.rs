//! Tracepoints whose records are copied as they are: user space knows their layout, and the kernel's
//! part is to leave out what is no fault. Each program has the name of its event.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_buf};
use aya_ebpf::macros::{map, tracepoint};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TracePointContext;
use detector_ebpf::{CopyRule, EventRecord, Kind};

use crate::{ring, throttle};

/// Index: [`Kind`].
#[map]
static COPY_RULES: Array<CopyRule> = Array::with_max_entries(Kind::SLOTS, 0);

macro_rules! copied {
    ($($event:ident => $kind:ident,)+) => {
        $(
            #[tracepoint]
            pub(crate) fn $event(ctx: TracePointContext) -> u32 {
                copy(&ctx, Kind::$kind);
                0
            }
        )+
    };
}

copied! {
    ext4_error => Ext4Error,
    ext4_shutdown => Ext4Shutdown,
    xfs_force_shutdown => XfsShutdown,
    filemap_set_wb_err => WritebackError,
    nvme_complete_rq => NvmeError,
    scsi_dispatch_cmd_done => ScsiError,
    scsi_dispatch_cmd_timeout => ScsiTimeout,
    ata_eh_link_autopsy => AtaError,
    mce_record => MachineCheck,
    mc_event => MemoryController,
    aer_event => Aer,
    non_standard_event => FirmwareError,
    arm_event => ArmError,
    memory_failure_event => PoisonedPage,
    cxl_aer_uncorrectable_error => CxlUncorrectable,
    net_dev_xmit_timeout => TransmitTimeout,
    devlink_health_report => DevlinkHealth,
    thermal_zone_trip => ThermalTrip,
}

#[inline(always)]
fn copy(ctx: &TracePointContext, kind: Kind) {
    let Some(rule) = COPY_RULES.get(kind as u32) else {
        return;
    };
    let base = ctx.as_ptr().cast::<u8>();
    if rule.fault_mask != 0 {
        let at = base.wrapping_add(rule.fault_offset as usize).cast::<u32>();
        // SAFETY: a probe read of a bad address is an error, not a fault.
        let value = unsafe { bpf_probe_read_kernel(at) }.unwrap_or(0);
        // Some of these run for every request: leave first thing when it went well.
        if value & rule.fault_mask == 0 {
            return;
        }
    }
    emit(base, kind, rule);
}

fn emit(base: *const u8, kind: Kind, rule: &CopyRule) {
    let at = base.wrapping_add(rule.entity_offset as usize).cast::<u64>();
    // SAFETY: a probe read of a bad address is an error, not a fault.
    let entity = unsafe { bpf_probe_read_kernel(at) }.unwrap_or(0) & rule.entity_mask;
    let Some(count) = throttle::admit(kind, entity) else {
        return;
    };
    let Some(mut entry) = ring::reserve::<EventRecord>(kind) else {
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` points to reserved ring memory of the right size. The context is a record in
    // the CPU's trace buffer, which is larger than what is copied; a failed read leaves zeros, which
    // user space counts as unreadable.
    unsafe {
        (*record).header = ring::header(kind);
        (*record).count = count;
        let _ = bpf_probe_read_kernel_buf(base, &mut (*record).data);
    }
    entry.submit(0);
}

//! PURE. GPUs of AMD and Intel, in the words of their drivers: amdgpu, i915, xe. A reset that went
//! well is no fault.

use super::fault::{digits, hex, on_device, pci_function};
use super::words::is_word;
use super::{Record, What, at_level, number};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    amd(record).or_else(|| intel(record))
}

/// `amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=3`
/// (drivers/gpu/drm/amd/amdgpu).
fn amd(record: &Record<'_>) -> Option<What> {
    let (gpu, rest) = record.text.strip_prefix("amdgpu ")?.split_once(": ")?;
    if !pci_function(gpu) {
        return None;
    }
    let text = rest.strip_prefix("amdgpu: ").unwrap_or(rest);
    let error = at_level(record, 3).is_some();
    let told = at_level(record, 6).is_some();
    let reason = if error && is_ring_timeout(text) {
        Reason::GpuHang
    } else if error && negative(text, "GPU Recovery Failed: ")
        || told && negative(text, "GPU reset end with ret = ")
    {
        Reason::GpuResetFailed
    } else if told && is_ras(text) {
        Reason::GpuMemoryError
    } else {
        return None;
    };
    let message = format!("GPU {gpu}: {text}");
    Some(on_device(reason, gpu.to_owned(), &message))
}

/// `ring %s timeout, signaled seq=%u, emitted seq=%u`; one that was `soft recovered` is none.
fn is_ring_timeout(text: &str) -> bool {
    let parts = || {
        let (ring, rest) = text
            .strip_prefix("ring ")?
            .split_once(" timeout, signaled seq=")?;
        let (signaled, emitted) = rest.split_once(", emitted seq=")?;
        let name = ring.replace('.', "_");
        Some(is_word(&name) && digits(signaled) && digits(emitted))
    };
    parts() == Some(true)
}

fn negative(text: &str, before: &str) -> bool {
    text.strip_prefix(before)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(digits)
}

/// `%ld uncorrectable hardware errors detected in %s block`, with `socket: 0, die: 0, ` before it
/// and `new ` or ` in total` in it (amdgpu_ras.c). Zero is an answer, no error.
fn is_ras(text: &str) -> bool {
    let whole = || {
        let (before, block) = text.split_once(" uncorrectable hardware errors detected in ")?;
        let block = block.strip_prefix("total in ").unwrap_or(block);
        let block = block.strip_suffix(" block")?;
        let before = before.strip_suffix(" new").unwrap_or(before);
        let (place, count) = before.rsplit_once(' ').unwrap_or(("", before));
        let place_fits = place.is_empty()
            || place.strip_suffix(',').is_some_and(|place| {
                place.split(", ").all(|part| {
                    part.split_once(": ")
                        .is_some_and(|(name, value)| is_word(name) && digits(value))
                })
            });
        let counted = digits(count) && count.bytes().any(|b| b != b'0');
        Some(place_fits && counted && is_word(block))
    };
    whole() == Some(true)
}

fn intel(record: &Record<'_>) -> Option<What> {
    let (driver, rest) = record.text.split_once(' ')?;
    let (gpu, rest) = rest.split_once(": [drm] ")?;
    if !matches!(driver, "i915" | "xe") || !pci_function(gpu) {
        return None;
    }
    let error = at_level(record, 3).and_then(|_| rest.strip_prefix("*ERROR* "));
    let told = at_level(record, 5)
        .or_else(|| at_level(record, 6))
        .is_some();
    let reason = match driver {
        "i915" if told && is_hang(rest) => Reason::GpuHang,
        "i915" if error.is_some_and(is_late_reset) => Reason::GpuResetFailed,
        "xe" if told && is_engine_reset(rest) => Reason::GpuHang,
        "xe" if error.is_some_and(|text| is_wedged(text, gpu)) => Reason::GpuResetFailed,
        _ => return None,
    };
    let message = format!("GPU {gpu}: {}", error.unwrap_or(rest));
    Some(on_device(reason, gpu.to_owned(), &message))
}

/// `GPU HANG: ecode 12:1:85dffffb, in Xorg [1234]` (i915_gpu_error.c); the name is a process'.
fn is_hang(text: &str) -> bool {
    let whole = || {
        let rest = text.strip_prefix("GPU HANG: ecode ")?;
        let (code, process) = match rest.split_once(", in ") {
            Some((code, process)) => (code, Some(process)),
            None => (rest, None),
        };
        if let Some(process) = process {
            super::words::process(&process.strip_suffix(']')?.replacen(" [", "[", 1), '[')?;
        }
        let mut parts = code.split(':');
        let fits = parts.by_ref().take(3).filter(|part| hex(part)).count() == 3;
        Some(fits && parts.next().is_none())
    };
    whole() == Some(true)
}

/// `rcs0 reset request timed out: {request: 00000001, RESET_CTL: 00000001}` (intel_reset.c).
fn is_late_reset(text: &str) -> bool {
    let whole = || {
        let (engine, rest) = text.split_once(" reset request timed out: {request: ")?;
        let (request, control) = rest.strip_suffix('}')?.split_once(", RESET_CTL: ")?;
        Some(is_word(engine) && hex(request) && hex(control))
    };
    whole() == Some(true)
}

/// `GT0: Engine reset: engine_class=rcs, logical_mask: 0x1, guc_id=2` (xe_guc_submit.c).
fn is_engine_reset(text: &str) -> bool {
    let whole = || {
        let (gt, rest) = text
            .strip_prefix("GT")?
            .split_once(": Engine reset: engine_class=")?;
        let (class, rest) = rest.split_once(", logical_mask: ")?;
        let (mask, id) = rest.split_once(", guc_id=")?;
        number(gt).filter(|_| !gt.is_empty())?;
        Some(is_word(class) && hex(mask) && digits(id))
    };
    whole() == Some(true)
}

/// `CRITICAL: Xe has declared device 0000:03:00.0 as wedged.` (xe_device.c), and what to do behind it.
fn is_wedged(text: &str, gpu: &str) -> bool {
    text.strip_prefix("CRITICAL: Xe has declared device ")
        .and_then(|rest| rest.strip_prefix(gpu))
        .is_some_and(|rest| rest == " as wedged." || rest.starts_with(r" as wedged.\x0a"))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn each_driver_names_its_gpu() {
        for (level, text, reason) in [
            (
                3,
                "amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=3",
                Reason::GpuHang,
            ),
            (
                6,
                "amdgpu 0000:03:00.0: amdgpu: GPU reset end with ret = -110",
                Reason::GpuResetFailed,
            ),
            (
                3,
                "amdgpu 0000:03:00.0: amdgpu: GPU Recovery Failed: -19",
                Reason::GpuResetFailed,
            ),
            (
                6,
                "amdgpu 0000:03:00.0: amdgpu: 2 uncorrectable hardware errors detected in umc block",
                Reason::GpuMemoryError,
            ),
            (
                6,
                "amdgpu 0000:03:00.0: amdgpu: socket: 0, die: 1, 1 new uncorrectable hardware errors detected in gfx block",
                Reason::GpuMemoryError,
            ),
            (
                6,
                "amdgpu 0000:03:00.0: amdgpu: socket: 0, die: 1, 1 uncorrectable hardware errors detected in total in gfx block",
                Reason::GpuMemoryError,
            ),
            (
                6,
                "i915 0000:03:00.0: [drm] GPU HANG: ecode 12:1:85dffffb, in a b [1234]",
                Reason::GpuHang,
            ),
            (
                3,
                "i915 0000:03:00.0: [drm] *ERROR* rcs0 reset request timed out: {request: 00000001, RESET_CTL: 00000001}",
                Reason::GpuResetFailed,
            ),
            (
                5,
                "xe 0000:03:00.0: [drm] GT0: Engine reset: engine_class=rcs, logical_mask: 0x1, guc_id=2",
                Reason::GpuHang,
            ),
            (
                3,
                "xe 0000:03:00.0: [drm] *ERROR* CRITICAL: Xe has declared device 0000:03:00.0 as wedged.",
                Reason::GpuResetFailed,
            ),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.device.as_deref()),
                (reason, Some("0000:03:00.0")),
                "{text}"
            );
        }
    }

    #[test]
    fn what_went_well_or_is_not_whole_does_not_count() {
        for text in [
            "amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, but soft recovered",
            "amdgpu 0000:03:00.0: amdgpu: GPU reset end with ret = 0",
            "amdgpu 0000:03:00.0: amdgpu: GPU reset(2) succeeded!",
            "amdgpu 0000:03:00.0: amdgpu: 0 uncorrectable hardware errors detected in umc block",
            "amdgpu 0000:03:00.0: amdgpu: no uncorrectable hardware errors detected in umc block",
            "amdgpu 0000:03:00.0: amdgpu: 2 correctable hardware errors detected in umc block",
            "amdgpu ../x: amdgpu: GPU reset end with ret = -1",
            "i915 0000:03:00.0: [drm] GPU HANG: ecode 12:1",
            "xe 0000:03:00.0: [drm] *ERROR* CRITICAL: Xe has declared device 0000:04:00.0 as wedged.",
        ] {
            for level in [3, 5, 6] {
                nothing(level, read, text);
            }
        }
        forged_by_names(
            read,
            &["amdgpu 0000:03:", "i915 0000:03:00", "xe 0000:03:00.0"],
        );
    }
}

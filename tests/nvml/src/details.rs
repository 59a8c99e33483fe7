//! What is asked about a GPU now and then.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use super::{Device, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, code, gpu, write_text};
use crate::scenario::Gpu;

const CORRUPTED_INFOROM: c_int = 14;
const INSUFFICIENT_SIZE: c_int = 7;
const MOST_INSTANCES: usize = 7;
const FIRST_INSTANCE: usize = 5;
const LANES: u64 = 16;

/// The bits of a handle that are an instance's of MIG; the others are its GPU's.
pub const INSTANCE: usize = 0xff << 48;

/// Of MIG, if the handle is one.
pub fn instance(device: Device) -> Option<usize> {
    let instance = (device.addr() & INSTANCE) >> 48;
    (instance != 0).then_some(instance)
}

/// A field that is not of the look.
pub fn field(gpu: &Gpu, field: c_uint) -> Option<u64> {
    match field {
        // Aggregate errors by location, and time held down.
        18..=28 => gpu.errors,
        74 | 75 => gpu.temperature,
        // Of the memory.
        82 => gpu.temperature,
        142 | 143 => gpu.remapped,
        // Milliwatts.
        186 => gpu.temperature.map(|heat| heat * 1000),
        _ => None,
    }
}

fn number(value: u64) -> Result<c_uint, c_int> {
    c_uint::try_from(value).map_err(|_| INVALID_ARGUMENT)
}

/// # Safety
///
/// `place` can be written.
unsafe fn tell(
    device: Device,
    place: *mut c_uint,
    value: impl FnOnce(&Gpu) -> Option<u64>,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let value = number(value(&gpu).ok_or(NOT_SUPPORTED)?)?;
        // SAFETY: can be written, by the contract.
        unsafe { place.write(value) };
        Ok(())
    }))
}

/// # Safety
///
/// `index` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetIndex(device: Device, index: *mut c_uint) -> c_int {
    // By its bus: they are in the order of the bus.
    let bus = |gpu: &Gpu| u64::from_str_radix(gpu.address.get(5..7)?, 16).ok();
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, index, bus) }
}

/// # Safety
///
/// `serial` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(
    device: Device,
    serial: *mut c_char,
    length: c_uint,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let text = gpu.serial.ok_or(NOT_SUPPORTED)?.to_string();
        // SAFETY: there is as much room, by the contract.
        unsafe { write_text(&text, serial, length) }
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceValidateInforom(device: Device) -> c_int {
    code(gpu(device).and_then(|gpu| match gpu.inforom {
        None => Err(NOT_SUPPORTED),
        Some(0) => Ok(()),
        Some(_) => Err(CORRUPTED_INFOROM),
    }))
}

/// # Safety
///
/// `mode` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPersistenceMode(device: Device, mode: *mut c_uint) -> c_int {
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, mode, |gpu| gpu.persistence) }
}

/// # Safety
///
/// `degrees` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: Device,
    _sensor: c_uint,
    degrees: *mut c_uint,
) -> c_int {
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, degrees, |gpu| gpu.temperature) }
}

/// # Safety
///
/// `degrees` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: Device,
    _threshold: c_uint,
    degrees: *mut c_uint,
) -> c_int {
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, degrees, |gpu| gpu.temperature.map(|_| 90)) }
}

/// # Safety
///
/// `generation` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxPcieLinkGeneration(
    device: Device,
    generation: *mut c_uint,
) -> c_int {
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, generation, |gpu| gpu.lanes.map(|_| 5)) }
}

/// # Safety
///
/// `generation` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkGeneration(
    device: Device,
    generation: *mut c_uint,
) -> c_int {
    // As of an idle GPU.
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, generation, |gpu| gpu.lanes.map(|_| 1)) }
}

/// # Safety
///
/// `lanes` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxPcieLinkWidth(
    device: Device,
    lanes: *mut c_uint,
) -> c_int {
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, lanes, |gpu| gpu.lanes.map(|_| LANES)) }
}

/// # Safety
///
/// `lanes` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrPcieLinkWidth(
    device: Device,
    lanes: *mut c_uint,
) -> c_int {
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, lanes, |gpu| gpu.lanes) }
}

/// `nvmlEccSramErrorStatus_v1_t`.
#[repr(C)]
pub struct SramStatus {
    version: c_uint,
    /// Parity, SEC-DED and corrected, aggregate and volatile; aggregate of L2, SM, PCIe, MCU, other.
    counts: [c_ulonglong; 11],
    threshold_exceeded: c_uint,
}

/// # Safety
///
/// `status` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSramEccErrorStatus(
    device: Device,
    status: *mut SramStatus,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let exceeded = gpu.sram.ok_or(NOT_SUPPORTED)?;
        // SAFETY: the caller has set its version, and the rest can be written.
        let status = unsafe { &mut *status };
        if status.version != u32::try_from(size_of::<SramStatus>()).unwrap_or_default() | 1 << 24 {
            return Err(INVALID_ARGUMENT);
        }
        status.counts = [gpu.errors.unwrap_or_default(); 11];
        status.threshold_exceeded = number(exceeded)?;
        Ok(())
    }))
}

/// # Safety
///
/// `banks` can be written: those with all spare rows, many, some, few and none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRowRemapperHistogram(
    device: Device,
    banks: *mut [c_uint; 5],
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let spent = number(gpu.spent.ok_or(NOT_SUPPORTED)?)?;
        // SAFETY: can be written, by the contract.
        unsafe { banks.write([640 - spent, 0, 0, 0, spent]) };
        Ok(())
    }))
}

/// # Safety
///
/// Both can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: Device,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> c_int {
    let mode = |gpu: &Gpu| gpu.mig.map(|instances| u64::from(instances > 0));
    // SAFETY: can be written, by the contract.
    match unsafe { tell(device, current, mode) } {
        // SAFETY: both can be, and the first has been.
        0 => unsafe { pending.write(current.read()) },
        code => return code,
    }
    0
}

/// # Safety
///
/// `count` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(
    device: Device,
    count: *mut c_uint,
) -> c_int {
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, count, |gpu| gpu.mig.map(|_| MOST_INSTANCES as u64)) }
}

/// # Safety
///
/// `instance` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Device,
    index: c_uint,
    instance: *mut Device,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        if u64::from(index) >= gpu.mig.ok_or(NOT_SUPPORTED)? {
            return Err(NOT_FOUND);
        }
        let number = FIRST_INSTANCE + usize::try_from(index).map_err(|_| INVALID_ARGUMENT)?;
        let handle = std::ptr::without_provenance_mut(gpu.handle() | number << 48);
        // SAFETY: can be written, by the contract.
        unsafe { instance.write(handle) };
        Ok(())
    }))
}

/// # Safety
///
/// `number` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuInstanceId(device: Device, number: *mut c_uint) -> c_int {
    let own = instance(device).map(|instance| instance as u64);
    // SAFETY: can be written, by the contract.
    unsafe { tell(device, number, |_| own) }
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
pub struct ProcessInfo {
    pid: c_uint,
    used_memory: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// # Safety
///
/// `processes` has room for `count` of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Device,
    count: *mut c_uint,
    processes: *mut ProcessInfo,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let Some(pid) = gpu.pid else {
            // SAFETY: can be written, by the contract.
            unsafe { count.write(0) };
            return Ok(());
        };
        // SAFETY: can be read and written, by the contract.
        let room = unsafe { count.replace(1) };
        if room == 0 {
            return Err(INSUFFICIENT_SIZE);
        }
        let process = ProcessInfo {
            pid: number(pid)?,
            used_memory: 1 << 20,
            gpu_instance: u32::MAX,
            compute_instance: u32::MAX,
        };
        // SAFETY: there is room for one.
        unsafe { processes.write(process) };
        Ok(())
    }))
}

//! A `libnvidia-ml.so.1` with the real ABI (nvml.h, API 12) that plays the scenario of the file that
//! `NVML_SCENARIO` names. The file is read at each call: a test changes what happens by writing it.

#![expect(
    unsafe_code,
    reason = "C functions under the names and with the pointers of nvml.h"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

mod details;
mod scenario;

use scenario::{Gpu, Scenario};

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_SUPPORTED: c_int = 3;
const NOT_FOUND: c_int = 6;
const DRIVER_NOT_LOADED: c_int = 9;
const TIMEOUT: c_int = 10;
const GPU_IS_LOST: c_int = 15;

const XID_CRITICAL_ERROR: c_ulonglong = 8;
const MEMORY_ERROR_UNCORRECTED: c_uint = 1;
const VOLATILE_ECC: c_uint = 0;
const FIELD_LINK_REPLAYS: c_uint = 52;
const FIELD_PCIE_REPLAYS: c_uint = 94;
const FIELD_REMAPPED_PENDING: c_uint = 144;
const FIELD_REMAPPED_FAILURE: c_uint = 145;
const FIELD_LINK_STATE: c_uint = 165;
const FIELD_RECOVERY_ACTION: c_uint = 230;
/// Links that a GPU has, if any.
const LINKS: c_uint = 4;
const FABRIC_COMPLETED: u8 = 3;
const VALUE_UNSIGNED_INT: c_uint = 1;

/// How often a call that waits looks at the scenario again.
const PAUSE: Duration = Duration::from_millis(20);

type Device = *mut c_void;

/// `nvmlEventData_t`.
#[repr(C)]
pub struct EventData {
    device: Device,
    event_type: c_ulonglong,
    event_data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// `nvmlFieldValue_t`; the value is a union of 8 bytes.
#[repr(C)]
pub struct FieldValue {
    field: c_uint,
    scope: c_uint,
    timestamp: i64,
    latency: i64,
    value_type: c_uint,
    result: c_int,
    value: u64,
}

/// `nvmlEventSet_t` points to one.
struct EventSet {
    devices: Mutex<Vec<usize>>,
}

/// How many of the scenario's XIDs have been told.
static TOLD: AtomicUsize = AtomicUsize::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;

/// Runs inside dlopen(3), which holds the loader's lock meanwhile.
extern "C" fn load() {
    while Scenario::read().hang_load {
        thread::sleep(PAUSE);
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static UNLOAD: extern "C" fn() = unload;

/// Runs inside exit(3) and dlclose(3).
extern "C" fn unload() {
    while Scenario::read().hang {
        thread::sleep(PAUSE);
    }
}

/// Comes back when the calls do not hang; an error without a driver.
fn enter() -> Result<Scenario, c_int> {
    count();
    uncounted()
}

fn uncounted() -> Result<Scenario, c_int> {
    loop {
        let scenario = Scenario::read();
        if !scenario.hang {
            return if scenario.driver {
                Ok(scenario)
            } else {
                Err(DRIVER_NOT_LOADED)
            };
        }
        thread::sleep(PAUSE);
    }
}

/// A byte for each call in the file that `NVML_CALLS` names: how many there were is its length.
fn count() {
    let Some(path) = std::env::var_os("NVML_CALLS") else {
        return;
    };
    let mut options = std::fs::OpenOptions::new();
    if let Ok(mut file) = options.append(true).create(true).open(path) {
        let _counted = file.write_all(b".");
    }
}

/// The GPU behind a handle, if it can be used.
fn gpu(device: Device) -> Result<Gpu, c_int> {
    let scenario = enter()?;
    let mut gpus = scenario.gpus.into_iter();
    let gpu = gpus.find(|gpu| gpu.handle() == device.addr() & !details::INSTANCE);
    match gpu {
        Some(gpu) if gpu.lost => Err(GPU_IS_LOST),
        Some(gpu) => Ok(gpu),
        None => Err(INVALID_ARGUMENT),
    }
}

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    code(enter().map(drop))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    code(enter().map(drop))
}

/// # Safety
///
/// `version` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> c_int {
    const VERSION: &CStr = c"570.86.15";
    let bytes = VERSION.to_bytes_with_nul();
    code(enter().and_then(|_| {
        if usize::try_from(length).is_ok_and(|length| length < bytes.len()) {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: there is room, by the check above.
        unsafe {
            VERSION
                .as_ptr()
                .copy_to_nonoverlapping(version, bytes.len())
        };
        Ok(())
    }))
}

/// # Safety
///
/// `address` is a C string, `device` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    address: *const c_char,
    device: *mut Device,
) -> c_int {
    // SAFETY: a C string, by the contract.
    let address = unsafe { CStr::from_ptr(address) }.to_string_lossy();
    code(enter().and_then(|scenario| {
        let mut gpus = scenario.gpus.into_iter();
        let gpu = gpus.find(|gpu| gpu.address == address).ok_or(NOT_FOUND)?;
        if gpu.lost {
            return Err(GPU_IS_LOST);
        }
        // SAFETY: can be written, by the contract.
        unsafe { device.write(std::ptr::without_provenance_mut(gpu.handle())) };
        Ok(())
    }))
}

/// # Safety
///
/// `uuid` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(
    device: Device,
    uuid: *mut c_char,
    length: c_uint,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let name = match details::instance(device) {
            Some(instance) => format!("MIG-{}-{instance}", gpu.address),
            None => format!("GPU-{}", gpu.address),
        };
        // SAFETY: there is as much room, by the contract.
        unsafe { write_text(&name, uuid, length) }
    }))
}

/// # Safety
///
/// `place` has room for `length` bytes.
unsafe fn write_text(text: &str, place: *mut c_char, length: c_uint) -> Result<(), c_int> {
    let text = CString::new(text).map_err(|_| INVALID_ARGUMENT)?;
    let bytes = text.as_bytes_with_nul();
    if usize::try_from(length).is_ok_and(|length| length < bytes.len()) {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: there is room, by the check above.
    unsafe { text.as_ptr().copy_to_nonoverlapping(place, bytes.len()) };
    Ok(())
}

/// # Safety
///
/// `count` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: Device,
    error: c_uint,
    counter: c_uint,
    count: *mut c_ulonglong,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        if (error, counter) != (MEMORY_ERROR_UNCORRECTED, VOLATILE_ECC) {
            return Err(NOT_SUPPORTED);
        }
        // SAFETY: can be written, by the contract.
        unsafe { count.write(gpu.uncorrected) };
        Ok(())
    }))
}

/// # Safety
///
/// `values` points to `count` fields.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: Device,
    count: c_int,
    values: *mut FieldValue,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let count = usize::try_from(count).map_err(|_| INVALID_ARGUMENT)?;
        // SAFETY: so many fields, by the contract.
        for value in unsafe { std::slice::from_raw_parts_mut(values, count) } {
            let known = match value.field {
                FIELD_RECOVERY_ACTION => Some(gpu.recovery),
                FIELD_REMAPPED_PENDING => gpu.pending,
                FIELD_REMAPPED_FAILURE => gpu.failed,
                FIELD_PCIE_REPLAYS => gpu.replays,
                FIELD_LINK_REPLAYS => gpu.link_errors,
                FIELD_LINK_STATE if value.scope < LINKS => {
                    gpu.links.map(|links| (links >> value.scope) & 1)
                }
                other => details::field(&gpu, other),
            };
            value.result = if known.is_some() {
                SUCCESS
            } else {
                NOT_SUPPORTED
            };
            value.value_type = VALUE_UNSIGNED_INT;
            value.value = known.unwrap_or_default();
        }
        Ok(())
    }))
}

/// # Safety
///
/// `reasons` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: Device,
    reasons: *mut c_ulonglong,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        // SAFETY: can be written, by the contract.
        unsafe { reasons.write(gpu.clocks.ok_or(NOT_SUPPORTED)?) };
        Ok(())
    }))
}

/// `nvmlGpuFabricInfo_v2_t`.
#[repr(C)]
pub struct FabricInfo {
    version: c_uint,
    cluster: [u8; 16],
    status: c_int,
    clique: c_uint,
    state: u8,
    health_mask: c_uint,
}

/// # Safety
///
/// `info` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(
    device: Device,
    info: *mut FabricInfo,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        let status = gpu.fabric.ok_or(NOT_SUPPORTED)?;
        // SAFETY: the caller has set its version, and the rest can be written.
        let info = unsafe { &mut *info };
        if info.version != u32::try_from(size_of::<FabricInfo>()).unwrap_or_default() | 2 << 24 {
            return Err(INVALID_ARGUMENT);
        }
        info.state = FABRIC_COMPLETED;
        info.status = c_int::try_from(status).map_err(|_| INVALID_ARGUMENT)?;
        info.health_mask = c_uint::try_from(gpu.mask).map_err(|_| INVALID_ARGUMENT)?;
        Ok(())
    }))
}

/// # Safety
///
/// `set` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut *mut c_void) -> c_int {
    code(enter().map(|_| {
        let devices = Mutex::new(Vec::new());
        // SAFETY: can be written, by the contract.
        unsafe { set.write(Box::into_raw(Box::new(EventSet { devices })).cast()) };
    }))
}

/// # Safety
///
/// `set` is of `nvmlEventSetCreate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    device: Device,
    types: c_ulonglong,
    set: *mut c_void,
) -> c_int {
    code(gpu(device).and_then(|gpu| {
        if types != XID_CRITICAL_ERROR {
            return Err(NOT_SUPPORTED);
        }
        // SAFETY: made by `nvmlEventSetCreate`, and not freed yet.
        let set = unsafe { &*set.cast::<EventSet>() };
        let mut devices = set.devices.lock().map_err(|_| INVALID_ARGUMENT)?;
        devices.push(gpu.handle());
        Ok(())
    }))
}

/// # Safety
///
/// `set` is of `nvmlEventSetCreate`, `data` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: *mut c_void,
    data: *mut EventData,
    timeout_ms: c_uint,
) -> c_int {
    // SAFETY: made by `nvmlEventSetCreate`, and not freed yet.
    let set = unsafe { &*set.cast::<EventSet>() };
    match wait(set, Duration::from_millis(timeout_ms.into())) {
        Ok((device, xid)) => {
            let event = EventData {
                device: std::ptr::without_provenance_mut(device),
                event_type: XID_CRITICAL_ERROR,
                event_data: xid,
                gpu_instance: u32::MAX,
                compute_instance: u32::MAX,
            };
            // SAFETY: can be written, by the contract.
            unsafe { data.write(event) };
            SUCCESS
        }
        Err(code) => code,
    }
}

/// An XID is told before the loss that it announces; a lost GPU ends each wait at once, as it does
/// with the real library.
fn wait(set: &EventSet, timeout: Duration) -> Result<(usize, u64), c_int> {
    #[expect(clippy::disallowed_methods, reason = "the library is the shell")]
    let begun = Instant::now();
    count();
    loop {
        let scenario = uncounted()?;
        let devices = set.devices.lock().map_err(|_| INVALID_ARGUMENT)?.clone();
        let ours = |gpu: &&Gpu| devices.contains(&gpu.handle());
        let told = TOLD.load(Ordering::SeqCst);
        if let Some((address, xid)) = scenario.xids.get(told) {
            TOLD.store(told + 1, Ordering::SeqCst);
            let mut gpus = scenario.gpus.iter().filter(ours);
            if let Some(gpu) = gpus.find(|gpu| gpu.address == *address) {
                return Ok((gpu.handle(), *xid));
            }
        }
        if scenario.gpus.iter().filter(ours).any(|gpu| gpu.lost) {
            return Err(GPU_IS_LOST);
        }
        if begun.elapsed() >= timeout {
            return Err(TIMEOUT);
        }
        thread::sleep(PAUSE);
    }
}

/// # Safety
///
/// `set` is of `nvmlEventSetCreate` and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: *mut c_void) -> c_int {
    code(enter().map(|_| {
        // SAFETY: made by `Box::into_raw`, and freed once.
        drop(unsafe { Box::from_raw(set.cast::<EventSet>()) });
    }))
}

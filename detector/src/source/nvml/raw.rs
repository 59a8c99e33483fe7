//! What the safe crate lacks: values of fields that have a scope, the NVLink fabric, errors of the
//! SRAM, spare rows of the memory, numbers of MIG's instances. The only calls of NVML's raw functions.

#![expect(unsafe_code, reason = "C functions, called as nvml.h says")]

use std::mem::MaybeUninit;

use nvml_wrapper::Device;
use nvml_wrapper::Nvml as Library;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    nvmlEccSramErrorStatus_t, nvmlFieldValue_t, nvmlGpuFabricInfo_v2_t, nvmlGpuFabricInfo_v3_t,
    nvmlReturn_enum_NVML_SUCCESS, nvmlRowRemapperHistogramValues_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};

use crate::signal::{Fabric, SpareRows};

/// `NVML_GPU_FABRIC_STATE_COMPLETED`.
const COMPLETED: u8 = 3;

/// A field (`NVML_FI_DEV_...`), and which of several: a link.
pub(super) type Field = (u32, u32);

/// All in one call; nothing for a field that this GPU or driver does not have.
pub(super) fn fields(
    nvml: &Library,
    device: &Device<'_>,
    wanted: &[Field],
) -> Result<Vec<Option<u64>>, NvmlError> {
    let function = nvml_sym(nvml.lib().nvmlDeviceGetFieldValues.as_ref())?;
    let mut values: Vec<nvmlFieldValue_t> = wanted
        .iter()
        .map(|(field, scope)| {
            // SAFETY: numbers, for which zero is a value.
            let mut value: nvmlFieldValue_t = unsafe { MaybeUninit::zeroed().assume_init() };
            value.fieldId = *field;
            value.scopeId = *scope;
            value
        })
        .collect();
    let count = i32::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: the handle is of this library, and so many values can be written.
    nvml_try(unsafe { function(device.handle(), count, values.as_mut_ptr()) })?;
    Ok(values.iter().map(number).collect())
}

fn number(value: &nvmlFieldValue_t) -> Option<u64> {
    if value.nvmlReturn != nvmlReturn_enum_NVML_SUCCESS {
        return None;
    }
    let number = value.value;
    // SAFETY: the type says which of them was written, and each is a number.
    unsafe {
        match value.valueType {
            UNSIGNED_INT => Some(number.uiVal.into()),
            UNSIGNED_LONG => Some(number.ulVal),
            UNSIGNED_LONG_LONG => Some(number.ullVal),
            _signed_or_real => None,
        }
    }
}

/// Nothing before the fabric manager has begun with the GPU, or where there is no fabric.
pub(super) fn fabric(nvml: &Library, device: &Device<'_>) -> Result<Option<Fabric>, NvmlError> {
    let function = nvml_sym(nvml.lib().nvmlDeviceGetGpuFabricInfoV.as_ref())?;
    // SAFETY: numbers, for which zero is a value.
    let mut info: nvmlGpuFabricInfo_v3_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // Drivers that have the third version have the second, which is the beginning of it.
    let size = size_of::<nvmlGpuFabricInfo_v2_t>();
    info.version = u32::try_from(size).map_err(|_| NvmlError::InvalidArg)? | 2 << 24;
    // SAFETY: the handle is of this library, and more can be written than the version says.
    nvml_try(unsafe { function(device.handle(), &raw mut info) })?;
    let completed = info.state == COMPLETED;
    Ok(completed.then_some(Fabric {
        failed: info.status != nvmlReturn_enum_NVML_SUCCESS,
        health_mask: info.healthMask,
    }))
}

/// Uncorrected errors of the SRAM in the GPU's life by where, and whether they are too many.
pub(super) struct Sram {
    pub uncorrected: [(&'static str, u64); 5],
    pub corrected: u64,
    pub threshold_exceeded: bool,
}

pub(super) fn sram(nvml: &Library, device: &Device<'_>) -> Result<Sram, NvmlError> {
    let function = nvml_sym(nvml.lib().nvmlDeviceGetSramEccErrorStatus.as_ref())?;
    // SAFETY: numbers, for which zero is a value.
    let mut status: nvmlEccSramErrorStatus_t = unsafe { MaybeUninit::zeroed().assume_init() };
    let size = size_of::<nvmlEccSramErrorStatus_t>();
    status.version = u32::try_from(size).map_err(|_| NvmlError::InvalidArg)? | 1 << 24;
    // SAFETY: the handle is of this library, and as much can be written as the version says.
    nvml_try(unsafe { function(device.handle(), &raw mut status) })?;
    Ok(Sram {
        uncorrected: [
            ("sram_l2", status.aggregateUncBucketL2),
            ("sram_sm", status.aggregateUncBucketSm),
            ("sram_pcie", status.aggregateUncBucketPcie),
            ("sram_mcu", status.aggregateUncBucketMcu),
            ("sram_other", status.aggregateUncBucketOther),
        ],
        corrected: status.aggregateCor,
        threshold_exceeded: status.bThresholdExceeded != 0,
    })
}

pub(super) fn spare_rows(nvml: &Library, device: &Device<'_>) -> Result<SpareRows, NvmlError> {
    let function = nvml_sym(nvml.lib().nvmlDeviceGetRowRemapperHistogram.as_ref())?;
    // SAFETY: numbers, for which zero is a value.
    let mut banks: nvmlRowRemapperHistogramValues_t =
        unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the handle is of this library, and the values can be written.
    nvml_try(unsafe { function(device.handle(), &raw mut banks) })?;
    Ok(SpareRows {
        all: banks.max,
        many: banks.high,
        some: banks.partial,
        few: banks.low,
        none: banks.none,
    })
}

/// Of a device that is an instance of MIG.
pub(super) fn instance(nvml: &Library, device: &Device<'_>) -> Result<u32, NvmlError> {
    let function = nvml_sym(nvml.lib().nvmlDeviceGetGpuInstanceId.as_ref())?;
    let mut instance = 0;
    // SAFETY: the handle is of this library, and the number can be written.
    nvml_try(unsafe { function(device.handle(), &raw mut instance) })?;
    Ok(instance)
}

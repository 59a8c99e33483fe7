//! What is asked about a GPU once a minute, and once only.

use std::collections::BTreeMap;
use std::fs;

use nvml_wrapper::enum_wrappers::device::{TemperatureSensor, TemperatureThreshold};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_ECC_DBE_AGG_CBU, NVML_FI_DEV_ECC_DBE_AGG_DEV, NVML_FI_DEV_ECC_DBE_AGG_L1,
    NVML_FI_DEV_ECC_DBE_AGG_L2, NVML_FI_DEV_ECC_DBE_AGG_REG, NVML_FI_DEV_ECC_DBE_AGG_TEX,
    NVML_FI_DEV_ECC_SBE_AGG_DEV, NVML_FI_DEV_ECC_SBE_AGG_L1, NVML_FI_DEV_ECC_SBE_AGG_L2,
    NVML_FI_DEV_ECC_SBE_AGG_REG, NVML_FI_DEV_ECC_SBE_AGG_TEX, NVML_FI_DEV_MEMORY_TEMP,
    NVML_FI_DEV_PERF_POLICY_POWER, NVML_FI_DEV_PERF_POLICY_THERMAL, NVML_FI_DEV_POWER_INSTANT,
    NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_UNC,
};
use nvml_wrapper::{Device, Nvml as Library};
use tracing::debug;

use super::raw::{self, Field};
use super::session::{Session, concerns_all, supported};
use crate::signal::{GpuDetails, Partition, Pcie, Remapped, Workload};
use crate::text;

/// Partitions of a GPU, at most.
const MOST_PARTITIONS: u32 = 16;
/// Processes of a GPU that are named.
const MOST_PROCESSES: usize = 4;
const LONGEST: usize = 200;

const CORRECTED: [(u32, &str); 5] = [
    (NVML_FI_DEV_ECC_SBE_AGG_DEV, "dram"),
    (NVML_FI_DEV_ECC_SBE_AGG_L1, "l1"),
    (NVML_FI_DEV_ECC_SBE_AGG_L2, "l2"),
    (NVML_FI_DEV_ECC_SBE_AGG_REG, "registers"),
    (NVML_FI_DEV_ECC_SBE_AGG_TEX, "texture"),
];
const UNCORRECTED: [(u32, &str); 6] = [
    (NVML_FI_DEV_ECC_DBE_AGG_DEV, "dram"),
    (NVML_FI_DEV_ECC_DBE_AGG_L1, "l1"),
    (NVML_FI_DEV_ECC_DBE_AGG_L2, "l2"),
    (NVML_FI_DEV_ECC_DBE_AGG_REG, "registers"),
    (NVML_FI_DEV_ECC_DBE_AGG_TEX, "texture"),
    (NVML_FI_DEV_ECC_DBE_AGG_CBU, "cbu"),
];
const HELD_DOWN: [(u32, &str); 2] = [
    (NVML_FI_DEV_PERF_POLICY_POWER, "power"),
    (NVML_FI_DEV_PERF_POLICY_THERMAL, "heat"),
];

/// With whom it is asked.
struct Asked<'a, 'nvml> {
    session: &'a Session,
    nvml: &'nvml Library,
    device: Device<'nvml>,
    gpu: &'a str,
}

impl Session {
    /// `before`: what was read last, of which some does not change. `unheld`: nobody else says who
    /// uses the GPU.
    pub(super) fn details(
        &self,
        nvml: &Library,
        gpu: &str,
        before: Option<&GpuDetails>,
        unheld: bool,
    ) -> Result<GpuDetails, NvmlError> {
        let asked = Asked {
            session: self,
            nvml,
            device: self.device(nvml, gpu)?,
            gpu,
        };
        let mut details = match before {
            Some(before) => before.clone(),
            None => asked.lasting()?,
        };
        asked.counted(&mut details)?;
        let device = &asked.device;
        let spare = || raw::spare_rows(nvml, device);
        details.spare_rows = asked.ask("nvmlDeviceGetRowRemapperHistogram", spare)?;
        let heat = || device.temperature(TemperatureSensor::Gpu);
        details.heat.gpu = asked.ask("nvmlDeviceGetTemperature", heat)?;
        if let Some(pcie) = &mut details.pcie {
            let generation = || device.current_pcie_link_gen();
            let generation = asked.ask("nvmlDeviceGetCurrPcieLinkGeneration", generation)?;
            let lanes = || device.current_pcie_link_width();
            let lanes = asked.ask("nvmlDeviceGetCurrPcieLinkWidth", lanes)?;
            pcie.generation = generation.unwrap_or(pcie.generation);
            pcie.lanes = lanes.unwrap_or(pcie.lanes);
        }
        let persistence = || device.is_in_persistent_mode();
        details.persistence = asked.ask("nvmlDeviceGetPersistenceMode", persistence)?;
        details.partitions = asked.partitions()?;
        details.processes = if unheld {
            asked.processes()?
        } else {
            Vec::new()
        };
        Ok(details)
    }
}

impl Asked<'_, '_> {
    /// Nothing where this GPU or driver does not have it; an error that is not about this answer alone.
    fn ask<T>(
        &self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, NvmlError> {
        match supported(self.session.call_about(self.gpu, name, call)) {
            Err(error) if !concerns_all(&error) => {
                debug!(gpu = self.gpu, name, %error, "NVML does not say");
                Ok(None)
            }
            answer => answer,
        }
    }

    /// What does not change.
    fn lasting(&self) -> Result<GpuDetails, NvmlError> {
        let device = &self.device;
        let mut details = GpuDetails {
            index: self.ask("nvmlDeviceGetIndex", || device.index())?,
            serial: self
                .ask("nvmlDeviceGetSerial", || device.serial())?
                .map(plain),
            inforom_corrupted: self.ask("nvmlDeviceValidateInforom", || {
                match device.validate_info_rom() {
                    Err(NvmlError::CorruptedInfoROM) => Ok(true),
                    answer => answer.map(|()| false),
                }
            })?,
            ..GpuDetails::default()
        };
        let threshold = |threshold| {
            self.ask("nvmlDeviceGetTemperatureThreshold", || {
                device.temperature_threshold(threshold)
            })
        };
        details.heat.slowdown = threshold(TemperatureThreshold::Slowdown)?;
        details.heat.shutdown = threshold(TemperatureThreshold::Shutdown)?;
        let generation = || device.max_pcie_link_gen();
        let generation = self.ask("nvmlDeviceGetMaxPcieLinkGeneration", generation)?;
        let lanes = || device.max_pcie_link_width();
        let lanes = self.ask("nvmlDeviceGetMaxPcieLinkWidth", lanes)?;
        details.pcie = generation.zip(lanes).map(|(generation, lanes)| Pcie {
            generation,
            lanes,
            most_generation: generation,
            most_lanes: lanes,
            known_lanes: 0,
        });
        Ok(details)
    }

    /// All that fields tell, in one call; the SRAM has its own.
    fn counted(&self, details: &mut GpuDetails) -> Result<(), NvmlError> {
        let others = [
            NVML_FI_DEV_REMAPPED_COR,
            NVML_FI_DEV_REMAPPED_UNC,
            NVML_FI_DEV_MEMORY_TEMP,
            NVML_FI_DEV_POWER_INSTANT,
        ];
        let by_name = CORRECTED.iter().chain(&UNCORRECTED).chain(&HELD_DOWN);
        let fields = by_name.map(|(field, _)| *field).chain(others);
        let wanted: Vec<Field> = fields.map(|field| (field, 0)).collect();
        let fields = self.ask("nvmlDeviceGetFieldValues", || {
            raw::fields(self.nvml, &self.device, &wanted)
        })?;
        let mut fields = fields.unwrap_or_default().into_iter();
        details.corrected = named(&CORRECTED, &mut fields);
        details.uncorrected = named(&UNCORRECTED, &mut fields);
        details.held_down = named(&HELD_DOWN, &mut fields);
        let mut next = || fields.next().flatten();
        let remapped = next().zip(next());
        details.remapped = remapped.map(|(corrected, uncorrected)| Remapped {
            corrected,
            uncorrected,
        });
        details.heat.memory = next().and_then(|degrees| u32::try_from(degrees).ok());
        details.milliwatts = next();
        let sram = || raw::sram(self.nvml, &self.device);
        let sram = self.ask("nvmlDeviceGetSramEccErrorStatus", sram)?;
        details.sram_worn_out = sram.as_ref().map(|sram| sram.threshold_exceeded);
        if let Some(sram) = sram {
            details.corrected.insert("sram".to_owned(), sram.corrected);
            let uncorrected = sram.uncorrected.into_iter();
            let named = uncorrected.map(|(name, count)| (name.to_owned(), count));
            details.uncorrected.extend(named);
        }
        Ok(())
    }

    fn partitions(&self) -> Result<Vec<Partition>, NvmlError> {
        let device = &self.device;
        let mode = self.ask("nvmlDeviceGetMigMode", || device.mig_mode())?;
        if mode.is_none_or(|mode| mode.current == 0) {
            return Ok(Vec::new());
        }
        let most = self.ask("nvmlDeviceGetMaxMigDeviceCount", || {
            device.mig_device_count()
        })?;
        let mut partitions = Vec::new();
        for index in 0..most.unwrap_or_default().min(MOST_PARTITIONS) {
            let partition = self.ask("nvmlDeviceGetMigDeviceHandleByIndex", || {
                match device.mig_device_by_index(index) {
                    Err(NvmlError::NotFound) => Ok(None),
                    found => found.map(Some),
                }
            })?;
            let Some(partition) = partition.flatten() else {
                continue;
            };
            let instance = self.ask("nvmlDeviceGetGpuInstanceId", || {
                raw::instance(self.nvml, &partition)
            })?;
            let uuid = self.ask("nvmlDeviceGetUUID", || partition.uuid())?;
            if let Some((instance, uuid)) = instance.zip(uuid) {
                partitions.push(Partition {
                    instance,
                    uuid: plain(uuid),
                    holders: Vec::new(),
                });
            }
        }
        Ok(partitions)
    }

    /// Those that compute, as `name (pid 7, pod ... container ...)`.
    fn processes(&self) -> Result<Vec<String>, NvmlError> {
        let device = &self.device;
        let processes = self.ask("nvmlDeviceGetComputeRunningProcesses_v3", || {
            device.running_compute_processes()
        })?;
        let processes = processes.unwrap_or_default().into_iter();
        let named = processes.filter_map(|process| {
            let folder = self.session.proc.join(process.pid.to_string());
            let name = fs::read_to_string(folder.join("comm")).ok()?;
            let cgroups = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
            let workload = Workload::from_cgroup_lines(&cgroups);
            let whose = workload.map_or_else(String::new, |of| format!(", {}", of.holder()));
            Some(plain(format!(
                "{} (pid {}{whose})",
                name.trim_end(),
                process.pid
            )))
        });
        Ok(named.take(MOST_PROCESSES).collect())
    }
}

/// The next values, by their names.
fn named(
    names: &[(u32, &str)],
    values: &mut impl Iterator<Item = Option<u64>>,
) -> BTreeMap<String, u64> {
    let values = names.iter().zip(values);
    values
        .filter_map(|((_, name), value)| Some(((*name).to_owned(), value?)))
        .collect()
}

pub(super) fn plain(text: impl AsRef<[u8]>) -> String {
    text::part(text, LONGEST)
}

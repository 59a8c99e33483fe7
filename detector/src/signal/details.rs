//! PURE. What is read of a GPU once a minute: what changes seldom, and what is only counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is absent the GPU or its driver does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GpuDetails {
    /// As nvidia-smi counts.
    pub index: Option<u32>,
    pub serial: Option<String>,
    pub inforom_corrupted: Option<bool>,
    pub persistence: Option<bool>,
    /// Errors of its memory in all its life, by where.
    pub corrected: BTreeMap<String, u64>,
    pub uncorrected: BTreeMap<String, u64>,
    /// The SRAM has had so many errors that NVIDIA takes the GPU back.
    pub sram_worn_out: Option<bool>,
    pub remapped: Option<Remapped>,
    pub spare_rows: Option<SpareRows>,
    pub heat: Heat,
    /// Nanoseconds that its clocks were held down, by why.
    pub held_down: BTreeMap<String, u64>,
    pub milliwatts: Option<u64>,
    pub pcie: Option<Pcie>,
    /// Nothing where MIG is off or is not supported.
    pub partitions: Vec<Partition>,
    /// Read only where kubelet does not say who holds it.
    pub processes: Vec<String>,
}

/// Rows of memory that were replaced, by the errors that they had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remapped {
    pub corrected: u64,
    pub uncorrected: u64,
}

/// Banks of memory by how many of their spare rows are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SpareRows {
    pub all: u32,
    pub many: u32,
    pub some: u32,
    pub few: u32,
    pub none: u32,
}

/// In degrees Celsius.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Heat {
    pub gpu: Option<u32>,
    pub memory: Option<u32>,
    /// Where the hardware slows it down, and switches it off.
    pub slowdown: Option<u32>,
    pub shutdown: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pcie {
    /// Falls while the GPU is idle.
    pub generation: u32,
    pub lanes: u32,
    /// Of the GPU and what it is plugged into; a virtual machine may not know the latter.
    pub most_generation: u32,
    pub most_lanes: u32,
    /// That it has had in this boot; the core's own.
    pub known_lanes: u32,
}

/// A GPU instance of MIG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partition {
    pub instance: u32,
    pub uuid: String,
    #[serde(default)]
    pub holders: Vec<String>,
}

//! PURE. What of a GPU's state is a fault, and what says that it is over.

use crate::reason::Reason;
use crate::signal::{Fabric, GpuState, Links, Pcie};

/// The mask's fields of two bits whose 1 is a fault (`NVML_GPU_FABRIC_HEALTH_MASK_*`).
const FABRIC_FAULTS: [(u32, &str); 4] = [
    (0, "degraded bandwidth"),
    (2, "a route recovers"),
    (4, "a route is unhealthy"),
    (6, "it recovers from an access that timed out"),
];
/// Its field of four bits: 0 is not supported, 1 none.
const FABRIC_CONFIGURATION: u32 = 8;

/// Within one look: healthy links replay now and then.
const LINK_ERRORS: u64 = 8;

pub(super) struct Told {
    pub(super) reason: Reason,
    pub(super) says: Says,
}

pub(super) enum Says {
    So(String),
    Over,
    /// That often since the look before.
    Times(u64, String),
}

/// Which links and lanes have been active lasts longer than one look.
pub(super) fn remember(before: Option<&GpuState>, state: &mut GpuState) {
    let known = before.and_then(|before| before.links);
    match &mut state.links {
        Some(links) => links.known |= links.active | known.map_or(0, |links| links.known),
        // A GPU that is lost does not say.
        None => state.links = known.filter(|_| state.lost.is_some()),
    }
    let known = before.and_then(|before| before.details.pcie);
    if let Some(pcie) = &mut state.details.pcie {
        pcie.known_lanes = pcie.lanes.max(known.map_or(0, |pcie| pcie.known_lanes));
    }
}

/// Nothing about what the GPU does not tell: its findings stay.
pub(super) fn told(gpu: &str, before: Option<&GpuState>, state: &GpuState) -> Vec<Told> {
    if state.lost.is_some() {
        return Vec::new();
    }
    let states = [
        (
            Reason::NvidiaRowRemapFailure,
            state.remap_failed,
            "could not replace a row of its memory".to_owned(),
        ),
        (
            Reason::NvidiaSramThresholdExceeded,
            state.details.sram_worn_out,
            "has had more errors in its SRAM than it may".to_owned(),
        ),
        (
            Reason::NvidiaInforomCorrupted,
            state.details.inforom_corrupted,
            "has a corrupted InfoROM".to_owned(),
        ),
        (
            Reason::NvidiaPcieLinkDegraded,
            state.details.pcie.map(has_lost_lanes),
            state.details.pcie.map_or_else(String::new, |pcie| {
                let (now, had) = (pcie.lanes, pcie.known_lanes);
                format!("has {now} PCIe lanes, of {had} that it had in this boot")
            }),
        ),
        (
            Reason::NvidiaPageRetirement,
            state.remap_pending,
            "has memory that its next reset replaces".to_owned(),
        ),
        (
            Reason::NvidiaThermalError,
            state.hot,
            "is slowed down by heat".to_owned(),
        ),
        (
            Reason::NvidiaPowerError,
            state.power_brake,
            "is slowed down by the hardware because of its power".to_owned(),
        ),
        (
            Reason::NvidiaNvlinkError,
            state.links.map(any_down),
            format!("has lost NVLinks: {}", numbers(state.links.map_or(0, down))),
        ),
        (
            Reason::FabricManagerNotRunning,
            state.fabric.map(|fabric| fabric.failed),
            "could not be set up by the fabric manager".to_owned(),
        ),
        (
            Reason::NvidiaFabricError,
            state.fabric.map(is_unhealthy),
            format!(
                "has an unhealthy NVLink fabric: {}",
                state.fabric.map(faults).unwrap_or_default().join(", ")
            ),
        ),
    ];
    let mut told: Vec<_> = states
        .into_iter()
        .filter_map(|(reason, so, message)| {
            let says = if so? {
                Says::So(format!("GPU {gpu} {message}"))
            } else {
                Says::Over
            };
            Some(Told { reason, says })
        })
        .collect();
    let rose = |of: fn(&GpuState) -> Option<u64>, least| {
        let (before, now) = (before.and_then(of)?, of(state)?);
        now.checked_sub(before).filter(|rise| *rise >= least)
    };
    let replays = rose(|state| state.pcie_replays, 1);
    let link_errors = rose(|state| state.link_errors, LINK_ERRORS);
    let rises = [
        (Reason::NvidiaPcieError, replays, "PCIe replays"),
        (
            Reason::NvidiaNvlinkWarning,
            link_errors,
            "NVLink replays and recoveries",
        ),
    ];
    told.extend(rises.into_iter().filter_map(|(reason, rise, what)| {
        let rise = rise?;
        let says = Says::Times(rise, format!("GPU {gpu} had {rise} {what}"));
        Some(Told { reason, says })
    }));
    told
}

/// Whether a fault that the agent before this one told of has ended.
pub(super) fn is_over(reason: Reason, state: &GpuState) -> bool {
    let so = match reason {
        Reason::NvidiaRowRemapFailure => state.remap_failed,
        Reason::NvidiaSramThresholdExceeded => state.details.sram_worn_out,
        Reason::NvidiaNvlinkError => state.links.map(any_down),
        Reason::FabricManagerNotRunning => state.fabric.map(|fabric| fabric.failed),
        Reason::NvidiaFabricError => state.fabric.map(is_unhealthy),
        _by_nothing_of_a_state => None,
    };
    so == Some(false) && state.lost.is_none()
}

fn down(links: Links) -> u32 {
    links.known & !links.active
}

fn any_down(links: Links) -> bool {
    down(links) != 0
}

fn has_lost_lanes(pcie: Pcie) -> bool {
    pcie.lanes < pcie.known_lanes
}

fn numbers(mask: u32) -> String {
    let set = (0..u32::BITS).filter(|bit| mask & (1 << bit) != 0);
    let set: Vec<_> = set.map(|bit| bit.to_string()).collect();
    set.join(", ")
}

fn is_unhealthy(fabric: Fabric) -> bool {
    !faults(fabric).is_empty()
}

fn faults(fabric: Fabric) -> Vec<&'static str> {
    let mask = fabric.health_mask;
    let incorrect = (mask >> FABRIC_CONFIGURATION) & 0xf >= 2;
    FABRIC_FAULTS
        .into_iter()
        .filter(|(shift, _)| (mask >> shift) & 0x3 == 1)
        .map(|(_, what)| what)
        .chain(incorrect.then_some("its configuration is incorrect"))
        .collect()
}

//! PURE. How each GPU is. A label `gpu` is its address, of which a host has few.

use std::collections::BTreeSet;

use super::State;
use super::render::Page;
use crate::finding::Finding;
use crate::judgement::Action;
use crate::reason::Severity;
use crate::signal::GpuState;

/// Of one GPU, by the findings that are open about it.
pub(crate) struct Health {
    /// Nothing Fatal is.
    pub healthy: bool,
    /// The strongest of all.
    pub advice: Option<Action>,
    pub reasons: BTreeSet<String>,
}

impl Health {
    pub(crate) fn of<'a>(gpu: &str, findings: impl Iterator<Item = &'a Finding>) -> Self {
        let own: Vec<_> = findings
            .filter(|finding| finding.subject.device.as_deref() == Some(gpu))
            .collect();
        Self {
            healthy: own.iter().all(|finding| finding.severity < Severity::Fatal),
            advice: own
                .iter()
                .filter_map(|finding| finding.reason.action())
                .max(),
            reasons: own
                .iter()
                .map(|finding| finding.reason.to_string())
                .collect(),
        }
    }
}

pub(super) fn all(state: &State, page: &mut Page) {
    if state.gpus.is_empty() {
        return;
    }
    page.own("gpu_info", "gauge", "Which GPU it is.");
    for (gpu, of) in &state.gpus {
        let details = &of.details;
        let index = details.index.map(|index| index.to_string());
        let labels: [&Option<String>; 3] = [&index, &of.uuid, &details.serial];
        let [index, uuid, serial] = labels.map(|label| label.as_deref().unwrap_or_default());
        let labels: [(&str, &dyn std::fmt::Display); 4] = [
            ("gpu", gpu),
            ("index", &index),
            ("uuid", &uuid),
            ("serial", &serial),
        ];
        page.sample(&labels, &1);
    }
    let help = "Whether no Fatal finding is open about a GPU.";
    page.own("gpu_healthy", "gauge", help);
    for gpu in state.gpus.keys() {
        let healthy = Health::of(gpu, state.open.values()).healthy;
        page.sample(&[("gpu", gpu)], &u8::from(healthy));
    }
    for (name, help, value) in GAUGES {
        let told = state
            .gpus
            .iter()
            .filter_map(|(gpu, of)| Some((gpu, value(of)?)));
        let told: Vec<_> = told.collect();
        if told.is_empty() {
            continue;
        }
        page.own(name, "gauge", help);
        for (gpu, value) in told {
            page.sample(&[("gpu", gpu)], &value);
        }
    }
    errors(state, page);
    let help = "Banks of a GPU's memory, by how many spare rows they have left.";
    page.own("gpu_memory_banks", "gauge", help);
    for (gpu, of) in &state.gpus {
        let Some(rows) = of.details.spare_rows else {
            continue;
        };
        for (left, banks) in [
            ("all", rows.all),
            ("many", rows.many),
            ("some", rows.some),
            ("few", rows.few),
            ("none", rows.none),
        ] {
            page.sample(&[("gpu", gpu), ("spare_rows", &left)], &banks);
        }
    }
    let help = "Time that the clocks of a GPU were held down.";
    page.own("gpu_held_down_seconds_total", "counter", help);
    for (gpu, of) in &state.gpus {
        for (why, nanoseconds) in &of.details.held_down {
            let seconds = std::time::Duration::from_nanos(*nanoseconds).as_secs_f64();
            page.sample(&[("gpu", gpu), ("why", why)], &seconds);
        }
    }
}

fn errors(state: &State, page: &mut Page) {
    let help = "Errors of a GPU's memory in all its life.";
    page.own("gpu_ecc_errors_total", "counter", help);
    for (gpu, of) in &state.gpus {
        let details = &of.details;
        for (kind, errors) in [
            ("corrected", &details.corrected),
            ("uncorrected", &details.uncorrected),
        ] {
            for (location, count) in errors {
                let labels: [(&str, &dyn std::fmt::Display); 3] =
                    [("gpu", gpu), ("kind", &kind), ("location", location)];
                page.sample(&labels, count);
            }
        }
    }
    let help = "Rows of a GPU's memory that were replaced, by the errors they had.";
    page.own("gpu_remapped_rows_total", "counter", help);
    for (gpu, of) in &state.gpus {
        let Some(remapped) = of.details.remapped else {
            continue;
        };
        for (kind, count) in [
            ("corrected", remapped.corrected),
            ("uncorrected", remapped.uncorrected),
        ] {
            page.sample(&[("gpu", gpu), ("kind", &kind)], &count);
        }
    }
}

/// Name, help and value; those that no GPU tells are left out.
type Gauge = (&'static str, &'static str, fn(&GpuState) -> Option<f64>);

#[rustfmt::skip]
const GAUGES: [Gauge; 10] = [
    ("gpu_temperature_celsius", "Temperature of a GPU.",
        |gpu| gpu.details.heat.gpu.map(f64::from)),
    ("gpu_memory_temperature_celsius", "Temperature of a GPU's memory.",
        |gpu| gpu.details.heat.memory.map(f64::from)),
    ("gpu_slowdown_temperature_celsius", "Where the hardware slows a GPU down.",
        |gpu| gpu.details.heat.slowdown.map(f64::from)),
    ("gpu_shutdown_temperature_celsius", "Where the hardware switches a GPU off.",
        |gpu| gpu.details.heat.shutdown.map(f64::from)),
    ("gpu_power_watts", "What a GPU draws.",
        |gpu| gpu.details.milliwatts.and_then(|power| u32::try_from(power).ok()).map(|power| f64::from(power) / 1000.0)),
    ("gpu_pcie_generation", "Generation of a GPU's PCIe link now; it falls while the GPU is idle.",
        |gpu| gpu.details.pcie.map(|pcie| f64::from(pcie.generation))),
    ("gpu_pcie_generation_max", "The highest that it could have.",
        |gpu| gpu.details.pcie.map(|pcie| f64::from(pcie.most_generation))),
    ("gpu_pcie_lanes", "Lanes of a GPU's PCIe link.",
        |gpu| gpu.details.pcie.map(|pcie| f64::from(pcie.lanes))),
    ("gpu_pcie_lanes_max", "The most that it could have.",
        |gpu| gpu.details.pcie.map(|pcie| f64::from(pcie.most_lanes))),
    ("gpu_persistence", "Whether the driver keeps a GPU initialized while nobody uses it.",
        |gpu| gpu.details.persistence.map(|on| f64::from(u8::from(on)))),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Metrics;
    use super::super::tests::opened;
    use crate::reason::{Reason, Severity};
    use crate::signal::{GpuDetails, GpuState, Pcie, SpareRows};

    const GPU: &str = "0000:05:00";

    #[test]
    fn a_gpu_is_told_with_its_health_and_only_what_it_tells() {
        let metrics = Metrics::default();
        assert!(!metrics.text().contains("gpu"));
        let mut details = GpuDetails {
            index: Some(3),
            serial: Some("163".to_owned()),
            uncorrected: BTreeMap::from([("dram".to_owned(), 2)]),
            spare_rows: Some(SpareRows {
                none: 1,
                ..SpareRows::default()
            }),
            held_down: BTreeMap::from([("heat".to_owned(), 1_500_000_000)]),
            pcie: Some(Pcie {
                lanes: 8,
                most_lanes: 16,
                ..Pcie::default()
            }),
            ..GpuDetails::default()
        };
        details.heat.gpu = Some(71);
        let state = GpuState {
            details: Box::new(details),
            ..GpuState::default()
        };
        metrics.gpus(&BTreeMap::from([(GPU.to_owned(), state)]));
        let mut fault = opened(Reason::NvidiaXidError(48), GPU);
        fault.finding.severity = Severity::Fatal;
        fault.finding.subject.device = Some(GPU.to_owned());
        metrics.transition(&fault);
        let text = metrics.text();
        for line in [
            "gpu_info{gpu=\"0000:05:00\",index=\"3\",uuid=\"\",serial=\"163\"} 1",
            "gpu_healthy{gpu=\"0000:05:00\"} 0",
            "gpu_temperature_celsius{gpu=\"0000:05:00\"} 71",
            "gpu_pcie_lanes{gpu=\"0000:05:00\"} 8",
            "gpu_pcie_lanes_max{gpu=\"0000:05:00\"} 16",
            "gpu_ecc_errors_total{gpu=\"0000:05:00\",kind=\"uncorrected\",location=\"dram\"} 2",
            "gpu_memory_banks{gpu=\"0000:05:00\",spare_rows=\"none\"} 1",
            "gpu_held_down_seconds_total{gpu=\"0000:05:00\",why=\"heat\"} 1.5",
        ] {
            assert!(
                text.contains(&format!("nodemend_detector_{line}\n")),
                "{line}: {text}"
            );
        }
        assert!(!text.contains("power"), "{text}");
    }
}

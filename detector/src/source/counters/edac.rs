//! PURE. Errors of memory modules as their controllers count them, where no tracepoint tells of them.

use std::time::Duration;

use super::files::Files;
use super::rising::{Baseline, New, Rising};
use super::text::number;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;
use crate::source::bpf::Hook;
use crate::text::printable;

const CONTROLLERS: [&str; 2] = [
    "sys/devices/system/edac/mc/mc*/ce_count",
    "sys/devices/system/edac/mc/mc*/ue_count",
];
/// A module is a `dimm` or a `rank`, as the controller knows it.
const MODULES: [[&str; 2]; 2] = [
    [
        "sys/devices/system/edac/mc/mc*/dimm*/dimm_ce_count",
        "sys/devices/system/edac/mc/mc*/rank*/dimm_ce_count",
    ],
    [
        "sys/devices/system/edac/mc/mc*/dimm*/dimm_ue_count",
        "sys/devices/system/edac/mc/mc*/rank*/dimm_ue_count",
    ],
];
const LABELS: [&str; 2] = [
    "sys/devices/system/edac/mc/mc*/dimm*/dimm_label",
    "sys/devices/system/edac/mc/mc*/rank*/dimm_label",
];
const KINDS: [(Reason, &str); 2] = [
    (Reason::EdacCorrectedError, "corrected"),
    (Reason::EdacUncorrectedError, "uncorrected"),
];

#[derive(Default)]
pub(super) struct Edac {
    controllers: [Rising<Vec<String>>; 2],
    modules: [Rising<Vec<String>>; 2],
}

impl Counter for Edac {
    fn name(&self) -> &'static str {
        "edac"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[
            CONTROLLERS[0],
            CONTROLLERS[1],
            MODULES[0][0],
            MODULES[0][1],
            MODULES[1][0],
            MODULES[1][1],
            LABELS[0],
            LABELS[1],
        ]
    }

    fn spared_by(&self) -> &'static [Hook] {
        &[Hook::Edac]
    }

    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        let kinds = self.controllers.iter_mut().chain(&mut self.modules);
        kinds.map(|kind| kind as &mut dyn Baseline).collect()
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let step = |before: &mut Rising<Vec<String>>, patterns: &[&str]| {
            let found: Vec<_> = patterns.iter().map(|pattern| files.all(pattern)).collect();
            let values = found.iter().flat_map(|found| &found.files);
            let values = values.filter_map(|(names, text)| Some((names.clone(), number(text)?)));
            before.step(values, New::Zero, found.iter().any(|found| found.cut))
        };
        let mut out = Vec::new();
        for (kind, (reason, word)) in KINDS.into_iter().enumerate() {
            let controllers = step(&mut self.controllers[kind], &[CONTROLLERS[kind]]);
            let modules = step(&mut self.modules[kind], &MODULES[kind]);
            let mut tell = |names: &[String], count: u64| {
                let Some(controller) = names.first().and_then(|name| name.strip_prefix("mc"))
                else {
                    return;
                };
                let module = names.get(1).map(|name| label(files, names, name));
                let (entity, place) = match &module {
                    Some(module) => (format!("MC{controller} {module}"), module.as_str()),
                    None => (format!("MC{controller}"), "an unknown module"),
                };
                let message = format!(
                    "{count} {word} memory errors on {place} of memory controller {controller}"
                );
                out.push(told::times(told::fault(reason, &entity, message), count));
            };
            for (names, count) in &modules {
                tell(names, *count);
            }
            for (names, count) in controllers {
                let known = modules
                    .iter()
                    .filter(|(module, _)| module.first() == names.first());
                let known = known.fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
                if count > known {
                    tell(&names, count - known);
                }
            }
        }
        out
    }
}

/// What the board's maker calls it, as the log does.
fn label(files: &Files, names: &[String], name: &str) -> String {
    let labels = LABELS
        .iter()
        .filter_map(|pattern| files.all(pattern).files.get(names));
    let label = labels.map(|text| text.trim()).find(|text| !text.is_empty());
    printable(label.unwrap_or(name).as_bytes(), 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn modules_are_told_by_their_labels_and_the_rest_by_the_controller() {
        let mut counter = Edac::default();
        let mut look = |controller: &str, module: &str, rank: &str| {
            let files = Files::of(&[
                (CONTROLLERS[0], &["mc0"], controller),
                (MODULES[0][0], &["mc0", "dimm3"], module),
                (LABELS[0], &["mc0", "dimm3"], "DIMM_A1\n"),
                (MODULES[1][1], &["mc1", "rank0"], rank),
            ]);
            summary(&counter.look(&files, Duration::ZERO))
        };
        let (corrected, uncorrected) = (Reason::EdacCorrectedError, Reason::EdacUncorrectedError);
        assert_eq!(look("7", "5", "0"), []);
        assert_eq!(
            look("9", "7", "0"),
            [(corrected, "MC0 DIMM_A1".to_owned(), 2)]
        );
        assert_eq!(
            look("12", "8", "1"),
            [
                (corrected, "MC0 DIMM_A1".to_owned(), 1),
                (corrected, "MC0".to_owned(), 2),
                (uncorrected, "MC1 rank0".to_owned(), 1),
            ]
        );
        // Somebody has set the counters back.
        assert_eq!(look("0", "0", ""), []);
    }
}

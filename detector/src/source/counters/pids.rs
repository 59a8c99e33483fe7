//! PURE. Pods that may have no more processes: the kernel log says it once for each cgroup, these files
//! each time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::files::Files;
use super::rising::{Baseline, New, Rising};
use super::text::number;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, Task, What, Workload};

/// Pods are one or two levels below, containers two or three; then what containers make for themselves.
/// `kubelet-kubepods` where kubelet itself runs in a container.
const PATTERNS: [&str; 12] = [
    "cgroup/kubepods*/pids.events",
    "cgroup/kubepods*/*/pids.events",
    "cgroup/kubepods*/*/*/pids.events",
    "cgroup/kubepods*/*/*/*/pids.events",
    "cgroup/kubepods*/*/*/*/*/pids.events",
    "cgroup/pids/kubepods*/*/pids.events",
    "cgroup/pids/kubepods*/*/*/pids.events",
    "cgroup/pids/kubepods*/*/*/*/pids.events",
    "cgroup/pids/kubepods*/*/*/*/*/pids.events",
    "cgroup/kubelet*/kubelet-kubepods*/*/pids.events",
    "cgroup/kubelet*/kubelet-kubepods*/*/*/pids.events",
    "cgroup/kubelet*/kubelet-kubepods*/*/*/*/pids.events",
];

#[derive(Default)]
pub(super) struct PidsLimits(Rising<Vec<String>>);

impl Counter for PidsLimits {
    fn name(&self) -> &'static str {
        "pids-limit"
    }

    fn wants(&self) -> &'static [&'static str] {
        &PATTERNS
    }

    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        vec![&mut self.0]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let found: Vec<_> = PATTERNS.iter().map(|pattern| files.all(pattern)).collect();
        let values = found.iter().flat_map(|found| &found.files);
        let values = values.filter_map(|(names, text)| Some((names.clone(), refused(text)?)));
        let cut = found.iter().any(|found| found.cut);
        let risen = self.0.step(values, New::Zero, cut);
        // Of one container, whatever cgroups it made for itself.
        let mut holders: BTreeMap<String, (Workload, u64)> = BTreeMap::new();
        for (names, count) in own(&risen) {
            let Some(workload) = Workload::from_cgroup_path(&names.join("/")) else {
                continue;
            };
            let holder = holders.entry(workload.holder()).or_insert((workload, 0));
            holder.1 = holder.1.saturating_add(count);
        }
        let found = holders.into_iter().map(|(entity, (workload, count))| {
            let message =
                format!("{entity} may have no more processes: {count} forks were refused");
            let fault = LogFault {
                // The file tells no process.
                task: Some(Task {
                    workload: Some(workload),
                    ..Task::default()
                }),
                ..told::fault(Reason::PidsLimitReached, &entity, message)
            };
            told::times(fault, count)
        });
        found.collect()
    }
}

/// On cgroup v2 a cgroup counts, since 6.11, for those below it as well.
fn own(risen: &BTreeMap<Vec<String>, u64>) -> impl Iterator<Item = (&[String], u64)> {
    let mut below: BTreeMap<&[String], u64> = BTreeMap::new();
    for (names, count) in risen {
        if let [outer @ .., _] = names.as_slice() {
            let sum = below.entry(outer).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
    risen.iter().filter_map(move |(names, count)| {
        let names = names.as_slice();
        let own = count.saturating_sub(below.get(names).copied().unwrap_or(0));
        (own > 0).then_some((names, own))
    })
}

/// `max 17`
fn refused(events: &str) -> Option<u64> {
    let mut lines = events.lines();
    number(lines.find_map(|line| line.strip_prefix("max "))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    const UID: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

    fn told(found: Vec<What>) -> Vec<(String, u64)> {
        let of = summary(&found).into_iter();
        of.map(|(reason, entity, count)| {
            assert_eq!(reason, Reason::PidsLimitReached);
            (entity, count)
        })
        .collect()
    }

    fn look(
        counter: &mut PidsLimits,
        files: &[(&'static str, &[&str], &str)],
    ) -> Vec<(String, u64)> {
        told(counter.look(&Files::of(files), Duration::ZERO))
    }

    #[test]
    fn a_container_is_told_by_pod_and_id_also_when_it_is_new() {
        let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        let id = "a".repeat(64);
        let scope = format!("cri-containerd-{id}.scope");
        let names = ["kubepods.slice", "kubepods-burstable.slice", &slice, &scope];
        let mut counter = PidsLimits::default();
        assert_eq!(look(&mut counter, &[]), []);
        let entity = format!("pod {UID} container {id}");
        let found = counter.look(
            &Files::of(&[(PATTERNS[7], &names, "max 3\n")]),
            Duration::ZERO,
        );
        let What::Counted { fault, .. } = &found[0] else {
            panic!("{found:?}");
        };
        let workload = fault.task.as_ref().and_then(|task| task.workload.as_ref());
        assert_eq!(
            workload.and_then(|workload| workload.pod_uid.as_deref()),
            Some(UID)
        );
        assert_eq!(told(found), [(entity.clone(), 3)]);
        let more: &[_] = &[(PATTERNS[7], &names[..], "max 5\n")];
        assert_eq!(look(&mut counter, more), [(entity, 2)]);
        assert_eq!(look(&mut counter, more), []);
    }

    #[test]
    fn what_a_cgroup_counts_for_those_below_is_not_its_own() {
        let pod = format!("pod{UID}");
        let id = "b".repeat(64);
        let files = |outer, pod_count, container| -> Vec<(&'static str, Vec<String>, &str)> {
            let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            vec![
                (PATTERNS[0], names(&["kubepods"]), outer),
                (PATTERNS[1], names(&["kubepods", &pod]), pod_count),
                (PATTERNS[2], names(&["kubepods", &pod, &id]), container),
            ]
        };
        let look = |counter: &mut PidsLimits, files: Vec<(&'static str, Vec<String>, &str)>| {
            let mut all = Vec::new();
            let names: Vec<Vec<&str>> = files
                .iter()
                .map(|(_, names, _)| names.iter().map(String::as_str).collect())
                .collect();
            for ((pattern, _, text), names) in files.iter().zip(&names) {
                all.push((*pattern, names.as_slice(), *text));
            }
            told(counter.look(&Files::of(&all), Duration::ZERO))
        };
        let mut counter = PidsLimits::default();
        look(&mut counter, files("max 0", "max 0", "max 0"));
        // The container's limit, then the pod's, then that of all pods.
        let container = format!("pod {UID} container {id}");
        let of_pod = format!("pod {UID}");
        let found = look(&mut counter, files("max 4", "max 4", "max 4"));
        assert_eq!(found, [(container, 4)]);
        let found = look(&mut counter, files("max 6", "max 6", "max 4"));
        assert_eq!(found, [(of_pod, 2)]);
        let found = look(&mut counter, files("max 7", "max 6", "max 4"));
        assert_eq!(found, [("kubepods".to_owned(), 1)]);
    }

    #[test]
    fn a_pass_that_was_cut_short_invents_nothing() {
        let names = ["kubepods", "pod1", "c"];
        let mut counter = PidsLimits::default();
        look(&mut counter, &[]);
        let cut = Files::of(&[(PATTERNS[2], &names, "max 9\n")]).cut();
        assert_eq!(told(counter.look(&cut, Duration::ZERO)), []);
    }

    #[test]
    fn what_is_no_count_says_nothing() {
        for text in ["", "max", "max ", "max x", "max -1", "other 7", "max\t7"] {
            assert_eq!(refused(text), None, "{text:?}");
        }
        assert_eq!(refused("max 7\nother 1\n"), Some(7));
    }
}

//! PURE. Errors that programs cause, on one GPU under different programs: then it may be the GPU.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::signal::Task;

const WINDOW: Duration = Duration::from_secs(24 * 3600);
const PROCESSES: usize = 3;
const NAMES: usize = 2;
/// Of each GPU.
const MOST_REMEMBERED: usize = 64;

/// The processes of each GPU whose work had an error lately.
#[derive(Default)]
pub(super) struct Programs(BTreeMap<String, VecDeque<(Duration, Task)>>);

impl Programs {
    /// Names of the programs that make this GPU a suspect with this error, if they do.
    pub(super) fn see(&mut self, gpu: &str, process: Task, at: Duration) -> Option<Vec<String>> {
        for remembered in self.0.values_mut() {
            remembered.retain(|(when, _)| at.saturating_sub(*when) <= WINDOW);
        }
        let ours = self.0.entry(gpu.to_owned()).or_default();
        if ours.iter().all(|(_, known)| known.pid != process.pid) {
            if ours.len() == MOST_REMEMBERED {
                ours.pop_front();
            }
            ours.push_back((at, process));
        }
        // A program that has them on other GPUs as well has brought them along.
        let elsewhere: BTreeSet<&str> = self
            .0
            .iter()
            .filter(|(other, _)| *other != gpu)
            .flat_map(|(_, processes)| processes.iter().map(|(_, task)| task.comm.as_str()))
            .collect();
        let only_here: Vec<_> = self
            .0
            .get(gpu)?
            .iter()
            .map(|(_, task)| task.comm.as_str())
            .filter(|name| !elsewhere.contains(name))
            .collect();
        let names: BTreeSet<_> = only_here.iter().copied().collect();
        (only_here.len() >= PROCESSES && names.len() >= NAMES)
            .then(|| names.into_iter().take(4).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32, comm: &str) -> Task {
        Task {
            pid,
            comm: comm.to_owned(),
            workload: None,
        }
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn three_processes_of_two_programs_on_one_gpu_make_it_a_suspect() {
        let mut programs = Programs::default();
        assert_eq!(programs.see("a", task(1, "train"), NOW), None);
        assert_eq!(programs.see("a", task(2, "train"), NOW), None);
        assert_eq!(programs.see("a", task(2, "train"), NOW), None);
        let names = programs.see("a", task(3, "infer"), NOW).unwrap();
        assert_eq!(names, ["infer", "train"]);
    }

    #[test]
    fn one_program_that_fails_again_and_again_does_not() {
        let mut programs = Programs::default();
        for pid in 1..100 {
            assert_eq!(programs.see("a", task(pid, "train"), NOW), None);
        }
        assert!(
            programs
                .0
                .values()
                .all(|of_gpu| of_gpu.len() <= MOST_REMEMBERED)
        );
    }

    #[test]
    fn programs_that_fail_on_other_gpus_too_do_not() {
        let mut programs = Programs::default();
        programs.see("b", task(9, "infer"), NOW);
        for pid in 1..3 {
            programs.see("a", task(pid, "train"), NOW);
        }
        assert_eq!(programs.see("a", task(3, "infer"), NOW), None);
    }

    #[test]
    fn what_was_a_day_ago_does_not_count() {
        let mut programs = Programs::default();
        programs.see("a", task(1, "train"), NOW);
        programs.see("a", task(2, "train"), NOW);
        let later = NOW + WINDOW + Duration::from_secs(1);
        assert_eq!(programs.see("a", task(3, "infer"), later), None);
    }
}

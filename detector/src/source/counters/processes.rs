//! PURE. All processes of the host, by one reading of `/proc/<pid>/stat`, and what they say of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::files::Files;
use super::text::number;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{HOST, LogFault, Task, What};
use crate::text;

const STAT: &str = "proc/#/stat";
/// A pod of the VPC CNI is on this node.
const AWS_NODE: &str = "pods/*_aws-node-*/aws-vpc-cni-init/";
const IPAMD: &str = "aws-k8s-agent";

/// As EKS's agent has it.
const MOST_ZOMBIES: usize = 20;
/// About 1,000 variables.
const LARGE_ENVIRONMENT: u64 = 40_000;
/// Of one process between two readings; the file has hundredths of seconds.
const LONG_WAIT: Duration = Duration::from_secs(10);
/// What the CNI's pod needs to start.
const STARTS: Duration = Duration::from_secs(300);
/// Findings of one reading.
const MOST_TOLD: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: u32,
    comm: String,
    zombie: bool,
    parent: u32,
    /// With the pid, another one after each reuse.
    started: u64,
    waited: Duration,
    environment: u64,
}

#[derive(Default)]
pub(super) struct ProcessSweep {
    /// There were too many zombies at the reading before.
    zombies: bool,
    waited: BTreeMap<(u32, u64), Duration>,
    ipamd: Ipamd,
}

#[derive(Default)]
struct Ipamd {
    /// Since when it has been missing.
    missing: Option<Duration>,
    told: bool,
}

impl Counter for ProcessSweep {
    fn name(&self) -> &'static str {
        "process-sweep"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[STAT, AWS_NODE]
    }

    fn look(&mut self, files: &Files, at: Duration) -> Vec<What> {
        let stats = files.all(STAT);
        let processes: BTreeMap<u32, Process> = stats
            .files
            .values()
            .filter_map(|text| parse(text))
            .map(|process| (process.pid, process))
            .collect();
        let mut found: Vec<What> = self.zombies(&processes).into_iter().collect();
        found.extend(large_environments(&processes));
        found.extend(self.waits(&processes));
        let has_pod = !files.all(AWS_NODE).files.is_empty();
        // Where not all could be read it may be among those that are missing.
        if !stats.cut && !processes.is_empty() {
            let runs = processes.values().any(|process| process.comm == IPAMD);
            found.extend(self.ipamd.look(has_pod, runs, at));
        }
        found
    }
}

impl ProcessSweep {
    fn zombies(&mut self, processes: &BTreeMap<u32, Process>) -> Option<What> {
        let mut parents: BTreeMap<u32, usize> = BTreeMap::new();
        for process in processes.values().filter(|process| process.zombie) {
            *parents.entry(process.parent).or_default() += 1;
        }
        let count: usize = parents.values().sum();
        let before = std::mem::replace(&mut self.zombies, count >= MOST_ZOMBIES);
        if !(before && self.zombies) {
            return None;
        }
        let (parent, of_it) = parents.into_iter().max_by_key(|(_, count)| *count)?;
        let comm = processes.get(&parent).map_or("gone", |parent| &parent.comm);
        let message = format!(
            "{count} processes have ended and were not asked how, {of_it} of them by {comm}[{parent}]"
        );
        let fault = told::fault(Reason::ExcessiveZombieProcesses, HOST, message);
        Some(told::still(fault))
    }

    /// By those that were there at the reading before.
    fn waits(&mut self, processes: &BTreeMap<u32, Process>) -> Vec<What> {
        let now = processes
            .values()
            .map(|process| ((process.pid, process.started), process.waited));
        let before = std::mem::replace(&mut self.waited, now.collect());
        let mut long: Vec<(Duration, &Process)> = processes
            .values()
            .filter_map(|process| {
                let waited = before.get(&(process.pid, process.started))?;
                let more = process.waited.saturating_sub(*waited);
                (more >= LONG_WAIT).then_some((more, process))
            })
            .collect();
        long.sort_by_key(|(more, process)| (std::cmp::Reverse(*more), process.pid));
        let told = long.into_iter().take(MOST_TOLD).map(|(more, process)| {
            let message = format!(
                "{} has waited for disks for {} s since the last reading",
                process.comm,
                more.as_secs()
            );
            told::times(about(Reason::IoDelays, process, message), 1)
        });
        told.collect()
    }
}

impl Ipamd {
    fn look(&mut self, has_pod: bool, runs: bool, at: Duration) -> Option<What> {
        let fault = |message: String| told::fault(Reason::IpamdNotRunning, "ipamd", message);
        if runs || !has_pod {
            self.missing = None;
            let over = || told::over(fault(format!("{IPAMD} runs")));
            return std::mem::take(&mut self.told).then(over);
        }
        let since = *self.missing.get_or_insert(at);
        let missing = at.saturating_sub(since);
        if missing < STARTS {
            return None;
        }
        self.told = true;
        Some(told::still(fault(format!(
            "the node has an aws-node pod, and no process called {IPAMD} for {} minutes",
            missing.as_secs() / 60
        ))))
    }
}

/// One for each name: a job of 1,000 processes has the same environment 1,000 times.
fn large_environments(processes: &BTreeMap<u32, Process>) -> Vec<What> {
    let mut largest: BTreeMap<&str, &Process> = BTreeMap::new();
    for process in processes.values() {
        if process.environment < LARGE_ENVIRONMENT {
            continue;
        }
        let known = largest.entry(&process.comm).or_insert(process);
        if known.environment < process.environment {
            *known = process;
        }
    }
    let told = largest.into_values().take(MOST_TOLD).map(|process| {
        let message = format!(
            "{} was started with an environment of {} bytes",
            process.comm, process.environment
        );
        told::still(about(Reason::LargeEnvironment, process, message))
    });
    told.collect()
}

fn about(reason: Reason, process: &Process, message: String) -> LogFault {
    LogFault {
        task: Some(Task {
            pid: process.pid,
            comm: process.comm.clone(),
            workload: None,
        }),
        ..told::fault(reason, &process.comm, message)
    }
}

/// `pid (comm) state ppid ...`, as in proc_pid_stat(5); a process chooses its name.
fn parse(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (comm, rest) = rest.rsplit_once(") ")?;
    // From the third on.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |place: usize| fields.get(place - 3).copied();
    let value = |place| field(place).and_then(number);
    Some(Process {
        pid: pid.parse().ok()?,
        comm: text::part(comm, 64),
        zombie: field(3)? == "Z",
        parent: field(4)?.parse().ok()?,
        started: value(22)?,
        waited: Duration::from_millis(value(42)?.saturating_mul(10)),
        environment: match (value(50), value(51)) {
            (Some(begin), Some(end)) => end.saturating_sub(begin),
            _ => 0,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Counted;
    use crate::source::counters::told::summary;

    fn stat(
        pid: u32,
        comm: &str,
        state: &str,
        parent: u32,
        ticks: u64,
        environment: u64,
    ) -> String {
        let zeros = |count| vec!["0"; count].join(" ");
        // Fields 5 to 21, 23 to 41, 43 to 49.
        format!(
            "{pid} ({comm}) {state} {parent} {} 777 {} {ticks} {} 4096 {} 0\n",
            zeros(17),
            zeros(19),
            zeros(7),
            4096 + environment
        )
    }

    fn look(sweep: &mut ProcessSweep, stats: &[String], pod: bool, seconds: u64) -> Vec<What> {
        let names: Vec<String> = (0..stats.len()).map(|index| index.to_string()).collect();
        let names: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
        let mut files: Vec<(&'static str, &[&str], &str)> = stats
            .iter()
            .zip(&names)
            .map(|(stat, name)| (STAT, name.as_slice(), stat.as_str()))
            .collect();
        if pod {
            files.push((AWS_NODE, &["kube-system", "abc"], ""));
        }
        sweep.look(&Files::of(&files), Duration::from_secs(seconds))
    }

    fn zombies(count: u32) -> Vec<String> {
        let parent = stat(1, "init) Z (", "S", 0, 0, 0);
        let dead = (2..2 + count).map(|pid| stat(pid, "worker", "Z", 1, 0, 0));
        std::iter::once(parent).chain(dead).collect()
    }

    #[test]
    fn twenty_zombies_in_two_readings_are_too_many_and_their_parent_is_named() {
        let mut sweep = ProcessSweep::default();
        assert_eq!(look(&mut sweep, &zombies(20), false, 0), []);
        let found = look(&mut sweep, &zombies(20), false, 30);
        assert_eq!(
            summary(&found),
            [(Reason::ExcessiveZombieProcesses, HOST.to_owned(), 0)]
        );
        let What::Counted { fault, .. } = &found[0] else {
            panic!("{found:?}");
        };
        assert!(
            fault.message.ends_with("by init) Z ([1]"),
            "{}",
            fault.message
        );
        assert_eq!(look(&mut sweep, &zombies(19), false, 60), []);
        assert_eq!(
            look(&mut sweep, &zombies(20), false, 90),
            [],
            "once is not again"
        );
    }

    #[test]
    fn an_environment_is_large_by_its_bytes_and_told_once_for_each_name() {
        let mut sweep = ProcessSweep::default();
        let small = [stat(5, "java", "S", 1, 0, 39_999)];
        assert_eq!(look(&mut sweep, &small, false, 0), []);
        let large = [
            stat(5, "java", "S", 1, 0, 40_000),
            stat(6, "java", "S", 1, 0, 50_000),
        ];
        let found = look(&mut sweep, &large, false, 30);
        let names = summary(&found);
        assert_eq!(names, [(Reason::LargeEnvironment, "java".to_owned(), 0)]);
    }

    #[test]
    fn a_process_waits_for_long_by_what_was_added_since_the_last_reading() {
        let mut sweep = ProcessSweep::default();
        let mut at = |ticks| {
            let stats = [stat(5, "etcd", "D", 1, ticks, 0)];
            summary(&look(&mut sweep, &stats, false, 0))
        };
        assert_eq!(at(100_000), [], "of the time before anybody watched");
        assert_eq!(at(100_999), []);
        assert_eq!(at(102_000), [(Reason::IoDelays, "etcd".to_owned(), 1)]);
        assert_eq!(at(0), [], "another process with its number");
    }

    #[test]
    fn ipamd_is_missed_after_five_minutes_where_the_node_has_its_pod() {
        let mut sweep = ProcessSweep::default();
        let without = [stat(1, "init", "S", 0, 0, 0)];
        let with = [stat(9, IPAMD, "S", 1, 0, 0)];
        for seconds in [0, 1000] {
            assert_eq!(look(&mut sweep, &without, false, seconds), [], "no pod");
        }
        assert_eq!(look(&mut sweep, &without, true, 2000), []);
        assert_eq!(look(&mut sweep, &with, true, 2100), []);
        assert_eq!(
            look(&mut sweep, &without, true, 2200),
            [],
            "the time begins anew"
        );
        assert_eq!(look(&mut sweep, &without, true, 2499), []);
        let found = look(&mut sweep, &without, true, 2500);
        assert_eq!(
            summary(&found),
            [(Reason::IpamdNotRunning, "ipamd".to_owned(), 0)]
        );
        let over = look(&mut sweep, &with, true, 2530);
        let [
            What::Counted {
                counted: Counted::Over,
                ..
            },
        ] = over.as_slice()
        else {
            panic!("{over:?}");
        };
        assert_eq!(look(&mut sweep, &with, true, 2560), []);
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_no_process() {
        for text in ["", "1", "1 (a", "1 (a) S", "x (a) S 1", "1 (a) S 1 2 3"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

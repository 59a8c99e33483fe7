//! The detector against real faults of the running kernel: `watch -o json`, seen from outside.

#[path = "kernel/block_io.rs"]
mod block_io;
#[path = "kernel/blocked_task.rs"]
mod blocked_task;
#[path = "kernel/containerd.rs"]
mod containerd;
#[path = "kernel/counters.rs"]
mod counters;
#[path = "kernel/crash.rs"]
mod crash;
#[path = "kernel/executions.rs"]
mod executions;
#[path = "kernel/file_system.rs"]
mod file_system;
#[path = "kernel/flood.rs"]
mod flood;
#[path = "kernel/forged.rs"]
mod forged;
#[path = "kernel/host.rs"]
mod host;
#[path = "kernel/hung_task.rs"]
mod hung_task;
#[path = "kernel/interfaces.rs"]
mod interfaces;
#[path = "kernel/journal.rs"]
mod journal;
#[path = "kernel/kernel_log.rs"]
mod kernel_log;
#[path = "kernel/kubelet.rs"]
mod kubelet;
#[path = "kernel/limits.rs"]
mod limits;
#[path = "kernel/live.rs"]
mod live;
#[path = "kernel/lockup.rs"]
mod lockup;
#[path = "kernel/net_drop.rs"]
mod net_drop;
#[path = "kernel/oom.rs"]
mod oom;
#[path = "kernel/read_only.rs"]
mod read_only;
#[path = "kernel/support.rs"]
mod support;
#[path = "kernel/systemd.rs"]
mod systemd;
#[path = "kernel/undone.rs"]
mod undone;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nodemend_tests::{company, watch};

use crate::support::{Needs, Support};

/// A sentence, what it needs of this host, and the test.
type Test = (&'static str, Needs, fn() -> anyhow::Result<()>);

/// These mostly wait, some for half a minute and longer. They set nothing that all of the kernel has, and look
/// for their own faults alone: they run side by side. Each test runs a detector that sees the faults of all, so
/// the others run one at a time.
const SIDE_BY_SIDE: [&str; 8] = [
    "a_loopback_that_is_down_is_fatal_until_it_is_up",
    "who_waits_for_a_fuse_server_is_found_and_called_remote",
    "who_waits_for_a_disk_is_named_with_the_file_system_on_it",
    "a_kubelet_that_hangs_on_a_disk_is_told_with_its_stack_and_clears",
    "a_kubelet_that_is_stopped_is_told_so",
    "what_containerd_calls_deprecated_is_told_and_a_containerd_that_hangs_is_given_up_until_it_answers",
    "entries_of_the_journal_are_counted_once_through_kills_and_rotations",
    "a_read_only_file_system_under_a_critical_path_makes_storage_not_ready_until_it_is_gone",
];

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(SIDE_BY_SIDE.len());
    let support = Support::find();
    let tests = [
        oom::TESTS,
        block_io::TESTS,
        net_drop::TESTS,
        hung_task::TESTS,
        blocked_task::TESTS,
        read_only::TESTS,
        forged::TESTS,
        crash::TESTS,
        file_system::TESTS,
        kernel_log::TESTS,
        counters::TESTS,
    ];
    let tests = tests
        .into_iter()
        .chain([
            host::TESTS,
            interfaces::TESTS,
            journal::TESTS,
            live::TESTS,
            undone::TESTS,
            lockup::TESTS,
            limits::TESTS,
            kubelet::TESTS,
            flood::TESTS,
            executions::TESTS,
            systemd::TESTS,
            containerd::TESTS,
        ])
        .flatten();
    let (first, rest): (Vec<&Test>, Vec<_>) =
        tests.partition(|(name, ..)| SIDE_BY_SIDE.contains(name));
    assert_eq!(first.len(), SIDE_BY_SIDE.len(), "a name has no test");
    let trials = first
        .into_iter()
        .chain(rest)
        .map(|&(name, needs, test)| trial(name, support.missing(needs), test))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &'static str, missing: Option<String>, test: fn() -> anyhow::Result<()>) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = missing {
            return Ok(Completion::ignored_with(reason));
        }
        let result = if SIDE_BY_SIDE.contains(&name) {
            company::beside_others(test)
        } else {
            company::alone(test)
        };
        result
            .map(|()| Completion::Completed)
            .map_err(|error| Failed::from(format!("{error:#}")))
    })
}

//! The detector against real faults of the running kernel: `watch -o json`, seen from outside.

#[path = "kernel/block_io.rs"]
mod block_io;
#[path = "kernel/blocked_task.rs"]
mod blocked_task;
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
use nodemend_tests::watch;

use crate::support::{Needs, Support};

/// A sentence, what it needs of this host, and the test.
type Test = (&'static str, Needs, fn() -> anyhow::Result<()>);

fn main() {
    let mut arguments = Arguments::from_args();
    // Each test runs a detector that sees the faults of all; one at a time keeps them apart.
    arguments.test_threads = Some(1);
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
        ])
        .flatten();
    let trials = tests
        .map(|&(name, needs, test)| trial(name, support.missing(needs), test))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &str, missing: Option<String>, test: fn() -> anyhow::Result<()>) -> Trial {
    Trial::ignorable_test(name, move || match missing {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => test()
            .map(|()| Completion::Completed)
            .map_err(|error| Failed::from(format!("{error:#}"))),
    })
}

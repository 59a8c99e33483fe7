//! A task that is blocked for longer than the kernel's limit.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use nodemend_tests::company;
use nodemend_tests::faults::HungTask;

use crate::Test;
use crate::support::Needs;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[(
    "a_hung_task_is_named_once_and_clears_when_it_runs",
    Needs::HungTask,
    hung,
)];

/// By both variants and by the kernel log at once: the fault takes seconds.
fn hung() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    let mut classic = Watch::start(&["--disable-variant", "tp_btf sched_process_hang"])?;
    let mut logged = Watch::start(&["--disable-hook", "hung-task"])?;
    let task = HungTask::start("stuck (D) 1)")?;
    watch.line("the first report", |line| {
        line["subject"]["pid"] == task.pid() && line["reason"] == "AppBlocked"
    })?;
    // The kernel reports it again at each check.
    thread::sleep(Duration::from_millis(2500));
    for watch in [&mut watch, &mut classic, &mut logged] {
        let of_it: Vec<_> = watch
            .findings()
            .into_iter()
            .filter(|line| line["subject"]["pid"] == task.pid())
            .collect();
        ensure!(of_it.len() == 1, "{of_it:#?}");
        ensure!(of_it[0]["subject"]["comm"] == "stuck (D) 1)", "{of_it:#?}");
        ensure!(
            of_it[0]["reason"] == "AppBlocked" && of_it[0]["severity"] == "Warning",
            "{of_it:#?}"
        );
    }
    let pid = task.pid();
    drop(task);
    company::leave();
    // Its own state says so, not that nothing was heard of it for a while.
    watch.line("the end of it", |line| {
        line["transition"] == "cleared" && line["subject"]["pid"] == pid
    })?;
    Ok(())
}

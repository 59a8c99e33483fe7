//! The faults themselves: nothing of them is left, also after a panic.

use std::fs;
use std::panic;

use anyhow::{Context, bail, ensure};
use nodemend_tests::faults::{Ext4, FullConntrack, HungTask, PodCgroup, SilentDisk};

use crate::Test;
use crate::support::Needs::{self, Root};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_panic_leaves_no_mount_and_no_loop_device",
        Root,
        file_system,
    ),
    (
        "a_panic_leaves_no_hung_task_and_no_changed_setting",
        Needs::HungTask,
        hung_task,
    ),
    ("a_panic_leaves_no_cgroup", Root, cgroup),
    (
        "a_panic_leaves_no_cgroup_of_few_pids_and_no_silent_disk",
        Root,
        polled,
    ),
    (
        "a_panic_leaves_the_conntrack_table_as_it_was",
        Needs::Conntrack,
        conntrack,
    ),
];

/// Panics while the fault is there; the panic's own message is not shown.
fn panic_with<T>(fault: T) -> anyhow::Result<()> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _fault = fault;
        panic!("on purpose");
    }));
    panic::set_hook(hook);
    match result {
        Ok(()) => bail!("there was no panic"),
        Err(_) => Ok(()),
    }
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

fn file_system() -> anyhow::Result<()> {
    let file_system = Ext4::mounted()?;
    file_system.turn_read_only()?;
    let (device, path) = (
        file_system.device().to_owned(),
        file_system.path().to_owned(),
    );
    panic_with(file_system)?;
    let path = path.to_str().context("read the path of a mount")?;
    ensure!(
        !read("/proc/self/mountinfo")?.contains(path),
        "{path} is still mounted"
    );
    ensure!(
        !fs::exists(format!("/sys/block/{device}/loop")).context("look for a loop device")?,
        "{device} is still attached"
    );
    ensure!(
        !fs::exists(path).context("look for a folder")?,
        "{path} is still there"
    );
    Ok(())
}

fn hung_task() -> anyhow::Result<()> {
    let settings = || -> anyhow::Result<Vec<String>> {
        [
            "hung_task_timeout_secs",
            "hung_task_check_interval_secs",
            "hung_task_warnings",
            "hung_task_panic",
        ]
        .iter()
        .map(|name| read(&format!("/proc/sys/kernel/{name}")))
        .collect()
    };
    let before = settings()?;
    let task = HungTask::start("stuck")?;
    ensure!(before != settings()?, "nothing was changed");
    let pid = task.pid();
    panic_with(task)?;
    ensure!(before == settings()?, "{before:?} became {:?}", settings()?);
    ensure!(
        !fs::exists(format!("/proc/{pid}")).context("look for a process")?,
        "process {pid} is still there"
    );
    Ok(())
}

fn cgroup() -> anyhow::Result<()> {
    let pod = "0f7a1c9e-3b7d-4c5e-9f00-aaaaaaaaaaaa";
    let cgroup = PodCgroup::nested(pod, &["below"])?;
    let path = cgroup.path().to_owned();
    cgroup.oom_kill("memory hog")?;
    panic_with(cgroup)?;
    ensure!(
        !fs::exists(&path).context("look for a cgroup")?,
        "{} is still there",
        path.display()
    );
    Ok(())
}

fn polled() -> anyhow::Result<()> {
    let pod = "0f7a1c9e-3b7d-4c5e-9f00-bbbbbbbbbbbb";
    let cgroup = PodCgroup::with_few_pids(pod)?;
    let path = cgroup.path().to_owned();
    cgroup.fork_beyond("forker")?;
    let disk = SilentDisk::start()?;
    let device = disk.device().to_owned();
    panic_with((cgroup, disk))?;
    ensure!(
        !fs::exists(&path).context("look for a cgroup")?,
        "{} is still there",
        path.display()
    );
    ensure!(
        !fs::exists(format!("/sys/block/{device}/loop")).context("look for a loop device")?,
        "{device} is still attached"
    );
    Ok(())
}

fn conntrack() -> anyhow::Result<()> {
    let settings = || -> anyhow::Result<Vec<String>> {
        ["nf_conntrack_max", "nf_conntrack_count"]
            .iter()
            .map(|name| read(&format!("/proc/sys/net/netfilter/{name}")))
            .collect()
    };
    let before = settings()?;
    let table = FullConntrack::fill()?;
    ensure!(before != settings()?, "nothing was changed");
    panic_with(table)?;
    ensure!(before == settings()?, "{before:?} became {:?}", settings()?);
    Ok(())
}

//! OOM kills in the cgroups of pods.

use anyhow::ensure;
use nodemend_tests::faults::PodCgroup;

use crate::Test;
use crate::support::Needs::Hook;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "oom_kill_names_pod_container_and_process_systemd_driver",
        Hook("oom"),
        systemd,
    ),
    (
        "oom_kill_names_pod_container_and_process_cgroupfs_driver",
        Hook("oom"),
        cgroupfs,
    ),
    (
        "oom_kill_at_the_limit_of_the_pod_says_so",
        Hook("oom"),
        || pod_limit(&[]),
    ),
    (
        "oom_kill_at_the_limit_of_the_pod_says_so_by_the_kernel_log_alone",
        Hook("oom"),
        || pod_limit(&["--disable-hook", "oom"]),
    ),
    (
        "oom_kill_in_a_nested_cgroup_names_the_pod",
        Hook("oom"),
        nested,
    ),
    (
        "oom_kill_in_a_cgroup_named_like_another_pod_names_the_real_one",
        Hook("oom"),
        forged_pod,
    ),
    (
        "oom_kill_is_reported_although_the_cgroup_is_gone_before_the_detector_reads",
        Hook("oom"),
        gone,
    ),
    (
        "oom_kills_of_one_container_are_one_finding",
        Hook("oom"),
        twice,
    ),
    (
        "oom_kill_by_the_classic_tracepoint_names_the_process",
        Hook("oom"),
        classic,
    ),
    (
        "oom_kill_by_the_kernel_log_alone_names_pod_container_and_process",
        Hook("oom"),
        logged,
    ),
    (
        "a_message_of_the_bpf_programs_reaches_the_log",
        Hook("oom"),
        bpf_log,
    ),
];

const POD: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";
const OTHER_POD: &str = "11111111-2222-4333-8444-555555555555";

fn killed_in(cgroup: &PodCgroup, watch: &mut Watch) -> anyhow::Result<()> {
    let killed = cgroup.oom_kill("memory hog")?;
    let finding = watch.only_finding("OOMKilling", "pid", killed.pid)?;
    let subject = &finding["subject"];
    ensure!(subject["comm"] == "memory hog", "{finding}");
    ensure!(subject["podUid"] == POD, "{finding}");
    ensure!(subject["containerId"] == cgroup.container_id(), "{finding}");
    ensure!(
        finding["severity"] == "Warning" && finding["condition"] == "KernelReady",
        "{finding}"
    );
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(
        message.ends_with(": its container has used up its memory limit"),
        "{finding}"
    );
    Ok(())
}

fn systemd() -> anyhow::Result<()> {
    killed_in(&PodCgroup::systemd(POD)?, &mut Watch::start(&[])?)
}

fn cgroupfs() -> anyhow::Result<()> {
    killed_in(&PodCgroup::cgroupfs(POD)?, &mut Watch::start(&[])?)
}

/// Without the hook: the same finding.
fn logged() -> anyhow::Result<()> {
    let mut watch = Watch::start(&["--disable-hook", "oom"])?;
    killed_in(&PodCgroup::systemd(POD)?, &mut watch)
}

fn pod_limit(args: &[&str]) -> anyhow::Result<()> {
    let cgroup = PodCgroup::limited_pod(POD)?;
    let mut watch = Watch::start(args)?;
    let killed = cgroup.oom_kill("memory hog")?;
    let finding = watch.only_finding("OOMKilling", "pid", killed.pid)?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(
        message.ends_with(": its pod has used up its memory limit"),
        "{finding}"
    );
    Ok(())
}

fn nested() -> anyhow::Result<()> {
    killed_in(
        &PodCgroup::nested(POD, &["init.scope", "worker"])?,
        &mut Watch::start(&[])?,
    )
}

/// Deeper than a record has levels, too.
fn forged_pod() -> anyhow::Result<()> {
    let pod = format!("pod{OTHER_POD}");
    let slice = format!(
        "kubepods-burstable-pod{}.slice",
        OTHER_POD.replace('-', "_")
    );
    let id = "f".repeat(64);
    let below = [
        "kubepods",
        pod.as_str(),
        id.as_str(),
        slice.as_str(),
        "a",
        "b",
        "c",
        "d",
    ];
    killed_in(&PodCgroup::nested(POD, &below)?, &mut Watch::start(&[])?)
}

fn gone() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    let cgroup = PodCgroup::systemd(POD)?;
    watch.pause()?;
    let killed = cgroup.oom_kill("memory hog")?;
    drop(cgroup);
    watch.resume()?;
    let finding = watch.only_finding("OOMKilling", "pid", killed.pid)?;
    ensure!(
        finding["subject"]["podUid"] == POD && finding["subject"]["comm"] == "memory hog",
        "{finding}"
    );
    Ok(())
}

fn twice() -> anyhow::Result<()> {
    let cgroup = PodCgroup::systemd(POD)?;
    let mut watch = Watch::start(&[])?;
    cgroup.oom_kill("first")?;
    cgroup.oom_kill("second")?;
    let finding = watch.only_finding("OOMKilling", "containerId", cgroup.container_id())?;
    ensure!(finding["subject"]["comm"] == "first", "{finding}");
    Ok(())
}

/// Without the task there is no cgroup and no name: the pid is all that the event has.
fn classic() -> anyhow::Result<()> {
    let cgroup = PodCgroup::systemd(POD)?;
    let mut watch = Watch::start(&["--disable-variant", "tp_btf mark_victim"])?;
    let killed = cgroup.oom_kill("memory hog")?;
    watch
        .only_finding("OOMKilling", "pid", killed.pid)
        .map(drop)
}

fn bpf_log() -> anyhow::Result<()> {
    let cgroup = PodCgroup::systemd(POD)?;
    let mut watch = Watch::start(&[])?;
    cgroup.oom_kill("memory hog")?;
    watch
        .line("the message", |line| {
            line["message"] == "mark_victim: a task was chosen"
        })
        .map(drop)
}

//! A detector in a cgroup as small as the chart makes it, under one hardship after the other: 50
//! processes crash meanwhile, and each is to be told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::{abort, boot_clock, fill_kernel_log};
use nodemend_tests::vm::Report;
use nodemend_tests::watch::Watch;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::Value;

use crate::Guest;

const CGROUP: &str = "/sys/fs/cgroup/agent";
/// deploy/chart/values.yaml.
const MEMORY_LIMIT: u64 = 128 << 20;
const FAULTS: usize = 50;
const LINES: usize = 200_000;
/// With a hundredth of a CPU that is interpreted.
const PATIENCE: Duration = Duration::from_secs(150);

pub(crate) fn run(guest: &mut Guest) -> anyhow::Result<()> {
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +cpu")
        .context("give cgroups memory and CPU limits")?;
    fs::create_dir(CGROUP).context("make a cgroup")?;
    set("memory.max", &MEMORY_LIMIT.to_string())?;
    // A child begins where its parent is.
    set("cgroup.procs", "0")?;
    let watch = Watch::start(&["--counter-interval", "2s"]);
    fs::write("/sys/fs/cgroup/cgroup.procs", "0").context("leave the cgroup")?;
    let mut watch = watch?;

    let idle = number("memory.current")?;
    set("memory.max", &(idle + (2 << 20)).to_string())?;
    faults(
        guest,
        &mut watch,
        "2 MiB more than it takes when idle",
        crashes,
    )?;
    set("memory.max", &MEMORY_LIMIT.to_string())?;

    set("cpu.max", "1000 100000")?;
    faults(guest, &mut watch, "10m of CPU", crashes)?;
    set("cpu.max", "max 100000")?;

    faults(guest, &mut watch, "a clock that is stepped", |names| {
        let (before, after) = names.split_at(names.len() / 2);
        step_clock(3600)?;
        crashes(before)?;
        step_clock(-7200)?;
        crashes(after)
    })?;

    faults(
        guest,
        &mut watch,
        "200,000 lines in the kernel log",
        |names| {
            let flood = thread::spawn(|| fill_kernel_log(LINES, "nothing of interest"));
            crashes(names)?;
            flood
                .join()
                .map_err(|_panic| anyhow::anyhow!("the flood panicked"))?
        },
    )?;

    let killed = fs::read_to_string(Path::new(CGROUP).join("memory.events"))
        .context("read what the limit did")?;
    ensure!(
        killed.lines().any(|line| line == "oom_kill 0"),
        "the detector was killed by its limit: {killed}"
    );
    Ok(())
}

fn crashes(names: &[String]) -> anyhow::Result<()> {
    names.iter().try_for_each(|name| abort(name).map(drop))
}

fn faults(
    guest: &mut Guest,
    watch: &mut Watch,
    stress: &str,
    provoke: impl FnOnce(&[String]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let names: Vec<_> = (0..FAULTS)
        .map(|number| format!("{}-{number}", stress.len()))
        .collect();
    let at = boot_clock();
    provoke(&names)?;
    let mut missing: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut lost = false;
    while !missing.is_empty() && boot_clock() < at + PATIENCE {
        let told = watch.line_within(Duration::from_secs(1), stress, |line| {
            line["transition"] == "opened" || line["transition"] == "repeated"
        });
        let Ok(line) = told else { continue };
        lost |= line["reason"] == "SignalsLost";
        if line["reason"] == "AppCrash" {
            missing.remove(comm(&line));
        }
    }
    let told = names.len() - missing.len();
    guest.report(&Report::Stressed {
        stress: stress.to_owned(),
        provoked: names.len(),
        told,
        lost,
        seconds: (boot_clock() - at).as_secs(),
    })
}

fn comm(line: &Value) -> &str {
    line["subject"]["comm"].as_str().unwrap_or_default()
}

fn step_clock(seconds: i64) -> anyhow::Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let time = Timespec {
        tv_sec: now.tv_sec + seconds,
        tv_nsec: now.tv_nsec,
    };
    clock_settime(ClockId::Realtime, time).context("step the clock")
}

fn set(name: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new(CGROUP).join(name);
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}

fn number(name: &str) -> anyhow::Result<u64> {
    let path = Path::new(CGROUP).join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    text.trim()
        .parse()
        .with_context(|| format!("read {}", path.display()))
}

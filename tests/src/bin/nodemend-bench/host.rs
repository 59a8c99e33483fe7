//! What one sweep of all host checks costs beside many pods, and that the detector starts no program
//! meanwhile: `watch` alone, no control plane.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::Context;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::faults::{Executions, Pods};
use serde_json::Value;
use tempfile::TempDir;

use self::report::Report;
use self::rules::Rules;
use crate::stage::SOON;

pub(crate) mod report;
mod rules;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Each has cgroups, a network namespace with a veth pair, and three processes
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u16).range(0..=500))]
    pods: u16,
    /// Of nftables on the host, one new each second, so that each sweep reads all
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    rules: u32,
    /// Sweeps that are measured
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
    sweeps: u32,
    /// Seconds in which no program may be started
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86400))]
    steady_seconds: u64,
    #[arg(short, long, value_enum, default_value_t = crate::Format::Table)]
    pub(crate) output: crate::Format,
}

/// The check that is there on every host, and in every round: it tells one sweep from the next.
const EACH_ROUND: &str = "process-sweep";

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    eprintln!("{} pods, {} rules", args.pods, args.rules);
    let pods = Pods::start(args.pods)?;
    let rules = Rules::make(args.rules)?;
    let log = ("RUST_LOG".to_owned(), "nodemend_detector=debug".to_owned());
    let proc = own_network()?;
    let proc = proc.path().display().to_string();
    let args_of_it = ["watch", "-o", "json", "--counter-interval", "1s"];
    let args_of_it = [&args_of_it[..], &["--host-proc", &proc]].concat();
    let mut detector = Daemon::start("nodemend-detector", &args_of_it, &[log])?;
    detector
        .wait_for_log(SOON, |line| line["ready"] == true)
        .await
        .context("wait until the detector watches")?;
    let processes = fs::read_dir("/proc").context("list /proc")?.flatten();
    let processes = processes.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.parse::<u32>().is_ok())
    });
    let processes = processes.count();
    eprintln!("{} sweeps", args.sweeps);
    let before = threads(&detector)?;
    let mut checks: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let mut sweeps = 0;
    while sweeps < args.sweeps {
        let looked = |line: &Value| line["message"] == "looked" && line["cpu_us"].is_u64();
        let line = detector.wait_for_log(SOON, looked).await?;
        let name = line["check"].as_str().unwrap_or_default();
        let cpu = Duration::from_micros(line["cpu_us"].as_u64().unwrap_or_default());
        checks.entry(name.to_owned()).or_default().push(cpu);
        sweeps += u32::from(name == EACH_ROUND);
    }
    let after = threads(&detector)?;
    eprintln!("{} s without a program", args.steady_seconds);
    let executions = Executions::of(detector.pid())?;
    tokio::time::sleep(Duration::from_secs(args.steady_seconds)).await;
    let started = executions.so_far()?;
    drop(rules);
    drop(pods);
    let threads = after.into_iter().map(|(name, cpu)| {
        let before = before.get(&name).copied().unwrap_or_default();
        (name, cpu.saturating_sub(before) / sweeps)
    });
    Ok(Report {
        pods: args.pods,
        rules: args.rules,
        processes,
        sweeps,
        checks,
        threads: threads.collect(),
        steady: Duration::from_secs(args.steady_seconds),
        started,
    })
}

/// The host's /proc, but for the network namespace of its init, which some hosts show to nobody.
fn own_network() -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let init = folder.path().join("1");
    fs::create_dir(&init).context("make a folder")?;
    for (from, to, but) in [("/proc", folder.path(), "1"), ("/proc/1", &init, "ns")] {
        let entries = fs::read_dir(from).with_context(|| format!("list {from}"))?;
        for entry in entries.flatten().filter(|entry| entry.file_name() != but) {
            symlink(entry.path(), to.join(entry.file_name())).context("make a /proc")?;
        }
    }
    symlink("/proc/self/ns", init.join("ns")).context("make a /proc")?;
    Ok(folder)
}

/// Time on a CPU, by the name of the thread.
fn threads(detector: &Daemon) -> anyhow::Result<BTreeMap<String, Duration>> {
    let folder = format!("/proc/{}/task", detector.pid());
    let entries = fs::read_dir(&folder).with_context(|| format!("list {folder}"))?;
    let mut found: BTreeMap<String, Duration> = BTreeMap::new();
    for entry in entries.flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join(name));
        // It may have ended since it was listed.
        let (Ok(schedstat), Ok(name)) = (read("schedstat"), read("comm")) else {
            continue;
        };
        let nanoseconds = schedstat
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok());
        let cpu = Duration::from_nanos(nanoseconds.context("parse schedstat")?);
        *found.entry(name.trim().to_owned()).or_default() += cpu;
    }
    Ok(found)
}

//! What the programs in the kernel cost, how soon a fault is a finding, and what a burst of log lines
//! does: `watch` alone, no control plane.

#![expect(clippy::disallowed_methods, reason = "this measures time")]

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nodemend_tests::daemon::Daemon;
use nodemend_tests::faults::{
    Ext4, LoopDisk, PodCgroup, abort, fill_kernel_log, fill_socket_buffer,
};
use serde_json::Value;

use crate::drops::BpfStats;
use crate::idle;
use crate::kernel::report::{Burst, Cost, Report};
use crate::stage::SOON;

mod empty;
pub(crate) mod report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Events for the cost of each program that runs often
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    events: u32,
    /// OOM kills for the latency on a quiet and on a busy machine, each
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=250))]
    faults: u32,
    /// Lines of the burst
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lines: u32,
    #[arg(short, long, value_enum, default_value_t = crate::Format::Table)]
    pub(crate) output: crate::Format,
}

/// Crashes inside the burst.
const CRASHES: u32 = 50;

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    eprintln!("each program, with {} events", args.events);
    let empty = empty_program(args.events)?;
    let costs = costs(args.events).await?;
    eprintln!("{} OOM kills on a machine as it is", args.faults);
    let quiet = oom_kills(args.faults, "quiet").await?;
    eprintln!(
        "{} OOM kills beside 4 busy threads for each CPU",
        args.faults
    );
    let busy = {
        let _load = Load::start();
        oom_kills(args.faults, "busy").await?
    };
    eprintln!("{CRASHES} crashes inside {} log lines", args.lines);
    let burst = burst(args.lines).await?;
    Ok(Report {
        empty,
        costs,
        quiet,
        busy,
        burst,
    })
}

/// Counting time costs time: what a program costs that does nothing.
fn empty_program(events: u32) -> anyhow::Result<Duration> {
    let _stats = BpfStats::enable()?;
    let program = empty::Program::attach(c"kfree_skb")?;
    fill_socket_buffer(events)?;
    let runs = program.runs()?;
    ensure!(runs.runs > 0, "the empty program did not run");
    Ok(Duration::from_nanos(runs.nanoseconds / runs.runs))
}

type Work = fn(u32) -> anyhow::Result<()>;

async fn costs(events: u32) -> anyhow::Result<Vec<Cost>> {
    let programs: [(&str, &[&str], &str, Work); 6] = [
        ("net-drop", &[], "packet that is dropped", |events| {
            fill_socket_buffer(events).map(drop)
        }),
        ("console", &[], "log line of no interest", |events| {
            fill_kernel_log(events as usize, "nodemend measures a line of no interest")
        }),
        ("console", &[], "log line that is copied", |events| {
            fill_kernel_log(events as usize / 10, "EXT4-fs (none): nodemend measures")
        }),
        (
            "block-io",
            &["--disable-variant", "tracepoint block:block_rq_error"],
            "block request that goes well (before 5.18)",
            |events| reads(events / 10),
        ),
        ("block-io", &[], "block request that fails", |events| {
            let disk = LoopDisk::new()?;
            (0..events / 500).try_for_each(|_| disk.read_error().map(drop))
        }),
        ("ext4-error", &[], "ext4 error", |events| {
            let file_system = Ext4::mounted_reporting()?;
            (0..events / 500).try_for_each(|_| file_system.report_error())
        }),
    ];
    let mut costs = Vec::new();
    for (hook, args, event, work) in programs {
        let mut all = vec!["--only-hook", hook];
        all.extend(args);
        let detector = watch(&all).await?;
        let stats = BpfStats::enable()?;
        let before = stats.total(&detector)?;
        tokio::task::spawn_blocking(move || work(events))
            .await
            .context("provoke events")??;
        let after = stats.total(&detector)?;
        let (runs, nanoseconds) = (
            after.runs - before.runs,
            after.nanoseconds - before.nanoseconds,
        );
        ensure!(runs > 0, "the program of {hook} did not run for: {event}");
        costs.push(Cost {
            hook,
            event,
            runs,
            each: Duration::from_nanos(nanoseconds / runs),
        });
    }
    Ok(costs)
}

fn reads(count: u32) -> anyhow::Result<()> {
    const BLOCK: usize = 4096;
    let disk = LoopDisk::new()?;
    let device = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(disk.path())
        .context("open a loop device")?;
    let mut buffer = vec![0; 2 * BLOCK];
    let aligned = buffer.as_ptr().align_offset(BLOCK);
    for block in 0..u64::from(count) {
        let at = block % 1024 * BLOCK as u64;
        device
            .read_at(&mut buffer[aligned..aligned + BLOCK], at)
            .context("read a loop device")?;
    }
    Ok(())
}

/// A detector without a cluster; `--only-hook NAME` disables all others.
async fn watch(args: &[&str]) -> anyhow::Result<Daemon> {
    let mut all: Vec<String> = ["watch", "-o", "json"].map(str::to_owned).into();
    match args {
        ["--only-hook", wanted, rest @ ..] => {
            for hook in hooks().await?.iter().filter(|hook| hook != wanted) {
                all.extend(["--disable-hook".to_owned(), hook.clone()]);
            }
            all.extend(rest.iter().map(|&arg| arg.to_owned()));
        }
        args => all.extend(args.iter().map(|&arg| arg.to_owned())),
    }
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    start(&all).await.map(|(detector, _)| detector)
}

async fn start(args: &[&str]) -> anyhow::Result<(Daemon, Value)> {
    let mut detector = Daemon::start("nodemend-detector", args, &[])?;
    let ready = detector
        .wait_for_log(SOON, |line| line["ready"] == true)
        .await
        .context("wait for the detector")?;
    Ok((detector, ready))
}

/// All that this detector knows, as it names them when it starts.
async fn hooks() -> anyhow::Result<Vec<String>> {
    let (_, ready) = start(&["watch", "-o", "json"]).await?;
    let hooks = ready["hooks"].as_object().context("read the hooks")?;
    Ok(hooks.keys().cloned().collect())
}

/// From the kernel's event to the finding.
async fn oom_kills(count: u32, name: &'static str) -> anyhow::Result<Vec<Duration>> {
    let mut detector = watch(&[]).await?;
    let mut latencies = Vec::new();
    for number in 0..count {
        let container = tokio::task::spawn_blocking(move || -> anyhow::Result<String> {
            let cgroup = PodCgroup::systemd(&format!("00000000-0000-4000-8000-{number:012}"))?;
            cgroup.oom_kill(name)?;
            Ok(cgroup.container_id().to_owned())
        })
        .await
        .context("provoke a fault")??;
        let line = detector
            .wait_for_log(SOON, |line| {
                line["transition"] == "opened" && line["subject"]["containerId"] == container
            })
            .await
            .context("wait for the finding of an OOM kill")?;
        let time = |key: &str| {
            line[key]
                .as_u64()
                .with_context(|| format!("no {key} in {line}"))
        };
        let nanoseconds = time("foundNs")?.saturating_sub(time("faultNs")?);
        latencies.push(Duration::from_nanos(nanoseconds));
    }
    Ok(latencies)
}

/// Threads that do nothing but use the CPUs.
struct Load {
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cpus = thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..4 * cpus {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self { stop }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Crashes of processes of different names, while lines are written as fast as it goes.
async fn burst(lines: u32) -> anyhow::Result<Burst> {
    let mut detector = watch(&[]).await?;
    let before = idle::cpu(&detector)?;
    let started = Instant::now();
    let writer = tokio::task::spawn_blocking(move || -> anyhow::Result<Duration> {
        let started = Instant::now();
        fill_kernel_log(lines as usize, "nodemend measures a burst of lines")?;
        Ok(started.elapsed())
    });
    let crashes = tokio::task::spawn_blocking(|| {
        (0..CRASHES).try_for_each(|number| abort(&format!("burst-{number}")).map(drop))
    });
    let wrote = writer.await.context("write lines")??;
    crashes.await.context("provoke crashes")??;
    let last = format!("burst-{}", CRASHES - 1);
    detector
        .wait_for_log(SOON, |line| line["subject"]["comm"] == last)
        .await
        .context("wait for the last crash")?;
    let cpu = idle::cpu(&detector)?.saturating_sub(before);
    let told: Vec<Value> = detector
        .log_lines()
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let opened = |reason: &str| {
        told.iter()
            .filter(|line| line["transition"] == "opened" && line["reason"] == reason)
            .count()
    };
    Ok(Burst {
        lines,
        wrote,
        took: started.elapsed(),
        cpu,
        crashes: CRASHES,
        told: opened("AppCrash"),
        overrun: opened("SignalsLost") > 0,
    })
}

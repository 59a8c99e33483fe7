//! `nodemend-bench`: how soon the detector says what the kernel saw, and what it costs;
//! `cargo xtask bench` builds and starts it.

mod drops;
mod export;
mod host;
mod idle;
mod kernel;
mod latency;
mod repairer;
mod report;
mod stage;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use nodemend_tests::faults;

use crate::report::Report;
use crate::stage::Stage;

/// Measures the detector on this kernel, against a real control plane on loopback.
///
/// Needs root: it kills processes in memory cgroups, turns file systems on loop devices read-only
/// and drops packets on loopback, and undoes all of it. A busy machine makes the numbers worse.
#[derive(Parser)]
#[command(
    name = "nodemend-bench",
    version,
    args_conflicts_with_subcommands = true
)]
struct Args {
    #[command(subcommand)]
    command: Option<Benchmark>,
    /// OOM kills for fault-to-finding
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=250))]
    faults: u32,
    /// File systems turned read-only for fault-to-condition; each needs a fresh detector, about a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=200))]
    conditions: u32,
    /// Seconds for which the idle detector is watched
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86400))]
    idle_seconds: u64,
    /// Packets dropped in each round for the cost of a kfree_skb event
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    packets: u32,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Subcommand)]
enum Benchmark {
    /// What a fleet of exporters asks of the API server
    Export(export::Args),
    /// What one sweep of all host checks costs beside many pods
    Host(host::Args),
    /// What the programs in the kernel cost, and how soon a fault is a finding
    Kernel(kernel::Args),
    /// Twenty failures at once among a thousand nodes: how soon they are seen, and how they are repaired
    Repairer(repairer::Args),
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Some(Benchmark::Export(args)) => run(async || {
            let report = export::measure(args).await?;
            Ok(match args.output {
                Format::Table => report.table(),
                Format::Json => format!("{}\n", report.json()),
            })
        }),
        Some(Benchmark::Host(args)) => run(async || {
            if let Some(reason) = faults::unavailable() {
                return Err(anyhow!(reason));
            }
            let report = host::measure(args).await?;
            print!(
                "{}",
                match args.output {
                    Format::Table => report.table(),
                    Format::Json => format!("{}\n", report.json()),
                }
            );
            report.ensure_within_limits()?;
            Ok(String::new())
        }),
        Some(Benchmark::Kernel(args)) => run(async || {
            if let Some(reason) = faults::unavailable() {
                return Err(anyhow!(reason));
            }
            let report = kernel::measure(args).await?;
            Ok(match args.output {
                Format::Table => report.table(),
                Format::Json => format!("{}\n", report.json()),
            })
        }),
        Some(Benchmark::Repairer(args)) => run(async || {
            let report = repairer::measure(args).await?;
            print!(
                "{}",
                match args.output {
                    Format::Table => report.table(),
                    Format::Json => format!("{}\n", report.json()),
                }
            );
            report.ensure_within_limits()?;
            Ok(String::new())
        }),
        None => run(async || {
            let report = measure(&args).await?;
            Ok(match args.output {
                Format::Table => report.table(),
                Format::Json => format!("{}\n", report.json()),
            })
        }),
    };
    match result {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(measure: impl AsyncFnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    runtime.block_on(async {
        tokio::select! {
            report = measure() => report,
            interrupted = tokio::signal::ctrl_c() => Err(match interrupted {
                Ok(()) => anyhow!("interrupted"),
                Err(error) => anyhow!(error).context("listen for Ctrl-C"),
            }),
        }
    })
}

async fn measure(args: &Args) -> anyhow::Result<Report> {
    if let Some(reason) = faults::unavailable() {
        return Err(anyhow!(reason));
    }
    eprintln!("starting a control plane");
    let stage = Stage::set().await?;
    eprintln!("{} OOM kills", args.faults);
    let findings = latency::oom_kills(&stage, args.faults).await?;
    eprintln!("{} file systems turned read-only", args.conditions);
    let (conditions_found, conditions) = latency::read_only(&stage, args.conditions).await?;
    eprintln!("{} s of nothing", args.idle_seconds);
    let idle = idle::watch(&stage, Duration::from_secs(args.idle_seconds)).await?;
    eprintln!("rounds of {} dropped packets", args.packets);
    let drops = drops::cost(&stage, args.packets).await?;
    Ok(Report {
        findings,
        conditions_found,
        conditions,
        idle,
        drops,
    })
}

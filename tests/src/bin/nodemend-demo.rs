//! `nodemend-demo`: the whole story on this machine, live; `cargo xtask demo` builds and starts it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use nodemend_tests::story::{self, Options, Screen};
use tokio::signal::unix::{SignalKind, signal};

/// From a kernel fault to a replaced node, on real parts: this kernel, a Kubernetes control plane
/// and a local AWS endpoint on loopback, both nodemend daemons under the RBAC that they ship with.
///
/// Needs root: real faults are provoked on loop devices, in a memory cgroup and on loopback, and
/// undone, also after Ctrl-C. Exit codes: 0 every step happened, 1 one did not (the reason is on
/// standard error), 2 wrong usage.
#[derive(Parser)]
#[command(name = "nodemend-demo", version)]
struct Args {
    /// Use the cluster of this kubeconfig instead of starting one. Its API server must be on
    /// loopback (kind, minikube), and nodemend not installed there; Nodes, a Deployment and
    /// nodemend's manifests are created and removed again
    #[arg(long, env = "NODEMEND_DEMO_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Seconds for which the policy stays disabled while the fault is there
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    disabled_seconds: u64,
    /// Then let another node lose a GPU, as a scripted libnvidia-ml tells it; no GPU is needed
    #[arg(long)]
    gpu: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let options = Options {
        kubeconfig: args.kubeconfig,
        disabled_for: Duration::from_secs(args.disabled_seconds),
        gpu: args.gpu,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start tokio")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let interrupted = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        story::tell(&options, &Screen::standard_output(), interrupted).await
    })
}

//! The detector: `run` is the picture of its data flow.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{HeaderValue, USER_AGENT};
use anyhow::{Context, bail};
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::args::{CleanupArgs, Cli, Command, RunArgs};
use crate::boots::note;
use crate::core::Core;
use crate::export::{Exporter, Options};
use crate::host::Host;
use crate::metrics::{Metrics, counted};
use crate::probe::Prober;
use crate::reader::{Mailbox, Memory, Message};
use crate::reload::ConfigFile;
use crate::state::file::StateFile;

mod args;
mod aside;
mod boots;
mod capabilities;
mod check;
mod cleanup;
mod clock;
mod config;
mod core;
mod dbus;
mod export;
mod finding;
#[doc(hidden)]
pub mod fleet;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod grpc;
mod host;
mod host_log;
mod http;
mod judgement;
mod kubernetes;
mod logging;
mod logs;
mod metrics;
mod mounts;
mod probe;
mod reader;
mod reason;
mod reasons;
mod reload;
mod replay;
mod rules;
mod signal;
mod source;
mod state;
mod text;
mod urgency;
mod watch;
mod workload;

const SUCCESS: u8 = 0;

/// The file that was asked about is not valid.
const REFUSED: u8 = 1;

/// Nothing can be watched, or no API server can be spoken to, whatever one waits for.
const CANNOT_RUN_HERE: u8 = 3;

/// For the disk to take note of the stop.
const DISK_PATIENCE: Duration = Duration::from_millis(500);

/// For what is known but not yet written when a signal comes.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// Does what the command line says; returns the exit code.
pub fn main() -> anyhow::Result<u8> {
    match Cli::parse().command {
        Command::Run(args) => {
            logging::start(args.log_format);
            run(args)
        }
        Command::Watch { sources, output } => watch::watch(&sources, output).map(|()| SUCCESS),
        Command::Check {
            sources,
            kubeconfig,
            output,
        } => {
            logging::start(output);
            if let Some(file) = &sources.config {
                let valid = check::config(file, output)?;
                return Ok(if valid { SUCCESS } else { REFUSED });
            }
            let kubernetes = runtime()?.block_on(kubernetes::asked(kubeconfig.as_deref()));
            let usable = check::check(&sources, kubernetes, output);
            Ok(if usable { SUCCESS } else { CANNOT_RUN_HERE })
        }
        Command::Cleanup(args) => {
            logging::start(args.log_format);
            clean_up(&args).map(|()| SUCCESS)
        }
        Command::Replay(args) => {
            logging::start(args.output);
            replay::replay(&args).map(|()| SUCCESS)
        }
        Command::Aside { aside } => aside::run(aside).map(|()| SUCCESS),
        Command::Reasons { output } => {
            print!("{}", reasons::reasons(output));
            Ok(SUCCESS)
        }
    }
}

/// Sources ─► reader thread (core) ─► exporter, until a signal or the first of them to end.
fn run(args: RunArgs) -> anyhow::Result<u8> {
    let (file, mut config) = ConfigFile::open(&args.sources).context("use the configuration")?;
    capabilities::give_up(&args.sources.host_sys);
    let host = Host::open(&args.sources, &config);
    host.log();
    // After the load, whose memory is not needed any more.
    urgency::memory().log();
    urgency::oom_score().log();
    let logs = host.logs();
    // In the log, where there is none.
    drop(logs.feed(&mut config));
    if host.watches_nothing(&config) {
        tracing::error!("nothing can be watched on this host; `nodemend-detector check` says why");
        return Ok(CANNOT_RUN_HERE);
    }
    let config = Arc::new(config);
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let cluster = match cluster(args.kubeconfig.as_deref()).await {
            Ok(cluster) => cluster,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "no API server to report to");
                return Ok(CANNOT_RUN_HERE);
            }
        };
        let metrics = Arc::new(Metrics::default());
        metrics.host(&host);
        let state_file = StateFile::new(args.state_dir.clone());
        let boot_id = clock::boot_id()?;
        let left = state_file.load(&boot_id);
        let exporter = Exporter::new(
            cluster,
            options(&args, &config, &boot_id),
            Arc::clone(&metrics),
            Some(state_file),
            left.untold(&config.settings),
        )?;
        let (sender, outputs) = mpsc::unbounded_channel();
        let core = Core::new(host.monitored());
        let prober = Prober::new(
            args.sources.host_proc.clone(),
            args.sources.critical_mounts.clone(),
        );
        let memory = Memory {
            boot_id: boot_id.clone(),
            left,
        };
        let output = move |output| {
            // When the exporter is gone the process is on its way out.
            drop(sender.send(output));
        };
        let (mailbox, thread) = reader::start(
            counted::all(host.sources, &metrics),
            core,
            prober,
            Arc::clone(&config),
            memory,
            output,
        )?;
        let changes = mailbox.clone();
        file.watch(&config, logs, move |message| changes.send(message))?;
        note_boot(&args, boot_id, mailbox.clone())?;
        if let Some(address) = args.http_address.0 {
            tokio::spawn(http::serve(address, metrics, mailbox.clone()));
        }
        let exporting = exporter.run(
            outputs,
            |existing| mailbox.send(Message::Existing(existing)),
            |says| mailbox.send(Message::Node(says)),
        );
        let mut exporting = pin!(exporting);
        tokio::select! {
            // The outputs end when the reader does.
            () = &mut exporting => {}
            signal = stop_signal() => {
                info!(signal = signal?, "stopping");
                mailbox.send(Message::Stop);
                note::stop_aside(&args.boots_dir, DISK_PATIENCE);
                // The conditions stay as they are: an upgrade makes no flap.
                if timeout(LAST_WRITES, exporting).await.is_err() {
                    warn!("stopped before the API server had taken everything");
                }
            }
        }
        match thread.join() {
            Ok(result) => result?,
            Err(_) => bail!("the reader thread panicked"),
        }
        Ok(SUCCESS)
    });
    // Threads that hang in the kernel must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// Tells the reader if nobody had asked for this boot.
fn note_boot(args: &RunArgs, boot_id: String, mailbox: Mailbox) -> anyhow::Result<()> {
    let dumps = [
        args.sources.host_sys.join("fs/pstore"),
        // Where systemd-pstore moves them.
        args.sources.host_proc.join("1/root/var/lib/systemd/pstore"),
    ];
    note::start_aside(args.boots_dir.clone(), boot_id, dumps, move |found| {
        mailbox.send(Message::Signal(found.signal()));
    })
}

fn clean_up(args: &CleanupArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let cluster = cluster(args.kubeconfig.as_deref()).await?;
        let client = Client::try_from(cluster).context("make a Kubernetes client")?;
        cleanup::cleanup(client, &args.namespace).await
    })
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")
}

async fn stop_signal() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

async fn cluster(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("use the kubeconfig {}", path.display()))?
        }
        None => Config::incluster()
            .context("read the pod's service account (outside of a pod, give --kubeconfig)")?,
    };
    // kube's own would sleep inside a request's deadline, where nobody sees it; the exporter backs
    // off by itself.
    config.default_retry = false;
    // For whoever reads the API server's audit log.
    let agent = concat!("nodemend-detector/", env!("CARGO_PKG_VERSION"));
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(agent)));
    Ok(config)
}

fn options(args: &RunArgs, config: &config::Config, boot_id: &str) -> Options {
    Options {
        boot_id: boot_id.to_owned(),
        coexistence: config.at_start.coexistence.unwrap_or(args.coexistence),
        node: args.node_name.clone(),
        pod_logs: args.pod_logs_dir.clone(),
        intervals: export::schedule::Intervals {
            heartbeat: args.heartbeat.0,
            fatal_heartbeat: args.fatal_heartbeat.0,
            text: Duration::from_secs(60),
        },
        status_burst: args.status_burst,
    }
}

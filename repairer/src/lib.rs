//! The repairer: `run` is the picture of its data flow.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use ::http::header::{HeaderValue, USER_AGENT};
use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::args::{
    CheckArgs, CleanupArgs, Cli, Command, ExplainArgs, ImportArgs, Output, RunArgs, SimulateArgs,
};
use crate::aws::{Aws, Managed};
use crate::cluster::{Cluster, InstanceView};
use crate::controller::{Controller, Rules};
use crate::episode::Episodes;
use crate::lease::Lease;
use crate::metrics::{CountCalls, Metrics};
use crate::store::Stores;
use crate::tell::Teller;

pub mod act;
pub mod api;
pub mod args;
pub mod aws;
pub mod capacity;
pub mod check;
pub mod claim;
pub mod cleanup;
mod clock;
pub mod cluster;
pub mod controller;
pub mod decide;
pub mod drain;
pub mod episode;
pub mod evidence;
pub mod explain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod http;
pub mod import;
mod kubelet;
pub mod lease;
mod logging;
pub mod look;
pub mod metrics;
pub mod owner;
pub mod reasons;
pub mod rule;
pub mod show;
pub mod simulate;
pub mod step;
pub mod store;
pub mod survey;
pub mod tell;
pub mod unjoined;
pub mod window;

/// The file cannot be meant.
const WRONG_USAGE: u8 = 2;
/// No API server or no AWS can be spoken to, whatever one waits for.
const CANNOT_RUN_HERE: u8 = 3;

pub fn main(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(args) => {
            logging::start(args.log_format);
            runtime()?.block_on(run(args))
        }
        Command::Cleanup(args) => {
            logging::start(args.log_format);
            runtime()?
                .block_on(clean_up(&args))
                .map(|()| ExitCode::SUCCESS)
        }
        Command::Explain(args) => runtime()?.block_on(explained(&args)),
        Command::Check(args) => runtime()?.block_on(checked(&args)),
        Command::Simulate(args) => simulated(&args),
        Command::Import(args) => runtime()?.block_on(imported(args)),
        Command::Crds => {
            print!("{}", api::crds()?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn explained(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let client = match client(args.kubeconfig.as_deref()).await {
        Ok(client) => client,
        Err(error) => return Ok(cannot_run_here(&error)),
    };
    let mut cluster = match store::list(&client).await {
        Ok(cluster) => cluster,
        Err(error) => return Ok(cannot_run_here(&error)),
    };
    cluster.limits = args.limits.limits();
    let Some(node) = cluster.nodes.get(&args.node).cloned() else {
        eprintln!("there is no Node {}", args.node);
        return Ok(ExitCode::FAILURE);
    };
    kubelet::look_once(&client, &mut cluster).await;
    match described(&cluster).await {
        Ok(instances) => cluster.instances = instances,
        Err(error) => eprintln!("AWS was not asked, so groups are not known: {error:#}"),
    }
    let now = clock::now();
    let mut episodes = Episodes::default();
    episodes.observe(&cluster, now);
    let shown = show::node(&cluster, &episodes, &node, now);
    print(&match args.output {
        Output::Text => shown.text(),
        Output::Json => serde_json::to_string_pretty(&shown)? + "\n",
    })?;
    Ok(exit_code(shown.is_well()))
}

async fn checked(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let checked = match &args.policy {
        Some(path) => check::file(&read(path)?),
        None => {
            let client = match client(args.kubeconfig.as_deref()).await {
                Ok(client) => client,
                Err(error) => return Ok(cannot_run_here(&error)),
            };
            let mut cluster = match store::list(&client).await {
                Ok(cluster) => cluster,
                Err(error) => return Ok(cannot_run_here(&error)),
            };
            let mut checked = check::cluster(&cluster);
            check::add_kubernetes(&client, &mut checked).await?;
            check::rights(&client, &mut checked).await?;
            check::add_neighbours(&client, &cluster, &mut checked).await;
            match described(&cluster).await {
                Ok(instances) => {
                    let message = format!("describes {} instances", instances.len());
                    checked.add("AWS", check::Word::Good, message);
                    cluster.instances = instances;
                    node_groups(&cluster, &mut checked).await?;
                }
                Err(error) => checked.add("AWS", check::Word::Error, format!("{error:#}")),
            }
            checked
        }
    };
    print(&match args.output {
        Output::Text => checked.text(),
        Output::Json => serde_json::to_string_pretty(&checked)? + "\n",
    })?;
    Ok(exit_code(checked.is_good()))
}

async fn imported(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let managed = Managed {
        cluster: args.eks_cluster,
        name: args.node_group,
    };
    let asked = async {
        Aws::connect(uncounted(), None)
            .await?
            .describe_node_group(&managed)
            .await
    };
    let node_group = match asked.await {
        Ok(node_group) => node_group,
        Err(error) => return Ok(cannot_run_here(&error)),
    };
    let config = node_group
        .node_repair_config
        .unwrap_or_else(|| aws_sdk_eks::types::NodeRepairConfig::builder().build());
    let policy = import::policy(&managed.name, &config)?;
    print(&serde_saphyr::to_string(&policy)?)?;
    Ok(ExitCode::SUCCESS)
}

/// What AWS says of all instances of a cluster.
async fn described(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, InstanceView>> {
    let instances = cluster
        .nodes
        .values()
        .filter_map(|node| node.instance().ok());
    let ids = instances.map(|id| id.to_string()).collect();
    let aws = Aws::connect(uncounted(), cluster.region()).await?;
    aws.describe(&ids).await
}

/// Nobody reads the metrics of a command that ends.
fn uncounted() -> CountCalls {
    CountCalls(Arc::default())
}

/// Who else repairs the nodes: EKS, by managed node groups.
async fn node_groups(cluster: &Cluster, checked: &mut check::Checked) -> anyhow::Result<()> {
    let aws = Aws::connect(uncounted(), cluster.region()).await?;
    for managed in survey::node_groups(cluster) {
        match aws.describe_node_group(&managed).await {
            Ok(found) => checked.add_node_group(&managed.name, &found),
            Err(error) => {
                let what = format!("node group {}", managed.name);
                checked.add(&what, check::Word::Error, format!("{error:#}"));
            }
        }
    }
    Ok(())
}

fn cannot_run_here(error: &anyhow::Error) -> ExitCode {
    eprintln!("cannot run here: {error:#}");
    ExitCode::from(CANNOT_RUN_HERE)
}

fn exit_code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn simulated(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let text = read(&args.file)?;
    let report = match simulate::simulate(&text) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("{}: {error:#}", args.file.display());
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    print(&match args.output {
        Output::Text => report.text(),
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
    })?;
    Ok(exit_code(report.is_as_expected()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        return std::io::read_to_string(std::io::stdin()).context("read standard input");
    }
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// A reader who has seen enough is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write to standard output"),
    }
}

/// Lease ─► watches ─► controller, until a signal, or the lease or the controller ends.
async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let metrics = Arc::new(Metrics::default());
    let count = CountCalls(Arc::clone(&metrics));
    let (client, aws) = match connect(&args, count).await {
        Ok(connected) => connected,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot run here");
            return Ok(ExitCode::from(CANNOT_RUN_HERE));
        }
    };
    if let Some(address) = args.http_address.0 {
        tokio::spawn(http::serve(address, Arc::clone(&metrics)));
    }
    let identity = args.identity.clone().unwrap_or_else(made_up_identity);
    let teller = Teller::start(&client, identity.clone(), Arc::clone(&metrics));
    let (mut lease, leadership) = Lease::new(client.clone(), &args.lease_namespace, identity);
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let (step_down, mut told_to_step_down) = watch::channel(None);
    let own_pod = args.identity.as_ref();
    let own_pod = own_pod.map(|name| format!("{}/{name}", args.lease_namespace));
    let lead = async {
        lease.acquire().await;
        metrics.leads();
        let stores = Stores::watch(&client);
        let rules = Rules {
            limits: args.limits.limits(),
            retention: args.retention.retention(),
            eks_cluster: args.eks_cluster.clone(),
            own_pod,
        };
        let controller = Controller::new(
            client.clone(),
            aws,
            stores,
            leadership,
            step_down,
            teller,
            rules,
        );
        tokio::select! {
            lost = lease.keep() => Err(lost),
            ended = controller.run() => ended,
        }
    };
    tokio::select! {
        // Without the lease another replica acts: this one must not, and starts over.
        ended = lead => return ended.map(|()| ExitCode::SUCCESS),
        _ = terminate.recv() => info!(signal = "SIGTERM", "stopping"),
        _ = interrupt.recv() => info!(signal = "SIGINT", "stopping"),
        told = told_to_step_down.changed() => told.context("wait to step down")?,
    }
    lease
        .release()
        .await
        .context("let go of the lease; another replica begins when it has expired")?;
    let own_pod = told_to_step_down.borrow().clone();
    if let Some(pod) = own_pod {
        // Whoever leads now evicts it as any other, if this is refused.
        let answer = act::evict(&client, &pod).await?;
        info!(
            pod = pod.label(),
            ?answer,
            "stopping, and evicted from the node in repair"
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn clean_up(args: &CleanupArgs) -> anyhow::Result<()> {
    let client = client(args.kubeconfig.as_deref()).await?;
    cleanup::cleanup(&client, &args.namespace).await
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start tokio")
}

async fn connect(args: &RunArgs, count: CountCalls) -> anyhow::Result<(Client, Aws)> {
    let client = client(args.kubeconfig.as_deref()).await?;
    let region = store::region(&client).await;
    Ok((client, Aws::connect(count, region).await?))
}

async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
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
    // An eviction that a budget refuses is answered with 429: that is a decision, not a failure to
    // be slept on and sent again. What does fail is decided again.
    config.default_retry = false;
    // For whoever reads the API server's audit log.
    let agent = concat!("nodemend-repairer/", env!("CARGO_PKG_VERSION"));
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(agent)));
    Client::try_from(config).context("make a Kubernetes client")
}

/// Unlike that of any other process.
fn made_up_identity() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("repairer-{}-{random:016x}", std::process::id())
}

//! The repairer among many nodes: kwok plays their kubelets, the control plane is real, and so is the
//! repairer, under the RBAC that it ships with. Many nodes fail at once.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nodemend_tests::api_proxy::ApiProxy;
use nodemend_tests::cloud::Cloud;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::fleet::{Fleet, World};
use nodemend_tests::{page, repo};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::report::{Passes, Report};
use crate::{Format, idle};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes, whose kubelets kwok plays
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=5000))]
    nodes: u32,
    /// Nodes that fail at once; each is to be replaced
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    failures: u32,
    /// Repairs that the policy allows at a time
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10))]
    parallel: u32,
    /// Seconds for which the repairer is watched before anything fails
    #[arg(long, default_value_t = 30)]
    peace: u64,
    /// In the end there are so many Nodes, each as large as one of a real cluster: what they cost in memory
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(10..=10000))]
    known: u32,
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

const ZONES: [&str; 3] = ["us-west-2a", "us-west-2b", "us-west-2c"];
const AT_ONCE: usize = 32;
const FLAPPING: u32 = 1000;
/// A Lease is renewed every 10 s, as by a kubelet.
const LEASE: Duration = Duration::from_secs(40);
const GRACE: Duration = Duration::from_secs(50);
const READY_WITHIN: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn measure(args: &Args) -> anyhow::Result<Report> {
    eprintln!("starting a control plane");
    let control_plane = ControlPlane::start_with_grace(GRACE).await?;
    for manifests in ["deploy/crds", "deploy/rbac/repairer.yaml"] {
        control_plane.apply(&repo().join(manifests)).await?;
    }
    let cloud = Cloud::start().await?;
    let fleet = Fleet::start_with_leases(&control_plane, LEASE).await?;
    eprintln!("creating {} nodes", args.nodes);
    let names = create_nodes(&fleet, &cloud, args.nodes).await?;
    fleet.wait_ready_within(names.len(), READY_WITHIN).await?;
    let client = control_plane.admin();
    let _world = World::run(client.clone(), cloud.clone(), fleet.clone());
    create_policy(&client, args.parallel).await?;
    let proxy = ApiProxy::start(&control_plane).await?;
    let account = control_plane
        .kubeconfig_for_service_account("nodemend-system", "nodemend-repairer")
        .await?;
    let kubeconfig = proxy.kubeconfig(&control_plane, &account)?;
    let mut repairer = start(&kubeconfig.to_string_lossy(), &cloud)?;
    let serving = |line: &Value| line["message"] == "serving /metrics and /healthz";
    let serving = repairer
        .wait_for_log(Duration::from_secs(60), serving)
        .await?;
    let address = serving["address"].as_str().context("read the address")?;
    let address = address.to_owned();
    let watching = |line: &Value| line["message"] == "watching the nodes";
    repairer
        .wait_for_log(Duration::from_secs(60), watching)
        .await?;

    eprintln!("{} s of peace", args.peace);
    sleep(Duration::from_secs(5)).await;
    let peace = Usage::begin(&repairer, &proxy)?;
    sleep(Duration::from_secs(args.peace)).await;
    let peace = peace.end(&repairer, &proxy)?;

    let count = usize::try_from(args.failures).context("count the failures")?;
    eprintln!("{count} failures at once");
    let failing = Usage::begin(&repairer, &proxy)?;
    let sick: BTreeSet<_> = names
        .iter()
        .step_by(names.len() / count)
        .take(count)
        .cloned()
        .collect();
    let began = Instant::now();
    let written = break_all(&client, &sick).await?;
    let confirming = Confirming::start(&client, &sick);
    let course = Course::follow(&client, &sick, began).await?;
    drop(confirming);
    let failing = failing.end(&repairer, &proxy)?;
    let terminated = cloud.mutating_calls().len();
    ensure!(
        terminated == count,
        "{terminated} calls for {count} failures"
    );
    ensure!(
        course.most_at_once <= usize::try_from(args.parallel).unwrap_or_default(),
        "{} repairs were under way, {} are allowed",
        course.most_at_once,
        args.parallel
    );
    let lags = course.lags(&written)?;
    let writes = writes(&proxy);

    eprintln!("{} Nodes are known", args.known);
    let nodes_rss = rss(&repairer)?;
    know_more(&client, args.known.saturating_sub(args.nodes)).await?;
    eprintln!("{FLAPPING} of them flap");
    flap(&client, args.known.saturating_sub(args.nodes).min(FLAPPING)).await?;
    sleep(Duration::from_secs(10)).await;
    let (_, metrics) = page::get(&address, "/metrics").await?;
    // Of the first thread, which decides.
    let schedstat = std::fs::read_to_string(format!("/proc/{}/schedstat", repairer.pid()))
        .context("read what the repairer computed")?;
    Ok(Report {
        nodes: args.nodes,
        failures: args.failures,
        parallel: args.parallel,
        peace,
        failing,
        lags,
        most_at_once: course.most_at_once,
        all_replaced: course.took,
        writes,
        nodes_rss,
        known: args.known,
        known_rss: rss(&repairer)?,
        passes: Passes::read(&metrics, &schedstat)?,
    })
}

fn start(kubeconfig: &str, cloud: &Cloud) -> anyhow::Result<Daemon> {
    let args = ["run", "--kubeconfig", kubeconfig, "--log-format", "json"];
    let more = ["--identity", "bench", "--max-repairs-per-hour", "1000"];
    let pages = ["--http-address", "127.0.0.1:0"];
    let args: Vec<_> = args.into_iter().chain(more).chain(pages).collect();
    Daemon::start("nodemend-repairer", &args, &cloud.sdk_environment())
}

async fn create_nodes(fleet: &Fleet, cloud: &Cloud, count: u32) -> anyhow::Result<Vec<String>> {
    let zones: Vec<_> = (0..count as usize)
        .map(|index| ZONES[index % ZONES.len()])
        .collect();
    let instances = cloud.create_group("workers", &zones);
    let all = instances.iter().zip(zones).enumerate();
    let created = all.map(async |(index, (instance, zone))| {
        let name = format!("node-{index:04}");
        fleet.create_node(&name, instance, zone).await?;
        anyhow::Ok(name)
    });
    let mut names: Vec<_> = stream::iter(created)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    names.sort();
    Ok(names)
}

fn custom(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "nodemend.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "nodemend.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::all_with(client.clone(), &resource)
}

/// The default limits, with short waits and more places.
async fn create_policy(client: &Client, parallel: u32) -> anyhow::Result<()> {
    let policy = json!({
        "apiVersion": "nodemend.dev/v1alpha1",
        "kind": "RepairPolicy",
        "metadata": {"name": "workers"},
        "spec": {
            "mode": "Enforce",
            "selector": {"matchLabels": {}},
            "cordon": {"after": "1s"},
            "parallel": {"count": parallel},
            "repairBudget": {"count": 1000, "window": "1h"},
            "verify": {"replaceDeadline": "5m", "soak": "2s"},
            "rules": [{
                "nodeMonitoringCondition": "StorageReady",
                "minRepairWaitTime": "10s",
                "repairActions": ["Replace"],
            }],
        },
    });
    let policy = serde_json::from_value(policy).context("write a RepairPolicy")?;
    custom(client, "RepairPolicy", "repairpolicies")
        .create(&PostParams::default(), &policy)
        .await
        .context("create the RepairPolicy")?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a condition carries the time of its writing, and the lag is from there"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

async fn break_node(nodes: &Api<Node>, name: &str) -> anyhow::Result<Timestamp> {
    write(nodes, name, "False").await
}

async fn write(nodes: &Api<Node>, name: &str, status: &str) -> anyhow::Result<Timestamp> {
    let written = now();
    let second = written.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": "StorageReady",
        "status": status,
        "reason": "FilesystemReadOnly",
        "message": "written by the benchmark",
        "lastHeartbeatTime": second,
        "lastTransitionTime": second,
    });
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let patched = nodes
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    patched.with_context(|| format!("write StorageReady of {name}"))?;
    Ok(written)
}

/// When each was written.
async fn break_all(
    client: &Client,
    sick: &BTreeSet<String>,
) -> anyhow::Result<BTreeMap<String, Timestamp>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let broken = sick
        .iter()
        .map(async |name| anyhow::Ok((name.clone(), break_node(&nodes, name).await?)));
    stream::iter(broken)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// The agents of the sick nodes, as long as this lives.
struct Confirming(JoinHandle<()>);

impl Confirming {
    fn start(client: &Client, sick: &BTreeSet<String>) -> Self {
        let (nodes, sick) = (Api::<Node>::all(client.clone()), sick.clone());
        Self(tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(2)).await;
                for name in &sick {
                    // It goes away in the course of its repair.
                    let _written = break_node(&nodes, name).await;
                }
            }
        }))
    }
}

impl Drop for Confirming {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What was seen of the repairs until all had succeeded.
struct Course {
    took: Duration,
    most_at_once: usize,
    /// When each fault was first seen, by the repairer.
    seen: BTreeMap<String, Timestamp>,
}

impl Course {
    async fn follow(
        client: &Client,
        sick: &BTreeSet<String>,
        began: Instant,
    ) -> anyhow::Result<Self> {
        let repairs = custom(client, "NodeRepair", "noderepairs");
        let (mut most_at_once, mut seen) = (0, BTreeMap::new());
        loop {
            let listed = repairs
                .list(&ListParams::default())
                .await
                .context("list NodeRepairs")?;
            let (mut under_way, mut succeeded) = (0, 0);
            for repair in &listed.items {
                let (spec, status) = (&repair.data["spec"], &repair.data["status"]);
                let node = spec["nodeRef"]["name"].as_str().unwrap_or_default();
                ensure!(sick.contains(node), "{node} is in repair");
                if let Some(first) = status["reasons"][0]["seen"].as_str() {
                    let first = first.parse().context("read a time")?;
                    seen.entry(node.to_owned()).or_insert(first);
                }
                match status["phase"].as_str() {
                    Some("Draining" | "Replacing" | "Verifying") => under_way += 1,
                    Some("Finished") => {
                        ensure!(status["outcome"] == "Succeeded", "{status}");
                        succeeded += 1;
                    }
                    Some(_) | None => {}
                }
            }
            most_at_once = most_at_once.max(under_way);
            if succeeded == sick.len() {
                return Ok(Self {
                    took: began.elapsed(),
                    most_at_once,
                    seen,
                });
            }
            ensure!(
                began.elapsed() < READY_WITHIN,
                "{succeeded} of {} have succeeded",
                sick.len()
            );
            sleep(LOOK).await;
        }
    }

    /// From the write of each fault to its first sight.
    fn lags(&self, written: &BTreeMap<String, Timestamp>) -> anyhow::Result<Vec<Duration>> {
        let lag = |(node, written): (&String, &Timestamp)| {
            let seen = self
                .seen
                .get(node)
                .with_context(|| format!("{node} was not seen"))?;
            Ok(seen.duration_since(*written).unsigned_abs())
        };
        written.iter().map(lag).collect()
    }
}

/// What the repairer asked for and used in a while.
pub(crate) struct Usage {
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
    pub(crate) requests: u64,
}

struct Begun {
    at: Instant,
    cpu: Duration,
    requests: u64,
}

impl Usage {
    fn begin(repairer: &Daemon, proxy: &ApiProxy) -> anyhow::Result<Begun> {
        Ok(Begun {
            at: Instant::now(),
            cpu: idle::cpu(repairer)?,
            requests: proxy.requests(),
        })
    }
}

impl Begun {
    fn end(self, repairer: &Daemon, proxy: &ApiProxy) -> anyhow::Result<Usage> {
        Ok(Usage {
            took: self.at.elapsed(),
            cpu: idle::cpu(repairer)?.saturating_sub(self.cpu),
            requests: proxy.requests() - self.requests,
        })
    }
}

/// How often each kind of object was written.
fn writes(proxy: &ApiProxy) -> BTreeMap<String, usize> {
    let mut writes = BTreeMap::new();
    for name in proxy.points().names() {
        let kind = name.split(" phase=").next().unwrap_or(&name).to_owned();
        *writes.entry(kind).or_default() += 1;
    }
    writes
}

fn rss(repairer: &Daemon) -> anyhow::Result<u64> {
    idle::status(repairer, "VmRSS:")
}

/// Of those that are known: sick, well and sick again.
async fn flap(client: &Client, count: u32) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for status in ["False", "True", "False"] {
        let written = (0..count).map(async |index| {
            write(&nodes, &format!("known-{index:05}"), status).await?;
            anyhow::Ok(())
        });
        stream::iter(written)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        sleep(Duration::from_secs(3)).await;
    }
    Ok(())
}

/// Nodes that nobody keeps alive, with the images and labels that real ones carry.
async fn know_more(client: &Client, count: u32) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let images: Vec<_> = (0..50)
        .map(|index| {
            let name = format!("registry.example.test/team/service-{index}");
            json!({"names": [format!("{name}@sha256:{}", "0".repeat(64)), format!("{name}:v1")], "sizeBytes": 100_000_000})
        })
        .collect();
    let labels: BTreeMap<_, _> = (0..25)
        .map(|index| {
            (
                format!("example.test/label-{index}"),
                format!("value-{index}"),
            )
        })
        .collect();
    let created = (0..count).map(async |index| {
        let name = format!("known-{index:05}");
        let instance = format!("i-{:017x}", 0xffff_0000_u64 + u64::from(index));
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"providerID": format!("aws:///us-west-2a/{instance}")},
            "status": {"images": images, "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"}},
        });
        let node = serde_json::from_value(node).context("write a Node")?;
        nodes
            .create(&PostParams::default(), &node)
            .await
            .context("create a Node")?;
        anyhow::Ok(())
    });
    stream::iter(created)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

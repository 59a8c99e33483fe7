//! The chart's detector as it runs on a node: the pod that the DaemonSet controller made of the
//! installed chart, in a container of our image, under the token of that very pod. A fault of this
//! host becomes a condition of the pod's Node. With no kubelet (`real_node.rs` has one), so that
//! both profiles are tried where none can run.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::faults::LoopDisk;
use nodemend_tests::fleet::Fleet;
use nodemend_tests::terminal::Terminal;
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use crate::chart::CHART;
use crate::container::Container;
use crate::profiles::HARDENED;
use crate::scene;

const NAMESPACE: &str = "nodemend-system";
const NODES: [&str; 2] = ["node-0", "node-1"];
const SOON: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(10);

pub(crate) async fn reports() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let client = control_plane.admin();
    let fleet = Fleet::start(&control_plane).await?;
    let linux = scene::labels();
    for (index, name) in NODES.iter().enumerate() {
        let instance = format!("i-{index:017x}");
        fleet
            .create_labelled_node(name, &instance, "us-west-2a", &linux)
            .await?;
    }
    fleet.wait_ready(NODES.len()).await?;
    let terminal = Terminal::of(&control_plane)?;
    let profiles = [
        ("install --create-namespace", "", "9m"),
        ("upgrade --reuse-values", HARDENED, "8m"),
    ];
    for (node, (step, profile, heartbeat)) in NODES.into_iter().zip(profiles) {
        let disk = LoopDisk::new()?;
        let device = disk.name();
        // What is Fatal by default wants evidence from the root of process 1, which a host may refuse to its guests.
        let line = format!(
            "helm {step} nodemend {CHART} --namespace {NAMESPACE} --wait {profile} \
             --set detector.config.devices.include={{{device}}} \
             --set detector.config.reasons.BlockDeviceIOError.severity=Fatal \
             --set detector.heartbeat={heartbeat} --set detector.httpAddress="
        );
        terminal.run(&line).await?;
        let pod = pod_on(&client, node, heartbeat).await?;
        let (container, mut detector) = start(&control_plane, &pod).await?;
        status(&detector, &client, node, "True").await?;
        has_given_up_what_it_does_not_need(container.pid()?)?;
        disk.read_error()?;
        let condition = status(&detector, &client, node, "False").await?;
        ensure!(
            condition["reason"] == "BlockDeviceIOError"
                && condition["message"]
                    .as_str()
                    .is_some_and(|message| message.contains(device)),
            "{condition}"
        );
        let ended = detector.terminate(GRACE)?;
        ensure!(ended.success(), "after SIGTERM it ended with {ended}");
        drop(container);
    }
    Ok(())
}

/// Every thread of it, and for whatever it may start.
fn has_given_up_what_it_does_not_need(pid: u64) -> anyhow::Result<()> {
    // CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_MKNOD (capability.h); CAP_BPF stays.
    const GONE: u64 = 1 << 16 | 1 << 17 | 1 << 22 | 1 << 27;
    const STAYS: u64 = 1 << 39;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("list threads")?;
    let mut seen = 0;
    for task in tasks {
        let path = task.context("list threads")?.path().join("status");
        let status =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for name in ["CapEff:", "CapPrm:", "CapBnd:"] {
            let set = status.lines().find_map(|line| line.strip_prefix(name));
            let set = u64::from_str_radix(set.context("no capabilities")?.trim(), 16)?;
            ensure!(
                set & GONE == 0 && set & STAYS != 0,
                "{name} {set:x} in {}",
                path.display()
            );
        }
        seen += 1;
    }
    ensure!(seen > 3, "{seen} threads");
    Ok(())
}

/// The one that has the values of this step.
async fn pod_on(client: &Client, node: &str, heartbeat: &str) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let detectors = ListParams::default()
        .labels("app.kubernetes.io/component=detector")
        .fields(&format!("spec.nodeName={node}"));
    until(SOON, "the pod of the DaemonSet", async || {
        let found = pods.list(&detectors).await?.items;
        Ok(found.into_iter().find(|pod| {
            let environment = pod
                .spec
                .iter()
                .flat_map(|spec| spec.containers[0].env.iter().flatten());
            let mut values = environment.filter_map(|variable| variable.value.as_deref());
            pod.metadata.deletion_timestamp.is_none() && values.any(|value| value == heartbeat)
        }))
    })
    .await
}

async fn start(control_plane: &ControlPlane, pod: &Pod) -> anyhow::Result<(Container, Daemon)> {
    let spec = serde_json::to_value(&pod.spec).context("write a pod's spec")?;
    let container = Container::new(&spec).await?;
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.admin(), NAMESPACE);
    for (name, text) in maps
        .get("nodemend-detector")
        .await?
        .data
        .into_iter()
        .flatten()
    {
        fs::write(container.volume("config").join(name), text).context("write a ConfigMap")?;
    }
    let kubeconfig = control_plane.kubeconfig_of_pod(pod).await?;
    let text = fs::read(&kubeconfig).context("read a kubeconfig")?;
    let config: Value = serde_json::from_slice(&text).context("parse a kubeconfig")?;
    // What a kubelet puts there.
    let secrets = container.path().join("serviceaccount");
    fs::create_dir(&secrets).context("make a folder")?;
    let token = config["users"][0]["user"]["token"]
        .as_str()
        .context("a token")?;
    fs::write(secrets.join("token"), token).context("write the token")?;
    fs::write(secrets.join("namespace"), NAMESPACE).context("write the namespace")?;
    let authority = config["clusters"][0]["cluster"]["certificate-authority"].as_str();
    fs::copy(
        authority.context("a certificate authority")?,
        secrets.join("ca.crt"),
    )
    .context("copy the certificate authority")?;
    let server = control_plane
        .server_url()?
        .trim_start_matches("https://")
        .to_owned();
    let (host, port) = server.split_once(':').context("an address")?;
    let node = spec["nodeName"].as_str().context("a node")?;
    container.edit(|config| {
        for (name, value) in [
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port),
            ("NODE_NAME", node),
        ] {
            push(
                &mut config["process"]["env"],
                Value::from(format!("{name}={value}")),
            );
        }
        let mount = json!({
            "destination": "/var/run/secrets/kubernetes.io/serviceaccount",
            "type": "bind", "source": secrets, "options": ["rbind", "ro"],
        });
        push(&mut config["mounts"], mount);
    })?;
    let detector = container.run()?;
    Ok((container, detector))
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

async fn status(
    detector: &Daemon,
    client: &Client,
    node: &str,
    status: &str,
) -> anyhow::Result<Value> {
    let nodes: Api<Node> = Api::all(client.clone());
    let what = format!("StorageReady={status} on {node}");
    let waiting = until(SOON, &what, async || {
        let node = nodes.get(node).await?;
        let conditions = node.status.and_then(|status| status.conditions);
        let found = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "StorageReady" && condition.status == status);
        found
            .map(|found| serde_json::to_value(found).context("write a condition"))
            .transpose()
    });
    detector.while_running(waiting).await
}

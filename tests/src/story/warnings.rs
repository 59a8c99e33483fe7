//! Four real faults that a node survives. Each must arrive at the API server as an Event about the
//! Node, by UID, that names what it happened to.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::latency::Latency;
use super::screen::{Screen, printable, short};
use super::stage::{HOST, SOON, Stage, runs_on};
use crate::faults::{HungTask, LoopDisk, PodCgroup, fill_socket_buffer};

/// More than the detector's threshold of drops within a second.
const PACKETS: u32 = 2000;

/// A fault that was provoked.
struct Fault {
    what: &'static str,
    at: Duration,
    reason: &'static str,
    /// What the detector takes it to be the fault of.
    entity: String,
    /// What the Event must say.
    named: Vec<String>,
}

pub(super) async fn provoke(stage: &mut Stage, screen: &Screen) -> anyhow::Result<Vec<Latency>> {
    let mut latencies = Vec::new();
    let pod = pod_of_this_host(stage).await?;
    let fault = blocking(move || oom_kill(&pod)).await?;
    latencies.push(told(stage, screen, fault).await?);

    let disk = blocking(LoopDisk::new).await?;
    let fault = Fault {
        what: "block I/O error",
        at: disk.read_error()?,
        reason: "BlockDeviceIOError",
        entity: disk.name().to_owned(),
        named: vec![disk.name().to_owned()],
    };
    latencies.push(told(stage, screen, fault).await?);

    let drops = blocking(|| fill_socket_buffer(PACKETS)).await?;
    let fault = Fault {
        what: "packets dropped",
        at: drops.at,
        reason: "PacketsDropped",
        entity: format!("port {}", drops.port),
        named: vec![
            format!("local port {}", drops.port),
            "SOCKET_RCVBUFF".to_owned(),
        ],
    };
    latencies.push(told(stage, screen, fault).await?);

    if let Some(reason) = HungTask::unavailable() {
        screen.note(&format!("LEFT OUT: hung task: {reason}"));
        return Ok(latencies);
    }
    let task = screen
        .step("a task hangs in the kernel (fsfreeze)", hang())
        .await?;
    let fault = Fault {
        what: "hung task",
        at: crate::faults::boot_clock(),
        reason: "AppBlocked",
        entity: format!("pid {}", task.pid()),
        named: vec![format!("process stuck-writer (pid {})", task.pid())],
    };
    latencies.push(told(stage, screen, fault).await?);
    blocking(move || {
        drop(task);
        Ok(())
    })
    .await?;
    Ok(latencies)
}

async fn hang() -> anyhow::Result<HungTask> {
    blocking(|| HungTask::start("stuck-writer")).await
}

/// One of the workload's pods, with the folder that kubelet would make for its logs.
async fn pod_of_this_host(stage: &Stage) -> anyhow::Result<Pod> {
    let pods = stage.pods().await?;
    let pod = pods
        .into_iter()
        .find(|pod| runs_on(pod) == Some(HOST))
        .with_context(|| format!("no pod on {HOST}"))?;
    let (name, uid) = identity(&pod)?;
    let folder = stage.pod_logs.path().join(format!("default_{name}_{uid}"));
    std::fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(pod)
}

fn identity(pod: &Pod) -> anyhow::Result<(String, String)> {
    pod.metadata
        .name
        .clone()
        .zip(pod.metadata.uid.clone())
        .context("read the name and UID of a pod")
}

fn oom_kill(pod: &Pod) -> anyhow::Result<Fault> {
    let (name, uid) = identity(pod)?;
    let cgroup = PodCgroup::systemd(&uid)?;
    let killed = cgroup.oom_kill("hog")?;
    Ok(Fault {
        what: "OOM kill in a pod",
        at: killed.at,
        reason: "OOMKilling",
        entity: cgroup.container_id().to_owned(),
        named: vec![
            format!("process hog (pid {})", killed.pid),
            format!("pod default/{name} (UID {uid})"),
        ],
    })
}

/// Waits for the Event, shows it, and returns how long it took.
async fn told(stage: &mut Stage, screen: &Screen, fault: Fault) -> anyhow::Result<Latency> {
    let Fault {
        what,
        at,
        reason,
        entity,
        named,
    } = fault;
    let is_it = |line: &Value| {
        line["kind"] == "event"
            && line["reason"] == reason
            && line["entity"]
                .as_str()
                .is_some_and(|text| text == entity || text.contains(&entity))
    };
    let line = stage
        .detector
        .wait_for_log(SOON, is_it)
        .await
        .with_context(|| format!("{what}: no Event"))?;
    let latency = Latency::of_log_line(what, at, &line)
        .with_context(|| format!("{what}: no times in {line}"))?;
    let note = event(stage, reason, &named[0])
        .await
        .with_context(|| what.to_owned())?;
    for name in &named {
        ensure!(
            note.contains(name),
            "{what}: the Event does not name `{name}`: {note}"
        );
    }
    let took = short(latency.exported.saturating_sub(latency.provoked));
    screen.done(&format!("{what} ({took}) {reason}: {}", printable(&note)));
    Ok(latency)
}

/// The note of the Event about this very Node.
async fn event(stage: &Stage, reason: &str, names: &str) -> anyhow::Result<String> {
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let uid = nodes.get(HOST).await.context("get the node")?.metadata.uid;
    let events: Api<Event> = Api::namespaced(stage.client.clone(), "default");
    let events = events
        .list(&ListParams::default())
        .await
        .context("list Events")?
        .items;
    events
        .into_iter()
        .filter(|event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|object| object.uid == uid)
        })
        .filter(|event| event.reason.as_deref() == Some(reason))
        .filter_map(|event| event.note)
        .find(|note| note.contains(names))
        .with_context(|| format!("no Event {reason} about {HOST} names `{names}`"))
}

/// Faults take milliseconds to seconds and block.
async fn blocking<T: Send + 'static>(
    fault: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(fault)
        .await
        .context("provoke a fault")?
}

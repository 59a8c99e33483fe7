//! Two replicas: one acts.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use nodemend_tests::cloud::{Fault, Kind};
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use super::scene::{REPAIRED, Scene, TERMINATE, is_blocked};

fn says(text: &'static str) -> impl Fn(&Value) -> bool {
    move |line| {
        line["message"]
            .as_str()
            .is_some_and(|message| message.contains(text))
    }
}

pub(crate) async fn takes_over() -> anyhow::Result<()> {
    let scene = Scene::start(2).await?;
    let mut first = scene.repairer("first")?;
    first
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    let mut second = scene.repairer("second")?;
    second
        .wait_for_log(Duration::from_secs(10), says("another replica leads"))
        .await?;
    let status = first.terminate(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}");
    // The first let go of the lease, so this does not wait for it to expire.
    second
        .wait_for_log(Duration::from_secs(6), says("leading"))
        .await?;
    Ok(())
}

pub(crate) async fn lost() -> anyhow::Result<()> {
    let scene = Scene::start(2).await?;
    let mut first = scene.repairer("first")?;
    first
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    hold(&leases(&scene), json!({"holderIdentity": "somebody-else"})).await?;
    let status = first.wait_exit(Duration::from_secs(20))?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(
        first
            .log_lines()
            .iter()
            .any(|line| line.contains("another replica has taken the lease"))
    );
    Ok(())
}

fn leases(scene: &Scene) -> Api<Lease> {
    Api::namespaced(scene.control_plane.admin(), "nodemend-system")
}

async fn hold(leases: &Api<Lease>, spec: Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"spec": spec}));
    leases
        .patch("nodemend-repairer", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

/// A holder whose clock is ten minutes wrong, in either direction: only that its lease changes counts.
pub(crate) async fn clock() -> anyhow::Result<()> {
    let scene = Scene::start(2).await?;
    let mut first = scene.repairer("first")?;
    first
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    first.kill();
    let leases = leases(&scene);
    let mut second = scene.repairer("second")?;
    let waits = says("another replica leads");
    let began = tokio::time::Instant::now();
    let mut renewals = 0;
    while began.elapsed() < Duration::from_secs(7) {
        // Long past, and short: by its own word it has expired.
        let word = json!({
            "holderIdentity": "slow", "leaseDurationSeconds": 3, "leaseTransitions": renewals,
            "renewTime": "2020-01-01T00:00:00.000000Z",
        });
        hold(&leases, word).await?;
        renewals += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    ensure!(
        second
            .log_lines()
            .iter()
            .any(|line| line.contains("another replica leads"))
    );
    let holder = leases.get("nodemend-repairer").await?.spec;
    let holder = holder.and_then(|spec| spec.holder_identity);
    ensure!(holder.as_deref() == Some("slow"), "{holder:?}");
    second.wait_for_log(Duration::from_secs(1), waits).await?;
    // Far ahead, and silent from now on.
    hold(&leases, json!({"renewTime": "2099-01-01T00:00:00.000000Z"})).await?;
    second
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    Ok(())
}

/// The attempt that is stored, and whose end nobody knows.
fn called(repair: &Value) -> bool {
    let attempts = repair["status"]["attempts"].as_array();
    attempts.is_some_and(|all| all.len() == 1 && all[0]["result"].is_null())
}

fn fault(action: &str, times: u32, hangs: Duration) -> Fault {
    Fault {
        action: Some(action.to_owned()),
        times,
        kind: Kind::Hang(hangs),
    }
}

/// The leader stands still in the middle of the call, and AWS acts. Another one takes over, and sees it.
pub(crate) async fn lost_in_a_call() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene
        .cloud
        .add_fault(fault(TERMINATE, 1, Duration::from_secs(4)));
    let mut first = scene.repairer("first")?;
    let _sick = scene.sicken("node-0").await?;
    let destroying = |line: &Value| line["message"] == "destroying";
    first.wait_for_log(REPAIRED, destroying).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.pause()?;
    // As when it has expired, and sooner.
    hold(&leases(&scene), json!({"holderIdentity": ""})).await?;
    let mut second = scene.repairer("second")?;
    second
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    let accepted = |repair: &Value| repair["status"]["attempts"][0]["result"] == "Accepted";
    scene.wait_repair("node-0", "accepted", accepted).await?;
    first.resume()?;
    let ended = first.wait_exit(Duration::from_secs(20))?;
    ensure!(ended.code() == Some(1), "{ended}");
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(scene.terminate_calls() == 1 && scene.terminations() == 1);
    let attempts = &repair["status"]["attempts"];
    let seen = attempts[0]["message"].as_str().unwrap_or_default();
    ensure!(
        attempts.as_array().is_some_and(|all| all.len() == 1)
            && seen.contains("seen by the state of the instance"),
        "{attempts}"
    );
    Ok(())
}

/// The leader stands still between the stored attempt and the call, for longer than its lease lasts. When it
/// goes on there are two that have led, and it does not call.
pub(crate) async fn two() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let mut first = scene.repairer("first")?;
    scene.block_drain_of("node-0").await?;
    let _sick = scene.sicken("node-0").await?;
    scene.wait_repair("node-0", "blocked", is_blocked).await?;
    // The second look takes so long that it can be stopped in it.
    scene
        .cloud
        .add_fault(fault("DescribeInstances", 4, Duration::from_secs(3)));
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(scene.control_plane.admin(), "default");
    budgets.delete("kept", &DeleteParams::default()).await?;
    scene.wait_repair("node-0", "called", called).await?;
    first.pause()?;
    ensure!(scene.terminate_calls() == 0, "it was too late to stop it");
    let mut second = scene.repairer("second")?;
    second
        .wait_for_log(Duration::from_secs(30), says("leading"))
        .await?;
    first.resume()?;
    let ended = first.wait_exit(Duration::from_secs(20))?;
    ensure!(ended.code() == Some(1), "{ended}");
    ensure!(scene.terminate_calls() == 0, "the first one has called");
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(scene.terminate_calls() == 1 && scene.terminations() == 1);
    let attempts = repair["status"]["attempts"].as_array().cloned();
    let results: Vec<_> = attempts
        .iter()
        .flatten()
        .map(|a| a["result"].clone())
        .collect();
    ensure!(results == ["NotApplied", "Accepted"], "{results:?}");
    Ok(())
}

/// Two replicas whose own pods run on nodes of the cluster, the leader's on the sick one: all others
/// leave first, then another one leads, and evicts nobody but goes on.
pub(crate) async fn own_pod() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let pods: Api<Pod> = Api::namespaced(scene.control_plane.admin(), "nodemend-system");
    let deployments: Api<Deployment> =
        Api::namespaced(scene.control_plane.admin(), "nodemend-system");
    let mut names = Vec::new();
    for node in ["node-0", "node-1"] {
        let app = format!("repairer-on-{node}");
        let deployment = json!({
            "metadata": {"name": app},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": app}},
                "template": {"metadata": {"labels": {"app": app}}, "spec": {
                    "containers": [{"name": "main", "image": "example.test/main:1"}],
                    "terminationGracePeriodSeconds": 1,
                    "priorityClassName": "system-cluster-critical",
                    "nodeSelector": {"kubernetes.io/hostname": node},
                }},
            },
        });
        scene.create(&deployments, deployment).await?;
        let own = ListParams::default().labels(&format!("app={app}"));
        let name = until(REPAIRED, "its pod runs", async || {
            let found = pods.list(&own).await?.items.pop();
            let runs = found.filter(|pod| {
                let status = pod.status.as_ref();
                status.and_then(|status| status.phase.as_deref()) == Some("Running")
            });
            Ok(runs.and_then(|pod| pod.metadata.name))
        })
        .await?;
        names.push(name);
    }
    let critical = json!({"priorityClassName": "system-node-critical"});
    scene
        .pinned("dns", "node-0", 1, critical, json!({}))
        .await?;

    let mut first = scene.repairer(&names[0])?;
    first
        .wait_for_log(Duration::from_secs(10), says("leading"))
        .await?;
    let mut second = scene.repairer(&names[1])?;
    second
        .wait_for_log(Duration::from_secs(10), says("another replica leads"))
        .await?;
    let _sick = scene.sicken("node-0").await?;
    let ended = first.wait_exit(REPAIRED)?;
    ensure!(ended.success(), "{ended}");
    let evicted = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let said = line["message"].as_str().unwrap_or_default();
        let is = line["what"] == "evicted" || said.starts_with("stopping, and evicted");
        is.then(|| line["pod"].as_str().unwrap_or_default().to_owned())
    };
    let order: Vec<_> = first.log_lines().iter().filter_map(evicted).collect();
    let place = |prefix: &str| order.iter().position(|pod| pod.starts_with(prefix));
    let own = format!("nodemend-system/{}", names[0]);
    let places = (place("default/web-"), place("default/dns-"), place(&own));
    ensure!(
        places.0 < places.1 && places.1 < places.2 && places.0.is_some(),
        "{order:?}"
    );
    ensure!(places.2 == Some(order.len() - 1), "not the last: {order:?}");
    second
        .wait_for_log(Duration::from_secs(6), says("leading"))
        .await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(scene.terminate_calls() == 1 && scene.terminations() == 1);
    Ok(())
}

//! Drains on the real API server: what is evicted, what is in the way, and what is said of it.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use super::scene::{REPAIRED, Scene};

const READY: &str = "Ready";

fn blocked<'a>(repair: &'a Value, app: &str) -> Option<&'a Value> {
    let blocked = repair["status"]["drain"]["blocked"].as_array()?;
    let of_app = |entry: &&Value| {
        let pod = entry["pod"].as_str().unwrap_or_default();
        pod.starts_with(&format!("default/{app}-"))
    };
    blocked.iter().find(of_app)
}

/// Budgets of each kind at once: one that never clears, two on one pod, a crash-looping app that
/// blocks, and the same with `AlwaysAllow`, which does not.
pub(crate) async fn budgets() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let unready = json!({"test.nodemend.dev/unready": "true"});
    let none = json!({});
    scene
        .pinned("never", "node-0", 1, none.clone(), none.clone())
        .await?;
    scene
        .pinned("two", "node-0", 1, none.clone(), none.clone())
        .await?;
    scene
        .pinned("crashing", "node-0", 1, none.clone(), unready.clone())
        .await?;
    scene.pinned("allowed", "node-0", 1, none, unready).await?;
    scene
        .budget("never", "never", json!({"minAvailable": 1}))
        .await?;
    scene
        .budget("two-a", "two", json!({"maxUnavailable": 1}))
        .await?;
    scene
        .budget("two-b", "two", json!({"maxUnavailable": 1}))
        .await?;
    scene
        .budget("crashing", "crashing", json!({"maxUnavailable": 1}))
        .await?;
    let always = json!({"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"});
    scene.budget("allowed", "allowed", always).await?;

    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let all_told = |repair: &Value| {
        ["never", "two", "crashing"]
            .iter()
            .all(|app| blocked(repair, app).is_some())
    };
    let repair = scene
        .wait_repair("node-0", "three budgets are in the way", all_told)
        .await?;
    let of = |app: &str| blocked(&repair, app).cloned().unwrap_or_default();
    let never = of("never");
    ensure!(
        never["budget"] == "never" && never["never"] == true,
        "{never}"
    );
    let two = of("two");
    let named = two["budget"].as_str().unwrap_or_default();
    ensure!(
        two["never"] == true && named.contains("two-a") && named.contains("two-b"),
        "{two}"
    );
    let crashing = of("crashing");
    let why = crashing["why"].as_str().unwrap_or_default();
    ensure!(
        crashing["never"].is_null() && why.contains("AlwaysAllow"),
        "{crashing}"
    );
    until(
        REPAIRED,
        "AlwaysAllow lets the crashing pod go",
        async || {
            let pods = scene.pods_on("node-0").await?;
            Ok((!pods.iter().any(|pod| pod.starts_with("allowed-"))).then_some(()))
        },
    )
    .await?;
    ensure!(scene.terminate_calls() == 0);

    // A person opens each of them, and the drain goes on.
    let pdbs: Api<k8s_openapi::api::policy::v1::PodDisruptionBudget> =
        Api::namespaced(scene.control_plane.admin(), "default");
    for name in ["never", "two-a", "crashing"] {
        pdbs.delete(name, &kube::api::DeleteParams::default())
            .await?;
    }
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}

pub(crate) async fn zoo() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let pods: Api<Pod> = Api::namespaced(scene.control_plane.admin(), "default");
    let daemon_sets: Api<DaemonSet> = Api::namespaced(scene.control_plane.admin(), "default");
    let sets: Api<StatefulSet> = Api::namespaced(scene.control_plane.admin(), "default");
    let spec = json!({
        "containers": [{"name": "main", "image": "example.test/main:1"}],
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": "node-0"},
    });
    let template = |app: &str| json!({"metadata": {"labels": {"app": app}}, "spec": spec});
    let agent = json!({
        "metadata": {"name": "agent"},
        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template("agent")},
    });
    scene.create(&daemon_sets, agent).await?;
    // Its pod comes again under the same name, and must not be taken for the old one.
    let db = json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 1, "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}}, "template": template("db"),
        },
    });
    scene.create(&sets, db).await?;
    let everything = json!({"tolerations": [{"operator": "Exists"}]});
    scene
        .pinned("tolerates", "node-0", 1, everything, json!({}))
        .await?;
    let critical = json!({"priorityClassName": "system-node-critical"});
    scene
        .pinned("dns", "node-0", 1, critical, json!({}))
        .await?;
    let pod = |name: &str, metadata: Value| {
        let mut object = json!({"metadata": metadata, "spec": spec});
        object["metadata"]["name"] = json!(name);
        object["spec"]["nodeName"] = json!("node-0");
        object
    };
    let mirror = json!({"annotations": {"kubernetes.io/config.mirror": "x"}});
    scene.create(&pods, pod("mirror", mirror)).await?;
    let skipped = json!({"labels": {"nodemend.dev/drain": "skip"}});
    scene.create(&pods, pod("skipped", skipped)).await?;
    let waits = json!({"labels": {"nodemend.dev/drain": "wait"}});
    scene.create(&pods, pod("waits", waits)).await?;
    until(REPAIRED, "the zoo runs", async || {
        let there = scene.pods_on("node-0").await?;
        let all = [
            "agent-",
            "db-0",
            "tolerates-",
            "dns-",
            "mirror",
            "skipped",
            "waits",
        ];
        let runs = |name: &&str| there.iter().any(|pod| pod.starts_with(*name));
        Ok(all.iter().all(runs).then_some(()))
    })
    .await?;
    scene
        .set_policy(&json!({"mode": "Enforce", "drain": {"unmanagedPods": "Evict"}}))
        .await?;

    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let repair = scene
        .wait_repair(
            "node-0",
            "only those are left that stay or wait",
            |repair| {
                let drain = &repair["status"]["drain"];
                drain["remaining"].as_u64().is_some_and(|left| left <= 2)
                    && drain["blocked"].to_string().contains("drain=wait")
            },
        )
        .await?;
    ensure!(
        repair["status"]["phase"] == "Draining",
        "{}",
        repair["status"]
    );
    let db: Pod = until(REPAIRED, "the StatefulSet made its pod again", async || {
        let pod = pods.get_opt("db-0").await?;
        Ok(pod.filter(|pod| {
            pod.spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.is_none())
        }))
    })
    .await?;
    // Critical pods go last, so this one is still there.
    let there = scene.pods_on("node-0").await?;
    ensure!(there.iter().any(|pod| pod.starts_with("dns-")), "{there:?}");
    let done = Patch::Merge(json!({"metadata": {"labels": {"nodemend.dev/drain": null}}}));
    pods.patch("waits", &PatchParams::default(), &done).await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let timeline = repair["status"]["timeline"].to_string();
    ensure!(
        timeline.contains("default/skipped") && timeline.contains("default/tolerates-"),
        "{timeline}"
    );
    let now = pods.get("db-0").await?.metadata.uid;
    ensure!(
        now == db.metadata.uid,
        "the new pod of the StatefulSet was evicted, too"
    );
    Ok(())
}

pub(crate) async fn many() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene
        .set_policy(&json!({"mode": "Enforce", "drain": {"unmanagedPods": "Evict"}}))
        .await?;
    let pods: Api<Pod> = Api::namespaced(scene.control_plane.admin(), "default");
    for index in 0..200 {
        let pod = json!({
            "metadata": {"name": format!("pod-{index}")},
            "spec": {
                "nodeName": "node-0",
                "containers": [{"name": "main", "image": "example.test/main:1"}],
                "terminationGracePeriodSeconds": 1,
            },
        });
        scene.create(&pods, pod).await?;
    }
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    let left = pods.list(&ListParams::default()).await?.items;
    let left = left.iter().filter_map(|pod| pod.metadata.name.as_deref());
    ensure!(left.filter(|name| name.starts_with("pod-")).count() == 0);
    let evictions = scene.proxy.points().names();
    let evictions = evictions
        .iter()
        .filter(|name| *name == "POST pods/eviction");
    let evictions = evictions.count();
    ensure!(
        (200..=230).contains(&evictions),
        "{evictions} evictions of 201 pods"
    );
    Ok(())
}

pub(crate) async fn at_timeout() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene
        .pinned("never", "node-0", 1, json!({}), json!({}))
        .await?;
    scene
        .budget("never", "never", json!({"minAvailable": 1}))
        .await?;
    let policy = |on_timeout: &str| json!({"mode": "Enforce", "drain": {"timeout": "4s", "onTimeout": on_timeout}});
    scene.set_policy(&policy("Release")).await?;
    let _repairer = scene.repairer("a")?;
    let sick = scene.sicken("node-0").await?;
    scene.wait_outcome("node-0", "Cancelled").await?;
    let there = scene.pods_on("node-0").await?;
    ensure!(
        there.iter().any(|pod| pod.starts_with("never-")),
        "{there:?}"
    );
    let spec = scene.nodes().get("node-0").await?.spec.unwrap_or_default();
    ensure!(spec.unschedulable != Some(true), "{spec:?}");
    ensure!(scene.terminate_calls() == 0);

    scene.heal("node-0", sick).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.set_policy(&policy("Force")).await?;
    let _sick = scene.sicken("node-0").await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}

/// Nodes whose kubelets are not heard of.
async fn replace_the_silent(scene: &Scene) -> anyhow::Result<()> {
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            // A young node that is not Ready would still be joining.
            "startupTimeout": "1s",
            "rules": [{"nodeMonitoringCondition": READY, "status": ["False", "Unknown"], "minRepairWaitTime": "2s", "repairActions": ["Replace"]}],
        }))
        .await
}

pub(crate) async fn dead_kubelet() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    replace_the_silent(&scene).await?;
    let _repairer = scene.repairer("a")?;
    scene.fleet.lose_node("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let conditions = repair["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let drained = conditions.iter().find(|c| c["type"] == "Drained");
    let drained = drained.context("it was not drained")?;
    ensure!(drained["reason"] == "KubeletSilent", "{drained}");
    ensure!(scene.terminations() == 1);
    Ok(())
}

/// Volumes of a machine that is proven to be off are freed at once, and the mark goes when it is back.
pub(crate) async fn out_of_service() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    replace_the_silent(&scene).await?;
    let attachments: Api<VolumeAttachment> = Api::all(scene.control_plane.admin());
    let attachment = json!({
        "metadata": {"name": "db"},
        "spec": {"attacher": "example.test", "nodeName": "node-0", "source": {"persistentVolumeName": "db"}},
    });
    scene.create(&attachments, attachment).await?;
    let attached = Patch::Merge(json!({"status": {"attached": true}}));
    attachments
        .patch_status("db", &PatchParams::default(), &attached)
        .await?;
    // It is not replaced, so that what is done before can be seen.
    let kept = Patch::Merge(json!({"metadata": {"labels": {"nodemend.dev/preserve": "true"}}}));
    let node = scene
        .nodes()
        .patch("node-0", &PatchParams::default(), &kept)
        .await?;
    let provider = node.spec.and_then(|spec| spec.provider_id);
    let provider = provider.context("the node has no instance")?;
    let id = provider.rsplit('/').next().unwrap_or_default();

    let _repairer = scene.repairer("a")?;
    scene.fleet.lose_node("node-0").await?;
    scene.wait_hold("node-0", "Preserve").await?;
    let is_marked = async || {
        let spec = scene.nodes().get("node-0").await?.spec.unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        let mut taints = taints.iter();
        anyhow::Ok(taints.any(|taint| {
            let ours = taint.value.as_deref() == Some("nodemend") && taint.effect == "NoExecute";
            ours && taint.key == "node.kubernetes.io/out-of-service"
        }))
    };
    ensure!(!is_marked().await?, "nothing proves that it is off");
    scene.cloud.instance(id, |instance| instance.stopped = true);
    until(REPAIRED, "it is out of service", async || {
        Ok(is_marked().await?.then_some(()))
    })
    .await?;
    scene
        .cloud
        .instance(id, |instance| instance.stopped = false);
    scene.fleet.recover_node("node-0").await?;
    scene.wait_outcome("node-0", "Recovered").await?;
    ensure!(!is_marked().await?, "the mark is still there");
    ensure!(scene.terminate_calls() == 0);
    Ok(())
}

//! Three nodes: one with a detector that really runs, and two that the repairer has cordoned, of
//! which a person had cordoned one before.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::fleet::Fleet;
use nodemend_tests::kubelet;
use nodemend_tests::wait::until;
use serde_json::{Value, json};

const WATCHED: &str = "node-0";
const CORDONED: &str = "node-1";
const FOUND_CORDONED: &str = "node-2";
const OUR_TAINT: &str = "nodemend.dev/unhealthy";
const THEIR_TAINT: &str = "example.test/dedicated";
const THEIR_CONDITION: &str = "FrequentKubeletRestart";
const OUR_CONDITIONS: [&str; 3] = ["KernelReady", "NetworkingReady", "StorageReady"];
const LEASE: &str = "nodemend-repairer";
const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Scene {
    client: Client,
    detector: Option<(Pod, Daemon)>,
    _fleet: Fleet,
}

impl Scene {
    pub(crate) async fn start(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let fleet = Fleet::start(control_plane).await?;
        let linux = labels();
        for (index, name) in [WATCHED, CORDONED, FOUND_CORDONED].into_iter().enumerate() {
            fleet
                .create_labelled_node(name, &format!("i-{index:017x}"), "us-west-2a", &linux)
                .await?;
        }
        fleet.wait_ready(3).await?;
        Ok(Self {
            client: control_plane.admin(),
            detector: None,
            _fleet: fleet,
        })
    }

    pub(crate) fn has_run(&self) -> bool {
        self.detector.is_some()
    }

    pub(crate) fn repaired_node(&self) -> &str {
        FOUND_CORDONED
    }

    /// The pod of the DaemonSet runs for real, and nodes look as repairs leave them on their way.
    pub(crate) async fn daemons_have_run(
        &mut self,
        control_plane: &ControlPlane,
    ) -> anyhow::Result<()> {
        let detectors = ListParams::default()
            .labels("app.kubernetes.io/component=detector")
            .fields(&format!("spec.nodeName={WATCHED}"));
        let pod = self.pods().list(&detectors).await?.items.pop();
        let pod = pod.context("find the pod of the DaemonSet")?;
        kubelet::hold(&self.pods(), &pod).await?;
        let spec = pod.spec.as_ref().context("a pod has no spec")?;
        let daemon = kubelet::start(control_plane, &pod, &spec.containers[0], &[]).await?;
        self.detector = Some((pod, daemon));
        until(SOON, "the conditions of the detector", async || {
            let there = self.conditions().await?;
            Ok(OUR_CONDITIONS
                .iter()
                .all(|ours| there.iter().any(|kind| kind == ours))
                .then_some(()))
        })
        .await?;
        let theirs =
            json!({"status": {"conditions": [{"type": THEIR_CONDITION, "status": "False"}]}});
        self.nodes()
            .patch_status(WATCHED, &PatchParams::default(), &Patch::Strategic(theirs))
            .await?;
        self.cordon(CORDONED).await?;
        let node = self.cordon(FOUND_CORDONED).await?;
        self.record_found_cordoned(&node).await?;
        self.let_go_of_a_lease().await
    }

    /// As a repairer leaves it that was told to end.
    async fn let_go_of_a_lease(&self) -> anyhow::Result<()> {
        let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1});
        let lease = json!({"metadata": {"name": LEASE}, "spec": spec});
        let lease = serde_json::from_value(lease).context("write a Lease")?;
        self.leases()
            .create(&PostParams::default(), &lease)
            .await
            .context("create a Lease")?;
        Ok(())
    }

    pub(crate) async fn stop_the_detector(&mut self) -> anyhow::Result<()> {
        let pods = self.pods();
        let (pod, daemon) = self.detector.as_mut().context("the detector never ran")?;
        kubelet::stop_when_deleted(&pods, pod, daemon).await
    }

    pub(crate) async fn nothing_of_ours_is_left(&self) -> anyhow::Result<()> {
        let conditions = self.conditions().await?;
        for ours in OUR_CONDITIONS {
            ensure!(
                !conditions.iter().any(|kind| kind == ours),
                "{conditions:?}"
            );
        }
        for theirs in ["Ready", THEIR_CONDITION] {
            ensure!(
                conditions.iter().any(|kind| kind == theirs),
                "{conditions:?}"
            );
        }
        for (name, stays_cordoned) in [(CORDONED, false), (FOUND_CORDONED, true)] {
            let node = self.nodes().get(name).await?;
            let names = node.metadata.annotations.iter().flatten();
            let labels = node.metadata.labels.iter().flatten();
            for (name, _) in names.chain(labels) {
                ensure!(!name.starts_with("nodemend.dev/"), "{name} is left");
            }
            let spec = node.spec.context("a spec")?;
            let cordoned = spec.unschedulable.unwrap_or(false);
            let taints = spec.taints.unwrap_or_default();
            ensure!(
                cordoned == stays_cordoned,
                "{name}: unschedulable {cordoned}"
            );
            ensure!(!has(&taints, OUR_TAINT), "{name}: {taints:?}");
            ensure!(has(&taints, THEIR_TAINT), "{name}: {taints:?}");
        }
        let repairs = self.repairs().list(&ListParams::default()).await?.items;
        ensure!(repairs.is_empty(), "records are left: {repairs:?}");
        let lease = self.leases().get_opt(LEASE).await?;
        ensure!(lease.is_none(), "the Lease is still there: {lease:?}");
        Ok(())
    }

    /// As the repairer does it, on a node with a taint of somebody else's.
    async fn cordon(&self, name: &str) -> anyhow::Result<Node> {
        let taints = json!([
            {"key": THEIR_TAINT, "effect": "NoSchedule"},
            {"key": OUR_TAINT, "effect": "NoSchedule"},
        ]);
        let dismissed = json!({"nodemend.dev/dismissed": "2026-01-02T03:04:05Z"});
        let patch = Patch::Merge(json!({
            "metadata": {"annotations": dismissed},
            "spec": {"unschedulable": true, "taints": taints},
        }));
        self.nodes()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("cordon {name}"))
    }

    async fn record_found_cordoned(&self, node: &Node) -> anyhow::Result<()> {
        let resource = repairs_resource();
        let repairs = self.repairs();
        let spec = json!({
            "nodeRef": {"name": node.metadata.name, "uid": node.metadata.uid},
            "providerID": "aws:///us-west-2a/i-00000000000000002",
            "policyRef": {"name": "default", "uid": "0"},
            "action": "Replace",
        });
        let repair = DynamicObject::new("found-cordoned", &resource).data(json!({"spec": spec}));
        repairs
            .create(&PostParams::default(), &repair)
            .await
            .context("create a NodeRepair")?;
        let status: Value = json!({"status": {"foundCordoned": true}});
        repairs
            .patch_status(
                "found-cordoned",
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await
            .context("set the status of a NodeRepair")?;
        Ok(())
    }

    async fn conditions(&self) -> anyhow::Result<Vec<String>> {
        let status = self.nodes().get(WATCHED).await?.status;
        let conditions = status.and_then(|status| status.conditions);
        Ok(conditions
            .unwrap_or_default()
            .into_iter()
            .map(|condition| condition.type_)
            .collect())
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    fn repairs(&self) -> Api<DynamicObject> {
        repairs(self.client.clone())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), "nodemend-system")
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "nodemend-system")
    }
}

/// As kubelets set them.
pub(crate) fn labels() -> BTreeMap<String, String> {
    [
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
    ]
    .map(|(label, value)| (label.to_owned(), value.to_owned()))
    .into()
}

pub(crate) fn repairs(client: Client) -> Api<DynamicObject> {
    Api::all_with(client, &repairs_resource())
}

fn repairs_resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("nodemend.dev", "v1alpha1", "NodeRepair");
    ApiResource::from_gvk_with_plural(&kind, "noderepairs")
}

fn has(taints: &[Taint], key: &str) -> bool {
    taints.iter().any(|taint| taint.key == key)
}

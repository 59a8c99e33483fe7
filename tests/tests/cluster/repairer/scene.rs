//! A cluster with a workload, a cloud, and a repairer that sees the API server through a proxy.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nodemend_tests::api_proxy::ApiProxy;
use nodemend_tests::cloud::{Answer, Cloud, InstanceState};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::fleet::{Fleet, World};
use nodemend_tests::karpenter::Karpenter;
use nodemend_tests::repo;
use nodemend_tests::wait::until;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// A repair with the waits below takes about 15 s on a quiet machine. An eviction that a kill has cut
/// off, before the pod was deleted, is charged to its budget for two minutes (DeletionTimeout in
/// kubernetes' pkg/controller/disruption): nobody may evict another pod meanwhile.
pub(crate) const REPAIRED: Duration = Duration::from_secs(240);
pub(crate) const TERMINATE: &str = "TerminateInstanceInAutoScalingGroup";
pub(crate) const GROUP: &str = "workers";

pub(crate) struct Scene {
    pub(crate) control_plane: ControlPlane,
    pub(crate) cloud: Cloud,
    pub(crate) fleet: Fleet,
    pub(crate) proxy: ApiProxy,
    kubeconfig: PathBuf,
    karpenter: Option<Karpenter>,
    /// Minimum, desired and maximum of the group, which no repair may change.
    sizes: Mutex<Option<(usize, usize, usize)>>,
    _world: World,
}

/// Who owns the nodes.
enum Owner {
    Group,
    Karpenter,
}

/// By a budget, in its drain.
pub(crate) fn is_blocked(repair: &Value) -> bool {
    repair["status"]["phase"] == "Draining"
        && repair["status"]["drain"]["blocked"][0]["why"].is_string()
}

pub(crate) async fn watches_nodes(repairer: &mut Daemon) -> anyhow::Result<()> {
    let watching = |line: &Value| line["message"] == "watching the nodes";
    repairer
        .wait_for_log(Duration::from_secs(20), watching)
        .await
        .map(drop)
}

impl Scene {
    /// `node-0` ... of one Auto Scaling group, one pod on each, and an enabled policy.
    pub(crate) async fn start(nodes: u16) -> anyhow::Result<Self> {
        Self::start_with(nodes, Owner::Group).await
    }

    /// `node-0` ... of one NodePool.
    pub(crate) async fn start_with_karpenter(nodes: u16) -> anyhow::Result<Self> {
        Self::start_with(nodes, Owner::Karpenter).await
    }

    async fn start_with(nodes: u16, owner: Owner) -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start().await?;
        control_plane.apply(&repo().join("deploy/crds")).await?;
        control_plane
            .apply(&repo().join("deploy/rbac/repairer.yaml"))
            .await?;
        let fleet = Fleet::start(&control_plane).await?;
        let cloud = Cloud::start().await?;
        cloud.allow_only(allowed("replace")?);
        let zones: Vec<_> = (0..nodes)
            .map(|index| {
                if index % 2 == 0 {
                    "us-west-2a"
                } else {
                    "us-west-2b"
                }
            })
            .collect();
        let karpenter = match owner {
            Owner::Group => {
                let instances = cloud.create_group(GROUP, &zones);
                for (index, (instance, zone)) in instances.iter().zip(&zones).enumerate() {
                    fleet
                        .create_node(&format!("node-{index}"), instance, zone)
                        .await?;
                }
                None
            }
            Owner::Karpenter => {
                let karpenter =
                    Karpenter::start(&control_plane, cloud.clone(), fleet.clone()).await?;
                for (index, zone) in zones.iter().enumerate() {
                    karpenter.launch(&format!("node-{index}"), zone).await?;
                }
                Some(karpenter)
            }
        };
        fleet.wait_ready(usize::from(nodes)).await?;
        fleet.deployment("web", nodes, nodes - 1).await?;
        let proxy = ApiProxy::start(&control_plane).await?;
        let account = control_plane
            .kubeconfig_for_service_account("nodemend-system", "nodemend-repairer")
            .await?;
        let kubeconfig = proxy.kubeconfig(&control_plane, &account)?;
        let sizes = cloud.sizes(GROUP);
        let world = World::run(control_plane.admin(), cloud.clone(), fleet.clone());
        let scene = Self {
            control_plane,
            cloud,
            fleet,
            proxy,
            kubeconfig,
            karpenter,
            sizes: Mutex::new(sizes),
            _world: world,
        };
        scene.set_policy(&json!({"mode": "Enforce"})).await?;
        Ok(scene)
    }

    pub(crate) fn karpenter(&self) -> anyhow::Result<&Karpenter> {
        self.karpenter.as_ref().context("there is no Karpenter")
    }

    /// The repairer may not do anything with this resource any more.
    pub(crate) async fn take_right(&self, resource: &str) -> anyhow::Result<()> {
        let roles: Api<ClusterRole> = Api::all(self.control_plane.admin());
        let mut role = roles.get("nodemend-repairer").await?;
        let with = |rule: &PolicyRule| rule.resources.iter().flatten().any(|r| r == resource);
        role.rules
            .iter_mut()
            .for_each(|rules| rules.retain(|rule| !with(rule)));
        roles
            .replace("nodemend-repairer", &PostParams::default(), &role)
            .await
            .context("change the ClusterRole")?;
        Ok(())
    }

    /// Short waits; `changes` are laid over them.
    pub(crate) async fn set_policy(&self, changes: &Value) -> anyhow::Result<()> {
        let mut spec = json!({
            "selector": {"matchLabels": {}},
            "cordon": {"after": "1s", "recoverySoak": "2s"},
            "unhealthyThreshold": {"percentage": 50, "minNodes": 3},
            "verify": {"replaceDeadline": "60s", "soak": "1s"},
            // A suite repairs more in a minute than a fleet in a week, and the same nodes again and again.
            "repairBudget": {"count": 1000, "window": "1s"},
            "attempts": {"count": 100, "window": "1s"},
            "rules": [
                {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "2s", "repairActions": ["Replace"]},
            ],
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let object = json!({
            "apiVersion": "nodemend.dev/v1alpha1",
            "kind": "RepairPolicy",
            "metadata": {"name": "workers"},
            "spec": spec,
        });
        self.policies()
            .patch(
                "workers",
                &PatchParams::apply("test").force(),
                &Patch::Apply(object),
            )
            .await?;
        Ok(())
    }

    /// What `check` says, under the account of the repairer, and with no region but that of the Nodes.
    pub(crate) async fn check(&self) -> anyhow::Result<String> {
        let kubeconfig = self.kubeconfig.to_string_lossy();
        let args = ["check", "--kubeconfig", &kubeconfig];
        let mut environment = self.cloud.sdk_environment();
        environment.retain(|(key, _)| key != "AWS_REGION");
        // Of a CRD that is new the API server says for a moment that it cannot be listed.
        until(REPAIRED, "the API server answers", async || {
            let mut checking = Daemon::start("nodemend-repairer", &args, &environment)?;
            checking.wait_exit(REPAIRED)?;
            let said = checking.output().await;
            Ok((!said.contains("cannot run here")).then_some(said))
        })
        .await
    }

    pub(crate) fn repairer(&self, identity: &str) -> anyhow::Result<Daemon> {
        self.repairer_with(identity, &[])
    }

    pub(crate) fn repairer_with(&self, identity: &str, more: &[&str]) -> anyhow::Result<Daemon> {
        repairer_with(&self.kubeconfig, identity, &self.cloud, more)
    }

    /// A fault that the detector of a node keeps confirming, until this is dropped.
    pub(crate) async fn sicken(&self, node: &str) -> anyhow::Result<Sick> {
        write_storage(&self.nodes(), node, false).await?;
        let (nodes, name) = (self.nodes(), node.to_owned());
        Ok(Sick(tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                // The node goes away in the course of its repair.
                let _written = write_storage(&nodes, &name, false).await;
            }
        })))
    }

    /// The same, until any machine is rebooted.
    pub(crate) async fn sicken_until_reboot(&self, node: &str) -> anyhow::Result<Sick> {
        write_storage(&self.nodes(), node, false).await?;
        let (nodes, name) = (self.nodes(), node.to_owned());
        let (cloud, before) = (self.cloud.clone(), self.reboots());
        Ok(Sick(tokio::spawn(async move {
            while reboots(&cloud) == before {
                let _written = write_storage(&nodes, &name, false).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })))
    }

    pub(crate) async fn heal(&self, node: &str, sick: Sick) -> anyhow::Result<()> {
        drop(sick);
        write_storage(&self.nodes(), node, true).await
    }

    pub(crate) fn nodes(&self) -> Api<Node> {
        Api::all(self.control_plane.admin())
    }

    pub(crate) fn policies(&self) -> Api<DynamicObject> {
        custom(self.control_plane.admin(), "RepairPolicy", "repairpolicies")
    }

    pub(crate) fn repairs(&self) -> Api<DynamicObject> {
        custom(self.control_plane.admin(), "NodeRepair", "noderepairs")
    }

    /// The repairs of a node of this name, oldest first.
    pub(crate) async fn repairs_of(&self, node: &str) -> anyhow::Result<Vec<Value>> {
        let list = self
            .repairs()
            .list(&ListParams::default())
            .await
            .context("list noderepairs")?;
        let objects = list
            .items
            .into_iter()
            .filter_map(|object| serde_json::to_value(object).ok());
        let mut own: Vec<_> = objects
            .filter(|object| object["spec"]["nodeRef"]["name"] == node)
            .collect();
        own.sort_by_key(|object| object["metadata"]["creationTimestamp"].to_string());
        Ok(own)
    }

    /// Waits until the one repair of a node `matches`.
    pub(crate) async fn wait_repair(
        &self,
        node: &str,
        what: &str,
        matches: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let found = until(
            REPAIRED,
            &format!("the repair of {node}: {what}"),
            async || {
                last = self.repairs_of(node).await?.pop().unwrap_or_default();
                Ok(matches(&last).then(|| last.clone()))
            },
        )
        .await;
        let found = found.with_context(|| format!("it stands at {}", last["status"]))?;
        self.sizes_are_as_before()?;
        Ok(found)
    }

    fn sizes_are_as_before(&self) -> anyhow::Result<()> {
        let before = *self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.cloud.sizes(GROUP);
        ensure!(
            now == before,
            "the sizes of the group: {before:?}, now {now:?}"
        );
        Ok(())
    }

    /// One more instance of the group, which never becomes a Node.
    pub(crate) fn add_dead_member(&self, zone: &str) -> String {
        let id = self.cloud.create_dead_member(GROUP, zone);
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = self.cloud.sizes(GROUP);
        id
    }

    /// `import` of a managed node group: the spec of the policy that it prints.
    pub(crate) async fn import(&self, cluster: &str, node_group: &str) -> anyhow::Result<Value> {
        let args = ["import", "--eks-cluster", cluster, node_group];
        let environment = self.cloud.sdk_environment();
        let mut importing = Daemon::start("nodemend-repairer", &args, &environment)?;
        let status = importing.wait_exit(REPAIRED)?;
        let said = importing.output().await;
        ensure!(status.success(), "{said}");
        let policy: Value = serde_saphyr::from_str(&said).context("read the policy")?;
        Ok(policy["spec"].clone())
    }

    pub(crate) async fn wait_outcome(&self, node: &str, outcome: &str) -> anyhow::Result<Value> {
        self.wait_repair(node, outcome, |repair| {
            repair["status"]["outcome"] == outcome
        })
        .await
    }

    pub(crate) async fn wait_hold(&self, node: &str, gate: &str) -> anyhow::Result<String> {
        let held = self
            .wait_repair(node, &format!("held by {gate}"), |repair| {
                repair["status"]["hold"]["gate"] == gate
            })
            .await?;
        Ok(held["status"]["hold"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// Pods on a node, as the API server has them.
    pub(crate) async fn pods_on(&self, node: &str) -> anyhow::Result<Vec<String>> {
        let pods: Api<Pod> = Api::all(self.control_plane.admin());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = pods.list(&on_node).await?.items;
        Ok(pods
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect())
    }

    pub(crate) async fn create<K>(&self, api: &Api<K>, object: Value) -> anyhow::Result<()>
    where
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let told = object["metadata"]["name"].to_string();
        let object = serde_json::from_value(object).with_context(|| format!("write {told}"))?;
        let created = api.create(&PostParams::default(), &object).await;
        created.with_context(|| format!("create {told}"))?;
        Ok(())
    }

    /// A Deployment whose pods run on one node only.
    pub(crate) async fn pinned(
        &self,
        name: &str,
        node: &str,
        replicas: u16,
        spec: Value,
        labels: Value,
    ) -> anyhow::Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.control_plane.admin(), "default");
        let mut template = json!({
            "metadata": {"labels": labels},
            "spec": {
                "containers": [{"name": "main", "image": "example.test/main:1"}],
                "terminationGracePeriodSeconds": 1,
                "nodeSelector": {"kubernetes.io/hostname": node},
            },
        });
        template["metadata"]["labels"]["app"] = json!(name);
        for (key, value) in spec.as_object().into_iter().flatten() {
            template["spec"][key] = value.clone();
        }
        let deployment = json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": template,
            },
        });
        self.create(&deployments, deployment).await?;
        let running = format!("{replicas} pods of {name} run");
        until(REPAIRED, &running, async || {
            let pods: Api<Pod> = Api::namespaced(self.control_plane.admin(), "default");
            let own = ListParams::default().labels(&format!("app={name}"));
            let pods = pods.list(&own).await?.items;
            let runs = |pod: &&Pod| {
                let status = pod.status.as_ref();
                status.and_then(|status| status.phase.as_deref()) == Some("Running")
            };
            let count = pods.iter().filter(runs).count();
            Ok((count == usize::from(replicas)).then_some(()))
        })
        .await
    }

    /// By a pod that its budget never lets go, both called `kept`.
    pub(crate) async fn block_drain_of(&self, node: &str) -> anyhow::Result<()> {
        self.pinned("kept", node, 1, json!({}), json!({})).await?;
        self.budget("kept", "kept", json!({"minAvailable": 1}))
            .await
    }

    pub(crate) async fn budget(
        &self,
        name: &str,
        app: &str,
        mut spec: Value,
    ) -> anyhow::Result<()> {
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.control_plane.admin(), "default");
        spec["selector"] = json!({"matchLabels": {"app": app}});
        self.create(&api, json!({"metadata": {"name": name}, "spec": spec}))
            .await?;
        until(REPAIRED, "the budget is observed", async || {
            let status = api.get(name).await?.status.unwrap_or_default();
            Ok(status.observed_generation.map(|_| ()))
        })
        .await
    }

    /// Machines that are rebooted come back with another boot, well or as before.
    pub(crate) fn machines_boot(&self, well: bool) -> Sick {
        let (nodes, cloud) = (self.nodes(), self.cloud.clone());
        Sick(tokio::spawn(async move {
            let mut seen = std::collections::BTreeMap::new();
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                for instance in cloud.instances() {
                    let before = seen.insert(instance.id.clone(), instance.reboots);
                    if instance.reboots <= before.unwrap_or_default() {
                        continue;
                    }
                    let _booted = boot(&nodes, &instance.id, instance.reboots, well).await;
                }
            }
        }))
    }

    pub(crate) fn reboots(&self) -> u32 {
        reboots(&self.cloud)
    }

    /// Terminate calls that AWS has acted on.
    pub(crate) fn terminations(&self) -> usize {
        let acted = |state: InstanceState| state.is_going();
        self.cloud
            .instances()
            .iter()
            .filter(|instance| acted(instance.state))
            .count()
    }

    /// Terminate calls that AWS has seen, whatever became of them.
    pub(crate) fn terminate_calls(&self) -> usize {
        self.cloud
            .calls()
            .iter()
            .filter(|call| call.action == TERMINATE)
            .count()
    }

    /// Terminate calls that AWS has answered with yes.
    pub(crate) fn accepted_calls(&self) -> usize {
        self.cloud
            .calls()
            .iter()
            .filter(|call| call.action == TERMINATE && call.answer == Answer::Done)
            .count()
    }
}

/// What a policy of deploy/iam allows.
pub(crate) fn allowed(policy: &str) -> anyhow::Result<BTreeSet<String>> {
    let path = repo().join(format!("deploy/iam/{policy}.json"));
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let policy: Value = serde_json::from_str(&text).context("read the policy")?;
    let statements = policy["Statement"].as_array().into_iter().flatten();
    let actions = statements.flat_map(|statement| match &statement["Action"] {
        Value::Array(many) => many.clone(),
        one => vec![one.clone()],
    });
    Ok(actions
        .filter_map(|action| action.as_str().map(str::to_owned))
        .collect())
}

pub(crate) fn repairer(
    kubeconfig: &std::path::Path,
    identity: &str,
    cloud: &Cloud,
) -> anyhow::Result<Daemon> {
    repairer_with(kubeconfig, identity, cloud, &[])
}

fn repairer_with(
    kubeconfig: &std::path::Path,
    identity: &str,
    cloud: &Cloud,
    more: &[&str],
) -> anyhow::Result<Daemon> {
    let kubeconfig = kubeconfig.to_string_lossy();
    let mut args = vec![
        "run",
        "--kubeconfig",
        &kubeconfig,
        "--identity",
        identity,
        "--log-format",
        "json",
        "--max-repairs-per-hour",
        "1000",
    ];
    args.extend_from_slice(more);
    Daemon::start("nodemend-repairer", &args, &cloud.sdk_environment())
}

pub(crate) fn custom(client: Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "nodemend.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "nodemend.dev/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::all_with(client, &resource)
}

/// Stops confirming the fault when dropped.
pub(crate) struct Sick(JoinHandle<()>);

impl Drop for Sick {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn reboots(cloud: &Cloud) -> u32 {
    let instances = cloud.instances();
    instances.iter().map(|instance| instance.reboots).sum()
}

async fn boot(nodes: &Api<Node>, instance: &str, boot: u32, well: bool) -> anyhow::Result<()> {
    let all = nodes.list(&ListParams::default()).await?.items;
    let is_it = |node: &&Node| {
        let id = node
            .spec
            .as_ref()
            .and_then(|spec| spec.provider_id.as_deref());
        id.is_some_and(|id| id.ends_with(instance))
    };
    let node = all.iter().find(is_it).context("the node is gone")?;
    let name = node.metadata.name.clone().unwrap_or_default();
    let info = node
        .status
        .as_ref()
        .and_then(|status| status.node_info.clone());
    let mut info = serde_json::to_value(info)?;
    info["bootID"] = json!(format!("boot-{boot}"));
    let patch = Patch::Strategic(json!({"status": {"nodeInfo": info}}));
    nodes
        .patch_status(&name, &PatchParams::default(), &patch)
        .await?;
    if well {
        write_storage(nodes, &name, true).await?;
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a condition carries the time of its writing"
)]
async fn write_storage(nodes: &Api<Node>, node: &str, healthy: bool) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let (status, reason) = if healthy {
        ("True", "StorageIsReady")
    } else {
        ("False", "FilesystemReadOnly")
    };
    let condition = json!({
        "type": "StorageReady",
        "status": status,
        "reason": reason,
        "message": "written by a test",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    });
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    nodes
        .patch_status(node, &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("write StorageReady of {node}"))?;
    Ok(())
}

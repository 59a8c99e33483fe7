//! What the tests of this program share: one runtime, one control plane. A test uses names that no
//! other test uses, and leaves alone what it did not make.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, PostParams};
use libtest_mimic::{Completion, Trial};
use nodemend_tests::control_plane::{self, ControlPlane};
use nodemend_tests::wait::until;
use nodemend_tests::{faults, repo};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// How long anything may take that normally takes a second.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Suite {
    runtime: Runtime,
    cluster: OnceCell<Arc<Cluster>>,
    /// Why nothing here can run on this host.
    impossible: Option<String>,
}

impl Suite {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("start tokio")?;
        let no_programs = control_plane::all_there()
            .err()
            .map(|error| format!("{error:#}"));
        let impossible = faults::unavailable().map(str::to_owned).or(no_programs);
        Ok(Self {
            runtime,
            cluster: OnceCell::new(),
            impossible,
        })
    }

    /// A test on the control plane that all tests share.
    pub(crate) fn trial<F, T>(self: &Arc<Self>, name: &str, test: F) -> Trial
    where
        F: FnOnce(Arc<Cluster>) -> T + Send + 'static,
        T: Future<Output = anyhow::Result<()>>,
    {
        let suite = Arc::clone(self);
        self.trial_alone(name, async move || {
            let cluster = suite
                .cluster
                .get_or_try_init(async || Cluster::start().await.map(Arc::new))
                .await?;
            test(Arc::clone(cluster)).await
        })
    }

    /// A test that brings its own control plane, or needs none.
    pub(crate) fn trial_alone<F>(self: &Arc<Self>, name: &str, test: F) -> Trial
    where
        F: AsyncFnOnce() -> anyhow::Result<()> + Send + 'static,
    {
        let suite = Arc::clone(self);
        Trial::ignorable_test(name, move || {
            if let Some(reason) = &suite.impossible {
                return Ok(Completion::ignored_with(reason));
            }
            suite
                .runtime
                .block_on(test())
                .map_err(|error| format!("{error:#}"))?;
            Ok(Completion::Completed)
        })
    }
}

pub(crate) struct Cluster {
    pub(crate) control_plane: ControlPlane,
    /// Of the service account that `deploy/rbac/detector.yaml` makes.
    pub(crate) detector_kubeconfig: PathBuf,
}

impl Cluster {
    async fn start() -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start().await?;
        control_plane
            .apply(&repo().join("deploy/rbac/detector.yaml"))
            .await?;
        let detector_kubeconfig = control_plane
            .kubeconfig_for_service_account("nodemend-system", "nodemend-detector")
            .await?;
        Ok(Self {
            control_plane,
            detector_kubeconfig,
        })
    }

    pub(crate) fn nodes(&self) -> Api<Node> {
        Api::all(self.control_plane.admin())
    }

    /// A Node object that nobody keeps alive.
    pub(crate) async fn create_node(&self, name: &str) -> anyhow::Result<Node> {
        let node =
            serde_json::from_value(json!({"metadata": {"name": name}})).context("write a Node")?;
        self.nodes()
            .create(&PostParams::default(), &node)
            .await
            .with_context(|| format!("create node {name}"))
    }

    pub(crate) async fn condition(
        &self,
        node: &str,
        kind: &str,
    ) -> anyhow::Result<Option<NodeCondition>> {
        let node = self
            .nodes()
            .get(node)
            .await
            .with_context(|| format!("get node {node}"))?;
        Ok(condition(&node, kind).cloned())
    }

    /// Waits until the condition stands with this status.
    pub(crate) async fn wait_condition(
        &self,
        node: &str,
        kind: &str,
        status: &str,
    ) -> anyhow::Result<NodeCondition> {
        until(SOON, &format!("{kind}={status} on {node}"), async || {
            Ok(self
                .condition(node, kind)
                .await?
                .filter(|condition| condition.status == status))
        })
        .await
    }

    /// The Event about this very Node (by UID) that `matches`; waits for it.
    pub(crate) async fn wait_event(
        &self,
        node: &Node,
        what: &str,
        matches: impl Fn(&Event) -> bool,
    ) -> anyhow::Result<Event> {
        let events: Api<Event> = Api::namespaced(self.control_plane.admin(), "default");
        until(SOON, what, async || {
            let all = events.list(&ListParams::default()).await?.items;
            let about = |event: &Event| {
                event
                    .regarding
                    .as_ref()
                    .is_some_and(|object| object.uid == node.metadata.uid)
            };
            Ok(all.into_iter().find(|event| about(event) && matches(event)))
        })
        .await
    }
}

pub(crate) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

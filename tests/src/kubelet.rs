//! What kwok leaves out of a kubelet: it runs a pod's container for real, as a process of this
//! host, under the pod's service account and with the pod's arguments and environment.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::daemon::Daemon;
use crate::wait::until;

/// Holds a pod's object until its containers have ended, as a kubelet does.
const HOLD: &str = "nodemend.dev/kubelet-of-the-tests";
const SOON: Duration = Duration::from_secs(30);
/// A cleanup waits up to a minute for the daemons, and then works.
const JOB: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(10);

/// Starts a container of a pod; the name of its image is that of the binary. `more` is what the
/// container's surroundings add to its environment.
pub async fn start(
    control_plane: &ControlPlane,
    pod: &Pod,
    container: &Container,
    more: &[(String, String)],
) -> anyhow::Result<Daemon> {
    let spec = pod.spec.as_ref().context("a pod has no spec")?;
    let kubeconfig = control_plane.kubeconfig_of_pod(pod).await?;
    let image = container.image.as_deref().unwrap_or_default();
    let binary = image
        .rsplit('/')
        .next()
        .and_then(|name| name.split(':').next());
    let mut environment = vec![(
        "KUBECONFIG".to_owned(),
        kubeconfig.to_string_lossy().into_owned(),
    )];
    environment.extend_from_slice(more);
    for variable in container.env.iter().flatten() {
        let field = variable
            .value_from
            .as_ref()
            .and_then(|source| source.field_ref.as_ref());
        let value = match field.map(|field| field.field_path.as_str()) {
            // An empty one is left out of the object.
            None if variable.value_from.is_none() => {
                Some(variable.value.clone().unwrap_or_default())
            }
            None => None,
            Some("spec.nodeName") => spec.node_name.clone(),
            Some("metadata.namespace") => pod.metadata.namespace.clone(),
            Some("metadata.name") => pod.metadata.name.clone(),
            Some(_unknown) => None,
        };
        let value = value.with_context(|| format!("{} has no value", variable.name))?;
        environment.push((variable.name.clone(), value));
    }
    let args: Vec<_> = container
        .args
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    Daemon::start(binary.context("an image has no name")?, &args, &environment)
}

/// Keeps the pod's object from going before `release`.
pub async fn hold(pods: &Api<Pod>, pod: &Pod) -> anyhow::Result<()> {
    finalizers(pods, pod, json!([HOLD])).await
}

/// Waits until the pod is to go, stops its container, and lets the object go.
pub async fn stop_when_deleted(
    pods: &Api<Pod>,
    pod: &Pod,
    daemon: &mut Daemon,
) -> anyhow::Result<()> {
    let name = name(pod)?;
    until(JOB, &format!("the end of pod {name}"), async || {
        Ok(pods.get(name).await?.metadata.deletion_timestamp)
    })
    .await?;
    let status = daemon.terminate(GRACE)?;
    ensure!(status.success(), "after SIGTERM it ended with {status}");
    finalizers(pods, pod, json!(null)).await
}

async fn finalizers(pods: &Api<Pod>, pod: &Pod, value: serde_json::Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": value}}));
    pods.patch(name(pod)?, &PatchParams::default(), &patch)
        .await
        .context("set the finalizers of a pod")?;
    Ok(())
}

/// Waits for the pod of a Job, runs all of its containers to their end, and says how that was.
/// Returns what they printed.
pub async fn run_job(
    control_plane: &ControlPlane,
    namespace: &str,
    labels: &str,
    more: &[(String, String)],
) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(control_plane.admin(), namespace);
    let pod = until(SOON, &format!("a running pod with {labels}"), async || {
        let found = pods.list(&ListParams::default().labels(labels)).await?;
        Ok(found.items.into_iter().find(|pod| phase(pod) == "Running"))
    })
    .await?;
    let mut output = String::new();
    let mut failed = Vec::new();
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        let mut daemon = start(control_plane, &pod, container, more).await?;
        output += &tokio::time::timeout(JOB, daemon.output())
            .await
            .with_context(|| format!("wait for {} to end", container.name))?;
        if !daemon.wait_exit(GRACE)?.success() {
            failed.push(container.name.clone());
        }
    }
    let phase = if failed.is_empty() {
        "Succeeded"
    } else {
        "Failed"
    };
    pods.patch_status(
        name(&pod)?,
        &PatchParams::default(),
        &Patch::Merge(json!({"status": {"phase": phase}})),
    )
    .await
    .context("set the phase of a pod")?;
    ensure!(failed.is_empty(), "{failed:?} failed:\n{output}");
    Ok(output)
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn name(pod: &Pod) -> anyhow::Result<&str> {
    pod.metadata.name.as_deref().context("a pod has no name")
}

//! Server-side apply of the manifests that `deploy/` ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::Scope;
use kube::{Api, Client};

use crate::wait::until;

const SERVED_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn apply(client: &Client, path: &Path) -> anyhow::Result<()> {
    for object in &objects(path)? {
        apply_one(client, object).await?;
    }
    Ok(())
}

/// The last first. A kind that is not served has no objects.
pub(super) async fn delete(client: &Client, path: &Path) -> anyhow::Result<()> {
    for object in objects(path)?.iter().rev() {
        let (gvk, name) = identity(object)?;
        let Ok((resource, capabilities)) = kube::discovery::pinned_kind(client, &gvk).await else {
            continue;
        };
        let api = api(client, &resource, &capabilities.scope, object);
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).with_context(|| format!("delete {} {name}", gvk.kind)),
        }
    }
    Ok(())
}

/// What others live in or are instances of comes first.
fn objects(path: &Path) -> anyhow::Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for file in files(path)? {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let documents: Vec<DynamicObject> = serde_saphyr::from_multiple(&text)
            .with_context(|| format!("parse {}", file.display()))?;
        objects.extend(documents);
    }
    ensure!(
        !objects.is_empty(),
        "nothing to apply in {}",
        path.display()
    );
    // The sort is stable.
    objects.sort_by_key(|object| !matches!(kind(object), "Namespace" | "CustomResourceDefinition"));
    Ok(objects)
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("read folder {}", path.display()))? {
        let file = entry
            .with_context(|| format!("read folder {}", path.display()))?
            .path();
        if file
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn kind(object: &DynamicObject) -> &str {
    object
        .types
        .as_ref()
        .map(|types| types.kind.as_str())
        .unwrap_or_default()
}

fn identity(object: &DynamicObject) -> anyhow::Result<(GroupVersionKind, &str)> {
    let types = object
        .types
        .as_ref()
        .context("a document has no apiVersion and kind")?;
    let name = object
        .metadata
        .name
        .as_deref()
        .with_context(|| format!("a {} has no name", types.kind))?;
    let gvk = GroupVersionKind::try_from(types)
        .with_context(|| format!("read apiVersion {}", types.api_version))?;
    Ok((gvk, name))
}

fn api(
    client: &Client,
    resource: &ApiResource,
    scope: &Scope,
    object: &DynamicObject,
) -> Api<DynamicObject> {
    match (scope, &object.metadata.namespace) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), resource),
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), namespace, resource)
        }
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), resource),
    }
}

async fn apply_one(client: &Client, object: &DynamicObject) -> anyhow::Result<()> {
    let (gvk, name) = identity(object)?;
    // A new CRD is Established a moment before discovery lists it.
    let (resource, capabilities) = until(
        SERVED_TIMEOUT,
        &format!("{} is served", gvk.kind),
        async || Ok(Some(kube::discovery::pinned_kind(client, &gvk).await?)),
    )
    .await?;
    let api = api(client, &resource, &capabilities.scope, object);
    api.patch(
        name,
        &PatchParams::apply("nodemend-tests").force(),
        &Patch::Apply(object),
    )
    .await
    .with_context(|| format!("apply {} {name}", gvk.kind))?;
    if gvk.kind == "CustomResourceDefinition" {
        established(client, name).await?;
    }
    Ok(())
}

async fn established(client: &Client, name: &str) -> anyhow::Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    until(
        SERVED_TIMEOUT,
        &format!("CRD {name} is Established"),
        async || {
            let conditions = crds
                .get(name)
                .await?
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|c| c.type_ == "Established" && c.status == "True")
                .then_some(()))
        },
    )
    .await
}

//! Names of pods, from kubelet's folders `<namespace>_<name>_<uid>`: the API server is not asked for
//! pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::event::Pod;
use crate::signal::Workload;

/// The folders may lie on the disk whose death is to be told.
const LIMIT: Duration = Duration::from_millis(500);

pub(super) struct Pods {
    logs: PathBuf,
    /// A look that has not come back: there is never more than one.
    looking: Option<JoinHandle<Option<(String, String)>>>,
}

impl Pods {
    pub(super) fn new(logs: PathBuf) -> Self {
        Self {
            logs,
            looking: None,
        }
    }

    pub(super) async fn find(&mut self, workload: &Workload) -> Pod {
        let container = workload
            .container_id
            .as_deref()
            .map(|id| format!(", container {id}"))
            .unwrap_or_default();
        let Some(uid) = &workload.pod_uid else {
            return Pod {
                label: format!("cgroup {}", workload.cgroup),
                reference: None,
            };
        };
        let Some((namespace, name)) = self.names_of(uid).await else {
            return Pod {
                label: format!("the pod with UID {uid} (not found on this node){container}"),
                reference: None,
            };
        };
        Pod {
            label: format!("pod {namespace}/{name} (UID {uid}){container}"),
            reference: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(namespace),
                name: Some(name),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            }),
        }
    }

    async fn names_of(&mut self, uid: &str) -> Option<(String, String)> {
        if self
            .looking
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return None;
        }
        let (logs, uid) = (self.logs.clone(), uid.to_owned());
        let mut task = tokio::task::spawn_blocking(move || folder_of(&logs, &uid));
        match timeout(LIMIT, &mut task).await {
            Ok(found) => found.ok().flatten(),
            Err(_elapsed) => {
                warn!(folder = %self.logs.display(), "the folder of the pods' logs cannot be listed in time; pods are named by their UID");
                self.looking = Some(task);
                None
            }
        }
    }
}

fn folder_of(pod_logs: &Path, uid: &str) -> Option<(String, String)> {
    let folders = fs::read_dir(pod_logs).ok()?;
    folders.flatten().find_map(|entry: fs::DirEntry| {
        let folder = entry.file_name().into_string().ok()?;
        // Neither namespaces nor pod names may contain an underscore.
        let mut parts = folder.splitn(3, '_');
        let (namespace, name, found) = (parts.next()?, parts.next()?, parts.next()?);
        (found == uid).then(|| (namespace.to_owned(), name.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

    fn in_pod() -> Workload {
        Workload {
            cgroup: "c".to_owned(),
            pod_uid: Some(UID.to_owned()),
            container_id: Some("abc".to_owned()),
        }
    }

    async fn found(logs: &Path, workload: &Workload) -> Pod {
        Pods::new(logs.to_owned()).find(workload).await
    }

    #[tokio::test]
    async fn a_pod_is_named_by_the_folder_of_its_logs() {
        let logs = tempfile::tempdir().unwrap();
        fs::create_dir(logs.path().join(format!("shop_web-1_{UID}"))).unwrap();
        let pod = found(logs.path(), &in_pod()).await;
        assert_eq!(
            pod.label,
            format!("pod shop/web-1 (UID {UID}), container abc")
        );
        let reference = pod.reference.unwrap();
        assert_eq!(
            (reference.namespace.as_deref(), reference.name.as_deref()),
            (Some("shop"), Some("web-1"))
        );
    }

    #[tokio::test]
    async fn a_pod_that_this_node_does_not_know_is_named_by_its_uid() {
        let logs = tempfile::tempdir().unwrap();
        let pod = found(logs.path(), &in_pod()).await;
        assert!(
            pod.label
                .contains(&format!("the pod with UID {UID} (not found on this node)"))
        );
        assert_eq!(pod.reference, None);
    }

    #[tokio::test]
    async fn a_cgroup_outside_of_pods_is_named() {
        let workload = Workload {
            cgroup: "system.slice/x.service".to_owned(),
            ..Workload::default()
        };
        let pod = found(Path::new("/nonexistent"), &workload).await;
        assert_eq!(pod.label, "cgroup system.slice/x.service");
    }
}

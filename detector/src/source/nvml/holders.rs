//! Which containers hold which GPUs, as kubelet gave them out (its pod-resources API).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use prost::Message;

use crate::grpc::{self, Failure};
use crate::text;

/// Below the host's /proc.
const SOCKET: &str = "1/root/var/lib/kubelet/pod-resources/kubelet.sock";
const METHOD: &str = "/v1.PodResourcesLister/List";
const PATIENCE: Duration = Duration::from_secs(2);
/// Of one GPU: those that share it by time slicing may be many.
const MOST: usize = 4;
const LONGEST: usize = 200;

#[derive(Clone, PartialEq, Message)]
struct Question {}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, repeated, tag = "1")]
    pods: Vec<Pod>,
}

#[derive(Clone, PartialEq, Message)]
struct Pod {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<Devices>,
}

#[derive(Clone, PartialEq, Message)]
struct Devices {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(string, repeated, tag = "2")]
    ids: Vec<String>,
}

/// By the device plugin's ID: a GPU's UUID, with `::<n>` behind it where it is shared.
pub(super) fn ask(proc: &Path) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    by_socket(&proc.join(SOCKET))
}

fn by_socket(socket: &Path) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let answer = grpc::unary(socket, METHOD, &Question {}, PATIENCE)?;
    Ok(by_device(answer))
}

fn by_device(answer: Answer) -> BTreeMap<String, Vec<String>> {
    let mut holders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in answer.pods {
        for container in pod.containers {
            let name = format!(
                "{}/{} container {}",
                pod.namespace, pod.name, container.name
            );
            // The separator of a condition's parts.
            let name = text::part(name, LONGEST);
            let devices = container.devices.into_iter();
            let ids = devices
                .filter(|devices| devices.resource.starts_with("nvidia.com/"))
                .flat_map(|devices| devices.ids);
            for id in ids {
                let uuid = id.split("::").next().unwrap_or(&id).to_owned();
                let of_gpu = holders.entry(uuid).or_default();
                if of_gpu.len() < MOST && !of_gpu.contains(&name) {
                    of_gpu.push(name.clone());
                }
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::server::{Deed, Server};

    fn pod(name: &str, resource: &str, ids: &[&str]) -> Pod {
        Pod {
            name: name.to_owned(),
            namespace: "ml".to_owned(),
            containers: vec![Container {
                name: "main".to_owned(),
                devices: vec![Devices {
                    resource: resource.to_owned(),
                    ids: ids.iter().map(|id| (*id).to_owned()).collect(),
                }],
            }],
        }
    }

    #[test]
    fn a_gpu_names_the_containers_that_hold_it() {
        let holders = by_device(Answer {
            pods: vec![
                pod("train", "nvidia.com/gpu", &["GPU-1", "GPU-2"]),
                pod(
                    "shared; a",
                    "nvidia.com/gpu.shared",
                    &["GPU-2::0", "GPU-2::1"],
                ),
                pod("efa", "vpc.amazonaws.com/efa", &["GPU-1"]),
            ],
        });
        assert_eq!(holders["GPU-1"], ["ml/train container main"]);
        assert_eq!(
            holders["GPU-2"],
            ["ml/train container main", "ml/shared, a container main"]
        );
    }

    #[test]
    fn kubelet_is_asked_and_not_waited_for() {
        let server = Server::start(|method, _| {
            assert_eq!(method, METHOD);
            let pods = vec![pod("train", "nvidia.com/gpu", &["GPU-1"])];
            Deed::Answer(Answer { pods }.encode_to_vec())
        });
        assert_eq!(
            by_socket(&server.socket).unwrap()["GPU-1"],
            ["ml/train container main"]
        );
        let server = Server::start(|_, _| Deed::Silence);
        assert_eq!(by_socket(&server.socket), Err(Failure::Late(PATIENCE)));
        assert_eq!(by_socket(Path::new("/nowhere")), Err(Failure::Absent));
    }

    #[test]
    fn a_gpu_that_many_share_names_a_few() {
        let pods = (0..100)
            .map(|n| pod(&n.to_string(), "nvidia.com/gpu", &["GPU-1::0"]))
            .collect();
        assert_eq!(by_device(Answer { pods })["GPU-1"].len(), MOST);
    }
}

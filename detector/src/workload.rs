//! PURE. The pod and container that cgroup names tell of.

use crate::signal::{OomLimit, Workload};
use crate::text;

impl Workload {
    /// `names` from the innermost cgroup outwards, as the kernel gave them.
    ///
    /// The systemd driver of kubelet makes `kubepods-burstable-pod<uid with _>.slice` with
    /// `cri-containerd-<64 hex>.scope` inside; the cgroupfs driver `pod<uid>` with `<64 hex>`.
    /// A container may nest cgroups of its own below, under names of its choice: so the outermost
    /// pod counts, and the container is the level right below it.
    pub(crate) fn from_cgroup_names(names: &[String]) -> Option<Self> {
        if names.is_empty() {
            return None;
        }
        let pod = (0..names.len())
            .rev()
            .find_map(|level| Some((level, pod_uid(names, level)?)));
        let container = match &pod {
            Some((level, _)) => names[..*level].last().and_then(|name| container_id(name)),
            None => names.iter().rev().find_map(|name| container_id(name)),
        };
        let path: Vec<_> = names
            .iter()
            .rev()
            .map(|name| text::printable(name.as_bytes(), 128))
            .collect();
        Some(Self {
            cgroup: path.join("/"),
            pod_uid: pod.map(|(_, uid)| uid),
            container_id: container,
        })
    }

    /// Whose it is, in words. Not by the whole cgroup path: what is below the container's cgroup is
    /// the container's choice.
    pub(crate) fn holder(&self) -> String {
        match (&self.pod_uid, &self.container_id) {
            (Some(pod), Some(container)) => format!("pod {pod} container {container}"),
            (Some(pod), None) => format!("pod {pod}"),
            (None, _) => self.cgroup.clone(),
        }
    }

    /// From `/proc/<pid>/cgroup`: a line for each hierarchy, of which some know no pods.
    pub(crate) fn from_cgroup_lines(text: &str) -> Option<Self> {
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        paths
            .filter_map(Self::from_cgroup_path)
            .max_by_key(|workload| (workload.pod_uid.is_some(), workload.container_id.is_some()))
    }

    /// From a line of `/proc/<pid>/cgroup` or any other whole path.
    pub(crate) fn from_cgroup_path(path: &str) -> Option<Self> {
        let names: Vec<_> = path
            .rsplit('/')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Self::from_cgroup_names(&names)
    }
}

impl OomLimit {
    /// `names` as above; `level`: that of the cgroup which has used up its limit.
    pub(crate) fn of_cgroup(names: &[String], level: usize) -> Self {
        let pod = (0..names.len())
            .rev()
            .find(|&level| pod_uid(names, level).is_some());
        match (pod, names.get(level)) {
            (Some(pod), Some(_)) if level == pod => Self::Pod,
            // Cgroups below the container's are its own business.
            (Some(pod), Some(_)) if level < pod => Self::Container,
            (Some(_), Some(name)) if name.contains("kubepods") => Self::AllPods,
            (_, Some(name)) => Self::Cgroup(text::printable(name.as_bytes(), 128)),
            (_, None) => Self::Unknown,
        }
    }
}

fn pod_uid(names: &[String], level: usize) -> Option<String> {
    let name = &names[level];
    let uid = match name.strip_suffix(".slice") {
        // `kubelet-kubepods-...` where kubelet itself runs in a container.
        Some(slice) => slice
            .contains("kubepods-")
            .then_some(slice)?
            .rsplit_once("-pod")?
            .1
            .replace('_', "-"),
        None => {
            let below_kubepods = names[level + 1..].iter().any(|outer| outer == "kubepods");
            name.strip_prefix("pod")
                .filter(|_| below_kubepods)?
                .to_owned()
        }
    };
    // A UUID, or the 32 hex digits of a static pod's configuration hash.
    let shape = uid.len() == 36 || uid.len() == 32;
    (shape && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')).then_some(uid)
}

fn container_id(name: &str) -> Option<String> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit('-').next()?;
    (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn systemd_driver_with_a_nested_cgroup() {
        let id = "a".repeat(64);
        let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
        let workload = Workload::from_cgroup_names(&names(&[
            "init",
            &format!("cri-containerd-{id}.scope"),
            &slice,
        ]))
        .unwrap();
        assert_eq!(workload.pod_uid.as_deref(), Some(UID));
        assert_eq!(workload.container_id, Some(id.clone()));
        assert_eq!(
            workload.cgroup,
            format!("{slice}/cri-containerd-{id}.scope/init")
        );
    }

    #[test]
    fn cgroupfs_driver_by_path() {
        let id = "0123456789abcdef".repeat(4);
        let workload =
            Workload::from_cgroup_path(&format!("/kubepods/burstable/pod{UID}/{id}")).unwrap();
        assert_eq!(workload.pod_uid.as_deref(), Some(UID));
        assert_eq!(workload.container_id, Some(id));
    }

    #[test]
    fn a_kubelet_inside_a_container_is_looked_through() {
        let (node, id) = ("c".repeat(64), "d".repeat(64));
        let slice = format!(
            "kubelet-kubepods-besteffort-pod{}.slice",
            UID.replace('-', "_")
        );
        let path = format!(
            "/docker/{node}/kubelet.slice/kubelet-kubepods.slice/{slice}/cri-containerd-{id}.scope"
        );
        let workload = Workload::from_cgroup_path(&path).unwrap();
        assert_eq!(
            (workload.pod_uid.as_deref(), workload.container_id),
            (Some(UID), Some(id))
        );
    }

    #[test]
    fn a_cgroup_called_like_a_pod_outside_of_kubepods_is_none() {
        let workload = Workload::from_cgroup_path(&format!("/user.slice/pod{UID}")).unwrap();
        assert_eq!(workload.pod_uid, None);
    }

    #[test]
    fn a_host_service_has_no_pod() {
        let workload =
            Workload::from_cgroup_path("/system.slice/podman-something.service").unwrap();
        assert_eq!((workload.pod_uid, workload.container_id), (None, None));
    }

    #[test]
    fn a_container_cannot_name_another_pod_from_below() {
        // The outermost match wins: the container chooses only the names below its own.
        let forged = format!("pod{}", UID.replace('0', "1"));
        let workload =
            Workload::from_cgroup_path(&format!("/kubepods/pod{UID}/{}/{forged}", "b".repeat(64)))
                .unwrap();
        assert_eq!(workload.pod_uid.as_deref(), Some(UID));
    }
}

//! Where a container runtime of the host listens for CRI.

use std::path::{Path, PathBuf};

/// Below the host's root. Bottlerocket's is the second one in older releases.
const SOCKETS: [&str; 3] = [
    "run/containerd/containerd.sock",
    "run/dockershim.sock",
    "run/crio/crio.sock",
];

/// Those of containerd, which tells of deprecations there as well.
const OF_CONTAINERD: usize = 2;

pub(super) struct RuntimeSockets(PathBuf);

impl RuntimeSockets {
    pub(super) fn of(proc: &Path) -> Self {
        Self(proc.join("1/root"))
    }

    /// The first one that is there; where none is, the usual one.
    pub(super) fn any(&self) -> PathBuf {
        self.first(&SOCKETS)
    }

    pub(super) fn of_containerd(&self) -> PathBuf {
        self.first(&SOCKETS[..OF_CONTAINERD])
    }

    fn first(&self, sockets: &[&str]) -> PathBuf {
        let mut places = sockets.iter().map(|socket| self.0.join(socket));
        let there = places.find(|place| place.exists());
        there.unwrap_or_else(|| self.0.join(SOCKETS[0]))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn found(files: &[&str]) -> [String; 2] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("1/root");
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let sockets = RuntimeSockets::of(folder.path());
        [sockets.any(), sockets.of_containerd()]
            .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
    }

    #[test]
    fn each_runtimes_own_socket_is_found_and_crio_is_not_asked_as_containerd() {
        let [containerd, bottlerocket, crio] = SOCKETS;
        assert_eq!(found(&[]), [containerd, containerd]);
        assert_eq!(found(&[containerd]), [containerd, containerd]);
        assert_eq!(found(&[bottlerocket]), [bottlerocket, bottlerocket]);
        assert_eq!(found(&[crio]), [crio, containerd]);
        assert_eq!(found(&[crio, containerd]), [containerd, containerd]);
    }
}

//! Where the programs of the control plane are: in the folder that `KUBEBUILDER_ASSETS` names as
//! far as it has them (that of envtest has etcd, kube-apiserver and kubectl), else in those that
//! `cargo xtask` built.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

const ALL: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kwok",
];

pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    find(name, &folders())
}

/// An error names what is missing.
pub fn all_there() -> anyhow::Result<()> {
    let folders = folders();
    let missing: Vec<_> = ALL
        .into_iter()
        .filter(|name| find(name, &folders).is_err())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "no {} to run: `cargo xtask control-plane` builds them; set NODEMEND_CONTROL_PLANE_BIN to the folder that it prints",
        missing.join(", ")
    )
}

pub fn has_floor() -> bool {
    program("kube-apiserver-floor").is_ok()
}

fn folders() -> Vec<OsString> {
    [
        "KUBEBUILDER_ASSETS",
        "NODEMEND_CONTROL_PLANE_BIN",
        "NODEMEND_FLOOR_BIN",
        "NODEMEND_KUBELET_BIN",
    ]
    .into_iter()
    .filter_map(env::var_os)
    .collect()
}

fn find(name: &str, folders: &[OsString]) -> anyhow::Result<PathBuf> {
    folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("find {name} in {folders:?}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_assets_come_first_and_the_rest_from_our_own_build() {
        let (assets, built) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in [
            assets.path().join("etcd"),
            built.path().join("etcd"),
            built.path().join("kwok"),
        ] {
            fs::write(path, "").unwrap();
        }
        let folders = [assets.path().into(), built.path().into()];
        assert_eq!(find("etcd", &folders).unwrap(), assets.path().join("etcd"));
        assert_eq!(find("kwok", &folders).unwrap(), built.path().join("kwok"));
        assert!(find("kubectl", &folders).is_err());
    }
}

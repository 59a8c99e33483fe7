//! A containerd that tells what is deprecated in its configuration (since 1.7.12): that of the newest Debian,
//! which may be newer than what this system's own packages have. Unpacked into the user's cache.

use std::env::consts::ARCH;
use std::path::PathBuf;

use anyhow::ensure;

use crate::vm::{TOOLS, debian};

/// For the tests, one or the other: where it is, or why it cannot be had.
pub(crate) const PROGRAM: &str = "NODEMEND_NEW_CONTAINERD";
pub(crate) const MISSING: &str = "NODEMEND_NEW_CONTAINERD_MISSING";

pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    ensure!(ARCH == "x86_64", "containerd is unpacked for x86-64 alone");
    debian::file(TOOLS, "main", "containerd", "usr/bin/containerd")
}

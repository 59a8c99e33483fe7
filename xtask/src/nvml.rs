//! NVIDIA's own management library, of Debian's package: without a driver it must be survived. Unpacked
//! into the user's cache, not installed.

use std::env::consts::ARCH;
use std::path::PathBuf;

use crate::vm::debian;

/// For the tests, one or the other: where it is, or why it cannot be had.
pub(crate) const LIBRARY: &str = "NODEMEND_NVML";
pub(crate) const MISSING: &str = "NODEMEND_NVML_MISSING";

pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let path = format!("usr/lib/{ARCH}-linux-gnu/nvidia/current/libnvidia-ml.so.1");
    debian::file("bookworm", "non-free", "libnvidia-ml1", &path)
}

//! NVIDIA's own management library, of Debian's package: without a driver it must be survived. Unpacked
//! into the user's cache, not installed.

use std::env::consts::ARCH;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::cache;
use crate::vm::debian::Suite;

/// For the tests, one or the other: where it is, or why it cannot be had.
pub(crate) const LIBRARY: &str = "NODEMEND_NVML";
pub(crate) const MISSING: &str = "NODEMEND_NVML_MISSING";

pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let cache = cache::dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join("libnvidia-ml1.lock")).context("create a lock")?;
    lock.lock().context("wait for another download")?;
    let folder = cache.join("libnvidia-ml1");
    let library = folder.join(format!(
        "usr/lib/{ARCH}-linux-gnu/nvidia/current/libnvidia-ml.so.1"
    ));
    if !library.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Suite::open_component("bookworm", "non-free", &folder, false)
            .and_then(|suite| suite.unpack(&["libnvidia-ml1"], &folder))
            .context("fetch libnvidia-ml1 of Debian's non-free packages")?;
        ensure!(
            library.exists(),
            "libnvidia-ml1 has no {}",
            library.display()
        );
    }
    Ok(library)
}

//! A folder of unpacked packages, which is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Makes it if it is not there.
pub(crate) fn once(
    folder: &Path,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let mut unfinished = folder.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .with_context(|| format!("remove {}", unfinished.display()))?;
    }
    fs::create_dir_all(&unfinished).with_context(|| format!("create {}", unfinished.display()))?;
    make(&unfinished)?;
    fs::rename(&unfinished, folder).with_context(|| format!("move to {}", folder.display()))
}

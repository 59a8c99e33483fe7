//! A kernel setting that is changed for a while.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

pub(super) struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    /// `name` as below `/proc/sys`; `None` where this kernel does not have it.
    pub(super) fn set(name: &str, value: &str) -> anyhow::Result<Option<Self>> {
        let path = PathBuf::from("/proc/sys").join(name);
        if !path.exists() {
            return Ok(None);
        }
        let before =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // Some handlers want the newline.
        fs::write(&path, format!("{value}\n"))
            .with_context(|| format!("write {value} to {}", path.display()))?;
        Ok(Some(Self {
            path,
            before: before.trim().to_owned(),
        }))
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, format!("{}\n", self.before)) {
            eprintln!(
                "could not restore {} to {}: {error}",
                self.path.display(),
                self.before
            );
        }
    }
}

//! A kernel setting that is changed for a while: a file of procfs or sysfs.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    pub fn change(path: impl Into<PathBuf>, value: &str) -> anyhow::Result<Self> {
        let path = path.into();
        let before =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // Some handlers want the newline.
        fs::write(&path, format!("{value}\n"))
            .with_context(|| format!("write {value} to {}", path.display()))?;
        Ok(Self {
            path,
            before: before.trim().to_owned(),
        })
    }

    /// `name` as below `/proc/sys`; `None` where this kernel does not have it.
    pub(super) fn sysctl(name: &str, value: &str) -> anyhow::Result<Option<Self>> {
        let path = PathBuf::from("/proc/sys").join(name);
        path.exists().then(|| Self::change(path, value)).transpose()
    }
}

impl Drop for Setting {
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

//! As many open files as the host allows, nearly: the limit comes to what is open.

use std::fs;

use anyhow::Context;

use super::setting::Setting;

/// Dropping it restores the limit. Root may open more files than that; others have 2 % left.
pub struct NearlyAllFiles {
    _limit: Setting,
}

impl NearlyAllFiles {
    pub fn open() -> anyhow::Result<Self> {
        let path = "/proc/sys/fs/file-nr";
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let used = text.split_ascii_whitespace().next().unwrap_or_default();
        let used: u64 = used
            .parse()
            .with_context(|| format!("read {path}: {text}"))?;
        let limit = (used * 102 / 100).to_string();
        let limit = Setting::sysctl("fs/file-max", &limit)?.context("find the limit of files")?;
        Ok(Self { _limit: limit })
    }
}

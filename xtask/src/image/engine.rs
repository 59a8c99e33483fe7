//! Into the local storage of a container engine: buildah's, or else podman's.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

pub(super) struct Engine(PathBuf);

impl Engine {
    /// In these folders (`PATH`).
    pub(super) fn find(path: &OsStr) -> Option<Self> {
        ["buildah", "podman"].into_iter().find_map(|tool| {
            let mut places = env::split_paths(path).map(|folder| folder.join(tool));
            places.find(|place| place.is_file()).map(Self)
        })
    }

    /// Returns what it is called there.
    pub(super) fn put(&self, layouts: &Path, name: &str, version: &str) -> anyhow::Result<String> {
        // A relative path: it becomes the image's first name.
        let said = self.run(layouts, &["pull", "--quiet", &format!("oci:{name}")])?;
        let id = said.lines().next_back().unwrap_or_default().trim();
        let image = format!("localhost/{name}:{version}");
        self.run(layouts, &["tag", id, &image])?;
        Ok(format!("{image} is in the storage of {}", self.0.display()))
    }

    fn run(&self, folder: &Path, args: &[&str]) -> anyhow::Result<String> {
        let what = format!("{} {}", self.0.display(), args.join(" "));
        let output = Command::new(&self.0)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("run {what}"))?;
        ensure!(output.status.success(), "{what} failed ({})", output.status);
        String::from_utf8(output.stdout).with_context(|| format!("read what {what} says"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn buildah_comes_before_podman_wherever_they_are() {
        let folder = env::temp_dir().join(format!("nodemend-engine-{}", std::process::id()));
        let (first, second) = (folder.join("first"), folder.join("second"));
        fs::create_dir_all(&first).unwrap();
        fs::create_dir_all(&second).unwrap();
        let path = env::join_paths([&first, &second]).unwrap();
        let found = || Engine::find(&path).map(|engine| engine.0);
        let mut seen = vec![found()];
        for (tool, place) in [("podman", &first), ("buildah", &second)] {
            fs::write(place.join(tool), "").unwrap();
            seen.push(found());
        }
        fs::remove_dir_all(&folder).unwrap();
        let (podman, buildah) = (first.join("podman"), second.join("buildah"));
        assert_eq!(seen, [None, Some(podman), Some(buildah)]);
    }
}

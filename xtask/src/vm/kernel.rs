//! Debian's kernels: the image, and its modules with their dependencies resolved.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use super::debian::Suite;
use super::{module, tree};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    #[value(name = "7.2")]
    V7_2,
}

impl Kernel {
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::V7_2];

    /// The one of a whole test run.
    pub(crate) const SHORT: Self = Self::V6_12;

    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    /// What the suite calls its faults.
    pub(crate) fn test(self) -> String {
        format!("linux_{}", self.version())
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_2 => "sid",
        }
    }

    /// A folder named for the version, with the newest of Debian's builds of it: `vmlinuz`, `release`
    /// (what `uname -r` says), `package` and `lib/modules`.
    pub(super) fn ensure(self, repo: &Path, folder: &Path, newest: bool) -> anyhow::Result<()> {
        let place = folder.join(self.version());
        let suite = Suite::open(self.suite(), folder, newest)?;
        if !place.exists() || newest {
            self.fetch(&suite, &place, folder)?;
        }
        let release = fs::read_to_string(place.join("release")).context("read a release")?;
        module::ensure(&suite, &place, &release, repo)
    }

    fn fetch(self, suite: &Suite, place: &Path, folder: &Path) -> anyhow::Result<()> {
        let depends = suite.field("linux-image-amd64", "Depends")?;
        let image = depends
            .split(", ")
            .filter_map(|dependency| dependency.split(' ').next())
            .find(|name| name.starts_with("linux-image-"))
            .context("linux-image-amd64 depends on no image")?;
        let version = suite.field(image, "Version")?;
        ensure!(
            version.starts_with(&format!("{}.", self.version())),
            "Debian's {} has Linux {version} now, and no {} any more",
            self.suite(),
            self.version()
        );
        let package = format!("{image} {version}");
        if fs::read_to_string(place.join("package")).is_ok_and(|before| before == package) {
            return Ok(());
        }
        if place.exists() {
            fs::remove_dir_all(place).context("remove an older kernel")?;
        }
        tree::once(place, |tree| {
            // Newer ones are split into three.
            let parts: Vec<_> = suite
                .field(image, "Depends")?
                .split(", ")
                .filter_map(|dependency| dependency.split(' ').next().map(str::to_owned))
                .filter(|name| {
                    name.starts_with("linux-binary-") || name.starts_with("linux-modules-")
                })
                .collect();
            let packages: Vec<_> = [image]
                .into_iter()
                .chain(parts.iter().map(String::as_str))
                .collect();
            suite.unpack(&packages, tree)?;
            lay_out(tree, &folder.join("guest"))?;
            fs::write(tree.join("package"), &package).context("name the package")
        })
    }
}

/// Where the kernel is, what it calls itself, and what its modules need of each other.
fn lay_out(tree: &Path, guest: &Path) -> anyhow::Result<()> {
    // Newer packages have the modules below /usr, where the distribution has its /lib.
    let merged = tree.join("usr/lib/modules");
    if merged.exists() {
        fs::create_dir_all(tree.join("lib")).context("make lib")?;
        fs::rename(&merged, tree.join("lib/modules")).context("move the modules")?;
    }
    let modules = only_entry(&tree.join("lib/modules"))?;
    let release = file_name(&modules).to_owned();
    // And the image beside the modules.
    let image = [
        modules.join("vmlinuz"),
        tree.join(format!("boot/vmlinuz-{release}")),
    ];
    let image = image
        .iter()
        .find(|image| image.exists())
        .with_context(|| format!("find the image of Linux {release} in its packages"))?;
    fs::rename(image, tree.join("vmlinuz")).context("move the kernel")?;
    let mut depmod = in_tree(guest, "usr/sbin/depmod");
    depmod.arg("-b").arg(tree).arg(&release);
    let status = depmod.status().context("run depmod")?;
    ensure!(status.success(), "depmod of {release} ended with {status}");
    fs::write(tree.join("release"), release).context("write the release")
}

fn only_entry(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", folder.display()))?;
    Ok(entry.context("list a folder")?.path())
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// A program of an unpacked tree, with the libraries of the tree.
pub(crate) fn in_tree(tree: &Path, program: &str) -> Command {
    let libraries: Vec<PathBuf> = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"]
        .iter()
        .map(|folder| tree.join(folder))
        .collect();
    let path = std::env::join_paths(libraries).unwrap_or_else(|_| OsString::new());
    let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(path)
        .arg(tree.join(program));
    command
}

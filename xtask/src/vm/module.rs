//! The module that provokes what nothing else can, built for a kernel with the compiler of its suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::debian::Suite;
use super::tree;
use crate::progress;

const SOURCES: [&str; 2] = ["Kbuild", "nodemend_faults.c"];
const MODULE: &str = "nodemend_faults.ko";

/// What every package counts on without saying so.
const ESSENTIAL: &[&str] = &[
    "bash",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "mawk",
    "sed",
];

/// Puts it among the modules of the kernel at `place`, unless it is there and newer than its sources.
pub(super) fn ensure(
    suite: &Suite,
    place: &Path,
    release: &str,
    repo: &Path,
) -> anyhow::Result<()> {
    let sources = repo.join("tests/vm/module");
    let kept = place.join("module");
    let same = SOURCES.iter().all(|name| {
        let (ours, built) = (fs::read(sources.join(name)), fs::read(kept.join(name)));
        ours.ok().is_some_and(|ours| built.ok() == Some(ours))
    });
    if same && kept.join(MODULE).exists() {
        return Ok(());
    }
    let headers = format!("linux-headers-{release}");
    let root = place.join("build");
    tree::once(&root, |tree| {
        let packages = [&[headers.as_str(), "make"], ESSENTIAL].concat();
        suite.unpack_with_dependencies(&packages, tree)?;
        make_root(tree)
    })?;
    let inside = root.join("module");
    for folder in [&inside, &kept] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    for name in SOURCES {
        fs::copy(sources.join(name), inside.join(name)).context("copy the module's sources")?;
    }
    let mut make = Command::new("unshare");
    // objtool looks up its limits in /proc.
    make.args(["--fork", "--pid", "--mount-proc"])
        .arg(format!("--root={}", root.display()))
        .args(["/usr/bin/make", "-C"])
        .arg(format!("/usr/src/{headers}"))
        // Types of modules would need the whole kernel.
        .args(["M=/module", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let what = format!("building the test module for Linux {release}");
    let (status, lines) = progress::run(&mut make, &what, |_| progress::Line::Message)
        .context("enter the folder with Debian's compiler: that needs root")?;
    ensure!(
        status.success(),
        "{what}: make ended with {status}:\n{}",
        lines.join("\n")
    );
    for name in SOURCES.into_iter().chain([MODULE]) {
        fs::copy(inside.join(name), kept.join(name)).context("keep the module")?;
    }
    Ok(())
}

/// What packages leave to their scripts.
fn make_root(tree: &Path) -> anyhow::Result<()> {
    for folder in ["dev", "tmp", "proc"] {
        fs::create_dir_all(tree.join(folder)).context("make a folder")?;
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        // dash and mawk are alternatives.
        ("usr/bin/sh", "dash"),
        ("usr/bin/awk", "mawk"),
    ] {
        let link = tree.join(link);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(target, &link)
                .with_context(|| format!("link {}", link.display()))?;
        }
    }
    let null: PathBuf = tree.join("dev/null");
    let status = Command::new("mknod")
        .arg(&null)
        .args(["-m", "666", "c", "1", "3"])
        .status()
        .context("run mknod")?;
    ensure!(
        status.success(),
        "make {}: mknod ended with {status}",
        null.display()
    );
    Ok(())
}

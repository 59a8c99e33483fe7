//! The guest's first and only file system: an archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{MODULES, Parts};
use crate::daemon;

const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

/// Programs of the guest that are run by name, and the loader.
const PROGRAMS: &[&str] = &[
    "usr/bin/busybox",
    "usr/bin/kmod",
    "usr/bin/ip",
    "usr/sbin/dmsetup",
    "usr/sbin/mkfs.btrfs",
    "usr/sbin/mkfs.xfs",
    "usr/sbin/xfs_io",
    "usr/sbin/insmod",
    "usr/sbin/modprobe",
    "usr/sbin/mke2fs",
    "usr/sbin/mkfs.ext4",
    "usr/sbin/nft",
    "usr/lib64/ld-linux-x86-64.so.2",
];

pub(super) fn write(parts: &Parts, path: &Path) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut archive = Archive {
        out: BufWriter::new(file),
        folders: BTreeSet::new(),
    };
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib64", "usr/lib64"),
    ] {
        archive.link(link, Path::new(target))?;
    }
    for folder in ["dev", "proc", "sys", "tmp", "run", "etc", "root", "mnt"] {
        archive.folder(Path::new(folder))?;
    }
    for program in PROGRAMS {
        archive.take(&parts.guest, Path::new(program))?;
    }
    // With /lib a folder, as the modules are below it.
    let libraries = Path::new("usr/lib/x86_64-linux-gnu");
    for entry in list(&parts.guest.join(libraries))? {
        if entry.to_string_lossy().contains(".so") {
            archive.take(&parts.guest, &libraries.join(entry))?;
        }
    }
    archive.link(
        "lib/x86_64-linux-gnu",
        Path::new("/usr/lib/x86_64-linux-gnu"),
    )?;
    let modules = Path::new("lib/modules").join(parts.release()?.trim());
    for module in needed(&parts.kernel.join(&modules))? {
        archive.take(&parts.kernel, &modules.join(module))?;
    }
    for entry in list(&parts.kernel.join(&modules))? {
        if entry.to_string_lossy().starts_with("modules.") {
            archive.take(&parts.kernel, &modules.join(entry))?;
        }
    }
    archive.file(
        Path::new("nodemend/nodemend_faults.ko"),
        &parts.kernel.join("module/nodemend_faults.ko"),
    )?;
    for name in ["nodemend-detector", "nodemend-fault"] {
        archive.file(&Path::new("nodemend").join(name), &daemon::binary(name)?)?;
    }
    archive.file(Path::new("init"), &daemon::binary("nodemend-guest")?)?;
    let mut out = cpio::newc::trailer(archive.out).context("end the archive")?;
    out.flush().context("write the archive")
}

/// The modules and what they need, below the folder of the modules.
fn needed(modules: &Path) -> anyhow::Result<BTreeSet<String>> {
    let path = modules.join("modules.dep");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let wanted = |module: &str| {
        let name = module.rsplit('/').next().unwrap_or_default();
        let name = name.split(".ko").next().unwrap_or_default();
        // Both are one character to the kernel.
        MODULES.contains(&name.replace('-', "_").as_str())
    };
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(module, _)| wanted(module))
        .flat_map(|(module, needs)| [module].into_iter().chain(needs.split_whitespace()))
        .map(str::to_owned)
        .collect())
}

struct Archive {
    out: BufWriter<File>,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    /// A file or a link of an unpacked tree, at the same place.
    fn take(&mut self, tree: &Path, path: &Path) -> anyhow::Result<()> {
        let from = tree.join(path);
        let kind =
            fs::symlink_metadata(&from).with_context(|| format!("find {}", from.display()))?;
        if kind.is_symlink() {
            let target = fs::read_link(&from).context("read a link")?;
            self.link(&path.to_string_lossy(), &target)
        } else if kind.is_file() {
            self.file(path, &from)
        } else {
            Ok(())
        }
    }

    fn file(&mut self, path: &Path, from: &Path) -> anyhow::Result<()> {
        self.parents(path)?;
        let contents = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let mode = fs::metadata(from)
            .with_context(|| format!("look at {}", from.display()))?
            .permissions()
            .mode();
        self.entry(path, FILE | (mode & 0o777), &contents)
    }

    fn link(&mut self, path: &str, target: &Path) -> anyhow::Result<()> {
        let path = Path::new(path);
        self.parents(path)?;
        self.entry(path, LINK, target.as_os_str().as_encoded_bytes())
    }

    fn folder(&mut self, path: &Path) -> anyhow::Result<()> {
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[])?;
        }
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut folders: Vec<_> = path.ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders {
            if !folder.as_os_str().is_empty() {
                self.folder(folder)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, mode: u32, contents: &[u8]) -> anyhow::Result<()> {
        let write = |out: &mut BufWriter<File>| -> io::Result<()> {
            let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
            let mut entry = cpio::newc::Builder::new(&path.to_string_lossy())
                .mode(mode)
                .write(out, size);
            entry.write_all(contents)?;
            entry.finish().map(drop)
        };
        write(&mut self.out).with_context(|| format!("add {} to the archive", path.display()))
    }
}

fn list(folder: &Path) -> anyhow::Result<Vec<std::ffi::OsString>> {
    fs::read_dir(folder)
        .with_context(|| format!("list {}", folder.display()))?
        .map(|entry| Ok(entry.context("list a folder")?.file_name()))
        .collect()
}
